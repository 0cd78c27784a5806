"""The ledger: what each destination answered for each member, appended in groups of batches and never changed.

The newest row of a sending (plan, member, action) by `sequence` is its answer, the oldest its place in time; the view
`sync.sends` says so. `sync.requests` keeps the same memory for requests whose answer
comes later. A group is written in one transaction, so a process that dies leaves whole batches or none.
"""

from __future__ import annotations

import time
import uuid
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from include.destinations.base import Member, RequestOutcome, RowResult
from include.destinations.http import utc_now
from include.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection

    from include.warehouse.engine import Warehouse

# The newest answer of each row of a plan; `retry` is no answer.
ANSWERED = """
    select action, member_key
    from sync.ledger
    where plan_id = :plan_id
    qualify row_number() over (partition by action, member_key order by sequence desc) = 1 and status <> 'retry'
"""

# The requests of a destination that have no answer yet.
_PENDING = """
    select audience, request_id, plan_id, action, row_count, recorded_at
    from sync.requests
    where destination = :destination
    qualify row_number() over (
        partition by audience, request_id
        order by recorded_at desc, case when status = 'pending' then 1 else 0 end
    ) = 1 and status = 'pending'
"""

_INTO_LEDGER = """
    insert into sync.ledger (
        sequence, audience, destination, list_id, plan_id, action, profile_id, member_key, identifiers, payload_hash,
        status, reason, request_id, acknowledged_at
    )
"""

_CONFIRM = f"""
    {_INTO_LEDGER}
    select
        cast(:before as bigint) + row_number() over (order by sent.sequence) as sequence,
        sent.audience, sent.destination, sent.list_id, sent.plan_id, sent.action, sent.profile_id, sent.member_key,
        sent.identifiers, sent.payload_hash,
        cast(:status as text) as status, cast(:reason as text) as reason, sent.request_id,
        cast(:now as timestamp) as acknowledged_at
    from sync.ledger as sent
    where sent.request_id = :request_id
        and sent.audience = :audience
        and sent.destination = :destination
        and sent.status = 'pending'
"""

_APPEND_FOUND = f"""
    {_INTO_LEDGER}
    select
        cast(:before as bigint) + row_number() over (order by found.member_key) as sequence,
        cast(:audience as text) as audience, cast(:destination as text) as destination,
        cast(:list_id as text) as list_id, cast(:plan_id as text) as plan_id, cast(:action as text) as action,
        found.profile_id, found.member_key, found.identifiers, cast(null as text) as payload_hash,
        'accepted' as status, cast(:reason as text) as reason, cast(null as text) as request_id,
        cast(:now as timestamp) as acknowledged_at
    from {{found}} as found
"""

# What the ledger keeps of a row of a plan.
_KEPT = ("action", "profile_id", "member_key", "identifiers", "payload_hash")
_EPOCH, _TICK = datetime(1970, 1, 1), timedelta(microseconds=1)
_STATUS_OF_OUTCOME = {"succeeded": "accepted", "partial": "unattributed", "failed": "rejected"}


@dataclass(frozen=True)
class LedgerTarget:
    """Whose answers these are."""

    audience: str
    destination: str
    list_id: str
    plan_id: str


class PlanRow(NamedTuple):
    """A row of sync.plan_rows as a push needs it. Where there are many they are Arrow columns of these names."""

    row_number: int
    action: str
    profile_id: str
    member_key: str
    identifiers: str
    fields: str | None
    payload_hash: str | None


class Found(NamedTuple):
    """Something to append that nobody sent: `query` selects profile_id, member_key and identifiers."""

    target: LedgerTarget  # its plan_id says where the rows are from
    action: str
    reason: str
    query: str


class Answers:
    """Rows and what the destination answered to each, in the order of the answers."""

    def __init__(self) -> None:
        self.rows: list[pa.Table] = []
        self.results: list[RowResult] = []
        self.times: list[datetime] = []  # one for each table of rows

    def __len__(self) -> int:
        return len(self.results)

    def add(self, rows: pa.Table, results: Sequence[RowResult]) -> None:
        """Add the answers of one batch, which have come just now."""
        if len(rows) != len(results):
            raise ValueError(f"{len(results)} answers to {len(rows)} rows")
        self.rows.append(rows)
        self.results += results
        self.times.append(utc_now())

    def statuses(self) -> Counter[str]:
        """How many rows got which answer."""
        return Counter([result.status for result in self.results])


def in_columns(rows: Iterable[PlanRow]) -> pa.Table:
    """Single rows as the columns that are sent and answered."""
    import pyarrow as pa

    types = [pa.int64(), *[pa.string()] * (len(PlanRow._fields) - 1)]
    return pa.Table.from_pylist([row._asdict() for row in rows], pa.schema(zip(PlanRow._fields, types, strict=True)))


def to_members(rows: pa.Table) -> list[Member]:
    """The members that rows of a plan are about, as a destination takes them."""
    # Their texts are read together, which is much quicker than one by one.
    identifiers = orjson.loads(f"[{','.join(rows['identifiers'].to_pylist())}]")
    fields = orjson.loads(f"[{','.join([text or '{}' for text in rows['fields'].to_pylist()])}]")
    return list(map(Member, rows["member_key"].to_pylist(), identifiers, fields))


def record_answers(warehouse: Warehouse, target: LedgerTarget, answers: Answers) -> None:
    """Append the answers to plan rows, and the requests behind those that are pending, in one transaction."""
    import pyarrow as pa

    if not answers:
        return
    rows = pa.concat_tables(answers.rows, promote_options="default")
    moments = array("q")
    for moment, part in zip(answers.times, answers.rows, strict=True):
        moments += array("q", [(moment - _EPOCH) // _TICK]) * len(part)
    with warehouse.session() as connection:
        first = last_sequence(warehouse, connection) + 1
        # The request first: where there are no transactions, rows that wait for one nobody knows would wait forever.
        warehouse.insert("sync.requests", _pending(target, answers), connection=connection)
        warehouse.insert_columns(
            "sync.ledger",
            {
                "sequence": array("q", range(first, first + len(rows))),
                "audience": target.audience,
                "destination": target.destination,
                "list_id": target.list_id,
                "plan_id": target.plan_id,
                **{name: rows[name] for name in _KEPT},
                "status": [result.status for result in answers.results],
                "reason": [result.reason or None for result in answers.results],
                "request_id": [result.request_id for result in answers.results],
                "acknowledged_at": moments,
            },
            len(rows),
            connection=connection,
        )


def _pending(target: LedgerTarget, answers: Answers) -> list[dict[str, Any]]:
    """A row of sync.requests for each request that answers later."""
    found: dict[str, dict[str, Any]] = {}
    start = 0
    for moment, rows in zip(answers.times, answers.rows, strict=True):
        results = answers.results[start : start + len(rows)]
        start += len(rows)
        for position, result in enumerate(results):
            if result.status != "pending" or not result.request_id:
                continue
            if result.request_id not in found:
                found[result.request_id] = {
                    "request_id": result.request_id,
                    "audience": target.audience,
                    "destination": target.destination,
                    "plan_id": target.plan_id,
                    "action": "remove" if rows["action"][position].as_py() == "remove" else "add",
                    "status": "pending",
                    "row_count": 0,
                    "accepted_count": 0,
                    "rejected_count": 0,
                    "recorded_at": moment,
                }
            found[result.request_id]["row_count"] += 1
    return list(found.values())


def read_plan(warehouse: Warehouse, plan_id: str, *, connection: Connection | None = None) -> dict[str, Any]:
    """The row of `sync.plans`; ConfigurationError where there is none."""
    found = warehouse.read("select * from sync.plans where plan_id = :plan_id", plan_id=plan_id, connection=connection)
    if not found:
        raise ConfigurationError(f"there is no plan {plan_id} in sync.plans")
    return found[0]


def last_planned(
    warehouse: Warehouse, column: str, audience: str, destination: str, *, connection: Connection | None = None
) -> str | None:
    """A text of the target's newest plan that has it; None before its first one."""
    found = warehouse.scalar(
        f"""
        select {column}
        from sync.plans
        where audience = :audience and destination = :destination and {column} is not null
        order by created_at desc, plan_id desc
        limit 1
        """,
        connection=connection,
        audience=audience,
        destination=destination,
    )
    return None if found is None else str(found)


def pending_requests(warehouse: Warehouse, audience: str, destination: str) -> list[dict[str, Any]]:
    """The requests of a target that have no answer yet, oldest first."""
    return warehouse.read(
        f"select request_id, plan_id, action, row_count from ({_PENDING}) as pending "
        "where audience = :audience order by recorded_at, request_id",
        audience=audience,
        destination=destination,
    )


def open_requests(warehouse: Warehouse, destination: str) -> list[dict[str, Any]]:
    """What a destination has not answered: audience, plan_id (any of its plans), open_requests, oldest (UTC)."""
    return warehouse.read(
        "select audience, max(plan_id) as plan_id, count(*) as open_requests, min(recorded_at) as oldest "
        f"from ({_PENDING}) as pending group by audience order by audience",
        destination=destination,
    )


def record_outcomes(
    warehouse: Warehouse,
    audience: str,
    destination: str,
    outcomes: Sequence[tuple[Mapping[str, Any], RequestOutcome]],
) -> None:
    """Append what became of requests, in one transaction: their counts, and a row for each member that waited."""
    now = utc_now()
    with warehouse.session() as connection:
        for request, outcome in outcomes:
            is_lost = outcome.status == "failed" and outcome.try_again
            warehouse.execute(
                _CONFIRM,
                before=last_sequence(warehouse, connection),
                status="retry" if is_lost else _STATUS_OF_OUTCOME[outcome.status],
                reason=outcome.detail or None,
                now=now,
                request_id=request["request_id"],
                audience=audience,
                destination=destination,
                connection=connection,
            )
        warehouse.insert(
            "sync.requests",
            (
                {
                    "request_id": request["request_id"],
                    "audience": audience,
                    "destination": destination,
                    "plan_id": request["plan_id"],
                    "action": request["action"],
                    "status": outcome.status,
                    "detail": outcome.detail or None,
                    "row_count": request["row_count"],
                    "accepted_count": outcome.accepted,
                    "rejected_count": outcome.rejected,
                    "recorded_at": now,
                }
                for request, outcome in outcomes
            ),
            connection=connection,
        )


def ensure_ledger(warehouse: Warehouse) -> None:
    """The tables, and the views over nothing but the ledger, which else wait for the first build."""
    warehouse.ensure_tables()
    if warehouse.columns("sync.memberships") is None:
        from include.warehouse.build import ensure_views

        ensure_views(warehouse)


def append_found(warehouse: Warehouse, session: Connection, found: Sequence[Found], **params: Any) -> None:
    """Append what was found out without sending; `params` are those of the queries.

    All of it is worked out before any of it is appended, because what the queries read is the ledger itself.
    """
    aside = []
    for position, one in enumerate(found):
        place = uuid.uuid5(uuid.NAMESPACE_OID, f"{one.target.audience} > {one.target.destination}").hex[:12]
        table = f"sync.found_{place}_{position}"
        warehouse.execute(f"drop table if exists {table}", connection=session)
        warehouse.execute(f"create table {table} as {one.query}", connection=session, **params)
        aside.append(table)
    for one, table in zip(found, aside, strict=True):
        warehouse.execute(
            _APPEND_FOUND.replace("{found}", table),
            connection=session,
            **asdict(one.target),
            action=one.action,
            reason=one.reason,
            before=last_sequence(warehouse, session),
            now=utc_now(),
        )
        warehouse.execute(f"drop table {table}", connection=session)


def last_sequence(warehouse: Warehouse, connection: Connection) -> int:
    """Below every number to come: the clock in nanoseconds, or the newest row where the clock was set back."""
    (row,) = warehouse.read("select max(sequence) as newest from sync.ledger", connection=connection)
    return max(time.time_ns(), int(row["newest"] or 0))
