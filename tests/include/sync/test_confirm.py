"""Answers that take hours: a run does not wait for them, `confirm_open` asks on, and pending stays pending."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from include.destinations.base import RequestOutcome
from include.destinations.http import utc_now
from include.errors import TransientError
from include.sync import push, requests, run
from include.warehouse.engine import Warehouse
from tests.include.sync.test_push import Paper, _audience_file, ledger, push_pending

__all__ = ["_audience_file"]

PENDING = RequestOutcome("pending")
DONE = RequestOutcome("succeeded", accepted=1)
Later = Callable[[timedelta], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Moves the clock of the questions on."""

    def move(by: timedelta) -> None:
        monkeypatch.setattr(run, "utc_now", lambda: utc_now() + by)

    return move


@pytest.fixture
def pushed(empty_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> tuple[Warehouse, Paper]:
    """Two plans of a target whose requests have no answer yet."""
    paper = push_pending(empty_warehouse, "add a", request_id="r1", plan_id="plan-1")
    push_pending(empty_warehouse, "add b", request_id="r2", plan_id="plan-2")
    paper.outcomes = {"r1": PENDING, "r2": PENDING}
    monkeypatch.setattr(run, "get_warehouse", lambda: empty_warehouse)
    monkeypatch.setattr(requests, "QUICK_POLLS", ())
    monkeypatch.setattr(push, "confirm_plan", partial(push.confirm_plan, connect=paper.connect))
    return empty_warehouse, paper


def test_a_run_waits_a_while_and_then_lets_the_next_one_go(pushed: tuple[Warehouse, Paper], later: Later) -> None:
    warehouse, _ = pushed
    assert run.confirm_planned("plan-2") is False
    later(timedelta(minutes=9))
    assert run.confirm_planned("plan-2") is False
    later(timedelta(minutes=11))
    assert run.confirm_planned("plan-2") is True
    assert {status for _, _, status in ledger(warehouse)} == {"pending"}


def test_what_a_run_has_left_open_is_asked_after(pushed: tuple[Warehouse, Paper]) -> None:
    warehouse, paper = pushed
    assert run.confirm_open("mailchimp") == 2
    paper.outcomes = {"r1": PENDING, "r2": DONE}
    assert run.confirm_open("mailchimp") == 1
    paper.outcomes = {"r1": DONE}
    assert run.confirm_open("mailchimp") == 0
    assert run.confirm_open("google_ads") == 0
    assert [status for _, _, status in ledger(warehouse)] == ["pending", "pending", "accepted", "accepted"]


def test_a_request_that_nobody_answers_is_told_after_a_day(pushed: tuple[Warehouse, Paper], later: Later) -> None:
    warehouse, paper = pushed
    paper.outcomes = {"r1": PENDING, "r2": DONE}
    later(timedelta(hours=27))
    with pytest.raises(TransientError, match=r"more than 26 hours .* requests for carts; their members stay pending"):
        run.confirm_open("mailchimp")
    assert [status for _, _, status in ledger(warehouse)] == ["pending", "pending", "accepted"]


def test_an_audience_that_is_gone_is_not_asked_after(
    pushed: tuple[Warehouse, Paper], monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, _ = pushed
    warehouse.execute("update sync.requests set audience = 'gone'")
    assert run.confirm_open("mailchimp") == 0
