"""Whatever people did before: no request carries somebody who may not be sent, and no request raises a consent.

Random histories of consents, opt-outs at Mailchimp and in the CRM, bounces, changed addresses, merges, erasures, mails
of others, dear carts (another audience's) and syncs, through the real builds, plans, pushes and clients, to the
sandbox; some pushes are cut and tried again when more has happened. Who may be sent is said by an oracle in plain
Python (policy_towns.py). A history is a town of three people; many towns share a warehouse, because a build costs the
same for all. REKINDLE_HISTORIES sets how many are tried: 25 in `make test`, 1,000 and more in `make soak`.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.audiences.load import load_audiences
from include.destinations.base import Connect, Destination, destination_class
from include.destinations.http import utc_now
from include.errors import TransientError
from include.identity.hashing import google_email_sha256, google_phone_sha256
from include.settings import get_settings
from include.sync import recheck, run
from include.sync.opt_outs import read_opt_outs
from include.sync.plan import plan_target
from include.sync.push import confirm_plan
from include.warehouse.build import build_segment, build_tables
from include.warehouse.engine import Warehouse
from tests.include.destinations.running_sandbox import RunningSandbox, running_sandbox
from tests.include.destinations.sides.google_ads import Side as GoogleSide
from tests.include.destinations.sides.mailchimp import LIST
from tests.include.destinations.sides.mailchimp import Side as MailchimpSide
from tests.include.sync.policy_towns import ROUNDS, Town

HISTORIES = int(os.environ.get("REKINDLE_HISTORIES", 25))
TOGETHER = min(HISTORIES, 50)  # histories that share a warehouse
AUDIENCE = """
label: Carts
description: Left something in the cart.
owner: lifecycle@example.com
segment: cart_abandoners
params: {idle_for: 1h, window: 7d, min_cart_value: 0}
frequency_cap: {touches: 2, per: 7d}
holdout: 10%
exclusive: lifecycle
priority: 1
guard: {small_change: 1000000, min_size: 0}
destinations:
  - {to: mailchimp, audience: Newsletter, fields: {CART_URL: cart_url}}
  - {to: google_ads}
"""
DEAR_CARTS = """
label: Dear carts
description: Left something dear in the cart.
owner: lifecycle@example.com
segment: cart_abandoners
params: {idle_for: 1h, window: 7d, min_cart_value: 50}
exclusive: lifecycle
priority: 2
destinations:
  - {to: google_ads}
"""
HELD_OUT = 0.1
Policies = Mapping[tuple[str, str], tuple[str, bool]]
NOES = ("erased", "denied", "suppressed", "bounced", "said no at the tool")
CHANNELS = {"mailchimp": "email", "google_ads": "ads"}

pytestmark = pytest.mark.timeout(1800 + 3 * HISTORIES)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with running_sandbox() as running:
        yield running


@contextmanager
def audience_files(folder: Path, audience: str = AUDIENCE) -> Iterator[None]:
    (folder / "carts.yaml").write_text(audience)
    (folder / "dear_carts.yaml").write_text(DEAR_CARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REKINDLE_AUDIENCES_DIR", str(folder))
        get_settings.cache_clear()
        yield
    get_settings.cache_clear()


def spellings(plain: str) -> tuple[str | None, ...]:
    """An address or phone as the tools know it."""
    return plain, google_phone_sha256(plain) if plain.startswith("+") else google_email_sha256(plain)


def _used_up(name: str, options: Mapping[str, object]) -> Destination:
    raise TransientError("a quota is used up")


class County:
    """Some towns that share a warehouse and the tools."""

    def __init__(
        self, seeds: list[int], sandbox: RunningSandbox, *, is_deaf: bool = False, is_stubborn: bool = False
    ) -> None:
        sandbox.reset()
        self.is_deaf = is_deaf
        self.is_stubborn = is_stubborn
        self.sandbox = sandbox
        self.sides = {"mailchimp": MailchimpSide(sandbox), "google_ads": GoogleSide(sandbox)}
        self.warehouse = Warehouse("duckdb://")
        self.warehouse.ensure_tables()
        base = utc_now() - timedelta(days=1)
        self.towns = [Town(seed, number, base) for number, seed in enumerate(seeds)]
        self.tool: dict[str, str] = {}  # what people did at Mailchimp, and nobody else may change
        self.told: dict[str, str] = {}  # the same when we last asked
        self.seen: Counter[str] = Counter()

    def close(self) -> None:
        self.warehouse.close()

    def connect(self, name: str, options: Mapping[str, object]) -> Destination:
        cls = destination_class(name)
        return cls(self.sides[name].connection(), cls.Settings.model_validate(dict(options)))

    def load(self, rows: Iterator[tuple[str, dict[str, Any]]]) -> None:
        tables: dict[str, list[dict[str, Any]]] = {}
        now = utc_now()
        for table, row in rows:
            tables.setdefault(table, []).append({**row, "loaded_at": now})
        for table, listed in tables.items():
            self.warehouse.insert(table, listed)

    def sign_up(self) -> None:
        """Two of three have been on the newsletter's list before."""
        people = [person for town in self.towns for person in town.people if town.chance.random() < 0.67]
        self.sandbox.control(
            "mailchimp", {"members": [{"list_id": LIST, "email_address": one.emails[0]} for one in people]}
        )
        self.tool |= {one.emails[0]: "subscribed" for one in people}

    def all_leave(self) -> None:
        """Everybody on the newsletter's list unsubscribes."""
        for town in self.towns:
            town.wished = [
                {"email": one.emails[0], "status": "unsubscribed"} for one in town.people if one.emails[0] in self.tool
            ]
        self.act_at_tool()

    def act_at_tool(self) -> None:
        wishes = [wish for town in self.towns for wish in town.wished]
        if wishes:
            self.sandbox.control("mailchimp", {"actions": [{"list_id": LIST, **wish} for wish in wishes]})
            self.tool |= {wish["email"]: wish["status"] for wish in wishes}

    def more_happens(self, *, with_build: bool) -> None:
        """While a push waits: people say this and that, and the hourly reading hears of it, maybe a build, too."""
        self.load(row for town in self.towns for row in town.live(self.tool))
        self.act_at_tool()
        if with_build:
            self.build()
        self.listen()

    def build(self) -> None:
        now = utc_now()
        build_tables(self.warehouse, now)
        for name in ("carts", "dear_carts"):
            audience = load_audiences().audience(name)
            build_segment(self.warehouse, name, audience.segment, now, audience.params, audience.stages)
        for town in self.towns:
            town.built()

    def sync(self, number: int, meanwhile: Callable[[], None] | None = None) -> None:
        """What one DAG run does: read opt-outs, plan, push; then look at what was sent.

        With `meanwhile` the destinations are away at first, and their pushes are tried again after it happened.
        """
        self.listen()
        planned = self.policies()
        plans = {
            name: plan_target(self.warehouse, "carts", name, utc_now(), f"run-{number}").plan_id for name in self.sides
        }
        if meanwhile is not None:
            for plan_id in plans.values():
                with suppress(TransientError):
                    self.push(plan_id, _used_up)
            meanwhile()
        for name, plan_id in plans.items():
            self.sides[name].forget_calls()
            before = self.on_list(name)
            self.push(plan_id, self.connect)
            for _ in range(5):
                if confirm_plan(self.warehouse, plan_id, self.connect):
                    break
            carried = list(self.carried(name))
            for identifier in carried:
                self.judge(identifier, name, number, before, planned, meanwhile is not None)
            if name == "google_ads":
                self.count_entries(carried, before)
        self.nobody_was_raised()

    def listen(self) -> None:
        """Read what people said at the tool."""
        if not self.is_deaf:
            read_opt_outs(self.warehouse, "carts", "mailchimp", self.connect)
        self.told = dict(self.tool)

    def push(self, plan_id: str, connect: Connect) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "get_warehouse", lambda: self.warehouse)
            if self.is_stubborn:
                patch.setattr(recheck, "who_may_not_go", lambda warehouse, plan_id: frozenset())
            run.push_planned(plan_id, connect)

    def carried(self, name: str) -> Iterator[str]:
        """The identifiers that requests put on a list."""
        for call in self.sides[name].calls():
            if not call.is_write or ":remove" in call.path:
                continue
            if name == "mailchimp":
                assert '"status"' not in call.text
                assert set(re.findall(r'"status_if_new": ?"(\w+)"', call.text)) <= {"transactional"}
                body = json.loads(call.text) or {}
                yield from (member["email_address"] for member in body.get("members", []))
                yield from body.get("members_to_add", [])
                if call.method == "PUT":
                    yield body["email_address"]
            elif "audienceMembers:ingest" in call.path:
                for member in json.loads(call.text)["audienceMembers"]:
                    for identifier in member["userData"]["userIdentifiers"]:
                        yield next(iter(identifier.values()))

    def on_list(self, name: str) -> set[str]:
        """Who is on the list, or is by our own account."""
        ours = self.warehouse.read("select member_key from sync.memberships where destination = :name", name=name)
        return self.sides[name].on_list("Carts") | {row["member_key"] for row in ours}

    def is_entry(self, town: Town, plain: str, before: set[str]) -> bool:
        return not any(before & set(spellings(value)) for value in town.of_her_group(plain))

    def count_entries(self, carried: list[str], before: set[str]) -> None:
        """Everybody who was not on an ad list and is now has been touched."""
        owners = {town.person(plain).contact_id: (town, plain) for town, plain in map(self.owner, carried)}
        for town, plain in owners.values():
            town.person(plain).entries += self.is_entry(town, plain, before)

    def held_out(self) -> set[str]:
        """The addresses and phones of those who are never sent."""
        rows = self.warehouse.read(
            "select identifier_value, md5(:salt || profile_id) as hashed from core.identifiers",
            salt=f"{get_settings().holdout_salt}:carts:",
        )
        return {str(row["identifier_value"]) for row in rows if int(str(row["hashed"])[:8], 16) < HELD_OUT * 2**32}

    def policies(self) -> Policies:
        """Of an address or phone at a channel: why it may not be sent as of now, and whether it may not come in."""
        held_out = self.held_out()
        return {
            (plain, channel): (
                town.may_not(plain, channel, self.told) or ("held out" if plain in held_out else ""),
                town.touched_too_often(plain),
            )
            for town in self.towns
            for plain in town.addresses()
            for channel in CHANNELS.values()
        }

    def judge(self, identifier: str, name: str, number: int, before: set[str], planned: Policies, late: bool) -> None:
        """What is sent goes by the policies of its plan; but who has said no since has said no."""
        town, plain = self.owner(identifier)
        problem, touched_too_often = planned[plain, CHANNELS[name]]
        said_since = town.may_not(plain, CHANNELS[name], self.told)
        if not problem and said_since in NOES:
            problem = said_since
        if not problem and touched_too_often and self.is_entry(town, plain, before):
            problem = "touched too often"
        if late:
            self.seen[f"sent late to {name}"] += 1
        self.seen[f"sent to {name}"] += 1
        assert not problem, (
            f"round {number}: a request to {name} carries {plain}, who may not be sent: {problem}\n"
            f"town {town.seed}:\n" + "\n".join(town.story)
        )

    def owner(self, identifier: str) -> tuple[Town, str]:
        for town in self.towns:
            for plain in town.addresses():
                if identifier in spellings(plain):
                    return town, plain
        raise AssertionError("somebody was sent whom nobody knows")

    def nobody_was_raised(self) -> None:
        """At Mailchimp everybody has the status she gave herself, or none that gets her a newsletter."""
        found = self.sides["mailchimp"].statuses()
        for address, status in found.items():
            assert status == self.tool.setdefault(address, "transactional"), f"{address} was made {status}"

    def excluded(self) -> None:
        """Count who is kept out now, so that a run in which nobody ever was shows."""
        held_out = self.held_out()
        for town in self.towns:
            for plain in town.addresses():
                for channel in ("email", "ads"):
                    self.seen[town.may_not(plain, channel, self.told) or "may be sent"] += 1
                self.seen["held out"] += plain in held_out
                self.seen["touched too often"] += town.touched_too_often(plain)


def live(seeds: list[int], sandbox: RunningSandbox, **more: bool) -> Counter[str]:
    """Live through some histories; what was seen, in numbers."""
    county = County(seeds, sandbox, **more)
    try:
        county.load(row for town in county.towns for row in town.begin())
        county.sign_up()
        if county.is_deaf:
            county.all_leave()
        for number in range(ROUNDS):
            if number:
                county.load(row for town in county.towns for row in town.live(county.tool))
                county.act_at_tool()
            if number != 2:  # a sync without a build since the last one
                county.build()
            county.sync(number, partial(county.more_happens, with_build=number == 0) if number in (0, 2) else None)
            county.excluded()
        return county.seen
    finally:
        county.close()


def test_no_request_carries_who_may_not_be_sent_and_none_raises_a_consent(
    sandbox: RunningSandbox, tmp_path: Path
) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=max(1, HISTORIES // TOGETHER))
    @given(seeds=st.lists(st.integers(0, 2**32), min_size=TOGETHER, max_size=TOGETHER))
    def lived_through(seeds: list[int]) -> None:
        seen.update(live(seeds, sandbox))
        seen["histories"] += len(seeds)

    with audience_files(tmp_path):
        if HISTORIES < 100:  # hypothesis begins with the simplest example, and one is not enough to see everything
            seen.update(live(list(range(1, TOGETHER + 1)), sandbox))
        else:
            lived_through()
    print(dict(seen))
    for wanted in (
        "sent to mailchimp", "sent to google_ads", "sent late to mailchimp", "sent late to google_ads",
        "may be sent", "erased", "denied", "said no at the tool",
        "kept by the other audience", "held out", "touched too often",
    ):  # fmt: skip
        assert seen[wanted], f"nobody was ever '{wanted}': this run proves nothing"


def test_it_would_notice(sandbox: RunningSandbox, tmp_path: Path) -> None:
    with audience_files(tmp_path), pytest.raises(AssertionError, match="who may not be sent: said no at the tool"):
        live(list(range(1, 6)), sandbox, is_deaf=True)


def test_it_would_notice_a_late_push_that_does_not_look_again(sandbox: RunningSandbox, tmp_path: Path) -> None:
    with audience_files(tmp_path), pytest.raises(AssertionError, match="who may not be sent"):
        live(list(range(1, 11)), sandbox, is_stubborn=True)


@pytest.mark.parametrize(
    ("left_out", "problem"),
    [
        ("frequency_cap: {touches: 2, per: 7d}\n", "touched too often"),
        ("holdout: 10%\n", "held out"),
        ("exclusive: lifecycle\npriority: 1\n", "kept by the other audience"),
    ],
)
def test_it_would_notice_a_policy_that_is_not_applied(
    sandbox: RunningSandbox, tmp_path: Path, left_out: str, problem: str
) -> None:
    assert left_out in AUDIENCE
    with audience_files(tmp_path, AUDIENCE.replace(left_out, "")), pytest.raises(AssertionError, match=problem):
        live(list(range(1, 11)), sandbox)
