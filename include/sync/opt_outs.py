"""Opt-outs: read who said no (or came back) at a tool, before anything is sent to it or planned for anyone.

Answers go to `sync.opt_outs`, from where `core.suppressions` follows the person. Only changes are written. A row of
kind `read` marks when a list was last read to its end, so that the next read begins there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from include.destinations.base import Connect, OptOut, destination_class, get_destination
from include.destinations.http import utc_now
from include.errors import ConfigurationError, NotSupported, RekindleError
from include.privacy.requests import PREFIXES, hash_of

if TYPE_CHECKING:
    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

CHUNK_ROWS = 1000
# Of each list, person and channel what a tool told last.
NEWEST_ANSWER = """
    qualify row_number() over (
        partition by list_name, kind, value, channel
        order by read_at desc, case when is_active then 0 else 1 end
    ) = 1
"""
MANY = 100  # people who said no: above it a tool is asked for all who changed, not for each of them
LATELY = timedelta(minutes=10)  # build_audiences has read every tool before it starts a sync
CLOCKS_DIFFER = timedelta(minutes=5)  # between us and a tool; reading a little twice costs nothing


def read_before_push(warehouse: Warehouse, audience: str, destination: str, connect: Connect = get_destination) -> int:
    """Read the tool of a target, and every other list of its channel that was not read in the last minutes.

    Returns how many answers changed. A tool of others that cannot be read is a warning: what it told before holds.
    """
    from include.audiences.load import load_audiences

    audiences = load_audiences()
    own = audiences.audience(audience).target(destination)
    platform = destination_class(destination)
    written = read_opt_outs(warehouse, audience, destination, connect) if platform.tells_opt_outs() else 0
    asked = [(own.to, own.options)]
    for name, other in audiences.audiences.items():
        for target in other.destinations:
            tool = destination_class(target.to)
            if not tool.tells_opt_outs() or tool.channel != platform.channel or (target.to, target.options) in asked:
                continue
            asked.append((target.to, target.options))
            try:
                written += read_opt_outs(warehouse, name, target.to, connect, unless_within=LATELY)
            except RekindleError as error:
                logger.warning("%s: could not be asked who said no there: %s", target.to, error)
    return written


def read_opt_outs(
    warehouse: Warehouse,
    audience: str,
    destination: str,
    connect: Connect = get_destination,
    *,
    unless_within: timedelta | None = None,
) -> int:
    """Read what is new at the tool of a target since the last read; returns how many answers changed.

    `unless_within`: not at all where the last read is no longer ago than that.
    """
    from include.audiences.load import load_audiences

    found = load_audiences().audiences.get(audience)
    if found is None:
        raise ConfigurationError(f"there is no audience '{audience}', or its file is wrong")
    tool = connect(destination, found.target(destination).options)
    scope = tool.opt_out_scope()
    began = utc_now()
    last = warehouse.scalar(
        "select max(occurred_at) as last_read_at from sync.opt_outs "
        "where destination = :destination and kind = 'read' and value = :scope",
        destination=destination,
        scope=scope,
    )
    if last and unless_within and began - last < unless_within:
        return 0
    written = 0
    try:
        since = last - CLOCKS_DIFFER if last else None
        answers = tool.read_opt_outs(since, _said_no(warehouse, destination, scope or None) if since else None)
        for chunk in _chunks(answers):
            written += _write_changes(warehouse, destination, scope or None, chunk)
    except NotSupported:
        return 0
    warehouse.insert(
        "sync.opt_outs",
        [
            {
                "destination": destination, "list_name": scope or None, "kind": "read", "value": scope,
                "channel": tool.channel, "reason": None, "is_active": False, "occurred_at": began,
                "read_at": utc_now(),
            }
        ],
    )  # fmt: skip
    logger.info("%s: %s opt-outs or returns are new", destination, written)
    return written


def _said_no(warehouse: Warehouse, destination: str, list_name: str | None) -> list[str] | None:
    """Who has said no there and may come back; None where they are many, or where of one only a hash is kept."""
    held = warehouse.read(
        f"""
        select kind, value
        from (
            select kind, value, is_active, list_name
            from sync.opt_outs
            where destination = :destination and kind <> 'read'
            {NEWEST_ANSWER}
        ) as newest
        where is_active and (list_name is null or list_name = :list_name)
        order by case when kind = 'hashed' then 0 else 1 end
        limit :most
        """,
        destination=destination,
        list_name=list_name,
        most=MANY + 1,
    )
    if len(held) > MANY or any(row["kind"] == "hashed" for row in held):
        return None
    return sorted({row["value"] for row in held})


def _chunks(answers: Iterable[OptOut]) -> Iterator[list[OptOut]]:
    source = iter(answers)
    while chunk := list(islice(source, CHUNK_ROWS)):
        yield chunk


def _write_changes(warehouse: Warehouse, destination: str, list_name: str | None, chunk: list[OptOut]) -> int:
    """Append the answers that differ from what we hold of the list; a return of somebody we hold nothing about is none.

    What was read before lists were noted has none, and ends with any list's return.
    """
    newest = {(answer.kind, answer.value, answer.channel): answer for answer in chunk}
    hashes = {
        hash_of(node_prefix + answer.value): answer
        for answer in newest.values()
        if not answer.is_active and (node_prefix := PREFIXES.get(answer.kind))
    }
    with warehouse.session() as connection:
        held = {
            (row["list_name"], row["kind"], row["value"], row["channel"]): (bool(row["is_active"]), row["reason"])
            for row in warehouse.read(
                f"""
                select list_name, kind, value, channel, reason, is_active
                from sync.opt_outs
                where destination = :destination and value in (:held_values)
                {NEWEST_ANSWER}
                """,
                destination=destination,
                held_values=sorted({answer.value for answer in chunk} | hashes.keys()),
                connection=connection,
            )
        }
        now = utc_now()

        def row(of_list: str | None, kind: str, value: str, answer: OptOut) -> dict[str, Any]:
            return {
                "destination": destination, "list_name": of_list, "kind": kind, "value": value,
                "channel": answer.channel, "reason": answer.reason, "is_active": answer.is_active,
                "occurred_at": answer.occurred_at, "read_at": now,
            }  # fmt: skip

        changed = [
            row(list_name, *key[:2], answer)
            for key, answer in newest.items()
            if answer.is_active and held.get((list_name, *key)) != (True, answer.reason)
        ]
        for of_list in {list_name, None}:
            changed += [
                row(of_list, *key[:2], answer)
                for key, answer in newest.items()
                if not answer.is_active and held.get((of_list, *key), (False, None))[0]
            ]
            for value, answer in hashes.items():  # who was erased and has come back there herself
                if held.get((of_list, "hashed", value, answer.channel), (False, None))[0]:
                    # The second tells the next build whom it concerns.
                    changed += [
                        row(of_list, "hashed", value, answer),
                        row(of_list, answer.kind, answer.value, answer),
                    ]
        return warehouse.insert("sync.opt_outs", changed, connection=connection)
