from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from include.connections import Connection
from include.errors import AuthenticationError, ConfigurationError, TransientError
from include.sources.base import Run
from include.sources.hubspot import HubSpot, HubSpotSettings
from include.sources.hubspot_client import HubSpotClient
from include.sources.load import run_source
from include.warehouse.engine import Warehouse
from tests.include.sources.fake_portal import Portal, ms

T = "2026-11-2{}T{}Z"
CONNECTION = Connection("hubspot_default", host="https://portal.example", password="pat-na1-secret")


def load(
    portal: Portal,
    warehouse: Warehouse,
    said: list[str] | None = None,
    waits: list[float] | None = None,
    connection: Connection = CONNECTION,
    **settings: Any,
) -> dict[str, int]:
    began = datetime.fromisoformat(portal.now).astimezone(UTC).replace(tzinfo=None)
    run = Run("hubspot", connection, began, said.append if said is not None else None)
    pauses = waits if waits is not None else []
    client = HubSpotClient(connection, transport=httpx.MockTransport(portal), sleep=pauses.append)
    return run_source(HubSpot(run, HubSpotSettings.model_validate(settings), client), warehouse)


def rows(warehouse: Warehouse, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in warehouse.read(sql)]


@pytest.fixture
def portal() -> Portal:
    return Portal()


def test_a_contact_is_mapped(portal: Portal, warehouse: Warehouse) -> None:
    portal.put(
        "contacts", "101", "2026-11-20T08:00:00.500Z", email=" Chloe\u0301@Shop.example ",
        firstname="Chlo\u00e9", lastname="", phone="030 23125 001", country="Germany",
        hs_additional_emails="c@x.example;d@x.example",
        hs_merged_object_ids="77;78", shop_user_id="u1", ads_consent="granted",
        hs_email_hard_bounce_reason_enum="UNKNOWN_USER",
    )  # fmt: skip
    assert load(portal, warehouse)["contacts"] == 1
    (contact,) = warehouse.read("select * from raw.contacts")
    assert contact == {
        "source": "hubspot",
        "contact_id": "101",
        "email": "Chlo\u00e9@Shop.example",
        "phone": "+493023125001",
        "user_id": "u1",
        "first_name": "Chlo\u00e9",
        "last_name": None,
        "country": "DE",
        "created_at": datetime(2026, 1, 1),
        "updated_at": datetime(2026, 11, 20, 8, 0, 0, 500_000),
        "is_deleted": False,
        "loaded_at": datetime(2026, 11, 24, 10),
    }
    assert rows(warehouse, "select contact_id, kind, value from raw.contact_identifiers order by 2, 3") == [
        ("101", "email", "c@x.example"),
        ("101", "email", "d@x.example"),
        ("101", "merged_contact_id", "77"),
        ("101", "merged_contact_id", "78"),
    ]
    assert rows(warehouse, "select channel, status, reason from raw.consents") == [("ads", "granted", "ads_consent")]
    assert rows(warehouse, "select kind, value, channel, reason, is_active from raw.suppressions") == [
        ("email", "Chlo\u00e9@Shop.example", "email", "bounced", True)
    ]


@pytest.mark.parametrize(
    ("optout", "statuses", "expected"),
    [
        (None, [("SUBSCRIBED", "2026-03-01T00:00:00Z")], ("granted", "Newsletter", "2026-03-01 00:00:00")),
        (None, [("UNSUBSCRIBED", "2026-03-01T00:00:00Z")], ("denied", "Newsletter", "2026-03-01 00:00:00")),
        (
            "true",
            [("SUBSCRIBED", "2026-03-01T00:00:00Z")],
            ("denied", "opted out of all e-mail", "2026-11-20 08:00:00"),
        ),
        ("false", [("NOT_SPECIFIED", None)], None),
        (None, [("NOT_SPECIFIED", "2026-03-01T00:00:00Z")], ("unknown", "Newsletter", "2026-03-01 00:00:00")),
        (None, [], None),
    ],
)
def test_email_consent_follows_the_subscription_statuses(
    portal: Portal, warehouse: Warehouse, optout: str | None, statuses: list[Any], expected: tuple[str, str, str] | None
) -> None:
    portal.put("contacts", "1", "2026-11-20T08:00:00Z", email="Ana@x.example", hs_email_optout=optout)
    for status, at in statuses:
        portal.say("ana@x.example", status, at)
    load(portal, warehouse)
    found = rows(warehouse, "select status, reason, changed_at::text from raw.consents where channel = 'email'")
    assert found == ([expected] if expected else [])


def test_any_no_among_the_subscriptions_and_addresses_is_a_no(portal: Portal, warehouse: Warehouse) -> None:
    portal.definitions += [
        {"id": "2", "name": "Offers", "isActive": True, "isInternal": False},
        {"id": "3", "name": "Old", "isActive": False, "isInternal": False},
    ]
    for number, second in ((1, "UNSUBSCRIBED"), (2, "SUBSCRIBED")):
        portal.put("contacts", str(number), "2026-11-20T08:00:00Z", email=f"p{number}@x.example")
        portal.say(f"p{number}@x.example", "SUBSCRIBED", "2026-05-01T00:00:00Z")
        portal.say(f"p{number}@x.example", second, "2026-04-01T00:00:00Z", 2)
        portal.say(f"p{number}@x.example", "UNSUBSCRIBED", "2026-06-01T00:00:00Z", 3)
    portal.put("contacts", "3", "2026-11-20T08:00:00Z", email="p3@x.example", hs_additional_emails="old@x.example")
    portal.say("p3@x.example", "SUBSCRIBED", "2026-05-01T00:00:00Z")
    portal.say("old@x.example", "UNSUBSCRIBED", "2026-05-02T00:00:00Z")
    load(portal, warehouse)
    assert rows(warehouse, "select contact_id, status, reason from raw.consents order by 1") == [
        ("1", "denied", "Offers"),
        ("2", "granted", "Newsletter, Offers"),
        ("3", "denied", "Newsletter"),
    ]
    again = Portal()
    again.__dict__ |= {"records": portal.records, "statuses": portal.statuses, "definitions": portal.definitions}
    other = Warehouse(warehouse.url.replace("warehouse.duckdb", "other.duckdb"))
    load(again, other, email_subscriptions=["newsletter"])
    assert rows(other, "select contact_id, status from raw.consents where contact_id = '1'") == [("1", "granted")]


def test_without_the_enterprise_scope_the_opt_out_property_is_used(
    portal: Portal, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    portal.missing_scopes["statuses/batch"] = "communication_preferences.statuses.batch.read"
    for number in range(1, 601):
        optout = "true" if number == 7 else "false"
        portal.put(
            "contacts", str(number), "2026-11-20T08:00:00Z", email=f"p{number}@x.example", hs_email_optout=optout
        )
    with caplog.at_level(logging.WARNING, "include"):
        assert load(portal, warehouse)["contacts"] == 600
    assert rows(warehouse, "select contact_id, channel, status from raw.consents") == [("7", "email", "denied")]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "communication_preferences.statuses.batch.read" in warnings[0].getMessage()


def test_orders_and_carts_come_with_their_person_and_lines(portal: Portal, warehouse: Warehouse) -> None:
    portal.put("line_items", "31", T.format(0, "08:00:00"), name="Mug", hs_sku="S1", quantity="2", price="4.50",
               hs_url="https://s/p/1", hs_images="https://s/1.jpg;https://s/2.jpg",
               hs_line_item_currency_code="EUR")  # fmt: skip
    portal.put("line_items", "32", T.format(0, "08:00:00"), name="Spoon", quantity="1", price="3")
    portal.put("orders", "7", T.format(1, "09:00:00"), hs_external_order_id="T7", hs_external_order_status="Delivered",
               hs_total_price="12.00", hs_currency_code="EUR", hs_external_created_date="1763856000000")  # fmt: skip
    portal.put("orders", "8", T.format(1, "09:00:00"), hs_external_order_status="payment failed", is_test="true")
    portal.put(
        "carts",
        "9",
        T.format(1, "09:30:00"),
        hs_external_status="open",
        hs_total_price="9",
        hs_cart_url="https://s/c/9",
    )
    portal.link("orders", "7", "contacts", "101", "102")
    portal.link("orders", "7", "line_items", "31", "32")
    portal.link("carts", "9", "contacts", "101")
    portal.link("carts", "9", "line_items", "31", "404")
    expected_orders = [
        ("7", "T7", "101", "fulfilled", "EUR", 12.0, False, "2025-11-23 00:00:00"),
        ("8", None, None, "failed", None, None, True, "2026-01-01 00:00:00"),
    ]
    for embeds in (True, False):
        portal.embeds_associations = embeds
        place = Warehouse(warehouse.url.replace("warehouse.duckdb", f"{embeds}.duckdb"))
        load(portal, place)
        sql = "select order_id, transaction_id, contact_id, status, currency, total_amount, is_test, ordered_at::text"
        assert rows(place, f"{sql} from raw.orders order by 1") == expected_orders
        items = "select order_id, line_id, sku, name, quantity, price, currency from raw.order_items order by 2"
        assert rows(place, items) == [
            ("7", "31", "S1", "Mug", 2, 4.5, "EUR"),
            ("7", "32", None, "Spoon", 1, 3.0, "EUR"),
        ]
        carts = "select cart_id, contact_id, status, total_amount, cart_url, updated_at::text from raw.carts"
        assert rows(place, carts) == [("9", "101", "open", 9.0, "https://s/c/9", "2026-11-21 09:30:00")]
        held = "select cart_id, line_id, image_url, product_url from raw.cart_items"
        assert rows(place, held) == [("9", "31", "https://s/1.jpg", "https://s/p/1")]


def test_what_cannot_be_typed_is_set_aside_and_the_record_still_lands(portal: Portal, warehouse: Warehouse) -> None:
    portal.put("orders", "7", T.format(1, "09:00:00"), hs_total_price="twelve", hs_external_created_date="yesterday")
    portal.put("line_items", "31", T.format(1, "09:00:00"), quantity="1.5", price="NaN")
    portal.link("orders", "7", "line_items", "31")
    assert load(portal, warehouse)["rejected"] == 4
    assert rows(warehouse, "select location, reason from raw.rejected_rows order by 1, 2") == [
        ("line item 31", "price is not a number"),
        ("line item 31", "quantity is not a whole number"),
        ("order 7", "hs_external_created_date is not a date or time"),
        ("order 7", "hs_total_price is not a number"),
    ]
    assert rows(warehouse, "select order_id, total_amount, ordered_at::text from raw.orders") == [
        ("7", None, "2026-01-01 00:00:00")
    ]


def test_unknown_words_are_reported_once_and_can_be_mapped(portal: Portal, warehouse: Warehouse) -> None:
    for number in range(1, 4):
        portal.put("orders", str(number), T.format(1, "09:00:00"), hs_external_order_status="In der Packerei")
    portal.put("carts", "9", T.format(1, "09:00:00"), hs_external_status="parked")
    said: list[str] = []
    load(portal, warehouse, said)
    assert rows(warehouse, "select distinct status from raw.orders union all select status from raw.carts") == [
        ("placed",),
        ("open",),
    ]
    told = [line for line in said if "unknown words" in line]
    assert len(told) == 2
    assert "In der Packerei (3)" in told[0]
    other = Warehouse(warehouse.url.replace("warehouse.duckdb", "other.duckdb"))
    load(portal, other, order_statuses={"*packerei": "paid"})
    assert rows(other, "select distinct status from raw.orders") == [("paid",)]


def test_later_runs_read_what_changed_and_nothing_twice(portal: Portal, warehouse: Warehouse) -> None:
    for number in range(1, 251):
        portal.put("contacts", str(number), "2026-11-20T08:00:00Z", email=f"p{number}@x.example")
    assert load(portal, warehouse)["contacts"] == 250
    portal.now = "2026-11-24T11:00:00Z"
    assert load(portal, warehouse) == {"rejected": 0}
    portal.put("contacts", "17", "2026-11-24T11:30:00Z", email="new17@x.example")
    portal.put("contacts", "999", "2026-11-24T11:30:00Z", email="p999@x.example")
    portal.now = "2026-11-24T12:00:00Z"
    portal.calls.clear()
    assert load(portal, warehouse)["contacts"] == 2
    assert ("POST", "/crm/objects/2026-09/contacts/search") in portal.calls
    assert portal.calls.count(("GET", "/crm/objects/2026-09/contacts")) == 1, "only the archive is scanned"
    portal.now = "2026-11-24T13:00:00Z"
    assert load(portal, warehouse) == {"rejected": 0}


def test_a_record_the_index_shows_late_is_not_missed(portal: Portal, warehouse: Warehouse) -> None:
    portal.put("contacts", "1", "2026-11-24T09:00:00Z", email="a@x.example")
    load(portal, warehouse)
    portal.now = "2026-11-24T11:00:05Z"
    portal.put("contacts", "2", "2026-11-24T11:00:00Z", email="b@x.example")
    portal.put("contacts", "3", "2026-11-24T10:59:50Z", email="c@x.example")
    portal.records["contacts"]["3"]["indexed_from"] = "2026-11-24T11:00:10Z"
    assert load(portal, warehouse)["contacts"] == 1
    portal.now = "2026-11-24T12:00:00Z"
    assert load(portal, warehouse)["contacts"] == 1
    assert rows(warehouse, "select contact_id from raw.contacts order by 1") == [("1",), ("2",), ("3",)]


def test_a_record_modified_while_pages_are_read_shifts_nobody_out(portal: Portal, warehouse: Warehouse) -> None:
    load(portal, warehouse)
    for number in range(1, 601):
        at = f"2026-11-24T10:{10 + number // 60:02d}:{number % 60:02d}Z"
        portal.put("contacts", str(number), at, email=f"p{number}@x.example")
    portal.now = "2026-11-24T11:00:00Z"

    def meddle(count: int) -> None:
        if count == 1:
            portal.put("contacts", "5", "2026-11-24T10:59:00Z")

    portal.after_search = meddle
    load(portal, warehouse, email_events=False)
    assert warehouse.scalar("select count(distinct contact_id) from raw.contacts") == 600
    assert warehouse.scalar("select count(*) from raw.contacts where contact_id = '5'") == 2


@pytest.mark.parametrize("spread", [True, False])
def test_more_changes_than_a_search_can_page_to_all_arrive(portal: Portal, warehouse: Warehouse, spread: bool) -> None:
    portal.put("orders", "1", "2026-11-24T09:00:00Z")
    load(portal, warehouse, objects=["orders"], email_events=False)
    for number in range(2, 10_302):
        minute, second = divmod(number // 4, 60) if spread else (5, 0)
        portal.put("orders", str(number), f"2026-11-24T10:{minute:02d}:{second:02d}Z")
    portal.now = "2026-11-24T12:00:00Z"
    load(portal, warehouse, objects=["orders"], email_events=False)
    assert warehouse.scalar("select count(distinct order_id) from raw.orders") == 10_301
    assert load(portal, warehouse, objects=["orders"], email_events=False)["rejected"] == 0


def test_deleted_records_are_told_once(portal: Portal, warehouse: Warehouse) -> None:
    for kind in ("contacts", "orders", "carts"):
        portal.put(kind, "5", "2026-11-20T08:00:00Z")
        portal.put(kind, "6", "2026-11-20T08:00:00Z")
    load(portal, warehouse)
    for kind in ("contacts", "orders", "carts"):
        portal.archive(kind, "5", "2026-11-24T10:30:00Z")
    portal.now = "2026-11-24T11:00:00Z"
    assert load(portal, warehouse) == {"carts": 1, "contacts": 1, "orders": 1, "rejected": 0}
    newest = "where updated_at = timestamp '2026-11-24 10:30:00'"
    assert rows(warehouse, f"select contact_id, is_deleted, email from raw.contacts {newest}") == [("5", True, None)]
    assert rows(warehouse, f"select cart_id, status from raw.carts {newest}") == [("5", "deleted")]
    assert rows(warehouse, f"select order_id, status from raw.orders {newest}") == [("5", "cancelled")]
    portal.now = "2026-11-24T12:00:00Z"
    assert load(portal, warehouse) == {"rejected": 0}


def test_an_answer_taken_back_and_a_bounce_healed_are_news(portal: Portal, warehouse: Warehouse) -> None:
    portal.put(
        "contacts",
        "1",
        "2026-11-20T08:00:00Z",
        email="a@x.example",
        ads_consent="yes",
        hs_email_hard_bounce_reason_enum="X",
    )
    portal.put("contacts", "2", "2026-11-20T08:00:00Z", email="b@x.example")
    load(portal, warehouse)
    portal.put("contacts", "1", "2026-11-24T10:30:00Z", ads_consent="", hs_email_hard_bounce_reason_enum="")
    portal.now = "2026-11-24T11:00:00Z"
    load(portal, warehouse)
    assert rows(warehouse, "select contact_id, status from raw.consents where channel = 'ads' order by changed_at") == [
        ("1", "granted"),
        ("1", "unknown"),
    ]
    assert rows(warehouse, "select value, is_active from raw.suppressions order by changed_at") == [
        ("a@x.example", True),
        ("a@x.example", False),
    ]


def event(number: int, at: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "created": ms(at),
        "recipient": "a@x.example",
        "type": kind,
        "emailCampaignId": 5,
        **more,
    }


def test_email_events_come_in_windows_and_only_once(portal: Portal, warehouse: Warehouse) -> None:
    portal.events = [
        event(1, "2026-11-01T08:00:00Z", "SENT"),
        event(2, "2026-11-20T08:00:00Z", "OPEN", filteredEvent=True),
        event(3, "2026-11-24T09:59:59Z", "SPAMREPORT"),
        event(4, "2026-11-20T08:00:00Z", "DROPPED"),
        event(5, "2020-01-01T08:00:00Z", "SENT"),
    ]
    portal.events += [event(number, "2026-11-10T08:00:00Z", "CLICK") for number in range(100, 1250)]
    assert load(portal, warehouse)["engagement"] == 1153
    assert rows(
        warehouse, "select type, is_bot, campaign_id, email from raw.engagement where type <> 'click' order by 1"
    ) == [
        ("complaint", False, "5", "a@x.example"),
        ("open", True, "5", "a@x.example"),
        ("sent", False, "5", "a@x.example"),
    ]
    assert rows(warehouse, "select kind, value, channel, reason from raw.suppressions") == [
        ("email", "a@x.example", "email", "complained")
    ]
    portal.now = "2026-11-24T11:00:00Z"
    portal.events += [event(6, "2026-11-24T10:30:00Z", "CLICK"), event(7, "2026-11-24T09:30:00Z", "SENT")]
    assert load(portal, warehouse)["engagement"] == 2, "one new, one that HubSpot told late"
    assert load(portal, warehouse) == {"rejected": 0}


def test_without_the_right_to_email_events_the_rest_loads(
    portal: Portal, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    portal.missing_scopes["/email/"] = "content"
    portal.put("contacts", "1", "2026-11-20T08:00:00Z")
    with caplog.at_level(logging.WARNING, "include"):
        assert load(portal, warehouse)["contacts"] == 1
    assert "Missing scopes: content" in caplog.text


def too_many(policy: str, **headers: str) -> httpx.Response:
    return httpx.Response(
        429, json={"status": "error", "errorType": "RATE_LIMIT", "policyName": policy}, headers=headers
    )


@pytest.mark.parametrize(
    ("trouble", "wait"),
    [
        (too_many("SECONDLY"), 1.0),
        (too_many("TEN_SECONDLY_ROLLING"), 10.0),
        (too_many("TEN_SECONDLY_ROLLING", **{"Retry-After": "4"}), 4.0),
        (httpx.Response(423, json={}), 2.0),
        (httpx.Response(502, text="<html>"), None),
        (httpx.Response(524), None),
        (httpx.Response(200, text='{"results": [{"id"'), None),
        (httpx.ReadTimeout("https://portal.example/secret"), None),
    ],
)
def test_passing_trouble_is_waited_for(portal: Portal, warehouse: Warehouse, trouble: Any, wait: float | None) -> None:
    portal.put("contacts", "1", "2026-11-20T08:00:00Z")
    portal.scripted = [trouble]
    waits: list[float] = []
    assert load(portal, warehouse, waits=waits)["contacts"] == 1
    assert len(waits) == 1
    assert waits[0] == wait if wait else 0 < waits[0] < 5


@pytest.mark.parametrize(
    ("trouble", "error", "sentence", "retry_after"),
    [
        (too_many("DAILY"), TransientError, "resets at midnight in the account's own time zone", 3600.0),
        (httpx.Response(477, headers={"Retry-After": "86400"}), TransientError, "moving this account", 86400.0),
        (httpx.Response(401, json={}), AuthenticationError, "Settings > Integrations > Service Keys", None),
        (
            httpx.Response(404, text="<html>"),
            ConfigurationError,
            "refused when asked to read contacts (HTTP 404)",
            None,
        ),
    ],
)
def test_lasting_trouble_stops_the_run_with_a_sentence(
    portal: Portal,
    warehouse: Warehouse,
    trouble: httpx.Response,
    error: type[Exception],
    sentence: str,
    retry_after: float | None,
) -> None:
    portal.scripted = [trouble]
    waits: list[float] = []
    with pytest.raises(error) as caught:
        load(portal, warehouse, waits=waits)
    assert sentence in str(caught.value)
    assert waits == []
    assert getattr(caught.value, "retry_after", None) == retry_after


def test_a_platform_that_stays_down_ends_the_run(portal: Portal, warehouse: Warehouse) -> None:
    portal.scripted = [httpx.Response(503) for _ in range(50)]
    waits: list[float] = []
    with pytest.raises(TransientError, match="HubSpot answered 503 when asked to read contacts"):
        load(portal, warehouse, waits=waits)
    assert len(waits) == 7


def test_missing_scopes_are_named(portal: Portal, warehouse: Warehouse) -> None:
    portal.missing_scopes["/orders"] = "crm.objects.orders.read"
    portal.put("contacts", "1", "2026-11-20T08:00:00Z")
    with pytest.raises(AuthenticationError, match=r"Missing scopes: crm\.objects\.orders\.read"):
        load(portal, warehouse)
    assert rows(warehouse, "select * from raw.contacts") == [], "nothing of a broken run counts"
    portal.missing_scopes.clear()
    assert load(portal, warehouse)["contacts"] == 1


def test_neither_key_nor_address_nor_person_is_logged(
    portal: Portal, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    portal.put("contacts", "1", "2026-11-20T08:00:00Z", email="ana@x.example")
    portal.put("orders", "1", "2026-11-20T08:00:00Z", hs_total_price="ana@x.example")
    portal.scripted = [httpx.ConnectError("https://portal.example?key=pat-na1-secret"), httpx.Response(502)]
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        load(portal, warehouse, said)
        wrong = Connection("hubspot_default", host="https://portal.example", password="pat-na1-wrong")
        with pytest.raises(AuthenticationError) as caught:
            load(portal, warehouse, connection=wrong)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("include", "httpx", "dlt"))]
    everything = "\n".join([*ours, *said, str(caught.value)])
    for secret in ("pat-na1", "portal.example", "ana@x.example"):
        assert secret not in everything


def test_no_key_and_a_wrong_pace_are_told_before_anything_is_asked() -> None:
    with pytest.raises(ConfigurationError, match="the password is empty"):
        HubSpotClient(Connection("hubspot_default"))
    with pytest.raises(ConfigurationError, match="requests_per_10s"):
        HubSpotClient(Connection("hubspot_default", password="x", extra={"requests_per_10s": "fast"}))
