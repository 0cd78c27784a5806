"""A slice of what is built from visits is what the whole build says about the same keys.

A shop of random events is built in full. Then a few browsers are taken, with everybody they lead to (their island),
and each incremental model is asked for their part alone: it must be the rows of the full table with those keys.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest

from include.settings import ROOT
from include.warehouse.build import build_model, setting_params
from include.warehouse.engine import Warehouse
from include.warehouse.models import Model, build_order, read_model
from include.warehouse.render import render
from include.warehouse.touched import UNITS

AS_OF = datetime(2026, 3, 10, 12)
ALWAYS_LOOKED_AT = ("core.visits", "core.visit_products", "core.sessions", "core.profiles", "core.consents")
SLICED = (*ALWAYS_LOOKED_AT, "core.profile_activity")
NAMES = [
    "page_view",
    "page_view",
    "page_view",
    "view_item",
    "scroll",
    "add_to_cart",
    "generate_lead",
    "sign_up",
    "purchase",
]


def some_events(random_: random.Random, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Events of 40 browsers: some shared, some with logins or e-mails, some of a source without session ids."""
    events, items = [], []
    for number in range(count):
        browser = random_.randrange(40)
        day = random_.randrange(30)
        session = random_.randrange(3)
        login = random_.random() < 0.3
        name = random_.choice(NAMES)
        events.append(
            {
                "source": "log" if browser % 4 == 0 else "web",
                "event_key": f"e{number}",
                "event_name": name,
                "visitor_id": f"v{browser}",
                "session_id": None if browser % 4 == 0 else f"{day}{session}",
                "user_id": f"u{browser // 2 + random_.randrange(2) * (browser % 7 == 0)}" if login else None,
                "email": f"m{browser // 3}@x.example" if login and browser % 5 == 0 else None,
                "browser": random_.choice(["Chrome", "Safari", "Firefox"]) if browser % 11 else "SomeBot/1.0",
                "traffic_type": "internal" if browser % 13 == 0 else None,
                "ads_storage": random_.choice(["Yes", "Yes", "No", None]),
                "engagement_ms": None if browser % 4 == 0 else random_.randrange(9000),
                "is_engaged": random_.random() < 0.1,
                "occurred_at": datetime(2026, 2, 10)
                + timedelta(days=day, hours=6 * session, seconds=random_.randrange(3600)),
                "loaded_at": datetime(2026, 3, 10),
            }
        )
        if name in ("view_item", "add_to_cart", "purchase"):
            sku = f"s{random_.randrange(12)}"
            item = {"source": events[-1]["source"], "event_key": f"e{number}", "item_index": 0, "sku": sku}
            items.append(item | {"name": f"Thing {sku}", "loaded_at": datetime(2026, 3, 10)})
    return events, items


def the_models() -> dict[str, Model]:
    return {f"{path.parent.name}.{path.stem}": read_model(path) for path in sorted((ROOT / "sql").glob("*/*.sql"))}


@pytest.fixture(scope="module")
def shop() -> Iterator[Warehouse]:
    warehouse = Warehouse("duckdb://")
    warehouse.ensure_tables()
    random_ = random.Random(17)
    events, items = some_events(random_, 4000)
    warehouse.insert("raw.events", events)
    warehouse.insert("raw.event_items", items)
    warehouse.insert(
        "raw.consents",
        [
            {
                "source": "crm",
                "email": f"m{n}@x.example",
                "channel": channel,
                "status": random_.choice(["granted", "denied"]),
            }
            | {"changed_at": datetime(2026, 2, 1 + n)}
            for n in range(14)
            for channel in ("email", "ads")
        ],
    )
    # Two asked to be forgotten; one of them has come back since.
    warehouse.insert(
        "raw.suppressions",
        [
            {"source": "privacy", "kind": kind, "value": value, "channel": "all", "reason": "erased", "is_active": True}
            | {"changed_at": datetime(2026, 2, 20)}
            for kind, value in (("email", "m5@x.example"), ("email", "m0@x.example"))
        ],
    )
    warehouse.insert(
        "raw.consents",
        [
            {"source": "shop", "email": "m0@x.example", "channel": "email", "status": "granted"}
            | {"changed_at": datetime(2026, 3, 1)}
        ],
    )
    models = the_models()
    wanted = {name: model for name, model in models.items() if model.schema in ("staging", "core")}
    for name in build_order(wanted):
        build_model(warehouse, name, AS_OF)
    for table, column, _ in UNITS.values():
        kind = "date" if column == "day" else "text"
        warehouse.execute(f"create table if not exists {table} ({column} {kind})")
    yield warehouse
    warehouse.close()


def island(links: list[tuple[str, str]], start: set[str]) -> set[str]:
    """Everything that is seen together with these, directly or through others."""
    found = set(start)
    while True:
        more = {other for pair in links for other in pair if found & set(pair)} - found
        if not more:
            return found
        found |= more


def days_of(visit: dict[str, Any]) -> list[date]:
    first, last = visit["started_at"].date(), visit["ended_at"].date()
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def touch(warehouse: Warehouse, visitors: set[str]) -> dict[str, set[Any]]:
    """Fill the tables of touched keys as for new events of these browsers; returns the keys by model key."""
    links = [
        (row["node_a"], row["node_b"])
        for row in warehouse.read("select node_a, node_b from core.identifier_links where node_b is not null")
    ]
    nodes = island(links, {f"5:{visitor}" for visitor in visitors})
    people = {node.removeprefix("5:") for node in nodes if node.startswith("5:")}
    profiles = {
        row["profile_id"]
        for row in warehouse.read("select identifier_kind, identifier_value, profile_id from core.identifiers")
        if row["profile_id"]
        and (
            (row["identifier_kind"] == "visitor_id" and f"5:{row['identifier_value']}" in nodes)
            or (row["identifier_kind"] == "user_id" and f"2:{row['identifier_value']}" in nodes)
            or (row["identifier_kind"] == "email" and f"3:{row['identifier_value']}" in nodes)
        )
    }
    visits = warehouse.read("select session_key, visitor_id, started_at, ended_at from core.visits")
    mine = [row for row in visits if row["visitor_id"] in visitors]
    walked = {(row["visitor_id"], day) for row in mine for day in days_of(row)}
    days = {day for _, day in walked}
    keys: dict[str, set[Any]] = {
        "core.touched_days": days,
        "core.touched_visits": {row["session_key"] for row in mine},
        "core.touched_walks": {f"{visitor}.{day}" for visitor, day in walked},
        "core.touched_nodes": nodes,
        "core.touched_visitors": people,
        "core.touched_profiles": profiles,
    }
    for table, column, _ in UNITS.values():
        warehouse.execute(f"delete from {table}")
        warehouse.insert(table, [{column: key} for key in sorted(keys.get(table, set()))])
    return {"session_key": keys["core.touched_visits"], "profile_id": profiles}


def as_text(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(str(sorted(row.items())) for row in rows)


@pytest.mark.parametrize("seed", range(6))
def test_a_slice_is_the_part_of_the_whole(shop: Warehouse, seed: int) -> None:
    models = the_models()
    random_ = random.Random(seed)
    visitors = {f"v{number}" for number in random_.sample(range(40), random_.randrange(1, 5))}
    keys = touch(shop, visitors)
    first = shop.scalar("select min(day) from core.touched_days") or date.max
    params = {**setting_params(), "as_of": AS_OF, "touched_since": datetime.combine(first, time.min)}
    for name in SLICED:
        model = models[name]
        assert model.materialized == "incremental"
        assert model.key is not None
        query = render(model.sql, shop.dialect, params, incremental=True)
        whole = shop.read(f"select * from {name}")
        part = [row for row in whole if row[model.key] in keys[model.key]]
        assert len(part) < len(whole), name
        if name in ALWAYS_LOOKED_AT:
            assert part, name
        assert as_text(shop.read(query)) == as_text(part), name


def test_a_visit_has_one_name_in_the_views_for_analysts(shop: Warehouse) -> None:
    """The events of each row of core.sessions, counted in core.events; it finds visits without session id by time."""
    counted = """
        select session_key, profile_id, count(*) filter (where event_name = 'page_view') as page_views,
            min(occurred_at) as started_at, max(occurred_at) as ended_at
        from core.events group by session_key, profile_id"""
    sessions = "select session_key, profile_id, page_views, started_at, ended_at from core.sessions"
    assert as_text(shop.read(counted)) == as_text(shop.read(sessions))


def test_the_last_viewed_products_are_those_of_the_events(shop: Warehouse) -> None:
    asked = """
        with viewed as (
            select events.profile_id, items.name, max(events.occurred_at) as viewed_at
            from core.events as events inner join core.event_items as items on events.event_key = items.event_key
            where events.event_name = 'view_item' group by events.profile_id, items.name
        ), ranked as (
            select *, row_number() over (partition by profile_id order by viewed_at desc, name) as place from viewed
        )
        select profile_id, string_agg(name, ', ' order by place) as last_viewed_products
        from ranked where place <= 3 group by profile_id"""
    told = "select profile_id, last_viewed_products from core.profile_activity where last_viewed_products is not null"
    assert as_text(shop.read(asked)) == as_text(shop.read(told))
