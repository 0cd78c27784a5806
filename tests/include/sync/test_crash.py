"""Killed with SIGKILL at random moments, at a platform that cuts, throttles and fails: nothing lost, nothing doubled.

A chain of plans is pushed by processes that are killed, several times for each plan, and begun again. When all plans
are through, the platform has exactly what was planned, the ledger says the same, and every automation has started once
for each time that somebody came in. REKINDLE_KILLS sets the number of kills, REKINDLE_SEED repeats one choice of
people, faults and moments (as far as moments can be repeated); a failure names its seed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from include.connections import Connection
from include.identity.hashing import google_email_sha256
from include.sandbox.datamanager import DataManagerConfig
from include.sandbox.server import Sandbox, SandboxConfig
from include.warehouse.build import ensure_views
from include.warehouse.engine import Warehouse
from tests.include.destinations.running_sandbox import RunningSandbox, running_sandbox
from tests.include.destinations.sides import LABEL, BaseSide, side_of
from tests.include.destinations.sides.mailchimp import LIST
from tests.include.sync.pushing_process import AWAY, push_all

KILLS = int(os.environ.get("REKINDLE_KILLS", 30))
SEED = int(os.environ.get("REKINDLE_SEED", random.SystemRandom().randrange(10**6)))
SHARES = {"mailchimp": 0.4, "google_ads": 0.35, "starter": 0.25}
KILLS_PER_PLAN = 4
PEOPLE = 120
SENDING_SHARE = 0.7  # of the pushes whose time to be killed begins with the first call
AUDIENCE = f"""
label: {LABEL}
description: Left something in the cart.
owner: lifecycle@example.com
segment: cart_abandoners
params: {{idle_for: 1h, window: 7d, min_cart_value: 0}}
destinations:
  - {{to: mailchimp, audience: Newsletter, fields: {{CART_URL: cart_url}}}}
  - {{to: google_ads}}
"""

pytestmark = pytest.mark.timeout(max(1800, KILLS * 60))


@dataclass
class Person:
    """Who should be on the list: her address now, and what we say about her."""

    address: str
    version: int = 0
    entered: Counter[str] = field(default_factory=Counter)  # how often each of her addresses came in


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with running_sandbox() as running:
        running.app.close()
        fast = DataManagerConfig(seconds=0.0, requests_per_minute=1_000_000)
        running.app = Sandbox(SandboxConfig(datamanager=fast))
        yield running


@pytest.fixture(scope="module")
def fork_server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.include.sync.pushing_process"])
    return context


class Chain:
    """One target, its platform, and the people who should be on its list after each plan."""

    def __init__(self, name: str, sandbox: RunningSandbox, fork_server: Any, folder: Path, seed: int) -> None:
        self.name, self.sandbox, self.fork_server, self.folder = name, sandbox, fork_server, folder
        self.destination = "mailchimp" if name == "starter" else name
        self.random = random.Random(seed)
        self.warehouse_url = f"duckdb:///{folder}/warehouse.duckdb"
        self.warehouse = Warehouse(self.warehouse_url)
        self.warehouse.ensure_tables()
        ensure_views(self.warehouse)
        (folder / "audiences").mkdir()
        (folder / "audiences" / "carts.yaml").write_text(AUDIENCE)
        self.people = {f"p{i}": Person(f"p{i}-0@shop.example") for i in range(PEOPLE)}
        self.on: set[str] = set()  # profiles that should be on the list
        self.plans = 0
        self.kills = 0
        self.seconds = 0.5  # of a push that is not killed, learnt on the way
        self.side: BaseSide | None = None if name == "starter" else side_of(name, sandbox)
        self.started = folder / "started.txt"
        self.connection = self.side.connection() if self.side else Connection("starter", host=str(self.started))

    def key(self, address: str) -> str:
        return google_email_sha256(address) if self.name == "google_ads" else address

    def plan_next(self) -> str:
        """People come, change, leave and get new addresses; leavers are first, old addresses last."""
        leave, come_in, give_up = [], [], []
        for profile_id, person in self.people.items():
            chance = self.random.random()
            if profile_id not in self.on:
                if chance < 0.6:
                    come_in.append(("add", profile_id))
            elif chance < 0.25:
                leave.append(("remove", profile_id, person.address))
                self.on.discard(profile_id)
            elif chance < 0.45 and self.name != "starter":
                person.version += 1
                come_in.append(("update", profile_id))
            elif chance < 0.6:
                give_up.append(("remove", profile_id, person.address))
                person.address = f"{profile_id}-{self.plans + 1}@shop.example"
                come_in.append(("add", profile_id))
        rows = [*leave, *((action, who, self.people[who].address) for action, who in come_in), *give_up]
        for action, profile_id in come_in:
            self.on.add(profile_id)
            if action == "add":
                self.people[profile_id].entered[self.people[profile_id].address] += 1
        self.subscribe([self.people[who].address for _, who in come_in])
        self.plans += 1
        plan_id = f"plan-{self.plans}"
        self.warehouse.insert(
            "sync.plans",
            [{"plan_id": plan_id, "audience": "carts", "destination": self.destination, "list_name": LABEL}],
        )
        self.warehouse.insert("sync.plan_rows", [self.row(plan_id, number, *row) for number, row in enumerate(rows)])
        return plan_id

    def row(self, plan_id: str, number: int, action: str, profile_id: str, address: str) -> dict[str, Any]:
        key = self.key(address)
        kind = "google_email_sha256" if self.name == "google_ads" else "email"
        fields = {} if self.name == "google_ads" else {"CART_URL": self.cart(profile_id)}
        return {
            "plan_id": plan_id, "row_number": number, "action": action, "profile_id": profile_id, "member_key": key,
            "identifiers": json.dumps({kind: [key]}), "fields": None if action == "remove" else json.dumps(fields),
            "payload_hash": None if action == "remove" else f"{key}/{self.people[profile_id].version}",
        }  # fmt: skip

    def cart(self, profile_id: str) -> str:
        return f"https://shop.example/{profile_id}/{self.people[profile_id].version}"

    def subscribe(self, addresses: list[str]) -> None:
        """Only subscribed people start automations at Mailchimp."""
        if self.name == "mailchimp":
            held = self.side.statuses() if self.side else {}
            new = [
                {"list_id": LIST, "email_address": one, "status": "subscribed"} for one in addresses if one not in held
            ]
            self.sandbox.control("mailchimp", {"members": new})

    def misbehave(self) -> None:
        """A few faults for the requests to come, all of which may be overcome by trying again."""
        if self.side is None:
            return
        self.side.behave()
        for _ in range(self.random.randint(0, 5)):
            kind = self.random.choice(["cut_after_commit", "cut_before", "truncated", "429", "503"])
            fault: dict[str, Any] = {"kind": kind}
            if kind == "429":
                fault = self.side.throttled
            elif kind == "503":
                fault = {"kind": "status", "code": 503}
            self.side.misbehave(fault, times=self.random.randint(1, 3), route=self.random.choice(["", "POST"]))

    def push(self, plan_id: str, *, killed: bool) -> bool:
        """One process; True when it got to the end. `kills` counts those that were still at work."""
        ready, theirs = self.fork_server.Pipe(duplex=False)
        process = self.fork_server.Process(
            target=push_all,
            args=(
                self.name, self.warehouse_url, plan_id, self.connection, str(self.folder / "audiences"), theirs,
            ),
        )  # fmt: skip
        process.start()
        theirs.close()
        ready.recv()
        if self.random.random() < SENDING_SHARE:  # nothing comes where nothing is left to send
            self.wait_for(ready, process)
        began = time.monotonic()
        process.join(self.random.uniform(0, self.seconds) if killed else 900)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        if process.exitcode == -signal.SIGKILL:
            assert killed, "a push did not end within a quarter of an hour"
            self.kills += 1
            return False
        assert process.exitcode in (0, AWAY), f"the push failed with {process.exitcode}"
        if process.exitcode == 0:
            self.seconds = 0.7 * self.seconds + 0.3 * (time.monotonic() - began)
        return process.exitcode == 0

    @staticmethod
    def wait_for(ready: Any, process: Any) -> None:
        """Until the first call goes out, or the process ends without one."""
        with suppress(EOFError):
            while process.is_alive() and not ready.poll(0.005):
                pass
            if ready.poll():
                ready.recv()

    def push_with_kills(self, plan_id: str, kills: int) -> None:
        target = self.kills + kills
        while self.kills < target:
            self.misbehave()
            if self.push(plan_id, killed=True):
                break
        if self.side:
            self.side.behave()
        while not self.push(plan_id, killed=False):
            pass

    # what must hold

    def check(self) -> None:
        wanted = {self.key(self.people[who].address) for who in self.on}
        members = self.warehouse.tuples("select member_key, status, is_leaving from sync.memberships")
        assert {member_key for member_key, _, _ in members} == wanted
        assert {status for _, status, _ in members} <= {"accepted"}
        assert not any(leaving for _, _, leaving in members)
        unfinished = self.warehouse.tuples("select plan_id from sync.pushes where not is_finished")
        assert unfinished == []
        twice = self.warehouse.tuples(
            "select plan_id, action, count(*) as answers from sync.ledger where status = 'accepted' "
            "group by plan_id, action, member_key having count(*) > 1"
        )
        assert twice == [], "rows with an answer were sent again"
        entries = sum((person.entered for person in self.people.values()), Counter[str]())
        if self.name == "starter":
            assert Counter(line.split()[0] for line in self.started.read_text().splitlines()) == entries
            return
        assert self.side is not None
        assert self.side.on_list() == wanted
        if self.name == "mailchimp":
            (found,) = [one for one in self.sandbox.get("lists") if one["platform"] == "mailchimp"]
            carts = {address: fields["CART_URL"] for address, fields in found["merge_fields"].items()}
            assert carts == {self.people[who].address: self.cart(who) for who in self.on}
            assert Counter(one["email"] for one in self.sandbox.get("automations")["entries"]) == entries


@pytest.mark.parametrize("name", sorted(SHARES))
def test_killed_anywhere_the_list_and_the_ledger_end_as_planned(
    name: str, sandbox: RunningSandbox, fork_server: Any, tmp_path: Path
) -> None:
    chain = Chain(name, sandbox, fork_server, tmp_path, SEED)
    wanted = max(round(KILLS * SHARES[name]), 1)
    try:
        while chain.kills < wanted:
            chain.push_with_kills(chain.plan_next(), min(KILLS_PER_PLAN, wanted - chain.kills))
            chain.check()
    except AssertionError as error:
        raise AssertionError(f"REKINDLE_SEED={SEED}, plan {chain.plans}, kill {chain.kills}: {error}") from error
