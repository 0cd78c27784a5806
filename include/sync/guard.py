"""What stops a target before anything is planned: a failed quality gate, and a source that has emptied.

Called inside the plan's own transaction: a target that is stopped leaves nothing behind, and its list stays as it is.
"""

from __future__ import annotations

import sqlalchemy

from include.audiences.schema import Audience
from include.errors import QualityGateFailed
from include.warehouse.engine import Warehouse


def check_gate(warehouse: Warehouse, session: sqlalchemy.Connection, audience: str) -> None:
    """The segment as it stands must have passed its quality gate; one that is not built by a run of ours has none."""
    built = warehouse.scalar(
        "select run_id from sync.segment_builds where audience = :audience order by built_at desc, run_id desc limit 1",
        connection=session,
        audience=audience,
    )
    rows = warehouse.read(
        "select is_passed, failures from sync.gate_results "
        "where audience = :audience and (cast(:run_id as text) is null or run_id = :run_id) "
        "order by checked_at desc, is_passed asc limit 1",
        connection=session,
        audience=audience,
        run_id=built,
    )
    if not rows:
        if built is None:
            return
        raise QualityGateFailed(
            f"audience {audience}: its newest build has not been through the quality gate; nothing was planned"
        )
    if not rows[0]["is_passed"]:
        said = "; ".join(str(rows[0]["failures"] or "").splitlines())
        raise QualityGateFailed(f"audience {audience}: the quality gate failed, nothing was planned: {said}")


def check_shrink(audience: Audience, destination: str, *, matched: int, present: int) -> None:
    """Stop where the segment has emptied while the list has members: a broken source looks just like this.

    `matched` is the segment's size, `present` what the destination has acknowledged. The audience's shares
    (`audience.guard`) and a human's approval have their place here.
    """
    if matched == 0 and present > 0 and audience.guard.min_size > 0:
        raise QualityGateFailed(
            f"audience {audience.name} at {destination}: the segment is empty while the list has {present} members; "
            "nothing was planned, the list stays as it is. Look for a source that stopped delivering, then build "
            "again (an audience that may be empty says guard: {min_size: 0})"
        )


def check_nobody_suppressed(audience: Audience, destination: str, suppressed: int) -> None:
    """The last look before a plan is stored: no member has a suppression that always applies."""
    if suppressed:
        raise QualityGateFailed(
            f"audience {audience.name} at {destination}: {suppressed} members have opted out, bounced, complained or "
            "been erased; nothing was planned. This is an error in the project's own SQL (sql/sync/plan/waterfall.sql)"
        )
