"""What compaction deletes was asked for by nobody: every answer about lists and people is the same without it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from include.privacy.person import as_text
from include.settings import ROOT
from include.sync.compaction import Compaction, compact
from include.warehouse.build import ensure_views
from include.warehouse.engine import Warehouse
from tests.include.sync.target_world import AS_OF, World, world

__all__ = ["world"]  # a fixture

DAY = timedelta(days=1)
BOTH, ONE = '{"email":["x","y"]}', '{"email":["x"]}'
STATUSES = ("accepted", "rejected", "retry", "pending", "unattributed", "intended", "unknown")
QUESTIONS = {
    "memberships": "select * from sync.memberships",
    "rejects": "select * from sync.rejects",
    "history": "select * from reports.membership_history",
    "state": as_text(
        (ROOT / "sql/sync/plan/state.sql").read_text(),
        "duckdb",
        (("audience", "carts"), ("destination", "mailchimp")),
    ),
    "what leavers are sent with": (
        "select distinct sends.member_key, identifiers from sync.sends as sends "
        "inner join sync.memberships as memberships on sends.member_key = memberships.member_key "
        "where action <> 'remove' and sends.status not in ('rejected', 'retry') and sends.sent_at >= entered_at"
    ),
    "who was ever on it, as what": (
        "select distinct member_key, identifiers from sync.sends "
        "where action <> 'remove' and status not in ('rejected', 'retry')"
    ),
}


@pytest.fixture(scope="module")
def ledger() -> Iterator[Warehouse]:
    warehouse = Warehouse("duckdb://")
    warehouse.ensure_tables()
    ensure_views(warehouse)
    yield warehouse
    warehouse.close()


sendings = st.lists(
    st.tuples(
        st.sampled_from("aaab"),
        st.sampled_from(("add", "update", "remove")),
        st.just(["accepted"]) | st.lists(st.sampled_from(STATUSES), min_size=1, max_size=3),
        st.sampled_from((ONE, BOTH, None)),
        st.booleans(),  # in the same plan as the one before
    ),
    max_size=12,
)


def told(*texts: str, identifiers: str = ONE) -> list[Any]:
    """Accepted sendings of one member, a day and a plan each; `add 2` is with both identifiers."""
    return [("a", text.split()[0], ["accepted"], BOTH if "2" in text else identifiers, False) for text in texts]


def answers(warehouse: Warehouse) -> dict[str, list[str]]:
    return {name: sorted(map(str, warehouse.tuples(query))) for name, query in QUESTIONS.items()}


@settings(max_examples=60)
@given(history=sendings, day=st.integers(0, 14))
@example(history=told("add", "remove", "add", "remove", "add"), day=9)
@example(history=told("add 2", "remove", "add", "update 2", "update", "update"), day=9)
@example(history=told("remove", "remove", "add", "add"), day=9)
@example(history=[*told("add"), ("a", "update", ["rejected"], ONE, False), *told("remove", "remove")], day=9)
def test_lists_history_and_refusals_say_the_same(ledger: Warehouse, history: list[Any], day: int) -> None:
    for table in ("sync.ledger", "sync.plans"):
        ledger.execute(f"delete from {table}")
    plan, sequence, plans, rows = 0, 0, {}, {}
    for number, (member, action, statuses, identifiers, is_same_plan) in enumerate(history):
        plan += not is_same_plan
        plans.setdefault(plan, AS_OF + number * DAY)
        for status in statuses:
            sequence += 1
            rows[sequence] = {
                "sequence": sequence, "audience": "carts", "destination": "mailchimp", "list_id": "1",
                "plan_id": f"plan-{plan:02}", "action": action, "profile_id": member, "member_key": member,
                "identifiers": identifiers, "payload_hash": f"h{number}", "status": status,
                "acknowledged_at": AS_OF + number * DAY + sequence * timedelta(seconds=1),
            }  # fmt: skip
    ledger.insert(
        "sync.plans",
        [
            {"plan_id": f"plan-{number:02}", "audience": "carts", "destination": "mailchimp", "created_at": at}
            for number, at in plans.items()
        ],
    )
    ledger.insert("sync.ledger", list(rows.values()))
    before = answers(ledger)
    kept = ledger.tuples("select sequence from sync.ledger")
    done = compact(ledger, AS_OF + day * DAY)
    assert answers(ledger) == before
    assert len(kept) - done.answers == len(ledger.tuples("select sequence from sync.ledger"))
    assert compact(ledger, AS_OF + day * DAY).answers == 0


def sync(world: World, at: datetime) -> None:
    world.as_of = at
    world.answer(world.plan(), at=at)


def a_year_of_carts(world: World) -> None:
    """Ana's cart has another value every month, Bo leaves when his consent is gone, Cy is refused each time."""
    ensure_views(world.warehouse)
    for name in ("ana", "bo", "cy"):
        world.person(name, email=f"{name}@shop.example", cart_value=1)
    for number in range(12):
        world.execute(f"update segments.carts set cart_value = {number} where profile_id in ('ana', 'cy')")
        if number == 1:
            world.execute("update core.consents set status = 'denied' where profile_id = 'bo'")
        world.as_of = AS_OF + number * 30 * DAY
        plan = world.plan()
        for member in ("ana", "bo", "cy"):
            status = "rejected" if member == "cy" else "accepted"
            world.answer(plan, status, at=world.as_of, only=f"{member}@shop.example")
        world.execute(f"update sync.plans set created_at = as_of where plan_id = '{plan.plan_id}'")


def test_a_member_whose_row_changes_all_the_time_is_a_few_old_rows(world: World) -> None:
    a_year_of_carts(world)
    history = world.warehouse.read("select * from reports.membership_history order by member_key")
    done = compact(world.warehouse, AS_OF + 300 * DAY)
    old = world.warehouse.tuples(
        "select member_key, action, status from sync.ledger where acknowledged_at < :before order by sequence",
        before=AS_OF + 300 * DAY,
    )
    assert old == [
        ("ana@shop.example", "add", "accepted"),
        ("bo@shop.example", "add", "accepted"),
        ("bo@shop.example", "remove", "accepted"),
    ]
    assert done.answers == 9 + 10
    assert done.plan_rows == 10 + 10 + 2
    assert world.warehouse.read("select * from reports.membership_history order by member_key") == history
    assert {row["left_reason"] for row in history if row["left_at"]} == {"consent denied"}
    assert done.exclusions == 9 - 1  # of the plans that are old, all but the one that took him off
    assert world.warehouse.tuples("select min(waiting), max(waiting) from sync.pushes") == [(0, 0)]


def test_the_next_plan_is_the_same(world: World) -> None:
    a_year_of_carts(world)
    expected = world.plan()
    compact(world.warehouse, AS_OF + 400 * DAY)
    again = world.plan()
    assert (again.adds, again.updates, again.removes) == (expected.adds, expected.updates, expected.removes)
    assert (again.unchanged, again.refused) == (expected.unchanged, expected.refused) == (1, 1)


def test_a_kill_in_the_middle_deletes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a_year_of_carts(world)
    count = "select count(*) from sync.ledger"
    before = world.warehouse.scalar(count)
    execute = world.warehouse.execute

    def killed(sql: str, **given: Any) -> None:
        execute(sql, **given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world.warehouse, "execute", killed)
        with pytest.raises(KeyboardInterrupt):
            compact(world.warehouse, AS_OF + 400 * DAY)
    assert world.warehouse.scalar(count) == before


def test_nothing_is_deleted_within_the_time_that_is_kept(world: World) -> None:
    a_year_of_carts(world)
    assert compact(world.warehouse, AS_OF) == Compaction(0, 0, 0)
