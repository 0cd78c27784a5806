"""What every destination must do, run over every module in include/destinations against its own local stand-in.

A new destination brings `tests/include/destinations/fake_<name>.py` with a class `Platform`; nothing else is needed
here. The calls go through `push_plan`, as in production.
"""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import include.destinations
from include.destinations.base import Destination, Member, destination_class
from include.errors import AuthenticationError
from include.settings import get_settings
from include.sync.push import PushSummary, confirm_plan, push_plan
from include.warehouse.engine import Warehouse

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(include.destinations.__path__) if module.name not in ("base", "http")
)
AUDIENCE = """
label: Cart abandoners
description: Left something in the cart.
owner: lifecycle@example.com
segment: cart_abandoners
params: {{idle_for: 1h, window: 7d, min_cart_value: 0}}
destinations:
  - {target}
"""
BATCH = 4


class Target:
    """One destination on its stand-in, with a warehouse to push from."""

    def __init__(self, name: str, platform: Any) -> None:
        self.name = name
        self.platform = platform
        self.warehouse = Warehouse("duckdb://")
        self.warehouse.ensure_tables()
        self.plans = 0

    def connect(self, name: str, options: Mapping[str, object]) -> Destination:
        cls = destination_class(name)
        small = type(cls.__name__, (cls,), {"max_batch_rows": BATCH})
        made: Destination = small(self.platform.connection(), cls.Settings.model_validate(dict(options)))
        return made

    def push(self, action: str, members: Sequence[Member]) -> PushSummary:
        """Plan these rows, push them, and ask after what comes later."""
        plan_id = self.plan(action, members)
        summary = push_plan(self.warehouse, plan_id, self.connect)
        assert confirm_plan(self.warehouse, plan_id, self.connect)
        return summary

    def plan(self, action: str, members: Sequence[Member]) -> str:
        self.plans += 1
        plan_id = f"plan-{self.plans}"
        self.warehouse.insert(
            "sync.plans",
            [{"plan_id": plan_id, "audience": "carts", "destination": self.name, "list_name": "Cart abandoners"}],
        )
        self.warehouse.insert(
            "sync.plan_rows",
            [
                {
                    "plan_id": plan_id, "row_number": number, "action": action, "profile_id": f"p{number}",
                    "member_key": member.member_key,
                    "identifiers": json.dumps({kind: list(values) for kind, values in member.identifiers.items()}),
                    "fields": None if action == "remove" else json.dumps(dict(member.fields)),
                    "payload_hash": f"h{number}",
                }
                for number, member in enumerate(members)
            ],
        )  # fmt: skip
        return plan_id

    def ledger(self, plan: str) -> dict[str, str]:
        """The newest answer by member key."""
        rows = self.warehouse.read(
            "select member_key, status from sync.ledger where plan_id = :plan order by sequence", plan=plan
        )
        return {row["member_key"]: row["status"] for row in rows}


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    name = request.param
    platform = importlib.import_module(f"tests.include.destinations.fake_{name}").Platform()
    options = json.dumps({"to": name, **platform.options})
    (tmp_path / "carts.yaml").write_text(AUDIENCE.format(target=options))
    monkeypatch.setenv("REKINDLE_AUDIENCES_DIR", str(tmp_path))
    get_settings.cache_clear()
    yield Target(name, platform)
    get_settings.cache_clear()
    platform.close()


def keys(members: Sequence[Member]) -> set[str]:
    return {member.member_key for member in members}


def test_it_says_what_it_is(target: Target) -> None:
    cls = destination_class(target.name)
    assert cls.name == target.name
    assert cls.label
    assert cls.description.endswith(".")
    assert cls.docs_url.startswith("https://")
    assert cls.channel in ("email", "ads")
    assert cls.identifiers
    assert cls.max_batch_rows > 0
    for name, field in cls.Settings.model_fields.items():
        assert field.title, name
        assert field.description, name


def test_the_login_is_checked_without_a_write(target: Target) -> None:
    target.connect(target.name, target.platform.options).check()
    assert all(call.method == "GET" or call.path == "/token" for call in target.platform.journal)


def test_adding_again_changes_nothing(target: Target) -> None:
    people = target.platform.people(3)
    target.push("add", people)
    lists, state = target.platform.on_list(), target.platform.opt_in_state()
    summary = target.push("add", people)
    assert target.platform.on_list() == lists == keys(people)
    assert target.platform.opt_in_state() == state
    assert summary.rejected == summary.retry == 0


@pytest.mark.parametrize(("rows", "calls"), [(1, 1), (BATCH - 1, 1), (BATCH, 1), (BATCH + 1, 2), (2 * BATCH, 2)])
def test_batches_end_where_the_platform_says(target: Target, rows: int, calls: int) -> None:
    people = target.platform.people(rows)
    target.push("add", people[:1])
    target.platform.journal.clear()
    target.push("add", people)
    assert len(target.platform.list_writes()) == calls
    assert target.platform.on_list() == keys(people)


def test_one_bad_row_does_not_fail_the_batch(target: Target) -> None:
    good, bad = target.platform.people(3), target.platform.bad_person()
    summary = target.push("add", [good[0], bad, *good[1:]])
    assert target.platform.on_list() == keys(good)
    assert target.ledger("plan-1") == {**dict.fromkeys(keys(good), "accepted"), bad.member_key: "rejected"}
    assert summary.sent == 4


def test_a_wrong_credential_is_final(target: Target, waits: list[float]) -> None:
    target.platform.faults.extend([target.platform.unauthorized] * 20)
    plan_id = target.plan("add", target.platform.people(2))
    with pytest.raises(AuthenticationError, match=f"{target.name}_default") as caught:
        push_plan(target.warehouse, plan_id, target.connect)
    assert waits == []
    assert caught.value.is_final
    assert target.ledger(plan_id) == {}


def test_too_fast_is_waited_for_and_then_works(target: Target, waits: list[float]) -> None:
    people = target.platform.people(2)
    target.platform.faults.extend([target.platform.throttled] * 2)
    target.push("add", people)
    assert len(waits) == 2
    assert all(seconds > 0 for seconds in waits)
    assert target.platform.on_list() == keys(people)


def test_leavers_go_and_are_not_unsubscribed(target: Target) -> None:
    people = target.platform.people(BATCH + 1)
    target.push("add", people)
    state = target.platform.opt_in_state()
    target.platform.journal.clear()
    target.push("remove", people[:BATCH])
    assert target.platform.on_list() == keys(people[BATCH:])
    assert target.platform.opt_in_state() == state
    assert not any(call.method in ("DELETE", "PATCH") for call in target.platform.journal)


def test_who_said_no_stays_that_way(target: Target) -> None:
    said_no = target.platform.no_sayer()
    before = target.platform.opt_in_state()
    target.push("add", [said_no, *target.platform.people(2)])
    if before:  # the tool keeps consent of its own
        assert said_no.member_key not in target.platform.on_list()
    target.push("remove", [said_no])
    after = target.platform.opt_in_state()
    assert {key: after[key] for key in before} == before
    assert said_no.member_key not in target.platform.on_list()


def test_no_request_asks_for_a_status_but_the_harmless_one_for_new_people(target: Target) -> None:
    people = target.platform.people(3)
    target.push("add", people)
    target.push("remove", people)
    for call in target.platform.journal:
        told = re.findall(r'"(\w*(?:status|subscri)\w*)"\s*:\s*("?[\w.]+)', call.text, re.IGNORECASE)
        assert set(told) <= {("status_if_new", '"transactional'), ("customerMatchTermsOfServiceStatus", "1")}


@pytest.mark.usefixtures("waits")
def test_logs_carry_no_person_and_no_secret(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    people = [*target.platform.people(2), target.platform.no_sayer(), target.platform.bad_person()]
    target.platform.faults.append(target.platform.throttled)
    target.push("add", people)
    target.push("remove", people)
    connection = target.platform.connection()
    secrets = [connection.password, *(str(value) for key, value in connection.extra.items() if "secret" in str(value))]
    told = [value for member in people for values in member.identifiers.values() for value in values]
    written = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "include.sync.push" in written
    for value in [*told, *filter(None, secrets), "access-secret"]:
        assert value not in written


def test_nothing_to_send_is_no_call(target: Target) -> None:
    assert target.push("add", []).sent == 0
    assert target.platform.journal == []


def test_a_second_push_of_the_same_plan_is_no_call(target: Target) -> None:
    plan_id = target.plan("add", target.platform.people(3))
    push_plan(target.warehouse, plan_id, target.connect)
    target.platform.journal.clear()
    assert push_plan(target.warehouse, plan_id, target.connect).sent == 0
    assert target.platform.journal == []
