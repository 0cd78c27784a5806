"""Whether a plan that waited for somebody to look at it may still be sent.

What was reviewed is exactly what is sent, or nothing: a plan whose target was written to since, or that holds people
who may not be sent any more, is refused with counts, and planning again makes a new one.
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
    select count(distinct profile_id) as people
    from (
        select planned.profile_id
        from planned
        inner join target.said_no as said_no
            on planned.profile_id = said_no.profile_id
        union all
        select plan_rows.profile_id
        from sync.plan_rows as plan_rows
        inner join target.said_no as said_no
            on plan_rows.member_key = said_no.member_key
        where plan_rows.plan_id = :plan_id and plan_rows.action <> 'remove'
    ) as people
"""

_SENT_KEYS = """
    select distinct member_key, profile_id
    from sync.ledger
    where audience = :audience and destination = :destination
"""

_GONE = f"""
    {_PLANNED}
    select count(*) as people
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
        moved = _count(warehouse, session, _MOVED, plan, planned_at=plan["ledger_sequence"] or 0)
        if moved:
            raise PlanOutdated(
                f"plan {plan_id} ({_name(plan)}): the ledger moved: {moved} answers of other plans have come since it "
                "was made; nothing was sent. Plan the target again and look at that plan"
            )
        said_no = _count_saying_no(warehouse, session, plan)
        gone = _count(warehouse, session, _GONE, plan)
    if said_no or gone:
        raise PlanOutdated(
            f"plan {plan_id} ({_name(plan)}): since it was made {said_no} of its people have opted out, bounced, "
            f"complained or denied consent, and {gone} were erased or are one profile with another now; nothing was "
            "sent. Plan the target again: they are left out then"
        )


def _count(
    warehouse: Warehouse, session: sqlalchemy.Connection, sql: str, plan: dict[str, Any], **params: object
) -> int:
    named = {name: plan[name] for name in ("plan_id", "audience", "destination") if f":{name}" in sql}
    return int(warehouse.scalar(sql, connection=session, **named, **params) or 0)


def _count_saying_no(warehouse: Warehouse, session: sqlalchemy.Connection, plan: dict[str, Any]) -> int:
    """How many of those who are to be sent something have said no by now, as a new plan would ask."""
    platform = destination_class(str(plan["destination"]))
    audience = load_audiences().audience(str(plan["audience"]))
    params = policy_params(audience, platform, plan["as_of"], get_settings().holdout_salt)
    with Workbench(warehouse, session, uuid.uuid4().hex, {**params, "plan_id": plan["plan_id"]}, {}) as bench:
        know_who_said_no(bench, platform, _SENT_KEYS)
        return int(bench.rows(_SAYING_NO)[0]["people"])


def _name(plan: dict[str, Any]) -> str:
    return f"{plan['audience']} at {plan['destination']}"
