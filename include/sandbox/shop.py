"""A believable shop, drawn from a seed: its web events, its CRM, its tills, its billing and its newsletter list.

    python -m include.sandbox shop --out build/data --people 20000

The same arguments always give the same files. The mess of real life is in it on purpose: events exported twice or a
day late, guests, people on two devices and browsers two people share, addresses in mixed case and with +suffixes,
opt-outs in one tool that another does not know of, bots, staff, returns, cancelled and test orders. Everybody is
invented; phone numbers come from the ranges that regulators keep for fiction.
"""

from __future__ import annotations

import csv
import json
import random
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

DAYS = 60
SHOP_URL = "https://www.emberandoak.example"
STAFF_DOMAIN = "emberandoak.example"
COMPETITOR_DOMAIN = "rivalhome.example"

_PRODUCTS = [
    ("Walnut Serving Board", 38.0),
    ("Cast Iron Skillet", 54.0),
    ("Linen Apron", 29.0),
    ("Beeswax Candle Set", 18.5),
    ("Stoneware Mug", 14.0),
    ("Oak Side Table", 189.0),
    ("Wool Throw", 79.0),
    ("Copper Kettle", 96.0),
    ("Ceramic Planter", 32.0),
    ("Olive Wood Spoon", 9.5),
    ("Brass Lantern", 64.0),
    ("Cotton Tea Towel", 8.0),
    ("Glass Carafe", 26.0),
    ("Leather Firewood Carrier", 119.0),
    ("Enamel Bread Bin", 47.0),
    ("Felt Coaster Set", 12.0),
]
_FIRST = (
    "Ana Ben Chloé David Emma Farid Grace Hugo Ines Jonas Kiran Lena Mateo Nora Omar Petra Quinn Rosa Søren Tara "
    "Uwe Vera Wren Ximena Yuki Zoë Łukasz Анна"
).split()
_LAST = (
    "Adler Brown Costa Dubois Evans Fischer García Hansen Ito Jensen Kaya Lopez Meyer Novak Olsen Patel Quist Rossi "
    "Smith Tanaka Ueda Varga Weber Xu Young Zimmer O'Neill Müller"
).split()
_DOMAINS = ["gmail.com", "outlook.example", "mail.example", "post.example", "web.example", "inbox.example"]
_ASCII = str.maketrans("éøëŁłíüАн'", "eoeLliuAn_")
_CAMPAIGNS = 5
_EPOCH = datetime(1970, 1, 1)


@dataclass
class Person:
    """One invented person, known to the CRM or only a browser."""

    number: int
    browsers: list[str]
    country: str
    is_known: bool
    ads_storage: str | None
    first_name: str = ""
    last_name: str = ""
    email: str | None = None
    phone: str | None = None
    login: str | None = None
    contact_id: str | None = None
    carts_left: bool = False


@dataclass
class Shop:
    """Everything drawn so far, by the system that will hold it."""

    rng: random.Random
    as_of: datetime
    events: list[tuple[Any, ...]] = field(default_factory=list)
    items: list[tuple[Any, ...]] = field(default_factory=list)
    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    associations: list[dict[str, str]] = field(default_factory=list)
    next_id: int = 1000

    def at(self, days_ago: float) -> datetime:
        """A moment so many days before the shop's now, to the second."""
        return (self.as_of - timedelta(days=days_ago)).replace(microsecond=0)

    def crm(self, kind: str, properties: dict[str, Any], created: datetime, updated: datetime) -> str:
        """Write one CRM record down as HubSpot would hold it; returns its id."""
        self.next_id += 1
        record_id = str(self.next_id)
        modified = "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"
        stamps = {("createdate" if kind == "contacts" else "hs_createdate"): _iso(created), modified: _iso(updated)}
        values = {name: None if value is None else str(value) for name, value in properties.items()}
        self.objects.setdefault(kind, []).append(
            {
                "id": record_id,
                "properties": values | stamps,
                "createdAt": _iso(created),
                "updatedAt": _iso(updated),
                "archived": False,
            }
        )
        return record_id

    def link(self, from_type: str, from_id: str, to_type: str, to_id: str) -> None:
        """Associate two CRM records."""
        self.associations.append({"from_type": from_type, "from_id": from_id, "to_type": to_type, "to_id": to_id})


def generate(out: Path, people: int = 20_000, as_of: datetime | None = None, seed: int = 7) -> dict[str, Any]:
    """Write the whole shop under `out`; returns what dataset.json says (as_of in UTC, counts by kind)."""
    now = as_of or datetime.now(UTC).replace(minute=0, second=0, microsecond=0, tzinfo=None)
    shop = Shop(random.Random(seed), now)  # noqa: S311 (invented data, no secret)
    everybody = _people(shop, people)
    _contacts(shop, everybody)
    for person in everybody:
        _visits(shop, person)
    _bots_and_staff(shop, max(people // 2000, 2))
    _crm_carts(shop, everybody)
    newsletter = _newsletter(shop, everybody)
    counts = {
        "people": people,
        "events": _write_ga4(shop, out / "ga4"),
        "mailchimp members": _write_lines(out / "mailchimp" / "members.jsonl", newsletter),
        **{kind: _write_lines(out / "hubspot" / f"{kind}.jsonl", rows) for kind, rows in shop.objects.items()},
        "associations": _write_lines(out / "hubspot" / "associations.jsonl", shop.associations),
        **_write_files(shop, everybody, out / "files"),
    }
    _write_lines(out / "mailchimp" / "lists.jsonl", [{"id": "a1b2c3d4e5", "name": "Newsletter"}])
    about = {"as_of": now.isoformat(), "seed": seed, "staff_domain": STAFF_DOMAIN, "counts": counts}
    (out / "dataset.json").write_text(json.dumps(about, indent=2) + "\n")
    return about


# --- who there is ------------------------------------------------------------------------------------------------


def _people(shop: Shop, count: int) -> list[Person]:
    rng = shop.rng
    drawn = []
    for number in range(count):
        browsers = [_browser(rng) for _ in range(2 if rng.random() < 0.12 else 1)]
        person = Person(
            number=number,
            browsers=browsers,
            country=rng.choices(["US", "GB", "DE"], [5, 3, 2])[0],
            is_known=rng.random() < 0.45,
            ads_storage=rng.choices(["Yes", "No", None], [72, 20, 8])[0],
        )
        if person.is_known:
            _make_known(rng, person)
        drawn.append(person)
    known = [person for person in drawn if person.is_known]
    for first, second in zip(known[::90], known[1::90], strict=False):  # a browser that two people share
        second.browsers[0] = first.browsers[0]
    return drawn


def _make_known(rng: random.Random, person: Person) -> None:
    person.first_name, person.last_name = rng.choice(_FIRST), rng.choice(_LAST)
    local = f"{person.first_name}.{person.last_name}{person.number}".translate(_ASCII).lower()
    kind = rng.random()
    domain = COMPETITOR_DOMAIN if kind < 0.004 else rng.choice(_DOMAINS)
    if kind > 0.96:
        local += rng.choice(["+shop", "+news", "+ember"])
    person.email = f"{local}@{domain}"
    if rng.random() < 0.6:
        person.phone = _phone(rng, person)
    if rng.random() < 0.02 and person.phone:
        person.email = None  # took the order by phone, never asked for the address
    if rng.random() < 0.7:
        person.login = f"u{100000 + person.number}"


def _browser(rng: random.Random) -> str:
    return f"{rng.randrange(10**8, 10**10)}.{rng.randrange(1_690_000_000, 1_760_000_000)}"


def _phone(rng: random.Random, person: Person) -> str:
    number = person.number
    if person.country == "US":
        area = [201, 202, 212, 213, 303, 305, 312, 404, 415, 503, 512, 602, 617, 702, 713, 801, 808, 907, 919, 971]
        digits = f"({area[number // 100 % 20]}) 555-01{number % 100:02d}"
        return f"+1 {digits}" if rng.random() < 0.5 else digits
    if person.country == "GB":
        prefix = ["113 496", "114 496", "115 496", "116 496", "117 496", "118 496", "121 496", "131 496", "141 496"]
        digits = f"{prefix[number // 1000 % 9]} 0{number % 1000:03d}"
        return f"+44 {digits}" if rng.random() < 0.5 else f"0{digits}"
    prefix = ["30 23125", "40 66969", "69 90009", "89 99998"]
    digits = f"{prefix[number // 1000 % 4]} {number % 1000:03d}"
    return f"+49 {digits}" if rng.random() < 0.5 else f"0{digits}"


# --- what the CRM holds ------------------------------------------------------------------------------------------


def _contacts(shop: Shop, everybody: Sequence[Person]) -> None:
    rng = shop.rng
    known = [person for person in everybody if person.is_known]
    statuses, touches = shop.objects.setdefault("subscription_statuses", []), []
    for person in known:
        created = shop.at(rng.uniform(1, 700))
        email = person.email
        held = email
        if email and rng.random() < 0.15:
            held = email.title() if rng.random() < 0.5 else f" {email.upper()} "
        says = rng.choices(["SUBSCRIBED", "NOT_SPECIFIED", "UNSUBSCRIBED"], [70, 19, 11])[0] if email else None
        bounced = email is not None and rng.random() < 0.015
        properties = {
            "email": held if rng.random() > 0.002 else "not an address",
            "firstname": person.first_name,
            "lastname": person.last_name,
            "phone": person.phone,
            "country": person.country,
            "hs_additional_emails": f"old.{email}" if email and rng.random() < 0.03 else None,
            "hs_merged_object_ids": str(900_000 + person.number) if rng.random() < 0.005 else None,
            "hs_email_optout": "true" if says == "UNSUBSCRIBED" and rng.random() < 0.5 else None,
            "hs_email_hard_bounce_reason_enum": "MAILBOX_FULL" if bounced else None,
            "lifecyclestage": rng.choice(["lead", "customer", "subscriber"]),
            "shop_user_id": person.login,
            "ads_consent": rng.choices(["granted", "denied", None], [60, 12, 28])[0],
        }
        updated = created + (shop.as_of - created) * rng.random()
        person.contact_id = shop.crm("contacts", properties, created, updated)
        if email and says:
            said = created if rng.random() < 0.9 else updated
            statuses.append({"email": email, "subscriptionId": "1", "status": says, "timestamp": _iso(said)})
            if says == "SUBSCRIBED" and not bounced:
                touches += _mailings(shop, email, created)
    shop.objects["email_events"] = sorted(touches, key=lambda touch: touch["created"])
    shop.objects["subscription_definitions"] = [
        {
            "id": "1",
            "name": "Newsletter",
            "description": "News from the workshop",
            "isActive": True,
            "isDefault": True,
            "isInternal": False,
            "businessUnitId": 0,
        }
    ]


def _mailings(shop: Shop, email: str, since: datetime) -> list[dict[str, Any]]:
    """A campaign every other week and what one recipient did with it."""
    rng = shop.rng
    reads = rng.choices([0.0, 0.25, 0.7], [40, 40, 20])[0]
    touches = []
    for campaign in range(_CAMPAIGNS):
        sent = shop.at(4 + 14 * campaign) + timedelta(seconds=rng.randrange(3600))
        if sent < since:
            continue
        steps = [("SENT", timedelta())]
        if rng.random() < reads:
            steps.append(("OPEN", timedelta(hours=rng.uniform(0.1, 40))))
            if rng.random() < 0.25:
                steps.append(("CLICK", steps[-1][1] + timedelta(minutes=2)))
        for kind, later in steps:
            if sent + later < shop.as_of:
                touches.append(
                    {
                        "id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
                        "created": int((sent + later - _EPOCH).total_seconds() * 1000),
                        "recipient": email,
                        "type": kind,
                        "emailCampaignId": 100 + campaign,
                        "filteredEvent": False,
                    }
                )
    return touches


def _crm_order(shop: Shop, person: Person, transaction: str, lines: Sequence[tuple[int, int]], when: datetime) -> None:
    rng = shop.rng
    status = rng.choices(
        ["paid", "delivered", "returned", "cancelled", "payment failed", "placed"], [52, 36, 4, 3, 1, 4]
    )[0]
    total = sum(_PRODUCTS[product][1] * quantity for product, quantity in lines)
    properties = {
        "hs_order_name": f"Order {transaction}",
        "hs_external_order_id": transaction,
        "hs_external_order_status": status,
        "hs_total_price": f"{total:.2f}",
        "hs_currency_code": "USD",
        "hs_source_store": "web",
        "hs_external_created_date": _iso(when),
        "is_test": "true" if rng.random() < 0.003 else None,
    }
    order_id = shop.crm("orders", properties, when, min(when + timedelta(days=rng.uniform(0, 3)), shop.as_of))
    if person.contact_id:
        shop.link("orders", order_id, "contacts", person.contact_id)
    _crm_lines(shop, "orders", order_id, lines, when)


def _crm_lines(shop: Shop, kind: str, owner_id: str, lines: Sequence[tuple[int, int]], when: datetime) -> None:
    for product, quantity in lines:
        name, price = _PRODUCTS[product]
        properties = {
            "name": name,
            "hs_sku": _sku(product),
            "quantity": quantity,
            "price": f"{price:.2f}",
            "hs_line_item_currency_code": "USD",
            "hs_url": _product_url(product),
            "hs_images": f"{SHOP_URL}/img/{_sku(product)}.jpg",
        }
        shop.link(kind, owner_id, "line_items", shop.crm("line_items", properties, when, when))


def _crm_carts(shop: Shop, everybody: Sequence[Person]) -> None:
    """Carts that only the CRM knows: filled on the phone or in the app."""
    rng = shop.rng
    for person in everybody:
        if not person.contact_id or rng.random() > 0.04:
            continue
        when = shop.at(rng.uniform(0.01, 12))
        lines = _lines(rng)
        total = sum(_PRODUCTS[product][1] * quantity for product, quantity in lines)
        properties = {
            "hs_cart_name": f"Cart of contact {person.contact_id}",
            "hs_external_cart_id": f"app-{person.contact_id}",
            "hs_external_status": rng.choices(["open", "ordered", "emptied"], [80, 12, 8])[0],
            "hs_source_store": "app",
            "hs_total_price": f"{total:.2f}",
            "hs_currency_code": "USD",
            "hs_cart_url": f"{SHOP_URL}/cart/app-{person.contact_id}",
        }
        cart_id = shop.crm("carts", properties, when, when)
        shop.link("carts", cart_id, "contacts", person.contact_id)
        _crm_lines(shop, "carts", cart_id, lines, when)


# --- what the browsers do ----------------------------------------------------------------------------------------


def _visits(shop: Shop, person: Person) -> None:
    rng = shop.rng
    visits = 1 + min(int(rng.expovariate(0.6)), 9)
    moments = sorted(
        shop.at(rng.uniform(0.0, DAYS) if rng.random() < 0.7 else rng.uniform(0, 8)) for _ in range(visits)
    )
    for number, start in enumerate(moments, 1):
        browser = rng.choice(person.browsers)
        has_login = person.login is not None and rng.random() < 0.6
        _visit(shop, person, browser, start, number, has_login)


def _visit(shop: Shop, person: Person, browser: str, start: datetime, number: int, has_login: bool) -> None:
    rng = shop.rng
    bounce = rng.random() < 0.3
    visitor = None if person.ads_storage is None and rng.random() < 0.5 else browser  # analytics consent refused
    base = {
        "visitor": visitor,
        "login": person.login if has_login else None,
        "session": int((start - _EPOCH).total_seconds()),
        "number": number,
        "engaged": "0" if bounce else "1",
        "country": {"US": "United States", "GB": "United Kingdom", "DE": "Germany"}[person.country],
        "ads": person.ads_storage,
        "agent": rng.choice(["Chrome", "Safari", "Firefox", "Edge"]),
        "device": rng.choice(["mobile", "desktop"]),
        "traffic": None,
    }
    moment = start

    def step(low: float, high: float) -> datetime:
        nonlocal moment
        moment += timedelta(seconds=rng.uniform(low, high))
        return moment

    if number == 1:
        _event(shop, base, "first_visit", start, "/")
    _event(shop, base, "session_start", start, "/")
    _event(shop, base, "page_view", start, "/", engagement=0)
    if bounce:
        return
    if has_login:
        _event(shop, base, "login", step(2, 20), "/account")
    browsed = [rng.randrange(len(_PRODUCTS)) for _ in range(rng.randint(1, 5))]
    cart: dict[int, int] = {}
    for product in browsed:
        path = f"/p/{_sku(product)}"
        _event(shop, base, "page_view", step(4, 60), path, engagement=rng.randint(2_000, 30_000))
        _event(shop, base, "view_item", step(0.1, 1), path, lines=[(product, 1)])
        if rng.random() < 0.22:
            quantity = rng.choices([1, 2, 3], [80, 15, 5])[0]
            cart[product] = cart.get(product, 0) + quantity
            _event(shop, base, "add_to_cart", step(2, 40), path, lines=[(product, quantity)])
    if cart and rng.random() < 0.1:
        dropped = rng.choice(list(cart))
        _event(shop, base, "remove_from_cart", step(2, 30), "/cart", lines=[(dropped, cart.pop(dropped))])
    if not person.is_known and rng.random() < 0.02:
        _event(shop, base, rng.choice(["generate_lead", "sign_up"]), step(5, 60), "/newsletter")
    if not cart or rng.random() < 0.35:
        return
    lines = list(cart.items())
    _event(shop, base, "begin_checkout", step(5, 60), "/checkout", lines=lines)
    if rng.random() < 0.45 or not visitor:
        return
    transaction = f"T{len(shop.events):08d}"
    when = step(20, 200)
    if when >= shop.as_of:
        return
    _event(shop, base, "purchase", when, "/thank-you", lines=lines, transaction=transaction)
    if person.contact_id and rng.random() < 0.85:
        _crm_order(shop, person, transaction, lines, when.replace(microsecond=0))


def _bots_and_staff(shop: Shop, count: int) -> None:
    rng = shop.rng
    for number in range(count):
        person = Person(-1, [_browser(rng)], "US", False, "Yes")
        base = {
            "visitor": person.browsers[0],
            "login": None,
            "session": 1_700_000_000 + number,
            "number": 1,
            "engaged": "1",
            "country": "United States",
            "ads": "Yes",
            "agent": "Googlebot" if number % 2 else "Chrome",
            "device": "desktop",
            "traffic": None,
        }
        start = shop.at(rng.uniform(1, 20))
        for page in range(130):
            _event(shop, base, "page_view", start + timedelta(seconds=page * 0.4), f"/p/{page}", engagement=100)
        staff = base | {"visitor": _browser(rng), "agent": "Firefox", "traffic": "internal"}
        for page in range(6):
            _event(shop, staff, "page_view", start + timedelta(minutes=page), "/p/EO-001", engagement=9000)
        properties = {"email": f"staff{number}@{STAFF_DOMAIN}", "firstname": "Staff", "lastname": str(number)}
        shop.crm("contacts", properties, shop.at(600), shop.at(500))


def _event(
    shop: Shop,
    base: dict[str, Any],
    name: str,
    when: datetime,
    path: str,
    *,
    lines: Sequence[tuple[int, int]] = (),
    transaction: str | None = None,
    engagement: int | None = None,
) -> None:
    if when >= shop.as_of:
        return
    stamp = int((when - _EPOCH) / timedelta(microseconds=1))
    number = len(shop.events)
    value = sum(_PRODUCTS[product][1] * quantity for product, quantity in lines)
    shop.events.append(
        (
            number,
            stamp,
            when.strftime("%Y%m%d"),
            name,
            base["visitor"],
            base["login"],
            base["session"],
            base["number"],
            base["engaged"],
            engagement,
            f"{SHOP_URL}{path}",
            transaction,
            value if lines else None,
            base["agent"],
            base["device"],
            base["country"],
            base["traffic"],
            base["ads"],
        )
    )
    for product, quantity in lines:
        item_name, price = _PRODUCTS[product]
        shop.items.append((number, _sku(product), item_name, "Home", price, quantity))


def _lines(rng: random.Random) -> list[tuple[int, int]]:
    products = rng.sample(range(len(_PRODUCTS)), rng.choices([1, 2, 3], [60, 30, 10])[0])
    return [(product, rng.choices([1, 2], [85, 15])[0]) for product in products]


# --- what the other systems hold ---------------------------------------------------------------------------------


def _newsletter(shop: Shop, everybody: Sequence[Person]) -> list[dict[str, Any]]:
    """The Mailchimp list as it is before we ever write to it, with opt-outs that the CRM has not heard of."""
    rng = shop.rng
    members = []
    for person in everybody:
        if not person.email or rng.random() > 0.55:
            continue
        joined = shop.at(rng.uniform(30, 600))
        members.append(
            {
                "list_id": "a1b2c3d4e5",
                "email_address": person.email,
                "status": rng.choices(["subscribed", "unsubscribed", "cleaned"], [93, 6, 1])[0],
                "merge_fields": {"FNAME": person.first_name},
                "timestamp_opt": _iso(joined),
                "last_changed": _iso(shop.at(rng.uniform(0.1, 29))),
            }
        )
    return members


def _write_files(shop: Shop, everybody: Sequence[Person], out: Path) -> dict[str, int]:
    rng = shop.rng
    plans: list[list[Any]] = []
    sales: list[list[Any]] = []
    for person in everybody:
        if person.email and rng.random() < 0.12:
            started = shop.at(rng.uniform(40, 800))
            status = rng.choices(["active", "past_due", "cancelled", "expired", "failed"], [55, 4, 16, 18, 7])[0]
            over = status in {"cancelled", "expired", "failed"}
            ended = started + (shop.as_of - started) * rng.uniform(0.2, 1.02) if over else None
            asked = ended - timedelta(days=rng.uniform(0, 20)) if ended and status == "cancelled" else None
            updated = min(ended or shop.as_of, shop.as_of) - timedelta(minutes=5)
            plan = rng.choice(["Wood Club", "Candle Club"])
            row: list[Any] = [f"sub-{person.number}", person.email, plan, status, "USD"]
            row += [rng.choice(["19.00", "29.00"]), _iso(started), _iso(ended), _iso(asked), _iso(updated)]
            plans.append(row)
        if person.is_known and rng.random() < 0.06:
            when = shop.at(rng.uniform(0.05, DAYS))
            paid_as = rng.random()
            email = person.email if paid_as < 0.6 else None
            phone = person.phone if paid_as >= 0.6 else None
            for number, (product, quantity) in enumerate(_lines(rng), 1):
                name, price = _PRODUCTS[product]
                row = [f"R{person.number:06d}", number, email, phone, _sku(product), name]
                sales.append([*row, quantity, f"{price:.2f}", "USD", _iso(when), "paid"])
    sales.append(["R-BROKEN", 1, None, None, "EO-001", "Walnut Serving Board", "two", "38.00", "USD", "soon", "paid"])
    stamp = _iso(shop.at(300))
    refused = [["domain", COMPETITOR_DOMAIN, "all", "competitors", "true", stamp]]
    plan_columns = (
        "subscription_id,customer_email,plan,status,currency,amount,started_at,ended_at,cancelled_at,updated_at"
    )
    sale_columns = (
        "receipt_no,line_no,customer_email,customer_phone,sku,product,quantity,unit_price,currency,sold_at,status"
    )
    return {
        "subscriptions": _write_csv(out / "subscriptions.csv", plan_columns, plans),
        "store order lines": _write_csv(out / "store_orders.csv", sale_columns, sales),
        "suppressions": _write_csv(out / "suppressions.csv", "kind,value,channel,reason,active,changed_at", refused),
    }


def _write_ga4(shop: Shop, out: Path) -> int:
    """One Parquet file a day in the BigQuery export schema, and the last day once more as the intraday JSON export."""
    import duckdb
    import pyarrow as pa

    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    names = (
        "number event_timestamp event_date event_name user_pseudo_id user_id session_id session_number engaged "
        "engagement location transaction_id value agent device country traffic ads"
    ).split()
    item_names = ["number", "item_id", "item_name", "item_category", "price", "quantity"]
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    con.register("flat", pa.table(dict(zip(names, map(list, zip(*shop.events, strict=True)), strict=True))))
    con.register("flat_items", pa.table(dict(zip(item_names, map(list, zip(*shop.items, strict=True)), strict=True))))
    con.execute(_NESTED_EVENTS)
    # One event in a hundred was exported twice, one in a hundred a day late.
    con.execute("insert into nested select * replace (file_date as file_date) from nested where number % 100 = 7")
    con.execute(
        "update nested set file_date = strftime(strptime(file_date, '%Y%m%d') + interval 1 day, '%Y%m%d') "
        "where number % 100 = 13"
    )
    days = [row[0] for row in con.execute("select distinct file_date from nested order by 1").fetchall()]
    last = shop.as_of.strftime("%Y%m%d")
    columns = "* exclude (number, file_date)"
    for day in days:
        rows = f"select {columns} from nested where file_date = '{day}' order by event_timestamp, number"
        if day < last:
            con.execute(f"copy ({rows}) to '{out}/events_{day}.parquet' (format parquet)")
        else:
            con.execute(f"copy ({rows}) to '{out}/events_intraday_{day}.jsonl' (format json)")
    # The day that has just become complete is still there as an intraday export, too.
    if len(days) > 1:
        rows = f"select {columns} from nested where file_date = '{days[-2]}' order by event_timestamp, number limit 500"
        con.execute(f"copy ({rows}) to '{out}/events_intraday_{days[-2]}.jsonl' (format json)")
    with (out / f"events_intraday_{days[-1]}.jsonl").open("a") as file:
        file.write('{"event_date": "broken line\n{"event_name": "page_view", "user_pseudo_id": "1.2"}\n')
    return len(shop.events)


_NESTED_EVENTS = """
create table nested as
with bags as (
    select
        number,
        list({
            'item_id': item_id,
            'item_name': item_name,
            'item_category': item_category,
            'price': price,
            'quantity': quantity,
            'item_revenue': null::double
        }) as items
    from flat_items
    group by number
)
select
    flat.number,
    flat.event_date as file_date,
    flat.event_date,
    flat.event_timestamp,
    flat.event_name,
    list_filter([
        {'key': 'ga_session_id', 'value': {'string_value': null::varchar, 'int_value': flat.session_id,
            'float_value': null::double, 'double_value': null::double}},
        {'key': 'ga_session_number', 'value': {'string_value': null::varchar, 'int_value': flat.session_number,
            'float_value': null::double, 'double_value': null::double}},
        {'key': 'session_engaged', 'value': {'string_value': flat.engaged, 'int_value': null::bigint,
            'float_value': null::double, 'double_value': null::double}},
        {'key': 'page_location', 'value': {'string_value': flat.location, 'int_value': null::bigint,
            'float_value': null::double, 'double_value': null::double}},
        {'key': 'engagement_time_msec', 'value': {'string_value': null::varchar, 'int_value': flat.engagement,
            'float_value': null::double, 'double_value': null::double}},
        {'key': 'traffic_type', 'value': {'string_value': flat.traffic, 'int_value': null::bigint,
            'float_value': null::double, 'double_value': null::double}},
        {'key': 'currency', 'value': {'string_value': case when flat.value is not null then 'USD' end,
            'int_value': null::bigint, 'float_value': null::double, 'double_value': null::double}},
        {'key': 'value', 'value': {'string_value': null::varchar, 'int_value': null::bigint,
            'float_value': null::double, 'double_value': flat.value}}
    ], lambda p: coalesce(p.value.string_value, p.value.int_value::varchar, p.value.double_value::varchar)
        is not null) as event_params,
    flat.number as event_bundle_sequence_id,
    flat.user_id,
    flat.user_pseudo_id,
    {'analytics_storage': case when flat.user_pseudo_id is null then 'No' else 'Yes' end,
        'ads_storage': flat.ads, 'uses_transient_token': 'No'} as privacy_info,
    {'category': flat.device, 'web_info': {'browser': flat.agent, 'browser_version': '131'}} as device,
    {'country': flat.country} as geo,
    '7700123' as stream_id,
    'WEB' as platform,
    {'transaction_id': flat.transaction_id, 'purchase_revenue':
        case when flat.event_name = 'purchase' then flat.value end} as ecommerce,
    coalesce(bags.items, []) as items
from flat
left join bags on flat.number = bags.number
"""


def _write_csv(path: Path, columns: str, rows: Iterable[Sequence[Any]]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split(","))
        for row in rows:
            writer.writerow(["" if value is None else value for value in row])
            count += 1
    return count


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _sku(product: int) -> str:
    return f"EO-{product + 1:03d}"


def _product_url(product: int) -> str:
    return f"{SHOP_URL}/p/{_sku(product)}"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds") + "Z"
