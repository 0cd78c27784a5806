"""## Keep an audience's lists true, one branch per destination

One DAG per audience file. It starts when the audience has been through its quality gate: read who opted out at the
tool ▶ **plan** (who goes in, changes or leaves, stored before anything is sent) ▶ **push** ▶ **confirm** (ask after
what the platform answers later; after ten minutes the DAG `confirm_requests` takes that over) ▶ **audit** (once a day
the list is read back and compared with the ledger). Nothing changed: nothing is written.

A suspicious plan is not pushed, except for removals that cannot wait: **ask** starts `approve_plans`, where a human
answers. The other branches and the next runs go on.

**Parameters:** `dry_run` stops after the plan, shows it in the log and returns its id. `plan_id` pushes a plan that was
looked at, exactly its rows, or says why not; one that the guard stopped is asked about. With `plan_anew` a plan that is
no longer valid is made anew within what was approved.

**If it fails:** the branch's last log line says what the platform answered and what to do; the other branches go on.
Clearing is safe: only members without an answer are sent again.
"""

from __future__ import annotations

from airflow.sdk import Param, dag, get_current_context, task, task_group

from include.asking import StartQuestion
from include.assets import audience_asset
from include.audiences.load import load_audiences
from include.audiences.schema import Audience
from include.destinations.base import Destination, destination_class
from include.scheduling import DEFAULT_ARGS, START_DATE, WAREHOUSE_POOL


def make_dag(name: str, audience: Audience) -> None:
    """Register the DAG of one audience."""

    @dag(
        dag_id=f"sync_{name}",
        dag_display_name=f"Sync {audience.label}",
        description=audience.description,
        schedule=[audience_asset(name)],
        start_date=START_DATE,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS | {"owner": audience.owner},
        params={
            "dry_run": Param(False, type="boolean", description="stop after the plan; nothing is sent"),
            "plan_id": Param(None, type=["null", "string"], description="push this reviewed plan, exactly its rows"),
            "plan_anew": Param(False, type="boolean", description="if it is not valid any more, plan anew"),
        },
        tags=["stage/sync", "impact/tier_1"],
        doc_md=__doc__,
    )
    def sync() -> None:
        for target in audience.destinations:
            branch(name, target.to, destination_class(target.to))

    sync()


def branch(name: str, to: str, platform: type[Destination]) -> None:
    """The tasks of one destination."""

    @task_group(group_id=to)
    def target() -> None:
        @task(pool=WAREHOUSE_POOL)
        def plan() -> str:
            from airflow.sdk.exceptions import AirflowSkipException

            from include.sync.run import plan_next, take_plan

            context = get_current_context()
            run_id, params = context["run_id"], context["params"]
            if not params["plan_id"]:
                return plan_next(name, to, run_id, dry_run=params["dry_run"])
            taken = take_plan(params["plan_id"], name, to, run_id, plan_anew=params["plan_anew"])
            if taken is None:
                raise AirflowSkipException("the plan is for another destination")
            return taken

        @task(pool=to, pool_slots=platform.connections)  # a slot is a call at a time
        def push(plan_id: str) -> str:
            from airflow.sdk.exceptions import AirflowSkipException

            from include.sync.run import push_planned

            if get_current_context()["params"]["dry_run"]:
                raise AirflowSkipException("dry run: the plan is stored, nothing was sent")
            return push_planned(plan_id)

        @task.sensor(pool=to, poke_interval=platform.poll_seconds, timeout=3600, mode="reschedule")
        def confirm(plan_id: str) -> bool:
            from include.sync.run import confirm_planned

            return confirm_planned(plan_id)

        planned = plan()
        if platform.tells_opt_outs():
            opt_outs(name, to) >> planned
        StartQuestion(task_id="ask", plan_id=planned, pool=WAREHOUSE_POOL)
        confirm(push(planned)) >> audit(name, to)

    target()


def opt_outs(name: str, to: str):
    """Who said no since we last asked: at this list, and at others of its channel that were not just read."""

    @task(task_id="opt_outs", pool=to)
    def read() -> int:
        from include.sync.run import read_tool_opt_outs

        return read_tool_opt_outs(name, to)

    return read()


def audit(name: str, to: str):
    """Does the list hold what the ledger says? Once a day; what differs is set right by the next plan."""

    @task(task_id="audit", pool=to)
    def compare() -> None:
        from include.sync.run import audit_list

        audit_list(name, to)

    return compare()


for _name, _audience in load_audiences().audiences.items():
    make_dag(_name, _audience)
