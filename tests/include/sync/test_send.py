"""Splitting: a batch that is refused as a whole goes in halves until the bad rows stand alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.connections import Connection
from include.destinations.base import Destination, Member, RowResult
from include.errors import AudienceRejected, AuthenticationError, BatchRefused, QuotaExhausted
from include.sync.send import send_batch


class Strict(Destination):
    """Takes a batch whole or not at all."""

    name = "strict"
    label = "Strict"
    description = "for tests"
    channel = "email"
    api_version = "1"
    docs_url = "https://example.com"
    identifiers = ("email",)
    max_batch_rows = 1000

    def __init__(self, refuses: Callable[[Sequence[Member]], bool]) -> None:
        super().__init__(Connection("strict_default"))
        self.refuses = refuses
        self.calls: list[int] = []
        self.taken: list[str] = []

    def check(self) -> None: ...

    def ensure_audience(self, label: str, description: str, fields: Sequence[str]) -> str:
        return "1"

    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        self.calls.append(len(batch))
        if self.refuses(batch):
            raise BatchRefused("malformed rows")
        self.taken += [member.member_key for member in batch]
        return [RowResult("accepted")] * len(batch)

    remove = add


def members(count: int) -> list[Member]:
    return [Member(f"m{i}", {"email": [f"m{i}@shop.example"]}, {}) for i in range(count)]


@given(st.integers(1, 120), st.sets(st.integers(0, 119), max_size=6))
def test_bad_rows_stand_alone_and_all_others_arrive_once(count: int, bad: set[int]) -> None:
    wrong = {f"m{i}" for i in bad}
    strict = Strict(lambda batch: any(member.member_key in wrong for member in batch))
    people = members(count)
    results = send_batch(strict, "1", people, is_removal=False)
    assert [result.status for result in results] == [
        "rejected" if person.member_key in wrong else "accepted" for person in people
    ]
    assert strict.taken == [person.member_key for person in people if person.member_key not in wrong]
    assert {result.reason for result in results if result.status == "rejected"} <= {"malformed rows"}
    assert len(strict.calls) <= 1 + 2 * len(bad) * 7


def test_a_batch_that_is_only_too_large_is_sent_in_parts() -> None:
    strict = Strict(lambda batch: len(batch) > 30)
    assert [result.status for result in send_batch(strict, "1", members(100), is_removal=False)] == ["accepted"] * 100
    assert strict.calls == [100, 50, 25, 25, 50, 25, 25]


def test_a_platform_that_takes_no_row_at_all_is_not_asked_a_thousand_times() -> None:
    strict = Strict(lambda batch: True)
    with pytest.raises(AudienceRejected, match="no row at all: malformed rows"):
        send_batch(strict, "1", members(1000), is_removal=False)
    assert len(strict.calls) < 120


def test_a_leaver_who_is_refused_is_tried_again() -> None:
    (result,) = send_batch(Strict(lambda batch: True), "1", members(1), is_removal=True)
    assert (result.status, result.reason) == ("retry", "malformed rows")


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("wrong key"),
        AudienceRejected("terms not signed"),
        QuotaExhausted("used up", resets_at=datetime(2100, 1, 1, tzinfo=UTC)),
    ],
)
def test_what_is_not_about_rows_is_never_split(error: Exception) -> None:
    calls: list[int] = []

    def refuse(batch: Sequence[Member]) -> bool:
        calls.append(len(batch))
        raise error

    with pytest.raises(type(error)):
        send_batch(Strict(refuse), "1", members(100), is_removal=False)
    assert calls == [100]


def test_an_answer_that_is_too_short_is_a_bug_and_no_answer() -> None:
    strict = Strict(lambda batch: False)
    strict.add = lambda list_id, batch: [RowResult("accepted")]  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="1 results for 2 rows"):
        send_batch(strict, "1", members(2), is_removal=False)
