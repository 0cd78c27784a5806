"""The steps of one sync as a scheduler calls them: each opens the warehouse, does one thing, says what it did."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.audiences.load import load_audiences
from include.destinations.base import Connect, get_destination
from include.destinations.http import utc_now
from include.errors import ConfigurationError, PlanOutdated, QualityGateFailed, TransientError
from include.warehouse.engine import Warehouse, get_warehouse

if TYPE_CHECKING:
    from include.sync.approvals import Question

log = logging.getLogger(__name__)

LONGEST_CONFIRM = timedelta(minutes=10)  # that a run waits for answers; its audience may be due again
LONGEST_ANSWER = timedelta(hours=26)  # Google names up to a day; then somebody should look


def ready_as_of(warehouse: Warehouse, audience: str) -> datetime:
    """The moment the audience was last built for and went through its gate (UTC)."""
    newest = warehouse.scalar(
        "select as_of from sync.gate_results where audience = :audience order by checked_at desc limit 1",
        audience=audience,
    )
    if newest is None:
        raise ConfigurationError(
            f"audience {audience}: no build has been through its quality gate yet; run the DAG build_audiences first"
        )
    if not isinstance(newest, datetime):
        raise ConfigurationError(f"audience {audience}: sync.gate_results holds no time")
    return newest


def read_tool_opt_outs(audience: str, destination: str) -> int:
    """Read who said no at the target's tool and, if it was not just done, at the others; how many answers are new."""
    from include.sync.opt_outs import read_before_push

    return read_before_push(get_warehouse(), audience, destination)


def read_all_opt_outs(destination: str) -> int:
    """Read who said no at every list of one tool that an audience uses; returns how many answers are new."""
    from include.sync.opt_outs import read_opt_outs

    lists = {
        json.dumps(target.options, sort_keys=True, default=str): name
        for name, audience in load_audiences().audiences.items()
        for target in audience.destinations
        if target.to == destination
    }
    warehouse = get_warehouse()
    return sum(read_opt_outs(warehouse, name, destination) for name in lists.values())


def plan_next(audience: str, destination: str, run_id: str, *, dry_run: bool = False) -> str:
    """Plan a target for the newest build that passed its gate; returns the plan's id. A dry run logs it as a table."""
    from include.sync.plan import plan_target

    warehouse = get_warehouse()
    with warehouse.held():
        as_of = ready_as_of(warehouse, audience)
        return plan_target(warehouse, audience, destination, as_of, run_id, dry_run=dry_run).plan_id


def take_plan(plan_id: str, audience: str, destination: str, run_id: str, *, plan_anew: bool) -> str | None:
    """The plan to send for a reviewed one: itself while it is valid; None where it is another destination's.

    One that nobody has approved is returned as it is: it is asked about, not sent. PlanOutdated where it is no longer
    valid, or with `plan_anew` a new plan within what was approved for it.
    """
    from include.sync.approvals import approved_guard, last_decision
    from include.sync.ledger import read_plan
    from include.sync.plan import plan_target
    from include.sync.recheck import check_still_valid

    warehouse = get_warehouse()
    plan = read_plan(warehouse, plan_id)
    if plan["audience"] != audience:
        raise ConfigurationError(
            f"plan {plan_id} is of audience {plan['audience']}, not {audience}: run sync_{plan['audience']} with it"
        )
    if plan["destination"] != destination:
        return None
    decision = last_decision(warehouse, plan_id)
    if plan["verdict"] == "ask" and decision not in ("approved", "new_bound"):
        return plan_id
    try:
        if decision == "new_bound":
            raise PlanOutdated(f"plan {plan_id} ({audience} at {destination}) is beyond the bound that was approved")
        check_still_valid(warehouse, plan_id)
    except PlanOutdated as outdated:
        if not plan_anew:
            raise
        log.warning("%s. It is planned anew, within what was approved", outdated)
    else:
        log.info("%s at %s: plan %s is still valid; exactly its rows are sent", audience, destination, plan_id)
        return plan_id
    guard = approved_guard(warehouse, plan_id, load_audiences().audience(audience).guard)
    return plan_target(warehouse, audience, destination, ready_as_of(warehouse, audience), run_id, guard=guard).plan_id


def is_question(plan_id: str, *, again: bool) -> bool:
    """Whether a human is to be asked about a plan now; `again`: whatever was answered before."""
    from include.sync.approvals import is_to_be_asked

    return is_to_be_asked(get_warehouse(), plan_id, again=again)


def put_question(plan_id: str | None) -> Question:
    """Write down that a human is asked about a plan, and return what."""
    from include.sync.approvals import ask

    if not plan_id:
        raise ConfigurationError("approve_plans is started by sync_<audience>, or by hand with the parameter plan_id")
    return ask(get_warehouse(), plan_id)


def take_answer(plan_id: str, given: Mapping[str, Any]) -> dict[str, str] | None:
    """Write down what a human answered; the audience to sync for it, or None. Bounds in `given` are percent."""
    from include.sync.approvals import record_answer

    option = next(iter(given["chosen_options"]), None)
    bounds = {name: value / 100 for name, value in given["params_input"].items() if value is not None}
    by = (given.get("responded_by_user") or {}).get("id")
    answer = record_answer(get_warehouse(), plan_id, option, by=by, **bounds)
    if answer.decision == "unanswered":
        raise QualityGateFailed(
            f"plan {plan_id} ({answer.audience} at {answer.destination}): nobody answered in time; nothing was sent, "
            "and the next sync asks again"
        )
    if not answer.is_to_send:
        return None
    return {"audience": answer.audience, "answered_at": f"{utc_now():%Y%m%dT%H%M%S}"}


def push_planned(plan_id: str, connect: Connect = get_destination) -> str:
    """Send what a plan holds and has no answer yet; of one that waits for a human only what cannot wait.

    Who has said no since the plan (its retry may be hours later) is left out, and removals go on. Returns the plan that
    was sent. PlanOutdated where its target has a newer plan and this one no longer holds: a task of an old run that is
    cleared sends nothing stale.
    """
    from include.sync.approvals import has_newer_plan, what_may_go
    from include.sync.push import push_plan
    from include.sync.recheck import check_still_valid, who_may_not_go

    warehouse = get_warehouse()
    with ExitStack() as opened:
        opened.enter_context(warehouse.held())
        may_go = what_may_go(warehouse, plan_id)
        if may_go is None:
            return plan_id
        if has_newer_plan(warehouse, plan_id):
            check_still_valid(warehouse, may_go)
        left_out = who_may_not_go(warehouse, may_go)
        if left_out:
            log.warning(
                "plan %s: %s of its people have said no, were erased or merged since it was made; they are left out, "
                "the rest is sent",
                may_go, len(left_out),
            )  # fmt: skip
        push_plan(warehouse, may_go, connect, opened=opened, left_out=left_out)
    return may_go


def push_reviewed(warehouse: Warehouse, plan_id: str) -> None:
    """Send exactly the rows of a plan that somebody looked at; PlanOutdated where they are not what holds now.

    Who said no at the tools is read before. ConfigurationError where the guard stopped the plan and nobody has
    approved it.
    """
    from include.sync.approvals import what_may_go
    from include.sync.ledger import read_plan
    from include.sync.opt_outs import read_before_push
    from include.sync.push import push_plan
    from include.sync.recheck import check_still_valid

    if what_may_go(warehouse, plan_id) != plan_id:
        raise ConfigurationError(
            f"plan {plan_id} was stopped by the guard and is not approved; nothing was sent. Run the DAG of its "
            f"audience with the parameter plan_id {plan_id}: it asks for an approval"
        )
    check_still_valid(warehouse, plan_id)  # before any call, because most refusals are known without one
    plan = read_plan(warehouse, plan_id)
    if read_before_push(warehouse, str(plan["audience"]), str(plan["destination"])):
        check_still_valid(warehouse, plan_id)
    push_plan(warehouse, plan_id)


def confirm_planned(plan_id: str) -> bool:
    """Ask after what the destination answers later; True when it has answered, or takes longer than a run should wait.

    Then the run ends, so that the audience's next one is not kept waiting, and `confirm_open` asks on.
    """
    from include.sync.push import confirm_plan
    from include.sync.requests import poll

    warehouse = get_warehouse()
    if poll(lambda: confirm_plan(warehouse, plan_id)):
        return True
    sent_at = warehouse.scalar(
        "select max(recorded_at) from sync.requests where plan_id = :plan_id and status = 'pending'", plan_id=plan_id
    )
    if isinstance(sent_at, datetime) and utc_now() - sent_at < LONGEST_CONFIRM:
        return False
    log.info("plan %s: the answers take longer; confirm_requests goes on asking. Pending is not delivered", plan_id)
    return True


def confirm_open(destination: str) -> int:
    """Ask after every request of today's audiences that a destination has not answered; how many it still has not.

    TransientError where one has been open for longer than a platform needs; ledger and lists are as they were.
    """
    from include.sync.ledger import open_requests
    from include.sync.push import confirm_plan

    warehouse = get_warehouse()
    audiences = load_audiences().audiences

    def waiting() -> list[dict[str, Any]]:
        return [row for row in open_requests(warehouse, destination) if row["audience"] in audiences]

    for row in waiting():
        confirm_plan(warehouse, row["plan_id"])
    left = waiting()
    too_old = [row for row in left if utc_now() - row["oldest"] > LONGEST_ANSWER]
    if too_old:
        raise TransientError(
            f"{destination} has not said for more than {LONGEST_ANSWER.total_seconds() / 3600:.0f} hours what became "
            f"of requests for {', '.join(row['audience'] for row in too_old)}; their members stay pending. Look the "
            "ids up at the platform: select * from sync.requests where status = 'pending'"
        )
    return sum(row["open_requests"] for row in left)


def audit_list(audience: str, destination: str) -> None:
    """Compare a list with the ledger, once a day at most."""
    from include.sync.audit import audit_target

    audit_target(get_warehouse(), audience, destination)


def compact_ledger() -> None:
    """Delete what is old and overtaken."""
    from include.sync.compaction import compact

    compact(get_warehouse())
