"""Sending one batch so that a bad row stands alone: what a platform refuses as a whole goes again in halves.

Only `BatchRefused` is split. A wrong credential, a quota, an outage and a list that is refused are about more than
rows, and pass through as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from include.destinations.base import Destination, Member, RowResult, Status
from include.destinations.http import utc_now
from include.errors import AnswerLost, AudienceRejected, BatchRefused
from include.sync.intentions import look_up
from include.sync.ledger import to_members

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

ALL_BAD = 50  # so many single rows refused and none taken: it is not the rows


def send_rows(destination: Destination, list_id: str, verb: str, rows: pa.Table) -> list[RowResult]:
    """Send rows of a plan by `add` or `remove`; the only place from which members leave.

    Where the verb must not be repeated and its answer was lost, the platform is asked what became of the rows.
    """
    members = to_members(rows)
    began = utc_now()
    try:
        return send_batch(destination, list_id, members, is_removal=verb == "remove")
    except AnswerLost:
        if verb in destination.repeatable:
            raise
        return look_up(destination, list_id, verb, members, began)


def send_batch(
    destination: Destination, list_id: str, members: Sequence[Member], *, is_removal: bool
) -> list[RowResult]:
    """Add or remove members, of one kind; one result per row, in order.

    A row that is refused alone is `rejected`, with the platform's reason; a removal is `retry` then, because a leaver
    must not stay on the list after one refusal. n rows of which b are bad cost at most about 2 b log2(n) calls.
    AudienceRejected where the platform refuses one row after the other.
    """
    verb = destination.remove if is_removal else destination.add
    results: list[RowResult] = []
    refused: Status = "retry" if is_removal else "rejected"
    _split(destination, lambda part: verb(list_id, part), members, refused, results)
    return results


def _split(
    destination: Destination,
    verb: Callable[[Sequence[Member]], list[RowResult]],
    members: Sequence[Member],
    refused: Status,
    results: list[RowResult],
) -> None:
    """Append a result for each of the members."""
    try:
        found = verb(members)
    except BatchRefused as error:
        if len(members) == 1:
            results.append(RowResult(refused, str(error)))
            if len(results) == ALL_BAD and all(result.reason == str(error) for result in results):
                raise AudienceRejected(f"{destination.label} takes no row at all: {error}") from None
            return
        logger.info("%s refuses %s rows together: %s; trying halves", destination.label, len(members), error)
        middle = len(members) // 2
        _split(destination, verb, members[:middle], refused, results)
        _split(destination, verb, members[middle:], refused, results)
        return
    if len(found) != len(members):
        raise RuntimeError(f"{destination.label} gave {len(found)} results for {len(members)} rows")
    results += found
