"""Audit: read a list back where the platform allows it, compare it with the ledger, and set the ledger right.

The audit never writes to a destination. It corrects what the ledger holds, by appending, and the next plan does the
repair, with its guard, its waterfall and its order:

    lost       we put her there and the list does not hold her: the ledger learns that she is off it, and the next plan
               adds her again, if she is still a member and has not said no. No write of ours carries a consent, so a
               tool that archived or unsubscribed her refuses, and that is the end of it.
    returned   we took her off and the list holds her: the ledger learns that she is on it, and the next plan takes her
               off again (or keeps her, if she is a member now)
    stranger   never ours, somebody else's addition: left alone and counted, unless the audience says `strict: true`

The list is read in pages into a table of the warehouse and compared there; memory does not grow with it.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from include.destinations.base import Connect, Destination, get_destination
from include.destinations.http import utc_now
from include.errors import NotSupported
from include.settings import get_settings
from include.sync.ledger import Found, LedgerTarget, append_found, ensure_ledger
from include.sync.lists import check_same_list, name_of_list
from include.sync.opt_outs import NEWEST_ANSWER
from include.sync.stats import record_stats

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from include.audiences.schema import Audience
    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

PAGE_ROWS = 20_000
PROGRESS_SECONDS = 10.0
# What was acknowledged this recently may not show at the platform yet, and is not judged.
SETTLES_IN = timedelta(minutes=10)

# Each statement compares `{listed}` (what was read back) with the ledger of one target.
_MISSING = """
    select members.member_key
    from sync.memberships as members
    left join {listed} as listed on members.member_key = listed.member_key
    where members.audience = :audience
        and members.destination = :destination
        and members.status = 'accepted'
        and not members.is_leaving
        and members.acknowledged_at < :settled
        and listed.member_key is null
"""
_OPTED_OUT = f"""
    select value as member_key
    from sync.opt_outs
    where destination = :destination
    {NEWEST_ANSWER} and is_active
"""
_UNKNOWN = """
    select listed.member_key
    from (select distinct member_key from {listed}) as listed
    left join (
        select member_key from sync.memberships where audience = :audience and destination = :destination
    ) as members on listed.member_key = members.member_key
    where members.member_key is null
"""
_LAST_PUT = """
    select profile_id, member_key, identifiers, sent_order
    from sync.sends
    where audience = :audience
        and destination = :destination
        and action <> 'remove'
        and status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown')
    qualify row_number() over (partition by member_key order by sent_order desc) = 1
"""
_TAKEN_OFF = """
    select member_key, max(acknowledged_at) as taken_off_at
    from sync.sends
    where audience = :audience and destination = :destination and action = 'remove' and status = 'accepted'
    group by member_key
"""
_RETURNED = f"""
    select last_put.profile_id, last_put.member_key, last_put.identifiers
    from ({_UNKNOWN}) as unknown_ones
    inner join ({_LAST_PUT}) as last_put on unknown_ones.member_key = last_put.member_key
    inner join ({_TAKEN_OFF}) as taken_off on unknown_ones.member_key = taken_off.member_key
    where taken_off.taken_off_at < :settled
"""
_STRANGERS = f"""
    select unknown_ones.member_key
    from ({_UNKNOWN}) as unknown_ones
    left join ({_LAST_PUT}) as last_put on unknown_ones.member_key = last_put.member_key
    where last_put.member_key is null
"""
_LOST_ROWS = f"""
    select last_put.profile_id, missing.member_key, last_put.identifiers
    from ({_MISSING}) as missing
    inner join ({_LAST_PUT}) as last_put on missing.member_key = last_put.member_key
"""
_STRANGE_ROWS = f"""
    select cast(null as text) as profile_id, strangers.member_key, cast(null as text) as identifiers
    from ({_STRANGERS}) as strangers
"""
LOST = "audit: not on the list any more"
RETURNED = "audit: on the list again though it was taken off"
STRANGER = "audit: put on the list by somebody else, and the audience is strict"


@dataclass(frozen=True)
class AuditSummary:
    """What one audit found, in members. `opted_out` of the lost ones have said no at the tool."""

    audit_id: str
    outcome: str  # compared, no_read_back (the platform has none) or moved (the ledger did, while the list was read)
    listed: int = 0
    members: int = 0
    lost: int = 0
    opted_out: int = 0
    returned: int = 0
    strangers: int = 0

    @property
    def is_true(self) -> bool:
        """Whether list and ledger said the same."""
        return self.outcome == "compared" and self.lost == self.returned == 0


def audit_target(
    warehouse: Warehouse,
    audience_name: str,
    destination_name: str,
    connect: Connect = get_destination,
    *,
    every: timedelta | None = None,
    settles_in: timedelta = SETTLES_IN,
) -> AuditSummary | None:
    """Audit one target; None where it was audited within `every` (settings: `audit_every`) or has nothing sent yet.

    Run it when nothing else writes to the target. Should the ledger of the target move while the list is read, nothing
    is concluded from it.
    """
    from include.audiences.load import load_audiences

    audience = load_audiences().audience(audience_name)
    target: dict[str, Any] = {"audience": audience_name, "destination": destination_name}
    name = f"{audience_name} > {destination_name}"
    ensure_ledger(warehouse)
    began = utc_now()
    patience = get_settings().audit_every if every is None else every
    last = warehouse.scalar(
        "select max(began_at) as last_began from sync.audits "
        "where audience = :audience and destination = :destination and outcome <> 'moved'",
        **target,
    )
    if last is not None and began - last < patience:
        logger.info("%s: audited at %s UTC, nothing to do before %s", name, f"{last:%Y-%m-%d %H:%M}", last + patience)
        return None
    newest = _newest(warehouse, target)
    if newest is None:
        logger.info("%s: nothing was ever sent, so there is nothing to audit", name)
        return None
    destination = connect(destination_name, audience.target(destination_name).options)
    label = name_of_list(warehouse, audience_name, destination_name) or audience.label
    list_id = destination.ensure_audience(label, audience.description, ())
    check_same_list(warehouse, audience_name, destination_name, list_id)
    listed = f"sync.read_back_{uuid.uuid5(uuid.NAMESPACE_OID, name).hex[:12]}"
    audit_id = uuid.uuid4().hex
    try:
        count = _read_back(warehouse, destination, list_id, listed, name)
        if count is None:
            summary = AuditSummary(audit_id, "no_read_back", members=_members(warehouse, target))
        else:
            facts = {**target, "list_id": list_id, "audit_id": audit_id, "settled": began - settles_in}
            summary = _compare(warehouse, audience, facts, listed, newest, count)
    finally:
        warehouse.execute(f"drop table if exists {listed}")
    _record(warehouse, summary, target, list_id, began)
    record_stats(
        warehouse,
        destination,
        audience_name,
        list_id,
        listed=count,
        members=summary.members,
    )
    _say(name, summary, strict=audience.strict)
    return summary


def _newest(warehouse: Warehouse, target: Mapping[str, Any], connection: Connection | None = None) -> int | None:
    """The newest answer of the target; None when nothing was ever taken there."""
    newest: int | None = warehouse.scalar(
        "select max(sequence) as newest from sync.ledger where audience = :audience and destination = :destination",
        connection=connection,
        **target,
    )
    return newest


def _members(warehouse: Warehouse, target: Mapping[str, Any], connection: Connection | None = None) -> int:
    return int(
        warehouse.scalar(
            "select count(*) as members from sync.memberships "
            "where audience = :audience and destination = :destination and not is_leaving",
            connection=connection,
            **target,
        )
    )


def _read_back(warehouse: Warehouse, destination: Destination, list_id: str, table: str, name: str) -> int | None:
    """Bring the list into a table page by page; its rows, None where the platform does not let it be read."""
    with warehouse.session() as session:
        warehouse.execute(f"drop table if exists {table}", connection=session)
        warehouse.execute(f"create table {table} as select member_key from sync.ledger where 1 = 0", connection=session)
    rows, began, said = 0, time.monotonic(), time.monotonic()
    try:
        for page in _pages(destination.read_back(list_id)):
            rows += warehouse.insert(table, page)
            if time.monotonic() - said >= PROGRESS_SECONDS:
                said = time.monotonic()
                logger.info("%s: read back %s members, %.0f/s", name, rows, rows / max(said - began, 0.001))
    except NotSupported:
        return None
    warehouse.analyze(table)
    return int(warehouse.scalar(f"select count(distinct member_key) as listed from {table}"))


def _pages(keys: Iterator[str]) -> Iterator[list[dict[str, str]]]:
    while page := [{"member_key": key} for key in islice(keys, PAGE_ROWS)]:
        yield page


def _compare(
    warehouse: Warehouse, audience: Audience, facts: Mapping[str, Any], listed: str, newest: int, count: int
) -> AuditSummary:
    """Compare, and append what the ledger has to learn, in one transaction."""
    with warehouse.session() as session:
        if _newest(warehouse, {key: facts[key] for key in ("audience", "destination")}, session) != newest:
            return AuditSummary(facts["audit_id"], "moved", listed=count)

        def counted(query: str) -> int:
            sql = f"select count(*) as found from ({query}) as counted"
            return int(warehouse.scalar(sql.replace("{listed}", listed), connection=session, **facts))

        summary = AuditSummary(
            audit_id=facts["audit_id"],
            outcome="compared",
            listed=count,
            members=_members(warehouse, facts, session),
            lost=counted(_LOST_ROWS),
            opted_out=counted(f"{_MISSING} and members.member_key in (select member_key from ({_OPTED_OUT}) as told)"),
            returned=counted(_RETURNED),
            strangers=counted(_STRANGERS),
        )
        lessons = [("remove", LOST, _LOST_ROWS, summary.lost), ("add", RETURNED, _RETURNED, summary.returned)]
        if audience.strict:
            lessons.append(("add", STRANGER, _STRANGE_ROWS, summary.strangers))
        target = LedgerTarget(facts["audience"], facts["destination"], facts["list_id"], facts["audit_id"])
        found = [
            Found(target, action, reason, query.replace("{listed}", listed))
            for action, reason, query, rows in lessons
            if rows
        ]
        append_found(warehouse, session, found, **facts)
    return summary


def _record(
    warehouse: Warehouse, summary: AuditSummary, target: Mapping[str, Any], list_id: str, began: datetime
) -> None:
    warehouse.insert(
        "sync.audits",
        [
            {
                "audit_id": summary.audit_id,
                **target,
                "list_id": list_id,
                "outcome": summary.outcome,
                "listed": summary.listed,
                "members": summary.members,
                "lost": summary.lost,
                "opted_out": summary.opted_out,
                "returned": summary.returned,
                "strangers": summary.strangers,
                "began_at": began,
                "audited_at": utc_now(),
            }
        ],
    )


def _say(name: str, summary: AuditSummary, *, strict: bool) -> None:
    if summary.outcome == "no_read_back":
        logger.info(
            "%s: the platform does not let the list be read back; its counts are in sync.destination_stats", name
        )
        return
    if summary.outcome == "moved":
        logger.warning("%s: something was sent while the list was read back; it is audited again next time", name)
        return
    logger.log(
        logging.INFO if summary.is_true else logging.WARNING,
        "%s: audited: %s on the list, %s by the ledger; lost %s (of them opted out %s), returned %s, not ours %s%s",
        name, summary.listed, summary.members, summary.lost, summary.opted_out, summary.returned, summary.strangers,
        " (strict: the next plan takes them off)" if strict and summary.strangers else "",
    )  # fmt: skip
