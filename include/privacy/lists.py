"""Taking erased people off every list that ever got them, through the ledger, and asking the platforms to forget them.

The ledger says where she was sent and under which identifiers. Each removal is acknowledged there like any other, under
the plan `erasure-<request>`, so that what died goes on where it was and what is answered later is asked after. A
destination that cannot be reached, a list that refuses, or one that a push is just writing to, leaves the request
open; the others are done meanwhile. A list that is gone has nobody on it: that is as good as a removal.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.destinations.base import Connect, Destination, destination_class
from include.errors import AudienceRejected, ListGone, NotSupported, RekindleError
from include.sync.leave import (
    Identifiers,
    as_json,
    ask_again,
    options_of,
    send_removals,
)
from include.sync.ledger import LedgerTarget, PlanRow, in_columns
from include.sync.one_writer import one_writer
from include.sync.requests import poll

if TYPE_CHECKING:
    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

_EVER_SENT = """
    select distinct keys.request_id, ledger.audience, ledger.destination, ledger.list_id, ledger.profile_id,
        ledger.member_key, ledger.identifiers
    from sync.ledger as ledger
    inner join sync.erasure_keys as keys on ledger.member_key = keys.value
    where keys.kind = 'sent' and ledger.list_id is not null and keys.request_id in (:requests)
    union
    select distinct keys.request_id, ledger.audience, ledger.destination, ledger.list_id, ledger.profile_id,
        ledger.member_key, ledger.identifiers
    from sync.ledger as ledger
    inner join sync.erasure_keys as keys on ledger.profile_id = keys.value
    where keys.kind = 'profile' and ledger.list_id is not null and keys.request_id in (:requests)
"""
# An address may have been somebody else's for a time, who was sent with it beside an identifier of his own.
_SENT_WITH_OTHERS = """
    select distinct keys.request_id, keys.value as member_key, ledger.audience, ledger.destination, ledger.list_id,
        ledger.identifiers
    from sync.ledger as ledger
    inner join sync.erasure_keys as keys on ledger.identifiers like '%"' || keys.value || '"%'
    left join sync.erasure_keys as hers
        on ledger.member_key = hers.value and keys.request_id = hers.request_id and hers.kind = 'sent'
    where keys.kind = 'sent' and ledger.list_id is not null and keys.request_id in (:requests)
        and ledger.identifiers like '%,"%' and hers.value is null
"""
_ANSWERS = """
    select plan_id, member_key, status
    from sync.ledger
    where audience = :audience and destination = :destination and list_id = :list_id and plan_id in (:plans)
    qualify row_number() over (partition by plan_id, member_key order by sequence desc) = 1
"""


@dataclass
class Farewell:
    """What came of one request at one destination. `is_verified` is None where a list cannot be read back."""

    outcome: str = "erased"  # erased, removed (the platform has no call to erase) or open
    lists: int = 0
    members: int = 0
    is_verified: bool | None = None
    detail: str = ""


@dataclass
class _List:
    """One list and whom of the erased it ever got: member key to identifiers, by request."""

    audience: str
    list_id: str
    people: dict[str, dict[str, Identifiers]] = field(default_factory=lambda: defaultdict(dict))
    profiles: dict[str, str] = field(default_factory=dict)


def take_off(warehouse: Warehouse, request_ids: Sequence[str], connect: Connect) -> dict[tuple[str, str], Farewell]:
    """Remove the people of these requests everywhere; what came of it by request and destination."""
    farewells: dict[tuple[str, str], Farewell] = {}
    for name, lists in _ever_sent(warehouse, request_ids).items():
        concerned = sorted({request for one in lists for request in one.people})
        found = {request: Farewell() for request in concerned}
        try:
            _leave_destination(warehouse, name, lists, found, connect)
        except RekindleError as error:
            logger.warning("%s: %s erasures stay open: %s", name, len(concerned), error)
            for request in concerned:
                found[request] = Farewell("open", found[request].lists, found[request].members, detail=str(error))
        farewells.update({(request, name): farewell for request, farewell in found.items()})
    return farewells


def _ever_sent(warehouse: Warehouse, request_ids: Sequence[str]) -> dict[str, list[_List]]:
    found: dict[str, dict[tuple[str, str], _List]] = defaultdict(dict)
    for row in warehouse.read(_EVER_SENT, requests=list(request_ids)):
        one = found[row["destination"]].setdefault(
            (row["audience"], row["list_id"]), _List(row["audience"], row["list_id"])
        )
        key = str(row["member_key"])
        first_kind = destination_class(row["destination"]).identifiers[0]
        sent = json.loads(row["identifiers"]) if row["identifiers"] else {first_kind: [key]}
        held = one.people[row["request_id"]].setdefault(key, {})
        for kind, values in sent.items():
            held[kind] = sorted({*held.get(kind, []), *values})
        one.profiles[key] = str(row["profile_id"] or "")
    for row in warehouse.read(_SENT_WITH_OTHERS, requests=list(request_ids)):
        key = str(row["member_key"])
        for kind, values in json.loads(row["identifiers"]).items():
            if key in values:
                one = found[row["destination"]].setdefault(
                    (row["audience"], row["list_id"]), _List(row["audience"], row["list_id"])
                )
                held = one.people[row["request_id"]].setdefault(key, {})
                held[kind] = sorted({*held.get(kind, []), key})
                one.profiles.setdefault(key, "")
    return {name: list(lists.values()) for name, lists in found.items()}


def _leave_destination(
    warehouse: Warehouse, name: str, lists: list[_List], found: dict[str, Farewell], connect: Connect
) -> None:
    """Off all lists of one destination, then forgotten there, then looked for."""
    forgotten: dict[str, tuple[Destination, list[_List]]] = {}
    refused: dict[str, str] = {}
    for one in lists:
        options = options_of(warehouse, one.audience, name)
        account = json.dumps(options, sort_keys=True, default=str)
        if account not in forgotten:
            forgotten[account] = (connect(name, options), [])
        destination, its_lists = forgotten[account]
        its_lists.append(one)
        try:
            with one_writer(one.audience, name):
                if not _leave_list(warehouse, destination, one):
                    for request in one.people:
                        found[request].detail = f"list {one.list_id} was not there any more"
        except AudienceRejected as error:  # one list's refusal holds up no other, and not that she is forgotten
            refused |= dict.fromkeys(one.people, str(error))
        left = _without_answer(warehouse, name, one)
        for request, members in one.people.items():
            found[request].lists += 1
            found[request].members += len(members)
            if left.get(request):
                found[request].outcome = "open"
                found[request].detail = refused.get(request, f"{name} has not confirmed a removal yet")
    for destination, its_lists in forgotten.values():
        for request in sorted({request for one in its_lists for request in one.people}):
            _forget(destination, _merged(one.people.get(request, {}) for one in its_lists), found[request])
        for one in its_lists:
            _look_for(destination, one, found)


def _leave_list(warehouse: Warehouse, destination: Destination, one: _List) -> bool:
    """Off one list; False where the platform has no such list any more."""
    plans = {_plan(request) for request in one.people}
    is_there = True
    ask_again(warehouse, destination, one.audience, plans)
    answers = _answers(warehouse, destination.name, one)
    for request, people in _without_answer(warehouse, destination.name, one, pending=False).items():
        rows = in_columns(
            PlanRow(number, "remove", one.profiles[key], key, as_json(identifiers), None, None)
            for number, (key, identifiers) in enumerate(people.items())
        )
        target = LedgerTarget(one.audience, destination.name, one.list_id, _plan(request))
        failed_in_part = any(answers.get((_plan(request), key)) == "unattributed" for key in people)
        is_there = send_removals(warehouse, destination, target, rows, alone=failed_in_part) and is_there
    poll(lambda: not ask_again(warehouse, destination, one.audience, plans))
    return is_there


def _without_answer(
    warehouse: Warehouse, destination: str, one: _List, *, pending: bool = True
) -> dict[str, dict[str, Identifiers]]:
    """Whose removal from a list is not accepted; without `pending`, whose is not under way either."""
    settled = ("accepted",) if pending else ("accepted", "pending")
    answers = _answers(warehouse, destination, one)
    left = {
        request: {
            key: identifiers for key, identifiers in people.items() if answers.get((_plan(request), key)) not in settled
        }
        for request, people in one.people.items()
    }
    return {request: people for request, people in left.items() if people}


def _answers(warehouse: Warehouse, destination: str, one: _List) -> dict[tuple[str, str], str]:
    """The newest answer to each removal from a list, by plan and member key."""
    rows = warehouse.read(
        _ANSWERS,
        audience=one.audience,
        destination=destination,
        list_id=one.list_id,
        plans=[_plan(request) for request in one.people],
    )
    return {(row["plan_id"], row["member_key"]): row["status"] for row in rows}


def _forget(destination: Destination, identifiers: Identifiers, farewell: Farewell) -> None:
    try:
        destination.erase(identifiers)
    except NotSupported as error:
        if farewell.outcome != "open":
            farewell.outcome = "removed"
            farewell.detail = "; ".join(text for text in (farewell.detail, str(error)) if text)


def _look_for(destination: Destination, one: _List, found: dict[str, Farewell]) -> None:
    """Read the list back, where that is possible, and see that nobody of them is on it."""
    gone = {
        key: request for request, people in one.people.items() if found[request].outcome != "open" for key in people
    }
    if not gone:
        return
    try:
        still_there = {gone[key] for key in destination.read_back(one.list_id) if key in gone}
    except NotSupported:
        return
    except ListGone:
        still_there = set()
    for request in set(gone.values()):
        farewell = found[request]
        farewell.is_verified = farewell.is_verified is not False and request not in still_there
        if request in still_there:
            farewell.outcome, farewell.detail = "open", f"{destination.name} still shows her on a list"


def _merged(people: Any) -> Identifiers:
    merged: dict[str, set[str]] = defaultdict(set)
    for members in people:
        for identifiers in members.values():
            for kind, values in identifiers.items():
                merged[kind] |= set(values)
    return {kind: sorted(values) for kind, values in merged.items()}


def _plan(request_id: str) -> str:
    return f"erasure-{request_id}"
