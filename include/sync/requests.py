"""Requests that a destination answers later: what became of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from include.sync.ledger import record_outcomes

if TYPE_CHECKING:
    from include.destinations.base import Destination, RequestOutcome
    from include.warehouse.engine import Warehouse

QUICK_POLLS = (1.0, 2.0, 4.0)  # seconds to wait between the first questions


def ask_after(
    warehouse: Warehouse, destination: Destination, audience: str, requests: Sequence[Mapping[str, Any]]
) -> Counter[str]:
    """Ask after open requests of a target and write down the answers; how many are in each state.

    What was answered before an error is kept.
    """
    outcomes: Counter[str] = Counter()
    answered: list[tuple[Mapping[str, Any], RequestOutcome]] = []
    try:
        for request in requests:
            outcome = destination.outcome(str(request["request_id"]))
            outcomes[outcome.status] += 1
            if outcome.status != "pending":
                answered.append((request, outcome))
    finally:
        if answered:
            record_outcomes(warehouse, audience, destination.name, answered)
    return outcomes


def poll(ask: Callable[[], bool]) -> bool:
    """Ask a few times, with short waits, until all is answered; whether it is."""
    for wait in QUICK_POLLS:
        if ask():
            return True
        time.sleep(wait)
    return ask()
