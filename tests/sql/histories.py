"""Small random histories of a shop, as hypothesis draws them: what arrives, in how many loads, and what breaks.

A town has a few people, each with a record in a CRM or two, two e-mail addresses, a phone, a login and a browser of her
own, and one browser and one phone that everybody uses. Whatever happens carries the identifiers of one of them, and now
and then somebody else's. A `Delivery` is what a source always loads together, such as an order with its lines.

Which version of a record is the newest is said by the record, never by the load: a version has a time of its own, and
two versions never have the same. So does an answer about consent, an opt-out and an erasure. Of an event the version
that was loaded last stands, however its key is spelt. Copies are exact.
Amounts are quarters, so that the order of adding up changes no sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

from hypothesis import strategies as st

AS_OF = datetime(2026, 3, 10, 12)
EARLIER = (timedelta(0), timedelta(minutes=20), timedelta(hours=2), timedelta(days=1), timedelta(days=8))

# How long ago, in minutes: around every limit of the shipped audiences, and two times that have not come yet.
AGES = (-2880, -15, 20, 31, 70, 1500, 4500, 10070, 10090, 20000, 43190, 43210, 129590, 129610, 200000, 525000, 526000)
STEPS = (0, 0, 1, 3, 12, 29, 45)  # later the same day

EVENTS = (
    "page_view", "view_item", "add_to_cart", "add_to_cart", "remove_from_cart", "begin_checkout", "purchase",
    "generate_lead", "sign_up", "login",
)  # fmt: skip

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Delivery:
    """Rows that arrive together, and the loads that bring them: more than one when they are repeated."""

    rows: tuple[tuple[str, Row], ...]
    loads: tuple[int, ...]


@dataclass(frozen=True)
class History:
    """Deliveries, and for every load: when it began, the time of the build after it, and where that build is killed.

    `behind` says by how many minutes a source's loads began earlier than they were seen; without it, none.
    """

    deliveries: list[Delivery]
    began: list[datetime]
    behind: dict[str, int]
    clocks: list[datetime]
    kills: list[float | None]
    shuffle: int
    towns: int


@lru_cache(maxsize=256)
def _below(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, count - 1)


class Chance:
    """What hypothesis draws, in the words of this module. The first choice is what it shrinks to."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any], town: str) -> None:
        self._draw = draw
        self.town = town

    def one_of(self, *choices: T) -> T:
        index: int = self._draw(_below(len(choices)))
        return choices[index]

    def rarely(self, often: int = 8) -> bool:
        return bool(self._draw(_below(often)) == often - 1)

    def time(self) -> datetime:
        return AS_OF - timedelta(minutes=self.one_of(*AGES) - self.one_of(*STEPS))

    def person(self) -> str:
        return self.one_of("1", "2", "3", "4")

    def contact_id(self, who: str) -> str:
        return f"{self.town}c{who}" + self.one_of("", "", "b")

    def email(self, who: str) -> str:
        return f"{self.town}{who}" + self.one_of(
            "@home.example", "@home.example", "@work.example", "@home.example", "@work.example", "@staff.example"
        )

    def phone(self, who: str) -> str:
        return f"+43{ord(self.town)}00{self.one_of(who, who, '0')}"

    def login(self, who: str) -> str:
        return f"{self.town}u{who}"

    def browser(self, who: str) -> str:
        return f"{self.town}b{self.one_of(who, who, '0', '0', who, '0', '9')}"

    def money(self) -> float:
        return self.one_of(1.5, 10.0, 20.25, 99.75)

    def identifiers(self, who: str, *kinds: str) -> Row:
        """Some of the kinds, at least one; each is now and then somebody else's."""
        makers = {
            "contact_id": self.contact_id, "email": self.email, "phone": self.phone, "user_id": self.login,
            "visitor_id": self.browser,
        }  # fmt: skip
        wanted = self.one_of(*range(1, 2 ** len(kinds)))
        return {
            kind: makers[kind](self.person() if self.rarely(20) else who)
            for bit, kind in enumerate(kinds)
            if wanted & (1 << bit)
        }

    def lines(self, **common: Any) -> list[Row]:
        """Product lines; one in a dozen is malformed."""
        made: list[Row] = []
        has_ids = not self.rarely(8)
        for number in range(self.one_of(1, 0, 1, 2, 3)):
            sku, name = self.one_of(("A", "Axe"), ("B", "Bow"), (None, "Candle"), ("D", None))
            line: Row = {**common, "line_id": str(number) if has_ids else None, "sku": sku, "name": name}
            line |= {"quantity": self.one_of(1, 2, None, 0), "price": self.money()}
            made.append({**line, "currency": self.one_of("EUR", "EUR", None, "USD")})
            if self.rarely(12):
                made[-1] |= self.one_of({"sku": None, "name": " "}, {"quantity": -1})
        return made


def _event(chance: Chance) -> list[tuple[str, Row]]:
    who = chance.person()
    name = chance.one_of(*EVENTS)
    row: Row = {"source": chance.one_of("web", "web", "app"), "event_name": name, "visitor_id": chance.browser(who)}
    row |= {"occurred_at": chance.time(), "session_id": chance.one_of(None, "1", "2"), "currency": "EUR"}
    row |= {"browser": "Chrome", "page_location": chance.one_of("https://shop.example/1", None)}
    if chance.rarely(3):
        row |= chance.identifiers(who, "user_id", "email")
    if chance.rarely(4):
        row["ads_storage"] = chance.one_of("Yes", "No")
    if name in ("page_view", "view_item"):
        row |= {"engagement_ms": chance.one_of(None, 500, 12000), "is_engaged": chance.one_of(None, True)}
    if name == "purchase":
        row |= {"transaction_id": _number(chance), "value": chance.money()}
    if chance.rarely(20):
        row |= chance.one_of(
            {"browser": "Googlebot"}, {"traffic_type": "internal"}, {"visitor_id": " "}, {"currency": "USD"},
            {"occurred_at": datetime(1970, 1, 1)}, {"event_name": None},
        )  # fmt: skip
    items: list[Row] = []
    if name in ("view_item", "add_to_cart", "remove_from_cart", "begin_checkout", "purchase"):
        for index, line in enumerate(chance.lines(source=row["source"])):
            del line["line_id"], line["currency"]
            items.append({**line, "item_index": index})
    return [("raw.events", row), *(("raw.event_items", item) for item in items)]


def _number(chance: Chance) -> str | None:
    return chance.one_of(f"{chance.town}t1", None, f"{chance.town}t2", "(not set)")


def _burst(chance: Chance) -> list[tuple[str, Row]]:
    """More page views within a minute than a person makes; they arrive together."""
    who, began = chance.person(), chance.time()
    row: Row = {"source": "web", "event_name": "page_view", "visitor_id": chance.browser(who), "session_id": "9"}
    return [("raw.events", {**row, "occurred_at": began + timedelta(seconds=second)}) for second in range(6)]


def _kiosk(chance: Chance) -> list[tuple[str, Row]]:
    """Three people log in at one browser, one after the other."""
    row = {"source": "web", "event_name": "login", "visitor_id": f"{chance.town}b9", "session_id": "7"}
    began = chance.time()
    return [
        ("raw.events", {**row, "user_id": f"{chance.town}u{who}", "occurred_at": began + timedelta(minutes=10 * who)})
        for who in (1, 2, 3)
    ]


def _contact(chance: Chance) -> list[tuple[str, Row]]:
    who = chance.person()
    row: Row = {"source": chance.one_of("crm", "crm", "shop"), "contact_id": chance.contact_id(who)}
    row |= {"created_at": chance.one_of(None, chance.time()), "updated_at": chance.time()}
    row |= chance.identifiers(who, "email", "phone", "user_id")
    row |= {"first_name": chance.one_of(None, "Ana", "Zoë"), "country": chance.one_of(None, "at", "DE")}
    row["is_deleted"] = chance.one_of(False, None, False, True) if chance.rarely(3) else None
    if chance.rarely(12):
        row["contact_id"] = None
    made = [("raw.contacts", row)]
    version = {"source": row["source"], "contact_id": row["contact_id"], "updated_at": row["updated_at"]}
    if chance.rarely(3):
        for kind, value in chance.identifiers(who, "email", "phone", "user_id", "visitor_id").items():
            made.append(("raw.contact_identifiers", {**version, "kind": kind, "value": value}))
    if chance.rarely(6):
        merged = chance.contact_id(chance.person() if chance.rarely(4) else who)
        made.append(("raw.contact_identifiers", {**version, "kind": "merged_contact_id", "value": merged}))
    return made


def _consent(chance: Chance) -> list[tuple[str, Row]]:
    who = chance.person()
    row: Row = {"source": chance.one_of("crm", "shop"), "channel": chance.one_of("email", "ads")}
    row |= chance.identifiers(who, "contact_id", "email")
    row |= {"status": chance.one_of("granted", "granted", "denied", "unknown"), "changed_at": chance.time()}
    if chance.rarely(15):
        row |= chance.one_of({"status": "granted", "changed_at": None}, {"channel": "letter"})
    return [("raw.consents", row)]


def _suppression(chance: Chance) -> list[tuple[str, Row]]:
    who = chance.person()
    kind, value = chance.one_of(
        ("email", chance.email(who)), ("contact_id", chance.contact_id(who)), ("phone", chance.phone(who)),
        ("domain", "work.example"), ("email", "no address"),
    )  # fmt: skip
    row: Row = {"source": chance.one_of("crm", "shop"), "kind": kind, "value": value, "changed_at": chance.time()}
    row |= {"channel": chance.one_of("email", "ads", "all", None), "is_active": chance.one_of(True, None, True, False)}
    return [("raw.suppressions", {**row, "reason": chance.one_of("opted_out", "bounced", "competitors", None)})]


def _erasure(chance: Chance) -> list[tuple[str, Row]]:
    who = chance.person()
    kind, value = chance.one_of(
        ("email", chance.email(who)), ("contact_id", chance.contact_id(who)), ("phone", chance.phone(who))
    )
    row: Row = {"source": "crm", "kind": kind, "value": value, "channel": "all", "reason": "erased", "is_active": True}
    if chance.rarely(5):
        row["is_active"] = False
    return [("raw.suppressions", {**row, "changed_at": chance.time()})]


def _opt_out(chance: Chance) -> list[tuple[str, Row]]:
    row: Row = {"destination": "mailchimp", "kind": "email", "value": chance.email(chance.person()), "channel": "email"}
    row |= {"reason": chance.one_of("opted_out", "complained"), "is_active": chance.one_of(True, True, False)}
    return [("sync.opt_outs", {**row, "occurred_at": chance.time(), "read_at": chance.time()})]


def _order(chance: Chance) -> list[tuple[str, Row]]:
    who = chance.person()
    row: Row = {"source": chance.one_of("shop", "crm"), "order_id": f"{chance.town}o{chance.one_of(who, who, '0')}"}
    row |= chance.identifiers(who, "contact_id", "email", "phone", "user_id", "visitor_id")
    row |= {"transaction_id": _number(chance), "currency": chance.one_of("EUR", "EUR", "USD")}
    row |= {"status": chance.one_of("paid", "placed", "returned", "cancelled", "failed", None)}
    row |= {"total_amount": chance.one_of(None, chance.money()), "is_test": chance.one_of(None, None, None, True)}
    row |= {"ordered_at": chance.time(), "updated_at": chance.time()}
    if chance.rarely(20):
        row["ordered_at"] = None
    version = {name: row[name] for name in ("source", "order_id", "updated_at")}
    return [("raw.orders", row), *(("raw.order_items", line) for line in chance.lines(**version))]


def _cart(chance: Chance) -> list[tuple[str, Row]]:
    who = chance.person()
    row: Row = {"source": chance.one_of("shop", "crm"), "cart_id": f"{chance.town}k{chance.one_of(who, who, '0')}"}
    row |= chance.identifiers(who, "contact_id", "email", "user_id", "visitor_id")
    row |= {"status": chance.one_of("open", "open", None, "ordered", "emptied", "deleted")}
    row |= {"currency": chance.one_of("EUR", None), "total_amount": chance.one_of(None, chance.money())}
    row |= {"created_at": chance.one_of(None, chance.time()), "updated_at": chance.time()}
    version = {name: row[name] for name in ("source", "cart_id", "updated_at")}
    return [("raw.carts", row), *(("raw.cart_items", line) for line in chance.lines(**version))]


def _subscription(chance: Chance) -> list[tuple[str, Row]]:
    who = chance.person()
    row: Row = {"source": chance.one_of("shop", "crm"), "subscription_id": f"{chance.town}s{who}"}
    row |= chance.identifiers(who, "contact_id", "email", "user_id")
    row |= {"kind": chance.one_of("paid", "paid", "email"), "plan": chance.one_of("gold", "tin")}
    row |= {"status": chance.one_of("active", "past_due", "cancelled", "expired", "failed")}
    row |= {"started_at": chance.one_of(chance.time(), None), "ended_at": chance.one_of(None, chance.time())}
    row |= {"cancelled_at": chance.one_of(None, chance.time()), "updated_at": chance.time()}
    row["is_deleted"] = chance.rarely(10)
    return [("raw.subscriptions", row)]


def _touch(chance: Chance) -> list[tuple[str, Row]]:
    row: Row = {"source": chance.one_of("crm", "mailchimp"), "channel": chance.one_of("email", "email", "ads")}
    row |= chance.identifiers(chance.person(), "contact_id", "email", "visitor_id")
    row |= {"type": chance.one_of("open", "click", "sent", "bounce", "complaint"), "is_bot": chance.rarely(6)}
    return [("raw.engagement", {**row, "occurred_at": chance.time()})]


def _reject(chance: Chance) -> list[tuple[str, Row]]:
    row: Row = {"source": "files", "table_name": "raw.orders", "location": "orders.csv:7", "reason": "no number"}
    return [("raw.rejected_rows", row)]


HAPPENINGS: tuple[Callable[[Chance], list[tuple[str, Row]]], ...] = (
    _event, _event, _event, _event, _event, _event, _contact, _contact, _contact, _order, _order, _cart,
    _consent, _consent, _subscription, _touch, _erasure, _suppression, _opt_out, _burst, _kiosk, _reject,
)  # fmt: skip
SOURCES = ("web", "app", "crm", "shop", "mailchimp", "files")
_VERSIONS = ("updated_at", "changed_at", "read_at")


_KEYS = {
    "raw.contacts": "contact_id",
    "raw.orders": "order_id",
    "raw.carts": "cart_id",
    "raw.subscriptions": "subscription_id",
}


def _again(chance: Chance, rows: list[tuple[str, Row]], told: dict[str, list[Row]]) -> None:
    """Make every other record another version of one that was told before."""
    table, first = rows[0]
    if table not in _KEYS:
        return
    names = ("source", _KEYS[table])
    if table in told and not chance.rarely(2):
        earlier = told[table][chance.one_of(*range(len(told[table])))]
        for _, row in rows:
            row.update(earlier)
    told.setdefault(table, []).append({name: first[name] for name in names})


def _numbered(number: int, rows: list[tuple[str, Row]]) -> tuple[tuple[str, Row], ...]:
    """The same rows with keys of their own, and version times that no other delivery has."""
    for _, row in rows:
        for column in _VERSIONS:
            if row.get(column) is not None:
                row[column] += timedelta(microseconds=number)
    for position, (table, row) in enumerate(rows):
        if table == "raw.events":
            row["event_key"] = f"e{number}.{position}"
        elif table == "raw.event_items":
            row["event_key"] = f"e{number}.0"
        elif table == "raw.engagement":
            row["engagement_id"] = f"g{number}"
    return tuple(rows)


def _event_again(chance: Chance, rows: tuple[tuple[str, Row], ...], told: dict[str, list[Row]]) -> None:
    """Make one event in six, with its lines, another version of one that was told before."""
    if [table for table, _ in rows].count("raw.events") != 1:
        return
    earlier = told.setdefault("raw.events", [])
    if earlier and chance.rarely(6):
        version = earlier[chance.one_of(*range(len(earlier)))]
        key = version["event_key"]
        for _, row in rows:
            row.update(version, event_key=chance.one_of(key, f" {key}", f"{key}\t"))
    else:
        earlier.append({name: rows[0][1][name] for name in ("source", "event_key")})


def _counts_each_time(rows: tuple[tuple[str, Row], ...]) -> bool:
    """Whether a copy in the same load is not the same again: malformed rows are reported as often as they were loaded,
    and equal lines without an id are two (staging.order_items)."""
    return any(
        table == "raw.rejected_rows"
        or row.get("channel") == "letter"
        or row.get("value") == "no address"
        or (table == "raw.events" and (row["event_name"] is None or row["occurred_at"].year < 2000))
        or (table == "raw.orders" and row["ordered_at"] is None)
        or (table == "raw.contacts" and row["contact_id"] is None)
        or row.get("name") == " "
        or row.get("quantity") == -1
        or ("line_id" in row and row["line_id"] is None)
        for table, row in rows
    )


@st.composite
def histories(
    draw: Callable[[st.SearchStrategy[Any]], Any],
    *,
    is_moving: bool = False,
    is_killed: bool = False,
    is_overtaken: bool = False,
) -> History:
    """A history of one to ten towns that know nothing of each other, in up to five loads.

    `is_moving`: the clock goes on between the builds. `is_killed`: builds may be killed. `is_overtaken`: a load of
    one source is seen after loads of others that began later, or in the same second; those of one source never overlap.
    """
    loads = draw(st.sampled_from((2, 1, 2, 3, 2, 3, 2, 4, 5)))
    towns = draw(st.integers(1, 10))
    deliveries: list[Delivery] = []
    for letter in "abcdefghij"[:towns]:
        chance = Chance(draw, letter)
        told: dict[str, list[Row]] = {}
        for _ in range(draw(st.integers(3, 30))):
            happened = chance.one_of(*HAPPENINGS)(chance)
            _again(chance, happened, told)
            rows = _numbered(len(deliveries), happened)
            _event_again(chance, rows, told)
            places = [draw(_below(loads))]
            if chance.rarely(5) and not _counts_each_time(rows):
                places += [draw(_below(loads)) for _ in range(chance.one_of(1, 2))]
            deliveries.append(Delivery(rows, tuple(places)))
    earlier = [draw(st.sampled_from(EARLIER)) if is_moving else timedelta(0) for _ in range(loads - 1)]
    return History(
        deliveries,
        began=[AS_OF + timedelta(minutes=number) for number in range(loads)],
        behind={source: draw(_below(4)) for source in SOURCES} if is_overtaken else {},
        clocks=[*sorted(AS_OF - before for before in earlier), AS_OF],
        kills=[draw(st.none() | st.floats(0, 1, width=16)) if is_killed else None for _ in range(loads)],
        shuffle=draw(st.integers(0, 999)),
        towns=towns,
    )
