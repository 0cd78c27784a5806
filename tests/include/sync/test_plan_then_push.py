"""Plan and push together: what is acknowledged is what the next plan measures against, on both kinds of destination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from include.destinations.base import Destination, destination_class
from include.sync.plan import PlanSummary
from include.sync.push import confirm_plan, push_plan
from tests.include.destinations import fake_google_ads, fake_mailchimp
from tests.include.sync.target_world import World, world

__all__ = ["world"]  # a fixture


@pytest.fixture(params=["mailchimp", "google_ads"])
def platform(request: pytest.FixtureRequest) -> Iterator[Any]:
    module = {"mailchimp": fake_mailchimp, "google_ads": fake_google_ads}[request.param]
    server = module.Platform()
    server.destination = request.param
    yield server
    server.close()


def sync(world: World, platform: Any) -> PlanSummary:
    def connect(name: str, options: Mapping[str, object]) -> Destination:
        cls = destination_class(name)
        return cls(platform.connection(), cls.Settings.model_validate(dict(options)))

    plan = world.plan(platform.destination)
    push_plan(world.warehouse, plan.plan_id, connect)
    assert confirm_plan(world.warehouse, plan.plan_id, connect)
    return plan


def test_what_was_acknowledged_is_not_sent_again_and_leavers_go(world: World, platform: Any) -> None:
    world.person("ana", email="ana@shop.example", cart_value=10.0)
    world.person("bo", email="bo@shop.example", cart_value=20.0)
    assert sync(world, platform).adds == 2
    assert len(platform.on_list() if platform.destination == "google_ads" else platform.members) == 2
    platform.journal.clear()
    again = sync(world, platform)
    assert (again.rows, again.unchanged, platform.journal) == (0, 2, [])
    world.execute("delete from segments.carts where profile_id = 'ana'")
    assert sync(world, platform).removes == 1
    last = sync(world, platform)
    assert (last.rows, last.unchanged) == (0, 1)


def test_a_new_address_comes_in_before_the_old_one_goes(world: World) -> None:
    server = fake_mailchimp.Platform()
    server.destination = "mailchimp"  # type: ignore[attr-defined]
    world.person("ana", email="old@shop.example")
    sync(world, server)
    for table, column in (("core.profiles", "email"), ("core.identifiers", "identifier_value")):
        world.execute(f"update {table} set {column} = 'new@shop.example' where {column} = 'old@shop.example'")
    server.journal.clear()
    sync(world, server)
    writes = [call.body for call in server.list_writes()]
    assert [member["email_address"] for member in writes[0]["members"]] == ["new@shop.example"]
    assert writes[1] == {"members_to_remove": ["old@shop.example"]}
    tagged = [address for address, member in server.members.items() if member["tags"]]
    assert tagged == ["new@shop.example"]
    server.close()
