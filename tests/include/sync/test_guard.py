"""The guard: which plans wait for a human, why, and what goes out all the same."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from include.audiences.schema import Guard
from include.sync.guard import Numbers, Reason, is_same, judge
from include.sync.lists import forget_list
from tests.include.sync.target_world import World, world

__all__ = ["world"]

USUAL = Numbers(matched=1000, present=1000, adds=100, removes=100, waiting=200, matched_before=1000)


@pytest.mark.parametrize(
    ("change", "guard", "kinds"),
    [
        pytest.param({}, {}, [], id="an ordinary hour"),
        pytest.param({"adds": 500}, {}, [], id="exactly the bound"),
        pytest.param({"adds": 501}, {}, ["adds"], id="one more than the bound"),
        pytest.param({"adds": 1500}, {"max_add": "200%"}, [], id="a bound above all"),
        pytest.param({"removes": 301}, {}, ["removes"], id="too many leave"),
        pytest.param({"adds": 900, "removes": 900}, {}, ["adds", "removes"], id="everybody is exchanged"),
        pytest.param({"matched": 400}, {}, ["shrunk"], id="the segment lost more than half"),
        pytest.param({"matched": 500}, {}, [], id="the segment lost half"),
        pytest.param({"matched": 400, "matched_before": None}, {}, [], id="nothing to compare the segment with"),
        pytest.param({"matched": 0, "removes": 1000}, {}, ["empty", "removes"], id="the segment is empty"),
        pytest.param(
            {"matched": 0, "removes": 3, "present": 3, "adds": 0}, {}, ["empty"], id="... however short the list"
        ),
        pytest.param({"matched": 0, "adds": 0}, {"min_size": 0}, ["shrunk"], id="... and may be"),
        pytest.param({"matched": 0, "matched_before": 0}, {}, [], id="... as it was when it was let through"),
        pytest.param({"matched": 90}, {"min_size": 100}, ["small"], id="under the size it must have"),
        pytest.param({"present": 3, "adds": 50, "removes": 3}, {}, [], id="a list of 3 grows by 50"),
        pytest.param({"present": 3, "adds": 51, "removes": 3}, {}, ["adds"], id="a list of 3 grows by 51"),
        pytest.param(
            {"present": 3, "adds": 6, "removes": 3}, {"small_change": 5}, ["adds"], id="small is what the file says"
        ),
        pytest.param({"present": 0, "adds": 10**6}, {}, [], id="a first load"),
        pytest.param({"present": 0, "adds": 501, "members_before": 1000}, {}, ["adds"], id="an emptied list"),
        pytest.param({"present": 0, "adds": 500, "members_before": 1000}, {}, [], id="... filled by half"),
        pytest.param({"waiting": 0, "adds": 900, "matched": 0}, {}, [], id="nothing that could wait"),
    ],
)
def test_what_is_asked(change: dict[str, int], guard: dict[str, object], kinds: list[str]) -> None:
    reasons = judge(replace(USUAL, **change), Guard.model_validate(guard))
    assert [reason.kind for reason in reasons] == kinds


def test_a_failed_gate_asks_even_at_a_first_load() -> None:
    (reason,) = judge(replace(USUAL, present=0), Guard(), ["3 rows have no time", "2 profiles are gone"])
    assert reason.text == "the quality gate failed: 3 rows have no time; 2 profiles are gone"


def test_reasons_are_sentences_with_numbers() -> None:
    texts = [reason.text for reason in judge(replace(USUAL, adds=1234, removes=400, matched=400), Guard())]
    assert texts == [
        "the segment shrank from 1,000 to 400 people since the last plan that was sent, by 60% (max_shrink is 50%)",
        "1,234 people would come in, 123% of the 1,000 on the list (max_add is 50%)",
        "400 people would be removed, 40% of the 1,000 on the list (max_remove is 30%)",
    ]


@pytest.mark.parametrize(("people", "is_it"), [(5000, True), (5500, True), (4500, True), (5501, False), (4499, False)])
def test_about_the_same_size_is_the_same(people: int, is_it: bool) -> None:
    before = [Reason("adds", 5000, 1000, "")]
    assert is_same([Reason("adds", people, 1000, "")], before, small_change=50) is is_it
    assert not is_same([Reason("removes", people, 1000, "")], before, small_change=50)


def test_a_gate_that_says_the_same_of_more_rows_is_the_same() -> None:
    def failed(text: str) -> list[Reason]:
        return [Reason("quality_gate", 1, 1, text)]

    before = failed("the quality gate failed: 3 rows have no time")
    assert is_same(failed("the quality gate failed: 17 rows have no time"), before, small_change=50)
    assert not is_same(failed("the quality gate failed: 3 profiles are gone"), before, small_change=50)


STRICT = "guard: {max_add: 50%, max_remove: 30%, small_change: 0}"


def _fill(world: World, people: int) -> None:
    for number in range(people):
        world.person(f"p{number}", email=f"p{number}@x.com")


@pytest.mark.parametrize("quiet_runs", [0, 1])
def test_an_emptied_list_is_no_first_load(world: World, quiet_runs: int) -> None:
    world.policy("guard: {small_change: 0}")
    _fill(world, 4)
    world.sync()
    for _ in range(quiet_runs):
        assert world.plan().rows == 0
    for number in range(4):
        world.lost(f"p{number}@x.com")

    plan = world.plan()

    assert (plan.verdict, plan.adds) == ("ask", 4)
    (reasons,) = world.warehouse.tuples("select reasons from sync.plans where plan_id = :p", p=plan.plan_id)
    (reason,) = json.loads(str(reasons[0]))
    assert reason["text"] == (
        "4 people would come in, 100% of the 4 who should be on the list, which somebody has emptied (max_add is 50%)"
    )


def test_a_list_that_was_forgotten_is_filled_anew(world: World) -> None:
    world.policy("guard: {small_change: 0}")
    _fill(world, 4)
    world.sync()
    forget_list(world.warehouse, "carts", "mailchimp")

    assert world.plan().verdict == "clear"


def test_what_waits_is_stored_with_its_reasons(world: World) -> None:
    world.policy(STRICT)
    _fill(world, 4)
    assert world.sync().verdict == "clear"
    _fill_more = [world.person(f"new{number}", email=f"new{number}@x.com") for number in range(3)]

    plan = world.plan()

    stored = world.warehouse.read("select * from sync.plans where plan_id = :p", p=plan.plan_id)[0]
    assert (plan.verdict, plan.adds, stored["verdict"], stored["present"]) == ("ask", len(_fill_more), "ask", 4)
    assert json.loads(stored["reasons"]) == [
        {
            "kind": "adds",
            "people": 3,
            "of": 4,
            "text": "3 people would come in, 75% of the 4 on the list (max_add is 50%)",
        }
    ]
    assert len(world.rows(plan)) == 3


@pytest.mark.on_spark
def test_who_said_no_leaves_while_the_rest_waits(world: World) -> None:
    world.policy(STRICT)
    _fill(world, 8)
    world.sync()
    world.execute("delete from segments.carts where profile_id <> 'p0'")
    world.execute("update core.consents set status = 'denied' where profile_id = 'p1' and channel = 'email'")
    world.insert("core.suppressions", {"profile_id": "p2", "channel": "all", "reason": "erased"})
    world.opt_out("p3@x.com")
    world.insert("core.profile_merges", {"profile_id": "p4", "into_profile_id": "p4b", "merged_at": world.as_of})
    world.insert("core.suppressions", {"profile_id": "p4b", "channel": "email", "reason": "bounced"})
    # not for this channel, and not what a person said: both can wait
    world.insert("core.suppressions", {"profile_id": "p5", "channel": "ads", "reason": "opted_out"})
    world.execute("delete from core.consents where profile_id = 'p6'")

    plan = world.plan()

    assert (plan.verdict, plan.removes) == ("ask", 3)
    assert world.sent(plan) == [("remove", f"p{number}@x.com") for number in (5, 6, 7)]
    urgent = world.warehouse.read("select * from sync.plans where urgent_of = :p", p=plan.plan_id)[0]
    assert (urgent["plan_id"], urgent["verdict"], urgent["removes"]) == (plan.urgent_plan_id, "clear", 4)
    newest = world.warehouse.scalar("select plan_id from sync.plans order by created_at desc limit 1")
    assert newest == plan.plan_id  # what reports look at
    keys = world.warehouse.read(
        "select member_key from sync.plan_rows where plan_id = :p order by row_number", p=plan.urgent_plan_id
    )
    assert [row["member_key"] for row in keys] == [f"p{number}@x.com" for number in (1, 2, 3, 4)]


def test_a_no_under_an_address_that_was_given_up_is_urgent_too_however_it_is_written(world: World) -> None:
    world.policy(STRICT)
    _fill(world, 8)
    world.sync()
    world.execute("delete from segments.carts where profile_id <> 'p0'")
    world.gave_up("p1", "p1.before@x.com")
    world.opt_out("P1.Before@X.com")
    world.opt_out(" P2@x.com")
    # she was sent to the list with it, and has it no more
    world.execute("update core.identifiers set identifier_value = 'p3.now@x.com' where identifier_value = 'p3@x.com'")
    world.opt_out("P3@X.COM")
    world.opt_out("P4@x.com")
    world.opt_out("p4@x.com", is_active=False, read_at=world.as_of + timedelta(hours=1))  # and she came back

    plan = world.plan()

    assert plan.verdict == "ask"
    assert world.sent(plan) == [("remove", f"p{number}@x.com") for number in (4, 5, 6, 7)]
    keys = world.warehouse.read("select member_key from sync.plan_rows where plan_id = :p", p=plan.urgent_plan_id)
    assert sorted(row["member_key"] for row in keys) == [f"p{number}@x.com" for number in (1, 2, 3)]


def test_a_wave_of_opt_outs_alone_waits_for_nobody(world: World) -> None:
    world.policy(STRICT)
    _fill(world, 4)
    world.sync()
    for number in range(3):
        world.opt_out(f"p{number}@x.com")

    plan = world.plan()

    assert (plan.verdict, plan.removes, plan.urgent_plan_id) == ("clear", 3, None)


def test_what_was_let_through_and_is_not_delivered_yet_is_no_new_flood(world: World) -> None:
    world.policy(STRICT)
    _fill(world, 6)
    first = world.plan()
    world.answer(first, only="p0@x.com")  # a daily quota, a crash: one of six arrived

    second = world.plan()

    assert (second.verdict, second.adds) == ("clear", 5)
    # a plan nobody began to send is no yardstick
    world.person("eve", email="eve@x.com")
    world.person("joe", email="joe@x.com")
    assert world.plan().verdict == "ask"


def test_a_shrunken_segment_is_compared_with_the_last_plan_that_was_sent(world: World) -> None:
    world.policy("guard: {max_remove: 100%, max_shrink: 50%, small_change: 0}")
    _fill(world, 4)
    world.sync()
    world.execute("delete from segments.carts where profile_id <> 'p0'")

    assert [world.plan().verdict for _ in range(2)] == ["ask", "ask"]
