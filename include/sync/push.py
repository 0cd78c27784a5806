"""Push: send a plan to its destination and write down every answer; then ask after the answers that come later.

A push reads the plan in the order it was stored, sends it in batches of the destination's size with one kind of action
each, and appends the answers to the ledger after each batch. Kill it anywhere and run it again: rows with an answer are
skipped, rows without one are sent (again), which is harmless because adding and removing are. No session of the
warehouse is open while the network is waited for, and no more than a page of rows is in memory.

Where later rules go: `_send` is the only place from which members leave (splitting a refused batch, pacing over tasks
of one account); `push_plan` has the numbers of the plan before it sends anything (the guard that asks a human);
`confirm_plan` ends a sync (reading the list back).
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.destinations.base import Destination, Member, RowResult, get_destination
from include.errors import ConfigurationError, TransientError
from include.sync.ledger import ANSWERED, LedgerTarget, pending_requests, record_batch, record_outcome
from include.sync.send import send_batch

if TYPE_CHECKING:
    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

Connect = Callable[[str, Mapping[str, object]], Destination]
Row = Mapping[str, Any]

PAGE_ROWS = 10_000
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class PushSummary:
    """What one push did; `pending` is not delivered yet."""

    plan_id: str
    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    retry: int = 0
    pending: int = 0
    batches: int = 0


def push_plan(warehouse: Warehouse, plan_id: str, connect: Connect = get_destination) -> PushSummary:
    """Send the rows of a plan that have no answer yet. Nothing to send: no call at all.

    TransientError where the destination stays unreachable: what was answered until then is kept, a retry goes on there.
    """
    plan = _plan(warehouse, plan_id)
    name = f"{plan['audience']} > {plan['destination']}"
    started_before = bool(
        warehouse.scalar("select count(*) as rows_found from sync.ledger where plan_id = :plan_id", plan_id=plan_id)
    )
    total = int(warehouse.scalar(f"select count(*) as rows_found {_unanswered(started_before)}", plan_id=plan_id))
    if total == 0:
        logger.info("%s: nothing to send", name)
        return PushSummary(plan_id)
    destination, description = _connect(plan, connect)
    list_id = destination.ensure_audience(str(plan["list_name"]), description, _fields(warehouse, plan_id))
    target = LedgerTarget(plan["audience"], plan["destination"], list_id, plan_id)
    logger.info("%s: sending %s rows to list %s%s", name, total, list_id, " (going on)" if started_before else "")
    counts: Counter[str] = Counter()
    progress = _Progress(name, total)
    batches = 0
    try:
        rows = _stream(warehouse, plan_id, started_before)
        for batch in _batches(rows, destination.max_batch_rows):
            results = _send(destination, list_id, batch)
            record_batch(warehouse, target, batch, results)
            counts.update(result.status for result in results)
            batches += 1
            progress.add(len(batch), counts)
    except TransientError:
        progress.say(counts, "stopped; a retry goes on from here")
        raise
    progress.say(counts, "done")
    return PushSummary(
        plan_id=plan_id,
        sent=counts.total(),
        accepted=counts["accepted"],
        rejected=counts["rejected"],
        retry=counts["retry"],
        pending=counts["pending"],
        batches=batches,
    )


def confirm_plan(warehouse: Warehouse, plan_id: str, connect: Connect = get_destination) -> bool:
    """Ask after every request of the plan's target that has no answer yet; True when none is left.

    A request that failed in part leaves its members `unattributed`: the platform tells how many failed, never who.
    """
    plan = _plan(warehouse, plan_id)
    audience, destination_name = str(plan["audience"]), str(plan["destination"])
    requests = pending_requests(warehouse, audience, destination_name)
    if not requests:
        return True
    destination, _ = _connect(plan, connect)
    outcomes: Counter[str] = Counter()
    for request in requests:
        outcome = destination.outcome(str(request["request_id"]))
        outcomes[outcome.status] += 1
        if outcome.status != "pending":
            record_outcome(warehouse, audience, destination_name, request, outcome)
    summary = ", ".join(f"{count} {status}" for status, count in sorted(outcomes.items()))
    logger.info("%s > %s: requests asked after: %s", audience, destination_name, summary)
    return outcomes["pending"] == 0


def _plan(warehouse: Warehouse, plan_id: str) -> Row:
    found = warehouse.read(
        "select plan_id, audience, destination, list_name from sync.plans where plan_id = :plan_id", plan_id=plan_id
    )
    if not found:
        raise ConfigurationError(f"there is no plan {plan_id} in sync.plans")
    return found[0]


def _connect(plan: Row, connect: Connect) -> tuple[Destination, str]:
    """The plan's destination with the options of its audience file, and the audience's description."""
    from include.audiences.load import load_audiences

    name = str(plan["audience"])
    audience = load_audiences().audiences.get(name)
    if audience is None:
        raise ConfigurationError(f"plan {plan['plan_id']}: there is no audience file '{name}' any more, or it is wrong")
    options = audience.target(str(plan["destination"])).options
    return connect(str(plan["destination"]), options), audience.description


def _fields(warehouse: Warehouse, plan_id: str) -> list[str]:
    """The merge fields this plan fills; every add and update of a plan carries the same."""
    found = warehouse.scalar(
        "select fields from sync.plan_rows where plan_id = :plan_id and fields is not null limit 1", plan_id=plan_id
    )
    return list(json.loads(found)) if found else []


def _unanswered(started_before: bool) -> str:
    """FROM and WHERE of the rows to send; the look into the ledger is spared where the plan was never begun."""
    if not started_before:
        return "from sync.plan_rows as rows where rows.plan_id = :plan_id"
    return f"""
        from sync.plan_rows as rows
        left join ({ANSWERED}) as answered
            on answered.action = rows.action and answered.member_key = rows.member_key
        where rows.plan_id = :plan_id and answered.member_key is null
    """


def _stream(warehouse: Warehouse, plan_id: str, started_before: bool) -> Iterator[Row]:
    """The rows to send in the plan's order, page by page, each page in a session of its own."""
    sql = f"""
        select
            rows.row_number, rows.action, rows.profile_id, rows.member_key, rows.identifiers, rows.fields,
            rows.payload_hash
        {_unanswered(started_before)}
            and rows.row_number > :after
        order by rows.row_number
        limit {PAGE_ROWS}
    """
    after = -1
    while page := warehouse.read(sql, plan_id=plan_id, after=after):
        yield from page
        after = int(page[-1]["row_number"])


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Rows in order, at most `size` together, and never a removal with something else."""
    batch: list[Row] = []
    for row in rows:
        if batch and (len(batch) == size or _is_removal(batch[0]) != _is_removal(row)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _is_removal(row: Row) -> bool:
    return bool(row["action"] == "remove")


def _send(destination: Destination, list_id: str, batch: Sequence[Row]) -> list[RowResult]:
    """Send one batch of one kind; the only place from which members leave."""
    members = [
        Member(
            member_key=row["member_key"],
            identifiers=json.loads(row["identifiers"]),
            fields=json.loads(row["fields"]) if row["fields"] else {},
        )
        for row in batch
    ]
    return send_batch(destination, list_id, members, is_removal=_is_removal(batch[0]))


class _Progress:
    """Rows, rate and what remains, in the log every few seconds."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0
        self.began = self.said = time.monotonic()

    def add(self, rows: int, counts: Counter[str]) -> None:
        self.done += rows
        if time.monotonic() - self.said >= PROGRESS_SECONDS:
            self.say(counts, "sending")

    def say(self, counts: Counter[str], what: str) -> None:
        self.said = time.monotonic()
        rate = self.done / max(self.said - self.began, 0.001)
        left = max(self.total - self.done, 0)
        logger.info(
            "%s: %s: %s of %s rows, %.0f rows/s, about %.0f s to go; accepted %s, rejected %s, retry %s, pending %s",
            self.name, what, self.done, self.total, rate, left / rate if rate else 0.0,
            counts["accepted"], counts["rejected"], counts["retry"], counts["pending"],
        )  # fmt: skip
