"""What a member was sent with and has no more: it leaves an ad list when its owner of now says no."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from include.destinations.base import Destination, destination_class
from include.errors import TransientError
from include.identity import google_email_sha256, google_phone_sha256
from include.sync import requests
from include.sync.given_up import honour_given_up
from include.sync.leftovers import Honoured
from include.sync.push import confirm_plan, push_plan
from tests.include.destinations.fake_google_ads import Platform
from tests.include.sync.target_world import World, world

__all__ = ["world"]  # a fixture
PHONE = "+421900000001"
ANA, NUMBER = google_email_sha256("ana@x.com"), google_phone_sha256(PHONE)


class Ads:
    """Google Ads, and what a sync makes of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = Platform()
        self.is_down = False

    def connect(self, name: str, options: Mapping[str, object]) -> Destination:
        if self.is_down:
            raise TransientError(f"{name} gave no answer")
        cls = destination_class(name)
        return cls(self.server.connection(), cls.Settings.model_validate(dict(options)))

    def sync(self) -> None:
        plan = self.world.plan("google_ads")
        push_plan(self.world.warehouse, plan.plan_id, self.connect)
        assert confirm_plan(self.world.warehouse, plan.plan_id, self.connect)

    def honour(self) -> Honoured:
        self.server.journal.clear()
        return honour_given_up(self.world.warehouse, self.connect)


@pytest.fixture
def ads(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ads]:
    """Ana came in with a number that is Zoe's now, and Bo with one of his own."""
    monkeypatch.setattr(requests, "QUICK_POLLS", ())
    ads = Ads(world)
    world.person("ana", email="ana@x.com", phone=PHONE)
    world.person("bo", email="bo@x.com", phone="+421900000002")
    ads.sync()
    world.person("zoe", email="zoe@x.com", ads_consent=None, in_segment=False)
    world.execute("update core.identifiers set profile_id = 'zoe' where identifier_value = :phone", phone=PHONE)
    ads.sync()
    assert {ANA, NUMBER} <= ads.server.on_list()
    yield ads
    ads.server.close()


def deny(world: World, profile_id: str) -> None:
    world.insert("core.consents", {"profile_id": profile_id, "channel": "ads", "status": "denied"})


def test_it_stays_until_its_owner_says_no(world: World, ads: Ads) -> None:
    before = ads.server.on_list()
    assert ads.honour() == Honoured()
    assert (ads.server.on_list(), ads.server.journal) == (before, [])
    deny(world, "zoe")
    assert ads.honour().removed == 1
    assert ads.server.on_list() == before - {NUMBER}
    assert ads.honour() == Honoured()
    assert ads.server.journal == []
    assert world.plan("google_ads").rows == 0  # Ana is a member as she was


def test_when_it_comes_to_the_list_again_it_is_looked_for_again(world: World, ads: Ads) -> None:
    deny(world, "zoe")
    assert ads.honour().removed == 1
    world.execute("delete from core.consents where profile_id = 'zoe'")
    for owner in ("ana", "zoe"):  # hers again, and then not
        world.execute("update core.identifiers set profile_id = :o where identifier_value = :p", o=owner, p=PHONE)
        ads.sync()
        assert NUMBER in ads.server.on_list()
    deny(world, "zoe")
    assert ads.honour().removed == 1
    assert NUMBER not in ads.server.on_list()


def test_who_left_has_taken_it_with_her(world: World, ads: Ads) -> None:
    world.execute("delete from segments.carts where profile_id = 'ana'")
    ads.sync()
    assert not {ANA, NUMBER} & ads.server.on_list()
    deny(world, "zoe")
    assert ads.honour() == Honoured()


def test_a_platform_that_is_down_is_asked_again(world: World, ads: Ads) -> None:
    deny(world, "zoe")
    ads.is_down = True
    assert ads.honour().reasons == ("carts > google_ads: google_ads gave no answer",)
    ads.is_down = False
    assert ads.honour().removed == 1
