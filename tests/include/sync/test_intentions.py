"""Calls that must not be repeated: written down before, answered after, looked up when the answer was lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import pytest

from include.destinations.base import Destination, Member, RowResult
from include.destinations.http import utc_now
from include.errors import AnswerLost, TransientError
from include.sync.push import push_plan
from include.warehouse.engine import Warehouse
from tests.include.sync.test_push import Paper, _audience_file, ledger, store_plan, warehouse

__all__ = ["_audience_file", "warehouse"]  # fixtures


class Automation(Paper):
    """Every add starts something that cannot be taken back."""

    repeatable = frozenset({"remove"})

    def __init__(self) -> None:
        super().__init__()
        self.started: list[str] = []
        self.times: list[datetime] = []
        self.shows = True
        self.looks = 0

    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        self.before_call()
        self.started += [member.member_key.split("@")[0] for member in batch]
        self.times += [utc_now()] * len(batch)
        self.after_call()
        return self._done(batch)

    def was_done(self, list_id: str, verb: str, batch: Sequence[Member], since: datetime) -> list[bool | None]:
        self.looks += 1
        if not self.shows:
            return Destination.was_done(self, list_id, verb, batch, since)
        lately = {who for who, at in zip(self.started, self.times, strict=True) if at >= since}
        return [member.member_key.split("@")[0] in lately for member in batch]


def fail_with(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def nothing() -> None: ...


def push(warehouse: Warehouse, tool: Automation, plan_id: str = "plan-1") -> None:
    push_plan(warehouse, plan_id, tool.connect)


@pytest.mark.on_spark
def test_the_intention_is_in_the_ledger_before_the_call_and_the_answer_after_it(warehouse: Warehouse) -> None:
    store_plan(warehouse, "remove x", "add a")
    tool = Automation()
    seen: list[tuple[str, str, str]] = []
    tool.before_call = lambda: seen.extend(ledger(warehouse))
    push(warehouse, tool)
    assert seen == [("remove", "x", "accepted"), ("add", "a", "intended")]
    assert ledger(warehouse)[1:] == [("add", "a", "intended"), ("add", "a", "accepted")]


@pytest.mark.on_spark
def test_killed_after_the_call_nothing_is_started_twice(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add a", "add b")
    tool = Automation()
    tool.after_call = fail_with(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        push(warehouse, tool)
    tool.after_call = nothing
    push(warehouse, tool)
    assert tool.started == ["a", "b"]
    assert [status for _, _, status in ledger(warehouse)] == ["intended", "intended", "accepted", "accepted"]
    push(warehouse, tool)
    assert tool.looks == 1


def test_killed_before_the_call_it_is_made_by_the_next_push(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add a")
    tool = Automation()
    tool.before_call = fail_with(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        push(warehouse, tool)
    tool.before_call = nothing
    push(warehouse, tool)
    assert tool.started == ["a"]
    assert [status for _, _, status in ledger(warehouse)] == ["intended", "retry", "intended", "accepted"]


def test_what_was_started_at_an_earlier_stay_is_not_taken_for_this_one(warehouse: Warehouse) -> None:
    tool = Automation()
    for plan_id, row in (("plan-1", "add a"), ("plan-2", "remove a")):
        store_plan(warehouse, row, plan_id=plan_id)
        push(warehouse, tool, plan_id)
    store_plan(warehouse, "add a", plan_id="plan-3")
    tool.before_call = fail_with(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        push(warehouse, tool, "plan-3")
    tool.before_call = nothing
    push(warehouse, tool, "plan-3")
    assert tool.started == ["a", "a"]


def test_a_platform_that_cannot_tell_leaves_it_unknown_and_it_is_not_sent_again(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add a")
    tool = Automation()
    tool.shows = False
    tool.after_call = fail_with(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        push(warehouse, tool)
    tool.after_call = nothing
    push(warehouse, tool)
    push(warehouse, tool)
    assert tool.started == ["a"]
    assert ledger(warehouse)[-1] == ("add", "a", "unknown")


def test_a_cut_connection_is_looked_up_at_once(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add a", "add b")
    tool = Automation()
    tool.after_call = fail_with(AnswerLost("cut"))
    push(warehouse, tool)
    assert tool.started == ["a", "b"]
    assert [status for _, _, status in ledger(warehouse)] == ["intended", "intended", "accepted", "accepted"]


def test_a_later_plan_settles_what_an_earlier_one_left_open(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add a")
    tool = Automation()
    tool.after_call = fail_with(TransientError("away"))
    with pytest.raises(TransientError):
        push(warehouse, tool)
    tool.after_call = nothing
    store_plan(warehouse, plan_id="plan-2")
    push(warehouse, tool, "plan-2")
    assert ledger(warehouse)[-1] == ("add", "a", "accepted")
