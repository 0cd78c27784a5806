"""Identifiers that a member was sent with and has no more, and whose owner of now has said no.

An ad list holds people and not rows: taking off an identifier that a member gave up may take off the member, and no
platform says which of two requests it works on first. So it stays there until she leaves, unless somebody who has it
now has said no; then it is taken off, and where the platform holds the two for one person, her no holds for both
(docs/decisions/0010). Hourly and not in a plan, because it needs a look at all that was ever sent.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.audiences.eligibility import know_who_said_no
from include.audiences.workbench import Workbench
from include.destinations.base import Connect, Destination, destination_class, get_destination
from include.errors import RekindleError
from include.sync.leave import as_json, take_off
from include.sync.ledger import PlanRow, ensure_ledger, in_columns
from include.sync.leftovers import SENT_KEYS, Honoured, policy_of, targets_of

if TYPE_CHECKING:
    import pyarrow as pa

    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

PAGE_VALUES = 1000
# Every text of identifiers that a member on the list was sent with since she came in, of those who have several.
_SEVERAL_TEXTS = """
    select ledger.list_id, ledger.member_key, ledger.identifiers, max(ledger.sequence) as sequence
    from sync.ledger as ledger
    inner join (
        select member_key
        from sync.ledger
        where audience = :audience and destination = :destination and action <> 'remove'
        group by member_key
        having min(identifiers) <> max(identifiers)
    ) as changed on ledger.member_key = changed.member_key
    inner join sync.memberships as members
        on ledger.member_key = members.member_key and ledger.acknowledged_at >= members.entered_at
    where ledger.audience = :audience and ledger.destination = :destination and ledger.action <> 'remove'
        and members.audience = :audience and members.destination = :destination
        and ledger.list_id is not null and ledger.identifiers is not null
        and ledger.status in ('accepted', 'pending', 'unattributed', 'intended', 'unknown')
    group by ledger.list_id, ledger.member_key, ledger.identifiers
"""
_TAKEN_OFF = """
    select member_key, max(sequence) as sequence
    from sync.ledger
    where audience = :audience and destination = :destination and action = 'remove'
        and status in ('accepted', 'pending') and member_key in (:identifiers)
    group by member_key
"""
_SAYING_NO = "select distinct member_key from target.said_no where member_key in (:identifiers)"


@dataclass(frozen=True)
class _GivenUp:
    list_id: str
    kind: str
    identifier: str
    sequence: int  # of the newest sending with it


def honour_given_up(warehouse: Warehouse, connect: Connect = get_destination) -> Honoured:
    """Take identifiers off ad lists that somebody was sent with before they were another's, who has said no."""
    ensure_ledger(warehouse)
    removed = 0
    reasons = []
    for audience, destination in targets_of(warehouse):
        try:
            platform = destination_class(destination)
            if platform.channel != "ads":  # an e-mail tool gets one address of a person
                continue
            going = _whose_owner_said_no(warehouse, audience, platform, _given_up(warehouse, audience, destination))
            if going:
                removed += take_off(warehouse, audience, destination, _removals(going), connect)
                logger.info(
                    "%s > %s: %s identifiers were sent with somebody else, and are of people who have said no; they "
                    "are taken off",
                    audience, destination, len(going),
                )  # fmt: skip
        except RekindleError as error:
            logger.warning("%s > %s: %s", audience, destination, error)
            reasons.append(f"{audience} > {destination}: {error}")
    return Honoured(0, removed, tuple(reasons))


def _given_up(warehouse: Warehouse, audience: str, destination: str) -> list[_GivenUp]:
    """Identifiers that are in an older sending of a member and not in her newest, and were not taken off since."""
    target: dict[str, Any] = {"audience": audience, "destination": destination}
    sendings = defaultdict(list)
    for row in warehouse.read(_SEVERAL_TEXTS, **target):
        sendings[row["list_id"], row["member_key"]].append((int(row["sequence"]), json.loads(row["identifiers"])))
    found: dict[tuple[str, str, str], int] = {}
    for (list_id, _), texts in sendings.items():
        *older, (_, newest) = sorted(texts, key=lambda text: text[0])
        for sequence, sent in older:
            for kind, values in sent.items():
                for value in set(values) - set(newest.get(kind, ())):
                    found[list_id, kind, value] = max(sequence, found.get((list_id, kind, value), 0))
    taken_off: dict[str, int] = {}
    values = sorted({value for _, _, value in found})
    for start in range(0, len(values), PAGE_VALUES):
        rows = warehouse.read(_TAKEN_OFF, **target, identifiers=values[start : start + PAGE_VALUES])
        taken_off |= {str(row["member_key"]): int(row["sequence"]) for row in rows}
    return [_GivenUp(*key, sequence) for key, sequence in found.items() if taken_off.get(key[2], -1) < sequence]


def _whose_owner_said_no(
    warehouse: Warehouse, audience: str, platform: type[Destination], given_up: list[_GivenUp]
) -> list[_GivenUp]:
    if not given_up:
        return []
    params = policy_of(audience, platform)
    said_no: set[str] = set()
    values = sorted({one.identifier for one in given_up})
    with (
        warehouse.session() as session,
        # Its texts hold identifiers, so none is kept.
        Workbench(warehouse, session, uuid.uuid4().hex, params, {}, keeps_texts=False) as bench,
    ):
        know_who_said_no(bench, platform, SENT_KEYS)
        for start in range(0, len(values), PAGE_VALUES):
            rows = bench.rows(_SAYING_NO, {"identifiers": values[start : start + PAGE_VALUES]})
            said_no |= {str(row["member_key"]) for row in rows}
    return [one for one in given_up if one.identifier in said_no]


def _removals(going: list[_GivenUp]) -> Iterator[tuple[str, pa.Table]]:
    """List ids and the removals of the identifiers alone."""
    for list_id in sorted({one.list_id for one in going}):
        yield (
            list_id,
            in_columns(
                PlanRow(number, "remove", "", one.identifier, as_json({one.kind: [one.identifier]}), None, None)
                for number, one in enumerate(going)
                if one.list_id == list_id
            ),
        )
