"""What goes over the wire: a request as a handler sees it, an answer, a refusal, and the table of routes.

The platforms are plain functions from a `Call` to an `Answer`; `server.py` turns HTTP into calls and back. A handler
that raises `Refusal` leaves no trace in the state: its transaction is rolled back.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import parse_qsl

import orjson


@dataclass
class Call:
    """One request. `rows` is how many rows it carries; handlers set it for the journal."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    now: float
    rows: int = 0

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """The query string as it came, one pair per value."""
        return parse_qsl(self.query, keep_blank_values=True)

    @cached_property
    def params(self) -> dict[str, str]:
        """The query string with the last value of each name."""
        return dict(self.pairs)

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()


@dataclass
class Answer:
    """One response. A `body` that is not bytes is written as JSON; None is an empty body."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"

    def payload(self) -> bytes:
        """The bytes of the body."""
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, str):
            return self.body.encode()
        return orjson.dumps(self.body)


class Refusal(Exception):
    """A handler says no; `answer` is the platform's own error body."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(f"refused with status {answer.status}")


Handler = Callable[..., Answer]


class Route:
    """A method and a path such as `/lists/{list_id}` with the handler that answers it."""

    def __init__(self, method: str, template: str, handler: Handler, *, scope: str = "") -> None:
        self.method = method
        self.handler = handler
        self.scope = scope
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
        self.pattern = re.compile(pattern)


class Platform(Protocol):
    """A platform the server can mount: its name in the journal, its prefix and its routes."""

    @property
    def name(self) -> str:
        """The name in the journal."""

    @property
    def prefix(self) -> str:
        """Where it is mounted."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """What it answers."""

    def admit(self, call: Call, route: Route) -> None:
        """Refuse who is not logged in, lacks a right or asks too often."""

    def lost(self, call: Call, allowed: list[str]) -> Answer:
        """The answer where no route matches; `allowed` holds the methods the path does have."""

    def is_write(self, call: Call) -> bool:
        """Whether the request is one that changes a list."""

    def decorate(self, call: Call, route: Route | None, answer: Answer) -> None:
        """Add the headers the platform puts on every answer."""


class AddedPlatform(Platform, Protocol):
    """A platform the server finds beside its destination; it brings its own tables."""

    def lists(self, now: float) -> list[dict[str, Any]]:
        """What its lists hold: platform, list, list_id, audience, audience_id, members."""

    def change(self, body: dict[str, Any], now: float) -> dict[str, int]:
        """What people do themselves, outside the API; counts."""


class Window:
    """A rolling rate limit: at most `limit` hits in any `seconds`; a limit of 0 is no limit."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self.hits: deque[float] = deque()

    def _forget(self, now: float) -> None:
        while self.hits and now - self.hits[0] >= self.seconds:
            self.hits.popleft()

    def take(self, now: float) -> bool:
        """Count a hit; False (and not counted) when it is one too many."""
        if not self.limit:
            return True
        self._forget(now)
        if len(self.hits) >= self.limit:
            return False
        self.hits.append(now)
        return True

    def left(self, now: float) -> int:
        """How many more are allowed now."""
        self._forget(now)
        return max(self.limit - len(self.hits), 0)

    def wait(self, now: float) -> float:
        """Seconds until the next one is allowed."""
        self._forget(now)
        return self.seconds - (now - self.hits[0]) if self.hits and len(self.hits) >= self.limit else 0.0


def iso(moment: float, spec: str = "milliseconds") -> str:
    """Epoch seconds as ISO 8601 in UTC, `2026-11-24T10:00:00.000Z`."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec=spec).replace("+00:00", "Z")


def epoch(text: str) -> float:
    """ISO 8601 as epoch seconds (no zone means UTC); ValueError when it is none."""
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_int(value: object) -> bool:
    """A JSON integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)
