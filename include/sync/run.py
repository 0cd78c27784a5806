"""The steps of one sync as a scheduler calls them: each opens the warehouse, does one thing, says what it did."""

from __future__ import annotations

import json
import time
from datetime import datetime

from include.errors import ConfigurationError
from include.warehouse.engine import Warehouse, get_warehouse

QUICK_POLLS = (1.0, 2.0, 4.0)  # seconds to wait between the first questions after an asynchronous request


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
    """Read who said no at the tool; returns how many answers are new."""
    from include.sync.opt_outs import read_opt_outs

    return read_opt_outs(get_warehouse(), audience, destination)


def read_all_opt_outs(destination: str) -> int:
    """Read who said no at every list of one tool that an audience uses; returns how many answers are new."""
    from include.audiences.load import load_audiences
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
    as_of = ready_as_of(warehouse, audience)
    return plan_target(warehouse, audience, destination, as_of, run_id, dry_run=dry_run).plan_id


def push_planned(plan_id: str) -> str:
    """Send what a plan holds and has no answer yet; of one that waits for a human only what cannot wait.

    Returns the plan that was sent.
    """
    from include.sync.approvals import what_may_go
    from include.sync.push import push_plan

    warehouse = get_warehouse()
    may_go = what_may_go(warehouse, plan_id)
    if may_go is not None:
        push_plan(warehouse, may_go)
    return may_go or plan_id


def push_reviewed(warehouse: Warehouse, plan_id: str) -> None:
    """Send exactly the rows of a plan that somebody looked at; PlanOutdated where they are not what holds now.

    ConfigurationError where the guard stopped the plan and nobody has approved it.
    """
    from include.sync.approvals import what_may_go
    from include.sync.push import push_plan
    from include.sync.recheck import check_still_valid

    if what_may_go(warehouse, plan_id) != plan_id:
        raise ConfigurationError(
            f"plan {plan_id} was stopped by the guard and is not approved; nothing was sent. Run the DAG of its "
            f"audience with the parameter plan_id {plan_id}: it asks for an approval"
        )
    check_still_valid(warehouse, plan_id)
    push_plan(warehouse, plan_id)


def confirm_planned(plan_id: str) -> bool:
    """Ask after what the destination answers later; True when it has answered everything."""
    from include.sync.push import confirm_plan

    warehouse = get_warehouse()
    for wait in QUICK_POLLS:
        if confirm_plan(warehouse, plan_id):
            return True
        time.sleep(wait)
    return confirm_plan(warehouse, plan_id)


def audit_list(audience: str, destination: str) -> None:
    """Compare a list with the ledger, once a day at most."""
    from include.sync.audit import audit_target

    audit_target(get_warehouse(), audience, destination)
