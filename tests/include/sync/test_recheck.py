"""A plan that waited for a person is sent as it was reviewed, or refused because the world has moved on."""

from __future__ import annotations

import pytest

from include.errors import ConfigurationError, PlanOutdated
from include.sync import opt_outs
from include.sync.recheck import check_still_valid
from include.sync.run import push_reviewed
from include.warehouse.engine import Warehouse
from tests.include.sync.target_world import World, world

__all__ = ["world"]


_ON_THE_LIST = {"sequence": -1, "audience": "carts", "destination": "mailchimp", "plan_id": "old", "status": "accepted"}


@pytest.fixture
def planned(world: World) -> World:
    """Ana and Bob are on the list; a plan waits in which Bob leaves and Cyd comes in."""
    for name in ("ana", "bob"):
        world.person(name, email=f"{name}@x.com")
    world.sync()
    world.execute("delete from segments.carts where profile_id = 'bob'")
    world.person("cyd", email="cyd@x.com", emails=("former@x.com",))
    return world


@pytest.mark.on_spark
def test_a_plan_is_valid_while_nothing_happens_and_while_its_own_rows_are_sent(planned: World) -> None:
    plan = planned.plan()
    check_still_valid(planned.warehouse, plan.plan_id)

    planned.answer(plan, only="bob@x.com")

    check_still_valid(planned.warehouse, plan.plan_id)


def test_an_answer_to_another_plan_of_the_target_outdates_it(planned: World) -> None:
    plan = planned.plan()
    planned.sync("google_ads")
    check_still_valid(planned.warehouse, plan.plan_id)  # another target

    planned.sync()

    with pytest.raises(PlanOutdated, match=r"2 answers of other plans .* Plan the target again"):
        check_still_valid(planned.warehouse, plan.plan_id)


@pytest.mark.parametrize(("answer", "is_valid"), [("accepted", True), ("rejected", False), ("retry", False)])
def test_a_late_answer_that_confirms_what_was_pending_changes_nothing(
    world: World, answer: str, is_valid: bool
) -> None:
    world.person("ana", email="ana@x.com")
    first = world.plan("google_ads")
    world.answer(first, "pending")
    world.person("bob", email="bob@x.com")
    plan = world.plan("google_ads")

    world.answer(first, answer)

    if is_valid:
        check_still_valid(world.warehouse, plan.plan_id)
    else:
        with pytest.raises(PlanOutdated):
            check_still_valid(world.warehouse, plan.plan_id)


@pytest.mark.parametrize(
    "how", ["suppressed", "denied", "at a tool", "under a former address", "given up", "where she was sent", "erased"]
)
def test_who_has_said_no_since_outdates_it(planned: World, how: str) -> None:
    plan = planned.plan()
    if how == "suppressed":
        planned.insert("core.suppressions", {"profile_id": "cyd", "channel": "email", "reason": "complained"})
    elif how == "denied":
        planned.insert("core.consents", {"profile_id": "cyd", "channel": "email", "status": "denied"})
    elif how == "erased":
        planned.execute("delete from core.profiles where profile_id = 'cyd'")
    else:
        planned.gave_up("cyd", "given.up@x.com")
        planned.insert("sync.ledger", {**_ON_THE_LIST, "profile_id": "cyd", "member_key": "sent.with@x.com"})
        addresses = {
            "at a tool": "cyd@x.com",
            "under a former address": " Former@x.com",
            "given up": "Given.UP@X.com",
            "where she was sent": "sent.with@x.com",
        }
        planned.opt_out(addresses[how])

    with pytest.raises(PlanOutdated, match="since it was made") as refused:
        check_still_valid(planned.warehouse, plan.plan_id)

    assert "cyd" not in str(refused.value)
    assert ("0 of its people" if how == "erased" else "1 of its people") in str(refused.value)


def test_a_no_since_of_somebody_with_the_same_hash_outdates_it(world: World) -> None:
    world.person("ana", email="ana.b@gmail.com")
    plan = world.plan("google_ads")
    check_still_valid(world.warehouse, plan.plan_id)
    world.person("ana again", email="anab@gmail.com", ads_consent="denied", in_segment=False)
    with pytest.raises(PlanOutdated, match="1 of its people"):
        check_still_valid(world.warehouse, plan.plan_id)


def test_a_no_of_somebody_who_is_only_removed_is_no_reason_to_wait(planned: World) -> None:
    plan = planned.plan()
    planned.opt_out("bob@x.com")
    planned.opt_out("cyd@x.com", channel="ads")

    check_still_valid(planned.warehouse, plan.plan_id)


def test_a_plan_that_is_not_there_is_an_error_in_words(world: World) -> None:
    with pytest.raises(ConfigurationError, match="there is no plan nothing"):
        check_still_valid(world.warehouse, "nothing")


def test_the_tools_are_asked_who_said_no_before_a_reviewed_plan_is_sent(
    planned: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned.plan()

    def hear(warehouse: Warehouse, audience: str, destination: str) -> int:
        assert (audience, destination) == ("carts", "mailchimp")
        planned.opt_out("cyd@x.com")
        return 1

    monkeypatch.setattr(opt_outs, "read_before_push", hear)
    with pytest.raises(PlanOutdated, match="1 of its people"):
        push_reviewed(planned.warehouse, plan.plan_id)
