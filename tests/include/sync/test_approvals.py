"""What a human is asked about a stopped plan, when not again, and what may be sent after the answer."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.audiences.schema import Guard
from include.destinations.http import utc_now
from include.errors import ConfigurationError, PlanOutdated, QualityGateFailed
from include.sync.approvals import (
    APPROVE,
    NEW_BOUND,
    REJECT,
    approved_guard,
    ask,
    is_to_be_asked,
    last_decision,
    record_answer,
    what_may_go,
)
from include.sync.run import push_planned, take_answer, take_plan
from include.warehouse.engine import Warehouse

AT = datetime(2026, 3, 10, 12)


@pytest.fixture
def warehouse(empty_warehouse: Warehouse) -> Warehouse:
    return empty_warehouse


@pytest.fixture
def connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """The warehouse that the steps of include/sync/run.py open by themselves."""
    url = f"duckdb:///{tmp_path / 'warehouse.duckdb'}"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "generic", "extra": {"url": url}}))
    warehouse = Warehouse(url)
    warehouse.ensure_tables()
    return warehouse


def stopped(warehouse: Warehouse, plan_id: str, adds: int = 900, **columns: Any) -> None:
    """A plan that would put `adds` people on a list of 1,000."""
    reason = {"kind": "adds", "people": adds, "of": 1000, "text": f"{adds} people would come in"}
    row = {
        "plan_id": plan_id,
        "audience": "cart_abandoners",
        "destination": "mailchimp",
        "matched": 2000,
        "members": 1900,
        "present": 1000,
        "adds": adds,
        "updates": 0,
        "removes": 2,
        "verdict": "ask",
        "reasons": json.dumps([reason]),
        "as_of": AT,
        "created_at": AT,
    }
    warehouse.insert("sync.plans", [row | columns])


def test_the_question_has_numbers_reasons_and_ids_but_no_person(warehouse: Warehouse) -> None:
    stopped(warehouse, "plan-1")
    rows = [("add", f"profile-{number}", f"ana{number}@x.com") for number in range(9)]
    warehouse.insert(
        "sync.plan_rows",
        [
            {"plan_id": "plan-1", "row_number": number, "action": action, "profile_id": who, "member_key": key}
            for number, (action, who, key) in enumerate(rows)
        ],
    )

    question = ask(warehouse, "plan-1")

    assert question.subject == "Cart abandoners at mailchimp: 900 people would come in"
    assert "| on the list now | 1,000 | |" in question.body
    assert "| to add | 900 | `profile-0`, `profile-1`, `profile-2`, `profile-3`, `profile-4` |" in question.body
    assert "@x.com" not in question.body
    assert question.approvers == ()
    assert last_decision(warehouse, "plan-1") == "asked"


def test_a_target_has_one_open_question(warehouse: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stopped(warehouse, "plan-1")
    assert is_to_be_asked(warehouse, "plan-1")
    ask(warehouse, "plan-1")
    stopped(warehouse, "plan-2", adds=5000)
    stopped(warehouse, "elsewhere", destination="google_ads")

    assert not is_to_be_asked(warehouse, "plan-2")
    assert "a human was asked about plan plan-1" in caplog.text
    assert is_to_be_asked(warehouse, "elsewhere")


def test_a_question_that_was_lost_is_asked_again(warehouse: Warehouse) -> None:
    stopped(warehouse, "plan-1")
    warehouse.insert(
        "sync.approvals",
        [
            {
                "plan_id": "plan-1",
                "audience": "cart_abandoners",
                "destination": "mailchimp",
                "decision": "asked",
                "decided_at": utc_now() - timedelta(hours=26),
            }
        ],
    )
    assert is_to_be_asked(warehouse, "plan-1")


@pytest.mark.parametrize(
    ("next_adds", "is_asked"),
    [pytest.param(950, False, id="about the same"), pytest.param(2000, True, id="another size")],
)
def test_what_was_rejected_stays_rejected_until_it_differs(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture, next_adds: int, is_asked: bool
) -> None:
    caplog.set_level(logging.INFO)
    stopped(warehouse, "plan-1")
    ask(warehouse, "plan-1")
    answer = record_answer(warehouse, "plan-1", REJECT, by="ines")
    assert (answer.decision, answer.is_to_send) == ("rejected", False)
    stopped(warehouse, "plan-2", adds=next_adds)

    assert is_to_be_asked(warehouse, "plan-2") is is_asked
    assert ("this stays rejected: ines rejected plan plan-1" in caplog.text) is not is_asked
    assert what_may_go(warehouse, "plan-2") is None
    assert is_to_be_asked(warehouse, "plan-2", again=True)


def test_an_approved_plan_may_go_and_is_not_asked_about(warehouse: Warehouse) -> None:
    stopped(warehouse, "plan-1")
    assert what_may_go(warehouse, "plan-1") is None
    answer = record_answer(warehouse, "plan-1", APPROVE, by="ines", max_add=3.0)

    assert (answer.decision, answer.is_to_send) == ("approved", True)
    assert what_may_go(warehouse, "plan-1") == "plan-1"
    assert not is_to_be_asked(warehouse, "plan-1", again=True)
    assert approved_guard(warehouse, "plan-1", Guard()) == Guard()  # bounds belong to the third answer only


def test_only_what_cannot_wait_goes_before_the_answer(warehouse: Warehouse) -> None:
    stopped(warehouse, "plan-1")
    stopped(warehouse, "plan-2", verdict="clear", urgent_of="plan-1")
    assert what_may_go(warehouse, "plan-1") == "plan-2"


@pytest.mark.parametrize(
    ("bound", "decision", "may_go"),
    [
        pytest.param(0.95, "approved", "plan-1", id="the plan is within it"),
        pytest.param(0.8, "new_bound", None, id="the plan is beyond it"),
    ],
)
def test_a_new_bound_holds_once(warehouse: Warehouse, bound: float, decision: str, may_go: str | None) -> None:
    stopped(warehouse, "plan-1")
    answer = record_answer(warehouse, "plan-1", NEW_BOUND, by="ines", max_add=bound)

    assert (answer.decision, answer.is_to_send) == (decision, True)
    assert what_may_go(warehouse, "plan-1") == may_go
    guard = approved_guard(warehouse, "plan-1", Guard())
    assert guard is not None
    assert (guard.max_add, guard.max_remove) == (bound, 0.3)


@pytest.mark.parametrize(
    ("removes", "decision"), [pytest.param(290, "new_bound", id="beyond"), pytest.param(51, "approved", id="within")]
)
def test_a_bound_also_holds_for_what_was_not_suspicious(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture, removes: int, decision: str
) -> None:
    adds = {"kind": "adds", "people": 900, "of": 1000, "text": "900 people would come in"}
    gate = {"kind": "quality_gate", "people": 1, "of": 1, "text": "the quality gate failed: 3 rows have no time"}
    stopped(warehouse, "plan-1", removes=removes, reasons=json.dumps([adds, gate]))

    assert record_answer(warehouse, "plan-1", NEW_BOUND, by="ines", max_add=0.95, max_remove=0.06).decision == decision
    assert ("approved with it: the quality gate failed" in caplog.text) is (decision == "approved")


def test_a_human_may_tighten_a_bound(warehouse: Warehouse) -> None:
    stopped(warehouse, "plan-1", removes=290)
    record_answer(warehouse, "plan-1", NEW_BOUND, by="ines", max_add=0.1, max_remove=0.05)

    guard = approved_guard(warehouse, "plan-1", Guard())
    assert guard is not None
    assert (guard.max_add, guard.max_remove) == (0.1, 0.05)
    assert what_may_go(warehouse, "plan-1") is None


def test_a_new_bound_needs_a_number(warehouse: Warehouse) -> None:
    stopped(warehouse, "plan-1")
    with pytest.raises(ConfigurationError, match="was chosen without a number; nothing is sent"):
        record_answer(warehouse, "plan-1", NEW_BOUND, by="ines")
    assert last_decision(warehouse, "plan-1") is None


def test_no_answer_sends_nothing_and_the_next_plan_asks_again(connected: Warehouse) -> None:
    stopped(connected, "plan-1")
    ask(connected, "plan-1")
    with pytest.raises(QualityGateFailed, match="nobody answered in time; nothing was sent"):
        take_answer("plan-1", {"chosen_options": [], "params_input": {}, "responded_by_user": None})

    assert (last_decision(connected, "plan-1"), what_may_go(connected, "plan-1")) == ("unanswered", None)
    assert is_to_be_asked(connected, "plan-1")


def test_bounds_of_an_answer_are_percent(connected: Warehouse) -> None:
    stopped(connected, "plan-1")
    given = {"chosen_options": [NEW_BOUND], "params_input": {"max_add": 80, "max_remove": None}}
    answer = take_answer("plan-1", given | {"responded_by_user": {"id": "ines", "name": "Ines"}})

    assert answer is not None
    assert answer["audience"] == "cart_abandoners"
    (kept,) = connected.read("select decision, decided_by, max_add, max_remove from sync.approvals")
    assert kept == {"decision": "new_bound", "decided_by": "ines", "max_add": 0.8, "max_remove": None}


def _answered(warehouse: Warehouse, plan_id: str) -> None:
    target = {"audience": "cart_abandoners", "destination": "mailchimp"}
    warehouse.insert("sync.ledger", [{**target, "plan_id": plan_id, "sequence": 1, "status": "accepted"}])


def test_a_cleared_task_of_an_old_run_sends_nothing_stale(connected: Warehouse) -> None:
    stopped(connected, "old", verdict="clear")
    stopped(connected, "new", verdict="clear", created_at=AT + timedelta(hours=1))
    _answered(connected, "new")

    with pytest.raises(PlanOutdated, match="the ledger moved: 1 answers of other plans"):
        push_planned("old")


def test_a_reviewed_plan_goes_to_its_own_target_and_only_while_it_holds(connected: Warehouse) -> None:
    stopped(connected, "plan-1", verdict="clear")
    assert take_plan("plan-1", "cart_abandoners", "google_ads", "run", plan_anew=False) is None
    with pytest.raises(ConfigurationError, match="run sync_cart_abandoners with it"):
        take_plan("plan-1", "lapsed_subscribers", "mailchimp", "run", plan_anew=False)
    _answered(connected, "another")
    with pytest.raises(PlanOutdated):
        take_plan("plan-1", "cart_abandoners", "mailchimp", "run", plan_anew=False)

    stopped(connected, "plan-2")  # nobody has approved it: it is asked about, whatever holds
    assert take_plan("plan-2", "cart_abandoners", "mailchimp", "run", plan_anew=True) == "plan-2"
