"""The table of one engine: what was measured, as a ratio of what, and whether the target is met."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tests.benchmarks.segments.measure import AUDIENCES
from tests.benchmarks.segments.run import Figures, Measured
from tests.benchmarks.segments.shop import DAYS

# Targets are for 50 M events of 2.5 M visitors on DuckDB; they are shown beside every figure and asserted nowhere.
BOUND_TIMES = 10.0
PEAK_MB = 8_000.0
SEGMENT_SECONDS = 1.0
NEW_SHARE = 0.05
LONG_TIMES = 1.3
PANDAS_TIMES = 20.0


@dataclass
class Line:
    """One line of the table."""

    what: str
    seconds: float | None = None
    cpu_seconds: float | None = None
    rows: int | None = None
    peak_mb: float | None = None
    ratio: str = ""
    target: str = ""
    is_met: bool | None = None
    note: str = ""

    def aiming(self, target: str, is_met: bool) -> Line:
        """The line with its target and whether it is met."""
        self.target, self.is_met = target, is_met
        return self


def lines_of(figures: Figures) -> list[Line]:
    """All lines of an engine, in the order of the work."""
    full, segments, new = figures.full, figures.segments, figures.new
    first = full.seconds + segments.seconds
    daily = new.seconds + figures.new_segments.seconds
    times, share = first / figures.bound_seconds, new.seconds / full.seconds
    lines = [
        _line("raw bound", figures, figures.bound, figures.bound_seconds, rows=figures.bound.rows("bound")),
        Line("staging", full.of("staging.")),
        Line("core", full.of("core.")),
        _line("full build", figures, full),
        *(
            Line(f"segment {name}", seconds, rows=rows).aiming(
                f"<= {SEGMENT_SECONDS:.0f} s", seconds <= SEGMENT_SECONDS
            )
            for name, rows, seconds in segments.parts
        ),
        Line("full build + 3 segments", first, ratio=f"{times:.1f} x raw bound").aiming(
            f"<= {BOUND_TIMES:.0f} x", times <= BOUND_TIMES
        ),
        _line("1 % new events", figures, new, ratio=f"{share:.1%} of full build").aiming(
            f"<= {NEW_SHARE:.0%}", share <= NEW_SHARE
        ),
        Line("1 % new events + 3 segments", daily),
    ]
    if figures.engine == "duckdb":
        lines[3].aiming(f"< {PEAK_MB:,.0f} MB", full.peak_mb < PEAK_MB)
    if figures.short is not None and figures.long is not None:
        longer = figures.long.seconds / figures.short.seconds
        lines += [
            _line(f"a small load on {DAYS:,} days", figures, figures.short),
            _line(f"the same on {10 * DAYS:,} days", figures, figures.long, ratio=f"{longer:.2f} x {DAYS} days").aiming(
                f"<= {LONG_TIMES} x", longer <= LONG_TIMES
            ),
        ]
    return lines + _against_pandas(figures, daily)


def _line(
    what: str,
    figures: Figures,
    measured: Measured,
    seconds: float | None = None,
    *,
    rows: int | None = None,
    ratio: str = "",
) -> Line:
    """A measurement with what its process took; a server's work is not in it."""
    line = Line(what, measured.seconds if seconds is None else seconds, rows=rows, ratio=ratio)
    if figures.engine == "duckdb":
        line.cpu_seconds, line.peak_mb = measured.cpu_seconds, measured.peak_mb
        if seconds is not None:
            line.cpu_seconds /= len(measured.parts)
    return line


def _against_pandas(figures: Figures, daily: float) -> list[Line]:
    rival = figures.rival
    if rival is None:
        return []
    what = f"pandas, {rival.events:,} events"
    if rival.failure or figures.ours is None:
        return [Line(what, note=rival.failure)]
    measured = rival.measured
    times = measured.seconds / sum(part.seconds for part in figures.ours)
    target = f">= {PANDAS_TIMES:.0f} x"
    lines = [
        Line(
            what,
            measured.seconds,
            measured.cpu_seconds,
            peak_mb=measured.peak_mb,
            ratio=f"{times:.1f} x full build + 3 segments",
        ).aiming(target, times >= PANDAS_TIMES)
    ]
    if figures.ours[0] is figures.full:
        times = measured.seconds / daily
        lines.append(Line("", ratio=f"{times:.1f} x 1 % new + 3 segments").aiming(target, times >= PANDAS_TIMES))
    sizes = ", ".join(f"{name} {measured.rows(name):,}" for name in AUDIENCES)
    return [*lines, *(Line("", note=text) for text in figures.differences or [f"the same in pandas: {sizes}"])]


def show(console: Console, title: str, lines: list[Line]) -> None:
    """Print the table; what belongs to no line stands below it."""
    table = Table("what", title=title)
    for name in ("seconds", "CPU s", "rows", "peak MB"):
        table.add_column(name, justify="right")
    table.add_column("ratio")
    table.add_column("target")
    for line in lines:
        if line.note:
            if line.what:
                table.add_row(line.what, "", "", "", "", line.note)
            continue
        verdict = "" if line.is_met is None else "met" if line.is_met else "missed"
        table.add_row(
            line.what,
            _number(line.seconds, 2),
            _number(line.cpu_seconds, 2),
            _number(line.rows),
            _number(line.peak_mb),
            line.ratio,
            f"{line.target} {verdict}".strip(),
        )
    # A pipe has no width of its own; give every column the room it needs.
    console = console if console.is_terminal else Console(width=150)
    console.print(table)
    for line in lines:
        if line.note and not line.what:
            console.print(line.note)


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def slowest(title: str, measured: Measured, count: int = 25) -> Table:
    """The models that took the longest."""
    table = Table("model", "rows", "seconds", "share", title=title)
    for name, rows, seconds in sorted(measured.parts, key=lambda part: -part[2])[:count]:
        table.add_row(name, f"{rows:,}", f"{seconds:.2f}", f"{seconds / measured.seconds:.0%}")
    return table
