"""The two Airflow operators behind a human's approval: one starts a question, one puts it and waits.

They only carry words between Airflow and `include/sync/approvals.py`. A task that waits for a human is parked
(`awaiting_input`) and takes no slot.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowSkipException

from include.settings import get_settings
from include.sync.approvals import OPTIONS

APPROVAL_DAG = "approve_plans"
BOUNDS = {
    name: Param(None, type=["null", "number"], minimum=0, description=f"percent of the list that may {what}, this once")
    for name, what in (("max_add", "come in"), ("max_remove", "leave"))
}


class StartQuestion(TriggerDagRunOperator):  # type: ignore[misc]
    """Start the DAG that asks about a plan; skipped where the plan is clear, in a dry run, and where it was asked."""

    template_fields = (*TriggerDagRunOperator.template_fields, "plan_id")

    def __init__(self, *, plan_id: Any, **arguments: Any) -> None:
        super().__init__(trigger_dag_id=APPROVAL_DAG, fail_when_dag_is_paused=True, **arguments)
        self.plan_id = plan_id

    def execute(self, context: Any) -> None:
        from include.sync.run import is_question

        params = context["params"]
        if params["dry_run"]:
            raise AirflowSkipException("dry run: nobody is asked")
        if not is_question(self.plan_id, again=bool(params["plan_id"])):
            raise AirflowSkipException("nothing to ask")
        self.conf = {"plan_id": self.plan_id}
        self.trigger_run_id = f"plan_{self.plan_id}_{datetime.now(UTC):%Y%m%dT%H%M%S}"
        super().execute(context)


class PutQuestion(HITLOperator):  # type: ignore[misc]
    """Ask a human about the plan of the run's parameter `plan_id`, and wait. `params` are BOUNDS.

    The answer is its XCom; `chosen_options` is empty where nobody answered in time.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            subject="A plan waits", options=OPTIONS, response_timeout=get_settings().approval_timeout, **arguments
        )

    def execute(self, context: Any) -> Any:
        from include.sync.run import put_question

        question = put_question(context["params"]["plan_id"])
        self.subject, self.body = question.subject, question.body
        self.assigned_users = [{"id": user, "name": user} for user in question.approvers] or None
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        if event.get("error_type") == "timeout":
            return {"chosen_options": [], "params_input": {}, "responded_by_user": None}
        return super().execute_complete(context, event)
