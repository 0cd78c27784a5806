"""The measurements of one engine, and of pandas on the same rows: each in a child process, one after the other."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

import psutil
from rich.progress import Progress

from include.settings import ROOT
from include.warehouse.models import build_order, load_models
from tests.benchmarks.segments.engines import New, drop
from tests.benchmarks.segments.measure import AUDIENCES, BOUND_RUNS
from tests.benchmarks.segments.shop import DAYS, Shop

NEW_LOADS = DAYS // 100


class Died(Exception):
    """A measurement that did not come to its end."""


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


@dataclass
class Rival:
    """pandas on so many events, or why it could not."""

    events: int
    measured: Measured
    failure: str = ""


@dataclass
class Figures:
    """All of one engine. `short` and `long` are the same small load on a history and on one ten times as long."""

    engine: str
    bound: Measured
    bound_seconds: float
    full: Measured
    segments: Measured
    new: Measured
    new_segments: Measured
    digests: tuple[Measured, Measured]
    short: Measured | None = None
    long: Measured | None = None
    rival: Rival | None = None
    # The same work as the rival's, on its number of events.
    ours: tuple[Measured, Measured] | None = None

    @property
    def differs(self) -> bool:
        return bool(self.differences)

    def other_rows(self, figures: Figures) -> list[str]:
        """Audiences that have other rows there, after the first build or after the new loads."""
        return [
            name
            for name in AUDIENCES
            if any(
                mine.rows(name) != theirs.rows(name) for mine, theirs in zip(self.digests, figures.digests, strict=True)
            )
        ]

    @property
    def differences(self) -> list[str]:
        """Audiences that have another size in pandas."""
        if self.rival is None or self.rival.failure or self.ours is None:
            return []
        pairs = {name: (self.ours[1].rows(name), self.rival.measured.rows(name)) for name in AUDIENCES}
        return [
            f"{name}: {ours:,} here, {theirs:,} in pandas" for name, (ours, theirs) in pairs.items() if ours != theirs
        ]


def measure(progress: Progress, title: str, total: int, *arguments: str) -> Measured:
    """Run one measurement in a child process and follow it."""
    task = progress.add_task(title, total=total)
    measured = Measured()
    command = [sys.executable, "-m", "tests.benchmarks.segments.measure", *arguments]
    # Not a pipe: nobody reads what it logs before it is over.
    with (
        TemporaryFile("w+") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1) as child,
    ):
        for line in child.stdout or ():
            told = json.loads(line)
            if "part" in told:
                measured.parts.append((told["part"], told["rows"], told["seconds"]))
                done = told["rows"] if told["part"] == "loads" else len(measured.parts)
                progress.update(task, completed=done, description=f"{title}: {told['part']}")
            else:
                measured.seconds, measured.cpu_seconds = told["seconds"], told["cpu_seconds"]
                measured.peak_mb = told["peak_mb"]
        child.wait()
        log.seek(0)
        complaint = log.read().strip().splitlines()
    if child.returncode:
        progress.update(task, description=f"{title}: died")
        why = complaint[-1] if complaint else f"ended by signal {-child.returncode}"
        raise Died(f"{title}: {why[:200]}")
    said = f"{title}: {measured.seconds:.1f} s"
    progress.update(task, description=said, completed=total, total=total)
    if progress.disable:
        progress.console.print(said)
    return measured


class History:
    """One warehouse with so many daily loads of a shop in it."""

    def __init__(self, progress: Progress, title: str, url: str, shop: Shop, loads: int) -> None:
        self.progress, self.title, self.url, self.shop, self.loads = progress, title, url, shop, 0
        models = load_models()
        self.models = sum(
            models[name].schema in ("staging", "core", "reports") and models[name].materialized != "view"
            for name in build_order(models)
        )
        self.load(loads)

    def load(self, loads: int) -> None:
        first, self.loads = self.loads, self.loads + loads
        rate = ("--events-per-day", str(self.shop.events_per_day))
        which = ("--first", str(first), "--end", str(self.loads))
        self._measure("new rows" if first else "rows", loads, "generate", *rate, *which)

    def bound(self) -> Measured:
        return self._measure("raw bound", BOUND_RUNS, "bound")

    def build(self, *, full: bool) -> Measured:
        title = "full build" if full else "incremental build"
        return self._measure(title, self.models, "tables", *self._as_of, *(["--full-refresh"] if full else []))

    def segments(self) -> Measured:
        return self._measure("segments", len(AUDIENCES), "segments", *self._as_of)

    def digests(self) -> Measured:
        return self._measure("rows of the audiences", len(AUDIENCES), "digests")

    @property
    def _as_of(self) -> tuple[str, str]:
        return "--as-of", self.shop.as_of(self.loads).isoformat()

    def _measure(self, what: str, total: int, verb: str, *arguments: str) -> Measured:
        return measure(self.progress, f"{self.title}: {what}", total, verb, "--url", self.url, *arguments)


def measure_engine(
    progress: Progress, engine: str, new: New, events: int, long_events: int, rival: Rival | None
) -> Figures:
    """A full build and a small one on a history of `events`, the small one again on two histories of the same rate."""
    main = History(progress, f"{engine}, {events:,} events", new("main"), Shop(events / DAYS), DAYS)
    bound = main.bound()
    full = main.build(full=True)
    segments = main.segments()
    first = main.digests()
    main.load(NEW_LOADS)
    figures = Figures(
        engine=engine,
        bound=bound,
        bound_seconds=statistics.median(seconds for _, _, seconds in bound.parts),
        full=full,
        segments=segments,
        new=main.build(full=False),
        new_segments=main.segments(),
        digests=(first, main.digests()),
        rival=rival,
    )
    drop(main.url)
    if long_events:
        shop = Shop(long_events / 10 / DAYS)
        figures.short = _small_load(History(progress, f"{engine}, {DAYS} days", new("short"), shop, DAYS))
        figures.long = _small_load(History(progress, f"{engine}, {10 * DAYS} days", new("long"), shop, 10 * DAYS))
    if rival is not None and not rival.failure:
        if rival.events == events:
            figures.ours = full, segments
        else:
            same = History(progress, f"{engine}, {rival.events:,} events", new("same"), Shop(rival.events / DAYS), DAYS)
            figures.ours = same.build(full=True), same.segments()
            drop(same.url)
    return figures


def _small_load(history: History) -> Measured:
    history.build(full=True)
    history.load(NEW_LOADS)
    small = history.build(full=False)
    drop(history.url)
    return small


def measure_pandas(progress: Progress, folder: Path, events: int) -> Rival:
    """The pandas script on a history of so many events, with the memory that is free now and no more."""
    shop, files = Shop(events / DAYS), folder / "parquet"
    shutil.rmtree(files, ignore_errors=True)
    where = ("--folder", str(files))
    rate = ("--events-per-day", str(shop.events_per_day), "--end", str(DAYS))
    title = f"pandas, {events:,} events"
    measure(progress, f"{title}: rows", DAYS, "parquet", *where, *rate)
    memory_mb = int(psutil.virtual_memory().available * 0.9) >> 20
    as_of = shop.as_of(DAYS).isoformat()
    try:
        measured = measure(
            progress, title, len(AUDIENCES), "pandas", *where, "--as-of", as_of, "--memory-mb", str(memory_mb)
        )
    except Died as error:
        return Rival(events, Measured(), f"did not survive {events:,} events in {memory_mb:,} MB ({error})")
    return Rival(events, measured)
