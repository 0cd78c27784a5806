"""HubSpot: contacts with their consent, orders and carts with their lines, and what people did with e-mails.

Where in the flow: HubSpot's CRM API ▶ raw.contacts, contact_identifiers, consents, suppressions, orders, order_items,
carts, cart_items, engagement. The first run scans everything; later ones search what was modified since, with an
overlap because the search index lags seconds behind (https://developers.hubspot.com/docs/api-reference/search/guide,
2026-11), and scan the archive for deletions. Nothing is ever written to HubSpot.

Property names that are the account's own are settings; see include/sources/definitions/hubspot.yaml.
"""

from __future__ import annotations

import logging
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from include.sources.base import Batch, Rows, Run, Source, SourceSettings, State, utc_now
from include.sources.country import country_code
from include.sources.hubspot_client import API_VERSION, HubSpotClient, MissingScopes

log = logging.getLogger(__name__)

SEARCH_PAGE = 200
SEARCH_WALL = 10_000  # results beyond cannot be paged to
BATCH = 100
ASSOCIATION_BATCH = 1_000
GROUP = 500  # records whose associations and lines are asked for together
EVENT_PAGE = 1_000
EVENT_WINDOW = timedelta(days=7)
EVENT_OVERLAP = timedelta(hours=1)
REMEMBERED = 20_000
EPOCH = datetime(1970, 1, 1)

OrderStatus = Literal["placed", "paid", "fulfilled", "returned", "cancelled", "failed"]
CartStatus = Literal["open", "ordered", "emptied", "deleted"]
ConsentStatus = Literal["granted", "denied", "unknown"]

# Free text in HubSpot; patterns in any case, the definition's own come first.
ORDER_WORDS: Mapping[str, OrderStatus] = {
    "placed": "placed",
    "pending": "placed",
    "processing": "placed",
    "paid": "paid",
    "shipped": "fulfilled",
    "delivered": "fulfilled",
    "fulfilled": "fulfilled",
    "complete*": "fulfilled",
    "return*": "returned",
    "refund*": "returned",
    "cancel*": "cancelled",
    "void*": "cancelled",
    "payment failed": "failed",
    "failed": "failed",
    "declined": "failed",
}
CART_WORDS: Mapping[str, CartStatus] = {
    "open": "open",
    "active": "open",
    "abandoned": "open",
    "ordered": "ordered",
    "complete*": "ordered",
    "converted": "ordered",
    "purchased": "ordered",
    "empt*": "emptied",
    "clear*": "emptied",
    "delete*": "deleted",
}
CONSENT_WORDS: Mapping[str, ConsentStatus] = {
    "granted": "granted",
    "true": "granted",
    "yes": "granted",
    "denied": "denied",
    "false": "denied",
    "no": "denied",
    "revoked": "denied",
}
EVENT_TYPES = {
    "SENT": "sent",
    "DELIVERED": "delivered",
    "OPEN": "open",
    "CLICK": "click",
    "BOUNCE": "bounce",
    "SPAMREPORT": "complaint",
    "UNSUBSCRIBED": "unsubscribe",
}


class _Properties(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def names(self) -> list[str]:
        """The properties to ask HubSpot for."""
        return [name for name in self.model_dump().values() if name]


class ContactProperties(_Properties):
    """Contact properties that are the account's own."""

    user_id: str | None = Field("shop_user_id", description="login of the shop")
    visitor_id: str | None = Field(None, description="GA4 client id, where forms write it into the CRM")
    ads_consent: str | None = Field("ads_consent", description="consent to ads, see ads_consent_words")


class OrderProperties(_Properties):
    """Order properties."""

    transaction_id: str | None = Field("hs_external_order_id", description="the shop's number, as in GA4")
    status: str | None = "hs_external_order_status"
    fulfilment: str | None = Field("hs_fulfillment_status", description="stands in where the status is empty")
    total: str | None = "hs_total_price"
    currency: str | None = "hs_currency_code"
    ordered_at: str | None = Field("hs_external_created_date", description="default: when the record was created")
    is_test: str | None = "is_test"


class CartProperties(_Properties):
    """Cart properties."""

    status: str | None = "hs_external_status"
    total: str | None = "hs_total_price"
    currency: str | None = "hs_currency_code"
    cart_url: str | None = "hs_cart_url"


class LineProperties(_Properties):
    """Line item properties."""

    sku: str | None = "hs_sku"
    name: str | None = "name"
    quantity: str | None = "quantity"
    price: str | None = "price"
    currency: str | None = "hs_line_item_currency_code"
    product_url: str | None = "hs_url"
    image_url: str | None = "hs_images"


class HubSpotSettings(SourceSettings):
    """What is read, and what this account's words mean."""

    objects: tuple[Literal["contacts", "orders", "carts"], ...] = ("contacts", "orders", "carts")
    contact_properties: ContactProperties = ContactProperties()
    order_properties: OrderProperties = OrderProperties()
    cart_properties: CartProperties = CartProperties()
    line_properties: LineProperties = LineProperties()
    order_statuses: Mapping[str, OrderStatus] = Field(default_factory=dict, description="pattern to our word")
    cart_statuses: Mapping[str, CartStatus] = Field(default_factory=dict, description="pattern to our word")
    ads_consent_words: Mapping[str, ConsentStatus] = Field(default_factory=dict, description="pattern to our word")
    email_subscriptions: tuple[str, ...] = Field(
        (), description="ids or names of the subscription types that count; default: all active ones"
    )
    without_answer: Literal["unknown", "granted"] = Field(
        "unknown", description="e-mail consent of who has not opted out, where subscription statuses cannot be read"
    )
    email_events: bool = Field(True, description="read sends, opens, clicks")
    email_event_days: int = Field(180, ge=1, le=730, description="how far back the first run reads them")
    default_country: str | None = Field(None, pattern="^[A-Z]{2}$", description="of phone numbers without a country")
    index_lag_seconds: int = Field(60, ge=0, le=3600, description="overlap of two runs: the search index is behind")

    @field_validator("objects")
    @classmethod
    def _contacts_first(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(kind for kind in ("contacts", "orders", "carts") if kind in value)


class Watermark:
    """How far a kind was read. Never past the start of the run; what lies in the overlap is not handed on twice."""

    def __init__(self, memory: dict[str, Any], began: int, overlap: int) -> None:
        self.memory = memory
        self.began = began
        self.overlap = overlap
        self.since: int | None = memory.get("since")
        self._known: Mapping[str, int] = dict(memory.get("recent", {}))
        self._seen: dict[str, int] = {}
        self._latest: int | None = None

    @property
    def start(self) -> int | None:
        """From when on to ask; None means everything."""
        return None if self.since is None else max(self.since - self.overlap, 0)

    def is_new(self, record_id: str, stamp: int) -> bool:
        """Whether this version was not handed on yet."""
        seen = self._seen.get(record_id) == stamp or self._known.get(record_id) == stamp
        self._seen[record_id] = stamp
        self._latest = max(stamp, self._latest or stamp)
        if len(self._seen) > 3 * REMEMBERED:
            self._forget()
        return not seen

    def _reached(self) -> int:
        latest = self._latest if self._latest is not None else self.since
        reached = self.began if latest is None else min(latest, self.began)
        return reached if self.since is None else max(reached, self.since)

    def _forget(self) -> None:
        border = self._reached() - self.overlap
        self._seen = {key: stamp for key, stamp in self._seen.items() if stamp >= border}

    def move(self, to: int | None = None) -> None:
        """Write down how far we came; `to` where the end of a window was reached whatever was in it."""
        if to is not None:
            self._latest = max(to, self._latest or to)
        self._forget()
        self.memory["since"] = self._reached()
        self.memory["recent"] = self._seen if len(self._seen) <= REMEMBERED else {}


class HubSpot(Source):
    """Reads what is new in a HubSpot account."""

    kind: ClassVar[str] = "hubspot"
    label: ClassVar[str] = "HubSpot"
    docs_url: ClassVar[str] = "https://developers.hubspot.com/docs/api-reference"
    Settings = HubSpotSettings
    settings: HubSpotSettings

    def __init__(self, run: Run, settings: SourceSettings, client: HubSpotClient | None = None) -> None:
        super().__init__(run, settings)
        self.client = client or HubSpotClient(run.connection)
        self.began = utc_now()
        self.rows = Rows(self)
        self.words: dict[str, Counter[str]] = {}
        self._can_read_statuses = True

    def read(self, state: State) -> Iterator[Batch]:
        """Contacts, orders, carts, deletions, then e-mail events."""
        try:
            self._definitions: dict[str, str] | None = None
            for kind in self.settings.objects:
                yield from self._kind(kind, state)
            if self.settings.email_events:
                yield from self._events(state)
            yield from self.rows.rest()
            self._report_words()
        finally:
            self.client.close()

    # reading a kind of record

    def _kind(self, kind: str, state: State) -> Iterator[Batch]:
        properties = self._property_names(kind)
        self.run.start_clock()
        watermark = self._watermark(state, kind)
        is_first = watermark.start is None
        count = 0
        group: list[dict[str, Any]] = []
        for page, total in self._scan(kind, properties) if is_first else self._changes(kind, properties, watermark):
            for record in page:
                stamp = self._stamp(kind, record)
                if watermark.is_new(str(record.get("id")), stamp):
                    group.append(record)
            count += len(page)
            self.run.advance(kind, count, total)
            if len(group) >= GROUP:
                self._map(kind, group, state, is_first)
                group = []
                yield from self.rows.full()
        self._map(kind, group, state, is_first)
        self._move(watermark)
        yield from self.rows.full()
        deleted = self._deletions(kind, state)
        self.run.say("%s: %s records read, %s deletions", kind, count, deleted)

    def _watermark(self, state: State, kind: str, overlap: timedelta | None = None) -> Watermark:
        lag = overlap if overlap is not None else timedelta(seconds=self.settings.index_lag_seconds)
        return Watermark(state.setdefault(kind, {}), self._began(), int(lag.total_seconds() * 1000))

    def _began(self) -> int:
        """The start of this run. HubSpot's clock and ours may differ: the earlier one counts."""
        return _milliseconds(min(self.began, self.client.server_time or self.began))

    def _move(self, watermark: Watermark, to: int | None = None) -> None:
        watermark.began = min(watermark.began, self._began())
        watermark.move(to)

    def _property_names(self, kind: str) -> list[str]:
        if kind == "contacts":
            standard = ["email", "firstname", "lastname", "phone", "country", "hs_additional_emails"]
            standard += ["hs_merged_object_ids", "hs_email_optout", "hs_email_hard_bounce_reason_enum"]
            return [*standard, "createdate", "lastmodifieddate", *self.settings.contact_properties.names()]
        own = self.settings.order_properties if kind == "orders" else self.settings.cart_properties
        return ["hs_createdate", "hs_lastmodifieddate", *own.names()]

    def _scan(self, kind: str, properties: Sequence[str]) -> Iterator[tuple[list[dict[str, Any]], int | None]]:
        """Everything, by the order of ids."""
        links = {} if kind == "contacts" else {"associations": "contacts,line_items"}
        for page in self.client.pages(kind, properties=",".join(properties), archived="false", **links):
            yield page, None

    def _changes(
        self, kind: str, properties: Sequence[str], watermark: Watermark
    ) -> Iterator[tuple[list[dict[str, Any]], int | None]]:
        """What was modified since, oldest first.

        Each page starts from the last time seen, not from an offset: a record modified meanwhile moves to the end and
        would shift another one over the border of a page. It also never comes near the 10,000 wall, unless that many
        records were modified in one millisecond; then everything is scanned.
        """
        modified = "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"
        since, after = watermark.start or 0, 0
        while True:
            body = {
                "filterGroups": [{"filters": [{"propertyName": modified, "operator": "GTE", "value": str(since)}]}],
                "sorts": [{"propertyName": modified, "direction": "ASCENDING"}],
                "properties": list(properties),
                "limit": SEARCH_PAGE,
                "after": str(after),
            }
            page = self.client.search(kind, body)
            results = page.get("results") or []
            yield results, page.get("total")
            following = ((page.get("paging") or {}).get("next") or {}).get("after")
            if following in (None, "") or not results:
                return
            last = self._stamp(kind, results[-1])
            if last > since:
                since, after = last, 0
            else:
                after = int(following)
            if after + SEARCH_PAGE > SEARCH_WALL:
                self.run.say("%s: more than %s were modified at one moment; scanning everything", kind, SEARCH_WALL)
                yield from self._scan(kind, properties)
                return

    def _stamp(self, kind: str, record: Mapping[str, Any]) -> int:
        """When a record was modified, in milliseconds; 0 where HubSpot gives no readable time."""
        name = "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"
        for text in ((record.get("properties") or {}).get(name), record.get("updatedAt")):
            try:
                moment = _moment(text)
            except ValueError:
                continue
            if moment is not None:
                return _milliseconds(moment)
        return 0

    def _deletions(self, kind: str, state: State) -> int:
        """Archived records; they never appear in a search (HubSpot keeps them for 90 days)."""
        watermark = self._watermark(state.setdefault("archived", {}), kind)
        start = watermark.start or 0
        names = self._property_names(kind)
        count = 0
        for page in self.client.pages(kind, properties=",".join(names), archived="true"):
            for record in page:
                try:
                    archived_at = _moment(record.get("archivedAt")) or _moment(record.get("updatedAt"))
                except ValueError:
                    archived_at = None
                archived_at = archived_at or self.run.loaded_at
                record_id = str(record.get("id"))
                stamp = _milliseconds(archived_at)
                if stamp < start or not watermark.is_new(record_id, stamp):
                    continue
                count += 1
                if kind == "contacts":
                    self.rows.add("contacts", {"contact_id": record_id, "updated_at": archived_at, "is_deleted": True})
                elif kind == "carts":
                    self.rows.add("carts", {"cart_id": record_id, "status": "deleted", "updated_at": archived_at})
                else:
                    self._map_order(record, {}, {}, deleted_at=archived_at)
        self._move(watermark)
        return count

    # associations and lines

    def _map(self, kind: str, group: list[dict[str, Any]], state: State, is_first: bool) -> None:
        if not group:
            return
        if kind == "contacts":
            self._map_contacts(group, state, is_first)
            return
        contacts = self._links(kind, "contacts", group)
        lines = self._links(kind, "line_items", group)
        items = self._line_items(sorted({one for many in lines.values() for one in many}, key=_by_number))
        for record in group:
            record_id = str(record.get("id"))
            held = {one: items[one] for one in lines.get(record_id, []) if one in items}
            owner = {record_id: contacts.get(record_id, [])}
            if kind == "orders":
                self._map_order(record, owner, held)
            else:
                self._map_cart(record, owner, held)

    def _links(self, kind: str, to_kind: str, group: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """The ids each record is associated with: told with the record, else asked for."""
        found: dict[str, list[str]] = {}
        ask: list[str] = []
        for record in group:
            record_id = str(record.get("id"))
            told = (record.get("associations") or {}) if isinstance(record.get("associations"), dict) else {}
            # "line items" with a blank is how HubSpot writes it (2026-11)
            part = told.get(to_kind) or told.get(to_kind.replace("_", " "))
            if isinstance(part, dict) and not part.get("paging"):
                found[record_id] = _unique(str(one.get("id")) for one in part.get("results") or [])
            else:
                ask.append(record_id)
        path = f"/crm/associations/{API_VERSION}/{kind}/{to_kind}/batch/read"
        for start in range(0, len(ask), ASSOCIATION_BATCH):
            inputs: list[dict[str, str]] = [{"id": one} for one in ask[start : start + ASSOCIATION_BATCH]]
            while inputs:
                answer = self.client.post(path, f"read which {to_kind} belong to {kind}", {"inputs": inputs})
                inputs = []
                for result in answer.get("results") or []:
                    owner = str((result.get("from") or {}).get("id"))
                    others = [str(one.get("toObjectId", one.get("id"))) for one in result.get("to") or []]
                    found[owner] = _unique([*found.get(owner, []), *others])
                    after = ((result.get("paging") or {}).get("next") or {}).get("after")
                    if after:
                        inputs.append({"id": owner, "after": str(after)})
        return found

    def _line_items(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        names = self.settings.line_properties.names()
        found: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(ids), BATCH):
            body = {"properties": names, "inputs": [{"id": one} for one in ids[start : start + BATCH]]}
            answer = self.client.post(f"/crm/objects/{API_VERSION}/line_items/batch/read", "read line items", body)
            for record in answer.get("results") or []:
                found[str(record.get("id"))] = record.get("properties") or {}
        return found

    # from records to rows

    def _map_contacts(self, group: Sequence[Mapping[str, Any]], state: State, is_first: bool) -> None:
        from include.identity import normalise_email, to_e164

        bounced = set(state.get("bounced", ()))
        people: list[tuple[str, list[str], bool, datetime | None]] = []
        own = self.settings.contact_properties
        for record in group:
            properties, record_id = record.get("properties") or {}, str(record.get("id"))
            value = _Reader(self.rows, "contacts", f"contact {record_id}", properties)
            updated_at = value.moment("lastmodifieddate") or value.moment_of(record.get("updatedAt"))
            country = country_code(value.text("country"))
            phone = value.text("phone")
            email = value.text("email")
            self.rows.add(
                "contacts",
                {
                    "contact_id": record_id,
                    "email": email,
                    "phone": (to_e164(phone, country or self.settings.default_country) or phone) if phone else None,
                    "user_id": value.text(own.user_id),
                    "first_name": value.text("firstname"),
                    "last_name": value.text("lastname"),
                    "country": country,
                    "created_at": value.moment("createdate") or value.moment_of(record.get("createdAt")),
                    "updated_at": updated_at,
                    "is_deleted": False,
                },
            )
            others = _split(value.text("hs_additional_emails"))
            identifiers = [("email", other) for other in others]
            identifiers += [("merged_contact_id", old) for old in _split(value.text("hs_merged_object_ids"))]
            if visitor := value.text(own.visitor_id):
                identifiers.append(("visitor_id", visitor))
            for kind, text in identifiers:
                row = {"contact_id": record_id, "kind": kind, "value": text, "updated_at": updated_at}
                self.rows.add("contact_identifiers", row)
            answer = value.text(own.ads_consent)
            # An answer that was taken back is news; one that was never given is not.
            if answer or (own.ads_consent and not is_first):
                status = self._word(answer, self.settings.ads_consent_words, CONSENT_WORDS, "unknown", "ads consent")
                self._consent(record_id, email, "ads", status, own.ads_consent, updated_at)
            self._bounce(record_id, email, value.text("hs_email_hard_bounce_reason_enum"), updated_at, bounced)
            addresses = _unique(good for text in (email, *others) if text and (good := normalise_email(text)))
            people.append((record_id, addresses, value.flag("hs_email_optout") is True, updated_at))
        if sorted(bounced) != state.get("bounced", []):
            state["bounced"] = sorted(bounced)
        self._email_consents(people)

    def _bounce(
        self, record_id: str, email: str | None, reason: str | None, at: datetime | None, bounced: set[str]
    ) -> None:
        """A hard bounce closes e-mail to this address; HubSpot clears the property when the address works again."""
        if not email or (not reason and record_id not in bounced):
            return
        (bounced.add if reason else bounced.discard)(record_id)
        row = {"kind": "email", "value": email, "channel": "email", "reason": "bounced"}
        self.rows.add("suppressions", {**row, "is_active": bool(reason), "changed_at": at})

    def _email_consents(self, people: Sequence[tuple[str, list[str], bool, datetime | None]]) -> None:
        """One answer per contact: any no is a no, else any yes is a yes. An opt-out of everything is a no."""
        addresses = _unique(address for _, mine, _, _ in people for address in mine)
        statuses = self._statuses(addresses)
        for record_id, mine, is_opted_out, updated_at in people:
            if not mine:
                continue
            email = mine[0]
            if is_opted_out:
                self._consent(record_id, email, "email", "denied", "opted out of all e-mail", updated_at)
                continue
            if statuses is None:
                if self.settings.without_answer == "granted":
                    self._consent(record_id, email, "email", "granted", "not opted out", None)
                continue
            answers = [answer for address in mine for answer in statuses.get(address, [])]
            for wanted, status in (("UNSUBSCRIBED", "denied"), ("SUBSCRIBED", "granted"), ("NOT_SPECIFIED", "unknown")):
                given = [(name, at) for name, word, at in answers if word == wanted]
                # That nothing was ever said is no answer; with a time it is: somebody took it back.
                if not given or (wanted == "NOT_SPECIFIED" and not any(at for _, at in given)):
                    continue
                # A yes without its own time stays undated: the record's last change is not when she said it, and only
                # a dated yes may bring somebody back after an erasure.
                undated = None if status == "granted" else updated_at
                said_at = max((at for _, at in given if at), default=undated)
                reason = ", ".join(sorted({name for name, _ in given}))
                self._consent(record_id, email, "email", status, reason, said_at)
                break

    def _consent(
        self, record_id: str, email: str | None, channel: str, status: str, reason: str | None, at: datetime | None
    ) -> None:
        row = {"contact_id": record_id, "email": email, "channel": channel, "status": status}
        self.rows.add("consents", {**row, "reason": reason, "changed_at": at})

    def _statuses(self, addresses: Sequence[str]) -> dict[str, list[tuple[str, str, datetime | None]]] | None:
        """(subscription, status, since) per address, or None where the key may not read them.

        The batch endpoint needs Marketing Hub Enterprise (2026-11); without it `hs_email_optout` is all there is.
        """
        if not self._can_read_statuses:
            return None
        found: dict[str, list[tuple[str, str, datetime | None]]] = {}
        try:
            wanted = self._subscriptions()
            for start in range(0, len(addresses), BATCH):
                answer = self.client.post(
                    f"/communication-preferences/{API_VERSION}/statuses/batch/read",
                    "read subscription statuses",
                    {"inputs": list(addresses[start : start + BATCH])},
                    channel="EMAIL",
                )
                for result in answer.get("results") or []:
                    # one entry per person with a list, or one per person and subscription
                    for one in result.get("statuses") or ([result] if "status" in result else []):
                        address = str(one.get("subscriberIdString") or result.get("subscriberIdString") or "").lower()
                        number = str(one.get("subscriptionId"))
                        if number in wanted:
                            said_at = _moment_or_none(one.get("timestamp"))
                            found.setdefault(address, []).append((wanted[number], str(one.get("status")), said_at))
        except MissingScopes as error:
            log.warning("%s: %s. E-mail consent is taken from hs_email_optout alone", self.run.name, error)
            self._can_read_statuses = False
            return None
        return found

    def _subscriptions(self) -> dict[str, str]:
        """Id and name of the subscription types that count."""
        if self._definitions is None:
            path = f"/communication-preferences/{API_VERSION}/definitions"
            answer = self.client.get(path, "read subscription definitions")
            chosen = {text.casefold() for text in self.settings.email_subscriptions}
            known = {str(one.get("id")): one for one in answer.get("results") or []}
            self._definitions = {
                number: str(one.get("name") or number)
                for number, one in known.items()
                if (number in chosen or str(one.get("name", "")).casefold() in chosen)
                or (not chosen and one.get("isActive", True) and not one.get("isInternal", False))
            }
            names = {str(one.get("name", "")).casefold() for one in known.values()} | set(known)
            if missing := sorted(text for text in self.settings.email_subscriptions if text.casefold() not in names):
                self.run.say("HubSpot has no subscription type %s", ", ".join(missing))
        return self._definitions

    def _map_order(
        self,
        record: Mapping[str, Any],
        contacts: Mapping[str, Sequence[str]],
        items: Mapping[str, Mapping[str, Any]],
        deleted_at: datetime | None = None,
    ) -> None:
        own, record_id = self.settings.order_properties, str(record.get("id"))
        value = _Reader(self.rows, "orders", f"order {record_id}", record.get("properties") or {})
        updated_at = deleted_at or value.moment("hs_lastmodifieddate") or value.moment_of(record.get("updatedAt"))
        ordered_at = (
            value.moment(own.ordered_at) or value.moment("hs_createdate") or value.moment_of(record.get("createdAt"))
        )
        word = value.text(own.status) or value.text(own.fulfilment)
        status = self._word(word, self.settings.order_statuses, ORDER_WORDS, "placed", "order status")
        currency = value.text(own.currency)
        owner = contacts.get(record_id)
        self.rows.add(
            "orders",
            {
                "order_id": record_id,
                "transaction_id": value.text(own.transaction_id),
                "contact_id": owner[0] if owner else None,
                "status": "cancelled" if deleted_at else status,
                "currency": currency,
                "total_amount": value.number(own.total),
                "is_test": value.flag(own.is_test) is True,
                "ordered_at": ordered_at,
                "updated_at": updated_at,
            },
        )
        for line_id, line in items.items():
            row = self._line("order_items", line_id, line, currency)
            self.rows.add("order_items", {**row, "order_id": record_id, "updated_at": updated_at})

    def _map_cart(
        self,
        record: Mapping[str, Any],
        contacts: Mapping[str, Sequence[str]],
        items: Mapping[str, Mapping[str, Any]],
    ) -> None:
        own, record_id = self.settings.cart_properties, str(record.get("id"))
        value = _Reader(self.rows, "carts", f"cart {record_id}", record.get("properties") or {})
        updated_at = value.moment("hs_lastmodifieddate") or value.moment_of(record.get("updatedAt"))
        word = value.text(own.status)
        currency = value.text(own.currency)
        owner = contacts.get(record_id)
        self.rows.add(
            "carts",
            {
                "cart_id": record_id,
                "contact_id": owner[0] if owner else None,
                "status": self._word(word, self.settings.cart_statuses, CART_WORDS, "open", "cart status"),
                "currency": currency,
                "total_amount": value.number(own.total),
                "cart_url": value.text(own.cart_url),
                "created_at": value.moment("hs_createdate") or value.moment_of(record.get("createdAt")),
                "updated_at": updated_at,
            },
        )
        for line_id, line in items.items():
            row = self._line("cart_items", line_id, line, currency)
            images = _split(_clean(line.get(self.settings.line_properties.image_url or "")))
            row["image_url"] = images[0] if images else None
            row["product_url"] = _clean(line.get(self.settings.line_properties.product_url or ""))
            self.rows.add("cart_items", {**row, "cart_id": record_id, "updated_at": updated_at})

    def _line(self, table: str, line_id: str, line: Mapping[str, Any], currency: str | None) -> dict[str, Any]:
        own = self.settings.line_properties
        value = _Reader(self.rows, table, f"line item {line_id}", line)
        return {
            "line_id": line_id,
            "sku": value.text(own.sku),
            "name": value.text(own.name),
            "quantity": value.whole(own.quantity),
            "price": value.number(own.price),
            "currency": value.text(own.currency) or currency,
        }

    def _word(self, text: str | None, own: Mapping[str, str], usual: Mapping[str, str], other: str, what: str) -> str:
        """Our word for a free text of HubSpot; unknown ones are counted and reported at the end."""
        if not text:
            return other
        lowered = text.casefold()
        for pattern, word in (*own.items(), *usual.items()):
            if fnmatchcase(lowered, pattern.casefold()):
                return word
        self.words.setdefault(f"{what} taken as '{other}'", Counter())[text[:40]] += 1
        return other

    def _report_words(self) -> None:
        for what, counts in self.words.items():
            told = ", ".join(f"{word} ({count})" for word, count in counts.most_common(10))
            self.run.say("unknown words for %s; map them in the definition: %s", what, told)

    # e-mail events

    def _events(self, state: State) -> Iterator[Batch]:
        """Sends, opens, clicks. The v1 endpoint is the only feed per recipient; it ends in September 2027 (2026-11)."""
        self.run.start_clock()
        watermark = self._watermark(state, "email_events", EVENT_OVERLAP)
        history = int(timedelta(days=self.settings.email_event_days).total_seconds() * 1000)
        start = watermark.start if watermark.start is not None else watermark.began - history
        first, end = start, watermark.began
        step = int(EVENT_WINDOW.total_seconds() * 1000)
        count = 0
        try:
            while start < end:
                until = min(start + step, end)
                for event in self._window(start, until):
                    count += self._map_event(event, watermark)
                self.run.advance(f"e-mail events, {100 * (until - first) // max(end - first, 1)} % of the time", count)
                yield from self.rows.full()
                start = until
        except MissingScopes as error:
            log.warning("%s: %s. E-mail events are left out", self.run.name, error)
            return
        self._move(watermark, end)
        self.run.say("e-mail events: %s new", count)

    def _window(self, start: int, end: int) -> Iterator[Mapping[str, Any]]:
        offset: str | None = None
        while True:
            cursor = {"offset": offset} if offset else {}
            page = self.client.get(
                "/email/public/v1/events",
                "read e-mail events",
                startTimestamp=start,
                endTimestamp=end,
                limit=EVENT_PAGE,
                **cursor,
            )
            yield from page.get("events") or []
            following = str(page.get("offset") or "")
            if not page.get("hasMore") or not following or following == offset:
                return
            offset = following

    def _map_event(self, event: Mapping[str, Any], watermark: Watermark) -> int:
        kind = EVENT_TYPES.get(str(event.get("type")))
        if kind is None:
            return 0
        event_id = f"{event.get('created')}:{event.get('id')}"
        try:
            occurred_at = _moment(str(event.get("created") or ""))
        except ValueError:
            occurred_at = None
        email = _clean(event.get("recipient"))
        if occurred_at is None:
            self.rows.reject("engagement", f"e-mail event {event.get('id')}", "created is not a time", dict(event))
            return 0
        if not watermark.is_new(event_id, _milliseconds(occurred_at)):
            return 0
        campaign = event.get("emailCampaignId")
        self.rows.add(
            "engagement",
            {
                "engagement_id": event_id,
                "email": email,
                "channel": "email",
                "type": kind,
                "campaign_id": str(campaign) if campaign is not None else None,
                "is_bot": event.get("filteredEvent") is True,
                "occurred_at": occurred_at,
            },
        )
        if kind == "complaint" and email:
            row = {"kind": "email", "value": email, "channel": "email", "reason": "complained"}
            self.rows.add("suppressions", {**row, "is_active": True, "changed_at": occurred_at})
        return 1


class _Reader:
    """Types the properties of one record; what cannot be typed is set aside with the record's id and left empty."""

    def __init__(self, rows: Rows, table: str, location: str, properties: Mapping[str, Any]) -> None:
        self.rows, self.table, self.location, self.properties = rows, table, location, properties

    def text(self, name: str | None) -> str | None:
        return _clean(self.properties.get(name)) if name else None

    def number(self, name: str | None) -> float | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return value
        self._reject(f"{name} is not a number")
        return None

    def whole(self, name: str | None) -> int | None:
        value = self.number(name)
        if value is None or value == int(value):
            return None if value is None else int(value)
        self._reject(f"{name} is not a whole number")
        return None

    def flag(self, name: str | None) -> bool | None:
        text = self.text(name)
        if text is None:
            return None
        if text.lower() in ("true", "yes", "1", "false", "no", "0"):
            return text.lower() in ("true", "yes", "1")
        self._reject(f"{name} is not true or false")
        return None

    def moment(self, name: str | None) -> datetime | None:
        try:
            return _moment(self.text(name))
        except ValueError:
            self._reject(f"{name} is not a date or time")
            return None

    def moment_of(self, text: object) -> datetime | None:
        return _moment_or_none(text)

    def _reject(self, reason: str) -> None:
        self.rows.reject(self.table, self.location, reason, dict(self.properties))


def _clean(value: object) -> str | None:
    """Trimmed text in NFC, None when nothing is left."""
    text = unicodedata.normalize("NFC", str(value)).strip() if value is not None else ""
    return text or None


def _moment(value: object) -> datetime | None:
    """ISO text or epoch milliseconds as naive UTC; ValueError when it is neither."""
    text = _clean(value)
    if text is None:
        return None
    if text.lstrip("-").isdigit() and len(text) > 8:
        try:
            return EPOCH + timedelta(milliseconds=int(text))
        except OverflowError as error:
            raise ValueError("not a time") from error
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _moment_or_none(value: object) -> datetime | None:
    try:
        return _moment(value)
    except ValueError:
        return None


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()] if text else []


def _unique(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _by_number(text: str) -> tuple[int, str]:
    return (len(text), text)
