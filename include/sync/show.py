"""A stored plan as a table to read: how many matched, where people fell out, what there is to send. Counts and ids."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from include.audiences.eligibility import STEPS
from include.sync.ledger import read_plan

if TYPE_CHECKING:
    import sqlalchemy

    from include.warehouse.engine import Warehouse

SAMPLE = 5
_TO_SEND = (("removes", "remove"), ("adds", "add"), ("updates", "update"), ("refreshes", "refresh"))
_AS_THEY_ARE = (
    ("unchanged", "unchanged"),
    ("refused", "refused by the destination, and the same as then"),
    ("held", "removals that wait (the list would get too small)"),
)


def plan_table(warehouse: Warehouse, plan_id: str, *, connection: sqlalchemy.Connection | None = None) -> Table:
    """The counts of a plan, and some profile ids of each kind of row; ConfigurationError where there is no plan."""
    plan = read_plan(warehouse, plan_id, connection=connection)
    excluded = {
        str(row["step"]): int(row["profiles"])
        for row in warehouse.read(
            "select step, count(*) as profiles from sync.exclusions where plan_id = :plan_id group by step",
            plan_id=plan_id,
            connection=connection,
        )
    }
    samples = {action: _sample(warehouse, plan_id, action, connection) for column, action in _TO_SEND if plan[column]}
    table = Table(
        title=f"{plan['audience']} at {plan['destination']}: plan {plan_id}",
        title_justify="left",
        caption=f"as of {plan['as_of']:%Y-%m-%d %H:%M} UTC",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("what")
    table.add_column("people", justify="right")
    table.add_column("profile ids, for example")
    table.add_row("matched the segment", f"{plan['matched'] or 0:,}")
    for step in STEPS:
        if step in excluded:
            table.add_row(f"  left out: {step}", f"{excluded[step]:,}")
    table.add_row("members", f"{plan['members'] or 0:,}", end_section=True)
    for column, action in _TO_SEND:
        table.add_row(f"to {action}", f"{plan[column] or 0:,}", ", ".join(samples.get(action, ())))
    for column, words in _AS_THEY_ARE:
        table.add_row(words, f"{plan[column] or 0:,}")
    return table


def plan_text(warehouse: Warehouse, plan_id: str, *, connection: sqlalchemy.Connection | None = None) -> str:
    """The table as plain text, for a log."""
    page = io.StringIO()
    Console(file=page, width=140, color_system=None).print(plan_table(warehouse, plan_id, connection=connection))
    return page.getvalue().rstrip()


def _sample(
    warehouse: Warehouse, plan_id: str, action: str, connection: sqlalchemy.Connection | None
) -> tuple[str, ...]:
    rows = warehouse.read(
        "select profile_id from sync.plan_rows where plan_id = :plan_id and action = :action "
        f"order by row_number limit {SAMPLE}",
        plan_id=plan_id,
        action=action,
        connection=connection,
    )
    return tuple(str(row["profile_id"]) for row in rows if row["profile_id"])
