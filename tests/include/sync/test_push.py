"""Push and confirm: what is sent, in which order, what is written down, and what happens after a crash."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from include.destinations.base import Destination, Member, RequestOutcome, RowResult, Status
from include.errors import AuthenticationError, ConfigurationError, TransientError
from include.settings import get_settings
from include.sync import push, run
from include.sync.push import PushSummary, confirm_plan, push_plan
from include.warehouse.build import ensure_views
from include.warehouse.engine import Warehouse
from tests.include.sync.target_world import World, world

__all__ = ["world"]

AUDIENCE = """
label: Cart abandoners
description: Left something in the cart.
owner: lifecycle@example.com
segment: cart_abandoners
params: {idle_for: 1h, window: 7d, min_cart_value: 0}
destinations:
  - {to: mailchimp, audience: Newsletter, fields: {CART_URL: cart_url}}
"""


class Paper(Destination):
    """A platform of paper: a list in memory, and a script of what happens to the calls to come."""

    name = "mailchimp"
    label = "Paper"
    description = "for tests"
    channel = "email"
    api_version = "1"
    docs_url = "https://example.com"
    identifiers = ("email",)
    max_batch_rows = 3

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.on_list: dict[str, Mapping[str, str | None]] = {}
        self.answer: Callable[[Member], RowResult] = lambda member: RowResult("accepted")
        self.before_call: Callable[[], None] = lambda: None
        self.after_call: Callable[[], None] = lambda: None
        self.outcomes: dict[str, RequestOutcome] = {}
        self.made: list[tuple[str, str, Sequence[str]]] = []
        self.options: Mapping[str, object] = {}

    def connect(self, name: str, options: Mapping[str, object]) -> Paper:
        self.options = options
        return self

    def check(self) -> None:
        raise AssertionError("a push does not check")

    def ensure_audience(self, label: str, description: str, fields: Sequence[str]) -> str:
        self.made.append((label, description, fields))
        return "list-1"

    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        self._call("add", batch)
        self.on_list.update({member.member_key: member.fields for member in batch})
        return self._done(batch)

    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        self._call("remove", batch)
        for member in batch:
            self.on_list.pop(member.member_key, None)
        return self._done(batch)

    def outcome(self, request_id: str) -> RequestOutcome:
        return self.outcomes[request_id]

    def _call(self, verb: str, batch: Sequence[Member]) -> None:
        self.before_call()
        self.calls.append((verb, [member.member_key.split("@")[0] for member in batch]))

    def _done(self, batch: Sequence[Member]) -> list[RowResult]:
        self.after_call()
        return [self.answer(member) for member in batch]


@pytest.fixture(autouse=True)
def _audience_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "audiences").mkdir()
    (tmp_path / "audiences" / "carts.yaml").write_text(AUDIENCE)
    monkeypatch.setenv("REKINDLE_AUDIENCES_DIR", str(tmp_path / "audiences"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def warehouse(empty_warehouse: Warehouse) -> Warehouse:
    return empty_warehouse


def store_plan(warehouse: Warehouse, *rows: str, plan_id: str = "plan-1") -> None:
    """A plan of rows like 'add ana'."""
    warehouse.insert(
        "sync.plans",
        [{"plan_id": plan_id, "audience": "carts", "destination": "mailchimp", "list_name": "Cart abandoners"}],
    )
    parts = [row.split() for row in rows]
    warehouse.insert(
        "sync.plan_rows",
        [
            {
                "plan_id": plan_id,
                "row_number": number,
                "action": action,
                "profile_id": f"p-{person}",
                "member_key": f"{person}@shop.example",
                "identifiers": json.dumps({"email": [f"{person}@shop.example"]}),
                "fields": None if action == "remove" else json.dumps({"CART_URL": f"https://shop.example/{person}"}),
                "payload_hash": None if action == "remove" else f"hash-{person}",
            }
            for number, (action, person) in enumerate(parts, start=1)
        ],
    )


def ledger(warehouse: Warehouse) -> list[tuple[str, str, str]]:
    rows = warehouse.read("select action, member_key, status from sync.ledger order by sequence")
    return [(row["action"], row["member_key"].split("@")[0], row["status"]) for row in rows]


def test_a_plan_without_rows_makes_no_call_at_all(warehouse: Warehouse) -> None:
    store_plan(warehouse)
    paper = Paper()
    assert push_plan(warehouse, "plan-1", paper.connect) == PushSummary("plan-1")
    assert (paper.made, paper.calls) == ([], [])


def test_rows_go_in_the_plans_order_in_batches_of_one_kind(warehouse: Warehouse) -> None:
    rows = ["remove a", "remove b", "add c", "update d", "add e", "add f", "remove g"]
    store_plan(warehouse, *rows)
    paper = Paper()
    summary = push_plan(warehouse, "plan-1", paper.connect)
    assert paper.calls == [("remove", ["a", "b"]), ("add", ["c", "d", "e"]), ("add", ["f"]), ("remove", ["g"])]
    assert summary == PushSummary("plan-1", sent=7, accepted=7, batches=4)
    assert [f"{action} {person}" for action, person, _ in ledger(warehouse)] == rows
    assert paper.made == [("Cart abandoners", "Left something in the cart.", ["CART_URL"])]
    assert paper.options == {"audience": "Newsletter"}


@pytest.mark.on_spark
def test_the_ledger_keeps_exactly_what_was_sent(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add ana")
    push_plan(warehouse, "plan-1", Paper().connect)
    (row,) = warehouse.read("select * from sync.ledger")
    assert {key: row[key] for key in row if key not in ("sequence", "acknowledged_at")} == {
        "audience": "carts", "destination": "mailchimp", "list_id": "list-1", "plan_id": "plan-1", "action": "add",
        "profile_id": "p-ana", "member_key": "ana@shop.example", "identifiers": '{"email": ["ana@shop.example"]}',
        "payload_hash": "hash-ana", "status": "accepted", "reason": None, "request_id": None,
    }  # fmt: skip


@pytest.mark.parametrize("page", [1, 2, 4, 100])
def test_pages_of_the_plan_change_nothing_about_what_is_sent(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(push, "PAGE_ROWS", page)
    store_plan(warehouse, *(f"add p{i}" for i in range(8)))
    paper = Paper()
    push_plan(warehouse, "plan-1", paper.connect)
    assert paper.calls == [("add", ["p0", "p1", "p2"]), ("add", ["p3", "p4", "p5"]), ("add", ["p6", "p7"])]


def test_pushing_again_sends_nothing(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add a", "remove b")
    push_plan(warehouse, "plan-1", Paper().connect)
    paper = Paper()
    assert push_plan(warehouse, "plan-1", paper.connect).sent == 0
    assert (paper.made, paper.calls) == ([], [])


def test_after_an_outage_a_retry_goes_on_where_it_stopped(warehouse: Warehouse) -> None:
    store_plan(warehouse, *(f"add p{i}" for i in range(8)))
    paper = Paper()

    def fail_at_the_second() -> None:
        if len(paper.calls) == 1:
            raise TransientError("away", retry_after=30)

    paper.before_call = fail_at_the_second
    with pytest.raises(TransientError) as caught:
        push_plan(warehouse, "plan-1", paper.connect)
    assert caught.value.retry_after == 30
    assert [person for _, person, _ in ledger(warehouse)] == ["p0", "p1", "p2"]
    paper.before_call = lambda: None
    assert push_plan(warehouse, "plan-1", paper.connect).sent == 5
    assert paper.calls[1:] == [("add", ["p3", "p4", "p5"]), ("add", ["p6", "p7"])]
    assert len(ledger(warehouse)) == 8


@pytest.mark.on_spark
def test_killed_after_the_platform_took_a_batch_the_next_run_ends_in_the_same_place(warehouse: Warehouse) -> None:
    store_plan(warehouse, *(f"add p{i}" for i in range(4)), "remove q")
    paper = Paper()

    def die() -> None:
        raise KeyboardInterrupt

    paper.after_call = die
    with pytest.raises(KeyboardInterrupt):
        push_plan(warehouse, "plan-1", paper.connect)
    assert ledger(warehouse) == []
    paper.after_call = lambda: None
    push_plan(warehouse, "plan-1", paper.connect)
    assert sorted(paper.on_list) == [f"p{i}@shop.example" for i in range(4)]
    assert len(ledger(warehouse)) == 5


@pytest.mark.parametrize("is_begun", [True, False], ids=["cut in the middle", "not begun"])
def test_a_retry_leaves_out_who_said_no_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_begun: bool
) -> None:
    monkeypatch.setattr(run, "get_warehouse", lambda: world.warehouse)
    for name in ("gone", "moved"):
        world.person(name, email=f"{name}@x.com")
    world.sync()
    world.execute("delete from segments.carts where profile_id = 'gone'")
    world.execute("update core.identifiers set identifier_value = 'new@x.com' where profile_id = 'moved'")
    world.execute("update core.profiles set email = 'new@x.com' where profile_id = 'moved'")
    for name in ("ana", "bo", "cyd", "dan"):
        world.person(name, email=f"{name}@x.com")
    plan = world.plan()
    paper = Paper()

    def fail() -> None:
        if len(paper.calls) == is_begun:
            raise TransientError("a quota is used up")

    paper.before_call = fail
    with pytest.raises(TransientError):
        run.push_planned(plan.plan_id, paper.connect)
    world.opt_out("ana@x.com")
    world.insert("core.consents", {"profile_id": "moved", "channel": "email", "status": "denied"})
    world.execute("delete from core.profiles where profile_id = 'dan'")  # erased
    paper.before_call = lambda: None
    for _ in range(2):
        run.push_planned(plan.plan_id, paper.connect)

    sent = [(verb, name) for verb, names in paper.calls for name in names]
    assert sent == [("remove", "gone"), ("add", "bo"), ("add", "cyd"), ("remove", "moved")]
    ensure_views(world.warehouse)
    assert world.warehouse.read(
        "select member_key, status from sync.sends where status <> 'accepted' order by member_key"
    ) == [{"member_key": f"{name}@x.com", "status": "retry"} for name in ("ana", "dan", "new")]


def test_rows_to_be_tried_again_are_and_refused_ones_are_not(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add a", "add b", "add c")
    paper = Paper()
    answers = {"a": RowResult("accepted"), "b": RowResult("rejected", "no"), "c": RowResult("retry", "busy")}
    paper.answer = lambda member: answers[member.member_key[0]]
    summary = push_plan(warehouse, "plan-1", paper.connect)
    assert (summary.accepted, summary.rejected, summary.retry) == (1, 1, 1)
    paper.answer = lambda member: RowResult("accepted")
    push_plan(warehouse, "plan-1", paper.connect)
    assert paper.calls[1:] == [("add", ["c"])]
    assert ledger(warehouse)[-1] == ("add", "c", "accepted")
    assert push_plan(warehouse, "plan-1", paper.connect).sent == 0


def test_two_pushes_to_one_list_do_not_run_together(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add a")
    paper, second = Paper(), Paper()
    refused: list[str] = []

    def push_again() -> None:
        with pytest.raises(TransientError, match="another process is pushing to this list") as caught:
            push_plan(warehouse, "plan-1", second.connect)
        refused.append(str(caught.value))

    paper.before_call = push_again
    assert push_plan(warehouse, "plan-1", paper.connect).accepted == 1
    assert len(refused) == 1
    assert (second.made, second.calls) == ([], [])


@pytest.mark.parametrize("round_", range(20))
def test_the_error_of_the_batch_that_failed_is_told_and_not_that_others_were_not_begun(round_: int) -> None:
    warehouse = Warehouse("duckdb://")
    warehouse.ensure_tables()
    store_plan(warehouse, *(f"add p{i}" for i in range(60)))
    busy = Busy()

    def add(list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        raise AuthenticationError("wrong key")

    busy.add = add  # type: ignore[method-assign]
    with pytest.raises(AuthenticationError, match="wrong key"):
        push_plan(warehouse, "plan-1", busy.connect)


def test_a_wrong_credential_is_final(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add a")
    paper = Paper()

    def refuse() -> None:
        raise AuthenticationError("wrong key")

    paper.before_call = refuse
    with pytest.raises(AuthenticationError):
        push_plan(warehouse, "plan-1", paper.connect)
    assert paper.calls == []
    assert ledger(warehouse) == []


def test_the_order_of_answers_grows_though_the_clock_is_set_back(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_plan(warehouse, *(f"add p{i}" for i in range(6)))
    clock = iter([5_000, 1_000, 1_000, 1_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    push_plan(warehouse, "plan-1", Paper().connect)
    found = [row["sequence"] for row in warehouse.read("select sequence from sync.ledger order by member_key")]
    assert found == sorted(set(found))
    assert len(found) == 6


def test_no_session_is_open_while_the_network_is_waited_for(tmp_path: Path) -> None:
    warehouse = Warehouse(f"duckdb:///{tmp_path}/w.duckdb")
    warehouse.ensure_tables()
    store_plan(warehouse, *(f"add p{i}" for i in range(7)), "remove q")
    paper = Paper()

    def the_file_is_free() -> None:
        FileLock(f"{tmp_path}/w.duckdb.lock", is_singleton=False).acquire(timeout=0).lock.release()

    paper.before_call = the_file_is_free
    assert push_plan(warehouse, "plan-1", paper.connect).sent == 8


def test_an_unknown_plan_and_a_vanished_audience_are_errors_in_words(warehouse: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no plan plan-9"):
        push_plan(warehouse, "plan-9", Paper().connect)
    store_plan(warehouse, "add a")
    (tmp_path / "audiences" / "carts.yaml").unlink()
    with pytest.raises(ConfigurationError, match="'carts'"):
        push_plan(warehouse, "plan-1", Paper().connect)


def test_the_log_carries_counts_and_no_people(warehouse: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store_plan(warehouse, "add ana", "remove bo")
    push_plan(warehouse, "plan-1", Paper().connect)
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("include"))
    assert "2 of 2 rows" in ours
    assert "shop.example" not in caplog.text


# several batches under way


class Busy(Paper):
    """Paper with several senders, which notes how many calls are under way together."""

    connections = 4

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.now: Counter[str] = Counter()
        self.together: set[tuple[int, int]] = set()  # adds and removals under way at the same moment

    def _call(self, verb: str, batch: Sequence[Member]) -> None:
        with self.lock:
            self.now[verb] += 1
            self.together.add((self.now["add"], self.now["remove"]))
        time.sleep(0.01)
        with self.lock:
            self.now[verb] -= 1
            self.calls.append((verb, [member.member_key.split("@")[0] for member in batch]))


def test_several_batches_are_under_way_and_leavers_are_through_before_anybody_comes_in(warehouse: Warehouse) -> None:
    store_plan(
        warehouse, *(f"remove r{i}" for i in range(30)), *(f"add a{i}" for i in range(30)), *["remove z1", "remove z2"]
    )
    busy = Busy()
    assert push_plan(warehouse, "plan-1", busy.connect) == PushSummary("plan-1", sent=62, accepted=62, batches=21)
    assert [verb for verb, _ in busy.calls] == ["remove"] * 10 + ["add"] * 10 + ["remove"]
    assert max(adds + removals for adds, removals in busy.together) == 4
    assert all(not adds or not removals for adds, removals in busy.together)
    assert len(ledger(warehouse)) == 62


def test_an_error_in_one_batch_keeps_the_answers_of_the_others(warehouse: Warehouse) -> None:
    store_plan(warehouse, *(f"add p{i}" for i in range(60)))
    busy = Busy()
    answered: list[str] = []

    def add(list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        if batch[0].member_key.startswith("p15@"):
            raise TransientError("away")
        results = Busy.add(busy, list_id, batch)
        answered.extend(member.member_key.split("@")[0] for member in batch)
        return results

    busy.add = add  # type: ignore[method-assign]
    with pytest.raises(TransientError, match="away"):
        push_plan(warehouse, "plan-1", busy.connect)
    assert sorted(person for _, person, _ in ledger(warehouse)) == sorted(answered)
    assert len(answered) < 57
    busy.add = lambda list_id, batch: Busy.add(busy, list_id, batch)  # type: ignore[method-assign]
    assert push_plan(warehouse, "plan-1", busy.connect).sent == 60 - len(answered)
    sent = [person for _, people in busy.calls for person in people]
    assert sorted(sent) == sorted({f"p{i}" for i in range(60)})


def test_answers_are_written_in_groups(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    write = push.record_answers

    def note(warehouse: Warehouse, target: Any, answers: Any) -> None:
        groups.append(len(answers))
        write(warehouse, target, answers)

    monkeypatch.setattr(push, "record_answers", note)
    monkeypatch.setattr(push, "GROUP_ROWS", 9)
    store_plan(warehouse, *(f"add p{i}" for i in range(30)))
    push_plan(warehouse, "plan-1", Paper().connect)
    assert sum(groups) == 30
    assert len(groups) <= 4
    assert max(groups) <= 9 + 2 * 3  # the batches under way when a group is full


def test_a_group_does_not_wait_for_long(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "GROUP_SECONDS", 0.05)
    store_plan(warehouse, "add a", "add b", "add c", "add d")
    paper = Paper()
    written: list[int] = []

    def wait_for_the_first_batch() -> None:
        while paper.calls and not written:
            time.sleep(0.01)
            written.extend([1] * len(ledger(warehouse)))

    paper.before_call = wait_for_the_first_batch
    push_plan(warehouse, "plan-1", paper.connect)
    assert len(written) >= 3


# the old address of a member who is in under a new one


def store_change_of_address(warehouse: Warehouse, plan_id: str = "plan-1") -> None:
    """Ana comes in under a new address, which frees her old one; Bo has left, Zoe's old address is all there is."""
    store_plan(warehouse, "remove bo", "add new", "remove old", "remove zoe", plan_id=plan_id)
    warehouse.execute("update sync.plan_rows set profile_id = 'p-ana' where member_key like 'new@%'")
    warehouse.execute("update sync.plan_rows set profile_id = 'p-ana' where member_key like 'old@%'")


def only_the_new_address(answer: RowResult) -> Callable[[Member], RowResult]:
    return lambda member: answer if member.member_key.startswith("new@") else RowResult("accepted")


ROWS_ARE_CHANGED = pytest.mark.parametrize("new_warehouse", ["duckdb", "postgres"], indirect=True)


@ROWS_ARE_CHANGED
def test_the_old_address_goes_when_the_new_one_is_in(warehouse: Warehouse) -> None:
    store_change_of_address(warehouse)
    paper = Paper()
    assert push_plan(warehouse, "plan-1", paper.connect).accepted == 4
    assert paper.calls == [("remove", ["bo"]), ("add", ["new"]), ("remove", ["old", "zoe"])]


@ROWS_ARE_CHANGED
@pytest.mark.parametrize("status", ["rejected", "retry", "pending"])
def test_the_old_address_stays_while_the_new_one_is_not_in(warehouse: Warehouse, status: Status) -> None:
    store_change_of_address(warehouse)
    paper = Paper()
    paper.answer = only_the_new_address(RowResult(status, "no", request_id="r1" if status == "pending" else None))
    push_plan(warehouse, "plan-1", paper.connect)
    assert paper.calls == [("remove", ["bo"]), ("add", ["new"]), ("remove", ["zoe"])]
    assert ("remove", "old", "retry") in ledger(warehouse)
    paper.calls.clear()
    push_plan(warehouse, "plan-1", paper.connect)  # again, as a retry of the task would
    assert ("remove", ["old"]) not in paper.calls


@ROWS_ARE_CHANGED
def test_a_retry_takes_the_old_address_off_once_the_new_one_is_in(warehouse: Warehouse) -> None:
    store_change_of_address(warehouse)
    paper = Paper()
    paper.answer = only_the_new_address(RowResult("retry", "busy"))
    push_plan(warehouse, "plan-1", paper.connect)
    paper.calls.clear()
    paper.answer = lambda member: RowResult("accepted")
    push_plan(warehouse, "plan-1", paper.connect)
    assert paper.calls == [("add", ["new"]), ("remove", ["old"])]


# what the views tell


@pytest.mark.on_spark
def test_views_tell_what_is_unfinished_and_who_was_not_taken(warehouse: Warehouse) -> None:
    ensure_views(warehouse)
    store_plan(warehouse, "remove x", "add a", "add b", "add c")
    paper = Paper()
    answers = {
        "x": RowResult("rejected", "no"), "a": RowResult("accepted"), "b": RowResult("rejected", "bounced"),
        "c": RowResult("retry", "busy"),
    }  # fmt: skip
    paper.answer = lambda member: answers[member.member_key[0]]
    columns = "row_count, waiting, accepted, rejected, retry, pending, unknown, is_finished, is_superseded"
    assert warehouse.tuples(f"select {columns} from sync.pushes") == [(4, 4, 0, 0, 0, 0, 0, False, False)]
    push_plan(warehouse, "plan-1", paper.connect)
    assert warehouse.tuples(f"select {columns} from sync.pushes") == [(4, 0, 1, 2, 1, 0, 0, False, False)]
    assert warehouse.tuples("select profile_id, reason, next_try from sync.rejects order by member_key") == [
        ("p-b", "bounced", "when the row changes"),
        ("p-c", "busy", "next push"),
        ("p-x", "no", "next plan"),
    ]
    answers["c"] = RowResult("accepted")
    push_plan(warehouse, "plan-1", paper.connect)
    assert warehouse.tuples(f"select {columns} from sync.pushes") == [(4, 0, 2, 2, 0, 0, 0, True, False)]
    assert len(warehouse.tuples("select member_key from sync.rejects")) == 2


# requests whose answer comes later


def push_pending(
    warehouse: Warehouse, *rows: str, request_id: str = "r1", plan_id: str = "plan-1", max_batch_rows: int = 3
) -> Paper:
    store_plan(warehouse, *rows, plan_id=plan_id)
    paper = Paper()
    paper.max_batch_rows = max_batch_rows  # type: ignore[misc]
    paper.answer = lambda member: RowResult("pending", request_id=request_id)
    summary = push_plan(warehouse, plan_id, paper.connect)
    assert (summary.pending, summary.accepted) == (len(rows), 0)
    return paper


def test_a_removal_that_failed_in_part_goes_in_smaller_requests_until_it_is_alone(warehouse: Warehouse) -> None:
    ensure_views(warehouse)
    rows = [f"remove {name}" for name in "abcdefghijkl"]
    for number in range(3):
        plan_id = f"plan-{number}"
        paper = push_pending(warehouse, *rows, request_id=plan_id, plan_id=plan_id, max_batch_rows=100)
        assert [len(names) for _, names in paper.calls] == [[12], [10, 2], [1] * 12][number]
        paper.outcomes = {plan_id: RequestOutcome("partial", accepted=11, rejected=1)}
        assert confirm_plan(warehouse, plan_id, paper.connect)
        assert {row["next_try"] for row in warehouse.read("select next_try from sync.rejects")} == {"next plan"}
    paper = push_pending(warehouse, "remove x", *rows[:2], "remove y", plan_id="last", max_batch_rows=100)
    assert paper.calls == [("remove", ["a"]), ("remove", ["b"]), ("remove", ["x", "y"])]


def newest_request(warehouse: Warehouse) -> dict[str, Any]:
    rows = warehouse.read(
        "select status, detail, row_count, accepted_count, rejected_count from sync.requests order by recorded_at"
    )
    return rows[-1]


def test_rows_without_an_answer_yet_are_pending_and_not_sent_again(warehouse: Warehouse) -> None:
    paper = push_pending(warehouse, "add a", "add b")
    assert push_plan(warehouse, "plan-1", paper.connect).sent == 0
    paper.outcomes["r1"] = RequestOutcome("pending")
    assert confirm_plan(warehouse, "plan-1", paper.connect) is False
    assert {status for _, _, status in ledger(warehouse)} == {"pending"}


@pytest.mark.on_spark
@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (RequestOutcome("succeeded", accepted=2), "accepted"),
        (RequestOutcome("partial", accepted=1, rejected=1, detail="denied_consent: 1"), "unattributed"),
        (RequestOutcome("failed", rejected=2, detail="invalid_format: 2"), "rejected"),
        (RequestOutcome("failed", rejected=2, detail="internal_error: 2", try_again=True), "retry"),
    ],
)
def test_what_became_of_a_request_is_appended_for_its_members(
    warehouse: Warehouse, outcome: RequestOutcome, status: str
) -> None:
    paper = push_pending(warehouse, "add a", "add b")
    paper.outcomes["r1"] = outcome
    assert confirm_plan(warehouse, "plan-1", paper.connect) is True
    assert ledger(warehouse) == [
        ("add", "a", "pending"),
        ("add", "b", "pending"),
        ("add", "a", status),
        ("add", "b", status),
    ]
    reasons = warehouse.read("select distinct reason from sync.ledger where status = :status", status=status)
    assert reasons == [{"reason": outcome.detail or None}]
    assert newest_request(warehouse) == {
        "status": outcome.status, "detail": outcome.detail or None, "row_count": 2,
        "accepted_count": outcome.accepted, "rejected_count": outcome.rejected,
    }  # fmt: skip
    paper.outcomes.clear()
    assert confirm_plan(warehouse, "plan-1", paper.connect) is True
    assert len(ledger(warehouse)) == 4


def test_a_request_that_failed_by_the_platforms_fault_is_sent_again(warehouse: Warehouse) -> None:
    paper = push_pending(warehouse, "add a")
    paper.outcomes["r1"] = RequestOutcome("failed", rejected=1, try_again=True)
    confirm_plan(warehouse, "plan-1", paper.connect)
    assert push_plan(warehouse, "plan-1", paper.connect).sent == 1


def test_a_later_plan_asks_after_what_an_earlier_one_left_open(warehouse: Warehouse) -> None:
    paper = push_pending(warehouse, "add a", request_id="r1", plan_id="plan-1")
    later = push_pending(warehouse, "add b", request_id="r2", plan_id="plan-2")
    later.outcomes = {"r1": RequestOutcome("succeeded", accepted=1), "r2": RequestOutcome("pending")}
    assert confirm_plan(warehouse, "plan-2", later.connect) is False
    later.outcomes = {"r2": RequestOutcome("succeeded", accepted=1)}
    assert confirm_plan(warehouse, "plan-2", later.connect) is True
    assert paper.calls == [("add", ["a"])]
    assert [status for _, _, status in ledger(warehouse)] == ["pending", "pending", "accepted", "accepted"]


def test_a_destination_that_answers_at_once_has_nothing_to_confirm(warehouse: Warehouse) -> None:
    store_plan(warehouse, "add a")
    paper = Paper()
    push_plan(warehouse, "plan-1", paper.connect)
    assert confirm_plan(warehouse, "plan-1", paper.connect) is True
