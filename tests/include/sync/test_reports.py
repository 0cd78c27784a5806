"""The views over plans and ledger that people read: results, reasons, who is on which list, who was when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from include.warehouse.build import ensure_views
from tests.include.sync.target_world import AS_OF, World, world

__all__ = ["world"]


@pytest.fixture
def reported(world: World) -> World:
    ensure_views(world.warehouse)
    return world


def results(world: World, destination: str = "mailchimp") -> dict[str, Any]:
    rows = world.warehouse.read(
        "select * from reports.audience_results where destination = :destination", destination=destination
    )
    assert len(rows) == 1
    return rows[0]


def picked(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def test_results_account_for_everyone_who_matched(reported: World) -> None:
    reported.person("ana", email="ana@x.com")
    reported.person("bob", email="bob@x.com", consent=None)
    reported.person("cyd")
    reported.person("bot", email="bot@x.com", is_bot=True)
    reported.person("eve", email="eve@x.com")
    reported.opt_out("eve@x.com")
    reported.sync()

    row = results(reported)

    out = ("not_reachable", "no_consent", "suppressed", "capped", "lost_priority", "held_out", "other_excluded")
    assert picked(row, *out) == dict(zip(out, (1, 1, 1, 0, 0, 0, 1), strict=True))
    assert row["matched"] == row["members"] + sum(row[name] for name in out) == 5


def test_results_show_what_was_sent_last_though_newer_plans_were_empty(reported: World) -> None:
    reported.person("ana", email="ana@x.com")
    reported.person("bob", email="bob@x.com")
    first = reported.plan()
    reported.answer(first, only="ana@x.com")
    assert picked(results(reported), "to_send", "sent", "accepted") == {"to_send": 1, "sent": 1, "accepted": 1}
    reported.answer(first, "rejected", only="bob@x.com")
    empty = reported.plan()

    row = results(reported)

    assert (row["plan_id"], row["sent_plan_id"]) == (empty.plan_id, first.plan_id)
    assert picked(row, "to_send", "sent", "accepted", "rejected", "at_destination") == {
        "to_send": 0,
        "sent": 2,
        "accepted": 1,
        "rejected": 1,
        "at_destination": 1,
    }


def test_results_take_the_counts_of_a_platform_that_does_not_say_who(reported: World) -> None:
    for number in range(5):
        reported.person(f"p{number}", email=f"p{number}@x.com")
    plan = reported.plan("google_ads")
    reported.answer(plan, "pending")
    assert picked(results(reported, "google_ads"), "pending", "accepted") == {"pending": 5, "accepted": 0}
    reported.answer(plan, "unattributed")
    reported.insert(
        "sync.requests",
        {"request_id": "r1", "plan_id": plan.plan_id, "status": "pending", "row_count": 5, "recorded_at": AS_OF},
        {
            "request_id": "r1",
            "plan_id": plan.plan_id,
            "status": "partial",
            "row_count": 5,
            "accepted_count": 3,
            "rejected_count": 1,
            "recorded_at": AS_OF + timedelta(minutes=1),
        },
    )

    assert picked(results(reported, "google_ads"), "accepted", "rejected", "pending", "unknown") == {
        "accepted": 3,
        "rejected": 1,
        "pending": 0,
        "unknown": 1,
    }


def test_reasons_are_counted_for_the_newest_plan_only(reported: World) -> None:
    reported.person("ana", email="ana@x.com", consent="denied")
    reported.person("bob", email="bob@x.com", consent=None)
    reported.plan()
    reported.execute("update core.consents set status = 'granted' where profile_id = 'ana'")
    reported.plan()

    rows = reported.warehouse.read("select step, reason, profiles from reports.exclusions_by_reason")
    assert rows == [{"step": "consent", "reason": "consent unknown", "profiles": 1}]


@pytest.mark.on_spark
def test_memberships_hold_who_is_on_the_list_now(reported: World) -> None:
    reported.person("ana", email="ana@x.com", cart_value=1)
    reported.person("bob", email="bob@x.com")
    reported.sync(at=AS_OF)
    reported.execute("update segments.carts set cart_value = 2 where profile_id = 'ana'")
    reported.execute("delete from segments.carts where profile_id = 'bob'")
    reported.sync(at=AS_OF + timedelta(hours=1))

    rows = reported.warehouse.read(
        "select member_key, status, is_leaving, entered_at, last_sent_at from sync.memberships"
    )
    assert rows == [
        {
            "member_key": "ana@x.com",
            "status": "accepted",
            "is_leaving": False,
            "entered_at": AS_OF,
            "last_sent_at": AS_OF + timedelta(hours=1),
        }
    ]


def test_history_has_a_row_for_every_stay_and_says_why_she_left(reported: World) -> None:
    reported.person("ana", email="ana@x.com")
    reported.person("bob", email="bob@x.com")
    reported.sync(at=AS_OF)
    reported.opt_out("ana@x.com")
    reported.execute("delete from segments.carts where profile_id = 'bob'")
    reported.sync(at=AS_OF + timedelta(hours=1))
    reported.match("bob")
    reported.sync(at=AS_OF + timedelta(hours=2))

    rows = reported.warehouse.read(
        "select profile_id, left_step, left_reason, entered_at, left_at from reports.membership_history "
        "order by profile_id, entered_at"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("ana", "suppression", "opted_out", AS_OF, AS_OF + timedelta(hours=1)),
        ("bob", None, None, AS_OF, AS_OF + timedelta(hours=1)),
        ("bob", None, None, AS_OF + timedelta(hours=2), None),
    ]
