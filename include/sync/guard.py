"""The guard: whether a plan may be sent as it is, or waits for a human, and why.

    plan worked out ▶ judge ▶ `clear`: it is pushed
                            ▶ `ask`: it waits in sync.plans for an answer (include/sync/approvals.py); removals of
                              people who said no go out at once, as a plan of their own (docs/decisions/0008)

Called inside the plan's own transaction, before anything is stored. What was let through once is not asked about again:
the yardstick is the last plan of the target that was, and its rows that could not be delivered yet do not count.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy

from include.audiences.schema import Audience, Guard
from include.errors import QualityGateFailed
from include.sync.lists import FORGET
from include.warehouse.engine import Warehouse

if TYPE_CHECKING:
    from include.audiences.workbench import Workbench

log = logging.getLogger(__name__)

# The newest plan of a target that was let through: approved, or clear and begun (or with nothing to send).
_LET_THROUGH = """
    select plan_id, matched, members
    from sync.plans
    where
        audience = :audience
        and destination = :destination
        and urgent_of is null
        and (
            plan_id in (
                select plan_id
                from sync.approvals
                where audience = :audience and destination = :destination and decision = 'approved'
            )
            or (
                coalesce(verdict, 'clear') = 'clear'
                and (
                    adds + updates + removes + coalesce(refreshes, 0) = 0
                    or plan_id in (
                        select plan_id from sync.ledger where audience = :audience and destination = :destination
                    )
                )
            )
        )
    order by created_at desc, plan_id desc
    limit 1
"""

_NEW_ROWS = """
    select changes.action, count(*) as people
    from target.changes as changes
    left join target.urgent as urgent
        on changes.member_key = urgent.member_key and changes.action = 'remove'
    left join sync.plan_rows as known
        on
            changes.member_key = known.member_key
            and changes.action = known.action
            and known.plan_id = :let_through
    left join (
        select distinct
            member_key,
            action
        from sync.ledger
        where
            audience = :audience
            and destination = :destination
            and plan_id = :let_through
            and status = 'accepted'
    ) as delivered
        on known.member_key = delivered.member_key and known.action = delivered.action
    left join target.tried_again as tried_again
        on changes.member_key = tried_again.member_key and changes.action = 'add'
    where
        changes.action in ('add', 'remove')
        and urgent.member_key is null
        and tried_again.member_key is null
        and (known.member_key is null or delivered.member_key is not null)
    group by changes.action
"""

_REMOVALS = "select member_key, profile_id from target.changes where action = 'remove'"

_LAST_REMOVAL = """
    select plan_id
    from sync.ledger
    where audience = :audience and destination = :destination and action = 'remove' and status = 'accepted'
    order by sequence desc
    limit 1
"""

_WAITING = """
    select changes.*
    from target.changes as changes
    left join target.urgent as urgent
        on changes.member_key = urgent.member_key and changes.action = 'remove'
    where urgent.member_key is null
"""

_URGENT_ROWS = """
    select
        :urgent_plan_id as plan_id,
        row_number() over (order by urgent.member_key) as row_number,
        changes.action,
        changes.profile_id,
        changes.member_key,
        changes.identifiers,
        changes.fields,
        changes.payload_hash
    from target.all_changes as changes
    inner join target.urgent as urgent
        on changes.member_key = urgent.member_key
    where changes.action = 'remove'
"""


@dataclass(frozen=True)
class Numbers:
    """A plan in the numbers that are judged; people, not requests."""

    matched: int  # in the segment
    present: int  # on the list, by its own acknowledgements
    adds: int  # not counting what was let through before and is not delivered yet
    removes: int  # ... and not counting removals that cannot wait
    waiting: int  # rows that would wait if the answer is `ask`
    matched_before: int | None = None  # in the segment at the last plan that was let through; None: there was none
    members_before: int = 0  # who should be on a list that was emptied, by that plan; 0 where it was never filled


@dataclass(frozen=True)
class Reason:
    """One thing that is suspicious: `people` of `of`, in a sentence."""

    kind: Literal["quality_gate", "empty", "small", "shrunk", "adds", "removes"]
    people: int
    of: int
    text: str


@dataclass(frozen=True)
class Judgement:
    """What is to become of a plan. `urgent` are the member keys' count that goes out under `urgent_plan_id` anyway."""

    verdict: Literal["clear", "ask"] = "clear"
    reasons: tuple[Reason, ...] = ()
    present: int = 0
    urgent: int = 0
    urgent_plan_id: str | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """Its columns in `sync.plans`."""
        return {
            "verdict": self.verdict,
            "reasons": json.dumps([asdict(reason) for reason in self.reasons]),
            "present": self.present,
        }


def read_reasons(text: str | None) -> list[Reason]:
    """The reasons of a stored plan."""
    return [Reason(**reason) for reason in json.loads(text or "[]")]


def judge(numbers: Numbers, guard: Guard, gate_failures: Iterable[str] = ()) -> tuple[Reason, ...]:
    """Why a plan must wait for a human; empty where it may go.

    Shares are of the list as it is. A list nobody was ever on has none: its first load is not a flood. One that was
    emptied is compared with the members it should have. A change of at most `guard.small_change` people is no flood
    either, except that a segment with nobody in it always asks.
    """
    if numbers.waiting == 0:
        return ()
    failures = list(gate_failures)
    found = [_reason("quality_gate", len(failures), len(failures), f"the quality gate failed: {'; '.join(failures)}")]
    found = found if failures else []
    base, words_for_base = numbers.present, "on the list"
    if base == 0:
        base, words_for_base = numbers.members_before, "who should be on the list, which somebody has emptied"
    if base == 0:
        return tuple(found)
    found += _too_small(numbers, guard)
    for kind, people, bound, words in (
        ("adds", numbers.adds, guard.max_add, "would come in"),
        ("removes", numbers.removes, guard.max_remove, "would be removed"),
    ):
        if people > guard.small_change and people > bound * base:
            text = (
                f"{people:,} people {words}, {people / base:.0%} of the {base:,} {words_for_base} "
                f"(max_{kind[:-1]} is {bound:.0%})"
            )
            found.append(_reason(kind, people, base, text))
    return tuple(found)


def _too_small(numbers: Numbers, guard: Guard) -> list[Reason]:
    matched, before = numbers.matched, numbers.matched_before
    if matched < guard.min_size and (before is None or before >= guard.min_size):
        if matched == 0:
            text = f"the segment is empty while the list has {numbers.present:,} members"
            return [_reason("empty", numbers.present, numbers.present, text)]
        text = f"the segment has {matched:,} people, less than min_size {guard.min_size:,}"
        return [_reason("small", matched, guard.min_size, text)]
    lost = (before or 0) - matched
    if before and lost > guard.small_change and lost > guard.max_shrink * before:
        text = (
            f"the segment shrank from {before:,} to {matched:,} people since the last plan that was sent, by "
            f"{lost / before:.0%} (max_shrink is {guard.max_shrink:.0%})"
        )
        return [_reason("shrunk", lost, before, text)]
    return []


def _reason(kind: Any, people: int, of: int, text: str) -> Reason:
    return Reason(kind, people, of, text)


def is_same(reasons: Sequence[Reason], before: Sequence[Reason], small_change: int) -> bool:
    """Whether a human would be asked the same thing again: equal reasons, each of about the same size (10 %)."""
    old = {reason.kind: reason for reason in before}
    return {reason.kind for reason in reasons} == old.keys() and all(
        abs(reason.people - old[reason.kind].people) <= max(0.1 * old[reason.kind].people, small_change)
        and (reason.kind != "quality_gate" or _words(reason.text) == _words(old[reason.kind].text))
        for reason in reasons
    )


def _words(text: str) -> str:
    """A sentence without its numbers."""
    return re.sub(r"\d+", "", text)


def judge_plan(
    bench: Workbench,
    audience: Audience,
    destination: str,
    numbers: Numbers,
    gate_failures: Sequence[str],
    guard: Guard | None = None,
) -> Judgement:
    """Judge the plan on a workbench, whose `target.changes` are all that there is to send.

    `numbers` count everything; where they are suspicious, what was let through before and what cannot wait are taken
    out of them. Where the answer is `ask`, `target.changes` is left without the removals that cannot wait. `guard`
    stands for the audience's own where a human has approved other bounds.
    """
    guard = guard or audience.guard
    if numbers.waiting == 0:
        return Judgement(present=numbers.present)
    rows = bench.rows(_LET_THROUGH)
    if rows:
        numbers = replace(numbers, matched_before=int(rows[0]["matched"] or 0))
        if numbers.present == 0 and _was_emptied(bench):
            numbers = replace(numbers, members_before=int(rows[0]["members"] or 0))
    present = numbers.present
    if not judge(numbers, guard, gate_failures):
        return Judgement(present=present)
    bench.give("target.asked", bench.written(_REMOVALS))
    bench.build("urgent", bench.query("saying_no"))
    urgent = int(bench.rows("select count(*) as people from target.urgent")[0]["people"])
    bench.params["let_through"] = str(rows[0]["plan_id"]) if rows else ""
    counted = {str(row["action"]): int(row["people"]) for row in bench.rows(_NEW_ROWS)}
    numbers = replace(
        numbers,
        adds=counted.get("add", 0),
        removes=counted.get("remove", 0),
        waiting=numbers.waiting - urgent,
    )
    reasons = judge(numbers, guard, gate_failures)
    if not reasons:
        return Judgement(present=present)
    if urgent:
        bench.give("target.all_changes", bench.written("select * from target.changes"))
        bench.give("target.changes", bench.written(_WAITING))
    log.warning(
        "%s at %s: this plan waits for a human: %s. %s",
        audience.name,
        destination,
        "; ".join(reason.text for reason in reasons),
        f"{urgent} removals that cannot wait (opt-outs, denied consent, erasures) are not held up"
        if urgent
        else "nothing is sent",
    )
    return Judgement("ask", reasons, present, urgent, uuid.uuid4().hex if urgent else None)


def _was_emptied(bench: Workbench) -> bool:
    """Whether people were on the list before, and it was not forgotten so that everybody comes in anew."""
    rows = bench.rows(_LAST_REMOVAL)
    return bool(rows) and not str(rows[0]["plan_id"]).startswith(FORGET)


def store_urgent(bench: Workbench, judgement: Judgement, plan: Mapping[str, Any], columns: list[str]) -> None:
    """Store the removals that cannot wait as a plan of their own; `plan` is the row of the one that waits."""
    if judgement.urgent_plan_id is None:
        return
    bench.params["urgent_plan_id"] = judgement.urgent_plan_id
    bench.insert("sync.plan_rows", columns, _URGENT_ROWS)
    row = {
        **plan,
        "plan_id": judgement.urgent_plan_id,
        "urgent_of": plan["plan_id"],
        "adds": 0,
        "updates": 0,
        "removes": judgement.urgent,
        "verdict": "clear",
        "reasons": "[]",
        "created_at": plan["created_at"] - timedelta(microseconds=1),  # the target's newest plan is the whole one
    }
    bench.warehouse.insert("sync.plans", [row], connection=bench.session)


def read_gate(warehouse: Warehouse, session: sqlalchemy.Connection, audience: str) -> list[str]:
    """What the quality gate of the segment as it stands said; a segment that no run of ours built has none.

    QualityGateFailed where the gate has not run, and where it found rows that nothing can be planned from.
    """
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
            return []
        raise QualityGateFailed(
            f"audience {audience}: its newest build has not been through the quality gate; nothing was planned"
        )
    if rows[0]["is_passed"]:
        return []
    failures = str(rows[0]["failures"] or "").splitlines()
    counts = warehouse.read(
        f"select count(*) as everyone, count(distinct profile_id) as profiles from segments.{audience}",
        connection=session,
    )[0]
    if counts["everyone"] != counts["profiles"]:
        raise QualityGateFailed(
            f"audience {audience}: the quality gate failed, nothing was planned: {'; '.join(failures)}"
        )
    return failures


def check_nobody_suppressed(audience: Audience, destination: str, suppressed: int) -> None:
    """The last look before a plan is stored: no member has a suppression that always applies."""
    if suppressed:
        raise QualityGateFailed(
            f"audience {audience.name} at {destination}: {suppressed} members have opted out, bounced, complained or "
            "been erased; nothing was planned. This is an error in the project's own SQL (sql/sync/plan/waterfall.sql)"
        )
