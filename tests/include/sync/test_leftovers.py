"""Lists that no audience file names any more: a no still holds there, and everybody leaves when somebody says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest

from include.destinations.base import Destination, destination_class
from include.errors import ConfigurationError, TransientError
from include.identity import google_email_sha256
from include.sync import leftovers, requests
from include.sync.leftovers import Honoured, honour_leftovers, retire
from include.sync.push import confirm_plan, push_plan
from tests.include.destinations import fake_google_ads, fake_mailchimp
from tests.include.destinations.local_server import LocalServer
from tests.include.sync.target_world import World, world

__all__ = ["world"]  # a fixture
HASHES = {name: google_email_sha256(f"{name}@shop.example") for name in ("ana", "bo", "cy")}


class Tools:
    """Mailchimp and Google Ads, with Ana, Bo and Cy on the list of `carts` at both."""

    def __init__(self, world: World) -> None:
        self.mailchimp = fake_mailchimp.Platform()
        self.google_ads = fake_google_ads.Platform()
        self.down: set[str] = set()
        self.asked: list[Mapping[str, object]] = []
        for name in HASHES:
            world.person(name, email=f"{name}@shop.example")
        for destination in ("mailchimp", "google_ads"):
            plan = world.plan(destination)
            push_plan(world.warehouse, plan.plan_id, self.connect)
            assert confirm_plan(world.warehouse, plan.plan_id, self.connect)
        self.asked.clear()

    def connect(self, name: str, options: Mapping[str, object]) -> Destination:
        if name in self.down:
            raise TransientError(f"{name} gave no answer")
        self.asked.append(options)
        server: fake_mailchimp.Platform | fake_google_ads.Platform = getattr(self, name)
        cls = destination_class(name)
        return cls(server.connection(), cls.Settings.model_validate(dict(options)))

    def tagged(self) -> set[str]:
        return {address.split("@")[0] for address, member in self.mailchimp.members.items() if member["tags"]}

    def targeted(self) -> set[str]:
        return {name for name, value in HASHES.items() if value in self.google_ads.on_list()}


@pytest.fixture
def tools(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    monkeypatch.setattr(requests, "QUICK_POLLS", ())
    made = Tools(world)
    yield made
    server: LocalServer
    for server in (made.mailchimp, made.google_ads):
        server.close()


def drop(world: World, destination: str) -> None:
    """Take a destination out of the file."""
    path = world.folder / "carts.yaml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if f"to: {destination}" not in line))


def members(world: World) -> int:
    return int(world.warehouse.scalar("select count(*) as n from sync.memberships where not is_leaving"))


def test_who_says_no_leaves_a_list_that_no_file_names(world: World, tools: Tools) -> None:
    drop(world, "mailchimp")
    world.opt_out("Ana@shop.example")
    world.execute("update core.consents set status = 'denied' where profile_id = 'bo' and channel = 'ads'")
    assert honour_leftovers(world.warehouse, tools.connect) == Honoured(targets=1, removed=1)
    assert tools.tagged() == {"bo", "cy"}
    assert tools.targeted() == {"ana", "bo", "cy"}  # this list has plans
    assert tools.mailchimp.opt_in_state()["ana@shop.example"] == "transactional"
    tools.asked.clear()
    assert honour_leftovers(world.warehouse, tools.connect) == Honoured(targets=1)
    assert tools.asked == []

    (world.folder / "carts.yaml").unlink()
    assert honour_leftovers(world.warehouse, tools.connect) == Honoured(targets=2, removed=1)
    assert tools.targeted() == {"ana", "cy"}
    assert members(world) == 4


def test_a_list_is_reached_as_its_last_plan_did(world: World, tools: Tools) -> None:
    path = world.folder / "carts.yaml"
    named = path.read_text()
    path.write_text(named.replace("{to: google_ads}", "{to: google_ads, customer_id: '4445556666'}"))
    world.plan("google_ads")
    path.unlink()
    (world.folder / "others.yaml").write_text(named.replace("Carts", "Others"))
    world.opt_out("ana@shop.example", channel="ads")
    assert honour_leftovers(world.warehouse, tools.connect).removed == 1
    assert tools.asked == [{"customer_id": "4445556666"}]


def test_what_was_not_answered_is_asked_after(world: World, tools: Tools) -> None:
    drop(world, "google_ads")
    world.opt_out("ana@shop.example", channel="ads")
    late = fake_google_ads.status("remove", 1, "PROCESSING")
    answer = tools.google_ads.change_members

    def answer_later(path: str, body: dict[str, object]) -> object:
        reply = answer(path, body)
        tools.google_ads.requests[f"request-{len(tools.google_ads.requests)}"] = late
        return reply

    tools.google_ads.change_members = answer_later  # type: ignore[method-assign, assignment]
    open_requests = "select status, row_count from sync.requests where plan_id like 'leave-%' order by recorded_at"
    for _ in range(2):
        honour_leftovers(world.warehouse, tools.connect)
        assert world.warehouse.tuples(open_requests) == [("pending", 1)]
    late["requestStatus"] = "SUCCESS"
    honour_leftovers(world.warehouse, tools.connect)
    assert world.warehouse.tuples(open_requests) == [("pending", 1), ("succeeded", 1)]


def test_a_list_that_cannot_be_reached_holds_up_no_other(world: World, tools: Tools) -> None:
    (world.folder / "carts.yaml").unlink()
    for channel in ("email", "ads"):
        world.opt_out("ana@shop.example", channel=channel)
    tools.down = {"google_ads"}
    found = honour_leftovers(world.warehouse, tools.connect)
    assert (found.removed, found.reasons) == (1, ("carts > google_ads: google_ads gave no answer",))
    assert tools.tagged() == {"bo", "cy"}
    tools.down = set()
    assert honour_leftovers(world.warehouse, tools.connect) == Honoured(targets=2, removed=1)
    assert tools.targeted() == {"bo", "cy"}


@pytest.mark.parametrize("destination", ["mailchimp", "google_ads"])
def test_everybody_leaves_when_somebody_says_so(
    world: World, tools: Tools, destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "PAGE_ROWS", 2)
    with pytest.raises(ConfigurationError, match="still names the destination"):
        retire(world.warehouse, "carts", destination, tools.connect)
    drop(world, destination)
    assert retire(world.warehouse, "carts", destination, tools.connect) == 3
    assert (tools.tagged() if destination == "mailchimp" else tools.targeted()) == set()
    assert len(tools.tagged() | tools.targeted()) == 3
    assert members(world) == 3
    assert tools.mailchimp.opt_in_state().keys() == {f"{name}@shop.example" for name in HASHES}
    assert retire(world.warehouse, "carts", destination, tools.connect) == 0
    assert honour_leftovers(world.warehouse, tools.connect) == Honoured()


def test_a_leftover_list_that_was_deleted_has_nobody_on_it(world: World, tools: Tools) -> None:
    drop(world, "google_ads")
    tools.google_ads.lists.clear()
    assert retire(world.warehouse, "carts", "google_ads", tools.connect) == 3
    assert members(world) == 3


def test_a_list_that_nobody_can_reach_is_said(world: World, tools: Tools) -> None:
    """Plans of an older version did not keep what their audience file said."""
    (world.folder / "carts.yaml").unlink()
    world.execute("update sync.plans set options = null")
    world.opt_out("ana@shop.example", channel="ads")
    (reason,) = honour_leftovers(world.warehouse, tools.connect).reasons
    assert "no audience file names the destination google_ads any more" in reason


def test_everything_she_was_sent_with_is_taken_away(world: World, tools: Tools) -> None:
    old = google_email_sha256("old.ana@shop.example")
    row = world.warehouse.read("select * from sync.ledger where member_key = :key limit 1", key=HASHES["ana"])[0]
    sent = json.dumps({"google_email_sha256": [old, HASHES["ana"]]})
    world.insert("sync.ledger", {**row, "sequence": row["sequence"] - 1, "plan_id": "earlier", "identifiers": sent})
    next(iter(tools.google_ads.members.values())).add(old)
    drop(world, "google_ads")
    world.opt_out("ana@shop.example", channel="ads")
    assert honour_leftovers(world.warehouse, tools.connect).removed == 1
    assert tools.google_ads.on_list() == {HASHES["bo"], HASHES["cy"]}
