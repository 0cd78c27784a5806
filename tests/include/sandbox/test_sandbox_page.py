"""The page shows what the platforms hold, escaped, paged and without anything from outside."""

from __future__ import annotations

import re
from typing import Any

import pytest

LIST = "a1b2c3d4e5"
EVIL = '<script>alert("x")</script>'


def fill(mailchimp: Any, count: int = 1) -> None:
    members = [
        {"list_id": LIST, "email_address": f"p{number:03d}@shop.example", "merge_fields": {"FNAME": f"Person {number}"}}
        for number in range(count)
    ]
    mailchimp.client.post("/_sandbox/mailchimp", json={"members": members})


def tag(mailchimp: Any, name: str, email: str, **fields: str) -> None:
    row = {"email_address": email, "tags": [name], "merge_fields": fields}
    mailchimp.post(f"/lists/{LIST}", {"members": [row], "update_existing": True})


def text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def test_the_first_page_names_every_list_with_its_size(mailchimp: Any, google: Any) -> None:
    fill(mailchimp, 3)
    tag(mailchimp, "Cart abandoners", "p001@shop.example")
    body = {"displayName": "Lapsed buyers", "ingestedUserListInfo": {"uploadKeyTypes": ["CONTACT_ID"]}}
    google.post("/accountTypes/GOOGLE_ADS/accounts/4445556666/userLists", body)
    page = text_of(mailchimp.client.get("/"))
    assert '<a href="/view/mailchimp/tags/1">Cart abandoners</a>' in page
    assert '<a href="/view/google/lists/8000000001">Lapsed buyers</a>' in page
    assert "3 subscribed" in page
    assert "not computed" in page


def test_a_tag_shows_its_members_with_merge_fields_and_status(mailchimp: Any) -> None:
    fill(mailchimp, 3)
    tag(mailchimp, "Cart abandoners", "p001@shop.example", FNAME="Ana")
    page = text_of(mailchimp.client.get("/view/mailchimp/tags/1"))
    assert "p001@shop.example" in page
    assert "p002@shop.example" not in page
    assert ">Ana</td>" in page
    assert '<span class="tag good">subscribed</span>' in page


def test_members_are_paged_and_found(mailchimp: Any) -> None:
    fill(mailchimp, 120)
    address = f"/view/mailchimp/lists/{LIST}"
    seen: list[str] = []
    for number in (1, 2, 3):
        found = re.findall(
            r'<td class="name">(p\d+@shop\.example)</td>', text_of(mailchimp.client.get(f"{address}?page={number}"))
        )
        assert len(found) == (20 if number == 3 else 50)
        seen += found
    assert len(set(seen)) == 120
    found_page = text_of(mailchimp.client.get(f"{address}?q=person 77"))
    assert "p077@shop.example" in found_page
    assert "p078@shop.example" not in found_page
    assert "Nobody matches." in text_of(mailchimp.client.get(f"{address}?status=cleaned"))


@pytest.mark.parametrize(
    "path", ["/", f"/view/mailchimp/lists/{LIST}", "/view/mailchimp/tags/1", "/journal", "/journal/1", "/automations"]
)
def test_values_are_escaped_everywhere(mailchimp: Any, path: str) -> None:
    fill(mailchimp)
    tag(mailchimp, EVIL, "p000@shop.example", FNAME=EVIL)
    page = text_of(mailchimp.client.get(path))
    assert EVIL not in page
    assert "<script" not in page


def test_what_was_searched_for_is_escaped_too(mailchimp: Any) -> None:
    for path in (f"/view/mailchimp/lists/{LIST}", "/journal", "/automations"):
        page = text_of(mailchimp.client.get(path, params={"q": '"><img src=x>', "refresh": '5"><b>'}))
        assert "<img" not in page
        assert 'http-equiv="refresh"' not in page


def test_pages_load_nothing_from_elsewhere_and_run_no_scripts(mailchimp: Any) -> None:
    answer = mailchimp.client.get("/?refresh=5")
    assert '<meta http-equiv="refresh" content="5">' in answer.text
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_google_lists_show_hashes_and_their_search(google: Any) -> None:
    body = {"displayName": "Carts", "ingestedUserListInfo": {"uploadKeyTypes": ["CONTACT_ID"]}}
    google.post("/accountTypes/GOOGLE_ADS/accounts/4445556666/userLists", body)
    consent = {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"}
    account = {"accountType": "GOOGLE_ADS", "accountId": "4445556666"}
    request = {
        "destinations": [{"operatingAccount": account, "productDestinationId": "8000000001"}],
        "audienceMembers": [{"userData": {"userIdentifiers": [{"emailAddress": one * 32}]}} for one in ("ab", "cd")],
        "consent": consent,
        "encoding": "HEX",
        "termsOfService": {"customerMatchTermsOfServiceStatus": "ACCEPTED"},
    }
    request_id = google.post("/audienceMembers:ingest", request).json()["requestId"]
    assert "Nobody is on this list." in text_of(google.client.get("/view/google/lists/8000000001"))
    for _ in range(2):
        google.get("/requestStatus:retrieve", requestId=request_id)
    page = text_of(google.client.get("/view/google/lists/8000000001?q=abab"))
    assert "ab" * 32 in page
    assert "cd" * 32 not in page


def test_the_journal_shows_requests_and_their_bodies(mailchimp: Any) -> None:
    fill(mailchimp)
    mailchimp.get("/ping")
    tag(mailchimp, "Carts", "p000@shop.example")
    mailchimp.get("/nothing")
    page = text_of(mailchimp.client.get("/journal"))
    assert page.index("/3.0/nothing") < page.index(f"/3.0/lists/{LIST}") < page.index("/3.0/ping")
    assert "/3.0/ping" not in text_of(mailchimp.client.get("/journal?only=writes"))
    assert "/3.0/nothing" in text_of(mailchimp.client.get("/journal?only=refused&platform=mailchimp"))
    assert "p000@shop.example" in text_of(mailchimp.client.get("/journal/2"))


def test_automations_are_listed(mailchimp: Any) -> None:
    fill(mailchimp)
    tag(mailchimp, "Carts", "p000@shop.example")
    assert "p000@shop.example" in text_of(mailchimp.client.get("/automations?q=carts"))
    assert "Nothing has fired." in text_of(mailchimp.client.get("/automations?q=lapsed"))


@pytest.mark.parametrize(
    "path", ["/nowhere", "/view/mailchimp/tags/9", "/view/google/lists/9", "/journal/9", "/mailchimp/lists"]
)
def test_what_is_not_there_is_404(client: Any, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_page_is_only_read(client: Any) -> None:
    assert client.post("/").status_code == 405
