"""## Ask after what platforms answer hours later

Google takes an upload first and says later what became of it. A sync waits ten minutes for that; this DAG asks on,
every half hour, one task per destination, so that an audience's next sync is not kept waiting. What is answered goes
into the ledger; until then its members are *pending*, never counted as delivered.

**If it fails:** a request has had no answer for more than 26 hours, or the platform cannot be reached; the last log
line says which and what to do. Clearing is safe: it only asks.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from include.audiences.load import load_audiences
from include.destinations.base import destination_class
from include.scheduling import DEFAULT_ARGS, START_DATE


@dag(
    schedule="*/30 * * * *",
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=DEFAULT_ARGS,
    tags=["stage/sync", "impact/tier_2"],
    doc_md=__doc__,
)
def confirm_requests() -> None:
    """One task per destination that answers later."""
    for name in load_audiences().destinations:
        if destination_class(name).answers_later():
            confirm(name)


def confirm(name: str) -> None:
    """What became of the requests of one destination."""

    @task(task_id=name, pool=name)
    def ask() -> int:
        from include.sync.run import confirm_open

        return confirm_open(name)

    ask()


confirm_requests()
