"""Which list at a destination is an audience's: found by its name at first, the same one from then on.

A list keeps the name it was made with, because people build automations and campaigns on it: a new label in the
audience file is a new label in Airflow. Where the name suddenly means another list (somebody deleted or renamed it at
the platform, or the file's options name another account), nothing is sent: the ledger knows who is on the old one.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

from include.errors import ConfigurationError
from include.sync.ledger import Found, LedgerTarget, append_found, ensure_ledger, last_planned

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

FORGET = "forget-"  # with which the plan_id of what was forgotten begins
FORGOTTEN = "forgotten: the list is another one now"

_A_ROW = """
    select 1 as one
    from sync.ledger
    where audience = :audience and destination = :destination and list_id {} :list_id
    limit 1
"""
_MEMBERS = """
    select list_id, count(*) as members
    from sync.memberships
    where audience = :audience and destination = :destination
    group by list_id
"""
_MEMBERS_OF = """
    select profile_id, member_key, cast(null as text) as identifiers
    from sync.memberships
    where audience = :audience and destination = :destination and list_id = :list_id
"""


def name_of_list(
    warehouse: Warehouse, audience: str, destination: str, *, connection: Connection | None = None
) -> str | None:
    """The name that the target's last plan was made for; None before its first one."""
    return last_planned(warehouse, "list_name", audience, destination, connection=connection)


def check_same_list(warehouse: Warehouse, audience: str, destination: str, list_id: str) -> None:
    """ConfigurationError where the ledger has members of the target on another list and never met this one."""
    target: dict[str, Any] = {"audience": audience, "destination": destination}
    asked = {**target, "list_id": list_id}
    if warehouse.read(_A_ROW.format("="), **asked) or not warehouse.read(_A_ROW.format("<>"), **asked):
        return
    ensure_ledger(warehouse)
    others = {str(row["list_id"]): int(row["members"]) for row in warehouse.read(_MEMBERS, **target)}
    if others:
        raise ConfigurationError(
            f"{audience} > {destination}: its list was {', '.join(others)} with {sum(others.values()):,} members, and "
            f"now it would be {list_id}: somebody renamed or deleted the list at the platform, or the audience file or "
            "the connection names another account. Nothing was sent. Put that back; or, where the old list is gone or "
            f"emptied, let everybody in anew: python -m include.sync forget-list {audience} {destination}"
        )


def forget_list(warehouse: Warehouse, audience: str, destination: str) -> int:
    """Write down, without a call, that nobody is on the target's list any more; how many were.

    The next plan adds everybody who is a member then, and takes the audience's label of then.
    """
    from include.sync.one_writer import one_writer

    target: dict[str, Any] = {"audience": audience, "destination": destination}
    ensure_ledger(warehouse)
    with one_writer(audience, destination), warehouse.session() as session:
        lists = warehouse.read(_MEMBERS, connection=session, **target)
        for row in lists:
            old = LedgerTarget(audience, destination, row["list_id"], f"{FORGET}{uuid.uuid4().hex}")
            gone = Found(old, "remove", FORGOTTEN, _MEMBERS_OF)
            append_found(warehouse, session, [gone], **target, list_id=row["list_id"])
    forgotten = sum(int(row["members"]) for row in lists)
    logger.info("%s > %s: %s members forgotten; the next plan adds everybody anew", audience, destination, forgotten)
    return forgotten
