"""How fast one account of a platform may be called, by all tasks on this machine together.

A destination states the vendor's limits; its connection may state others, because the limit belongs to the account.
Calls at once are counted by locked files, calls per minute in a small SQLite file, both under `<state_dir>/pacing`:
a process that is killed gives its place back by dying. Over several machines the Airflow pool of the destination is the
limit: give it so many slots that machines x connections stay below the vendor's number.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from include.connections import Connection
from include.errors import ConfigurationError, Throttled
from include.settings import get_settings

if TYPE_CHECKING:
    from pyrate_limiter import SQLiteBucket

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0
SAY_SECONDS = 5.0
POLL_SECONDS = 0.02
_FORGET_EVERY = 200  # calls, after which those that do not count any more are deleted

_sleep = time.sleep


@dataclass(frozen=True)
class Limits:
    """What an account allows; None is no limit."""

    connections: int | None = None  # calls at once
    per_minute: int | None = None  # calls begun in any minute


class Pace:
    """The turns of one account. May be shared by threads; processes that name the same account share the limits."""

    def __init__(self, account: str, limits: Limits, folder: Path | None = None) -> None:
        self.account = account
        self.limits = limits
        self._folder = folder
        self._guard = threading.Lock()
        self._bucket: SQLiteBucket | None = None
        self._calls = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until a call may be made, and keep its place until it is answered.

        Throttled after ten minutes in the queue: the task is tried again later.
        """
        place = self._place() if self.limits.connections else None
        try:
            if self.limits.per_minute:
                self._wait(self._is_in_rate, "calls in this minute")
            yield
        finally:
            if place is not None:
                os.close(place)  # and with it the lock

    def _place(self) -> int:
        """One of the account's places: an open file that is locked.

        By the system's own call, as a push takes a place for every batch: filelock computes ten times as long.
        """
        taken: list[int] = []
        numbers = list(range(self.limits.connections or 0))

        def take() -> bool:
            random.shuffle(numbers)
            for number in numbers:
                place = os.open(self._path(f"place-{number}"), os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(place)
                    continue
                taken.append(place)
                return True
            return False

        self._wait(take, "calls at once")
        return taken[0]

    def _is_in_rate(self) -> bool:
        with self._guard:
            if self._bucket is None:
                self._bucket = self._open_bucket()
            from pyrate_limiter import RateItem

            now = int(time.time() * 1000)
            with FileLock(self._path("minute.lock"), is_singleton=False):
                self._calls += 1
                if self._calls % _FORGET_EVERY == 0:
                    self._bucket.leak(now)
                return bool(self._bucket.put(RateItem(self.account, now)))

    def _open_bucket(self) -> SQLiteBucket:
        from pyrate_limiter import Duration, Rate, SQLiteBucket

        rate = Rate(self.limits.per_minute or 0, Duration.MINUTE)
        return SQLiteBucket.init_from_file([rate], db_path=self._path("minute.sqlite"), use_file_lock=True)

    def _wait(self, is_free: Any, what: str) -> None:
        began = time.monotonic()
        is_said = False
        while not is_free():
            waited = time.monotonic() - began
            if waited > PATIENCE_SECONDS:
                raise Throttled(
                    f"{self.account}: the limit of {what} was used up by other tasks for {PATIENCE_SECONDS:.0f} s",
                    retry_after=60,
                )
            if waited > SAY_SECONDS and not is_said:
                logger.info("%s: waiting for other tasks of the account (limit of %s)", self.account, what)
                is_said = True
            _sleep(POLL_SECONDS)

    def _path(self, name: str) -> str:
        folder = self._folder or get_settings().state_dir / "pacing"
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder / f"{re.sub(r'[^a-z0-9]+', '_', self.account.lower())}.{name}")


def pace_of(name: str, connection: Connection, limits: Limits) -> Pace:
    """The pace of a destination's account. The connection's extras `max_connections` and `requests_per_minute` replace
    the vendor's limits (0: none); connections to the same account share them by the same extra `account`."""
    account = connection.extra.get("account") or f"{connection.conn_id} {connection.host or ''} {connection.port or ''}"
    return Pace(
        f"{name} {account}".strip(),
        Limits(
            connections=_number(connection, "max_connections", limits.connections),
            per_minute=_number(connection, "requests_per_minute", limits.per_minute),
        ),
    )


def _number(connection: Connection, extra: str, default: int | None) -> int | None:
    given = connection.extra.get(extra)
    if given is None:
        return default
    if not str(given).isdigit():
        raise ConfigurationError(
            f"connection {connection.conn_id}: the extra '{extra}' is a whole number, 0 for no limit"
        )
    return int(given) or None
