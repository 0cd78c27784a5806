"""A list stays the audience's list: whatever the label says, and never quietly another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

import pytest

from include.destinations.base import Destination, destination_class
from include.errors import ConfigurationError
from include.settings import get_settings
from include.sync.audit import audit_target
from include.sync.lists import FORGOTTEN, forget_list
from include.sync.push import push_plan
from tests.include.destinations.fake_mailchimp import Platform
from tests.include.sync.target_world import World, world

__all__ = ["world"]  # a fixture


@pytest.fixture
def tool(world: World) -> Iterator[Platform]:
    """Mailchimp, with Ana and Bo on the list called Carts."""
    tool = Platform()
    world.person("ana", email="ana@shop.example")
    world.person("bo", email="bo@shop.example")
    sync(world, tool)
    assert tagged(tool) == {"Carts": {"ana@shop.example", "bo@shop.example"}}
    tool.journal.clear()
    yield tool
    tool.close()


def connect(tool: Platform):
    def make(name: str, options: Mapping[str, object]) -> Destination:
        cls = destination_class(name)
        return cls(tool.connection(), cls.Settings.model_validate(dict(options)))

    return make


def sync(world: World, tool: Platform) -> None:
    push_plan(world.warehouse, world.plan().plan_id, connect(tool))


def rename(world: World, label: str) -> None:
    path = world.folder / "carts.yaml"
    path.write_text(path.read_text().replace("label: Carts", f"label: {label}"))
    get_settings.cache_clear()


def tagged(tool: Platform) -> dict[str, set[str]]:
    return {
        tag: {address for address, member in tool.members.items() if tag in member["tags"]}
        for tag in tool.segments.values()
    }


def test_a_new_label_leaves_the_list_as_it_is(world: World, tool: Platform) -> None:
    rename(world, "Left in the cart")
    sync(world, tool)
    assert tool.list_writes() == []
    world.execute("delete from segments.carts where profile_id = 'bo'")
    world.person("cy", email="cy@shop.example")
    sync(world, tool)
    assert tagged(tool) == {"Carts": {"ana@shop.example", "cy@shop.example"}}
    audit = audit_target(world.warehouse, "carts", "mailchimp", connect(tool), settles_in=timedelta(0))
    assert audit is not None
    assert audit.is_true


def test_a_list_without_members_takes_the_label_of_now(world: World, tool: Platform) -> None:
    world.execute("delete from segments.carts")
    sync(world, tool)
    rename(world, "Left in the cart")
    world.match("ana")
    sync(world, tool)
    assert tagged(tool) == {"Carts": set(), "Left in the cart": {"ana@shop.example"}}


def test_a_list_that_was_renamed_at_the_tool_is_asked_about_before_anything_is_sent(
    world: World, tool: Platform
) -> None:
    (number,) = tool.segments
    tool.segments[number] = "Somebody's name for it"
    world.person("cy", email="cy@shop.example")
    with pytest.raises(ConfigurationError, match=r"2 members.*forget-list carts mailchimp"):
        sync(world, tool)
    with pytest.raises(ConfigurationError, match="renamed or deleted the list"):
        audit_target(world.warehouse, "carts", "mailchimp", connect(tool))
    assert "cy@shop.example" not in tool.members
    assert {row["member_key"] for row in world.warehouse.read("select member_key from sync.memberships")} == {
        "ana@shop.example",
        "bo@shop.example",
    }


def test_after_a_list_is_gone_everybody_who_may_comes_in_anew(world: World, tool: Platform) -> None:
    tool.segments = {1: "Newsletter readers"}
    for member in tool.members.values():
        member["tags"].clear()
    world.opt_out("bo@shop.example")
    world.person("cy", email="cy@shop.example")
    with pytest.raises(ConfigurationError):
        sync(world, tool)
    rename(world, "Left in the cart")
    assert forget_list(world.warehouse, "carts", "mailchimp") == 2
    assert forget_list(world.warehouse, "carts", "mailchimp") == 0
    sync(world, tool)
    assert {tag: who for tag, who in tagged(tool).items() if who} == {
        "Left in the cart": {"ana@shop.example", "cy@shop.example"}
    }
    reasons = world.warehouse.tuples("select distinct reason from sync.ledger where action = 'remove'")
    assert reasons == [(FORGOTTEN,)]
