"""Who may be sent, in plain Python: towns of three people with a random past, and an oracle that knows no SQL of ours.

A town's people have a CRM contact each, an address that changes now and then, a phone and carts, cheap and dear. They
grant and deny, unsubscribe and bounce at Mailchimp or in the CRM, come back, get e-mails of others, are merged, are
erased and sometimes come again. Every town draws from a number of its own, so that a town can be told again alone. Seed
0 is a town without people: what hypothesis shrinks to it had no part in a failure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Row = tuple[str, dict[str, Any]]
ROUNDS = 4
CLOSED_AT_TOOL = ("unsubscribed", "cleaned")
DEAR = 50.0  # a cart of this value or more is the other audience's
MOST_TOUCHES = 2


@dataclass
class Person:
    """A contact, and what the warehouse has been told of her; times are numbers that only grow."""

    contact_id: str
    phone: str
    emails: list[str]  # those she ever held, since her erasure if there was one; the last is the one she has
    consents: dict[str, str] = field(default_factory=dict)
    erased: bool = False
    closed: set[tuple[str, str]] = field(default_factory=set)  # (identifier, channel) of suppressions that stand
    bounced: set[str] = field(default_factory=set)  # addresses that bounced or complained
    group: int = 0
    cart: tuple[int, float] = (0, 0.0)  # when she last filled one, and what it is worth
    mails: int = 0  # e-mails she was sent by others
    entries: int = 0  # times she came into the ad list

    def copy(self) -> Person:
        return Person(
            self.contact_id, self.phone, list(self.emails), dict(self.consents), self.erased, set(self.closed),
            set(self.bounced), self.group, self.cart, self.mails, self.entries,
        )  # fmt: skip


class Town:
    """Three people; `seed` says everything they do."""

    def __init__(self, seed: int, number: int, base: datetime) -> None:
        self.seed = seed
        self.name = f"t{number}"
        self.base = base
        self.chance = random.Random(seed)
        self.clock = 0
        self.people = [
            Person(f"{self.name}c{who}", f"+43660{number:04d}{who:02d}", [self._address(who, 0)], group=who)
            for who in range(3 if seed else 0)
        ]
        self.moves = [0] * 3
        self.story: list[str] = []
        self.known: list[Person] = []  # as of the last build
        self.wished: list[dict[str, str]] = []  # what to do at Mailchimp in this round

    def _address(self, who: int, moves: int) -> str:
        return f"{self.name}.{who}.{moves}@home.example"

    def _now(self) -> datetime:
        self.clock += 1
        return self.base + timedelta(seconds=self.clock)

    def begin(self) -> Iterator[Row]:
        """Everybody is there, most have said yes, and all have something in the cart; some got e-mails before."""
        for person in self.people:
            yield from self._contact(person)
            yield from self._cart(person)
            for _ in range(self.chance.choice((0, 0, 0, MOST_TOUCHES))):
                yield self._mail(person)
            for channel in ("email", "ads"):
                if self.chance.random() < 0.85:
                    yield from self._consent(person, channel, "granted")

    def live(self, tool: dict[str, str]) -> Iterator[Row]:
        """A few things that happen to them; what they do at the tool is put into `wished`."""
        self.wished = []
        for _ in range(self.chance.choice((0, 1, 1, 2, 3)) if self.people else 0):
            person = self.chance.choice(self.people)
            yield from self._happens(person, tool)

    def _happens(self, person: Person, tool: dict[str, str]) -> Iterator[Row]:
        what = self.chance.choice(
            ("consent", "consent", "deny", "tool", "tool", "tool", "move", "move", "suppress", "bounce", "merge",
             "erase", "again", "import", "mail", "mail", "cart")
        )  # fmt: skip
        self.story.append(f"{person.contact_id} {what}")
        if what == "tool":
            self._at_tool(person, tool)
        elif what == "import":
            yield from self._contact(person)
        elif person.erased:
            if what == "again":
                yield from self._come_again(person)
        elif what in ("consent", "deny"):
            channel = self.chance.choice(("email", "ads"))
            yield from self._consent(person, channel, "granted" if what == "consent" else "denied")
        elif what == "move":
            self.moves[self.people.index(person)] += 1
            person.emails.append(self._address(self.people.index(person), self.moves[self.people.index(person)]))
            yield from self._contact(person)
        elif what == "suppress":
            yield from self._suppress(person)
        elif what == "cart":
            yield from self._cart(person)
        elif what == "mail":
            yield self._mail(person)
        elif what == "bounce":
            address = person.emails[-1]
            person.bounced.add(address)
            kind = self.chance.choice(("bounce", "complaint"))
            yield (
                "raw.engagement",
                {"source": "crm", "engagement_id": f"{self.name}g{self.clock}", "email": address, "channel": "email",
                 "type": kind, "occurred_at": self._now()},
            )  # fmt: skip
        elif what == "merge":
            other = self.chance.choice(self.people)
            if other is not person and not other.erased:
                now = self._now()
                yield from self._contact(person, now)
                yield (
                    "raw.contact_identifiers",
                    {"source": "crm", "contact_id": person.contact_id, "kind": "merged_contact_id",
                     "value": other.contact_id, "updated_at": now},
                )  # fmt: skip
                gone = other.group
                for one in self.people:
                    one.group = person.group if one.group == gone else one.group
        elif what == "erase":
            for one in self.people:
                if one.group == person.group:
                    one.erased, one.consents, one.bounced = True, {}, set()
                    one.cart, one.mails, one.entries = (0, 0.0), 0, 0
            kind, value = self.chance.choice((("email", person.emails[-1]), ("contact_id", person.contact_id)))
            yield (
                "raw.suppressions",
                {"source": "crm", "kind": kind, "value": value, "channel": "all", "reason": "erased", "is_active": True,
                 "changed_at": self._now()},
            )  # fmt: skip

    def _mail(self, person: Person) -> Row:
        person.mails += 1
        now = self._now()
        return (
            "raw.engagement",
            {"source": "crm", "engagement_id": f"{self.name}s{self.clock}", "contact_id": person.contact_id,
             "channel": "email", "type": "sent", "occurred_at": now},
        )  # fmt: skip

    def _come_again(self, person: Person) -> Iterator[Row]:
        """She is somebody new: with her old contact number and address, and nothing from before."""
        person.erased, person.emails = False, person.emails[-1:]
        person.group = 10 + self.clock
        for channel in self.chance.choice((("email", "ads"), ("email",), ("ads",))):
            yield from self._consent(person, channel, "granted")
        yield from self._contact(person)
        yield from self._cart(person)

    def _at_tool(self, person: Person, tool: dict[str, str]) -> None:
        there = [address for address in person.emails if address in tool]
        if not there:
            return
        address = self.chance.choice(there)
        if tool[address] in CLOSED_AT_TOOL:
            status = self.chance.choice(("subscribed", "unsubscribed", "cleaned"))
        else:
            status = self.chance.choice(("unsubscribed", "unsubscribed", "cleaned", "archived", "subscribed"))
        self.story.append(f"  {address} {status}")
        self.wished.append({"email": address, "status": status})

    def _suppress(self, person: Person) -> Iterator[Row]:
        kind, value = self.chance.choice((("email", person.emails[-1]), ("contact_id", person.contact_id)))
        channel = self.chance.choice(("email", "ads", "all"))
        is_active = (value, channel) not in person.closed
        (person.closed.add if is_active else person.closed.discard)((value, channel))
        yield (
            "raw.suppressions",
            {"source": "crm", "kind": kind, "value": value, "channel": channel, "reason": "opted_out",
             "is_active": is_active, "changed_at": self._now()},
        )  # fmt: skip

    def _contact(self, person: Person, now: datetime | None = None) -> Iterator[Row]:
        now = now or self._now()
        yield (
            "raw.contacts",
            {"source": "crm", "contact_id": person.contact_id, "email": person.emails[-1], "phone": person.phone,
             "created_at": self.base, "updated_at": now},
        )  # fmt: skip

    def _consent(self, person: Person, channel: str, status: str) -> Iterator[Row]:
        person.consents[channel] = status
        yield (
            "raw.consents",
            {"source": "crm", "contact_id": person.contact_id, "channel": channel, "status": status,
             "email": self.chance.choice((None, person.emails[-1])), "changed_at": self._now()},
        )  # fmt: skip

    def _cart(self, person: Person) -> Iterator[Row]:
        now = self._now()
        value = self.chance.choice((10.0, 10.0, 2 * DEAR))
        person.cart = (self.clock, value)
        key = {"source": "crm", "cart_id": f"{person.contact_id}k{self.clock}"}
        yield (
            "raw.carts",
            {**key, "contact_id": person.contact_id, "status": "open", "currency": "EUR", "total_amount": value,
             "cart_url": "https://shop.example/cart", "created_at": now, "updated_at": now},
        )  # fmt: skip
        yield (
            "raw.cart_items",
            {**key, "line_id": "1", "sku": "A", "name": "Axe", "quantity": 1, "price": value, "currency": "EUR",
             "updated_at": now},
        )  # fmt: skip

    # the oracle

    def built(self) -> None:
        """The warehouse knows now what was told until here."""
        self.known = [person.copy() for person in self.people]

    def may_not(self, identifier: str, channel: str, said_at_tool: dict[str, str]) -> str:
        """Why the person behind an address or phone may not be sent; empty where she may.

        By what the warehouse knew at its last build, and what the tool had told when it was last asked.
        """
        known = self._known(identifier)
        if known is None:
            return "unknown"
        group = [one for one in self.known if one.group == known.group]
        if known.erased:
            return "erased"
        answers = [one.consents.get(channel, "unknown") for one in group if not one.erased]
        if "denied" in answers:
            return "denied"
        if "granted" not in answers:
            return "no consent"
        for one in group:
            for value in (one.contact_id, *one.emails):
                if {(value, channel), (value, "all")} & one.closed:
                    return "suppressed"
                if channel == "email" and value in one.bounced:
                    return "bounced"
                if channel == "email" and said_at_tool.get(value) in CLOSED_AT_TOOL:
                    return "said no at the tool"
        if max(one.cart for one in group)[1] >= DEAR:
            return "kept by the other audience"
        return ""

    def touched_too_often(self, identifier: str) -> bool:
        """Whether the person may not come in, for the cap. What people did who are one by now is hers."""
        known = self._known(identifier)
        if known is None:
            return False
        group = [one for one in self.known if one.group == known.group]
        # Who was on ad lists under two names at once was touched once by them: the larger number is certain.
        return sum(one.mails for one in group) + max(one.entries for one in group) >= MOST_TOUCHES

    def person(self, identifier: str) -> Person:
        """Whose address or phone it is or was."""
        (person,) = [one for one in self.people if identifier == one.phone or identifier in self._ever(one)]
        return person

    def of_her_group(self, identifier: str) -> list[str]:
        """Every address and phone, old ones too, of the person and of who is one with her."""
        group = self.person(identifier).group
        people = [one for one in self.people if one.group == group]
        return [value for one in people for value in (one.phone, *self._ever(one))]

    def _known(self, identifier: str) -> Person | None:
        contact_id = self.person(identifier).contact_id
        return next((one for one in self.known if one.contact_id == contact_id), None)

    def _ever(self, person: Person) -> list[str]:
        who = self.people.index(person)
        return [self._address(who, moves) for moves in range(self.moves[who] + 1)]

    def addresses(self) -> Iterator[str]:
        """Every address and phone of the town, old ones too."""
        for person in self.people:
            yield person.phone
            yield from self._ever(person)
