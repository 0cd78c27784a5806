"""Carts and orders of some people, built from what those people did alone, are the same as built among all.

Random shops of many islands (people, browsers, records and order numbers that have met) are built in full. Then some of
the islands are touched: every model runs in build order the way an incremental build runs it, its touched rows gone
before, and each table must be again what it was.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
import sqlalchemy

from include.settings import ROOT
from include.warehouse.build import run_model
from include.warehouse.engine import Warehouse
from include.warehouse.models import Model
from include.warehouse.render import render
from include.warehouse.touched import UNITS
from tests.sql.conftest import Template, make_template, settings_of

AS_OF = datetime(2026, 3, 10, 12)
ISLANDS = 150
# In build order. What the runner keeps by key is put together again; what only feeds others holds the slice.
MODELS = (
    "actions",
    "action_profiles",
    "order_records",
    "order_profiles",
    "orders",
    "order_items",
    "shop_carts",
    "cart_closings",
    "cart_events",
    "cart_lines",
    "carts",
)
NAMES = ["page_view", "add_to_cart", "add_to_cart", "remove_from_cart", "begin_checkout", "purchase", "sign_up"]
Rows = dict[str, list[dict[str, Any]]]


@dataclass
class Island:
    """People and things that have met, and everything told about them."""

    visitors: list[str] = field(default_factory=list)
    profiles: set[str] = field(default_factory=set)
    emails: list[str] = field(default_factory=list)
    phones: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


def random_island(chance: random.Random, number: int, rows: Rows) -> Island:
    island = Island()

    def identifier(kind: str, value: str, profile: str | None, state: str) -> None:
        rows["core.identifiers"].append(
            {"identifier_kind": kind, "identifier_value": value, "profile_id": profile, "state": state}
        )
        island.profiles |= {profile} if profile else set()
        if chance.random() < 0.05:
            rows["core.erased_identifiers"].append(
                {"identifier_kind": kind, "identifier_value": value, "erased_until": moment(chance)}
            )

    for person in range(chance.choice([0, 1, 1, 2, 2])):
        email = f"{number}-{person}@x.example"
        island.emails.append(email)
        identifier("email", email, f"person {number}-{person}", "joined")
        identifier("user_id", f"login {email}", f"person {number}-{person}", "joined")
    for kind, known in (("visitor_id", island.visitors), ("phone", island.phones)):
        for weak in range(chance.choice([1, 1, 2])):
            value = f"+{number}{weak}" if kind == "phone" else f"browser {number}-{weak}"
            known.append(value)
            state = chance.choice(["alone", "shared", "quarantined", *["joined"] * 3])
            own = f"{kind} {number}-{weak}"
            joined = f"person {number}-0" if island.emails else own
            identifier(kind, value, {"quarantined": None, "joined": joined}.get(state, own), state)
    # A till writes one number on everybody's orders, so that it is none.
    till = [f"till {number}"] * chance.choice([0, 0, 6])
    numbers = [f"T{number}-1", f"T{number}-2", *till, "(not set)", " ", None, None]
    random_events(chance, island, number, numbers, rows)
    random_records(chance, island, number, numbers, rows)
    return island


def moment(chance: random.Random) -> datetime:
    """Often the same minutes, so that times meet; now and then ahead of as_of."""
    days = timedelta(days=chance.choice([0, 0, 1, 6, 8, 15, 30]))
    return AS_OF + timedelta(seconds=30) - days - timedelta(seconds=30 * chance.randint(0, 30))


def random_events(chance: random.Random, island: Island, number: int, numbers: list[str | None], rows: Rows) -> None:
    for event in range(chance.randint(0, 14)):
        key = f"{number}-{event}"
        email = chance.choice([*island.emails, None, None])
        island.events.append(key)
        rows["raw.events"].append(
            {
                "event_key": key,
                "event_name": chance.choice(NAMES),
                "visitor_id": chance.choice(island.visitors),
                "user_id": f"login {email}" if email and chance.random() < 0.7 else None,
                "email": email,
                "source": chance.choice(["web", "web", "app"]),
                "page_location": chance.choice(["https://shop/a", "https://shop/b", None]),
                "transaction_id": chance.choice(numbers),
                "currency": chance.choice(["EUR", "EUR", "EUR", "CHF"]),
                "value": chance.choice([10.0, 20.0]),
                "occurred_at": moment(chance),
            }
        )
        rows["staging.event_items"] += [
            {
                "event_key": key,
                "item_index": index,
                "sku": (sku := chance.choice("ABC")),
                "name": f"Thing {sku}",
                "quantity": chance.choice([0, 1, 1, 2]),
                "price": chance.choice([5.0, 6.0]),
            }
            for index in range(chance.choice([0, 1, 1, 2]))
        ]


def random_records(chance: random.Random, island: Island, number: int, numbers: list[str | None], rows: Rows) -> None:
    for order in range(chance.randint(0, 4) + numbers.count(f"till {number}")):
        carried = chance.choice(["email", "email", "visitor_id", "phone", "all", "nothing"])
        record = {
            "source": chance.choice(["crm", "tills"]),
            "order_id": f"{number}-{order}",
            "transaction_id": chance.choice(numbers),
            "email": chance.choice(island.emails) if island.emails and carried in ("email", "all") else None,
            "visitor_id": chance.choice(island.visitors) if carried in ("visitor_id", "all") else None,
            "phone": chance.choice(island.phones) if carried in ("phone", "all") else None,
            "status": chance.choice(["paid", "paid", "cancelled", None]),
            "currency": chance.choice(["EUR", "EUR", None]),
            "total_amount": chance.choice([10.0, 10.0, 20.0, None]),
            "is_test": chance.random() < 0.1,
            "ordered_at": moment(chance),
            "updated_at": chance.choice([AS_OF, None]),
        }
        rows["staging.orders"].append(record)
        rows["staging.order_items"] += [
            {**{key: record[key] for key in ("source", "order_id")}, "line_id": str(line), "sku": "A", "quantity": 1}
            for line in range(chance.choice([0, 1, 11]))
        ]
    for cart in range(chance.choice([0, 0, 1, 2])):
        key = {"source": "crm", "cart_id": f"{number}-{cart}"}
        rows["staging.carts"].append(
            {
                **key,
                "email": chance.choice([*island.emails, None]),
                "visitor_id": chance.choice([*island.visitors, None]),
                "status": chance.choice(["open", "open", "ordered", "emptied"]),
                "total_amount": 5.0,
                "updated_at": moment(chance),
            }
        )
        rows["staging.cart_items"] += [{**key, "line_id": "1", "sku": "A", "quantity": 1, "price": 5.0}]


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    made = make_template(ROOT / "sql", Warehouse("duckdb://"))
    yield made
    made.warehouse.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_slice_is_what_the_whole_says_of_it(template: Template, seed: int) -> None:
    chance = random.Random(seed)
    rows: Rows = {
        name: []
        for name in (
            "raw.events",
            *(f"staging.{table}" for table in ("event_items", "orders", "order_items", "carts", "cart_items")),
            *(f"core.{table}" for table in ("identifiers", "erased_identifiers")),
        )
    }
    islands = [random_island(chance, number, rows) for number in range(ISLANDS)]
    params = {**settings_of({}), "as_of": AS_OF}
    with template.warehouse.session() as session:
        try:
            for table, given in rows.items():
                session.exec_driver_sql(f"delete from {table}")
                template.warehouse.insert(table, given, connection=session)
            for name in ("event_keys", "event_loads", "mended_keys", "mended_events"):
                run_model(template.warehouse, session, template.models[f"staging.{name}"], params)
            for name in ("record_profiles", *MODELS):
                run_model(template.warehouse, session, template.models[f"core.{name}"], params)
                session.exec_driver_sql(f"create table core.whole_{name} as select * from core.{name}")
            check_that_much_happened(session)
            for share in (0.02, 0.3, 1.0):
                since = touch(session, template, [island for island in islands if chance.random() < share])
                for name in MODELS:
                    build_touched(session, template, f"core.{name}", {**params, "touched_since": since})
                    compare(session, template, name)
        finally:
            session.rollback()


def touch(session: sqlalchemy.Connection, template: Template, islands: list[Island]) -> datetime:
    """What the runner does before an incremental build: the keys, and whose records are built anew; the first day."""
    keys = {
        "visitor_id": {key for island in islands for key in island.visitors},
        "profile_id": {key for island in islands for key in island.profiles},
        "event_key": {key for island in islands for key in island.events},
    }
    for table, column, _ in UNITS.values():
        if column in keys:
            session.exec_driver_sql(f"create table if not exists {table} ({column} text)")
            session.exec_driver_sql(f"delete from {table}")
            template.warehouse.insert(table, [{column: key} for key in sorted(keys[column])], connection=session)
    session.exec_driver_sql(
        "create or replace table core.touched_days as select distinct cast(occurred_at as date) as day from raw.events "
        "where event_key in (select event_key from core.touched_events)"
    )
    session.exec_driver_sql("delete from core.record_profiles")
    session.exec_driver_sql(
        "insert into core.record_profiles select * from core.whole_record_profiles "
        "where profile_id in (select profile_id from core.touched_profiles)"
    )
    first = session.exec_driver_sql("select min(day) from core.touched_days").scalar()
    return datetime.combine(first or date.max, time.min)


def build_touched(session: sqlalchemy.Connection, template: Template, name: str, params: dict[str, Any]) -> None:
    model = template.models[name]
    query = render(model.sql, template.warehouse.dialect, params, where=model.where, incremental=True)
    if model.materialized == "work":
        session.exec_driver_sql(f"create or replace table {name} as {query}")
        return
    assert model.materialized == "incremental"
    keys = {column: table for table, column, _ in UNITS.values()}
    session.exec_driver_sql(f"delete from {name} where {model.key} in (select {model.key} from {keys[str(model.key)]})")
    session.exec_driver_sql(f"insert into {name} {query}")


def compare(session: sqlalchemy.Connection, template: Template, name: str) -> None:
    whole, found = (
        f"select * from {table} where {part_of(template.models[f'core.{name}'], table)}"
        for table in (f"core.whole_{name}", f"core.{name}")
    )
    for one, other, said in ((whole, found, "missing"), (found, whole, "too many")):
        rows = session.exec_driver_sql(f"{one} except all {other}").all()
        assert rows == [], f"core.{name}: {len(rows)} rows {said}"


def part_of(model: Model, table: str) -> str:
    """Which rows must be there: all of what is kept, the touched of what only feeds others."""
    touched = "profile_id in (select profile_id from core.touched_profiles)"
    if model.materialized == "incremental":
        return "true"
    if model.name == "core.order_records":
        # A record of nobody counts for the order it shares with somebody.
        return f"order_key in (select order_key from {table} where {touched})"
    return touched


def check_that_much_happened(session: sqlalchemy.Connection) -> None:
    """The random shop holds what a slice could get wrong."""
    for what, query in {
        "cart states": "select count(distinct state) = 4 from core.carts",
        "closings": "select count(*) > 50 from core.cart_closings",
        "several people": "select count(*) > 0 from (select order_key from core.order_profiles group by 1 "
        "having count(*) > 1) as shared",
        "reused numbers": "select count(*) > 0 from core.order_records as records inner join staging.orders as orders "
        "on records.record_key = orders.source || ':' || orders.order_id "
        "where orders.transaction_id like 'till%' and records.transaction_id is null",
        "orders of nobody": "select count(*) > 0 from core.order_records where profile_id is null",
        "partners": "select count(*) > 0 from core.order_records where transaction_id is null "
        "and order_key <> record_key",
        "judged stretches": "select count(*) > 0 from core.cart_events where took_the_last",
        "checkouts as carts": "select count(*) > 0 from core.cart_events where basis > 0",
    }.items():
        assert session.exec_driver_sql(query).scalar(), f"too tame: no {what}"
