"""The Mailchimp stand-in: who may become what, what a 200 hides, and what a tag sets off."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

LIST = "a1b2c3d4e5"
BASE = f"/lists/{LIST}"
KEY = "0123456789abcdef0123456789abcdef-us6"
ANA = "ana@shop.example"
ANA_HASH = "2d8cfadecfa761464f728e264d3bdfe9"  # md5 of ana@shop.example


def people(mailchimp: Any, **statuses: str) -> None:
    """Members as they came about outside the API, `ana="unsubscribed"`."""
    members = [
        {"list_id": LIST, "email_address": f"{name}@shop.example", "status": status}
        for name, status in statuses.items()
    ]
    assert mailchimp.client.post("/_sandbox/mailchimp", json={"members": members}).status_code == 200


def acts(mailchimp: Any, email: str, status: str) -> None:
    actions = [{"list_id": LIST, "email": email, "status": status}]
    assert mailchimp.client.post("/_sandbox/mailchimp", json={"actions": actions}).status_code == 200


def batch(mailchimp: Any, *rows: dict[str, Any], params: str = "", **body: Any) -> dict[str, Any]:
    answer = mailchimp.post(f"{BASE}{params}", {"members": list(rows), "update_existing": True, **body})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    assert result["error_count"] == len(result["errors"])
    return result


def status_of(mailchimp: Any, email: str) -> str | None:
    answer = mailchimp.get(f"{BASE}/members/{email}")
    return answer.json()["status"] if answer.status_code == 200 else None


def refused(answer: Any, status: int, title: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["title"]) == (status, title)
    assert {"type", "detail", "instance"} <= body.keys()
    return body


# who may come in


@pytest.mark.parametrize(
    "header",
    [
        f"Bearer {KEY}",
        "Bearer 0123456789abcdef0123456789abcdef0123",
        "Basic " + base64.b64encode(f"anybody:{KEY}".encode()).decode(),
    ],
)
def test_the_key_is_taken_as_basic_password_or_bearer(mailchimp: Any, header: str) -> None:
    assert mailchimp("GET", "/ping", headers={"Authorization": header}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wrong",
        "Basic " + base64.b64encode(b"anybody:0123456789abcdef").decode(),
        "Basic " + base64.b64encode(f"{KEY}:".encode()).decode(),
        "Basic %%%",
        f"Token {KEY}",
    ],
)
def test_another_key_is_invalid(mailchimp: Any, header: str) -> None:
    refused(mailchimp("GET", "/ping", headers={"Authorization": header}), 401, "API Key Invalid")


def test_an_eleventh_connection_is_too_many(client: Any, mailchimp: Any) -> None:
    client.app.in_flight["mailchimp"] = 9
    assert mailchimp.get("/ping").status_code == 200
    client.app.in_flight["mailchimp"] = 10
    refused(mailchimp.get("/ping"), 429, "Too Many Requests")


def test_the_throttle_can_be_a_bare_403(make: Callable[..., Any], mailchimp_of: Callable[..., Any]) -> None:
    client = make(mailchimp={"bare_403": True})
    mailchimp = mailchimp_of(client)
    client.app.in_flight["mailchimp"] = 10
    answer = mailchimp.get("/ping")
    assert (answer.status_code, answer.content) == (403, b"")


def test_unknown_paths_methods_and_lists_have_their_own_problems(mailchimp: Any) -> None:
    refused(mailchimp.get("/nothing"), 404, "Resource Not Found")
    refused(mailchimp.get("/lists/0000000000/members"), 404, "Resource Not Found")
    answer = mailchimp("PATCH", f"{BASE}/members", {})
    refused(answer, 405, "Method Not Allowed")
    assert answer.headers["allow"] == "GET, POST"


# reading members


def test_members_are_paged_and_archived_ones_only_shown_on_request(mailchimp: Any) -> None:
    people(mailchimp, a="subscribed", b="unsubscribed", c="archived", d="cleaned")
    page = mailchimp.get(f"{BASE}/members", count=2, offset=2).json()
    assert (len(page["members"]), page["total_items"]) == (1, 3)
    archived = mailchimp.get(f"{BASE}/members", status="archived", fields="members.email_address,total_items").json()
    assert archived == {"members": [{"email_address": "c@shop.example"}], "total_items": 1}


def test_members_changed_since_are_found_in_order(mailchimp: Any) -> None:
    members = [
        {"list_id": LIST, "email_address": f"{name}@shop.example", "last_changed": f"2026-11-{day}T00:00:00+00:00"}
        for name, day in (("c", "03"), ("a", "01"), ("b", "02"))
    ]
    mailchimp.client.post("/_sandbox/mailchimp", json={"members": members})
    query = {"since_last_changed": "2026-11-01T00:00:00+00:00", "sort_field": "last_changed", "sort_dir": "DESC"}
    found = mailchimp.get(f"{BASE}/members", **query).json()["members"]
    assert [one["email_address"] for one in found] == ["c@shop.example", "b@shop.example"]
    older = mailchimp.get(f"{BASE}/members", before_last_changed="2026-11-02T00:00:00Z").json()["members"]
    assert {one["email_address"] for one in older} == {"a@shop.example", "b@shop.example"}


@pytest.mark.parametrize(
    ("params", "title"),
    [
        ({"count": 1001}, "Invalid Parameters"),
        ({"count": "all"}, "Invalid Parameters"),
        ({"since": "2026-01-01"}, "Invalid Parameters"),
        ({"since_last_changed": "last week"}, "Invalid Parameters"),
        ({"status": "active"}, "Invalid Resource"),
        ({"sort_field": "email_address"}, "Invalid Resource"),
    ],
)
def test_a_wrong_question_for_members_is_refused(mailchimp: Any, params: dict[str, Any], title: str) -> None:
    refused(mailchimp.get(f"{BASE}/members", **params), 400, title)


def test_a_member_is_found_by_md5_of_the_address_in_lower_case(mailchimp: Any) -> None:
    people(mailchimp, Ana="subscribed")
    found = mailchimp.get(f"{BASE}/members/{ANA_HASH}").json()
    assert (found["id"], found["email_address"]) == (ANA_HASH, "Ana@shop.example")
    assert mailchimp.get(f"{BASE}/members/{ANA}").json()["id"] == ANA_HASH


# the batch


def test_a_batch_adds_updates_and_reports_rows_inside_a_200(mailchimp: Any) -> None:
    people(mailchimp, old="subscribed", left="unsubscribed")
    result = batch(
        mailchimp,
        {"email_address": "old@shop.example", "merge_fields": {"FNAME": "Olga", "NOSUCH": "x"}},
        {"email_address": "new@shop.example", "status_if_new": "transactional"},
        {"email_address": "silent@shop.example"},
        {"email_address": "left@shop.example", "status": "subscribed"},
        {"email_address": "not an address", "status": "subscribed"},
        {"email_address": "odd@shop.example", "status": "active"},
        {"merge_fields": {}},
    )
    assert (result["total_created"], result["total_updated"], result["error_count"]) == (1, 1, 5)
    assert [one["email_address"] for one in result["new_members"]] == ["new@shop.example"]
    [updated] = result["updated_members"]
    assert (updated["status"], updated["merge_fields"]["FNAME"]) == ("subscribed", "Olga")
    assert "NOSUCH" not in updated["merge_fields"]
    errors = {one["email_address"]: one for one in result["errors"]}
    assert errors["silent@shop.example"]["field"] == "status"
    assert "compliance state" in errors["left@shop.example"]["error"]
    assert errors["odd@shop.example"]["error_code"] == "ERROR_GENERIC"
    assert set(errors) == {"silent@shop.example", "left@shop.example", "not an address", "odd@shop.example", ""}
    assert status_of(mailchimp, "new@shop.example") == "transactional"
    assert status_of(mailchimp, "silent@shop.example") is None
    assert status_of(mailchimp, "left@shop.example") == "unsubscribed"


def test_without_update_existing_who_is_there_is_an_error_row(mailchimp: Any) -> None:
    people(mailchimp, old="subscribed")
    result = batch(mailchimp, {"email_address": "old@shop.example", "status": "subscribed"}, update_existing=False)
    assert [one["error_code"] for one in result["errors"]] == ["ERROR_CONTACT_EXISTS"]


def test_an_address_twice_in_a_batch_is_an_error_row_unless_told_to_skip(mailchimp: Any) -> None:
    rows = [{"email_address": email, "status": "subscribed"} for email in ("a@shop.example", "A@shop.example ")]
    assert batch(mailchimp, *rows)["error_count"] == 1
    assert batch(mailchimp, *rows, params="?skip_duplicate_check=true")["error_count"] == 0


def test_status_in_a_batch_overwrites_what_the_api_set_before(mailchimp: Any) -> None:
    batch(mailchimp, {"email_address": ANA, "status": "unsubscribed"})
    assert batch(mailchimp, {"email_address": ANA})["error_count"] == 0
    assert status_of(mailchimp, ANA) == "unsubscribed"
    batch(mailchimp, {"email_address": ANA, "status": "subscribed"})
    assert status_of(mailchimp, ANA) == "subscribed"


@pytest.mark.parametrize(
    "body",
    [
        {"members": [{"email_address": f"p{n}@shop.example"} for n in range(501)]},
        {"members": {}},
        {"update_existing": True},
        {"members": [], "updateExisting": True},
        {"members": [], "sync_tags": "false"},
        {"members": ["ana@shop.example"]},
        {"members": [{"email_address": ANA, "merge_vars": {}}]},
        {"members": [{"email_address": ANA, "merge_fields": []}]},
        {"members": [{"email_address": ANA, "status": None}]},
        {"members": [{"email_address": 5}]},
        {"members": [{"email_address": ANA, "tags": "Carts"}]},
        {"members": [{"email_address": ANA, "tags": [{"name": "Carts", "status": "active"}]}]},
        [],
    ],
)
def test_a_batch_that_breaks_the_schema_is_refused_whole(mailchimp: Any, body: Any) -> None:
    assert refused(mailchimp.post(BASE, body), 400, "Invalid Resource")["errors"]
    assert mailchimp.get(f"{BASE}/members").json()["total_items"] == 0


def test_a_body_that_is_no_json_is_a_parse_error(mailchimp: Any) -> None:
    answer = mailchimp("POST", BASE, content=b"{", headers={"Content-Type": "application/json"})
    refused(answer, 400, "JSON Parse Error")


# the member state machine


@pytest.mark.parametrize("status", ["unsubscribed", "cleaned"])
@pytest.mark.parametrize("wanted", ["subscribed", "transactional"])
def test_who_left_or_bounced_cannot_be_brought_back(mailchimp: Any, status: str, wanted: str) -> None:
    people(mailchimp, ana=status)
    body = {"email_address": ANA, "status_if_new": wanted, "status": wanted}
    refused(mailchimp("PUT", f"{BASE}/members/{ANA_HASH}", body), 400, "Member In Compliance State")
    refused(mailchimp("PATCH", f"{BASE}/members/{ANA_HASH}", {"status": wanted}), 400, "Member In Compliance State")
    assert status_of(mailchimp, ANA) == status


def test_who_left_may_be_asked_again_but_who_bounced_may_not(mailchimp: Any) -> None:
    people(mailchimp, ana="unsubscribed", bea="cleaned")
    assert mailchimp("PATCH", f"{BASE}/members/{ANA}", {"status": "pending"}).status_code == 200
    answer = mailchimp("PATCH", f"{BASE}/members/bea@shop.example", {"status": "pending"})
    refused(answer, 400, "Member In Compliance State")


def test_who_left_and_was_archived_still_cannot_be_brought_back(mailchimp: Any) -> None:
    people(mailchimp, ana="unsubscribed")
    assert mailchimp("DELETE", f"{BASE}/members/{ANA_HASH}").status_code == 204
    assert status_of(mailchimp, ANA) == "archived"
    assert batch(mailchimp, {"email_address": ANA, "status": "subscribed"})["error_count"] == 1


def test_put_with_status_if_new_leaves_a_members_status_alone(mailchimp: Any) -> None:
    people(mailchimp, ana="unsubscribed")
    body = {"email_address": ANA, "status_if_new": "subscribed", "merge_fields": {"FNAME": "Ana"}}
    answer = mailchimp("PUT", f"{BASE}/members/{ANA_HASH}", body)
    assert (answer.json()["status"], answer.json()["merge_fields"]["FNAME"]) == ("unsubscribed", "Ana")


@pytest.mark.parametrize(
    "body",
    [
        {"email_address": ANA},
        {"email_address": ANA, "status": "subscribed"},
        {"status_if_new": "subscribed"},
        {"email_address": "bea@shop.example", "status_if_new": "subscribed"},
        {"email_address": ANA, "status_if_new": "archived"},
        {"email_address": ANA, "status_if_new": "subscribed", "tags": ["Carts"]},
    ],
)
def test_put_of_a_new_address_needs_status_if_new_and_the_right_hash(mailchimp: Any, body: dict[str, Any]) -> None:
    refused(mailchimp("PUT", f"{BASE}/members/{ANA_HASH}", body), 400, "Invalid Resource")


def test_post_of_an_existing_member_is_refused_and_of_a_new_one_taken(mailchimp: Any) -> None:
    body = {"email_address": ANA, "status": "subscribed", "tags": ["Carts"]}
    assert mailchimp.post(f"{BASE}/members", body).json()["tags"][0]["name"] == "Carts"
    refused(mailchimp.post(f"{BASE}/members", body), 400, "Member Exists")


def test_patch_of_nobody_is_not_found(mailchimp: Any) -> None:
    refused(mailchimp("PATCH", f"{BASE}/members/{ANA_HASH}", {}), 404, "Resource Not Found")


def test_archiving_is_no_unsubscribe_and_happens_once(mailchimp: Any) -> None:
    people(mailchimp, ana="subscribed")
    assert mailchimp("DELETE", f"{BASE}/members/{ANA_HASH}").status_code == 204
    refused(mailchimp("DELETE", f"{BASE}/members/{ANA_HASH}"), 405, "Method Not Allowed")
    assert batch(mailchimp, {"email_address": ANA})["updated_members"][0]["status"] == "archived"
    batch(mailchimp, {"email_address": ANA, "status": "subscribed"})
    assert status_of(mailchimp, ANA) == "subscribed"


def test_who_was_deleted_for_good_is_unknown_and_cannot_return(mailchimp: Any) -> None:
    people(mailchimp, ana="subscribed")
    batch(mailchimp, {"email_address": ANA, "tags": ["Carts"]})
    assert mailchimp.post(f"{BASE}/members/{ANA_HASH}/actions/delete-permanent", None).status_code == 204
    refused(mailchimp.get(f"{BASE}/members/{ANA_HASH}"), 404, "Resource Not Found")
    body = {"email_address": ANA, "status_if_new": "pending"}
    refused(mailchimp("PUT", f"{BASE}/members/{ANA_HASH}", body), 400, "Forgotten Email Not Subscribed")
    refused(
        mailchimp.post(f"{BASE}/members", {"email_address": ANA, "status": "subscribed"}),
        400,
        "Forgotten Email Not Subscribed",
    )
    [error] = batch(mailchimp, {"email_address": ANA, "status": "subscribed"})["errors"]
    assert "permanently deleted" in error["error"]
    held = mailchimp.client.get("/_sandbox/lists").json()
    assert [one["members"] for one in held] == [[]]


# merge fields


def test_merge_fields_are_made_and_checked_row_by_row(mailchimp: Any) -> None:
    for tag, kind in (("TOTAL", "number"), ("CART_URL", "url"), ("LEFT_ON", "date")):
        answer = mailchimp.post(f"{BASE}/merge-fields", {"tag": tag, "name": tag.title(), "type": kind})
        assert answer.json()["tag"] == tag
    people(mailchimp, ana="subscribed", bea="subscribed", cat="subscribed", dot="subscribed", eve="subscribed")

    def row(name: str, **fields: Any) -> dict[str, Any]:
        return {"email_address": f"{name}@shop.example", "merge_fields": fields}

    result = batch(
        mailchimp,
        row("ana", TOTAL="12.50", CART_URL="https://shop.example/c/1", LEFT_ON="2026-11-24"),
        row("bea", TOTAL="a lot"),
        row("cat", CART_URL="shop.example"),
        row("dot", LEFT_ON="yesterday"),
        row("eve", FNAME=None),
    )
    assert result["updated_members"][0]["merge_fields"]["TOTAL"] == 12.5
    assert [(one["field"], one["error"]) for one in result["errors"]] == [
        (tag, "Your merge fields were invalid.") for tag in ("TOTAL", "CART_URL", "LEFT_ON", "FNAME")
    ]
    assert result["errors"][0]["field_message"] == "Please enter a number"


def test_a_required_merge_field_refuses_rows_without_it_unless_validation_is_skipped(mailchimp: Any) -> None:
    mailchimp.post(f"{BASE}/merge-fields", {"tag": "SHOE", "name": "Shoe", "type": "text", "required": True})
    row = {"email_address": ANA, "status": "subscribed"}
    [error] = batch(mailchimp, row)["errors"]
    assert (error["field"], error["field_message"]) == ("SHOE", "This value should not be blank.")
    assert batch(mailchimp, row, params="?skip_merge_validation=true")["total_created"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {"tag": "ELEVENCHARS", "name": "x", "type": "text"},
        {"tag": "FNAME", "name": "again", "type": "text"},
        {"tag": "CART URL", "name": "x", "type": "text"},
        {"tag": "OK", "name": "x", "type": "money"},
        {"tag": "OK", "name": "x"},
        {"tag": "OK", "type": "text"},
        {"tag": "OK", "name": "x", "type": "text", "label": "x"},
        {"tag": "OK", "name": "x", "type": "text", "required": "yes"},
    ],
)
def test_a_wrong_merge_field_is_refused(mailchimp: Any, body: dict[str, Any]) -> None:
    refused(mailchimp.post(f"{BASE}/merge-fields", body), 400, "Invalid Resource")
    assert mailchimp.get(f"{BASE}/merge-fields", count=100).json()["total_items"] == 5


# tags


def test_tags_in_a_batch_are_added_and_the_others_kept(mailchimp: Any) -> None:
    people(mailchimp, ana="subscribed")
    batch(mailchimp, {"email_address": ANA, "tags": ["Carts"]})
    batch(mailchimp, {"email_address": ANA, "tags": ["Lapsed"]})
    assert [tag["name"] for tag in mailchimp.get(f"{BASE}/members/{ANA}/tags").json()["tags"]] == ["Carts", "Lapsed"]
    batch(mailchimp, {"email_address": ANA, "tags": ["Lapsed"]}, sync_tags=True)
    assert [tag["name"] for tag in mailchimp.get(f"{BASE}/members/{ANA}/tags").json()["tags"]] == ["Lapsed"]


def test_a_segment_is_made_once_found_by_type_and_by_prefix(mailchimp: Any) -> None:
    made = mailchimp.post(f"{BASE}/segments", {"name": "Cart abandoners", "static_segment": []}).json()
    assert (made["type"], made["member_count"]) == ("static", 0)
    again = mailchimp.post(f"{BASE}/segments", {"name": "cart abandoners", "static_segment": []})
    refused(again, 400, "Bad Request")
    assert mailchimp.get(f"{BASE}/segments", type="static", count=1000).json()["segments"] == [made]
    assert mailchimp.get(f"{BASE}/segments", type="saved").json()["segments"] == []
    tags = mailchimp.get(f"{BASE}/tag-search", name="cart").json()["tags"]
    assert tags == [{"id": made["id"], "name": "Cart abandoners"}]
    assert mailchimp.get(f"{BASE}/tag-search", name="abandoners").json()["tags"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"static_segment": []},
        {"name": "x"},
        {"name": "x" * 101, "static_segment": []},
        {"name": "x", "static_segment": ANA},
        {"name": "x", "static_segment": [], "type": "static"},
        {"name": "x", "options": {"match": "any"}},
    ],
)
def test_a_wrong_segment_is_refused(mailchimp: Any, body: dict[str, Any]) -> None:
    refused(mailchimp.post(f"{BASE}/segments", body), 400, "Invalid Resource")


def test_segment_members_come_and_go_and_strangers_are_ignored(mailchimp: Any) -> None:
    people(mailchimp, ana="subscribed", out="unsubscribed", tra="transactional", old="archived")
    segment = mailchimp.post(f"{BASE}/segments", {"name": "Carts", "static_segment": []}).json()["id"]
    path = f"{BASE}/segments/{segment}"
    names = ("ana", "out", "tra", "old", "stranger")
    result = mailchimp.post(path, {"members_to_add": [*(f"{name}@shop.example" for name in names), "oops"]}).json()
    assert (result["total_added"], result["total_removed"], result["error_count"]) == (3, 0, 1)
    assert {one["email_address"] for one in result["members_added"]} == {
        f"{n}@shop.example" for n in ("ana", "out", "tra")
    }
    assert result["errors"][0]["email_addresses"] == ["oops"]

    def read(**flags: str) -> set[str]:
        return {
            one["email_address"][:3] for one in mailchimp.get(f"{path}/members", count=1000, **flags).json()["members"]
        }

    assert read() == {"ana"}
    assert read(include_unsubscribed="true", include_transactional="true", include_cleaned="true") == {
        "ana",
        "out",
        "tra",
    }
    assert mailchimp.get(path).json()["member_count"] == 1
    result = mailchimp.post(path, {"members_to_remove": ["ana@shop.example", "stranger@shop.example"]}).json()
    assert [one["email_address"] for one in result["members_removed"]] == ["ana@shop.example"]
    assert read() == set()
    assert status_of(mailchimp, "ana@shop.example") == "subscribed"


@pytest.mark.parametrize(
    "body",
    [
        {"members_to_add": [f"p{n}@shop.example" for n in range(501)]},
        {"members_to_remove": [f"p{n}@shop.example" for n in range(501)]},
        {"members_to_add": [{"email_address": ANA}]},
        {"add": [ANA]},
        {},
    ],
)
def test_a_wrong_change_of_a_segment_is_refused(mailchimp: Any, body: dict[str, Any]) -> None:
    segment = mailchimp.post(f"{BASE}/segments", {"name": "Carts", "static_segment": []}).json()["id"]
    refused(mailchimp.post(f"{BASE}/segments/{segment}", body), 400, "Invalid Resource")
    refused(mailchimp.post(f"{BASE}/segments/999", {"members_to_add": []}), 404, "Resource Not Found")


def test_an_empty_replacement_empties_a_segment_and_deleting_it_keeps_its_members(mailchimp: Any) -> None:
    people(mailchimp, ana="subscribed")
    made = mailchimp.post(f"{BASE}/segments", {"name": "Carts", "static_segment": [ANA]}).json()
    assert made["member_count"] == 1
    path = f"{BASE}/segments/{made['id']}"
    assert mailchimp("PATCH", path, {"name": "Carts", "static_segment": []}).json()["member_count"] == 0
    assert mailchimp("DELETE", path).status_code == 204
    refused(mailchimp.get(path), 404, "Resource Not Found")
    assert status_of(mailchimp, ANA) == "subscribed"


def fired(mailchimp: Any) -> list[tuple[str, str]]:
    return [(one["tag"], one["email"]) for one in mailchimp.client.get("/_sandbox/automations").json()["entries"]]


def test_a_tag_fires_automations_for_the_subscribed_once(mailchimp: Any) -> None:
    people(mailchimp, ana="subscribed", out="unsubscribed")
    rows = [{"email_address": email, "tags": ["Carts"]} for email in (ANA, "out@shop.example")]
    batch(mailchimp, *rows)
    batch(mailchimp, *rows)
    assert fired(mailchimp) == [("Carts", ANA)]


def test_a_tag_set_while_syncing_fires_nothing(mailchimp: Any) -> None:
    people(mailchimp, ana="subscribed")
    tags = {"tags": [{"name": "Carts", "status": "active"}], "is_syncing": True}
    assert mailchimp.post(f"{BASE}/members/{ANA_HASH}/tags", tags).status_code == 204
    assert fired(mailchimp) == []
    off = {"tags": [{"name": "Carts", "status": "inactive"}]}
    assert mailchimp.post(f"{BASE}/members/{ANA_HASH}/tags", off).status_code == 204
    assert mailchimp.get(f"{BASE}/members/{ANA}/tags").json()["tags"] == []
    mailchimp.post(f"{BASE}/members/{ANA_HASH}/tags", {"tags": tags["tags"]})
    assert fired(mailchimp) == [("Carts", ANA)]


def test_what_people_do_themselves_changes_their_state(mailchimp: Any) -> None:
    people(mailchimp, ana="subscribed")
    acts(mailchimp, ANA, "unsubscribed")
    refused(mailchimp("PATCH", f"{BASE}/members/{ANA}", {"status": "subscribed"}), 400, "Member In Compliance State")
    acts(mailchimp, ANA, "subscribed")
    assert status_of(mailchimp, ANA) == "subscribed"
    acts(mailchimp, ANA, "forgotten")
    assert status_of(mailchimp, ANA) is None
    nobody = {"actions": [{"list_id": LIST, "email": "no@shop.example", "status": "cleaned"}]}
    assert mailchimp.client.post("/_sandbox/mailchimp", json=nobody).status_code == 400
