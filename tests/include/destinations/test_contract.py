"""What every destination must do, tried on every module in include/destinations, against its sandbox over HTTP.

A destination is in it by being there: `sides/<name>.py` tells who is on its lists in the sandbox, and nothing else is
needed here. The calls go through plan and push, as in production. `test_contract_can_fail.py` breaks a destination on
purpose, once for each promise, and sees that these tests notice.
"""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import include.destinations
from include.destinations.base import Destination, Member, destination_class
from include.errors import AuthenticationError, ListGone, NotSupported, RekindleError, TransientError
from include.sync.push import push_plan
from tests.include.destinations.contract_target import BATCH, Target, contract_target
from tests.include.destinations.running_sandbox import RunningSandbox
from tests.include.destinations.sides import LABEL, TOLD

# A key in a body that could speak of consent; and what we may say there.
SPEAKS_OF_CONSENT = re.compile(r"status|subscri|opt_?in|consent", re.IGNORECASE)
HARMLESS = {
    ("status_if_new", "transactional"),  # Mailchimp: on the list, without marketing mail
    ("customerMatchTermsOfServiceStatus", "ACCEPTED"),  # Google: that we accept its terms
    ("adUserData", "CONSENT_GRANTED"),  # Google: of people whose consent the waterfall has seen
    ("adPersonalization", "CONSENT_GRANTED"),
}
# What a tool calls a no for good (someone who is archived or not yet confirmed has not said no).
NOES = {"unsubscribed", "cleaned", "bounced", "complained"}


def registered() -> list[str]:
    """Every module in include/destinations with a destination in it."""
    found = []
    for module in pkgutil.iter_modules(include.destinations.__path__):
        loaded = importlib.import_module(f"include.destinations.{module.name}")
        classes = [one for one in vars(loaded).values() if isinstance(one, type) and issubclass(one, Destination)]
        if any(one.__module__ == loaded.__name__ and one is not Destination for one in classes):
            found.append(module.name)
    return sorted(found)


NAMES = registered()


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest, served: RunningSandbox, tmp_path: Path) -> Iterator[Target]:
    with contract_target(request.param, served, tmp_path) as made:
        yield made


def keys(members: Sequence[Member]) -> set[str]:
    return {member.member_key for member in members}


def told_of_consent(body: Any, inside: bool = False) -> Iterator[tuple[str, Any]]:
    """Every value of a request under a key that could speak of consent, however deep, with the key next to it."""
    for key, value in body.items() if isinstance(body, dict) else ():
        speaks = inside or bool(SPEAKS_OF_CONSENT.search(key))
        if isinstance(value, dict | list):
            yield from told_of_consent(value, speaks)
        elif speaks:
            yield key, value
    for value in body if isinstance(body, list) else ():
        yield from told_of_consent(value, inside)


# ---- what it says of itself


def test_it_says_what_it_is(target: Target) -> None:
    cls = target.cls
    assert cls.name == target.name
    assert cls.label
    assert cls.description.endswith(".")
    assert cls.docs_url.startswith("https://")
    assert cls.channel in ("email", "ads")
    assert cls.identifiers
    assert destination_class(target.name).max_batch_rows > 0
    for name, field in cls.Settings.model_fields.items():
        assert field.title, name
        assert field.description, name


def test_what_it_cannot_do_it_says_in_a_sentence(target: Target) -> None:
    destination, list_id = target.connect(), target.list_id()
    verbs = {
        "outcome": lambda: destination.outcome("no-such-request"),
        "read_opt_outs": lambda: list(destination.read_opt_outs(None)),
        "read_back": lambda: list(destination.read_back(list_id)),
        "erase": lambda: destination.erase(target.side.people(1)[0].identifiers),
    }
    for verb, call in verbs.items():
        if getattr(target.cls, verb) is not getattr(Destination, verb):
            continue
        with pytest.raises(NotSupported) as caught:
            call()
        assert target.cls.label in str(caught.value)
        assert len(str(caught.value).split()) > 4


# ---- lists


def test_the_login_is_checked_without_a_write(target: Target) -> None:
    target.connect().check()
    assert target.side.calls()
    assert not any(call.is_write for call in target.side.calls())


def test_a_list_is_made_once(target: Target) -> None:
    first = target.list_id()
    target.side.forget_calls()
    assert target.list_id() == first
    assert not any(call.is_write for call in target.side.calls())


def test_a_list_that_is_not_there_is_an_error_that_says_so(target: Target) -> None:
    people = target.side.people(2)
    destination = target.connect()
    target.list_id()
    for verb in (destination.add, destination.remove):
        with pytest.raises(RekindleError) as caught:
            verb(target.side.unknown_list, people)
        assert not isinstance(caught.value, AuthenticationError)
        assert "list" in str(caught.value)
        assert destination.label.split()[0] in str(caught.value)


def test_a_list_deleted_between_plan_and_push_is_not_filled_from_the_middle(target: Target) -> None:
    people = target.side.people(4)
    target.push("add", people[:3])
    gone = target.list_id()
    plan_id = target.plan("add", people[3:])
    target.side.lose_list()
    with pytest.raises(RekindleError, match="forget-list") as caught:
        push_plan(target.warehouse, plan_id, target.connect)
    assert caught.value.is_final
    assert target.ledger(plan_id) == {}
    assert target.side.on_list() == set()
    destination = target.connect()
    for verb in (destination.add, destination.remove):
        with pytest.raises(ListGone):
            verb(gone, people[:1])
    with suppress(NotSupported):  # who is to be erased is, whatever became of the list
        destination.erase(people[0].identifiers)


# ---- rows


def test_adding_again_changes_nothing(target: Target) -> None:
    people = target.side.people(3)
    target.push("add", people)
    statuses = target.side.statuses()
    assert target.side.on_list() == keys(people)
    summary = target.push("add", people)
    assert target.side.on_list() == keys(people)
    assert target.side.statuses() == statuses
    assert summary.rejected == summary.retry == 0
    assert target.ledger("plan-2") == dict.fromkeys(keys(people), "accepted")


def test_removing_again_is_harmless(target: Target) -> None:
    people = target.side.people(3)
    target.push("add", people)
    for number in (2, 3):
        target.push("remove", people[:2])
        assert target.side.on_list() == keys(people[2:])
        assert target.ledger(f"plan-{number}") == dict.fromkeys(keys(people[:2]), "accepted")


@pytest.mark.parametrize(("rows", "calls"), [(1, 1), (BATCH - 1, 1), (BATCH, 1), (BATCH + 1, 2), (2 * BATCH, 2)])
def test_batches_end_where_the_platform_says(target: Target, rows: int, calls: int) -> None:
    people = target.side.people(rows)
    for action, left in (("add", people), ("remove", [])):
        target.side.forget_calls()
        target.push(action, people)
        assert len(target.side.list_writes()) == calls, action
        assert target.side.on_list() == keys(left)


def test_one_bad_row_does_not_fail_the_batch(target: Target) -> None:
    good, bad = target.side.people(3), target.side.bad_person()
    summary = target.push("add", [good[0], bad, *good[1:]])
    assert target.side.on_list() == keys(good)
    assert target.ledger() == {**dict.fromkeys(keys(good), "accepted"), bad.member_key: "rejected"}
    assert summary.sent == 4
    assert summary.rejected == 1


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_there_is_one_answer_per_row_in_order(target: Target, place: int) -> None:
    batch = target.side.people(3)
    batch.insert(place, target.side.bad_person())
    results = target.connect().add(target.list_id(), batch)
    assert [result.status == "rejected" for result in results] == [row == place for row in range(4)]
    assert results[place].reason
    results = target.connect().remove(target.list_id(), target.side.people(4))
    assert len(results) == 4


def test_a_person_who_is_in_a_batch_twice_has_two_answers(target: Target) -> None:
    (ana, bo), bad = target.side.people(2), target.side.bad_person()
    destination, list_id = target.connect(), target.list_id()
    for verb, left in ((destination.add, keys([ana, bo])), (destination.remove, set())):
        results = verb(list_id, [ana, bo, ana])
        assert len(results) == 3
        assert {result.status for result in results} <= {"accepted", "pending"}
        for request_id in {result.request_id for result in results if result.request_id}:
            while destination.outcome(request_id).status == "pending":
                pass
        assert target.side.on_list() == left
    assert [result.status == "rejected" for result in destination.add(list_id, [bad, ana, bad])] == [True, False, True]


def test_who_is_known_in_capitals_is_the_same_person(target: Target) -> None:
    people = target.side.people(3)
    target.side.remember_in_capitals(people)
    target.push("add", people)
    assert target.side.on_list() == keys(people)
    assert target.ledger() == dict.fromkeys(keys(people), "accepted")
    destination, list_id = target.connect(), target.list_id()
    with suppress(NotSupported):
        assert sorted(destination.read_back(list_id)) == sorted(keys(people))
    target.push("remove", people[:2])
    assert target.side.on_list() == keys(people[2:])
    assert target.ledger("plan-2") == dict.fromkeys(keys(people[:2]), "accepted")
    with suppress(NotSupported):
        destination.erase(people[2].identifiers)
        assert target.side.on_list() == set()


def test_nothing_to_send_is_no_call(target: Target) -> None:
    assert target.push("add", []).sent == 0
    assert target.side.calls() == []
    destination, list_id = target.connect(), target.list_id()
    target.side.forget_calls()
    assert destination.add(list_id, []) == []
    assert destination.remove(list_id, []) == []
    assert target.side.calls() == []


def test_a_dry_run_is_no_call_and_what_it_planned_is_what_is_sent(target: Target) -> None:
    plan = target.plan_people([("ana", "ana@shop.example", "+421900000001"), ("bo", "bo@shop.example", "")])
    assert plan.adds == 2
    assert target.side.calls() == []
    assert target.send(plan.plan_id).sent == 2
    assert len(target.side.on_list()) >= 2
    assert target.ledger(plan.plan_id).keys() <= target.side.on_list()


def test_a_second_push_of_the_same_plan_is_no_call(target: Target) -> None:
    plan_id = target.plan("add", target.side.people(3))
    target.send(plan_id)
    target.side.forget_calls()
    assert push_plan(target.warehouse, plan_id, target.connect).sent == 0
    assert target.side.calls() == []


# ---- when the platform says no


def test_a_wrong_credential_is_final(target: Target, waits: list[float]) -> None:
    plan_id = target.plan("add", target.side.people(2))
    target.side.misbehave(target.side.unauthorized, times=20, route=target.side.api_route)
    with pytest.raises(AuthenticationError, match=f"{target.name}_default") as caught:
        push_plan(target.warehouse, plan_id, target.connect)
    assert caught.value.is_final
    assert len(target.side.calls()) == 1 + target.side.asks_again_on_401
    assert max(waits, default=0) < 1
    assert target.ledger(plan_id) == {}


def test_too_fast_is_waited_for_as_long_as_told(target: Target, waits: list[float]) -> None:
    people = target.side.people(2)
    target.side.misbehave(target.side.throttled, times=2, route=target.side.write_route)
    target.push("add", people)
    assert [seconds for seconds in waits if seconds >= 1] == [TOLD, TOLD]
    assert target.side.on_list() == keys(people)
    assert target.ledger() == dict.fromkeys(keys(people), "accepted")


def test_too_fast_is_waited_for_until_the_time_told(target: Target, waits: list[float]) -> None:
    people = target.side.people(2)
    target.list_id()
    until = datetime.now(UTC) + timedelta(seconds=90)
    target.side.misbehave(target.side.throttled_until(until), route=target.side.write_route)
    target.push("add", people)
    (waited,) = [seconds for seconds in waits if seconds >= 1]
    assert 60 < waited <= 90
    assert target.ledger() == dict.fromkeys(keys(people), "accepted")


@pytest.mark.parametrize("kind", ["cut_after_commit", "cut_before", "truncated"])
def test_a_cut_connection_is_tried_again_and_ends_in_the_same_place(
    target: Target, waits: list[float], kind: str
) -> None:
    people = target.side.people(2)
    target.side.misbehave({"kind": kind}, route=target.side.write_route)
    target.push("add", people)
    assert len([seconds for seconds in waits if seconds > 0]) == 1
    assert target.side.on_list() == keys(people)
    assert target.ledger() == dict.fromkeys(keys(people), "accepted")
    statuses = target.side.statuses()
    target.push("add", people)
    assert target.side.statuses() == statuses


@pytest.mark.usefixtures("waits")
def test_an_outage_is_for_later_and_the_next_push_goes_on(target: Target) -> None:
    people = target.side.people(BATCH + 1)
    plan_id = target.plan("add", people)
    target.list_id()
    target.side.misbehave({"kind": "cut_after_commit"}, times=50, route=target.side.write_route)
    with pytest.raises(TransientError) as caught:
        push_plan(target.warehouse, plan_id, target.connect)
    assert not caught.value.is_final
    assert "accepted" not in target.ledger(plan_id).values()
    target.side.behave()
    target.send(plan_id)
    assert target.side.on_list() == keys(people)
    assert target.ledger(plan_id) == dict.fromkeys(keys(people), "accepted")


# ---- consent


def test_leavers_go_and_are_not_unsubscribed(target: Target) -> None:
    people = target.side.people(BATCH + 1)
    target.push("add", people)
    statuses = target.side.statuses()
    target.side.forget_calls()
    target.push("remove", people[:BATCH])
    assert target.side.on_list() == keys(people[BATCH:])
    assert target.side.statuses() == statuses
    assert not any(call.method in ("DELETE", "PATCH") for call in target.side.calls())


def test_who_said_no_stays_that_way(target: Target) -> None:
    said_no = target.side.say_no()
    before = target.side.statuses()
    assert keys(said_no) == before.keys()
    target.push("add", [*said_no, *target.side.people(2)])
    assert {key: target.side.statuses()[key] for key in before} == before
    assert target.side.on_list() == keys(target.side.people(2))
    assert {target.ledger()[key] for key in before} <= {"rejected"}
    target.push("remove", said_no)
    target.push("add", said_no)
    assert {key: target.side.statuses()[key] for key in before} == before
    assert not target.side.on_list() & keys(said_no)


def test_no_request_says_more_of_consent_than_it_may(target: Target) -> None:
    people = [*target.side.people(3), *target.side.say_no()]
    target.push("add", people)
    target.push("remove", people)
    for call in target.side.calls():
        assert set(told_of_consent(json.loads(call.text or "null"))) <= HARMLESS


def test_who_said_no_at_the_tool_is_read_there(target: Target) -> None:
    said_no = target.side.say_no()
    if not target.cls.tells_opt_outs():
        assert said_no == []
        return
    told = {answer.value for answer in target.connect().read_opt_outs(None) if answer.is_active}
    final = {member.member_key for member in said_no if target.side.statuses()[member.member_key] in NOES}
    assert final
    assert final <= told
    assert not told & keys(target.side.people(3))


def test_the_list_can_be_read_back(target: Target) -> None:
    people, list_id = target.side.people(BATCH + 1), target.list_id()
    if target.cls.read_back is Destination.read_back:
        return  # said in a sentence, see above
    assert set(target.connect().read_back(list_id)) == set()
    target.push("add", people)
    target.push("remove", people[:1])
    assert sorted(target.connect().read_back(list_id)) == sorted(keys(people[1:]))


def test_who_is_erased_is_gone_and_stays_away(target: Target) -> None:
    people = target.side.people(2)
    if target.cls.erase is Destination.erase:
        return  # said in a sentence, see above
    target.push("add", people)
    for _ in range(2):
        target.connect().erase(people[0].identifiers)
        assert target.side.on_list() == keys(people[1:])
    target.push("add", people)
    assert target.side.on_list() == keys(people[1:])


# ---- what is written down


@pytest.mark.usefixtures("waits")
def test_no_log_no_error_and_no_ledger_reason_holds_a_person_or_a_secret(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    side = target.side
    people = [*side.people(2), *side.say_no(), side.bad_person()]
    errors: list[str] = []

    def tried(call: Any) -> None:
        try:
            call()
        except RekindleError as error:
            errors.append("".join(traceback.format_exception(error)))

    side.misbehave(side.throttled)
    tried(lambda: target.push("add", people))
    tried(lambda: target.push("remove", people))
    for fault in (side.refusing(people[0]), {"kind": "truncated"}, side.unauthorized):
        side.misbehave(fault, times=50, route=side.write_route)
        tried(lambda: target.push("add", people[:2]))
        side.behave()
    destination = target.connect()
    tried(lambda: destination.add(side.unknown_list, people))
    for verb in (lambda: list(destination.read_opt_outs(None)), lambda: destination.erase(people[0].identifiers)):
        with suppress(NotSupported):
            verb()

    assert len(errors) >= 3, "the platform was told to refuse, and no error came of it"
    connection = side.connection()
    hidden = {str(value) for key, value in connection.extra.items() if "secret" in key or "token" in key}
    hidden -= {str(connection.extra.get("token_uri"))}
    told = {value for member in people for values in member.identifiers.values() for value in values}
    records = [record for record in caplog.records if not record.name.startswith("tests.")]
    written = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in records)
    assert "include.sync.push" in written
    everything = {"a log": written, "an error": "\n".join(errors), "the ledger": "\n".join(target.reasons())}
    for place, text in everything.items():
        for value in filter(None, {*told, *hidden, connection.password}):
            assert value.lower() not in text.lower(), f"{place} holds a person or a secret"


def test_the_suite_knows_every_destination() -> None:
    assert {"mailchimp", "google_ads"} <= set(NAMES)
    assert LABEL
