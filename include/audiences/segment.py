"""From an audience file to its segment table: the SQL, run with the audience's params and stages."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from include.audiences.load import check_columns, load_audiences
from include.warehouse.build import build_segment
from include.warehouse.engine import Warehouse

log = logging.getLogger(__name__)


def build_audience_segment(warehouse: Warehouse, audience_name: str, as_of: datetime, run_id: str) -> int:
    """Build `segments.<audience>` and remember the build in sync.segment_builds; returns how many matched.

    The row in sync.segment_builds is written last, so a build that failed leaves none.
    """
    audience = load_audiences().audience(audience_name)
    table = f"segments.{audience.name}"
    matched = build_segment(warehouse, audience.name, audience.segment, as_of, audience.params, audience.stages)
    check_columns(audience, warehouse.columns(table) or {})
    warehouse.insert(
        "sync.segment_builds",
        [
            {
                "audience": audience.name,
                "run_id": run_id,
                "matched": matched,
                "as_of": as_of,
                "built_at": datetime.now(UTC).replace(tzinfo=None),
            }
        ],
    )
    log.info("audience %s: %s profiles matched", audience.name, matched)
    return matched
