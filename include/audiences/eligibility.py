"""From segment to members: the waterfall of one target, run in the warehouse.

The steps and their order are in `sql/sync/plan/waterfall.sql`; here an audience's policy becomes the values it reads.
Everyone in the segment falls out at exactly one step or is a member.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlglot
from sqlglot import exp

from include.audiences.durations import format_duration
from include.audiences.schema import RECENT_PURCHASERS, Audience
from include.audiences.workbench import Function, Query, Workbench, query_from
from include.destinations.base import Destination, destination_class
from include.errors import ConfigurationError
from include.identity.sql import DESTINATION_KINDS, DestinationKind
from include.sync.payload import json_escaped, listed_kinds, mapped_values

ALWAYS_APPLIED = ("opted_out", "bounced", "complained", "erased")  # an audience file can add reasons, never take these
STEPS = (
    "bot_or_staff",
    "reachable",
    "consent",
    "suppression",
    "frequency_cap",
    "priority",
    "holdout",
    "same_address",
)
_NEVER = datetime(9999, 1, 1)
_ALONE = """
    select found.profile_id, found.kind, found.identifier, found.preference
    from target.found as found
    left join target.crowded as crowded
        on found.profile_id = crowded.profile_id and found.preference = crowded.preference
    where crowded.profile_id is null
"""
_IDENTIFIERS = """
    select profile_id, kind, identifier, preference, 1 as choice
    from target.alone
    union all
    select profile_id, kind, identifier, preference, choice
    from target.several
"""
_ADDRESSES = """
    select profile_id, identifier as member_key, identifier as identifiers
    from target.identifiers
    where choice = 1
"""
_WATERFALL = """
    select
        judged.profile_id,
        judged.member_key,
        judged.payload_hash,
        case when copies.member_key is not null then 'same_address' else judged.step end as step,
        case when copies.member_key is not null then 'same address as another profile' else judged.reason end as reason
    from target.judged as judged
    left join target.copies as copies
        on
            judged.member_key = copies.member_key
            and judged.profile_id <> copies.profile_id
            and judged.step is null
"""
_NO_OF_ALL = """
    select profile_id, member_key, reason
    from target.said_no
    union all
    select cast(null as text) as profile_id, identifier as member_key, reason
    from target.said_no_alike
"""
FUNCTIONS = {"json_escaped": Function("json_escaped", json_escaped)}  # of every workbench of a target
_WORDS = {"email": "e-mail address", "phone": "phone number", "visitor_id": "browser"}


def run_waterfall(
    bench: Workbench,
    audience: Audience,
    platform: type[Destination],
    as_of: datetime,
    others: Mapping[str, Audience],
    holdout_salt: str,
    *,
    only: str | None = None,
) -> None:
    """Let later steps read what is behind a target's members, and at the end `target.waterfall` itself.

    Of the working tables only what differs from the usual is wide: people with one identifier, no suppression and no
    rival are one narrow row. With `only`, for one profile alone, whether the segment has it or not (explain.py).
    """
    bench.params |= policy_params(audience, platform, as_of, holdout_salt)
    segment = _segment(bench, audience, platform)
    bench.give("target.segment", segment if only is None else _one_profile(segment, only))
    fields = audience.target(platform.name).fields if platform.has_fields and only is None else {}
    columns = segment_columns(bench, audience)
    values = Function(("mapped_values", sorted(fields.items()), columns), lambda _: mapped_values(fields, columns))
    bench.build("state")
    _build_addresses(bench, platform)
    know_who_said_no(bench, platform, "select member_key, profile_id from target.state")
    if _is_sent_as_it_is(platform):
        bench.give("target.alike", _nobody())
    else:
        bench.build("alike")
    bench.build("suppressed")
    if audience.frequency_cap is None:
        bench.give("target.touches", _nobody("touches", "bigint"))
    else:
        bench.build("touches", bench.query("touches", {"ad_destinations": _ad_destinations(bench)}))
    bench.give("target.rivals", _rivals(bench, audience, others))
    bench.build("judged", bench.query("waterfall", functions={"mapped_values": values}))
    if _is_sent_as_it_is(platform) and len(platform.identifiers) == 1:  # core.identifiers has each once
        bench.give("target.waterfall", bench.written("select * from target.judged"))
    else:
        bench.build("copies")
        bench.give("target.waterfall", bench.written(_WATERFALL))


def know_who_said_no(bench: Workbench, platform: type[Destination], sent_keys: str) -> None:
    """Let later steps read `target.said_no`; `sent_keys` asks for who was sent to the list (profile_id, member_key)."""
    bench.give("target.sent_keys", bench.written(sent_keys))
    bench.give("target.told", bench.query("told"))
    if _is_sent_as_it_is(platform):
        bench.give("target.said_no", bench.query("said_no"))
        return
    bench.build("said_no")
    bench.build("said_no_alike", _each_kind(bench, platform, "said_no_alike"))
    bench.give("target.said_no", bench.written(_NO_OF_ALL))


def _is_sent_as_it_is(platform: type[Destination]) -> bool:
    """Whether two identifiers of ours can never be one as they are sent."""
    return all(_kind(name).is_as_it_is for name in platform.identifiers)


def policy_params(
    audience: Audience, platform: type[Destination], as_of: datetime, holdout_salt: str
) -> dict[str, Any]:
    """An audience's policy for one channel as the values that the SQL reads."""
    policy = audience.channels.get(platform.channel)
    if policy is None:
        raise ConfigurationError(
            f"audience {audience.name} goes to {platform.label}, but its channels do not name '{platform.channel}'; "
            f"add {platform.channel}: {{consent: {platform.channel}}} under channels"
        )
    bought = audience.suppress.get(RECENT_PURCHASERS)
    cap = audience.frequency_cap
    kinds = list(dict.fromkeys(_WORDS[_kind(name).source_kind] for name in platform.identifiers))
    return {
        "audience": audience.name,
        "destination": platform.name,
        "as_of": as_of,
        "channel": platform.channel,
        "consent_channel": policy.consent,
        "is_unknown_allowed": policy.unknown == "allow",
        "always_applied": list(ALWAYS_APPLIED),
        "named_reasons": sorted({*audience.suppress} - {RECENT_PURCHASERS, *ALWAYS_APPLIED}),
        "purchased_since": as_of - bought if bought else _NEVER,
        "capped_since": as_of - cap.per if cap else _NEVER,
        "most_touches": cap.touches if cap else 0,
        "capped_reason": f"{cap.touches} touches in {format_duration(cap.per)}" if cap else "",
        "unreachable_reason": f"no {' or '.join(kinds)} of her own",
        "holdout_salt": f"{holdout_salt}:{audience.name}:",
        "holdout_below": _threshold(audience.holdout),
        "has_holdout": audience.holdout > 0,
    }


def _threshold(share: float) -> str:
    """The first eight hex digits below which a hash is in the share; 'g' comes after every hex digit."""
    return "g" if share >= 1 else f"{int(share * 2**32):08x}"


def _kind(name: str) -> DestinationKind:
    found = DESTINATION_KINDS.get(name)
    if found is None:
        raise ConfigurationError(f"include/identity/sql.py does not know how to make the identifier '{name}'")
    return found


def _segment(bench: Workbench, audience: Audience, platform: type[Destination]) -> Query:
    """The segment with the columns this target needs; `allowed_channels` is null where the segment has none."""
    columns = segment_columns(bench, audience)
    mapped = set(audience.target(platform.name).fields.values())
    return query_from(
        ("segment", audience.name, sorted(columns), sorted(mapped)),
        lambda: _select_segment(audience.name, columns, mapped),
    )


def _select_segment(name: str, columns: Mapping[str, str], mapped: set[str]) -> exp.Select:
    selected: list[exp.Expr] = [exp.column("profile_id")]
    if "allowed_channels" in columns:
        selected.append(exp.column("allowed_channels"))
    else:
        selected.append(exp.alias_(exp.cast(exp.null(), "text"), "allowed_channels"))
    taken = {"profile_id", "allowed_channels"}
    selected += [exp.column(name) for name in columns if name in mapped - taken]
    return exp.select(*selected).from_(exp.to_table(f"segments.{name}"))


def _one_profile(segment: Query, profile_id: str) -> Query:
    """The segment's row of a profile, or an empty one under its name."""

    def make() -> exp.Expr:
        asked = exp.select(exp.alias_(exp.Literal.string(profile_id), "profile_id"))
        matching = exp.Subquery(this=segment.make(), alias=exp.TableAlias(this=exp.to_identifier("matching")))
        return (
            exp.select("asked.profile_id", "matching.allowed_channels")
            .from_(asked.subquery("asked"))
            .join(matching, on="asked.profile_id = matching.profile_id", join_type="left")
        )

    return query_from(("one profile", segment.key, profile_id), make)


def segment_columns(bench: Workbench, audience: Audience) -> dict[str, str]:
    """The columns of a built segment; ConfigurationError where it was never built."""
    columns = bench.warehouse.columns(f"segments.{audience.name}", connection=bench.session)
    if columns is None:
        raise ConfigurationError(f"segments.{audience.name} is not built yet; run the DAG build_audiences first")
    return columns


def _build_addresses(bench: Workbench, platform: type[Destination]) -> None:
    """The identifiers of the segment's profiles in this destination's kinds, and the one that stands for each."""
    bench.build("found", _each_kind(bench, platform, "found"))
    bench.build("crowded")
    bench.give("target.alone", bench.written(_ALONE))
    bench.build("several", _each_kind(bench, platform, "identifiers"))
    bench.give("target.identifiers", bench.written(_IDENTIFIERS))
    if _is_single(platform) and len(platform.identifiers) == 1:
        bench.give("target.addresses", bench.written(_ADDRESSES))
    else:
        kinds = Function(platform.identifiers, lambda _: listed_kinds(platform.identifiers))
        bench.build("addresses", bench.query("addresses", functions={"listed_kinds": kinds}))


def _is_single(platform: type[Destination]) -> bool:
    """An e-mail tool gets one address of a person."""
    return platform.channel == "email"


def _each_kind(bench: Workbench, platform: type[Destination], step: str) -> Query:
    """A step once for each kind of identifier the destination accepts, the most preferred first."""
    queries = []
    for preference, name in enumerate(platform.identifiers):
        kind = _kind(name)

        def as_sent(arguments: list[exp.Expr], kind: DestinationKind = kind) -> exp.Expr:
            return kind.expression(arguments[0])

        params = {
            "kind": name,
            "source_kind": kind.source_kind,
            "preference": preference,
            "is_single": _is_single(platform),
        }
        queries.append(bench.query(step, params, {"as_sent": Function(name, as_sent)}))

    def make() -> exp.Expr:
        alias = exp.TableAlias(this=exp.to_identifier("of_a_kind"))
        return _united(
            [exp.select("*").from_(exp.Subquery(this=query.make(), alias=alias.copy())) for query in queries]
        )

    return query_from(("each kind", [query.key for query in queries]), make)


def _ad_destinations(bench: Workbench) -> list[str]:
    """The ad platforms that were ever sent anything; one whose file is gone has no say."""
    found = []
    for row in bench.rows("select distinct destination from sync.ledger"):
        try:
            platform = destination_class(str(row["destination"]))
        except ConfigurationError:
            continue
        if platform.channel == "ads":
            found.append(platform.name)
    return sorted(found)


def _rivals(bench: Workbench, audience: Audience, others: Mapping[str, Audience]) -> Query:
    """The segments that keep a profile from this audience: same group, larger number (at a tie the name decides)."""
    rivals = []
    for other in others.values():
        if other.exclusive is None or other.exclusive != audience.exclusive or other.name == audience.name:
            continue
        if (-other.priority, other.name) > (-audience.priority, audience.name):
            continue
        if bench.warehouse.columns(f"segments.{other.name}", connection=bench.session) is None:
            continue
        rivals.append((other.name, other.priority))
    if not rivals:
        return _nobody("audience", "text", "priority", "bigint")
    return query_from(("rivals", rivals), lambda: _united([_select_rival(*rival) for rival in rivals]))


def _select_rival(name: str, priority: int) -> exp.Select:
    number = exp.Literal.number(abs(priority))
    return exp.select(
        "profile_id",
        exp.alias_(exp.Literal.string(name), "audience"),
        exp.alias_(number if priority >= 0 else exp.Neg(this=number), "priority"),
    ).from_(exp.to_table(f"segments.{name}"))


def _united(branches: list[exp.Select]) -> exp.Expr:
    whole: exp.Expr = branches[0]
    for branch in branches[1:]:
        whole = exp.union(whole, branch, distinct=False)
    return whole


def _nobody(*columns: str) -> Query:
    """An empty answer: `profile_id` and the columns named, each followed by its type."""
    kinds = {"profile_id": "text", **dict(zip(columns[::2], columns[1::2], strict=True))}
    sql = f"select {', '.join(f'cast(null as {kind}) as {name}' for name, kind in kinds.items())} where 1 = 0"
    return query_from(sql, lambda: sqlglot.parse_one(sql, read="duckdb"))
