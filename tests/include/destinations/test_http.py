"""HTTP as all destinations speak it: what is waited for, what is final, and what is left to the scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from include.destinations.http import HttpApi
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
