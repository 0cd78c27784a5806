"""The table: what each contender took in each case, the ratio to ours, and whether the target is met."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tests.benchmarks.sync.cases import CONSTANT_CALLS, Case
from tests.benchmarks.sync.contenders import Run

# Shown beside every figure and asserted in no test.
FIRST_TIMES = 1.3  # dlt's rows/s
CHANGED_TIMES = 1.0  # dlt's time
UNCHANGED_SHARE = 0.5  # of drt's time
MEMORY_MB = 400.0  # above the bare interpreter, for 1 M members


@dataclass
class Aim:
    """A target, and whether it is met; `ratio` is what was measured."""

    ratio: str
    target: str
    is_met: bool

    def __str__(self) -> str:
        return f"{self.target} {'met' if self.is_met else 'missed'}"


def aims(case: Case) -> list[Aim]:
    """The targets of our own run in one case."""
    ours, dlt, drt = case.ran("ours"), case.ran("dlt"), case.ran("drt")
    if ours is None:
        return []
    calls = int(ours.server["calls"])
    found: list[Aim] = []
    if case.name == "first load" and dlt is not None:
        times = dlt.seconds / ours.seconds
        busy = dlt.cpu_seconds / ours.cpu_seconds
        found.append(
            Aim(f"{times:.2f} x dlt's rows/s, {busy:.2f} x by CPU", f">= {FIRST_TIMES} x", times >= FIRST_TIMES)
        )
    if case.name.startswith("1 %") and dlt is not None:
        times = ours.seconds / dlt.seconds
        busy = ours.cpu_seconds / dlt.cpu_seconds
        found.append(
            Aim(f"{times:.2f} x dlt's time, {busy:.2f} x by CPU", f"<= {CHANGED_TIMES:.0f} x", times <= CHANGED_TIMES)
        )
    if case.name.startswith("nothing") and drt is not None:
        share = ours.seconds / drt.seconds
        found.append(Aim(f"{share:.2f} x drt's time", f"< {UNCHANGED_SHARE} x", share < UNCHANGED_SHARE))
    most = case.fewest_calls + CONSTANT_CALLS if case.fewest_calls else 0
    found.append(Aim(f"{calls:,} calls", f"<= {most:,}", calls <= most))
    if "first load," in case.name or case.name.startswith("nothing"):
        found.append(Aim(f"{ours.above_mb:,.0f} MB", f"< {MEMORY_MB:.0f} MB", ours.above_mb < MEMORY_MB))
    return found


def remarks(case: Case) -> list[str]:
    """What is wrong at the destination, or what a contender believes that is not so."""
    said = []
    for who, run in case.runs.items():
        if run.failure or not run.server:
            continue
        if not case.fewest_calls:
            continue
        over = int(run.server["tagged"]) - int(case.truth["tagged"])
        if over > 0:
            said.append(f"{case.name}: {who} leaves {over:,} people on the list who left the audience")
        elif run.server["digest"] != case.truth["digest"]:
            said.append(f"{case.name}: {who}'s list is NOT what it has to be ({over:+,} people)")
        mistaken = min(int(run.server["refused"]), run.delivered - int(run.server["rows"]) + int(run.server["refused"]))
        if run.server["refused"]:
            counted = "counts none of them as delivered" if mistaken <= 0 else f"counts {mistaken:,} as delivered"
            said.append(f"{case.name}: of {run.server['refused']:,} refused rows {who} {counted}")
    return said


def is_true(case: Case, who: str) -> bool:
    """Whether the destination has exactly what it has to have, after this contender."""
    told = case.runs[who].server
    return all(told[key] == value for key, value in case.truth.items())


def show(console: Console, title: str, cases: list[Case]) -> None:
    """Print the table, and below it what no figure tells."""
    table = Table("case", "who", title=title)
    for name in ("seconds", "CPU s", "rows/s", "calls", "MB above start"):
        table.add_column(name, justify="right")
    table.add_column("ratio, target")
    for case in cases:
        for who, run in case.runs.items():
            reached = aims(case) if who == "ours" else []
            table.add_row(*_cells(case, who, run), "\n".join(f"{aim.ratio} ({aim})" for aim in reached))
    # A pipe has no width of its own; give every column the room it needs.
    console = console if console.is_terminal else Console(width=170)
    console.print(table)
    for case in cases:
        for text in remarks(case):
            console.print(text)


def _cells(case: Case, who: str, run: Run) -> list[str]:
    if run.failure:
        return [case.name, f"{who}: {run.failure}", "", "", "", "", ""]
    rate = f"{case.rows / run.seconds:,.0f}" if case.fewest_calls else ""
    return [
        case.name,
        who,
        f"{run.seconds:.2f}",
        f"{run.cpu_seconds:.2f}",
        rate,
        f"{run.server['calls']:,}",
        f"{run.above_mb:,.0f}",
    ]
