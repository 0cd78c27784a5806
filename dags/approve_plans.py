"""## Ask a human about a plan that the guard stopped

One run per stopped plan, started by `sync_<audience>`. The question (under *Required Actions*) says what is suspicious,
with numbers and some profile ids. It holds up nothing but its own target, and takes no slot while it waits.

**Approve**: `sync_<audience>` sends exactly that plan; where the list or the people have changed since, it plans anew
and sends what is no more suspicious. **Reject**: the list stays as it is, and the same is not asked again. **Approve
once with a new bound**: a plan within `max_add` and `max_remove` (percent of the list) is sent.

**If it fails:** nobody answered in time, or an answer had no number. Nothing was sent; the next sync asks again. Clear
`question` to ask the same at once.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag, get_current_context, task

from include.asking import BOUNDS, PutQuestion
from include.scheduling import DEFAULT_ARGS, START_DATE, WAREHOUSE_POOL


@dag(
    dag_display_name="Approve plans",
    schedule=None,
    start_date=START_DATE,
    catchup=False,
    max_active_runs=100,  # a run waits for hours, and another target's question must not wait behind it
    default_args=DEFAULT_ARGS | {"pool": WAREHOUSE_POOL},
    params={"plan_id": Param(None, type=["null", "string"], description="the plan that waits (sync.plans)")},
    tags=["stage/sync", "impact/tier_1"],
    doc_md=__doc__,
)
def approve_plans() -> None:
    @task.short_circuit
    def answer(given: dict[str, Any]) -> dict[str, str] | None:
        from include.sync.run import take_answer

        return take_answer(get_current_context()["params"]["plan_id"], given)

    question = PutQuestion(task_id="question", params=BOUNDS)
    answered = answer(question.output)
    answered >> TriggerDagRunOperator(
        task_id="send",
        trigger_dag_id="sync_{{ ti.xcom_pull(task_ids='answer')['audience'] }}",
        trigger_run_id="approved_{{ params.plan_id }}_{{ ti.xcom_pull(task_ids='answer')['answered_at'] }}",
        conf={"plan_id": "{{ params.plan_id }}", "plan_anew": True},
    )


approve_plans()
