"""HTTP as all destinations speak it: what is waited for, what is final, and what is left to the scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from include.destinations.http import HttpApi, retry_after
from include.errors import QuotaExhausted, Throttled
from tests.include.destinations.local_server import LocalServer, Reply, Request

MIDNIGHT = datetime(2100, 1, 2, tzinfo=UTC)


class Server(LocalServer):
    """Answers 200 once its faults are through."""

    def handle(self, request: Request) -> Reply:
        return Reply(200, {})


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


def api(server: Server) -> HttpApi:
    def reset(response: httpx.Response) -> datetime | None:
        return MIDNIGHT if b"DAILY" in response.content else None

    return HttpApi("Tool", server.url, "tool_default", quota_reset=reset)


def test_a_wait_longer_than_two_minutes_is_left_to_the_scheduler(server: Server, waits: list[float]) -> None:
    server.faults.append(Reply(429, {}, (("Retry-After", "3600"),)))
    with pytest.raises(Throttled) as caught:
        api(server).call("GET", "/", "log in")
    assert (caught.value.retry_after, waits) == (3600, [])


def test_a_used_up_quota_is_not_asked_again_before_its_time(server: Server, waits: list[float]) -> None:
    server.faults.append(Reply(429, {"policyName": "DAILY"}, (("Retry-After", "1"),)))
    with pytest.raises(QuotaExhausted, match=r"given back at 2100-01-02 00:00 UTC") as caught:
        api(server).call("GET", "/", "log in")
    assert (caught.value.resets_at, waits, len(server.journal)) == (MIDNIGHT, [], 1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0.5", 0.5), ("1764412345000", 7 * 86400), ("Fri, 31 Dec 9999 23:59:59 GMT", 7 * 86400)],
)
def test_a_time_to_wait_is_a_week_at_most(header: str, seconds: float) -> None:
    assert retry_after(header) == seconds


@pytest.mark.parametrize(
    "header",
    [None, "", "nan", "inf", "-inf", "1e999", "-5", "0", "soon", "Mon, 01 Jan 0001 00:00:00 +2359",
     "Mon, 99 Jan 2026 00:00:00 GMT"],
)  # fmt: skip
def test_what_names_no_time_to_come_is_none(header: str | None) -> None:
    assert retry_after(header) is None


def test_a_date_is_a_time_to_wait_until_it_has_passed() -> None:
    def date(seconds: float) -> str:
        return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)

    assert retry_after(date(3600)) == pytest.approx(3600, abs=2)
    assert retry_after(date(3600).removesuffix(" GMT")) == pytest.approx(3600, abs=2)
    assert retry_after(date(-60)) is None


@pytest.mark.parametrize("header", ["nan", "inf", "-5", "0", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_where_no_time_is_named_the_pauses_grow(server: Server, waits: list[float], header: str) -> None:
    server.faults.extend([Reply(429, {}, (("Retry-After", header),)) for _ in range(4)])
    assert api(server).call("GET", "/", "log in").ok
    assert waits == sorted(waits)
    assert min(waits) >= 1
    assert len(waits) == 4
