"""## Keep the sync engine's memory small

Weekly: deletes answers that newer ones have overtaken, rows of plans that were sent long ago, and reasons why people
were kept out of them, where they are older than `REKINDLE_KEEP_DETAILS` (400 days). Who is on which list, since when,
who left when and why, and what was ever sent to somebody on a list stays.

**If it fails:** its log has the database's sentence. Nothing is deleted then, and nothing else waits for it. Clearing
is safe.
"""

from __future__ import annotations

from airflow.sdk import dag, task

from include.scheduling import DEFAULT_ARGS, START_DATE, WAREHOUSE_POOL


@dag(
    schedule="40 3 * * 0",
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["stage/sync", "impact/tier_3"],
    doc_md=__doc__,
)
def compact_ledger() -> None:
    """One task."""

    @task(pool=WAREHOUSE_POOL)
    def compact() -> None:
        from include.sync.run import compact_ledger

        compact_ledger()

    compact()


compact_ledger()
