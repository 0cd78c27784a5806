"""Input that is bad by its amount: the build must finish, in bounded memory, and the outcome is the stated one.

What is bad by its values has a YAML case each; sql/README.md lists what happens to it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from include.warehouse.build import build_segment, build_tables
from include.warehouse.engine import Warehouse
from tests.sql.conftest import shipped

AS_OF = datetime(2026, 3, 10, 12)
SEGMENTS = ("cart_abandoners", "lapsed_subscribers", "non_converting_visitors")


def audiences(warehouse: Warehouse) -> dict[str, list[dict[str, Any]]]:
    for segment in SEGMENTS:
        build_segment(warehouse, segment, segment, AS_OF, *shipped(segment))
    return {segment: warehouse.read(f"select * from segments.{segment}") for segment in SEGMENTS}


def test_a_visitor_with_a_million_events_is_a_bot_in_no_audience() -> None:
    """With 1 GB for the engine, and one person beside it who must be served as ever."""
    warehouse = Warehouse("duckdb://")
    warehouse.ensure_tables()
    columns = "source, event_key, event_name, visitor_id, currency, browser, occurred_at, loaded_at"
    with warehouse.session() as session:
        session.exec_driver_sql("set memory_limit = '1GB'")
        # Eleven events a second, one in ten about a cart, for a day; the last an hour and a half ago.
        session.exec_driver_sql(
            f"insert into raw.events ({columns}) select 'web', 'e' || i, "
            "case i % 10 when 9 then 'add_to_cart' when 8 then 'view_item' else 'page_view' end, "
            "'busy', 'EUR', 'Chrome', "
            "timestamp '2026-03-10 10:30:00' - interval (i * 86) millisecond, timestamp '2026-03-10 11:00:00' "
            "from range(1000000) numbers (i)"
        )
        session.exec_driver_sql(
            "insert into raw.event_items (source, event_key, item_index, sku, quantity, price, loaded_at) "
            "select 'web', 'e' || i, 0, 's' || (i % 97), 1, 2.0, timestamp '2026-03-10 11:00:00' "
            "from range(1000000) numbers (i) where i % 10 >= 8"
        )
        session.exec_driver_sql(
            f"insert into raw.events ({columns}) values ('web', 'ana', 'add_to_cart', 'ana', 'EUR', 'Chrome', "
            "timestamp '2026-03-10 09:00:00', timestamp '2026-03-10 11:00:00')"
        )
        session.exec_driver_sql(
            "insert into raw.event_items (source, event_key, item_index, sku, quantity, price, loaded_at) "
            "values ('web', 'ana', 0, 'MUG', 1, 6.0, timestamp '2026-03-10 11:00:00')"
        )
    build_tables(warehouse, AS_OF)
    assert warehouse.scalar("select count(*) from staging.events") == 1_000_001
    who = warehouse.read(
        "select identifier_value, profile_id from core.identifiers where identifier_kind = 'visitor_id'"
    )
    profiles = {row["identifier_value"]: row["profile_id"] for row in who}
    assert {row["profile_id"]: row["is_bot"] for row in warehouse.read("select * from core.profiles")} == {
        profiles["busy"]: True,
        profiles["ana"]: False,
    }
    carts = warehouse.read("select profile_id, item_count from core.carts order by item_count")
    assert [(row["profile_id"], row["item_count"]) for row in carts] == [
        (profiles["ana"], 1),
        (profiles["busy"], 100_000),
    ]
    found = audiences(warehouse)
    assert [row["profile_id"] for row in found["cart_abandoners"]] == [profiles["ana"]]
    assert found["non_converting_visitors"] == found["lapsed_subscribers"] == []


def events(number: int, **columns: Callable[[int], str]) -> list[dict[str, Any]]:
    common = {"source": "web", "event_name": "view_item", "loaded_at": AS_OF}
    return [
        {**common, "event_key": f"e{i}", "occurred_at": AS_OF - timedelta(hours=2, seconds=i)}
        | {name: make(i) for name, make in columns.items()}
        for i in range(number)
    ]


def contacts(number: int, **columns: Callable[[int], str]) -> list[dict[str, Any]]:
    common = {"source": "crm", "created_at": datetime(2025, 1, 1), "updated_at": datetime(2025, 1, 1)}
    return [
        {**common, "contact_id": f"c{i}", "loaded_at": AS_OF} | {name: make(i) for name, make in columns.items()}
        for i in range(number)
    ]


@pytest.mark.parametrize(
    ("table", "rows", "kind", "value"),
    [
        (
            "raw.events",
            events(10_000, visitor_id=lambda i: f"v{i}", email=lambda _: "test@x.com"),
            "email",
            "test@x.com",
        ),
        ("raw.contacts", contacts(10_000, email=lambda _: "test@x.com"), "email", "test@x.com"),
        ("raw.contacts", contacts(10_000, phone=lambda _: "+4366012345"), "phone", "+4366012345"),
        ("raw.events", events(10_000, visitor_id=lambda _: "kiosk", user_id=lambda i: f"u{i}"), "visitor_id", "kiosk"),
    ],
    ids=["browsers-one-address", "contacts-one-address", "contacts-one-phone", "logins-one-browser"],
)
def test_what_ten_thousand_have_in_common_fuses_nobody(
    empty_warehouse: Warehouse, table: str, rows: list[dict[str, Any]], kind: str, value: str
) -> None:
    empty_warehouse.insert(table, rows)
    began = time.monotonic()
    build_tables(empty_warehouse, AS_OF)
    assert time.monotonic() - began < 60
    assert empty_warehouse.read("select * from core.quarantined_identifiers") == [
        {"identifier_kind": kind, "identifier_value": value, "joins": 10_000}
    ]
    identifiers = empty_warehouse.read(
        "select profile_id from core.identifiers where not (identifier_kind = :kind and identifier_value = :value)",
        kind=kind,
        value=value,
    )
    sizes = Counter(row["profile_id"] for row in identifiers)
    assert len(sizes) == 10_000
    assert set(sizes.values()) == {1}
    # Nobody's contact data is the shared one.
    shown = empty_warehouse.read(
        "select count(*) as profiles, count(email) as emails, count(phone) as phones from core.profiles"
    )
    assert shown == [{"profiles": 10_000, "emails": 0, "phones": 0}]


def test_one_login_on_ten_thousand_browsers_is_one_person(empty_warehouse: Warehouse) -> None:
    """A login is never quarantined: browsers lose their cookies (rule 3)."""
    empty_warehouse.insert("raw.events", events(10_000, visitor_id=lambda i: f"v{i}", user_id=lambda _: "ana"))
    build_tables(empty_warehouse, AS_OF)
    assert empty_warehouse.read("select * from core.quarantined_identifiers") == []
    assert empty_warehouse.scalar("select count(*) from core.profiles") == 1
