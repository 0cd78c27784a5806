"""Carts in SQL against the same rules told one event after the other in Python, on thousands of random histories.

The rules about carts lean on each other (whether a remove had an effect, whether the cart was still alive, what an
order closed), so that a few written cases do not show that all of their combinations are right.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from include.settings import ROOT, Settings
from include.warehouse.build import run_model, setting_params
from include.warehouse.engine import Warehouse
from include.warehouse.models import read_model

AS_OF = datetime(2026, 3, 10, 12)
LIFETIME = timedelta(days=7)
TOLERANCE = timedelta(seconds=60)
RANK = {"add_to_cart": 1, "remove_from_cart": 2, "begin_checkout": 3}
SILENCES = [
    *(timedelta(seconds=seconds) for seconds in (0, 1, 59, 60, 61)),
    timedelta(hours=5),
    *(timedelta(days=days) for days in (3, 4, 6, 7, 8)),
    timedelta(days=7, seconds=1),
]
GIVEN = {
    "core.action_profiles": "event_key text, profile_id text, event_name text, source text, currency text, "
    "page_location text, item_index bigint, sku text, name text, image_url text, product_url text, quantity bigint, "
    "price double, occurred_at timestamp",
    "core.orders": "order_key text, profile_id text, counts boolean, ordered_at timestamp",
    "core.order_profiles": "order_key text, profile_id text",
    "core.order_records": "order_key text, source text, ordered_at timestamp",
    "core.record_profiles": "record_kind text, source text, record_id text, profile_id text",
    "staging.carts": "source text, cart_id text, status text, currency text, total_amount double, cart_url text, "
    "created_at timestamp, updated_at timestamp",
    "staging.cart_items": "source text, cart_id text, line_id text, sku text, name text, image_url text, "
    "product_url text, quantity bigint, price double, currency text",
}
MODELS = ("shop_carts", "cart_closings", "cart_events", "cart_lines", "carts")


@dataclass(frozen=True)
class Event:
    at: datetime
    key: str
    name: str
    items: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Order:
    at: datetime
    key: str
    is_own: bool  # reported by the source of the cart

    @property
    def closes_until(self) -> datetime:
        return self.at if self.is_own else self.at + TOLERANCE


@dataclass
class Cart:
    key: str
    started_at: datetime
    last_activity_at: datetime
    quantities: dict[str, int] = field(default_factory=dict)
    has_adds: bool = False
    held_something: bool = False


@dataclass
class History:
    events: list[Event] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)


def simulate(history: History) -> dict[str, tuple[Any, ...]]:
    """cart_key -> started_at, last_activity_at, state, ordered_at, quantities."""
    orders = sorted(history.orders, key=lambda order: order.closes_until)
    waiting = list(orders)
    finished: list[Cart] = []
    cart: Cart | None = None
    for event in sorted(history.events, key=lambda event: (event.at, RANK[event.name], event.key)):
        while waiting and waiting[0].closes_until < event.at:
            waiting.pop(0)
            finished += [cart] if cart else []
            cart = None
        if cart and event.at > cart.last_activity_at + LIFETIME:
            finished.append(cart)
            cart = None
        touched = cart or Cart(event.key, event.at, event.at)
        if apply(event, touched):
            touched.last_activity_at = event.at
            cart = touched
    finished += [cart] if cart else []
    return {
        f"web:{cart.key}": (cart.started_at, cart.last_activity_at, *outcome(cart, orders), held(cart))
        for cart in finished
        if cart.held_something
    }


def apply(event: Event, cart: Cart) -> bool:
    """Change the cart; whether the event was activity."""
    added = {sku: 0 for sku, _ in event.items}
    for sku, quantity in event.items:
        added[sku] += quantity
    if event.name == "remove_from_cart":
        before = dict(cart.quantities)
        for sku, quantity in added.items():
            if sku in cart.quantities:
                cart.quantities[sku] = max(0, cart.quantities[sku] - quantity)
        return cart.quantities != before
    if event.name == "begin_checkout":
        if not cart.has_adds and any(added.values()):
            cart.quantities = added
            cart.held_something = True
        return True
    for sku, quantity in added.items():
        cart.quantities[sku] = cart.quantities.get(sku, 0) + quantity
    if not any(added.values()):
        return False
    cart.has_adds = cart.held_something = True
    return True


def held(cart: Cart) -> dict[str, int]:
    return {sku: quantity for sku, quantity in cart.quantities.items() if quantity}


def outcome(cart: Cart, orders: list[Order]) -> tuple[str, datetime | None]:
    closing = [order.at for order in orders if order.closes_until >= cart.last_activity_at]
    if closing:
        return "ordered", min(closing)
    if not held(cart):
        return "emptied", None
    return ("expired" if cart.last_activity_at < AS_OF - LIFETIME else "open"), None


def random_history(chance: random.Random, person: int) -> History:
    history = History()
    at = AS_OF - timedelta(days=chance.choice([1, 20, 60, 100]))
    names = chance.choice([[*RANK, "remove_from_cart"], ["add_to_cart", "remove_from_cart", "remove_from_cart"]])
    for number in range(chance.randint(1, chance.choice([4, 12, 30]))):
        at += chance.choice(SILENCES)
        if at >= AS_OF:
            break
        key = f"{person}-{chance.randint(10, 99)}-{number}"
        if chance.random() < 0.1:
            history.orders.append(Order(at, key, chance.random() < 0.5))
            continue
        items = tuple(
            (chance.choice("ABC"), chance.choice([0, 1, 1, 1, 2])) for _ in range(chance.choice([0, 1, 1, 2, 3]))
        )
        history.events.append(Event(at, key, chance.choice(names), items))
    return history


def busy_history(events: int) -> History:
    """One browser that never rests: a till on the shop floor, or a script."""
    chance = random.Random(events)
    history = History()
    for number in range(events):
        at = AS_OF - timedelta(minutes=events - number)
        name = chance.choice(["add_to_cart", "add_to_cart", "remove_from_cart"])
        history.events.append(Event(at, f"busy-{number}", name, ((chance.choice("ABCDEFGH"), chance.randint(1, 3)),)))
        if number % 500 == 499:
            history.orders.append(Order(at, f"busy-order-{number}", is_own=True))
    return history


def build(warehouse: Warehouse, people: dict[str, History]) -> dict[str, tuple[Any, ...]]:
    """The same histories through the SQL; cart_key -> what `simulate` says."""
    params = {**setting_params(Settings()), "as_of": AS_OF}
    orders = [(who, order) for who, history in people.items() for order in history.orders]
    events = [(who, event) for who, history in people.items() for event in history.events]
    rows: dict[str, list[dict[str, Any]]] = {
        "core.action_profiles": [
            {
                "event_key": e.key,
                "profile_id": who,
                "event_name": e.name,
                "source": "web",
                "item_index": index,
                "sku": sku,
                "name": sku,
                "quantity": quantity,
                "price": 1.0,
                "occurred_at": e.at,
            }
            for who, e in events
            for index, (sku, quantity) in enumerate(e.items or [(None, None)])
        ],
        "core.orders": [
            {"order_key": o.key, "profile_id": who, "counts": True, "ordered_at": o.at} for who, o in orders
        ],
        "core.order_profiles": [{"order_key": o.key, "profile_id": who} for who, o in orders],
        "core.order_records": [
            {"order_key": o.key, "source": "web" if o.is_own else "crm", "ordered_at": o.at} for _, o in orders
        ],
    }
    with warehouse.session() as session:
        for schema in ("core", "staging"):
            session.exec_driver_sql(f"create schema if not exists {schema}")
        for table, columns in GIVEN.items():
            warehouse.execute(f"create table {table} ({columns})", connection=session)
            warehouse.insert(table, rows.get(table, []), connection=session)
        for name in MODELS:
            run_model(warehouse, session, read_model(ROOT / "sql" / "core" / f"{name}.sql"), params)
        found = warehouse.read("select * from core.carts", connection=session)
        lines = warehouse.read("select cart_key, sku, quantity from core.cart_lines", connection=session)
    quantities: dict[str, dict[str, int]] = {}
    for line in lines:
        quantities.setdefault(line["cart_key"], {})[line["sku"]] = line["quantity"]
    assert len({row["cart_key"] for row in found}) == len(found)
    return {
        row["cart_key"]: (
            row["started_at"],
            row["last_activity_at"],
            row["state"],
            row["ordered_at"],
            quantities.get(row["cart_key"], {}),
        )
        for row in found
    }


@pytest.mark.parametrize("seed", [pytest.param(1, marks=pytest.mark.on_spark), 2])
def test_sql_and_simulation_agree_on_random_histories(empty_warehouse: Warehouse, seed: int) -> None:
    chance = random.Random(seed)
    people = {f"person {number}": random_history(chance, number) for number in range(1200)}
    expected = {key: cart for history in people.values() for key, cart in simulate(history).items()}
    assert {"ordered", "emptied", "expired", "open"} == {cart[2] for cart in expected.values()}
    assert build(empty_warehouse, people) == expected


@pytest.mark.on_spark
def test_a_visitor_with_thousands_of_events_has_right_carts(empty_warehouse: Warehouse) -> None:
    history = busy_history(6000)
    expected = simulate(history)
    assert len(expected) == 12
    assert build(empty_warehouse, {"busy": history}) == expected
