"""Plans: exactly what there is to send for one target, worked out in the warehouse and stored before anything is sent.

    segment ▶ waterfall (include/audiences/eligibility.py) ▶ members ▶ compared with the ledger ▶ sync.plan_rows

The ledger is the yardstick: what a destination acknowledged, never what we meant to send or when. Nothing changed
means a plan without rows. One transaction: a plan is there whole or not at all.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from include.audiences.eligibility import FUNCTIONS, STEPS, run_waterfall, segment_columns
from include.audiences.load import load_audiences
from include.audiences.schema import Audience, Guard
from include.audiences.workbench import Function, Query, Workbench
from include.destinations.base import Destination, DestinationSettings, destination_class, read_settings
from include.settings import get_settings
from include.sync.guard import Judgement, Numbers, check_nobody_suppressed, judge_plan, read_gate, store_urgent
from include.sync.lists import name_of_list
from include.sync.payload import listed_kinds, mapped_fields
from include.sync.show import plan_text
from include.warehouse.engine import Warehouse

log = logging.getLogger(__name__)

_PLAN_ROW_COLUMNS = [
    "plan_id",
    "row_number",
    "action",
    "profile_id",
    "member_key",
    "identifiers",
    "fields",
    "payload_hash",
]
_LONG_AGO = datetime(1, 1, 1)
TRIED_AGAIN_AFTER = timedelta(days=1)  # who was refused for what she is at the tool
_EXCLUSION_COLUMNS = ["plan_id", "audience", "destination", "profile_id", "step", "reason", "as_of"]


@dataclass(frozen=True)
class PlanSummary:
    """A plan in numbers.

    `refused` and `held` have no row to send: the destination rejected exactly this payload; a removal waits because
    the list would get too small. `excluded` counts by the step at which people fell out, in the order of the steps.
    A plan whose `verdict` is `ask` waits for a human; what cannot wait is in the plan `urgent_plan_id` and not here.
    """

    plan_id: str
    matched: int
    members: int
    adds: int
    updates: int
    removes: int
    unchanged: int
    refused: int = 0
    refreshes: int = 0
    held: int = 0
    excluded: dict[str, int] = field(default_factory=dict)
    verdict: str = "clear"
    urgent_plan_id: str | None = None

    @property
    def rows(self) -> int:
        """How many members there is something to send of."""
        return self.adds + self.updates + self.refreshes + self.removes


def plan_target(
    warehouse: Warehouse,
    audience_name: str,
    destination: str,
    as_of: datetime,
    run_id: str,
    *,
    dry_run: bool = False,
    guard: Guard | None = None,
) -> PlanSummary:
    """Plan one target as of a time (UTC) and store the plan; QualityGateFailed where the data is not fit for it.

    Planning sends nothing, whatever `dry_run` says: with it, the plan is also logged as a table for a person to read.
    `guard` stands for the audience's own bounds where a human has approved others.
    """
    loaded = load_audiences()
    audience = loaded.audience(audience_name)
    target = audience.target(destination)
    platform = destination_class(destination)
    plan_id = uuid.uuid4().hex
    began = time.monotonic()
    warehouse.ensure_tables()
    with (
        warehouse.session() as session,
        warehouse.limited_memory(session, get_settings().plan_memory_mb),
        Workbench(warehouse, session, plan_id, {"plan_id": plan_id}, FUNCTIONS) as bench,
    ):
        gate_failures = read_gate(warehouse, session, audience.name)
        ledger_sequence = _newest_answer(bench, audience.name, destination)
        columns = segment_columns(bench, audience)
        mapped = target.fields if platform.has_fields else {}
        fields = Function(("mapped_fields", sorted(mapped.items()), columns), lambda _: mapped_fields(mapped, columns))
        run_waterfall(bench, audience, platform, _naive(as_of), loaded.audiences, get_settings().holdout_salt)
        excluded, members, matched = _count_steps(bench)
        check_nobody_suppressed(audience, destination, _count_suppressed(bench))
        options = {name: value for name, value in target.options.items() if name != "connection"}
        bench.params["stale_before"] = _stale_before(platform, read_settings(destination, options), as_of)
        bench.give("target.tried_again", _tried_again(bench, platform, as_of))
        bench.build("differences")
        differences = _Differences.of(bench.rows(_COUNT_DIFFERENCES))
        held = _work_out_changes(bench, platform, differences, members, fields) if differences.to_send else 0
        summary = PlanSummary(
            plan_id=plan_id,
            matched=matched,
            members=members,
            adds=differences.adds,
            updates=differences.updates,
            removes=_count(bench, "select count(*) as people from target.changes where action = 'remove'")
            if differences.removes
            else 0,
            unchanged=members - differences.wanted,
            refused=differences.refused,
            refreshes=differences.refreshes,
            held=held,
            excluded=excluded,
        )
        judgement = judge_plan(bench, audience, destination, _numbers(bench, summary), gate_failures, guard)
        summary = replace(
            summary,
            removes=summary.removes - judgement.urgent,
            verdict=judgement.verdict,
            urgent_plan_id=judgement.urgent_plan_id,
        )
        _store(
            bench,
            summary,
            audience.name,
            destination,
            _list_name(bench, audience, destination, judgement),
            run_id,
            _naive(as_of),
            ledger_sequence,
            judgement,
            json.dumps(target.options, sort_keys=True, default=str),
        )
        shown = plan_text(warehouse, plan_id, connection=session) if dry_run else ""
    if held:
        log.info(
            "%s at %s: %s removals wait: without them the list would have fewer than the %s members that %s wants; "
            "they go when it has, and at once where somebody may not be sent any more",
            audience.name,
            destination,
            held,
            platform.min_audience_size,
            platform.label,
        )
    log.info(
        "planned %s at %s: %s matched, %s members; %s to add, %s to update, %s to refresh, %s to remove, %s unchanged, "
        "%s refused, %s held; left out: %s; plan %s, %.1f s",
        audience.name,
        destination,
        summary.matched,
        summary.members,
        summary.adds,
        summary.updates,
        summary.refreshes,
        summary.removes,
        summary.unchanged,
        summary.refused,
        summary.held,
        ", ".join(f"{step} {count}" for step, count in excluded.items()) or "nobody",
        plan_id,
        time.monotonic() - began,
    )
    if dry_run:
        log.info("nothing is sent by this run; the plan:\n%s", shown)
    return summary


def _work_out_changes(
    bench: Workbench, platform: type[Destination], differences: _Differences, members: int, fields: Function
) -> int:
    """Let later steps read `target.changes`; returns how many removals are held back."""
    bench.build("leavers")
    waiting = _count(bench, "select count(*) as people from target.leavers where can_wait")
    held = differences.to_hold(members, waiting, platform.min_audience_size)
    bench.build("sent_texts", bench.query("sent_texts", {"key_kind": platform.identifiers[0], "held": held}))
    bench.give("target.numbers", _even_numbers(bench))
    identifiers = Function(platform.identifiers, lambda _: listed_kinds(platform.identifiers))
    bench.build("changes", bench.query("changes", functions={"mapped_fields": fields, "listed_kinds": identifiers}))
    return held


def _newest_answer(bench: Workbench, audience: str, destination: str) -> int | None:
    """The newest row of the target's ledger: what comes after it was not known to the plan."""
    newest = bench.warehouse.scalar(
        "select max(sequence) as newest from sync.ledger where audience = :audience and destination = :destination",
        connection=bench.session,
        audience=audience,
        destination=destination,
    )
    return None if newest is None else int(newest)


def _list_name(bench: Workbench, audience: Audience, destination: str, judgement: Judgement) -> str:
    """A list with members keeps its name; one without gets the audience's label of now."""
    known = name_of_list(bench.warehouse, audience.name, destination, connection=bench.session)
    return known if known and judgement.present else audience.label


def _count_steps(bench: Workbench) -> tuple[dict[str, int], int, int]:
    """People by the step at which they fell out, members, and everyone who matched."""
    rows = bench.rows("select step, count(*) as profiles from target.waterfall group by step")
    counts = {row["step"]: int(row["profiles"]) for row in rows}
    return (
        {step: counts[step] for step in STEPS if step in counts},
        counts.get(None, 0),
        sum(counts.values()),
    )


def _numbers(bench: Workbench, summary: PlanSummary) -> Numbers:
    return Numbers(
        matched=summary.matched,
        present=_count(bench, "select count(*) as people from target.state where is_present and not is_leaving"),
        adds=summary.adds,
        removes=summary.removes,
        waiting=summary.rows,
    )


def _count(bench: Workbench, select: str, params: dict[str, Any] | None = None) -> int:
    """The one number `people` of a question."""
    return int(bench.rows(select, params)[0]["people"])


def _count_suppressed(bench: Workbench) -> int:
    """Members with a suppression of this channel that always applies; asked apart from the waterfall on purpose."""
    return _count(
        bench,
        "select count(distinct members.profile_id) as people from target.waterfall as members "
        "inner join core.suppressions as suppressions on members.profile_id = suppressions.profile_id "
        "where members.step is null and suppressions.channel in (:channel, 'all') "
        "and suppressions.reason in (:always_applied)",
    )


_COUNT_DIFFERENCES = """
    select action, is_listed, count(*) as members
    from target.differences
    group by action, is_listed
"""


@dataclass(frozen=True)
class _Differences:
    """How many member keys differ from what the destination holds, by what there is to do."""

    adds: int
    updates: int
    refreshes: int
    refused: int
    refused_and_absent: int
    removes: int

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> _Differences:
        counts = {(str(row["action"]), bool(row["is_listed"])): int(row["members"]) for row in rows}

        def of_action(action: str) -> int:
            return counts.get((action, True), 0) + counts.get((action, False), 0)

        return cls(
            adds=of_action("add"),
            updates=of_action("update"),
            refreshes=of_action("refresh"),
            refused=of_action("refused"),
            refused_and_absent=counts.get(("refused", False), 0),
            removes=of_action("remove"),
        )

    @property
    def wanted(self) -> int:
        """Members who are not simply unchanged."""
        return self.adds + self.updates + self.refreshes + self.refused

    @property
    def to_send(self) -> int:
        """Member keys of which there may be something to send."""
        return self.adds + self.updates + self.refreshes + self.removes

    def to_hold(self, members: int, waiting: int, least: int) -> int:
        """How many of the `waiting` removals must wait, so that a list of `least` or more stays one.

        A list that is under the minimum already loses nothing more by them: then none waits.
        """
        stay = members - self.refused_and_absent
        now = stay - self.adds + self.removes
        return min(waiting, max(least - stay, 0)) if now >= least else 0


def _stale_before(platform: type[Destination], settings: DestinationSettings, as_of: datetime) -> datetime:
    """What was sent before this moment is sent again, because the destination would forget it."""
    after = platform.refresh_after(settings)
    return _naive(as_of) - after if after is not None else _LONG_AGO


def _tried_again(bench: Workbench, platform: type[Destination], as_of: datetime) -> Query:
    """Whom to send although this payload was refused: what the destination refused her for may have passed."""
    if not platform.passing_refusals:
        return bench.written("select cast(null as text) as member_key where 1 = 0")
    bench.params["refused_before"] = _naive(as_of) - TRIED_AGAIN_AFTER
    bench.params["passing_refusals"] = sorted(platform.passing_refusals)
    return bench.query("tried_again")


def _even_numbers(bench: Workbench) -> Query:
    """2, 4, ... up to the most quotation marks that the identifiers of a leaver hold."""
    most = max(_count(bench, "select coalesce(max(marks), 0) as people from target.sent_texts"), 4)
    return bench.written(" union all ".join(f"select {n} as n" for n in range(2, most + 1, 2)))


def _store(
    bench: Workbench,
    summary: PlanSummary,
    audience: str,
    destination: str,
    list_name: str,
    run_id: str,
    as_of: datetime,
    ledger_sequence: int | None,
    judgement: Judgement,
    options: str,
) -> None:
    if summary.rows:
        bench.insert(
            "sync.plan_rows",
            _PLAN_ROW_COLUMNS,
            "select :plan_id as plan_id, row_number() over (order by phase, member_key) as row_number, action, "
            "profile_id, member_key, identifiers, fields, payload_hash from target.changes",
        )
    bench.insert(
        "sync.exclusions",
        _EXCLUSION_COLUMNS,
        "select :plan_id as plan_id, :audience as audience, :destination as destination, profile_id, step, reason, "
        ":as_of as as_of from target.waterfall where step is not null",
    )
    row: dict[str, Any] = {
        "plan_id": summary.plan_id,
        "audience": audience,
        "destination": destination,
        "list_name": list_name,
        "run_id": run_id,
        "matched": summary.matched,
        "members": summary.members,
        "adds": summary.adds,
        "updates": summary.updates,
        "removes": summary.removes,
        "unchanged": summary.unchanged,
        "refused": summary.refused,
        "refreshes": summary.refreshes,
        "held": summary.held,
        "ledger_sequence": ledger_sequence,
        "as_of": as_of,
        "created_at": datetime.now(UTC).replace(tzinfo=None),
        "options": options,
        **judgement.columns,
    }
    store_urgent(bench, judgement, row, _PLAN_ROW_COLUMNS)
    bench.warehouse.insert("sync.plans", [row], connection=bench.session)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
