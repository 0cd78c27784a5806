"""Push: send a plan to its destination and write down every answer; then ask after the answers that come later.

A push reads the plan in pages, in the order it was stored, and hands batches of one kind to sender threads, as many as
the destination says are safe. Answers are appended to the ledger in groups: several batches in one transaction
(docs/decisions/0007). Kill it anywhere and run it again: rows with an answer are skipped, rows without one are sent
(again), which is harmless because adding and removing are. Calls that are not are written down as intended before.

Leavers are through before anybody comes in. The old address of a member is taken off last, and only when her new one
was accepted. No session of the warehouse is open while the network is waited for, and no more than a page of rows,
a group of answers and the batches under way are in memory. Rows stay in Arrow columns, as the warehouse gave them,
until a batch of them is written for its destination.
"""

from __future__ import annotations

import gc
import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from include.destinations.base import Connect, Destination, RowResult, get_destination
from include.errors import ConfigurationError
from include.sync.intentions import has_intentions, intend, settle
from include.sync.ledger import (
    ANSWERED,
    Answers,
    LedgerTarget,
    PlanRow,
    pending_requests,
    read_plan,
    record_answers,
)
from include.sync.lists import check_same_list
from include.sync.one_writer import one_writer
from include.sync.requests import ask_after
from include.sync.send import send_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

PAGE_ROWS = 50_000
# Answers written in one transaction at most: DuckDB stores 122,880 rows together, and writes them all again when some
# are added.
GROUP_ROWS = 100_000
GROUP_SECONDS = 5.0  # and the longest that one waits for its transaction
PROGRESS_SECONDS = 10.0
_LISTS = "select distinct list_id from sync.ledger where audience = :audience and destination = :destination"
_HELD_BACK = RowResult("retry", "her new address is not in yet; the old one stays until it is")
_LEFT_OUT = RowResult("retry", "she has said no, was erased or merged since the plan; the next plan tells")


@dataclass(frozen=True)
class PushSummary:
    """What one push did, in rows; `pending` is not delivered yet, `unknown` was sent and will never be answered."""

    plan_id: str
    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    retry: int = 0
    pending: int = 0
    unknown: int = 0
    batches: int = 0


def push_plan(
    warehouse: Warehouse,
    plan_id: str,
    connect: Connect = get_destination,
    *,
    opened: ExitStack | None = None,
    left_out: Set[str] = frozenset(),
) -> PushSummary:
    """Send the rows of a plan that have no answer yet. Nothing to send: no call at all.

    The profiles in `left_out` are not added or updated, only removed; their rows are noted `retry`. `opened` holds the
    warehouse open for the caller's questions and the first ones here; it is closed before any call. TransientError
    where the destination stays unreachable: what was answered until then is kept, a retry goes on there; and where
    another process on this machine is pushing to the same list.
    """
    with ExitStack() as until_it_is_sent:
        begun = _begin(warehouse, plan_id, until_it_is_sent)
        if opened is not None:
            opened.close()
        return _push(warehouse, begun, connect, left_out)


def _push(warehouse: Warehouse, begun: _Begun, connect: Connect, left_out: Set[str]) -> PushSummary:
    plan, plan_id = begun.plan, str(begun.plan["plan_id"])
    audience, destination_name = str(plan["audience"]), str(plan["destination"])
    name = f"{audience} > {destination_name}"
    if begun.has_intentions:
        settle(warehouse, audience, destination_name, lambda: _connect(plan, connect)[0])
        begun = _begin(warehouse, plan_id)
    if begun.total == 0:
        logger.info("%s: nothing to send", name)
        return PushSummary(plan_id)
    destination, description = _connect(plan, connect)
    list_id = destination.ensure_audience(str(plan["list_name"]), description, begun.fields)
    if begun.lists and list_id not in begun.lists:
        check_same_list(warehouse, audience, destination_name, list_id)
    target = LedgerTarget(audience, destination_name, list_id, plan_id)
    going_on = " (going on)" if begun.started_before else ""
    logger.info("%s: sending %s rows to list %s%s", name, begun.total, list_id, going_on)
    writer = _Writer(warehouse, target, _Progress(name, begun.total))
    may_have_failed_in_part = destination.answers_later() and plan["removes"] != 0
    failed_in_part = _failed_in_part(warehouse, plan_id) if may_have_failed_in_part else {}
    with nothing_old_looked_at():
        for is_removal, rows in groupby(_stream(writer, begun), key=_is_removal):
            if is_removal:
                held_back = _held_back(warehouse, plan_id, left_out) if begun.has_moves else frozenset[int]()
                parts = writer.without(rows, "row_number", held_back, _HELD_BACK)
            else:
                parts = writer.without(rows, "profile_id", left_out, _LEFT_OUT)
            _send_stage(writer, destination, parts, failed_in_part if is_removal else {}, is_removal=is_removal)
    writer.progress.say(writer.counts, "done")
    counts = writer.counts
    return PushSummary(
        plan_id=plan_id,
        sent=counts.total(),
        accepted=counts["accepted"],
        rejected=counts["rejected"],
        retry=counts["retry"],
        pending=counts["pending"],
        unknown=counts["unknown"],
        batches=writer.batches,
    )


@contextmanager
def nothing_old_looked_at() -> Iterator[None]:
    """Keep Python from looking through all modules for rubbish again and again: a quarter of reading the answers."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def confirm_plan(warehouse: Warehouse, plan_id: str, connect: Connect = get_destination) -> bool:
    """Ask after every request of the plan's target that has no answer yet; True when none is left.

    A request that failed in part leaves its members `unattributed`: the platform tells how many failed, never who.
    """
    plan = read_plan(warehouse, plan_id)
    audience, destination_name = str(plan["audience"]), str(plan["destination"])
    requests = pending_requests(warehouse, audience, destination_name)
    if not requests:
        return True
    destination, _ = _connect(plan, connect)
    outcomes = ask_after(warehouse, destination, audience, requests)
    summary = ", ".join(f"{count} {status}" for status, count in sorted(outcomes.items()))
    logger.info("%s > %s: requests asked after: %s", audience, destination_name, summary)
    return outcomes["pending"] == 0


def _connect(plan: Mapping[str, Any], connect: Connect) -> tuple[Destination, str]:
    """The plan's destination with the options of its audience file, and the audience's description."""
    from include.audiences.load import load_audiences

    name = str(plan["audience"])
    audience = load_audiences().audiences.get(name)
    if audience is None:
        raise ConfigurationError(f"plan {plan['plan_id']}: there is no audience file '{name}' any more, or it is wrong")
    options = audience.target(str(plan["destination"])).options
    return connect(str(plan["destination"]), options), audience.description


@dataclass(frozen=True)
class _Begun:
    """What a push has to know before it sends anything. `has_moves`: somebody has a new address and loses the old."""

    plan: Mapping[str, Any]
    lists: set[str]  # where its target was until now
    has_intentions: bool
    started_before: bool
    has_moves: bool
    total: int
    first_row: int
    last_row: int
    fields: list[str]
    first_page: pa.Table


def _begin(warehouse: Warehouse, plan_id: str, until_it_is_sent: ExitStack | None = None) -> _Begun:
    """All first questions with one opening of the warehouse: for a small plan that is much of the time.

    `until_it_is_sent` takes the lock of the list before anything is read that another push could change.
    """
    with warehouse.held():
        plan = read_plan(warehouse, plan_id)
        target: dict[str, Any] = {"audience": plan["audience"], "destination": plan["destination"]}
        if until_it_is_sent is not None:
            until_it_is_sent.enter_context(one_writer(**target))
        started_before = bool(
            warehouse.scalar("select count(*) as rows_found from sync.ledger where plan_id = :plan_id", plan_id=plan_id)
        )
        (left,) = warehouse.read(
            "select count(*) as total, min(rows.row_number) as first_row, max(rows.row_number) as last_row "
            + _unanswered(started_before),
            plan_id=plan_id,
        )
        first_row = int(left["first_row"] or 0)
        return _Begun(
            plan=plan,
            lists={str(list_id) for (list_id,) in warehouse.tuples(_LISTS, **target)},
            has_intentions=has_intentions(warehouse, **target),
            started_before=started_before,
            has_moves=bool(
                warehouse.scalar(
                    "select count(*) as moves from sync.plan_rows as old inner join sync.plan_rows as new "
                    "on old.plan_id = new.plan_id and old.profile_id = new.profile_id "
                    "where old.plan_id = :plan_id and old.action = 'remove' and new.action <> 'remove'",
                    plan_id=plan_id,
                )
            ),
            total=int(left["total"]),
            first_row=first_row,
            last_row=int(left["last_row"] or 0),
            fields=_fields(warehouse, plan_id),
            first_page=_page(warehouse, plan_id, first_row, started_before=started_before),
        )


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


def _page(warehouse: Warehouse, plan_id: str, start: int, *, started_before: bool) -> pa.Table:
    """The rows to send among the PAGE_ROWS numbers of the plan from `start` on."""
    return warehouse.read_columns(
        f"""
        select {", ".join(f"rows.{column} as {column}" for column in PlanRow._fields)}
        {_unanswered(started_before)}
            and rows.row_number >= :start
            and rows.row_number < :end
        order by rows.row_number
        """,
        plan_id=plan_id,
        start=start,
        end=start + PAGE_ROWS,
    )


def _stream(writer: _Writer, begun: _Begun) -> Iterator[pa.Table]:
    """The rows to send in the plan's order, each table of one kind; one opening of the warehouse takes answers and
    gives a page."""
    plan_id, page = writer.target.plan_id, begun.first_page
    for first in range(begun.first_row, begun.last_row + 1, PAGE_ROWS):
        if first > begun.first_row:
            with writer.warehouse.held():
                writer.write_when_due()
                page = _page(writer.warehouse, plan_id, first, started_before=begun.started_before)
        for _, rows in _runs(page, "action", "remove".__eq__):
            yield rows


def _is_removal(rows: pa.Table) -> bool:
    return bool(rows["action"][0].as_py() == "remove")


def _runs(rows: pa.Table, column: str, key: Callable[[Any], Any]) -> Iterator[tuple[Any, pa.Table]]:
    """Rows in parts that follow each other, each with what its rows have in common."""
    start = 0
    for common, run in groupby(rows[column].to_pylist(), key):
        length = len(list(run))
        yield common, rows.slice(start, length)
        start += length


def _send_stage(
    writer: _Writer,
    destination: Destination,
    parts: Iterable[pa.Table],
    failed_in_part: Mapping[int, int],
    *,
    is_removal: bool,
) -> None:
    """Send rows of one kind with several batches under way; at the end all are answered and written down.

    On an error nothing more is begun, what is under way is waited for, and all answers are kept.
    """
    verb = "remove" if is_removal else "add"
    stop = threading.Event()
    under_way: deque[tuple[pa.Table, Future[list[RowResult]]]] = deque()

    def send(batch: pa.Table) -> list[RowResult]:
        if stop.is_set():
            raise CancelledError
        try:
            return send_rows(destination, writer.target.list_id, verb, batch)
        except BaseException:
            stop.set()
            raise

    def collect(left: int, *, errors: list[BaseException] | None = None) -> None:
        """Take in answers until at most `left` batches are under way."""
        while under_way:
            for answered in [pair for pair in under_way if pair[1].done()]:
                under_way.remove(answered)
                batch, future = answered
                try:
                    results = future.result()
                except CancelledError:  # not begun, because another batch has failed: that one says why
                    pass
                except BaseException as error:
                    if errors is None:
                        raise
                    errors.append(error)
                else:
                    writer.add(batch, results)
            writer.write_when_due()
            if len(under_way) <= left:
                return
            wait([future for _, future in under_way], writer.seconds_left(), FIRST_COMPLETED)

    with ThreadPoolExecutor(destination.connections, thread_name_prefix=destination.name) as senders:
        try:
            for batch in _batches(parts, destination.max_batch_rows, failed_in_part):
                if verb not in destination.repeatable:
                    intend(writer.warehouse, writer.target, batch)
                under_way.append((batch, senders.submit(send, batch)))
                collect(2 * destination.connections - 1)
            collect(0)
        except BaseException:
            stop.set()
            collect(0, errors=[])
            writer.write()
            writer.progress.say(writer.counts, "stopped; a retry goes on from here")
            raise
    writer.write()


def _held_back(warehouse: Warehouse, plan_id: str, left_out: Set[str]) -> frozenset[int]:
    """Removals of an old address whose member is not in under her new one: it was refused, or is not answered yet.

    Who is left out now (`left_out`) is no member any more: her old address goes.
    """
    rows = warehouse.tuples(
        """
        select distinct old.row_number, old.profile_id
        from sync.plan_rows as old
        inner join sync.plan_rows as new
            on old.plan_id = new.plan_id and old.profile_id = new.profile_id and new.action <> 'remove'
        left join (
            select action, member_key, status
            from sync.ledger
            where plan_id = :plan_id
            qualify row_number() over (partition by action, member_key order by sequence desc) = 1
        ) as answers
            on new.action = answers.action and new.member_key = answers.member_key
        where old.plan_id = :plan_id and old.action = 'remove' and answers.status is distinct from 'accepted'
        """,
        plan_id=plan_id,
    )
    return frozenset(int(row_number) for row_number, profile_id in rows if profile_id not in left_out)


def _failed_in_part(warehouse: Warehouse, plan_id: str) -> dict[int, int]:
    """Removals of a plan that were tried in requests of which some failed, nobody knows whose: how often, by number."""
    rows = warehouse.tuples(
        """
        select rows.row_number, count(distinct earlier.plan_id) as tries
        from sync.plan_rows as rows
        inner join sync.plans as plans
            on rows.plan_id = plans.plan_id
        inner join sync.ledger as earlier
            on
                plans.audience = earlier.audience
                and plans.destination = earlier.destination
                and rows.member_key = earlier.member_key
        where
            rows.plan_id = :plan_id
            and rows.action = 'remove'
            and earlier.action = 'remove'
            and earlier.status = 'unattributed'
        group by rows.row_number
        """,
        plan_id=plan_id,
    )
    return {int(row_number): int(tries) for row_number, tries in rows}


def _batches(parts: Iterable[pa.Table], most: int, failed_in_part: Mapping[int, int]) -> Iterator[pa.Table]:
    """The same rows in tables of `most`; the last has what is left.

    What failed in part goes in tables of a tenth, the next time of a hundredth: at last a request is about one person,
    and its answer, too.
    """
    import pyarrow as pa

    rest: dict[int, pa.Table] = {}
    for part in parts:
        runs = (
            _runs(part, "row_number", lambda number: failed_in_part.get(number, 0)) if failed_in_part else [(0, part)]
        )
        for tries, run in runs:
            size = max(most // 10**tries, 1)
            rows = pa.concat_tables([rest[tries], run], promote_options="default") if tries in rest else run
            full = len(rows) - len(rows) % size
            for start in range(0, full, size):
                yield rows.slice(start, size)
            rest[tries] = rows.slice(full)
    yield from (rows for rows in rest.values() if len(rows))


class _Writer:
    """Collects answers and appends them to the ledger in groups: after so many rows, or so many seconds."""

    def __init__(self, warehouse: Warehouse, target: LedgerTarget, progress: _Progress) -> None:
        self.warehouse, self.target, self.progress = warehouse, target, progress
        self.counts: Counter[str] = Counter()
        self.batches = 0
        self._waiting = Answers()
        self._due = 0.0

    def add(self, rows: pa.Table, results: Sequence[RowResult]) -> None:
        self._take(rows, results)
        self.batches += 1

    def without(self, parts: Iterable[pa.Table], column: str, held: Set[Any], why: RowResult) -> Iterable[pa.Table]:
        """The rows to send; those whose `column` is in `held` are noted for the next push."""
        return self._without(parts, column, held, why) if held else parts

    def _without(self, parts: Iterable[pa.Table], column: str, held: Set[Any], why: RowResult) -> Iterator[pa.Table]:
        for part in parts:
            for is_held, rows in _runs(part, column, held.__contains__):
                if is_held:
                    self._take(rows, [why] * len(rows))
                else:
                    yield rows

    def _take(self, rows: pa.Table, results: Sequence[RowResult]) -> None:
        if not self._waiting:
            self._due = time.monotonic() + GROUP_SECONDS
        self._waiting.add(rows, results)
        self.counts.update([result.status for result in results])
        self.progress.add(len(rows), self.counts)

    def seconds_left(self) -> float | None:
        """Until the group has to be written; None while there is nothing to write."""
        return max(self._due - time.monotonic(), 0.0) if self._waiting else None

    def write_when_due(self) -> None:
        if len(self._waiting) >= GROUP_ROWS or (self._waiting and time.monotonic() >= self._due):
            self.write()

    def write(self) -> None:
        if self._waiting:
            record_answers(self.warehouse, self.target, self._waiting)
            self._waiting = Answers()


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
            "%s: %s: %s of %s rows, %.0f rows/s, about %.0f s to go; accepted %s, rejected %s, retry %s, pending %s, "
            "unknown %s",
            self.name, what, self.done, self.total, rate, left / rate if rate else 0.0, counts["accepted"],
            counts["rejected"], counts["retry"], counts["pending"], counts["unknown"],
        )  # fmt: skip
