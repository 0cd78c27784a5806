"""`make bench-segments`: what the tables and the segments cost, beside one plain pass over the same events."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from include.warehouse.build import build_order
from include.warehouse.models import load_models
from tests.benchmarks.segments.fill import DAYS
from tests.benchmarks.segments.shop import Shop

ROOT = Path(__file__).resolve().parents[3]
out = Console()
err = Console(stderr=True)


@dataclass
class Measured:
    """What one child process reported."""

    seconds: float = 0
    cpu_seconds: float = 0
    peak_mb: float = 0
    parts: list[tuple[str, int, float]] = field(default_factory=list)

    def of(self, prefix: str) -> float:
        return sum(seconds for name, _, seconds in self.parts if name.startswith(prefix))

    def rows(self, part: str) -> int:
        return next(rows for name, rows, _ in self.parts if name == part)


def run(progress: Progress, title: str, total: int | None, *arguments: str) -> Measured:
    """Run one measurement in a child process and follow it."""
    task = progress.add_task(title, total=total)
    measured = Measured()
    command = [sys.executable, "-m", "tests.benchmarks.segments.measure", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout or ():
            said = json.loads(line)
            if "part" in said:
                measured.parts.append((said["part"], said["rows"], said["seconds"]))
                done = said["rows"] if said["part"] == "loads" else len(measured.parts)
                progress.update(task, completed=done, description=f"{title}: {said['part']}")
            else:
                measured.seconds, measured.cpu_seconds = said["seconds"], said["cpu_seconds"]
                measured.peak_mb = said["peak_mb"]
    if child.returncode:
        raise SystemExit(f"{title}: the child process ended with {child.returncode}")
    progress.update(task, description=f"{title}: {measured.seconds:.1f} s", completed=total or 1, total=total or 1)
    return measured


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    (ROOT / "build").mkdir(exist_ok=True)
    with TemporaryDirectory(dir=ROOT / "build", prefix="bench-") as folder:
        yield Path(folder)


def _slowest(title: str, measured: Measured, count: int = 25) -> Table:
    table = Table("model", "rows", "seconds", "share", title=title)
    for name, rows, seconds in sorted(measured.parts, key=lambda part: -part[2])[:count]:
        table.add_row(name, f"{rows:,}", f"{seconds:.2f}", f"{seconds / measured.seconds:.0%}")
    return table


def main(
    events: Annotated[int, typer.Option(help="events of the history")] = 5_000_000,
    verbose: Annotated[bool, typer.Option("--verbose", help="the slowest models too")] = False,
    keep: Annotated[Path | None, typer.Option(help="a directory to keep the files in")] = None,
) -> None:
    """Generate, build, measure, compare."""
    models = load_models()
    count = sum(models[name].schema in ("staging", "core") for name in build_order(models))
    shop = Shop(events / DAYS)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with _folder(keep) as folder, Progress(*columns, console=err) as progress:
        path = folder / "warehouse.duckdb"
        url = f"duckdb:///{path}"

        def generate(title: str, first: int, end: int) -> Measured:
            where = ("--first", str(first), "--end", str(end))
            rate = ("--events-per-day", str(shop.events_per_day))
            return run(progress, title, end - first, "generate", "--url", url, *rate, *where)

        if not path.exists():
            generate(f"{events:,} events", 0, DAYS)
        as_of = ("--as-of", shop.as_of(DAYS).isoformat())
        later = ("--as-of", shop.as_of(DAYS + 2).isoformat())
        bound = run(progress, "raw bound", 1, "bound", "--url", url)
        full = run(progress, "full build", count, "tables", "--url", url, *as_of, "--full-refresh")
        segments = run(progress, "segments", 3, "segments", "--url", url, *as_of)
        generate("1 % new events", DAYS, DAYS + 2)
        new = run(progress, "incremental", count, "tables", "--url", url, *later)
    table = Table("what", "seconds", "cpu s", "rows", "peak MB", "ratio", title=f"DuckDB, {events:,} events")
    table.add_row(
        "raw bound",
        f"{bound.seconds:.2f}",
        f"{bound.cpu_seconds:.2f}",
        f"{bound.rows('bound'):,}",
        f"{bound.peak_mb:,.0f}",
    )
    table.add_row("staging", f"{full.of('staging.'):.2f}", "", "", "")
    table.add_row("core", f"{full.of('core.'):.2f}", "", "", "")
    table.add_row(
        "full build",
        f"{full.seconds:.2f}",
        f"{full.cpu_seconds:.2f}",
        "",
        f"{full.peak_mb:,.0f}",
        f"{full.seconds / bound.seconds:.1f}x bound",
    )
    for name, rows, seconds in segments.parts:
        table.add_row(name, f"{seconds:.2f}", "", f"{rows:,}", f"{segments.peak_mb:,.0f}")
    table.add_row(
        "1 % new",
        f"{new.seconds:.2f}",
        f"{new.cpu_seconds:.2f}",
        "",
        f"{new.peak_mb:,.0f}",
        f"{new.seconds / full.seconds:.1%} of full",
    )
    out.print(table)
    if verbose:
        out.print(_slowest("full build", full))
        out.print(_slowest("1 % new", new))


if __name__ == "__main__":
    typer.run(main)
