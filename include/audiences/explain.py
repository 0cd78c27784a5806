"""Why is she in, or out? One person, one audience, step by step, as of now or as of a past plan.

    identifier ▶ profile ▶ segment ▶ the steps of the waterfall ▶ the plan ▶ the answers of each destination

The waterfall that answers is the one that plans (`sql/sync/plan/waterfall.sql`), run for this profile alone. What a
past run decided is read from what it wrote down (`sync.exclusions`, `sync.plan_rows`, the ledger up to then); the
values behind it are those of the warehouse as it is now, and a note says so. Identifiers come out masked, never whole.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy

from include.audiences.durations import format_duration
from include.audiences.eligibility import FUNCTIONS, STEPS, run_waterfall
from include.audiences.load import Loaded, load_audiences
from include.audiences.schema import Audience
from include.audiences.workbench import Workbench
from include.destinations.base import Destination, destination_class
from include.errors import ConfigurationError, RekindleError
from include.identity import normalise_email, to_e164
from include.settings import get_settings
from include.sync.ledger import read_plan
from include.warehouse.engine import Warehouse

KINDS = ("email", "phone", "user_id", "visitor_id", "profile_id")
ANSWERS_SHOWN = 20
_WORDS = {"email": "e-mail address", "phone": "phone number", "user_id": "login", "visitor_id": "browser"}
Verdict = Literal["passed", "stopped here", "not reached"]


def _plain(text: str) -> str | None:
    return text.strip() or None


_READERS: Mapping[str, Callable[[str], str | None]] = {
    "email": normalise_email, "phone": to_e164, "user_id": _plain, "visitor_id": _plain,
}  # fmt: skip


class UnknownPerson(RekindleError):
    """The warehouse holds no profile for the identifier; the text says why, where that is known."""


@dataclass(frozen=True)
class Person:
    """The profile that was found. `merged` are the names it has taken in, `identifiers` (kind, masked value, state)."""

    profile_id: str
    identifiers: tuple[tuple[str, str, str], ...]
    merged: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Every name this profile may have in past plans."""
        return [self.profile_id, *self.merged]


@dataclass(frozen=True)
class Step:
    """One step of the waterfall: what became of her there, and the value that it looked at."""

    name: str
    verdict: Verdict
    says: str


@dataclass(frozen=True)
class Answer:
    """What a destination said to something sent; times are UTC."""

    at: datetime
    action: str
    status: str
    reason: str
    plan_id: str


@dataclass(frozen=True)
class Planned:
    """What one plan did with her. `action`: add, update, refresh, remove, unchanged, refused, left out or no part."""

    plan_id: str
    as_of: datetime
    action: str
    says: str
    is_newest: bool


@dataclass(frozen=True)
class AtDestination:
    """One destination of the audience. `answers` are newest first; `on_list_since` is by acknowledgement."""

    destination: str
    label: str
    steps: tuple[Step, ...]
    planned: Planned | None
    answers: tuple[Answer, ...]
    on_list_since: datetime | None
    notes: tuple[str, ...] = ()

    @property
    def is_member(self) -> bool:
        """Whether every step lets her through."""
        return all(step.verdict == "passed" for step in self.steps)


@dataclass(frozen=True)
class Explanation:
    """The whole answer. `rules` are the audience's own numbers, `segment` her row of the segment (empty: no match)."""

    audience: str
    label: str
    person: Person
    rules: dict[str, str]
    segment: dict[str, str]
    segment_built_for: datetime | None
    destinations: tuple[AtDestination, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def matches(self) -> bool:
        """Whether the segment as it stands has her."""
        return bool(self.segment)


def explain(
    warehouse: Warehouse,
    audience_name: str,
    kind: str,
    value: str,
    *,
    destination: str | None = None,
    as_of: datetime | None = None,
    plan_id: str | None = None,
) -> Explanation:
    """Explain one person (`kind` is one of KINDS) in one audience, at one destination or all of them.

    `plan_id` or `as_of` (UTC) asks about a past run: that plan, or the last one up to that time. UnknownPerson where
    there is no such profile; ConfigurationError where there is no such audience, destination or plan.
    """
    loaded = load_audiences()
    audience = loaded.audience(audience_name)
    chosen = [audience.target(destination).to] if destination else [target.to for target in audience.destinations]
    if plan_id:
        chosen = [_plan_of(warehouse, plan_id, audience.name, destination)]
    with (
        warehouse.session() as session,
        Workbench(warehouse, session, _work_name(), {}, FUNCTIONS, keeps_texts=False) as bench,
    ):
        ask = _Questions(bench, session)
        person = ask.person(kind, value)
        row, built_for = ask.segment_row(audience, person)
        stories = tuple(_at(ask, loaded, audience, person, name, row, built_for, as_of, plan_id) for name in chosen)
    return Explanation(
        audience=audience.name,
        label=audience.label,
        person=person,
        rules=_rules(audience),
        segment=row,
        segment_built_for=built_for,
        destinations=stories,
        notes=() if built_for else ("the segment was never built by a run; build_audiences has to run first",),
    )


class _Questions:
    """The questions to the warehouse, in one session."""

    def __init__(self, bench: Workbench, session: sqlalchemy.Connection) -> None:
        self.bench = bench
        self.session = session
        self.warehouse = bench.warehouse

    def rows(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        return self.bench.rows(sql, params)

    def has(self, table: str, column: str | None = None) -> bool:
        columns = self.warehouse.columns(table, connection=self.session)
        return columns is not None and (column is None or column in columns)

    def person(self, kind: str, value: str) -> Person:
        profile_id = value.strip() if kind == "profile_id" else self._owner(kind, value)
        into, merged = self._merges(profile_id)
        if not self.rows("select profile_id from core.profiles where profile_id = :profile_id", profile_id=into):
            raise UnknownPerson(f"there is no profile {profile_id} in core.profiles (any more)")
        found = self.rows(
            "select identifier_kind, identifier_value, state from core.identifiers where profile_id = :profile_id "
            "order by identifier_kind, identifier_value",
            profile_id=into,
        )
        shown = tuple(
            (str(row["identifier_kind"]), masked(str(row["identifier_value"])), str(row["state"] or "joined"))
            for row in found
        )
        return Person(into, shown, tuple(merged))

    def _owner(self, kind: str, value: str) -> str:
        if kind not in KINDS:
            raise ConfigurationError(f"'{kind}' is no way to name a person; there are {', '.join(KINDS)}")
        normal = _READERS[kind](value)
        if normal is None:
            more = "; write a phone number with its country, as in +421..." if kind == "phone" else ""
            raise UnknownPerson(f"what was given is no {_WORDS[kind]}{more}")
        found = self.rows(
            "select profile_id, state from core.identifiers "
            "where identifier_kind = :kind and identifier_value = :value",
            kind=kind,
            value=normal,
        )
        if found and found[0]["profile_id"]:
            return str(found[0]["profile_id"])
        if found:
            raise UnknownPerson(
                f"this {_WORDS[kind]} is {found[0]['state']}: it was met with too many people or browsers, so it "
                "stands for nobody and nobody is sent anything by it"
            )
        if self.has("core.erased_identifiers") and self.rows(
            "select erased_at from core.erased_identifiers where identifier_kind = :kind and identifier_value = :value",
            kind=kind,
            value=normal,
        ):
            raise UnknownPerson(f"the person with this {_WORDS[kind]} was erased; the warehouse holds nothing of her")
        raise UnknownPerson(
            f"the warehouse knows nobody with this {_WORDS[kind]}: no source has delivered it up to the last build"
        )

    def _merges(self, profile_id: str) -> tuple[str, list[str]]:
        """The profile that has this one's identifiers now, and every name that went into it."""
        if not self.has("core.profile_merges"):
            return profile_id, []
        row = self.rows(
            "select into_profile_id from core.profile_merges where profile_id = :profile_id", profile_id=profile_id
        )
        into = str(row[0]["into_profile_id"]) if row else profile_id
        merged = self.rows(
            "select profile_id from core.profile_merges where into_profile_id = :into order by profile_id", into=into
        )
        return into, [str(one["profile_id"]) for one in merged]

    def segment_row(self, audience: Audience, person: Person) -> tuple[dict[str, str], datetime | None]:
        table = f"segments.{audience.name}"
        if not self.has(table):
            raise ConfigurationError(f"{table} is not built yet; run the DAG build_audiences first")
        rows = self.rows(f"select * from {table} where profile_id = :profile_id", profile_id=person.profile_id)
        built = self.rows(
            "select as_of from sync.segment_builds where audience = :audience order by built_at desc limit 1",
            audience=audience.name,
        )
        values = rows[0] if rows else {}
        row = {name: _said(value) for name, value in values.items() if name != "profile_id" and value is not None}
        return row, built[0]["as_of"] if built else None

    def plans(self, audience: str, destination: str) -> list[dict[str, Any]]:
        """The plans of a target, newest first."""
        return self.rows(
            "select plan_id, as_of, created_at from sync.plans "
            "where audience = :audience and destination = :destination "
            "order by created_at desc nulls last, as_of desc, plan_id desc",
            audience=audience,
            destination=destination,
        )

    def consent(self, person: Person, channel: str) -> str:
        detailed = self.has("core.consents", "changed_at")
        more = "source, reason, changed_at" if detailed else "null as source, null as reason, null as changed_at"
        rows = self.rows(
            f"select status, {more} from core.consents where profile_id = :profile_id and channel = :channel",
            profile_id=person.profile_id,
            channel=channel,
        )
        if not rows:
            return f"nobody ever asked her about {channel}: unknown"
        return "; ".join(
            f"{channel}: {row['status']}{_from(row['source'], row['changed_at'], row['reason'])}" for row in rows
        )

    def suppression(
        self, person: Person, channel: str, reasons: Sequence[str], told: Sequence[Mapping[str, Any]]
    ) -> str:
        detailed = self.has("core.suppressions", "since_at")
        more = "source, since_at" if detailed else "null as source, null as since_at"
        found = [
            f"{row['reason']} ({row['channel'] or 'all'}){_from(row['source'], row['since_at'])}"
            + ("" if row["reason"] in reasons and row["channel"] in (channel, "all", None) else ", not in force here")
            for row in self.rows(
                f"select channel, reason, {more} from core.suppressions where profile_id = :profile_id "
                "order by reason, channel",
                profile_id=person.profile_id,
            )
        ]
        found += [
            f"{row['reason']} ({row['channel']}) told by {row['destination']}"
            f"{', list ' + row['list_name'] if row['list_name'] else ''}"
            f"{_from(None, row['occurred_at'])}{'' if row['is_active'] else ', taken back there'}"
            for row in told
        ]
        return "; ".join(found) or "nothing against her"


def _at(
    ask: _Questions,
    loaded: Loaded,
    audience: Audience,
    person: Person,
    destination: str,
    row: Mapping[str, str],
    built_for: datetime | None,
    as_of: datetime | None,
    plan_id: str | None,
) -> AtDestination:
    platform = destination_class(destination)
    plans = ask.plans(audience.name, destination)
    plan = next(
        (
            found
            for found in plans
            if (plan_id is None or found["plan_id"] == plan_id) and (as_of is None or found["as_of"] <= as_of)
        ),
        None,
    )
    newest = plan is not None and plan["plan_id"] == plans[0]["plan_id"]
    now = max([moment for moment in (built_for, plans[0]["as_of"] if plans else None) if moment], default=_utc_now())
    steps = _steps(ask, loaded, audience, platform, person, row, now)
    until = plans[plans.index(plan) - 1]["created_at"] if plan is not None and not newest else None
    answers = _answers(ask, audience, platform, person, until)
    planned = _planned(ask, audience, person, plan, answers, is_newest=newest) if plan else None
    notes = []
    if plan is None:
        asked = f" up to {as_of:%Y-%m-%d %H:%M}" if as_of else ""
        notes.append(f"there is no plan for this destination yet{asked}")
    elif not newest:
        notes.append(
            f"what plan {plan['plan_id']} decided is read from its records; the values of the steps are those of now, "
            f"as of {now:%Y-%m-%d %H:%M}"
        )
    return AtDestination(
        destination=destination,
        label=platform.label,
        steps=steps,
        planned=planned,
        answers=tuple(answers[:ANSWERS_SHOWN]),
        on_list_since=_since(answers),
        notes=tuple(notes),
    )


def _steps(
    ask: _Questions,
    loaded: Loaded,
    audience: Audience,
    platform: type[Destination],
    person: Person,
    row: Mapping[str, str],
    as_of: datetime,
) -> tuple[Step, ...]:
    """Each step with the value it looks at; where she falls out is what the waterfall itself says."""
    with Workbench(ask.warehouse, ask.session, _work_name(), {}, FUNCTIONS, keeps_texts=False) as bench:
        run_waterfall(
            bench, audience, platform, as_of, loaded.audiences, get_settings().holdout_salt, only=person.profile_id
        )
        (decided,) = bench.rows("select step, reason from target.waterfall")
        kinds = bench.rows("select kind, count(*) as found from target.identifiers group by kind order by kind")
        touches = bench.rows("select touches from target.touches")
        rivals = bench.rows(
            "select audience, priority from target.rivals where profile_id = :who", {"who": person.profile_id}
        )
        (arm,) = bench.rows(
            "select substring(md5(:holdout_salt || :who), 1, 8) < :holdout_below as is_held_out",
            {"who": person.profile_id},
        )
        told = bench.rows(
            "select distinct destination, list_name, channel, reason, is_active, occurred_at from target.told "
            "where profile_id = :who order by destination, list_name, channel, occurred_at",
            {"who": person.profile_id},
        )
        reasons = [*bench.params["always_applied"], *bench.params["named_reasons"]]
        bought = bench.params["purchased_since"]
    policy = audience.channels[platform.channel]
    cap = audience.frequency_cap
    kept = ", ".join(f"{one['audience']} (priority {one['priority']})" for one in rivals)
    says = {
        "bot_or_staff": "looked at in core.profiles",
        "reachable": ", ".join(f"{one['kind']}: {one['found']}" for one in kinds)
        or f"no identifier that {platform.label} takes",
        "consent": f"{ask.consent(person, policy.consent)} (unknown counts as {policy.unknown})"
        + (f"; the segment allows {row['allowed_channels']} only" if row.get("allowed_channels") else ""),
        "suppression": ask.suppression(person, platform.channel, reasons, told)
        + (f"; bought since {bought:%Y-%m-%d} counts too" if audience.suppress.get("recent_purchasers") else ""),
        "frequency_cap": f"{_touches(touches)} of {cap.touches} touches in {format_duration(cap.per)}"
        if cap
        else "the audience sets none",
        "priority": (f"also in {kept}" if kept else "no rival has her")
        if audience.exclusive
        else "the audience competes with none",
        "holdout": f"{'held out' if arm['is_held_out'] else 'not held out'} ({audience.holdout:.0%} of people are)",
        "same_address": "seen by a whole plan only",
    }
    verdict: Verdict = "passed"
    steps = [
        Step("segment", "passed" if row else "stopped here", "matches" if row else "the segment does not have her")
    ]
    if not row:
        verdict = "not reached"
    for name in STEPS:
        if verdict == "passed" and name == decided["step"]:
            steps.append(Step(name, "stopped here", f"{decided['reason']}: {says.get(name, '')}"))
            verdict = "not reached"
        else:
            steps.append(Step(name, verdict, says.get(name, "")))
    return tuple(steps)


def _touches(rows: Sequence[Mapping[str, Any]]) -> int:
    return int(rows[0]["touches"]) if rows else 0


def _answers(
    ask: _Questions, audience: Audience, platform: type[Destination], person: Person, until: datetime | None
) -> list[Answer]:
    """What the destination said to all that was sent of her, newest first."""
    rows = ask.rows(
        "select acknowledged_at, action, status, reason, plan_id from sync.sends "
        "where audience = :audience and destination = :destination and profile_id in (:names) "
        "and acknowledged_at < :until order by sent_order desc",
        audience=audience.name,
        destination=platform.name,
        names=person.names,
        until=until or datetime(9999, 1, 1),
    )
    return [
        Answer(one["acknowledged_at"], str(one["action"]), str(one["status"]), one["reason"] or "", str(one["plan_id"]))
        for one in rows
    ]


def _planned(
    ask: _Questions,
    audience: Audience,
    person: Person,
    plan: Mapping[str, Any],
    answers: Sequence[Answer],
    *,
    is_newest: bool,
) -> Planned:
    actions = ask.rows(
        "select action from sync.plan_rows where plan_id = :plan_id and profile_id in (:names) order by row_number",
        plan_id=plan["plan_id"],
        names=person.names,
    )
    left_out = ask.rows(
        "select step, reason from sync.exclusions where plan_id = :plan_id and profile_id in (:names)",
        plan_id=plan["plan_id"],
        names=person.names,
    )
    why = "; ".join(f"fell out at {row['step']}: {row['reason']}" for row in left_out)
    before = [answer for answer in answers if answer.plan_id != plan["plan_id"]]
    if actions:
        action = " and ".join(dict.fromkeys(str(row["action"]) for row in actions))
        said = why or {"remove": "the segment did not have her any more"}.get(action, "she was a member")
    elif left_out:
        action, said = "left out", why
    elif _since(before):
        action, said = "unchanged", "she was on the list, and nothing that is sent of her had changed"
    elif before and before[0].status == "rejected":
        action, said = "refused", "the destination had refused her, and her row had not changed since"
    else:
        action, said = "no part", "the segment did not have her"
    return Planned(str(plan["plan_id"]), plan["as_of"], action, said, is_newest)


def _since(answers: Iterable[Answer]) -> datetime | None:
    """Since when she is on the list by acknowledgement; None where she is not. `answers` are newest first."""
    since = None
    for answer in answers:
        if answer.action == "remove" and answer.status == "accepted":
            break
        if answer.action != "remove" and answer.status in ("accepted", "pending", "unattributed"):
            since = answer.at
    return since


def _plan_of(warehouse: Warehouse, plan_id: str, audience: str, destination: str | None) -> str:
    plan = read_plan(warehouse, plan_id)
    if plan["audience"] != audience or destination not in (None, plan["destination"]):
        raise ConfigurationError(f"plan {plan_id} is of {plan['audience']} at {plan['destination']}")
    return str(plan["destination"])


def _rules(audience: Audience) -> dict[str, str]:
    """The audience's own numbers, as its file says them."""
    found = {name: _said(value) for name, value in audience.params.items()}
    found |= {f"stage {name}": f"from {format_duration(start)} on" for name, start in audience.stages.items()}
    if audience.frequency_cap:
        found["frequency_cap"] = f"{audience.frequency_cap.touches} per {format_duration(audience.frequency_cap.per)}"
    if audience.exclusive:
        found["exclusive"] = f"{audience.exclusive}, priority {audience.priority}"
    found["holdout"] = f"{audience.holdout:.0%}"
    return found


def masked(text: str) -> str:
    """An address or number that a colleague would recognise and nobody could write to; ids stay as they are."""
    name, at, domain = text.rpartition("@")
    if at:
        return f"{name[:1]}***@{domain}"
    digits = sum(letter.isdigit() for letter in text)
    return f"{text[:4]}***{text[-2:]}" if text.startswith("+") and digits >= 7 else text


def _said(value: object) -> str:
    """A value as an operator may see it."""
    if value is None:
        return "unknown"
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(masked(word) for word in str(value).split(" "))


def _from(source: object, moment: object, reason: object = None) -> str:
    parts = [_said(source)] if source else []
    if isinstance(moment, datetime):
        parts.append(f"{moment:%Y-%m-%d %H:%M}")
    if reason:
        parts.append(_said(reason))
    return f" by {', '.join(parts)}" if source else f" since {parts[0]}" if parts else ""


def _work_name() -> str:
    return f"explain_{uuid.uuid4().hex}"


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
