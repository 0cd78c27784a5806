"""What runs in the process that is killed: a push of one plan and the questions after it, until nothing is left.

Imported by the fork server, so that a new process costs milliseconds; it takes everything it needs as arguments.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import include.destinations.google_ads
import include.destinations.mailchimp
from include.audiences.load import load_audiences
from include.connections import Connection
from include.destinations.base import Destination, Member, RowResult, destination_class
from include.destinations.http import utc_now
from include.errors import AudienceRejected, TransientError
from include.settings import get_settings
from include.sync import push
from include.warehouse.engine import Warehouse

AWAY = 3  # exit status: the platform stayed away, as a task would fail for now
ROUNDS = 20

_sleep = time.sleep


class Starter(Destination):
    """An automation tool: each line of a file is something that was started and cannot be taken back."""

    name = "mailchimp"
    label = "Starter"
    description = "for tests"
    channel = "email"
    api_version = "1"
    docs_url = "https://example.com"
    identifiers = ("email",)
    max_batch_rows = 10
    connections = 3
    repeatable = frozenset({"remove"})

    def check(self) -> None: ...

    def ensure_audience(self, label: str, description: str, fields: Sequence[str]) -> str:
        return "starter"

    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        _sleep(0.01)
        with Path(str(self.connection.host)).open("a") as started:
            started.write(
                "".join(f"{member.member_key} {utc_now().isoformat()}\n" for member in batch)
            )  # one write: all or none
        _sleep(0.01)
        return [RowResult("accepted")] * len(batch)

    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        return [RowResult("accepted")] * len(batch)

    def was_done(self, list_id: str, verb: str, batch: Sequence[Member], since: datetime) -> list[bool | None]:
        path = Path(str(self.connection.host))
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        started = {key for key, at in lines if datetime.fromisoformat(at) >= since}
        return [member.member_key in started for member in batch]


CLASSES: Mapping[str, type[Destination]] = {
    "mailchimp": include.destinations.mailchimp.Mailchimp,
    "google_ads": include.destinations.google_ads.GoogleAds,
    "starter": Starter,
}


def telling(destination: type[Destination], ready: Pipe) -> type[Destination]:
    """The destination with small batches, which tells when its first call is about to go out."""

    class Telling(destination):  # type: ignore[misc,valid-type]
        max_batch_rows = 10
        is_told = False

        def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
            self.tell()
            added: list[RowResult] = super().add(list_id, batch)
            return added

        def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
            self.tell()
            removed: list[RowResult] = super().remove(list_id, batch)
            return removed

        def tell(self) -> None:
            if not Telling.is_told:
                Telling.is_told = True
                ready.send("sending")

    return Telling


def push_all(name: str, warehouse_url: str, plan_id: str, connection: Connection, audiences: str, ready: Pipe) -> None:
    """Push and confirm until the plan is finished; pauses are short here, and groups and batches small."""
    os.environ["REKINDLE_AUDIENCES_DIR"] = audiences
    get_settings.cache_clear()
    load_audiences()
    time.sleep = lambda seconds: _sleep(min(seconds, 0.005))
    push.GROUP_ROWS, push.GROUP_SECONDS, push.PAGE_ROWS = 25, 0.05, 40  # type: ignore[misc]
    small: Any = telling(CLASSES[name], ready)
    warehouse = Warehouse(warehouse_url)

    def connect(_: str, options: Mapping[str, object]) -> Destination:
        settings = destination_class(small.name).Settings.model_validate(dict(options))
        made: Destination = small(connection, settings)
        return made

    ready.send("ready")
    try:
        for _ in range(ROUNDS):
            push.push_plan(warehouse, plan_id, connect)
            push.confirm_plan(warehouse, plan_id, connect)
            if warehouse.scalar(
                "select count(*) as open_rows from sync.pushes where plan_id = :plan_id and not is_finished",
                plan_id=plan_id,
            ) == 0:  # fmt: skip
                return
    except TransientError:
        os._exit(AWAY)
    raise AudienceRejected("the plan does not end")
