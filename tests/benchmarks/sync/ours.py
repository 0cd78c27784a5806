"""Our own sync of one target in a process of its own: what the tasks `plan` and `push` of the DAG call.

The warehouse and the destination's connection come from the environment, as in a task.
"""

from __future__ import annotations

import sys

from tests.benchmarks.sync.clock import measured, say  # isort: skip  (it notes the memory of the bare interpreter)

import importlib

from include.sync.run import plan_next, push_planned
from include.warehouse.engine import get_warehouse

# What the others import before the clock, and what these functions import when they are called.
for _name in (
    *("duckdb", "duckdb_engine", "pyarrow.compute", "psycopg", "httpcore"),
    *("include.sync.plan", "include.sync.push", "include.destinations.mailchimp", "include.destinations.google_ads"),
):
    importlib.import_module(_name)


def main(audience: str, destination: str, run_id: str) -> None:
    """Plan and push."""
    with measured() as figures:
        plan_id = plan_next(audience, destination, run_id)
        push_planned(plan_id)
    answers = get_warehouse().read(
        "select action, status, count(distinct member_key) as members from sync.ledger "
        "where plan_id = :plan_id group by action, status",
        plan_id=plan_id,
    )
    say(
        figures,
        delivered=sum(row["members"] for row in answers if row["action"] != "remove" and row["status"] == "accepted"),
        refused=sum(row["members"] for row in answers if row["status"] == "rejected"),
        removed=sum(row["members"] for row in answers if row["action"] == "remove" and row["status"] == "accepted"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
