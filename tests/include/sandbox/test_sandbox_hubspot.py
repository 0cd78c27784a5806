"""The HubSpot stand-in refuses what HubSpot refuses and pages the way HubSpot pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CONTACTS = "/crm/objects/2026-09/contacts"


def contact(number: int, **properties: Any) -> dict[str, Any]:
    changed = f"2026-11-{1 + number % 20:02d}T08:00:00.000Z"
    return {
        "id": str(number),
        "properties": {
            "email": f"p{number}@shop.example", "firstname": f"P{number}", "phone": None,
            "createdate": "2026-01-01T00:00:00.000Z", "lastmodifieddate": changed, **properties,
        },
        "createdAt": "2026-01-01T00:00:00.000Z",
        "updatedAt": changed,
        "archived": False,
    }  # fmt: skip


def put(hubspot: Any, **rows: Any) -> None:
    answer = hubspot.client.post("/_sandbox/hubspot", json=rows)
    assert answer.status_code == 200, answer.text


def search(hubspot: Any, kind: str = "contacts", **body: Any) -> Any:
    return hubspot.post(f"/crm/objects/2026-09/{kind}/search", body)


def condition(name: str, operator: str, **more: Any) -> dict[str, Any]:
    return {"filterGroups": [{"filters": [{"propertyName": name, "operator": operator, **more}]}]}


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [record["id"] for record in answer.json()["results"]]


def refused(answer: Any, status: int = 400, category: str = "VALIDATION_ERROR") -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["category"]) == ("error", category)
    assert body["correlationId"]
    return body


def test_a_scan_pages_by_record_id_and_shows_only_what_was_asked_for(hubspot: Any) -> None:
    put(hubspot, contacts=[contact(number) for number in (9, 10, 101)])
    first = hubspot.get(CONTACTS, limit=2, properties="phone,shoe_size").json()
    assert [record["id"] for record in first["results"]] == ["9", "10"]
    assert first["results"][0]["properties"] == {
        "phone": None, "createdate": "2026-01-01T00:00:00.000Z", "hs_object_id": "9",
        "lastmodifieddate": "2026-11-10T08:00:00.000Z",
    }  # fmt: skip
    last = hubspot.get(CONTACTS, limit=2, after=first["paging"]["next"]["after"]).json()
    assert [record["id"] for record in last["results"]] == ["101"]
    assert "paging" not in last
    assert last["results"][0]["properties"]["email"] == "p101@shop.example"


def test_numbered_and_dated_paths_answer_alike(hubspot: Any) -> None:
    put(hubspot, contacts=[contact(1)])
    assert hubspot.get("/crm/v3/objects/contacts").json() == hubspot.get(CONTACTS).json()


@pytest.mark.parametrize(
    ("path", "params"),
    [
        (CONTACTS, {"limit": 101}),
        (CONTACTS, {"limit": "ten"}),
        (CONTACTS, {"after": "x"}),
        (CONTACTS, {"archived": "yes"}),
        (CONTACTS, {"property": "email"}),
        ("/crm/objects/2026-09/unicorns", {}),
    ],
)
def test_a_scan_with_a_wrong_parameter_is_refused(hubspot: Any, path: str, params: dict[str, Any]) -> None:
    refused(hubspot.get(path, **params))


def test_archived_records_are_in_their_own_scan_and_never_in_a_search(hubspot: Any) -> None:
    put(hubspot, contacts=[contact(1), {**contact(2), "archived": True, "archivedAt": "2026-11-20T00:00:00.000Z"}])
    assert ids(hubspot.get(CONTACTS)) == ["1"]
    gone = hubspot.get(CONTACTS, archived="true")
    assert ids(gone) == ["2"]
    assert gone.json()["results"][0]["archivedAt"] == "2026-11-20T00:00:00.000Z"
    assert ids(search(hubspot)) == ["1"]


@pytest.mark.parametrize(
    "headers", [{"Authorization": ""}, {"Authorization": "Bearer secret"}, {"Authorization": "pat-na1-x"}]
)
def test_without_a_service_key_nothing_is_answered(hubspot: Any, headers: dict[str, str]) -> None:
    refused(hubspot("GET", CONTACTS, headers=headers), 401, "INVALID_AUTHENTICATION")


def test_the_key_cannot_write(hubspot: Any) -> None:
    body = refused(hubspot.post(f"{CONTACTS}/batch/upsert", {"inputs": []}), 403, "MISSING_SCOPES")
    assert body["errors"][0]["context"]["requiredGranularScopes"] == ["crm.objects.contacts.write"]


def test_a_missing_scope_is_named(make: Callable[..., Any], hubspot_of: Callable[..., Any]) -> None:
    scope = "communication_preferences.statuses.batch.read"
    hubspot = hubspot_of(make(hubspot={"missing_scopes": frozenset({scope, "crm.objects.orders.read"})}))
    path = "/communication-preferences/2026-09/statuses/batch/read?channel=EMAIL"
    body = refused(hubspot.post(path, {"inputs": ["a@shop.example"]}), 403, "MISSING_SCOPES")
    assert body["errors"][0]["context"]["requiredGranularScopes"] == [scope]
    refused(hubspot.get("/crm/v3/objects/orders"), 403, "MISSING_SCOPES")
    assert hubspot.get("/communication-preferences/2026-09/statuses/a@shop.example", channel="EMAIL").status_code == 200


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (condition("lastmodifieddate", "GTE", value="1763971200000"), ["1", "2", "3"]),
        (condition("lastmodifieddate", "GT", value="2026-11-03T08:00:00Z"), ["3"]),
        (condition("lastmodifieddate", "LTE", value="2026-11-03T08:00:00Z"), ["1", "2"]),
        (condition("lastmodifieddate", "LT", value="2026-11-03T08:00:00Z"), ["1"]),
        (condition("lastmodifieddate", "BETWEEN", value="2026-11-02", highValue="2026-11-03T08:00:00Z"), ["1", "2"]),
        (condition("email", "EQ", value="P2@shop.example"), ["2"]),
        (condition("email", "NEQ", value="p2@shop.example"), ["1", "3"]),
        (condition("email", "IN", values=["p1@shop.example", "p3@shop.example"]), ["1", "3"]),
        (condition("email", "NOT_IN", values=["p1@shop.example"]), ["2", "3"]),
        (condition("email", "CONTAINS_TOKEN", value="p2@*"), ["2"]),
        (condition("phone", "HAS_PROPERTY"), ["3"]),
        (condition("phone", "NOT_HAS_PROPERTY"), ["1", "2"]),
        (condition("hs_object_id", "GT", value="1"), ["2", "3"]),
        ({"filterGroups": [*condition("email", "EQ", value="p1@shop.example")["filterGroups"],
                           *condition("phone", "HAS_PROPERTY")["filterGroups"]]}, ["1", "3"]),
    ],
)  # fmt: skip
def test_a_search_filters(hubspot: Any, wanted: dict[str, Any], found: list[str]) -> None:
    put(hubspot, contacts=[contact(1), contact(2), contact(3, phone="+4512345678")])
    answer = search(hubspot, **wanted)
    assert ids(answer) == found
    assert answer.json()["total"] == len(found)


def test_other_objects_are_searched_by_their_own_change_date_and_by_numbers(hubspot: Any) -> None:
    carts = [
        {"id": str(number), "properties": {"hs_total_price": price, "hs_lastmodifieddate": "2026-11-20T00:00:00Z"}}
        for number, price in ((1, "9.5"), (2, "10"), (3, None))
    ]
    put(hubspot, carts=carts)
    assert ids(search(hubspot, "carts", **condition("hs_total_price", "LT", value="10.00"))) == ["1"]
    assert len(ids(search(hubspot, "carts", **condition("hs_lastmodifieddate", "GTE", value="1763600000000")))) == 3
    refused(search(hubspot, "carts", **condition("lastmodifieddate", "GTE", value="1763600000000")))


def test_a_search_sorts_by_one_rule_and_pages_by_position(hubspot: Any) -> None:
    put(hubspot, contacts=[contact(number) for number in (1, 2, 3)])
    newest = {"sorts": [{"propertyName": "lastmodifieddate", "direction": "DESCENDING"}], "limit": 2}
    first = search(hubspot, **newest)
    assert ids(first) == ["3", "2"]
    assert first.json()["paging"]["next"]["after"] == "2"
    assert ids(search(hubspot, **newest, after="2")) == ["1"]


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 201},
        {"limit": "100"},
        {"after": "9900", "limit": 200},
        {"after": "next"},
        {"pagesize": 3},
        {"filterGroups": {}},
        {"filterGroups": [{"filters": [], "or": True}]},
        {"filterGroups": [{"filters": []}] * 6},
        condition("email", "EQUALS", value="x"),
        condition("email", "EQ"),
        condition("email", "EQ", value=5),
        condition("email", "IN", value="x"),
        condition("lastmodifieddate", "BETWEEN", value="2026-01-01"),
        condition("lastmodifieddate", "GTE", value="yesterday"),
        condition("shoe_size", "EQ", value="x"),
        {"filterGroups": [{"filters": condition("email", "HAS_PROPERTY")["filterGroups"][0]["filters"] * 7}]},
        {"filterGroups": [{"filters": condition("email", "HAS_PROPERTY")["filterGroups"][0]["filters"] * 5}] * 4},
        {"sorts": [{"propertyName": "email"}, {"propertyName": "phone"}]},
        {"sorts": [{"propertyName": "email", "direction": "UP"}]},
        {"properties": "email"},
        condition("email", "EQ", value="x" * 3000),
    ],
)
def test_a_search_with_a_mistake_is_refused(hubspot: Any, body: dict[str, Any]) -> None:
    refused(search(hubspot, **body))


def test_a_search_may_not_go_beyond_ten_thousand_and_may_go_up_to_it(hubspot: Any) -> None:
    assert search(hubspot, limit=200, after="9800").status_code == 200
    refused(search(hubspot, limit=200, after="9801"))


def test_a_sixth_search_in_a_second_is_too_many(hubspot: Any, clock: Any) -> None:
    for _ in range(5):
        assert search(hubspot).status_code == 200
    answer = search(hubspot)
    assert answer.status_code == 429
    assert (answer.json()["errorType"], answer.json()["policyName"]) == ("RATE_LIMIT", "SECONDLY")
    assert "x-hubspot-ratelimit-max" not in answer.headers
    clock.pass_(1.0)
    assert search(hubspot).status_code == 200


def test_the_burst_limit_rolls_and_tells_what_is_left(
    make: Callable[..., Any], hubspot_of: Callable[..., Any], clock: Any
) -> None:
    hubspot = hubspot_of(make(hubspot={"requests_per_ten_seconds": 2}))
    assert hubspot.get(CONTACTS).headers["x-hubspot-ratelimit-remaining"] == "1"
    clock.pass_(6)
    assert hubspot.get(CONTACTS).headers["x-hubspot-ratelimit-remaining"] == "0"
    answer = hubspot.get(CONTACTS)
    assert answer.status_code == 429
    assert answer.json()["policyName"] == "TEN_SECONDLY_ROLLING"
    assert answer.headers["x-hubspot-ratelimit-interval-milliseconds"] == "10000"
    clock.pass_(4)
    assert hubspot.get(CONTACTS).status_code == 200
    assert hubspot.get(CONTACTS).status_code == 429


def test_the_search_index_lags_behind_the_records(
    make: Callable[..., Any], hubspot_of: Callable[..., Any], clock: Any
) -> None:
    hubspot = hubspot_of(make(hubspot={"index_lag": 5.0}))
    put(hubspot, contacts=[contact(1)])
    assert ids(hubspot.get(CONTACTS)) == ["1"]
    assert ids(search(hubspot)) == []
    clock.pass_(5)
    assert ids(search(hubspot)) == ["1"]


def test_a_batch_read_finds_by_id_or_address_and_names_who_is_missing(hubspot: Any) -> None:
    put(hubspot, contacts=[contact(1), contact(2)])
    answer = hubspot.post(f"{CONTACTS}/batch/read", {"properties": ["email"], "inputs": [{"id": "1"}, {"id": "2"}]})
    assert sorted(ids(answer)) == ["1", "2"]
    inputs = [{"id": "P1@shop.example"}, {"id": "nobody@shop.example"}]
    answer = hubspot.post(f"{CONTACTS}/batch/read", {"idProperty": "email", "properties": [], "inputs": inputs})
    assert answer.status_code == 207
    assert [record["id"] for record in answer.json()["results"]] == ["1"]
    assert answer.json()["numErrors"] == 1
    assert answer.json()["errors"][0]["category"] == "OBJECT_NOT_FOUND"
    assert answer.json()["errors"][0]["context"] == {"ids": ["nobody@shop.example"]}


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{"id": str(number)} for number in range(101)]},
        {"inputs": [{"id": "1"}, {"id": "1"}]},
        {"inputs": []},
        {"properties": []},
        {"inputs": ["1"]},
        {"inputs": [{"id": 1}]},
        {"inputs": [{"id": "1", "properties": {}}]},
        {"inputs": [{"id": "1"}], "idProperty": "phone"},
        {"inputs": [{"id": "1"}], "archived": False},
    ],
)
def test_a_batch_read_with_a_mistake_is_refused(hubspot: Any, body: dict[str, Any]) -> None:
    refused(hubspot.post(f"{CONTACTS}/batch/read", body))


def test_a_body_must_be_json_and_say_so(hubspot: Any) -> None:
    text = hubspot("POST", f"{CONTACTS}/search", content=b"{}", headers={"Content-Type": "text/plain"})
    refused(text, 415)
    refused(hubspot("POST", f"{CONTACTS}/search", content=b"{", headers={"Content-Type": "application/json"}))


LINKS = [
    {"from_type": "carts", "from_id": "7", "to_type": "contacts", "to_id": "101"},
    {"from_type": "carts", "from_id": "7", "to_type": "line_items", "to_id": "5"},
    {"from_type": "carts", "from_id": "7", "to_type": "line_items", "to_id": "6"},
]


def test_associations_are_read_in_batches_from_both_ends(hubspot: Any) -> None:
    put(hubspot, associations=LINKS)
    body = {"inputs": [{"id": 7}, {"id": "8"}]}
    answer = hubspot.post("/crm/associations/2026-09/carts/line_items/batch/read", body)
    assert answer.status_code == 207
    [found] = answer.json()["results"]
    assert found["from"] == {"id": "7"}
    assert [one["toObjectId"] for one in found["to"]] == ["5", "6"]
    assert found["to"][0]["associationTypes"] == [{"category": "HUBSPOT_DEFINED", "typeId": 590, "label": None}]
    assert answer.json()["errors"][0]["context"]["fromObjectId"] == ["8"]
    back = hubspot.post("/crm/v4/associations/contacts/carts/batch/read", {"inputs": [{"id": "101"}]})
    assert back.status_code == 200
    assert back.json()["results"][0]["to"][0]["toObjectId"] == 7


def test_too_many_associations_at_once_are_refused(hubspot: Any) -> None:
    inputs = [{"id": str(number)} for number in range(1001)]
    refused(hubspot.post("/crm/associations/2026-09/carts/contacts/batch/read", {"inputs": inputs}))


def test_a_scan_can_bring_the_associations_along(hubspot: Any) -> None:
    put(hubspot, carts=[{"id": "7", "properties": {}}, {"id": "8", "properties": {}}], associations=LINKS)
    with_links, without = hubspot.get("/crm/objects/2026-09/carts", associations="contacts,line_items").json()[
        "results"
    ]
    assert with_links["associations"] == {
        "contacts": {"results": [{"id": "101", "type": "cart_to_contact"}]},
        "line items": {"results": [{"id": "5", "type": "cart_to_line_item"}, {"id": "6", "type": "cart_to_line_item"}]},
    }
    assert "associations" not in without


@pytest.fixture
def portal(client: Any, hubspot: Any) -> Any:
    """A portal with one subscription type and two people's answers."""
    client.app.store.run('insert into hubspot_definitions values (\'1\', \'{"id": "1", "name": "Newsletter"}\')')
    statuses = [
        {
            "email": "yes@shop.example",
            "subscriptionId": "1",
            "status": "SUBSCRIBED",
            "timestamp": "2026-01-01T00:00:00Z",
        },
        {
            "email": "no@shop.example",
            "subscriptionId": "1",
            "status": "UNSUBSCRIBED",
            "timestamp": "2026-02-01T00:00:00Z",
        },
    ]
    out = contact(2, email="no@shop.example", hs_email_optout="true")
    put(hubspot, contacts=[contact(1, email="yes@shop.example"), out], subscription_statuses=statuses)
    return hubspot


def test_consent_is_told_per_person_and_in_batches(portal: Any) -> None:
    base = "/communication-preferences/2026-09"
    assert portal.get(f"{base}/definitions").json()["results"][0]["name"] == "Newsletter"
    one = portal.get(f"{base}/statuses/Yes@shop.example", channel="EMAIL").json()["results"]
    assert [(row["subscriptionId"], row["status"]) for row in one] == [(1, "SUBSCRIBED")]
    emails = ["no@shop.example", "new@shop.example"]
    batch = portal.post(f"{base}/statuses/batch/read?channel=EMAIL", {"inputs": emails}).json()["results"]
    assert [(row["subscriberIdString"], row["statuses"][0]["status"]) for row in batch] == [
        ("no@shop.example", "UNSUBSCRIBED"),
        ("new@shop.example", "NOT_SPECIFIED"),
    ]


def test_out_of_everything_is_told_and_an_empty_answer_is_no(portal: Any) -> None:
    base = "/communication-preferences/v4/statuses"
    assert portal.get(f"{base}/yes@shop.example/unsubscribe-all", channel="EMAIL").json()["results"] == []
    [out] = portal.get(f"{base}/no@shop.example/unsubscribe-all", channel="EMAIL").json()["results"]
    assert out["wideStatusType"] == "PORTAL_WIDE"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/statuses/batch/read", {"inputs": ["a@shop.example"]}),
        ("/statuses/batch/read?channel=SMS", {"inputs": ["a@shop.example"]}),
        ("/statuses/batch/read?channel=EMAIL", {"inputs": ["a@shop.example"] * 101}),
        ("/statuses/batch/read?channel=EMAIL", {"inputs": [{"id": "a@shop.example"}]}),
        ("/statuses/batch/read?channel=EMAIL", {"inputs": ["not an address"]}),
        ("/statuses/batch/read?channel=EMAIL", {"emails": ["a@shop.example"]}),
    ],
)
def test_a_consent_question_with_a_mistake_is_refused(portal: Any, path: str, body: dict[str, Any]) -> None:
    refused(portal.post(f"/communication-preferences/2026-09{path}", body))


def event(number: int, created: int, kind: str = "OPEN", **more: Any) -> dict[str, Any]:
    return {
        "id": f"e{number}", "created": created, "recipient": "A@shop.example", "type": kind, "emailCampaignId": 5,
        "filteredEvent": False, **more,
    }  # fmt: skip


def test_email_events_come_newest_first_in_a_half_open_window(hubspot: Any) -> None:
    put(hubspot, email_events=[event(1, 100), event(2, 200, "CLICK"), event(3, 300), event(4, 400, filteredEvent=True)])
    path = "/email/public/v1/events"
    first = hubspot.get(path, startTimestamp=100, endTimestamp=400, limit=2).json()
    assert [row["id"] for row in first["events"]] == ["e3", "e2"]
    assert first["hasMore"] is True
    rest = hubspot.get(path, startTimestamp=100, endTimestamp=400, limit=2, offset=first["offset"]).json()
    assert [row["id"] for row in rest["events"]] == ["e1"]
    assert rest["hasMore"] is False
    assert [row["id"] for row in hubspot.get(path, eventType="CLICK", campaignId=5).json()["events"]] == ["e2"]
    assert [row["id"] for row in hubspot.get(path, excludeFilteredEvents="true").json()["events"]] == ["e3", "e2", "e1"]
    assert hubspot.get(path, recipient="b@shop.example").json()["events"] == []


@pytest.mark.parametrize("params", [{"limit": 1001}, {"offset": "!"}, {"startTimestamp": "2026-01-01"}, {"since": 3}])
def test_a_wrong_question_for_events_is_refused(hubspot: Any, params: dict[str, Any]) -> None:
    refused(hubspot.get("/email/public/v1/events", **params))


def test_unknown_paths_are_not_found_and_other_methods_not_allowed(hubspot: Any) -> None:
    assert hubspot.get("/crm/objects/2024-01/contacts").status_code == 404
    assert hubspot("PUT", CONTACTS, {}).status_code == 405
