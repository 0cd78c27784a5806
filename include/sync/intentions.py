"""Intentions: what was about to be sent by a call that must not be repeated blindly (starting an automation, say).

Such a batch is written to the ledger as `intended` before its call, and its answer after it. An intention that is left
without an answer (a kill, a cut connection) is looked up at the platform: what was done is `accepted`, what was not is
`retry`, and what nobody can tell is `unknown`: it is reported and never sent again by itself.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from include.destinations.base import Destination, Member, RowResult
from include.errors import NotSupported
from include.sync.ledger import Answers, LedgerTarget, PlanRow, in_columns, record_answers, to_members

if TYPE_CHECKING:
    import pyarrow as pa

    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

_DONE = RowResult("accepted", "found at the platform after the answer was lost")
_NOT_DONE = RowResult("retry", "not found at the platform after the answer was lost")
_UNKNOWN = RowResult("unknown", "the answer was lost and the platform cannot tell; it is not sent again")
_INTENDED = RowResult("intended")

# The newest answer of a sending is `intended`. The fields are the plan's: the ledger does not keep them.
_OPEN = """
    select
        intended.list_id, intended.plan_id, rows.row_number, intended.action, intended.profile_id, intended.member_key,
        intended.identifiers, rows.fields, intended.payload_hash, intended.acknowledged_at
    from (
        select
            list_id, plan_id, action, profile_id, member_key, identifiers, payload_hash, status, acknowledged_at
        from sync.ledger
        where audience = :audience and destination = :destination
        qualify row_number() over (partition by plan_id, action, member_key order by sequence desc) = 1
    ) as intended
    left join sync.plan_rows as rows
        on
            intended.plan_id = rows.plan_id
            and intended.action = rows.action
            and intended.member_key = rows.member_key
    where intended.status = 'intended'
    order by intended.plan_id, intended.list_id, rows.row_number
"""


def intend(warehouse: Warehouse, target: LedgerTarget, rows: pa.Table) -> None:
    """Write down what is about to be sent, in a transaction of its own."""
    answers = Answers()
    answers.add(rows, [_INTENDED] * len(rows))
    record_answers(warehouse, target, answers)


def has_intentions(warehouse: Warehouse, audience: str, destination: str) -> bool:
    """Whether anything was ever intended for a target, answered or not."""
    found = warehouse.scalar(
        "select count(*) as rows_found from sync.ledger "
        "where audience = :audience and destination = :destination and status = 'intended'",
        audience=audience,
        destination=destination,
    )
    return bool(found)


def settle(warehouse: Warehouse, audience: str, destination: str, connect: Callable[[], Destination]) -> None:
    """Find out about intentions of a target that no answer followed. None of them: no call, no connection."""
    if not has_intentions(warehouse, audience, destination):
        return
    groups: dict[tuple[str, str, str, datetime], list[PlanRow]] = {}
    for list_id, plan_id, *values, intended_at in warehouse.tuples(_OPEN, audience=audience, destination=destination):
        row = PlanRow(*values)
        verb = "remove" if row.action == "remove" else "add"
        groups.setdefault((str(list_id), str(plan_id), verb, intended_at), []).append(row)
    if not groups:
        return
    platform = connect()
    counts: Counter[str] = Counter()
    for (list_id, plan_id, verb, intended_at), found in groups.items():
        rows = in_columns(found)
        answers = Answers()
        answers.add(rows, look_up(platform, list_id, verb, to_members(rows), intended_at))
        record_answers(warehouse, LedgerTarget(audience, destination, list_id, plan_id), answers)
        counts.update(answers.statuses())
    logger.warning(
        "%s > %s: %s calls had lost their answer: %s done, %s not done, %s unknown (see sync.rejects)",
        audience, destination, counts.total(), counts["accepted"], counts["retry"], counts["unknown"],
    )  # fmt: skip


def look_up(
    destination: Destination, list_id: str, verb: str, members: Sequence[Member], since: datetime
) -> list[RowResult]:
    """What became of members whose answer was lost, by what the platform shows of the time since then (UTC)."""
    try:
        found = destination.was_done(list_id, verb, members, since)
    except NotSupported:
        return [_UNKNOWN] * len(members)
    return [_UNKNOWN if done is None else _DONE if done else _NOT_DONE for done in found]
