"""The audit: drift at the destination is found, the ledger learns of it, and the next sync sets it right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

import pytest

from include.destinations.base import Connect, Destination, destination_class
from include.sync.audit import AuditSummary, audit_target
from include.sync.opt_outs import read_opt_outs
from include.sync.plan import PlanSummary
from include.sync.push import confirm_plan, push_plan
from tests.include.destinations import fake_google_ads, fake_mailchimp
from tests.include.sync.target_world import World, world

__all__ = ["world"]  # a fixture


@pytest.fixture
def mailchimp() -> Iterator[fake_mailchimp.Platform]:
    server = fake_mailchimp.Platform()
    yield server
    server.close()


def connected(server: fake_mailchimp.Platform | fake_google_ads.Platform) -> Connect:
    def connect(name: str, options: Mapping[str, object]) -> Destination:
        cls = destination_class(name)
        return cls(server.connection(), cls.Settings.model_validate(dict(options)))

    return connect


def sync(world: World, connect: Connect, destination: str = "mailchimp") -> PlanSummary:
    plan = world.plan(destination)
    push_plan(world.warehouse, plan.plan_id, connect)
    assert confirm_plan(world.warehouse, plan.plan_id, connect)
    return plan


def audit(world: World, connect: Connect, destination: str = "mailchimp") -> AuditSummary:
    found = audit_target(
        world.warehouse, "carts", destination, connect, every=timedelta(0), settles_in=timedelta(seconds=-60)
    )
    assert found is not None
    return found


def counts(found: AuditSummary) -> tuple[int, int, int, int, int]:
    return found.listed, found.members, found.lost, found.returned, found.strangers


def tagged(server: fake_mailchimp.Platform) -> set[str]:
    return {address for address, member in server.members.items() if member["tags"]}


def change_by_hand(server: fake_mailchimp.Platform) -> None:
    """Somebody takes Ana off, puts Di back, and adds a friend."""
    server.members["ana@shop.example"]["tags"].clear()
    server.members["di@shop.example"]["tags"].append("Carts")
    server.put("friend@shop.example", "subscribed", ["Carts"])


@pytest.mark.on_spark
def test_drift_both_ways_is_repaired_and_strangers_are_left_alone(
    world: World, mailchimp: fake_mailchimp.Platform
) -> None:
    connect = connected(mailchimp)
    for name in ("ana", "bo", "cy", "di"):
        world.person(name, email=f"{name}@shop.example")
    sync(world, connect)
    world.execute("delete from segments.carts where profile_id = 'di'")
    sync(world, connect)

    change_by_hand(mailchimp)
    mailchimp.journal.clear()
    assert counts(audit(world, connect)) == (4, 3, 1, 1, 1)
    assert mailchimp.list_writes() == []  # an audit never writes to the destination
    assert world.sent(repair := sync(world, connect)) == [("remove", "di@shop.example"), ("add", "ana@shop.example")]
    assert repair.unchanged == 2
    assert tagged(mailchimp) == {"ana@shop.example", "bo@shop.example", "cy@shop.example", "friend@shop.example"}


def test_what_is_as_it_was_sent_and_what_was_repaired_is_no_drift(
    world: World, mailchimp: fake_mailchimp.Platform
) -> None:
    connect = connected(mailchimp)
    for name in ("ana", "bo", "cy", "di"):
        world.person(name, email=f"{name}@shop.example")
    sync(world, connect)
    world.execute("delete from segments.carts where profile_id = 'di'")
    sync(world, connect)
    assert counts(audit(world, connect)) == (3, 3, 0, 0, 0)

    change_by_hand(mailchimp)
    assert counts(audit(world, connect)) == (4, 3, 1, 1, 1)
    sync(world, connect)
    assert counts(audit(world, connect)) == (4, 3, 0, 0, 1)
    assert sync(world, connect).rows == 0


def test_a_strict_audience_takes_strangers_off(world: World, mailchimp: fake_mailchimp.Platform) -> None:
    connect = connected(mailchimp)
    world.policy("strict: true")
    world.person("ana", email="ana@shop.example")
    sync(world, connect)
    mailchimp.put("friend@shop.example", "subscribed", ["Carts"])
    assert counts(audit(world, connect)) == (2, 1, 0, 0, 1)
    assert world.sent(sync(world, connect)) == [("remove", "friend@shop.example")]
    assert tagged(mailchimp) == {"ana@shop.example"}
    assert mailchimp.members["friend@shop.example"]["status"] == "subscribed"


def test_who_said_no_or_was_archived_does_not_come_back(world: World, mailchimp: fake_mailchimp.Platform) -> None:
    connect = connected(mailchimp)
    for name in ("ana", "bo", "cy"):
        world.person(name, email=f"{name}@shop.example")
    sync(world, connect)
    for name, status in (("ana", "unsubscribed"), ("bo", "archived")):
        mailchimp.members[f"{name}@shop.example"].update(status=status, tags=[])
    read_opt_outs(world.warehouse, "carts", "mailchimp", connect)
    found = audit(world, connect)
    assert (found.lost, found.opted_out) == (2, 1)
    sync(world, connect)
    assert world.sent(sync(world, connect)) == []
    assert mailchimp.opt_in_state() == {
        "ana@shop.example": "unsubscribed",
        "bo@shop.example": "archived",
        "cy@shop.example": "transactional",
    }
    assert tagged(mailchimp) == {"cy@shop.example"}


def test_a_change_that_is_seconds_old_is_not_judged(world: World, mailchimp: fake_mailchimp.Platform) -> None:
    connect = connected(mailchimp)
    world.person("ana", email="ana@shop.example")
    sync(world, connect)
    mailchimp.members["ana@shop.example"]["tags"].clear()
    found = audit_target(world.warehouse, "carts", "mailchimp", connect, every=timedelta(0))
    assert found is not None
    assert counts(found) == (0, 1, 0, 0, 0)


def test_nothing_is_concluded_when_the_ledger_moves_meanwhile(world: World, mailchimp: fake_mailchimp.Platform) -> None:
    world.person("ana", email="ana@shop.example")
    sync(world, connected(mailchimp))
    mailchimp.members["ana@shop.example"]["tags"].clear()

    def connect(name: str, options: Mapping[str, object]) -> Destination:
        destination = connected(mailchimp)(name, options)
        plain = destination.read_back

        def read_back(list_id: str) -> Iterator[str]:
            yield from plain(list_id)
            world.person("bo", email="bo@shop.example")
            sync(world, connected(mailchimp))

        destination.read_back = read_back  # type: ignore[method-assign]
        return destination

    assert audit(world, connect).outcome == "moved"
    assert world.warehouse.scalar("select count(*) as n from sync.ledger where action = 'remove'") == 0
    assert audit(world, connected(mailchimp)).lost == 1  # it does not count as the day's audit


def test_an_audit_is_made_once_a_day_and_only_where_something_was_sent(
    world: World, mailchimp: fake_mailchimp.Platform
) -> None:
    connect = connected(mailchimp)
    assert audit_target(world.warehouse, "carts", "mailchimp", connect) is None
    assert mailchimp.journal == []
    world.person("ana", email="ana@shop.example")
    sync(world, connect)
    assert audit_target(world.warehouse, "carts", "mailchimp", connect) is not None
    mailchimp.journal.clear()
    assert audit_target(world.warehouse, "carts", "mailchimp", connect) is None
    assert mailchimp.journal == []


def test_a_platform_without_read_back_tells_its_counts(world: World) -> None:
    server = fake_google_ads.Platform()
    world.person("ana", email="ana@shop.example")
    sync(world, connected(server), "google_ads")
    server.lists["42"] |= {
        "sizeInfo": {"displayNetworkMembersCount": "1200", "searchNetworkMembersCount": "1500"},
        "ingestedUserListInfo": {"uploadKeyTypes": ["CONTACT_ID"], "contactIdInfo": {"matchRatePercentage": 62}},
    }
    found = audit(world, connected(server), "google_ads")
    server.close()
    assert (found.outcome, found.members) == ("no_read_back", 1)
    (row,) = world.warehouse.read(
        "select size, members, match_rate, lost, newest_change_at is not null as is_known from reports.list_health"
    )
    assert row == {"size": 1500, "members": 1, "match_rate": 0.62, "lost": None, "is_known": True}
