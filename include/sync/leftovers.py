"""Lists that no audience file names any more: a destination was taken out of a file, or the file is gone or broken.

Nothing is planned for them, so they stand still, and the ledger still knows who is on them. A no holds there as it does
everywhere: hourly, who has said no is taken off, and what a platform had not answered yet is asked after. Everybody
leaves when somebody says so (`python -m include.sync retire`): a file that is broken for a day must not empty a list.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.audiences.eligibility import ALWAYS_APPLIED, know_who_said_no
from include.audiences.load import load_audiences
from include.audiences.workbench import Workbench
from include.destinations.base import Connect, Destination, destination_class, get_destination
from include.destinations.http import utc_now
from include.errors import ConfigurationError, RekindleError, TransientError
from include.sync.leave import Identifiers, as_json, take_off
from include.sync.ledger import PlanRow, ensure_ledger, in_columns, pending_requests

if TYPE_CHECKING:
    import pyarrow as pa

    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

PAGE_ROWS = 50_000
PAGE_KEYS = 500
_TARGETS = "select distinct audience, destination from sync.ledger order by audience, destination"
_ON_LIST = """
    select list_id, member_key, profile_id
    from sync.memberships
    where audience = :audience and destination = :destination and list_id is not null and not is_leaving
"""
_COUNT = f"select count(*) as members from ({_ON_LIST}) as members"
# `{who}` narrows down whom it is about.
_SENT = f"""
    select distinct members.list_id, members.member_key, members.profile_id, ledger.identifiers
    from ({_ON_LIST} {{who}}) as members
    inner join sync.ledger as ledger
        on members.list_id = ledger.list_id and members.member_key = ledger.member_key
    where ledger.audience = :audience and ledger.destination = :destination and ledger.action <> 'remove'
    order by members.member_key
"""
SENT_KEYS = """
    select member_key, profile_id
    from sync.memberships
    where audience = :audience and destination = :destination
"""


@dataclass(frozen=True)
class Honoured:
    """What one run did on lists without a file: `targets` of them with members, people taken off, what failed."""

    targets: int = 0
    removed: int = 0
    reasons: tuple[str, ...] = ()


def honour_leftovers(warehouse: Warehouse, connect: Connect = get_destination) -> Honoured:
    """Take everybody who has said no off the lists that no audience file names, and ask after open requests there.

    A list that cannot be reached holds up no other; `reasons` says what is left for the next run.
    """
    ensure_ledger(warehouse)
    targets = removed = 0
    reasons = []
    for audience, destination in _leftovers(warehouse):
        name = f"{audience} > {destination}"
        try:
            members = int(warehouse.scalar(_COUNT, audience=audience, destination=destination) or 0)
            if members:
                targets += 1
                logger.info("%s: %s members are on a list that no audience file names any more", name, members)
            leaving = _who_said_no(warehouse, audience, destination) if members else []
            if leaving or pending_requests(warehouse, audience, destination):
                going = _removals(warehouse, audience, destination, leaving)
                removed += take_off(warehouse, audience, destination, going, connect)
        except RekindleError as error:
            logger.warning("%s: %s", name, error)
            reasons.append(f"{name}: {error}")
    return Honoured(targets, removed, tuple(reasons))


def retire(warehouse: Warehouse, audience: str, destination: str, connect: Connect = get_destination) -> int:
    """Take everybody off a target's list for good; how many are off or on their way. May be killed and run again.

    ConfigurationError while the audience file still names the destination: the next plan would add everybody again.
    TransientError where the platform did not take all removals.
    """
    if (audience, destination) in _named():
        raise ConfigurationError(
            f"{audience} > {destination}: the audience file still names the destination, and the next sync would add "
            "everybody again; take it out of the file first"
        )
    ensure_ledger(warehouse)
    everybody = _removals(warehouse, audience, destination, None)
    removed = take_off(warehouse, audience, destination, everybody, connect)
    left = int(warehouse.scalar(_COUNT, audience=audience, destination=destination) or 0)
    if left:
        raise TransientError(
            f"{audience} > {destination}: {left} members are still on the list, because the platform did not take "
            "their removal (sync.rejects says why); run it again"
        )
    open_requests = len(pending_requests(warehouse, audience, destination))
    later = f"; {open_requests} requests have no answer yet, which honour_privacy asks for" if open_requests else ""
    logger.info("%s > %s: %s members are off the list%s", audience, destination, removed, later)
    return removed


def _named() -> set[tuple[str, str]]:
    return {(name, target.to) for name, one in load_audiences().audiences.items() for target in one.destinations}


def targets_of(warehouse: Warehouse) -> list[tuple[str, str]]:
    """Every target that the ledger knows."""
    return [(str(audience), str(destination)) for audience, destination in warehouse.tuples(_TARGETS)]


def policy_of(audience: str, platform: type[Destination]) -> dict[str, Any]:
    """What decides who has said no; without an audience file, consent is what the channel is called."""
    known = load_audiences().audiences.get(audience)
    policy = known.channels.get(platform.channel) if known else None
    return {
        "audience": audience,
        "destination": platform.name,
        "channel": platform.channel,
        "consent_channel": policy.consent if policy else platform.channel,
        "always_applied": list(ALWAYS_APPLIED),
        "as_of": utc_now(),
    }


def _leftovers(warehouse: Warehouse) -> list[tuple[str, str]]:
    """Targets that the ledger knows and no audience file that is right."""
    named = _named()
    return [target for target in targets_of(warehouse) if target not in named]


def _who_said_no(warehouse: Warehouse, audience: str, destination: str) -> list[str]:
    """Member keys of a list whose people have said no to its channel: in any plan they would leave at once."""
    platform = destination_class(destination)
    params = policy_of(audience, platform)
    with warehouse.session() as session, Workbench(warehouse, session, uuid.uuid4().hex, params, {}) as bench:
        know_who_said_no(bench, platform, SENT_KEYS)
        bench.give("target.asked", bench.written("select member_key, profile_id from target.sent_keys"))
        bench.give("target.saying_no", bench.query("saying_no"))
        return sorted(str(row["member_key"]) for row in bench.rows("select member_key from target.saying_no"))


def _removals(
    warehouse: Warehouse, audience: str, destination: str, keys: Sequence[str] | None
) -> Iterator[tuple[str, pa.Table]]:
    """List ids and removals of these members of a target, of everybody for None, page by page."""
    first_kind = destination_class(destination).identifiers[0]
    for rows in _pages(warehouse, audience, destination, keys):
        for list_id, people in _gathered(first_kind, rows).items():
            yield (
                list_id,
                in_columns(
                    PlanRow(number, "remove", profile, key, as_json(identifiers), None, None)
                    for number, (key, (profile, identifiers)) in enumerate(people.items())
                ),
            )


def _pages(
    warehouse: Warehouse, audience: str, destination: str, keys: Sequence[str] | None
) -> Iterator[list[dict[str, Any]]]:
    """What these members were ever sent with, a row for each text of identifiers; all of a member is in one page."""
    target: dict[str, Any] = {"audience": audience, "destination": destination}
    if keys is not None:
        for start in range(0, len(keys), PAGE_KEYS):
            some = list(keys[start : start + PAGE_KEYS])
            yield warehouse.read(_SENT.format(who="and member_key in (:keys)"), **target, keys=some)
        return
    page = f"and member_key > :after order by member_key limit {PAGE_ROWS}"
    after = ""
    while rows := warehouse.read(_SENT.format(who=page), **target, after=after):
        yield rows
        after = str(rows[-1]["member_key"])


def _gathered(first_kind: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, tuple[str, Identifiers]]]:
    """Profile and all identifiers by list and member key."""
    found: dict[str, dict[str, tuple[str, Identifiers]]] = defaultdict(dict)
    for row in rows:
        key = str(row["member_key"])
        _, held = found[str(row["list_id"])].setdefault(key, (str(row["profile_id"] or ""), {}))
        sent = json.loads(row["identifiers"]) if row["identifiers"] else {first_kind: [key]}
        for kind, values in sent.items():
            held[kind] = sorted({*held.get(kind, []), *values})
    return found
