"""Why she is in, or out: each step with its value, the plan, the answers, and past runs."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from include.audiences.eligibility import STEPS
from include.audiences.explain import Explanation, UnknownPerson, explain, masked
from include.audiences.explain_command import app, show
from include.errors import ConfigurationError
from include.warehouse.engine import Warehouse
from tests.include.sync.target_world import AS_OF, World, world

__all__ = ["world"]


@pytest.fixture
def told(world: World) -> World:
    """The small world with the columns that the real core tables have besides."""
    for table, columns in {
        "core.consents": "source text, reason text, changed_at timestamp",
        "core.suppressions": "source text, since_at timestamp",
    }.items():
        for column in columns.split(", "):
            world.warehouse.execute(f"alter table {table} add column {column}")
    return world


def why(world: World, value: str, kind: str = "email", destination: str = "mailchimp", **asked: Any) -> Explanation:
    return explain(world.warehouse, "carts", kind, value, destination=destination, **asked)


def stop(found: Explanation) -> tuple[str, str] | None:
    """The step at which she fell out, and what it says."""
    return next(((s.name, s.says) for s in found.destinations[0].steps if s.verdict == "stopped here"), None)


def step(found: Explanation, name: str) -> str:
    return next(one.says for one in found.destinations[0].steps if one.name == name)


def test_a_member_passes_every_step_in_the_order_of_the_waterfall(told: World) -> None:
    told.person("ana", email="ana@x.com", phone="+421900000001", cart_value=12.5)
    plan = told.sync()

    found = why(told, " Ana@X.com ")

    (at,) = found.destinations
    assert [one.name for one in at.steps] == ["segment", *STEPS]
    assert at.is_member
    assert found.matches
    assert found.segment["cart_value"] == "12.5"
    assert found.person.profile_id == "ana"
    assert at.planned is not None
    assert (at.planned.plan_id, at.planned.action, at.planned.is_newest) == (plan.plan_id, "add", True)
    assert [(answer.action, answer.status) for answer in at.answers] == [("add", "accepted")]
    assert at.on_list_since == AS_OF


def test_every_way_to_name_her_finds_the_same_person(told: World) -> None:
    told.person("ana", email="ana@x.com", phone="+421905123456")
    told.identifier("ana", "user_id", "u-1")
    told.identifier("ana", "visitor_id", "GA1.2.3")
    for kind, value in (
        ("email", "ana@x.com"), ("phone", "+421 905 123 456"), ("user_id", "u-1"), ("visitor_id", "GA1.2.3"),
        ("profile_id", "ana"),
    ):  # fmt: skip
        assert why(told, value, kind).person.profile_id == "ana"


def test_consent_is_told_with_its_source_and_time(told: World) -> None:
    told.person("ana", email="ana@x.com", consent=None)
    told.insert(
        "core.consents",
        {"profile_id": "ana", "channel": "email", "status": "denied", "source": "hubspot", "changed_at": AS_OF},
    )

    name, says = stop(why(told, "ana@x.com")) or ("", "")

    assert name == "consent"
    assert "email: denied by hubspot, 2026-03-10 12:00" in says
    assert "unknown counts as deny" in says


def test_suppression_is_told_with_its_source_and_reason_wherever_it_came_from(told: World) -> None:
    told.person("ana", email="ana@x.com")
    told.insert(
        "core.suppressions",
        {"profile_id": "ana", "channel": "email", "reason": "bounced", "source": "hubspot", "since_at": AS_OF},
    )
    told.gave_up("ana", "old@x.com")
    told.opt_out("old@x.com")

    name, says = stop(why(told, "ana@x.com")) or ("", "")

    assert name == "suppression"
    assert "bounced (email) by hubspot, 2026-03-10 12:00" in says
    assert "opted_out (email) told by mailchimp" in says
    ads = why(told, "ana@x.com", destination="google_ads")
    assert ads.destinations[0].is_member
    assert "bounced (email) by hubspot, 2026-03-10 12:00, not in force here" in step(ads, "suppression")


def test_the_cap_the_rival_and_the_holdout_show_their_numbers(told: World) -> None:
    told.policy("frequency_cap: {touches: 2, per: 7d}\nexclusive: lifecycle\npriority: 1\nholdout: 100%")
    told.audience("winners", "exclusive: lifecycle\npriority: 2")
    told.person("ana", email="ana@x.com")
    told.match("ana", "winners")
    for days in (1, 2):
        told.insert(
            "core.engagement",
            {"profile_id": "ana", "channel": "email", "type": "sent", "occurred_at": AS_OF - timedelta(days=days)},
        )
    told.plan()

    found = why(told, "ana@x.com")

    assert stop(found) == ("frequency_cap", "2 touches in 7d: 2 of 2 touches in 7d")
    assert step(found, "priority") == "also in winners (priority 2)"
    assert step(found, "holdout") == "held out (100% of people are)"
    (at,) = found.destinations
    assert [one.verdict for one in at.steps[-3:]] == ["not reached"] * 3
    assert at.planned is not None
    assert (at.planned.action, at.planned.says) == ("left out", "fell out at frequency_cap: 2 touches in 7d")


def test_who_does_not_match_is_told_so_and_her_values_are_shown_all_the_same(told: World) -> None:
    told.person("ana", email="ana@x.com", consent="denied", in_segment=False)
    told.plan()

    found = why(told, "ana@x.com")

    assert stop(found) == ("segment", "the segment does not have her")
    assert "denied" in step(found, "consent")
    assert found.destinations[0].planned is not None
    assert found.destinations[0].planned.action == "no part"


def test_a_past_run_is_told_from_its_records(told: World) -> None:
    told.person("ana", email="ana@x.com")
    first = told.sync(at=AS_OF)
    told.as_of = AS_OF + timedelta(days=1)
    told.opt_out("ana@x.com")
    second = told.sync(at=told.as_of)
    told.as_of += timedelta(days=1)
    third = told.plan()
    for days, plan in enumerate((first, second, third)):
        told.execute(
            "update sync.plans set created_at = :at where plan_id = :plan_id",
            at=AS_OF + timedelta(days=days, seconds=-1), plan_id=plan.plan_id,
        )  # fmt: skip

    then, left, now = (why(told, "ana@x.com", plan_id=plan.plan_id).destinations[0] for plan in (first, second, third))

    assert then.planned is not None
    assert (then.planned.action, then.on_list_since) == ("add", AS_OF)
    assert "are those of now" in then.notes[0]
    assert left.planned is not None
    assert (left.planned.action, left.planned.says) == ("remove", "fell out at suppression: opted_out")
    assert [answer.action for answer in left.answers] == ["remove", "add"]
    assert left.on_list_since is None
    assert now.planned is not None
    assert (now.planned.action, now.notes) == ("left out", ())
    by_time = why(told, "ana@x.com", as_of=AS_OF + timedelta(hours=1)).destinations[0]
    assert by_time.planned == then.planned
    assert why(told, "ana@x.com", as_of=AS_OF - timedelta(days=9)).destinations[0].planned is None


def test_who_is_on_the_list_and_did_not_change_is_unchanged(told: World) -> None:
    told.person("ana", email="ana@x.com")
    told.person("bob", email="bob@x.com")
    plan = told.plan()
    told.answer(plan, only="ana@x.com")
    told.answer(plan, "rejected", only="bob@x.com")
    told.plan()

    planned = [why(told, f"{name}@x.com").destinations[0].planned for name in ("ana", "bob")]

    assert [one.action for one in planned if one] == ["unchanged", "refused"]


def test_a_profile_that_was_merged_is_followed_with_its_past(told: World) -> None:
    told.person("old", email="old@x.com")
    told.sync()
    told.warehouse.execute("delete from core.profiles")
    told.insert("core.profiles", {"profile_id": "new", "email": "old@x.com"})
    told.execute("update core.identifiers set profile_id = 'new'")
    told.insert("core.profile_merges", {"profile_id": "old", "into_profile_id": "new", "merged_at": AS_OF})

    found = why(told, "old", "profile_id")

    assert (found.person.profile_id, found.person.merged) == ("new", ("old",))
    assert [answer.status for answer in found.destinations[0].answers] == ["accepted"]


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("email", "nobody@x.com", "knows nobody with this e-mail address"),
        ("email", "no address", "is no e-mail address"),
        ("phone", "0905", "with its country"),
        ("phone", "+421900000009", "quarantined"),
        ("profile_id", "p-404", "no profile p-404"),
    ],
)
def test_nobody_is_said_in_a_sentence_without_the_address(told: World, kind: str, value: str, said: str) -> None:
    told.identifier(None, "phone", "+421900000009", "quarantined")
    with pytest.raises(UnknownPerson, match=said) as caught:
        why(told, value, kind)
    assert kind == "profile_id" or value not in str(caught.value)


def test_what_is_asked_wrongly_is_a_sentence_too(told: World) -> None:
    told.person("ana", email="ana@x.com")
    with pytest.raises(ConfigurationError, match="there is no plan"):
        why(told, "ana@x.com", plan_id="x")
    with pytest.raises(ConfigurationError, match="there is no audience 'cart'"):
        explain(told.warehouse, "cart", "email", "ana@x.com")
    with pytest.raises(ConfigurationError, match="no destination 'meta'"):
        why(told, "ana@x.com", destination="meta")


def test_the_page_shows_no_address(told: World) -> None:
    told.person("ana", email="ana.long@x.com", phone="+421905123456", cart_url="https://s.x/c?who=ana.long@x.com")
    told.insert(
        "core.consents", {"profile_id": "ana", "channel": "ads", "status": "granted", "source": "ana.long@x.com"}
    )
    told.sync("google_ads")
    told.sync()
    page = io.StringIO()
    show(explain(told.warehouse, "carts", "profile_id", "ana"), Console(file=page, width=200))
    text = page.getvalue()
    assert "Mailchimp: a member, on the list since 2026-03-10 12:00" in text
    assert "Google Ads: a member" in text
    keys = told.warehouse.read("select member_key from sync.ledger")
    for hidden in ("ana.long@", "+421905123456", *(row["member_key"] for row in keys)):
        assert hidden not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("ana@x.com", "a***@x.com"), ("+421905123456", "+421***56"), ("u-12345678", "u-12345678"), ("@", "***@")],
)
def test_masks(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_the_command_says_nobody_with_an_exit_code_of_its_own(told: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if told.warehouse.dialect != "duckdb":
        pytest.skip("the command is the same on every engine")
    told.person("ana", email="ana@x.com")
    monkeypatch.setattr("include.shell.get_warehouse", lambda: told.warehouse)
    monkeypatch.delenv("REKINDLE_WAREHOUSE_URL", raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", "/somewhere")  # else the demo's warehouse, where one ran
    run = CliRunner()
    assert run.invoke(app, ["carts", "--email", "ana@x.com"]).exit_code == 0
    assert run.invoke(app, ["carts", "--email", "bob@x.com"]).exit_code == 3
    assert run.invoke(app, ["cart", "--email", "ana@x.com"]).exit_code == 2
    assert run.invoke(app, ["carts", "--email", "ana@x.com", "--profile", "ana"]).exit_code == 2


def test_it_leaves_nothing_behind(told: World) -> None:
    told.person("ana", email="ana@x.com")
    before = _tables(told.warehouse)
    why(told, "ana@x.com")
    assert _tables(told.warehouse) == before


def _tables(warehouse: Warehouse) -> list[str]:
    rows = warehouse.read(
        "select table_schema, table_name from information_schema.tables where table_schema in ('sync', 'core')"
    )
    return sorted(f"{row['table_schema']}.{row['table_name']}" for row in rows)
