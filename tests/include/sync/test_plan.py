"""Plans: members against what the destination acknowledged, in the order of sending."""

from __future__ import annotations

import hashlib  # noqa: TID251
import json
import logging
from datetime import datetime, timedelta

import pytest

from include.audiences import workbench
from include.destinations.google_ads import GoogleAds
from include.destinations.http import utc_now
from include.errors import ConfigurationError, QualityGateFailed
from include.sync.plan import PlanSummary
from tests.include.destinations import fake_mailchimp
from tests.include.sync.target_world import AS_OF, World, world
from tests.include.sync.test_audit import connected, mailchimp, sync, tagged

__all__ = ["mailchimp", "world"]


def test_the_second_plan_has_nothing_to_send(world: World) -> None:
    world.person("ana", email="ana@x.com", phone="+421900000001", cart_value=10)
    for destination in ("mailchimp", "google_ads"):
        assert world.sync(destination).adds == 1
        again = world.plan(destination)
        assert (again.rows, again.unchanged, world.rows(again)) == (0, 1, [])


def test_a_value_that_appears_or_goes_is_a_change(world: World) -> None:
    world.person("ana", email="ana@x.com", cart_value=None)
    world.sync()
    for value, text in ((20.5, "20.50"), (None, None)):
        world.execute("update segments.carts set cart_value = :value", value=value)
        plan = world.plan()
        assert world.sent(plan) == [("update", "ana@x.com")]
        assert json.loads(world.rows(plan)[0]["fields"])["CART_TOTAL"] == text
        world.answer(plan)


def test_a_column_that_is_not_mapped_changes_nothing(world: World) -> None:
    world.person("ana", email="ana@x.com", item_count=1)
    world.sync()
    world.execute("update segments.carts set item_count = 2, entered_at = entered_at + interval 1 hour")

    assert world.plan().unchanged == 1


def test_each_of_many_fields_is_compared(world: World) -> None:
    # PostgreSQL joins a hundred texts by one call
    file = world.folder / "carts.yaml"
    many = ", ".join(f"F{number}: cart_url" for number in range(70))
    file.write_text(file.read_text().replace("CART_URL: cart_url", f"{many}, ITEMS: cart_items"))
    world.person("ana", email="ana@x.com", cart_items=None)
    world.sync()
    assert world.plan().unchanged == 1
    for items in ("", "null", None):  # which are three different things
        world.execute("update segments.carts set cart_items = :items", items=items)
        assert world.sync().updates == 1


def test_who_left_is_removed_with_what_was_sent(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.person("bob", email="bob@x.com")
    world.sync()
    world.execute("delete from segments.carts where profile_id = 'ana'")

    plan = world.plan()

    assert world.sent(plan) == [("remove", "ana@x.com")]
    assert world.rows(plan)[0]["identifiers"] == '{"email":["ana@x.com"]}'
    assert world.rows(plan)[0]["fields"] is None
    world.answer(plan)
    assert world.plan().rows == 0


def test_leavers_go_before_anyone_comes_in(world: World) -> None:
    world.person("zoe", email="zoe@x.com")
    world.sync()
    world.execute("delete from segments.carts")
    world.person("ana", email="ana@x.com")

    assert world.sent(world.plan()) == [("remove", "zoe@x.com"), ("add", "ana@x.com")]


def test_a_new_address_is_in_before_the_old_one_is_out(world: World) -> None:
    world.person("ana", email="old@x.com")
    world.person("bob", email="bob@x.com")
    world.sync()
    world.execute("update core.profiles set email = 'new@x.com' where profile_id = 'ana'")
    world.identifier("ana", "email", "new@x.com")
    world.execute("delete from segments.carts where profile_id = 'bob'")

    plan = world.plan()

    assert world.sent(plan) == [("remove", "bob@x.com"), ("add", "new@x.com"), ("remove", "old@x.com")]
    world.answer(plan)
    assert world.plan().rows == 0


def test_two_profiles_that_merge_stay_the_member_they_were(world: World) -> None:
    world.person("visitor", email="ana@x.com")
    world.sync()
    # the CRM tells that she is `ana`
    for table in ("core.profiles", "core.identifiers", "core.consents", "segments.carts"):
        world.execute(f"update {table} set profile_id = 'ana'")

    plan = world.plan()

    assert (plan.rows, plan.unchanged) == (0, 1)


def test_an_ad_platform_keeps_the_member_it_knows_when_another_address_becomes_the_best(world: World) -> None:
    world.person("ana", email="old@x.com", emails=("new@x.com",))
    world.sync("google_ads")
    world.execute("update core.profiles set email = 'new@x.com'")

    assert world.plan("google_ads").unchanged == 1


def test_what_another_member_still_holds_is_not_taken_away(world: World) -> None:
    # Ana and Bob are two people until a merge makes them one
    world.person("ana", email="ana@x.com", phone="+421900000001")
    world.person("bob", email="bob@x.com", phone="+421900000002")
    world.sync("google_ads")
    key_of = {row["profile_id"]: row["member_key"] for row in world.warehouse.read("select * from sync.ledger")}
    world.execute("delete from segments.carts where profile_id = 'bob'")
    world.execute("update core.identifiers set profile_id = 'ana' where identifier_value = '+421900000002'")

    plan = world.plan("google_ads")

    assert world.sent(plan) == [("remove", key_of["bob"]), ("update", key_of["ana"])]
    assert json.loads(world.rows(plan)[0]["identifiers"]) == {"google_email_sha256": [key_of["bob"]]}


def test_a_merged_member_leaves_with_all_that_was_ever_sent(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.person("bob", email="bob@x.com")
    world.sync("google_ads")
    # one person now: nothing of hers is taken away while she is in
    world.execute("update core.identifiers set profile_id = 'ana'")
    world.execute("delete from segments.carts where profile_id = 'bob'")
    merged = world.sync("google_ads")
    assert (merged.updates, merged.removes) == (1, 0)
    assert world.plan("google_ads").rows == 0

    world.execute("delete from segments.carts")
    world.person("eve", email="eve@x.com")

    plan = world.plan("google_ads")
    removed = [row for row in world.rows(plan) if row["action"] == "remove"]
    hashes = {value for row in removed for value in json.loads(row["identifiers"])["google_email_sha256"]}
    assert (plan.adds, plan.removes, len(hashes)) == (1, 2, 2)


def test_an_identifier_she_no_longer_has_leaves_with_her(world: World) -> None:
    world.person("ana", email="ana@x.com", phone="+421900000001")
    world.sync("google_ads")
    world.execute("update core.identifiers set state = 'shared' where identifier_kind = 'phone'")
    assert world.sync("google_ads").updates == 1
    world.execute("delete from segments.carts")
    world.person("eve", email="eve@x.com")

    plan = world.plan("google_ads")

    assert sorted(json.loads(world.rows(plan)[0]["identifiers"])) == ["google_email_sha256", "google_phone_sha256"]


def test_a_refused_row_is_sent_again_only_when_it_changes(world: World) -> None:
    world.person("ana", email="ana@x.com", cart_value=1)
    world.answer(world.plan(), "rejected")

    refused = world.plan()
    assert (refused.rows, refused.refused) == (0, 1)

    world.execute("update segments.carts set cart_value = 2")
    assert world.sent(world.plan()) == [("add", "ana@x.com")]


@pytest.mark.on_spark
def test_a_refusal_for_a_status_holds_for_a_day(world: World) -> None:
    for name in ("ana", "cyd"):
        world.person(name, email=f"{name}@x.com")
    plan = world.plan()
    for name, reason in (("ana", "pending at Mailchimp"), ("cyd", "fake")):
        world.answer(plan, "rejected", only=f"{name}@x.com", reason=reason)
    world.as_of += timedelta(hours=24)
    waits = world.plan()
    assert (waits.rows, waits.refused) == (0, 2)

    world.as_of += timedelta(minutes=1)
    plan = world.plan()

    assert (world.sent(plan), plan.refused) == ([("add", "ana@x.com")], 1)


def test_who_was_refused_for_her_status_is_tried_again(world: World) -> None:
    world.policy("guard: {small_change: 0}")
    world.person("bob", email="bob@x.com")
    world.sync()
    for name in ("ana", "cyd", "eve"):
        world.person(name, email=f"{name}@x.com")
    plan = world.plan()
    for name, reason in (("ana", "pending at Mailchimp"), ("cyd", "fake"), ("eve", "pending at Mailchimp")):
        world.answer(plan, "rejected", only=f"{name}@x.com", reason=reason)
    world.as_of += timedelta(hours=24)
    assert world.plan().refused == 3
    world.execute("update segments.carts set cart_value = 2 where profile_id = 'eve'")
    world.answer(world.plan(), "rejected", reason="fake", only="eve@x.com")

    world.as_of += timedelta(hours=24, minutes=1)
    plan = world.plan()

    assert world.sent(plan) == [("add", "ana@x.com")]
    assert (plan.refused, plan.verdict) == (2, "clear")  # 100 % of the list, and let through before
    world.answer(plan, "rejected", reason="pending at Mailchimp")
    assert world.plan().refused == 3


@pytest.mark.parametrize("status", ["pending", "archived", "unsubscribed", "cleaned"])
def test_who_may_be_mailed_by_now_is_on_the_list_a_day_later(
    world: World, mailchimp: fake_mailchimp.Platform, status: str
) -> None:
    connect = connected(mailchimp)
    world.as_of = utc_now()
    world.person("ana", email="ana@shop.example")
    mailchimp.put("ana@shop.example", status)
    sync(world, connect)
    mailchimp.members["ana@shop.example"]["status"] = "subscribed"
    assert sync(world, connect).refused == 1
    world.as_of += timedelta(days=2)

    sync(world, connect)

    assert tagged(mailchimp) == {"ana@shop.example"}


def test_a_refused_change_leaves_the_member_as_she_was(world: World) -> None:
    world.person("ana", email="ana@x.com", cart_value=1)
    world.sync()
    world.execute("update segments.carts set cart_value = 2")
    world.answer(world.plan(), "rejected")
    assert world.plan().refused == 1

    world.execute("update segments.carts set cart_value = 1")
    assert world.plan().unchanged == 1
    world.execute("delete from segments.carts")
    world.person("bob", email="bob@x.com")
    assert ("remove", "ana@x.com") in world.sent(world.plan())


def test_what_could_not_be_sent_is_tried_again(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.answer(world.plan(), "retry")

    assert world.sent(world.plan()) == [("add", "ana@x.com")]


@pytest.mark.parametrize("status", ["pending", "unattributed"])
def test_an_answer_that_is_open_is_not_asked_for_twice(world: World, status: str) -> None:
    world.person("ana", email="ana@x.com")
    world.answer(world.plan("google_ads"), status)

    assert world.plan("google_ads").unchanged == 1


def test_a_pending_request_that_failed_is_no_membership(world: World) -> None:
    world.person("ana", email="ana@x.com")
    plan = world.plan("google_ads")
    world.answer(plan, "pending")
    world.answer(plan, "retry")

    assert world.plan("google_ads").adds == 1


def test_a_removal_under_way_is_not_sent_twice_and_gives_way_to_an_add(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.person("bob", email="bob@x.com")
    world.sync("google_ads")
    world.execute("delete from segments.carts where profile_id = 'ana'")
    leaving = world.plan("google_ads")
    world.answer(leaving, "pending")
    assert world.plan("google_ads").rows == 0

    world.match("ana")
    back = world.plan("google_ads")
    assert (back.adds, back.removes) == (1, 0)
    world.answer(back, "pending")
    # the late answer to the removal does not undo the newer add
    world.answer(leaving, "accepted")
    assert world.plan("google_ads").unchanged == 2


def test_a_removal_that_was_refused_is_tried_again(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.person("bob", email="bob@x.com")
    world.sync()
    world.execute("delete from segments.carts where profile_id = 'ana'")
    world.answer(world.plan(), "rejected")

    assert world.sent(world.plan()) == [("remove", "ana@x.com")]


def test_who_comes_back_is_added_again(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.person("bob", email="bob@x.com")
    world.sync()
    world.execute("delete from segments.carts where profile_id = 'ana'")
    world.sync()
    world.match("ana")

    assert world.sent(world.plan()) == [("add", "ana@x.com")]


def test_targets_do_not_see_each_others_ledger(world: World) -> None:
    world.audience("other")
    world.person("ana", email="ana@x.com")
    world.match("ana", "other")
    world.sync()

    assert world.plan(audience="other").adds == 1


def test_an_e_mail_tool_gets_one_address_of_a_person(world: World) -> None:
    world.person("ana", email="best@x.com", emails=("another@x.com", "zzz@x.com"))

    assert world.rows(world.plan())[0]["identifiers"] == '{"email":["best@x.com"]}'


@pytest.mark.on_spark
def test_text_of_every_kind_arrives_as_it_was(world: World) -> None:
    text = 'say "hi" \\ back\nnext\ttab\rreturn, Žofia 🛒 {curly} %percent :colon'
    world.person("ana", email="ana@x.com", cart_url=text)

    assert json.loads(world.rows(world.plan())[0]["fields"]) == {"CART_URL": text, "CART_TOTAL": None}


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("cart_value", 99.0, "99.00"),
        ("cart_value", 0.1 + 0.2, "0.30"),
        ("cart_value", 1234567.891, "1234567.89"),
        ("cart_value", float("nan"), None),
        ("item_count", 3, "3"),
        ("abandoned_at", datetime(2026, 3, 9, 8, 5), "2026-03-09T08:05:00Z"),
        ("cart_items", "", ""),
    ],
)
def test_values_have_one_spelling(world: World, column: str, value: object, text: str | None) -> None:
    path = world.folder / "carts.yaml"
    path.write_text(path.read_text().replace("CART_TOTAL: cart_value", f"CART_TOTAL: {column}"))
    world.person("ana", email="ana@x.com", **{column: value})

    assert json.loads(world.rows(world.plan())[0]["fields"])["CART_TOTAL"] == text


def test_an_emptied_segment_waits_for_a_human_and_empties_no_list(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.sync()
    world.execute("delete from segments.carts")

    assert (world.plan().verdict, world.plan("google_ads").verdict) == ("ask", "clear")


def test_a_segment_whose_gate_failed_waits_for_a_human(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.insert("sync.segment_builds", {"audience": "carts", "run_id": "build-1", "built_at": AS_OF})
    with pytest.raises(QualityGateFailed, match="has not been through the quality gate"):
        world.plan()

    gate = {"audience": "carts", "run_id": "build-1", "checked_at": AS_OF}
    world.insert("sync.gate_results", {**gate, "is_passed": False, "failures": "3 rows have no time"})
    assert world.plan().verdict == "ask"

    later = {**gate, "checked_at": AS_OF + timedelta(minutes=5)}
    world.insert("sync.gate_results", {**later, "is_passed": True, "failures": ""})
    assert world.plan().verdict == "clear"

    world.match("ana")
    latest = {**gate, "checked_at": AS_OF + timedelta(minutes=9)}
    world.insert("sync.gate_results", {**latest, "is_passed": False, "failures": "2 rows share their profile_id"})
    with pytest.raises(QualityGateFailed, match="nothing was planned: 2 rows share their profile_id"):
        world.plan()


def test_a_segment_that_is_not_built_is_an_error_in_words(world: World) -> None:
    world.execute("drop table segments.carts")

    with pytest.raises(ConfigurationError, match=r"segments\.carts is not built yet"):
        world.plan()


@pytest.mark.on_spark
def test_nothing_is_left_behind_but_the_plan(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.plan()

    with world.warehouse.session() as session:
        tables = [name for name in world.warehouse._all_columns(session) if ".work" in name]
    assert tables == []


def test_the_log_tells_counts_and_no_person(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.person("ana", email="ana@x.com")
    world.plan()

    assert "1 matched, 1 members; 1 to add" in caplog.text
    assert "ana" not in caplog.text


def days(number: float) -> timedelta:
    return timedelta(days=number)


@pytest.mark.parametrize(("age", "options", "action"), [
    (449, "", None),
    (451, "", "refresh"),
    (24, ", membership_days: 30", None),
    (26, ", membership_days: 30", "refresh"),
    (451, ", connection: google_ads_other", "refresh"),
])  # fmt: skip
def test_a_member_is_sent_again_before_the_platform_forgets_her(
    world: World, age: float, options: str, action: str | None
) -> None:
    path = world.folder / "carts.yaml"
    path.write_text(path.read_text().replace("{to: google_ads}", f"{{to: google_ads{options}}}"))
    world.person("ana", email="ana@x.com")
    world.sync("google_ads", at=AS_OF - days(age))

    plan = world.plan("google_ads")

    assert [sent for sent, _ in world.sent(plan)] == ([action] if action else [])
    assert (plan.refreshes, plan.unchanged) == ((1, 0) if action else (0, 1))
    assert world.warehouse.scalar("select refreshes from sync.plans where plan_id = :p", p=plan.plan_id) == (
        plan.refreshes
    )


def test_a_refresh_that_was_acknowledged_starts_the_time_anew_and_loses_nothing(world: World) -> None:
    world.person("ana", email="ana@x.com", phone="+421900000001")
    first = world.sync("google_ads", at=AS_OF - days(500))
    again = world.sync("google_ads", at=AS_OF - days(1))

    assert (again.refreshes, again.adds, again.updates) == (1, 0, 0)
    sent = [{name: row[name] for name in ("identifiers", "payload_hash")} for row in world.rows(again)]
    assert sent == [{name: row[name] for name in ("identifiers", "payload_hash")} for row in world.rows(first)]
    assert world.plan("google_ads").unchanged == 1


def test_a_member_who_changed_is_updated_and_not_refreshed(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.sync("google_ads", at=AS_OF - days(500))
    world.identifier("ana", "phone", "+421900000001")

    plan = world.plan("google_ads")

    assert (plan.updates, plan.refreshes) == (1, 0)


def test_where_adding_may_start_an_automation_nobody_is_refreshed(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.sync(at=AS_OF - days(5000))

    assert world.plan().unchanged == 1


@pytest.fixture
def small_list(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Five people are on an ad list that needs four."""
    monkeypatch.setattr(GoogleAds, "min_audience_size", 4)
    for number in range(5):
        world.person(f"p{number}", email=f"p{number}@x.com")
    plan = world.plan("google_ads")
    for number in range(5):
        world.answer(plan, only=key_at_google(f"p{number}@x.com"), at=AS_OF - days(10 - number))
    return world


def key_at_google(email: str) -> str:
    return hashlib.sha256(email.encode()).hexdigest()


def gone(world: World, plan: PlanSummary) -> list[str]:
    return [row["profile_id"] for row in world.rows(plan) if row["action"] == "remove"]


@pytest.mark.on_spark
def test_a_removal_that_would_take_a_list_under_its_minimum_waits(
    small_list: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    small_list.execute("delete from segments.carts where profile_id in ('p0', 'p1', 'p2')")

    plan = small_list.plan("google_ads")

    # who has been on the list longest goes; two wait
    assert (gone(small_list, plan), plan.removes, plan.held) == (["p0"], 1, 2)
    assert small_list.warehouse.scalar("select held from sync.plans where plan_id = :p", p=plan.plan_id) == 2
    assert "2 removals wait: without them the list would have fewer than the 4 members" in caplog.text
    small_list.answer(plan)
    assert (small_list.plan("google_ads").rows, small_list.plan("google_ads").held) == (0, 2)


def test_a_waiting_removal_goes_when_the_list_is_large_enough(small_list: World) -> None:
    small_list.execute("delete from segments.carts where profile_id in ('p0', 'p1', 'p2')")
    small_list.sync("google_ads")
    small_list.person("eve", email="eve@x.com")
    first = small_list.sync("google_ads")
    assert (gone(small_list, first), first.adds, first.held) == (["p1"], 1, 1)

    small_list.person("fay", email="fay@x.com")

    last = small_list.plan("google_ads")
    assert (gone(small_list, last), last.held) == (["p2"], 0)


@pytest.mark.parametrize("why", ["opted out", "at the tool", "denied", "no longer granted", "erased", "segment"])
def test_a_removal_that_may_not_wait_goes_at_once(small_list: World, why: str) -> None:
    small_list.execute("delete from segments.carts where profile_id in ('p0', 'p1', 'p2')")
    small_list.sync("google_ads")
    if why == "opted out":
        small_list.insert("core.suppressions", {"profile_id": "p2", "channel": "ads", "reason": "opted_out"})
    elif why == "at the tool":
        small_list.opt_out("p2@x.com", channel="ads")
    elif why == "denied":
        small_list.insert("core.consents", {"profile_id": "p2", "channel": "ads", "status": "denied"})
    elif why == "no longer granted":
        small_list.execute("delete from core.consents where profile_id = 'p2'")
    elif why == "erased":
        for table in ("profiles", "identifiers", "consents"):
            small_list.execute(f"delete from core.{table} where profile_id = 'p2'")
    else:
        small_list.match("p2", allowed_channels="email")

    plan = small_list.plan("google_ads")

    assert gone(small_list, plan) == ["p2"]
    assert plan.held == 1  # the list is at its minimum still, counted with whom we know to be on it


def test_who_is_held_out_leaves_a_list_that_is_too_small_without_her(small_list: World) -> None:
    small_list.policy("holdout: 99.99999%")

    plan = small_list.plan("google_ads")

    assert (plan.excluded, plan.removes, plan.held) == ({"holdout": 5}, 5, 0)


def test_a_list_that_is_too_small_anyway_lets_everybody_go(world: World) -> None:
    for number in range(3):
        world.person(f"p{number}", email=f"p{number}@x.com")
    world.sync("google_ads")
    world.execute("delete from segments.carts where profile_id <> 'p0'")

    plan = world.plan("google_ads")

    assert (plan.removes, plan.held) == (2, 0)


def test_a_new_address_does_not_wait_for_the_minimum(small_list: World) -> None:
    small_list.execute("delete from core.identifiers where profile_id = 'p0'")
    small_list.identifier("p0", "email", "other@x.com")
    small_list.execute("delete from segments.carts where profile_id = 'p1'")

    plan = small_list.plan("google_ads")

    assert (plan.adds, plan.removes, plan.held) == (1, 2, 0)


def test_an_address_on_the_list_that_is_nobodys_is_taken_off(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.sync()
    world.sequence += 1
    world.insert(
        "sync.ledger",
        {
            "sequence": world.sequence, "audience": "carts", "destination": "mailchimp", "list_id": "list-1",
            "plan_id": "audit", "action": "add", "profile_id": None, "member_key": "stray@x.com", "status": "accepted",
            "acknowledged_at": AS_OF,
        },
    )  # fmt: skip

    plan = world.plan()

    assert [(row["action"], row["profile_id"], row["identifiers"]) for row in world.rows(plan)] == [
        ("remove", None, '{"email":["stray@x.com"]}')
    ]
    world.answer(plan)
    assert world.plan().rows == 0


def test_the_statements_of_a_plan_serve_the_next_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.policy("holdout: 1%")
    world.person("ana", email="ana@x.com")
    world.sync()
    world.as_of += timedelta(days=1)

    def made_again(*_: object, **__: object) -> str:
        raise AssertionError("a statement was made again")

    if world.warehouse.dialect != "spark":
        monkeypatch.setattr(workbench, "to_sql", made_again)
    world.execute("update segments.carts set cart_value = 5")
    plan = world.plan()

    assert (plan.updates, plan.unchanged) == (1, 0)
    assert world.sent(plan) == [("update", "ana@x.com")]
