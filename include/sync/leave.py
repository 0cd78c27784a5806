"""Members leave a list without a plan: an erasure, or a list that no audience file names any more."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from include.audiences.load import load_audiences
from include.destinations.base import Connect, Destination, RowResult
from include.errors import ConfigurationError, ListGone
from include.sync.ledger import (
    Answers,
    LedgerTarget,
    last_planned,
    pending_requests,
    record_answers,
)
from include.sync.one_writer import one_writer
from include.sync.requests import ask_after, poll
from include.sync.send import send_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

Identifiers = dict[str, list[str]]

_GONE = RowResult("accepted", "the list is gone")


def options_of(warehouse: Warehouse, audience: str, destination: str) -> dict[str, Any]:
    """How a target is reached: what its audience file says, or said at its last plan, or another file says.

    ConfigurationError where nobody can say.
    """
    known = load_audiences().audiences
    for target in known[audience].destinations if audience in known else ():
        if target.to == destination:
            return dict(target.options)
    if last := last_planned(warehouse, "options", audience, destination):
        return dict(json.loads(last))
    for name in sorted(known):
        for target in known[name].destinations:
            if target.to == destination:
                return dict(target.options)
    raise ConfigurationError(
        f"no audience file names the destination {destination} any more, so nobody can say how to reach it; "
        "put one back until everybody has left"
    )


def send_removals(
    warehouse: Warehouse, destination: Destination, target: LedgerTarget, rows: pa.Table, *, alone: bool = False
) -> bool:
    """Send removals and write down the answers; False where the platform has no such list any more: all have left.

    `alone`: each in a request of its own, whose answer can only be about her.
    """
    is_there = True
    most = 1 if alone else destination.max_batch_rows
    for start in range(0, len(rows), most):
        batch = rows.slice(start, most)
        answers = Answers()
        try:
            results: Sequence[RowResult] = send_rows(destination, target.list_id, "remove", batch)
        except ListGone:
            results, is_there = [_GONE] * len(batch), False
        answers.add(batch, results)
        record_answers(warehouse, target, answers)
    return is_there


def ask_again(
    warehouse: Warehouse, destination: Destination, audience: str, plans: Container[str] | None = None
) -> int:
    """Ask after a target's open requests (of these plans); how many still have no answer."""
    requests = [
        request
        for request in pending_requests(warehouse, audience, destination.name)
        if plans is None or request["plan_id"] in plans
    ]
    return ask_after(warehouse, destination, audience, requests)["pending"]


def take_off(
    warehouse: Warehouse,
    audience: str,
    destination_name: str,
    removals: Iterable[tuple[str, pa.Table]],
    connect: Connect,
) -> int:
    """Send removals of a target that no plan holds, by list id, and ask a few times after them; how many were sent."""
    destination = connect(destination_name, options_of(warehouse, audience, destination_name))
    plan_id = f"leave-{uuid.uuid4().hex}"
    sent = 0
    with one_writer(audience, destination_name):
        ask_again(warehouse, destination, audience)
        for list_id, rows in removals:
            send_removals(warehouse, destination, LedgerTarget(audience, destination_name, list_id, plan_id), rows)
            sent += len(rows)
            logger.info("%s > %s: %s removals sent", audience, destination_name, sent)
        poll(lambda: not ask_again(warehouse, destination, audience))
    return sent


def as_json(identifiers: Identifiers) -> str:
    """Identifiers as a row of a plan has them."""
    return json.dumps(identifiers, ensure_ascii=False, separators=(",", ":"))
