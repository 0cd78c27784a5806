"""Keep the ledger from growing with time alone: what is old and overtaken is deleted, what it says is not.

The lists, their history, what a leaver was sent with and what is refused are the same before and after
(`sql/sync/compaction/overtaken.sql` says which answers stay). Of plans that are old only their counts stay
(`sync.plans`), so `explain` cannot tell any more what such a plan did with a person; why somebody left is kept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.destinations.http import utc_now
from include.settings import get_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

_OLD_PLANS = """
    plan_id in (
        select plan_id
        from (
            select
                plan_id, created_at,
                row_number() over (partition by audience, destination order by created_at desc, plan_id desc) as recency
            from sync.plans
        ) as plans
        where recency > 1 and created_at < :before
    )
"""
_NOBODY_LEFT_FOR_IT = """
    not exists (
        select 1 as one
        from sync.ledger as ledger
        where ledger.plan_id = sync.exclusions.plan_id
            and ledger.profile_id = sync.exclusions.profile_id
            and ledger.action = 'remove'
    )
"""


@dataclass(frozen=True)
class Compaction:
    """How many rows were deleted of what."""

    answers: int
    plan_rows: int
    exclusions: int


def compact(warehouse: Warehouse, before: datetime | None = None) -> Compaction:
    """Delete what is overtaken and from before `before` (UTC; the setting `keep_details` ago), in one transaction.

    Nothing is deleted on an engine without transactions (Spark): a ledger half written anew would lose members.
    """
    before = before or utc_now() - get_settings().keep_details
    if not warehouse.has_transactions:
        logger.warning("%s cannot take back half a deletion; the ledger is kept as it is", warehouse.dialect)
        return Compaction(0, 0, 0)
    overtaken = (get_settings().sql_dir / "sync" / "compaction" / "overtaken.sql").read_text(encoding="utf-8")
    with warehouse.session() as session:
        done = Compaction(
            answers=_delete(warehouse, session, "sync.ledger", f"sequence in ({overtaken})", before),
            plan_rows=_delete(warehouse, session, "sync.plan_rows", _OLD_PLANS, before),
            exclusions=_delete(
                warehouse, session, "sync.exclusions", f"{_OLD_PLANS} and {_NOBODY_LEFT_FOR_IT}", before
            ),
        )
    logger.info(
        "compacted what is from before %s: %s answers, %s plan rows and %s exclusions deleted",
        before, f"{done.answers:,}", f"{done.plan_rows:,}", f"{done.exclusions:,}",
    )  # fmt: skip
    return done


def _delete(warehouse: Warehouse, session: Connection, table: str, condition: str, before: datetime) -> int:
    (rows,) = warehouse.tuples(f"select count(*) from {table} where {condition}", connection=session, before=before)
    if rows[0]:
        warehouse.execute(f"delete from {table} where {condition}", connection=session, before=before)
    return int(rows[0])
