"""## Opt-outs in from every tool, erasures out to every destination

Hourly, whether anything is synced or not. **opt_outs**: who said no (or came back) at each tool since we last asked;
from there `core.suppressions` keeps them off every list. **erasures**: every open request to be erased, by a command
(`make erase EMAIL=...`) or told by a source (`suppressions` with the reason `erased`): the person leaves the
warehouse and every list that ever got her, an import does not bring her back, and a receipt stays
(`sync.erasure_receipts`). What imports have brought back meanwhile is deleted. **leftover_lists**: who has said no
leaves the lists that no audience file names any more (its destination was taken out, the file is gone or broken), and
what a platform had not answered there yet is asked after; and an identifier of hers that was sent as somebody else's
before leaves the ad lists.

**If it fails:** `erasures` is red while a request stays open, and its last log line says which destination did not
answer and what to do; the others are done already. The next run goes on with it. A red `opt_outs` says which tool could
not be read; nobody is lost, the next run reads from where the last good one ended. A red `leftover_lists` says which
list could not be reached; `python -m include.sync retire` takes everybody off one. Clearing any of them is safe.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from include.audiences.load import load_audiences
from include.destinations.base import destination_class
from include.scheduling import DEFAULT_ARGS, START_DATE, WAREHOUSE_POOL


@dag(
    schedule="20 * * * *",
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    default_args=DEFAULT_ARGS,
    tags=["stage/privacy", "impact/tier_1"],
    doc_md=__doc__,
)
def honour_privacy() -> None:
    """One task per tool that tells opt-outs, one for the erasures, one for leftover lists; none waits for another."""
    for name in load_audiences().destinations:
        if destination_class(name).tells_opt_outs():
            opt_outs(name)

    @task(pool=WAREHOUSE_POOL)
    def erasures() -> int:
        from include.privacy.run import honour

        return honour()

    @task(pool=WAREHOUSE_POOL)
    def leftover_lists() -> int:
        from include.privacy.run import honour_leftovers

        return honour_leftovers()

    erasures()
    leftover_lists()


def opt_outs(name: str) -> None:
    """Who said no at one tool."""

    @task(task_id=f"opt_outs.{name}", pool=name)
    def read() -> int:
        from include.sync.run import read_all_opt_outs

        return read_all_opt_outs(name)

    read()


honour_privacy()
