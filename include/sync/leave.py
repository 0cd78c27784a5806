"""Members leave a list without a plan: an erasure, or a list that no audience file names any more."""

from __future__ import annotations

import json
import time
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from include.audiences.load import load_audiences
from include.destinations.base import Destination, RowResult
from include.errors import ConfigurationError, ListGone
from include.sync.ledger import (
    Answers,
    LedgerTarget,
    last_planned,
    pending_requests,
    record_answers,
    record_outcomes,
)
from include.sync.send import send_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from include.warehouse.engine import Warehouse

Identifiers = dict[str, list[str]]

QUICK_POLLS = (1.0, 2.0, 4.0)  # seconds between the questions after what is answered later
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


def ask_after(
    warehouse: Warehouse, destination: Destination, audience: str, plans: Container[str] | None = None
) -> int:
    """Ask after a target's requests (of these plans) that are answered later; how many still have no answer."""
    waiting = 0
    for request in pending_requests(warehouse, audience, destination.name):
        if plans is None or request["plan_id"] in plans:
            outcome = destination.outcome(str(request["request_id"]))
            if outcome.status == "pending":
                waiting += 1
            else:
                record_outcomes(warehouse, audience, destination.name, [(request, outcome)])
    return waiting


def wait_for_answers(
    warehouse: Warehouse, destination: Destination, audience: str, plans: Container[str] | None = None
) -> int:
    """Ask a few times, with short waits; how many requests have no answer then."""
    for wait in QUICK_POLLS:
        if not ask_after(warehouse, destination, audience, plans):
            return 0
        time.sleep(wait)
    return ask_after(warehouse, destination, audience, plans)


def as_json(identifiers: Identifiers) -> str:
    """Identifiers as a row of a plan has them."""
    return json.dumps(identifiers, ensure_ascii=False, separators=(",", ":"))
