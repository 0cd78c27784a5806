"""The quality gate of an audience: whether a segment is fit to be planned from.

It stands between the build and the plan. A failure is written down in sentences with counts, and stops the audience:
nothing is planned, every list stays as it is. The plan looks for the result again (include/sync/guard.py).
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

import sqlalchemy

from include.audiences.load import load_audiences
from include.audiences.schema import Audience
from include.errors import ConfigurationError, QualityGateFailed
from include.quality.expectations import Check, failed_checks
from include.warehouse.engine import Warehouse
from include.warehouse.render import literal

log = logging.getLogger(__name__)


def check_segment(warehouse: Warehouse, audience_name: str, as_of: datetime, run_id: str) -> int:
    """Check an audience's segment as built; returns its size. QualityGateFailed says all that is wrong."""
    audience = load_audiences().audience(audience_name)
    moment = as_of.astimezone(UTC).replace(tzinfo=None) if as_of.tzinfo else as_of
    began = time.monotonic()
    warehouse.ensure_tables()
    with warehouse.session() as session:
        if warehouse.columns(f"segments.{audience.name}", connection=session) is None:
            raise ConfigurationError(f"segments.{audience.name} is not built yet; run the DAG build_audiences first")
        matched = int(warehouse.scalar(f"select count(*) from segments.{audience.name}", connection=session))
        failures = _shrunk_to_nothing(warehouse, session, audience, matched)
        failures += failed_checks(
            session, f"select profile_id, entered_at from segments.{audience.name}", _checks(moment)
        )
        warehouse.insert(
            "sync.gate_results",
            [
                {
                    "audience": audience.name,
                    "run_id": run_id,
                    "failures": "\n".join(failures),
                    "matched": matched,
                    "is_passed": not failures,
                    "as_of": moment,
                    "checked_at": datetime.now(UTC).replace(tzinfo=None),
                }
            ],
            connection=session,
        )
    log.info(
        "quality gate of %s: %s rows, %s of its checks failed, %.1f s",
        audience.name,
        matched,
        len(failures),
        time.monotonic() - began,
    )
    if failures:
        raise QualityGateFailed(
            f"audience {audience.name}: the segment is not fit to be sent, every list stays as it is: "
            + "; ".join(failures)
        )
    return matched


def _shrunk_to_nothing(
    warehouse: Warehouse, session: sqlalchemy.Connection, audience: Audience, matched: int
) -> list[str]:
    """A segment that had people at its last good build and has nobody now looks like a source that broke."""
    if matched > 0 or audience.guard.min_size == 0:
        return []
    before = warehouse.scalar(
        "select matched from sync.gate_results where audience = :audience and is_passed "
        "order by checked_at desc limit 1",
        connection=session,
        audience=audience.name,
    )
    if not before:
        return []
    return [
        f"the segment is empty and had {before} rows at its last good build: look for a source that stopped "
        "delivering (an audience that may be empty says guard: {min_size: 0})"
    ]


def _checks(as_of: datetime) -> list[Check]:
    """What must hold for every segment. Queries are in words all engines share; `{batch}` is the segment."""
    now = literal(as_of).sql()
    return [
        Check("ExpectColumnValuesToNotBeNull", "{count} rows have no profile_id", {"column": "profile_id"}),
        Check("ExpectColumnValuesToBeUnique", "{count} rows share their profile_id", {"column": "profile_id"}),
        Check("ExpectColumnValuesToNotBeNull", "{count} rows have no time (entered_at)", {"column": "entered_at"}),
        _unexpected(
            "{count} rows match only after the time of the run (entered_at)",
            f"select profile_id from (select * from {{batch}}) as segment where entered_at > {now}",
        ),
        _unexpected(
            "{count} profiles are not in core.profiles",
            "select segment.profile_id from (select * from {batch}) as segment "
            "left join core.profiles as profiles on segment.profile_id = profiles.profile_id "
            "where segment.profile_id is not null and profiles.profile_id is null",
        ),
        _unexpected(
            "{count} suppressions of people in it name no reason or no channel, so nobody can tell what they close",
            "select segment.profile_id from (select * from {batch}) as segment "
            "inner join core.suppressions as suppressions on segment.profile_id = suppressions.profile_id "
            "where suppressions.reason is null or suppressions.channel is null",
        ),
    ]


def _unexpected(sentence: str, query: str) -> Check:
    return Check("UnexpectedRowsExpectation", sentence, {"unexpected_rows_query": query})
