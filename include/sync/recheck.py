"""Whether a plan that waited for somebody to look at it may still be sent.

What was reviewed is exactly what is sent, or nothing: a plan whose target was written to since, or that holds people
who may not be sent any more, is refused with counts, and planning again makes a new one. A push that nobody reviewed
leaves such people out instead, because its removals must not wait (`who_may_not_go`).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from include.audiences.eligibility import know_who_said_no, policy_params
from include.audiences.load import load_audiences
from include.audiences.workbench import Workbench
from include.destinations.base import destination_class
from include.errors import PlanOutdated
from include.settings import get_settings
from include.sync.ledger import read_plan

if TYPE_CHECKING:
    import sqlalchemy

    from include.warehouse.engine import Warehouse

# Answers of other plans, except its own removals that could not wait (include/sync/guard.py). That a request which was
# pending was taken changes nothing that was planned.
_MOVED = """
    select count(*) as answers
    from sync.ledger as newer
    left join sync.ledger as waiting
        on
            newer.plan_id = waiting.plan_id
            and newer.action = waiting.action
            and newer.member_key = waiting.member_key
            and newer.status in ('accepted', 'unattributed')
            and waiting.status in ('pending', 'intended')
            and waiting.audience = :audience
            and waiting.destination = :destination
    where
        newer.audience = :audience
        and newer.destination = :destination
        and newer.plan_id <> :plan_id
        and newer.plan_id not in (select plan_id from sync.plans where urgent_of = :plan_id)
        and newer.sequence > :planned_at
        and waiting.plan_id is null
"""

_PLANNED = """
    with planned as (
        select distinct profile_id
        from sync.plan_rows
        where plan_id = :plan_id and action <> 'remove'
    )
"""

_SAYING_NO = f"""
    {_PLANNED}
    select planned.profile_id as profile_id
    from planned
    inner join target.said_no as said_no
        on planned.profile_id = said_no.profile_id
    union distinct
    select plan_rows.profile_id as profile_id
    from sync.plan_rows as plan_rows
    inner join target.said_no as said_no
        on plan_rows.member_key = said_no.member_key
    where plan_rows.plan_id = :plan_id and plan_rows.action <> 'remove'
"""

_SENT_KEYS = """
    select distinct member_key, profile_id
    from sync.ledger
    where audience = :audience and destination = :destination
"""

_GONE = f"""
    {_PLANNED}
    select planned.profile_id as profile_id
    from planned
    left join core.profiles as profiles
        on planned.profile_id = profiles.profile_id
    where profiles.profile_id is null
"""


def check_still_valid(warehouse: Warehouse, plan_id: str) -> None:
    """PlanOutdated where a plan is not what would be planned now; ConfigurationError where there is no such plan.

    Refused is a plan whose target has answers of other plans since, and one in which somebody has since opted out,
    bounced, complained, denied consent or been erased. Rows of its own that were sent already are no reason.
    """
    with warehouse.session() as session:
        plan = read_plan(warehouse, plan_id, connection=session)
        moved = warehouse.scalar(
            _MOVED,
            connection=session,
            plan_id=plan_id,
            audience=plan["audience"],
            destination=plan["destination"],
            planned_at=plan["ledger_sequence"] or 0,
        )
        if moved:
            raise PlanOutdated(
                f"plan {plan_id} ({_name(plan)}): the ledger moved: {moved} answers of other plans have come since it "
                "was made; nothing was sent. Plan the target again and look at that plan"
            )
        said_no, gone = _who_may_not_go(warehouse, session, plan)
    if said_no or gone:
        raise PlanOutdated(
            f"plan {plan_id} ({_name(plan)}): since it was made {len(said_no)} of its people have opted out, bounced, "
            f"complained or denied consent, and {len(gone)} were erased or are one profile with another now; nothing "
            "was sent. Plan the target again: they are left out then"
        )


def who_may_not_go(warehouse: Warehouse, plan_id: str) -> frozenset[str]:
    """Profile ids of those a plan adds or updates who have said no since, were erased, or are one with another now."""
    with warehouse.session() as session:
        plan = read_plan(warehouse, plan_id, connection=session)
        if not sum(plan[count] or 0 for count in ("adds", "updates", "refreshes")):
            return frozenset()
        said_no, gone = _who_may_not_go(warehouse, session, plan)
    return said_no | gone


def _who_may_not_go(
    warehouse: Warehouse, session: sqlalchemy.Connection, plan: dict[str, Any]
) -> tuple[frozenset[str], frozenset[str]]:
    """Of those who are to be sent something: who has said no by now, as a new plan would ask, and who is no profile."""
    platform = destination_class(str(plan["destination"]))
    audience = load_audiences().audience(str(plan["audience"]))
    params = policy_params(audience, platform, plan["as_of"], get_settings().holdout_salt)
    with Workbench(warehouse, session, uuid.uuid4().hex, {**params, "plan_id": plan["plan_id"]}, {}) as bench:
        know_who_said_no(bench, platform, _SENT_KEYS)
        said_no, gone = ({str(row["profile_id"]) for row in bench.rows(sql)} for sql in (_SAYING_NO, _GONE))
    return frozenset(said_no), frozenset(gone)


def _name(plan: dict[str, Any]) -> str:
    return f"{plan['audience']} at {plan['destination']}"
