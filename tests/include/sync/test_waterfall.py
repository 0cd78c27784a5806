"""From segment to members: who is on a list, who is not, and at which one step she fell out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.errors import ConfigurationError
from tests.include.sync.target_world import AS_OF, World, world

__all__ = ["world"]


@pytest.mark.on_spark
def test_everyone_falls_out_at_exactly_one_step_and_the_rest_are_members(world: World) -> None:
    world.policy("frequency_cap: {touches: 1, per: 7d}\nexclusive: lifecycle\npriority: 1")
    world.audience("winners", "exclusive: lifecycle\npriority: 2")
    # every reason to fall out at once, then one fewer each time
    world.person("p1", is_bot=True, consent="denied")
    world.person("p2", consent="denied")
    world.person("p3", email="c@x.com", consent="denied")
    world.person("p4", email="d@x.com")
    world.person("p5", email="e@x.com")
    world.person("p6", email="f@x.com")
    world.person("p7", email="g@x.com")
    for profile in ("p1", "p2", "p3", "p4"):
        world.insert("core.suppressions", {"profile_id": profile, "channel": "email", "reason": "opted_out"})
    for profile in ("p1", "p2", "p3", "p4", "p5"):
        world.insert(
            "core.engagement",
            {"profile_id": profile, "channel": "email", "type": "sent", "occurred_at": AS_OF - timedelta(days=1)},
        )
    for profile in ("p1", "p2", "p3", "p4", "p5", "p6"):
        world.match(profile, "winners")

    plan = world.plan()

    assert world.excluded(plan) == [
        ("p1", "bot_or_staff", "bot"),
        ("p2", "reachable", "no e-mail address of her own"),
        ("p3", "consent", "consent denied"),
        ("p4", "suppression", "opted_out"),
        ("p5", "frequency_cap", "1 touches in 7d"),
        ("p6", "priority", "kept by the audience winners"),
    ]
    assert world.sent(plan) == [("add", "g@x.com")]
    assert plan.excluded == {
        "bot_or_staff": 1,
        "reachable": 1,
        "consent": 1,
        "suppression": 1,
        "frequency_cap": 1,
        "priority": 1,
    }
    assert plan.matched == plan.members + sum(plan.excluded.values())


@pytest.mark.parametrize("state", ["shared", "quarantined"])
def test_an_identifier_that_belongs_to_nobody_is_not_used(world: World, state: str) -> None:
    # Ana has an e-mail of her own; the phone is the family's
    world.person("ana", email="ana@x.com")
    world.identifier("ana", "phone", "+421900000001", state)
    # Bob has nothing but the family's phone
    world.person("bob")
    world.identifier("bob", "phone", "+421900000001", state)

    plan = world.plan("google_ads")

    assert [row["profile_id"] for row in world.rows(plan)] == ["ana"]
    assert "phone" not in world.rows(plan)[0]["identifiers"]
    assert world.excluded(plan) == [("bob", "reachable", "no e-mail address or phone number of her own")]


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        (["granted"], None),
        ([], "consent unknown"),
        (["unknown"], "consent unknown"),
        (["denied"], "consent denied"),
        (["granted", "denied"], "consent denied"),
    ],
)
def test_consent_must_be_granted_and_any_no_is_a_no(world: World, answers: list[str], outcome: str | None) -> None:
    world.person("ana", email="ana@x.com", consent=None)
    for status in answers:
        world.insert("core.consents", {"profile_id": "ana", "channel": "email", "status": status})

    expected = [] if outcome is None else [("ana", "consent", outcome)]
    assert world.excluded(world.plan()) == expected


def test_unknown_consent_is_enough_where_the_audience_says_so_but_a_no_stays_a_no(world: World) -> None:
    world.policy("channels: {email: {consent: email, unknown: allow}, ads: {consent: ads}}")
    world.person("ana", email="ana@x.com", consent=None)
    world.person("bob", email="bob@x.com", consent="denied")

    plan = world.plan()

    assert world.sent(plan) == [("add", "ana@x.com")]
    assert world.excluded(plan) == [("bob", "consent", "consent denied")]


def test_a_segment_can_keep_a_profile_to_one_channel(world: World) -> None:
    world.person("ana", email="ana@x.com", allowed_channels="ads")
    world.person("bob", email="bob@x.com", allowed_channels="email, ads")

    assert world.sent(world.plan()) == [("add", "bob@x.com")]
    assert world.plan("google_ads").members == 2


@pytest.mark.parametrize("in_segment", [True, False])
@pytest.mark.parametrize("how", ["denied", "opted_out", "told"])
def test_a_no_holds_for_everyone_with_the_same_hash(world: World, how: str, *, in_segment: bool) -> None:
    """Google knows no dots in a Gmail address: Ana's two profiles are one person there."""
    world.person("bob", email="ana.b@gmail.com")
    world.sync("google_ads")
    world.person("ana", email="a.n.a.b@gmail.com", in_segment=in_segment)
    if how == "denied":
        world.execute("update core.consents set status = 'denied' where profile_id = 'ana' and channel = 'ads'")
    elif how == "opted_out":
        world.insert("core.suppressions", {"profile_id": "ana", "channel": "all", "reason": "opted_out"})
    else:
        world.opt_out("a.n.a.b@gmail.com", channel="all")
    plan = world.plan("google_ads")
    assert [action for action, _ in world.sent(plan)] == ["remove"]
    assert ("bob", "suppression", "somebody with the same identifier has said no") in world.excluded(plan)
    if how == "told":  # at Mailchimp these are two addresses
        assert world.sent(world.plan()) == [("add", "ana.b@gmail.com")]


def test_a_no_with_the_same_hash_leaves_while_the_rest_waits(world: World) -> None:
    world.policy("guard: {max_remove: 1%, small_change: 0}")
    for name in ("ana.b", "cy", "di", "ed"):
        world.person(name, email=f"{name}@gmail.com")
    world.sync("google_ads")
    world.person("ana", email="anab@gmail.com", ads_consent="denied", in_segment=False)
    world.execute("delete from segments.carts where profile_id in ('cy', 'di')")
    plan = world.plan("google_ads")
    assert plan.verdict == "ask"
    assert plan.urgent_plan_id is not None
    urgent = world.warehouse.tuples("select profile_id from sync.plan_rows where plan_id = :p", p=plan.urgent_plan_id)
    assert urgent == [("ana.b",)]


@pytest.mark.parametrize("reason", ["opted_out", "bounced", "complained", "erased"])
def test_suppression_holds_though_the_audience_names_none(world: World, reason: str) -> None:
    world.policy("suppress: []")
    world.person("ana", email="ana@x.com")
    world.insert("core.suppressions", {"profile_id": "ana", "channel": "email", "reason": reason})

    assert world.excluded(world.plan()) == [("ana", "suppression", reason)]


def test_other_reasons_hold_when_the_audience_names_them(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.insert("core.suppressions", {"profile_id": "ana", "channel": "all", "reason": "vip"})

    assert world.plan().members == 1
    world.policy("suppress: [vip]")
    assert world.excluded(world.plan()) == [("ana", "suppression", "vip")]


def test_an_opt_out_closes_its_own_channel_and_one_for_all_closes_every(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.person("bob", email="bob@x.com")
    world.insert("core.suppressions", {"profile_id": "ana", "channel": "email", "reason": "opted_out"})
    world.insert("core.suppressions", {"profile_id": "bob", "channel": "all", "reason": "erased"})

    assert world.plan().members == 0
    assert [row["profile_id"] for row in world.rows(world.plan("google_ads"))] == ["ana"]


def test_an_opt_out_read_after_the_build_counts_already(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.sync()
    world.opt_out("ana@x.com")

    plan = world.plan()

    assert world.sent(plan) == [("remove", "ana@x.com")]
    assert world.excluded(plan) == [("ana", "suppression", "opted_out")]


def test_an_opt_out_of_an_old_address_follows_the_person(world: World) -> None:
    world.person("ana", email="new@x.com", emails=("old@x.com",))
    world.opt_out("old@x.com")

    assert world.excluded(world.plan()) == [("ana", "suppression", "opted_out")]


@pytest.mark.on_spark
def test_an_opt_out_of_the_address_she_was_sent_with_follows_her_to_another_one(world: World) -> None:
    world.person("ana", email="old@x.com")
    world.sync()
    # the CRM knows only the new address, under a profile that took in the old one; the tool says no for the old one
    for table in ("core.profiles", "core.identifiers", "core.consents", "segments.carts"):
        world.execute(f"update {table} set profile_id = 'anna'")
    world.execute("update core.profiles set email = 'new@x.com'")
    world.execute("update core.identifiers set identifier_value = 'new@x.com'")
    world.insert("core.profile_merges", {"profile_id": "ana", "into_profile_id": "anna", "merged_at": AS_OF})
    world.opt_out("old@x.com")

    plan = world.plan()

    assert world.sent(plan) == [("remove", "old@x.com")]
    assert world.excluded(plan) == [("anna", "suppression", "opted_out")]


@pytest.mark.on_spark
def test_an_opt_out_of_an_address_her_contact_gave_up_follows_her(world: World) -> None:
    world.person("ana", email="new@x.com")
    world.identifier("ana", "contact_id", "hubspot:1")
    for value, is_current in (("old@x.com", False), ("new@x.com", True)):
        world.insert(
            "staging.contact_identifiers",
            {"source": "hubspot", "contact_id": "1", "kind": "email", "value": value, "is_current": is_current},
        )
    world.person("bob", email="bob@x.com")
    world.opt_out("Old@X.com")

    assert world.excluded(world.plan()) == [("ana", "suppression", "opted_out")]


def test_a_tool_may_write_an_address_in_other_letters(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.opt_out(" Ana@X.com", read_at=AS_OF - timedelta(days=2))
    assert world.plan().members == 0

    world.opt_out("ANA@x.com", read_at=AS_OF - timedelta(days=1), is_active=False)
    assert world.plan().members == 1


def test_who_left_one_list_of_a_tool_and_is_on_another_has_said_no(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.opt_out("ana@x.com", list_name="Newsletter", read_at=AS_OF - timedelta(days=2))
    world.opt_out("ana@x.com", list_name="VIP", is_active=False, read_at=AS_OF - timedelta(days=1))
    assert world.plan().members == 0

    world.opt_out("ana@x.com", list_name="Newsletter", is_active=False)
    assert world.plan().members == 1


def test_a_yes_somewhere_else_does_not_open_what_is_closed(world: World) -> None:
    world.person("ana", email="ana@x.com", emails=("other@x.com",))
    world.insert("core.suppressions", {"profile_id": "ana", "channel": "email", "reason": "opted_out"})
    world.insert("core.consents", {"profile_id": "ana", "channel": "email", "status": "granted"})
    world.opt_out("other@x.com", is_active=False)

    assert world.excluded(world.plan()) == [("ana", "suppression", "opted_out")]


def test_the_newest_answer_of_a_tool_holds(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.opt_out("ana@x.com", read_at=AS_OF - timedelta(days=2))
    world.opt_out("ana@x.com", read_at=AS_OF - timedelta(days=1), is_active=False)

    assert world.plan().members == 1


def test_an_opt_out_from_e_mail_is_none_from_ads(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.opt_out("ana@x.com")

    assert world.plan("google_ads").members == 1


@pytest.mark.parametrize(("days", "members"), [(29, 0), (30, 0), (31, 1)])
def test_recent_purchasers_are_left_out_for_the_days_the_audience_says(world: World, days: int, members: int) -> None:
    world.policy("suppress: [{recent_purchasers: 30d}]")
    world.person("ana", email="ana@x.com")
    world.insert("core.profile_activity", {"profile_id": "ana", "last_order_at": AS_OF - timedelta(days=days)})

    assert world.plan().members == members


def test_who_bought_is_not_left_out_by_default(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.insert("core.profile_activity", {"profile_id": "ana", "last_order_at": AS_OF - timedelta(days=1)})

    assert world.plan().members == 1


@pytest.mark.parametrize(
    ("ages", "members"),
    [
        ([timedelta(days=1), timedelta(days=2)], 1),  # two of three
        ([timedelta(days=1), timedelta(days=2), timedelta(days=7)], 0),  # exactly seven days ago is within
        ([timedelta(days=1), timedelta(days=2), timedelta(days=7, seconds=1)], 1),
        ([timedelta(days=1), timedelta(days=2), timedelta(0)], 1),  # at as_of itself: not yet
    ],
)
def test_the_cap_counts_what_was_sent_within_its_time(world: World, ages: list[timedelta], members: int) -> None:
    world.policy("frequency_cap: {touches: 3, per: 7d}")
    world.person("ana", email="ana@x.com")
    for age in ages:
        world.insert(
            "core.engagement",
            {"profile_id": "ana", "channel": "email", "type": "sent", "occurred_at": AS_OF - age},
        )

    assert world.plan().members == members


def test_the_cap_gates_entry_and_keeps_who_is_a_member(world: World) -> None:
    world.policy("frequency_cap: {touches: 1, per: 7d}")
    world.person("ana", email="ana@x.com")
    world.sync()
    world.person("bob", email="bob@x.com")
    for profile in ("ana", "bob"):
        world.insert(
            "core.engagement",
            {"profile_id": profile, "channel": "email", "type": "sent", "occurred_at": AS_OF - timedelta(hours=1)},
        )

    plan = world.plan()

    assert world.sent(plan) == []
    assert (plan.members, plan.unchanged) == (1, 1)
    assert [row[:2] for row in world.excluded(plan)] == [("bob", "frequency_cap")]


def ad_row(world: World, destination: str, action: str, sequence: int, *, days_ago: float = 1, of: str = "ana") -> None:
    world.insert(
        "sync.ledger",
        {
            "sequence": sequence,
            "audience": "others",
            "destination": destination,
            "plan_id": f"plan-{sequence}",
            "action": action,
            "profile_id": of,
            "member_key": f"{of}-at-{destination}",
            "status": "accepted",
            "acknowledged_at": AS_OF - timedelta(days=days_ago),
        },
    )


@pytest.fixture
def capped_at_two(world: World) -> World:
    world.policy("frequency_cap: {touches: 2, per: 7d}")
    world.person("ana", email="ana@x.com")
    return world


def test_an_entry_into_an_ad_list_is_a_touch_and_being_updated_is_none(capped_at_two: World) -> None:
    ad_row(capped_at_two, "google_ads", "add", 1)
    ad_row(capped_at_two, "google_ads", "update", 2)

    assert capped_at_two.plan().members == 1


def test_an_e_mail_and_an_entry_into_an_ad_list_are_counted_together(capped_at_two: World) -> None:
    ad_row(capped_at_two, "google_ads", "add", 1)
    assert capped_at_two.plan().members == 1
    capped_at_two.insert(
        "core.engagement",
        {"profile_id": "ana", "channel": "email", "type": "sent", "occurred_at": AS_OF - timedelta(hours=1)},
    )

    assert [row[1] for row in capped_at_two.excluded(capped_at_two.plan())] == ["frequency_cap"]


def test_coming_back_into_an_ad_list_is_another_touch(capped_at_two: World) -> None:
    ad_row(capped_at_two, "google_ads", "add", 1)
    ad_row(capped_at_two, "google_ads", "remove", 2)
    ad_row(capped_at_two, "google_ads", "add", 3)

    assert [row[1] for row in capped_at_two.excluded(capped_at_two.plan())] == ["frequency_cap"]


def test_an_entry_of_a_profile_that_went_into_hers_is_hers(capped_at_two: World) -> None:
    capped_at_two.insert("core.profile_merges", {"profile_id": "anna", "into_profile_id": "ana", "merged_at": AS_OF})
    ad_row(capped_at_two, "google_ads", "add", 1, of="anna")
    ad_row(capped_at_two, "google_ads", "remove", 2, of="anna")
    assert capped_at_two.plan().members == 1

    ad_row(capped_at_two, "google_ads", "add", 3)

    assert [row[1] for row in capped_at_two.excluded(capped_at_two.plan())] == ["frequency_cap"]


def test_an_entry_long_ago_is_no_touch_now(capped_at_two: World) -> None:
    ad_row(capped_at_two, "google_ads", "add", 1, days_ago=20)
    ad_row(capped_at_two, "google_ads", "remove", 2, days_ago=10)
    ad_row(capped_at_two, "google_ads", "add", 3)

    assert capped_at_two.plan().members == 1


def test_an_entry_into_an_e_mail_tool_is_no_touch(capped_at_two: World) -> None:
    for sequence in (1, 2, 3):
        ad_row(capped_at_two, "mailchimp", "remove" if sequence == 2 else "add", sequence)

    assert capped_at_two.plan().members == 1


def test_the_largest_priority_of_a_group_keeps_the_profile(world: World) -> None:
    world.policy("exclusive: lifecycle\npriority: 5")
    world.audience("stronger", "exclusive: lifecycle\npriority: 10")
    world.audience("weaker", "exclusive: lifecycle\npriority: 1")
    world.audience("elsewhere", "exclusive: acquisition\npriority: 99")
    for name in ("stronger", "weaker", "elsewhere"):
        world.person(f"in_{name}", email=f"{name}@x.com")
        world.match(f"in_{name}", name)

    plan = world.plan()

    assert world.excluded(plan) == [("in_stronger", "priority", "kept by the audience stronger")]


def test_without_a_group_an_audience_competes_with_none(world: World) -> None:
    world.audience("other", "priority: 10")
    world.person("ana", email="ana@x.com")
    world.match("ana", "other")

    assert world.plan().members == 1


def test_a_rival_whose_segment_is_not_built_yet_keeps_nobody(world: World) -> None:
    world.policy("exclusive: lifecycle\npriority: 1")
    world.audience("stronger", "exclusive: lifecycle\npriority: 10")
    world.execute("drop table segments.stronger")
    world.person("ana", email="ana@x.com")

    assert world.plan().members == 1


def held_out(world: World, per_mille: int, destination: str = "mailchimp") -> set[str]:
    world.policy(f"holdout: {per_mille / 10}%")
    return {profile for profile, step, _ in world.excluded(world.plan(destination)) if step == "holdout"}


def test_raising_the_holdout_only_moves_people_out(world: World) -> None:
    for number in range(200):
        world.person(f"p{number}", email=f"p{number}@x.com")

    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 1000), st.integers(0, 1000))
    def check(one: int, other: int) -> None:
        smaller, larger = sorted((one, other))
        assert held_out(world, smaller) <= held_out(world, larger)

    check()
    assert held_out(world, 0) == set()
    assert len(held_out(world, 1000)) == 200
    assert 60 < len(held_out(world, 500)) < 140


def test_the_holdout_is_the_same_people_at_every_destination(world: World) -> None:
    for number in range(50):
        world.person(f"p{number}", email=f"p{number}@x.com")

    assert held_out(world, 300) == held_out(world, 300, "google_ads") != set()


def test_two_profiles_with_one_address_are_one_member(world: World) -> None:
    # Google folds dots of Gmail addresses: two people for us, one for it
    world.person("p1", email="ana.b@gmail.com")
    world.person("p2", email="anab@gmail.com")

    plan = world.plan("google_ads")

    assert [row["profile_id"] for row in world.rows(plan)] == ["p1"]
    assert world.excluded(plan) == [("p2", "same_address", "same address as another profile")]


def test_a_destination_on_a_channel_the_audience_does_not_have_is_an_error(world: World) -> None:
    (world.folder / "mail_only.yaml").write_text(
        (world.folder / "carts.yaml").read_text().replace("Carts", "Mail only")
        + "channels: {email: {consent: email}}\n"
    )
    world.execute("create table segments.mail_only as select * from segments.carts")

    with pytest.raises(ConfigurationError):
        world.plan("google_ads", "mail_only")
