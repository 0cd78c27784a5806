"""Both destinations against the sandbox that ships with the project, which is stricter than the small stand-ins."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from include.connections import Connection
from include.destinations.base import Member, RowResult
from include.destinations.google_ads import GoogleAds, GoogleAdsSettings
from include.destinations.mailchimp import Mailchimp, MailchimpSettings
from include.errors import AudienceRejected, AuthenticationError
from include.identity.hashing import google_email_sha256, google_phone_sha256
from tests.include.destinations.running_sandbox import RunningSandbox

LIST = "a1b2c3d4e5"


@pytest.fixture(scope="module")
def sandbox(served: RunningSandbox) -> str:
    """The address of a running sandbox, empty but for one Mailchimp list."""
    served.control("mailchimp", {"lists": [{"id": LIST, "name": "Newsletter"}]})
    return served.url


def control(sandbox: str, name: str, body: object) -> None:
    httpx.post(f"{sandbox}/_sandbox/{name}", json=body).raise_for_status()


def held(sandbox: str, platform: str, label: str) -> dict[str, Any]:
    found = httpx.get(f"{sandbox}/_sandbox/lists").json()
    return next(item for item in found if item["platform"] == platform and item["audience"] == label)


def mailchimp(sandbox: str, **options: str) -> Mailchimp:
    connection = Connection("mailchimp_default", host=f"{sandbox}/mailchimp", password="0123456789abcdef" * 2 + "-us6")
    return Mailchimp(connection, MailchimpSettings(audience="Newsletter", **options))


def google(sandbox: str, refresh_token: str = "token", **options: object) -> GoogleAds:
    return GoogleAds(
        Connection(
            "google_ads_default",
            host=f"{sandbox}/datamanager",
            extra={
                "customer_id": "444-555-6666", "login_customer_id": "1112223333", "refresh_token": refresh_token,
                "client_id": "client", "client_secret": "secret", "token_uri": f"{sandbox}/datamanager/token",
            },
        ),
        GoogleAdsSettings.model_validate(options),
    )  # fmt: skip


def reader(address: str, **fields: str | None) -> Member:
    return Member(address, {"email": [address]}, fields)


def person(email: str, phone: str = "") -> Member:
    identifiers = {"google_email_sha256": [google_email_sha256(email)]}
    if phone:
        identifiers["google_phone_sha256"] = [google_phone_sha256(phone)]
    return Member(identifiers["google_email_sha256"][0], identifiers, {})


def test_mailchimp_adds_updates_and_removes(sandbox: str) -> None:
    members = [
        {"list_id": LIST, "email_address": "old@shop.example", "status": "subscribed"},
        {"list_id": LIST, "email_address": "left@shop.example", "status": "unsubscribed"},
        {"list_id": LIST, "email_address": "dead@shop.example", "status": "cleaned"},
    ]
    control(sandbox, "mailchimp", {"members": members})
    destination = mailchimp(sandbox)
    destination.check()
    list_id = destination.ensure_audience("Carts", "", ["CART_URL"])
    assert destination.ensure_audience("Carts", "", ["CART_URL"]) == list_id
    batch = [
        reader("old@shop.example", CART_URL="https://s.example/1"),
        reader("New@shop.example", CART_URL=None),
        reader("left@shop.example", CART_URL=""),
        reader("dead@shop.example", CART_URL=""),
        reader("broken@", CART_URL=""),
    ]
    results = destination.add(list_id, batch)
    assert [result.status for result in results] == ["accepted", "accepted", "rejected", "rejected", "rejected"]
    assert [result.reason for result in results[2:4]] == ["unsubscribed at Mailchimp", "cleaned at Mailchimp"]
    assert destination.add(list_id, batch[:2]) == [RowResult("accepted")] * 2
    there = held(sandbox, "mailchimp", "Carts")
    assert there["statuses"] == {"old@shop.example": "subscribed", "New@shop.example": "transactional"}
    assert there["merge_fields"]["old@shop.example"]["CART_URL"] == "https://s.example/1"
    assert set(destination.read_back(list_id)) == {"old@shop.example", "new@shop.example"}
    assert destination.remove(list_id, batch[:1]) == [RowResult("accepted")]
    assert held(sandbox, "mailchimp", "Carts")["members"] == ["New@shop.example"]


def test_mailchimp_people_who_erase_themselves_stay_away(sandbox: str) -> None:
    control(sandbox, "mailchimp", {"members": [{"list_id": LIST, "email_address": "gone@shop.example"}]})
    destination = mailchimp(sandbox)
    list_id = destination.ensure_audience("Erased", "", [])
    destination.add(list_id, [reader("gone@shop.example")])
    destination.erase({"email": ["gone@shop.example"]})
    destination.erase({"email": ["gone@shop.example"]})
    (result,) = destination.add(list_id, [reader("gone@shop.example")])
    assert (result.status, result.reason.split(":")[0]) == ("rejected", "Forgotten Email Not Subscribed")
    assert held(sandbox, "mailchimp", "Erased")["members"] == []


def test_mailchimp_leaves_new_people_out_when_told_so(sandbox: str) -> None:
    destination = mailchimp(sandbox, new_contacts="skip")
    list_id = destination.ensure_audience("Known only", "", [])
    assert destination.add(list_id, [reader("unknown@shop.example")]) == [
        RowResult("rejected", "not on the Mailchimp list")
    ]


def test_mailchimp_tells_who_left_and_who_came_back(sandbox: str) -> None:
    people = [{"list_id": LIST, "email_address": f"reader{i}@shop.example"} for i in range(3)]
    control(sandbox, "mailchimp", {"members": people})
    action = {"list_id": LIST, "email": "reader1@shop.example", "status": "unsubscribed"}
    control(sandbox, "mailchimp", {"actions": [action]})
    destination = mailchimp(sandbox)
    told = {answer.value: answer for answer in destination.read_opt_outs(None)}
    assert told["reader1@shop.example"].is_active
    assert "reader2@shop.example" not in told
    left_at = told["reader1@shop.example"].occurred_at
    control(sandbox, "mailchimp", {"actions": [{**action, "status": "subscribed"}]})
    back = {answer.value: answer.is_active for answer in destination.read_opt_outs(left_at)}
    assert back["reader1@shop.example"] is False


def test_mailchimp_survives_cuts_throttling_and_half_answers(sandbox: str, waits: list[float]) -> None:
    destination = mailchimp(sandbox)
    list_id = destination.ensure_audience("Stormy", "", [])
    fault = {"platform": "mailchimp", "route": f"POST /3.0/lists/{LIST}$|POST /lists/{LIST}$"}
    control(
        sandbox,
        "faults",
        [
            {**fault, "kind": "cut_after_commit"},
            {**fault, "kind": "status", "code": 403},
            {**fault, "kind": "truncated"},
            {**fault, "kind": "status", "code": 502},
        ],
    )
    assert destination.add(list_id, [reader("storm@shop.example")]) == [RowResult("accepted")]
    assert len(waits) == 4
    assert held(sandbox, "mailchimp", "Stormy")["members"] == ["storm@shop.example"]


def test_google_takes_people_and_answers_later(sandbox: str) -> None:
    destination = google(sandbox)
    destination.check()
    list_id = destination.ensure_audience('Carts "now"', "In the cart", [])
    assert google(sandbox).ensure_audience('Carts "now"', "", []) == list_id
    batch = [person("ana@shop.example", "+491711234567"), person("bo@shop.example")]
    results = destination.add(list_id, batch)
    assert [result.status for result in results] == ["pending", "pending"]
    request_id = results[0].request_id or ""
    while (outcome := destination.outcome(request_id)).status == "pending":
        pass
    assert (outcome.status, outcome.accepted, outcome.rejected) == ("succeeded", 2, 0)
    assert len(held(sandbox, "datamanager", 'Carts "now"')["members"]) == 3
    (removed,) = destination.remove(list_id, batch[:1])
    while (outcome := destination.outcome(removed.request_id or "")).status == "pending":
        pass
    assert (outcome.status, outcome.accepted) == ("succeeded", 1)
    assert held(sandbox, "datamanager", 'Carts "now"')["members"] == [batch[1].member_key]


def test_google_names_bad_rows_and_the_rest_goes_in(sandbox: str) -> None:
    destination = google(sandbox)
    list_id = destination.ensure_audience("Mixed", "", [])
    bad = Member("bad", {"google_email_sha256": ["not a hash"]}, {})
    results = destination.add(list_id, [bad, person("cy@shop.example"), bad])
    assert [result.status for result in results] == ["rejected", "pending", "rejected"]
    assert results[0].reason in ("INVALID_SHA256_FORMAT", "INVALID_HEX_ENCODING")


def test_google_keeps_members_as_long_as_the_audience_file_says(sandbox: str) -> None:
    for days in (30, 540):
        google(sandbox, membership_days=days).ensure_audience("Long", "", [])
        found = google(sandbox)._find("Long")
        assert found.membership_duration.days == days


def test_google_lets_nobody_into_a_closed_list_and_says_nothing(sandbox: str) -> None:
    destination = google(sandbox)
    list_id = destination.ensure_audience("Closed", "", [])

    def add(email: str) -> str:
        (result,) = destination.add(list_id, [person(email)])
        while (outcome := destination.outcome(result.request_id or "")).status == "pending":
            pass
        return outcome.status

    add("ana@shop.example")
    body = {"name": destination._find("Closed").name, "membershipStatus": "CLOSED"}
    path = f"{sandbox}/datamanager/v1/{body['name']}?updateMask=membershipStatus"
    destination._session.patch(
        path, json=body, headers={"login-account": destination._metadata[0][1]}
    ).raise_for_status()
    assert (add("ana@shop.example"), add("bo@shop.example")) == ("succeeded", "succeeded")
    assert held(sandbox, "datamanager", "Closed")["members"] == [person("ana@shop.example").member_key]
    destination.ensure_audience("Closed", "", [])
    with pytest.raises(AudienceRejected, match="is closed"):
        destination.add(list_id, [person("bo@shop.example")])


def test_google_says_no_to_a_revoked_login(sandbox: str) -> None:
    with pytest.raises(AuthenticationError, match="google_ads_default"):
        google(sandbox, "revoked").check()
