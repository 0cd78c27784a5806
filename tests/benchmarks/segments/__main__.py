"""`make bench-segments`: what tables and segments cost, beside one plain pass over the same events and beside pandas.

One table per engine. Every ratio in it is of two measurements of the same run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from include.settings import ROOT
from tests.benchmarks.segments.engines import CannotStart, running
from tests.benchmarks.segments.report import Line, lines_of, show, slowest
from tests.benchmarks.segments.run import Died, Figures, measure_engine, measure_pandas

out = Console()
err = Console(stderr=True)
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kKmM]?)")


def _count(text: str) -> int:
    """5000000, 5M or 500k."""
    found = _COUNT.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"'{text}' is no number of events; write 5000000, 5M or 500k")
    return int(float(found[1]) * {"": 1, "k": 1_000, "m": 1_000_000}[found[2].lower()])


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    (ROOT / "build").mkdir(exist_ok=True)
    with TemporaryDirectory(dir=ROOT / "build", prefix="bench-") as folder:
        yield Path(folder)


def main(
    events: Annotated[str, typer.Option(help="events of the history: 5M, 50M, ...")] = "5M",
    engines: Annotated[str, typer.Option(help="duckdb, postgres, spark; several with commas")] = "duckdb",
    against: Annotated[
        str | None, typer.Option(help="events that pandas gets; 0: no pandas; as EVENTS without")
    ] = None,
    long_history: Annotated[
        str | None, typer.Option(help="events of the ten times longer history; 0: none; as EVENTS without")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="the slowest models too")] = False,
    keep: Annotated[Path | None, typer.Option(help="a directory for the files, which are then kept")] = None,
) -> None:
    """Generate, build, measure, compare."""
    total = _count(events)
    pandas_events = total if against is None else _count(against)
    long_events = total if long_history is None else _count(long_history)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    differing = 0
    first: Figures | None = None
    with _folder(keep) as folder, Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        rival = measure_pandas(progress, folder, pandas_events) if pandas_events else None
        for engine in [word.strip() for word in engines.split(",") if word.strip()]:
            try:
                with running(engine, folder) as new:
                    figures = measure_engine(progress, engine, new, total, long_events, rival)
            except (CannotStart, Died) as error:
                show(out, f"{engine}, {total:,} events", [Line(engine, note=str(error))])
                differing += isinstance(error, Died)
                continue
            differing += figures.differs
            first = first or figures
            others = figures.other_rows(first)
            if others:
                err.print(f"{engine} has other rows than {first.engine}: {', '.join(others)}")
                differing += 1
            elif figures is not first:
                out.print(f"The audiences on {engine} are those on {first.engine}, to the row.")
            show(out, f"{engine}, {total:,} events, {figures.bound.rows('bound'):,} visitors", lines_of(figures))
            if verbose:
                out.print(slowest("the slowest models of the full build", figures.full))
                out.print(slowest("the slowest models with 1 % new events", figures.new))
    if differing:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
