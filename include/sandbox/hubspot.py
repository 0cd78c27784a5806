"""HubSpot as its readers meet it: CRM objects, associations, consent and e-mail events; a read-only service key.

Both path styles answer: date-based (`/crm/objects/2026-09/contacts`) and numbered (`/crm/v3/objects/contacts`).
What the vendor documents is refused the way the vendor refuses it; on top of that unknown keys and parameters are
refused where HubSpot would silently ignore them, because a silent typo is the costlier mistake.
Vendor facts as of 2026-11: https://developers.hubspot.com/docs/api-reference
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson

from include.sandbox.store import Store, milliseconds, seed_rows
from include.sandbox.wire import Answer, Call, Refusal, Route, Window, iso

OBJECT_TYPES = {
    "contacts": ("contact", "0-1"),
    "carts": ("cart", "0-142"),
    "orders": ("order", "0-123"),
    "line_items": ("line_item", "0-8"),
}
_ALIASES = {alias: name for name, (single, number) in OBJECT_TYPES.items() for alias in (name, single, number)}
ASSOCIATION_TYPE_IDS = {
    ("carts", "contacts"): 586,
    ("contacts", "carts"): 587,
    ("carts", "line_items"): 590,
    ("line_items", "carts"): 591,
    ("carts", "orders"): 592,
    ("orders", "carts"): 593,
    ("orders", "contacts"): 507,
    ("contacts", "orders"): 508,
    ("orders", "line_items"): 513,
    ("line_items", "orders"): 514,
}
VERSIONS = ("2025-09", "2026-03", "2026-09")
PAGE_MAX = 100
SEARCH_PAGE_MAX = 200
SEARCH_WALL = 10_000
SEARCH_BODY_MAX = 3_000
BATCH_MAX = 100
ASSOCIATION_BATCH_MAX = 1_000
EVENTS_MAX = 1_000
DAILY_LIMIT = 650_000
_NUMBERS = {"hs_total_price", "price", "quantity", "amount", "hs_cart_discount", "hs_tax", "hs_shipping_cost"}
_OPERATORS = {
    "EQ", "NEQ", "GT", "GTE", "LT", "LTE", "BETWEEN", "IN", "NOT_IN", "HAS_PROPERTY", "NOT_HAS_PROPERTY",
    "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN",
}  # fmt: skip
_COMPARE = {"EQ": "=", "NEQ": "!=", "GT": ">", "GTE": ">=", "LT": "<", "LTE": "<="}


@dataclass(frozen=True)
class HubSpotConfig:
    """How this portal behaves. `tokens` empty accepts every well-formed service key."""

    tokens: frozenset[str] = frozenset()
    requests_per_ten_seconds: int = 190
    searches_per_second: int = 5
    index_lag: float = 0.0
    missing_scopes: frozenset[str] = frozenset()


class HubSpot:
    """The portal."""

    name = "hubspot"
    prefix = "/hubspot"

    def __init__(self, store: Store, config: HubSpotConfig) -> None:
        self.store = store
        self.config = config
        self.burst = Window(config.requests_per_ten_seconds, 10.0)
        self.search_window = Window(config.searches_per_second, 1.0)
        self.routes = tuple(self._routes())

    def _routes(self) -> Iterator[Route]:
        for base in ("/crm/v3/objects/{kind}", *(f"/crm/objects/{version}/{{kind}}" for version in VERSIONS)):
            yield Route("GET", base, self.list_objects, scope="objects")
            yield Route("POST", f"{base}/search", self.search, scope="objects")
            yield Route("POST", f"{base}/batch/read", self.batch_read, scope="objects")
            yield Route("GET", f"{base}/{{object_id}}", self.get_object, scope="objects")
            for method, tail in (
                ("POST", ""), ("PATCH", "/{object_id}"), ("DELETE", "/{object_id}"), ("POST", "/batch/create"),
                ("POST", "/batch/update"), ("POST", "/batch/upsert"), ("POST", "/batch/archive"), ("POST", "/merge"),
            ):  # fmt: skip
                yield Route(method, base + tail, self.refuse_write, scope="write")
        yield Route("GET", "/crm/v3/properties/{kind}", self.list_properties, scope="objects")
        for version in VERSIONS:
            yield Route("GET", f"/crm/properties/{version}/{{kind}}", self.list_properties, scope="objects")
            yield Route(
                "POST",
                f"/crm/associations/{version}/{{kind}}/{{to_kind}}/batch/read",
                self.read_associations,
                scope="objects",
            )
        for version in ("v3", "v4"):
            yield Route(
                "POST",
                f"/crm/{version}/associations/{{kind}}/{{to_kind}}/batch/read",
                self.read_associations,
                scope="objects",
            )
        preferences = "communication_preferences.read"
        batch = "communication_preferences.statuses.batch.read"
        for version in ("v4", *VERSIONS):
            base = f"/communication-preferences/{version}"
            yield Route("GET", f"{base}/definitions", self.definitions, scope=preferences)
            yield Route("POST", f"{base}/statuses/batch/read", self.batch_statuses, scope=batch)
            yield Route("POST", f"{base}/statuses/batch/unsubscribe-all/read", self.batch_opted_out, scope=batch)
            yield Route("GET", f"{base}/statuses/{{email}}", self.statuses, scope=preferences)
            yield Route("GET", f"{base}/statuses/{{email}}/unsubscribe-all", self.opted_out, scope=preferences)
            yield Route("POST", f"{base}/statuses/{{email}}", self.refuse_write, scope="write")
        yield Route("GET", "/communication-preferences/v3/definitions", self.definitions_v3, scope=preferences)
        yield Route("GET", "/communication-preferences/v3/status/email/{email}", self.statuses_v3, scope=preferences)
        yield Route("GET", "/email/public/v1/events", self.email_events, scope="content")
        for version in ("v3", *VERSIONS):
            yield Route("GET", f"/account-info/{version}/details", self.account, scope="")

    # admission

    def admit(self, call: Call, route: Route) -> None:
        """Token, rights and rate limits, in the order HubSpot checks them."""
        token = _bearer(call)
        known = token in self.config.tokens if self.config.tokens else bool(token) and _looks_like_key(token)
        if not known:
            raise Refusal(
                Answer(
                    401,
                    {
                        "status": "error",
                        "message": "Authentication credentials not found. This API supports OAuth 2.0 authentication "
                        "and you can find more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
                        "correlationId": str(uuid.uuid4()),
                        "category": "INVALID_AUTHENTICATION",
                    },
                )
            )
        if route.handler == self.search:
            if not self.search_window.take(call.now):
                raise Refusal(_too_many("secondly", "SECONDLY"))
        elif not self.burst.take(call.now):
            raise Refusal(_too_many("ten_secondly_rolling", "TEN_SECONDLY_ROLLING"))
        scope = route.scope
        if scope == "objects":
            kind = route.pattern.fullmatch(call.path)
            scope = f"crm.objects.{_ALIASES.get(kind['kind'], kind['kind'])}.read" if kind else ""
        if scope and scope in self.config.missing_scopes:
            raise Refusal(_missing_scope(scope))

    def decorate(self, call: Call, route: Route | None, answer: Answer) -> None:
        """Rate-limit headers; searches carry none, as at the vendor."""
        if route is None or route.handler == self.search or answer.status == 401:
            return
        answer.headers.update(
            {
                "X-HubSpot-RateLimit-Max": str(self.burst.limit),
                "X-HubSpot-RateLimit-Remaining": str(self.burst.left(call.now)),
                "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
                "X-HubSpot-RateLimit-Daily": str(DAILY_LIMIT),
            }
        )

    def lost(self, call: Call, allowed: list[str]) -> Answer:
        """404 for a path nobody knows, 405 for a known one with another method."""
        if allowed:
            return _problem(405, "The method you are using is not allowed", category="VALIDATION_ERROR")
        return Answer(404, b"<html><head><title>Error 404 Not Found</title></head></html>", media_type="text/html")

    def is_write(self, call: Call) -> bool:
        """Nothing is ever written here."""
        return False

    # CRM objects

    def list_objects(self, call: Call, kind: str) -> Answer:
        """One page of a full scan, in order of id."""
        kind = _kind(kind)
        params = _params(call, {"limit", "after", "properties", "propertiesWithHistory", "associations", "archived"})
        limit = _integer(params.get("limit", "10"), "limit", 1, PAGE_MAX)
        after = _integer(params.get("after", "0"), "after", 0, None)
        archived = _boolean(params.get("archived", "false"), "archived")
        rows = self.store.all(
            "select * from hubspot_objects where type = ? and archived = ? and id > ? order by id limit ?",
            kind, archived, after, limit + 1,
        )  # fmt: skip
        page = rows[:limit]
        wanted = _names(call, "properties")
        results = [self._record(kind, row, wanted) for row in page]
        self._associate(kind, results, _names(call, "associations"))
        call.rows = len(results)
        body: dict[str, Any] = {"results": results}
        if len(rows) > limit:
            last = str(page[-1]["id"])
            body["paging"] = {"next": {"after": last, "link": f"https://api.hubapi.com{call.path}?after={last}"}}
        return Answer(body=body)

    def get_object(self, call: Call, kind: str, object_id: str) -> Answer:
        """One record by id or by `idProperty`."""
        kind = _kind(kind)
        params = _params(call, {"properties", "propertiesWithHistory", "associations", "archived", "idProperty"})
        archived = _boolean(params.get("archived", "false"), "archived")
        rows = self._find(kind, [object_id], params.get("idProperty"), archived)
        if not rows:
            raise Refusal(
                _problem(404, f"Object not found.  objectId are usually numeric.", category="OBJECT_NOT_FOUND")  # noqa: F541
            )
        results = [self._record(kind, rows[0], _names(call, "properties"))]
        self._associate(kind, results, _names(call, "associations"))
        call.rows = 1
        return Answer(body=results[0])

    def search(self, call: Call, kind: str) -> Answer:
        """Filter, sort by one rule, page up to the 10,000 wall; what changed within the index lag is not there yet."""
        kind = _kind(kind)
        _params(call, set())
        if len(call.body) > SEARCH_BODY_MAX:
            _refuse(f"The request body exceeds the maximum of {SEARCH_BODY_MAX} characters")
        body = _json(call, {"filterGroups", "sorts", "properties", "limit", "after", "query"})
        limit = body.get("limit", 10)
        if not isinstance(limit, int) or isinstance(limit, bool):
            _refuse_type("limit", "int", limit)
        if not 1 <= limit <= SEARCH_PAGE_MAX:
            _refuse(f"Request limit must be between 1 and {SEARCH_PAGE_MAX}, got {limit}")
        after = body.get("after", "0")
        if isinstance(after, bool) or not isinstance(after, str | int) or not (str(after) or "0").isdigit():
            _refuse("Paging cursor 'after' must be an integer")
        offset = int(after or 0)
        if offset + limit > SEARCH_WALL:
            _refuse(f"Paging through results past {SEARCH_WALL} is not supported. Narrow the filters.")
        wanted = _texts(body, "properties")
        where, values = self._where(kind, body.get("filterGroups", []))
        order = self._order(kind, body.get("sorts", []))
        query = body.get("query", "")
        if not isinstance(query, str):
            _refuse_type("query", "String", query)
        condition = f"type = ? and archived = 0 and indexed_at <= ? and ({where})"
        bound: list[Any] = [kind, call.now - self.config.index_lag, *values]
        if query.strip():
            condition += " and instr(lower(properties), ?)"
            bound.append(query.strip().lower())
        total = self.store.value(f"select count(*) from hubspot_objects where {condition}", *bound)
        rows = self.store.all(
            f"select * from hubspot_objects where {condition} order by {order} limit ? offset ?", *bound, limit, offset
        )
        call.rows = len(rows)
        answer: dict[str, Any] = {"total": total, "results": [self._record(kind, row, wanted) for row in rows]}
        if offset + limit < total:
            answer["paging"] = {"next": {"after": str(offset + limit)}}
        return Answer(body=answer)

    def batch_read(self, call: Call, kind: str) -> Answer:
        """Up to 100 records by id or unique property; 207 when some are not there. Results are in no promised order."""
        kind = _kind(kind)
        params = _params(call, {"archived"})
        archived = _boolean(params.get("archived", "false"), "archived")
        body = _json(call, {"properties", "propertiesWithHistory", "idProperty", "inputs"})
        wanted = _texts(body, "properties")
        if _texts(body, "propertiesWithHistory"):
            _refuse("propertiesWithHistory is not kept by this portal")
        id_property = body.get("idProperty")
        if id_property is not None and not isinstance(id_property, str):
            _refuse_type("idProperty", "String", id_property)
        ids = _inputs(body, BATCH_MAX)
        call.rows = len(ids)
        rows = self._find(kind, ids, id_property, archived)
        started = iso(call.now)
        answer: dict[str, Any] = {
            "status": "COMPLETE",
            "results": [self._record(kind, row, wanted) for row in rows],
            "startedAt": started,
            "completedAt": started,
        }
        found = {(row["email"] if id_property == "email" else str(row["id"])) for row in rows}
        missing = [value for value in ids if (value.strip().lower() if id_property == "email" else value) not in found]
        if not missing:
            return Answer(body=answer)
        answer["numErrors"] = 1
        answer["errors"] = [
            {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",
                "message": f"Could not get some {OBJECT_TYPES[kind][0].upper()} objects, they may be deleted or not "
                "exist. Check that ids are valid.",
                "context": {"ids": missing},
            }
        ]
        return Answer(207, answer)

    def refuse_write(self, call: Call, **_: str) -> Answer:
        """The key of this portal may only read."""
        raise Refusal(_missing_scope("crm.objects.contacts.write"))

    def list_properties(self, call: Call, kind: str) -> Answer:
        """Names and types of an object's properties."""
        kind = _kind(kind)
        _params(call, {"archived"})
        names = [row["name"] for row in self._properties(kind)]
        types = {"datetime": "date", "number": "number", "string": "text"}
        results = [
            {"name": name, "label": name, "type": _type(name), "fieldType": types[_type(name)], "archived": False}
            for name in names
        ]
        call.rows = len(results)
        return Answer(body={"results": results})

    def read_associations(self, call: Call, kind: str, to_kind: str) -> Answer:
        """Who belongs to whom, for up to 1,000 records; 207 names those that have nobody."""
        kind, to_kind = _kind(kind), _kind(to_kind)
        _params(call, set())
        body = _json(call, {"inputs"})
        ids = _inputs(body, ASSOCIATION_BATCH_MAX, numbers=True, extra={"after"})
        call.rows = len(ids)
        links = self._links(kind, to_kind, ids)
        started = iso(call.now)
        style = "v3" if "/v3/" in call.path else "v4" if "/v4/" in call.path else "dated"
        results = [
            {
                "from": {"id": one},
                "to": [_link(style, kind, to_kind, other) for other in links[one]],
            }
            for one in ids
            if one in links
        ]
        answer: dict[str, Any] = {
            "status": "COMPLETE",
            "results": results,
            "startedAt": started,
            "completedAt": started,
        }
        lonely = [one for one in ids if one not in links]
        if not lonely:
            return Answer(body=answer)
        single, other = OBJECT_TYPES[kind][0], OBJECT_TYPES[to_kind][0]
        answer["numErrors"] = len(lonely)
        answer["errors"] = [
            {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",
                "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
                "message": f"No {other} is associated with {single} {one}.",
                "context": {"fromObjectId": [one], "fromObjectType": [single], "toObjectType": [other]},
            }
            for one in lonely
        ]
        return Answer(207, answer)

    # consent

    def definitions(self, call: Call) -> Answer:
        """The subscription types of the portal."""
        _params(call, {"businessUnitId", "includeTranslations"})
        results = self._definitions()
        call.rows = len(results)
        return Answer(
            body={
                "status": "COMPLETE",
                "results": results,
                "startedAt": iso(call.now),
                "completedAt": iso(call.now),
            }
        )

    def definitions_v3(self, call: Call) -> Answer:
        """The same in the words of v3."""
        _params(call, set())
        return Answer(body={"subscriptionDefinitions": self._definitions()})

    def statuses(self, call: Call, email: str) -> Answer:
        """A person's answer to every subscription type; who never said anything is NOT_SPECIFIED."""
        _channel(call)
        call.rows = 1
        started = iso(call.now)
        results = self._statuses([_address(email)])[_address(email)]
        return Answer(body={"status": "COMPLETE", "results": results, "startedAt": started, "completedAt": started})

    def statuses_v3(self, call: Call, email: str) -> Answer:
        """The same in the words of v3."""
        _params(call, set())
        words = {"SUBSCRIBED": "SUBSCRIBED", "UNSUBSCRIBED": "NOT_SUBSCRIBED", "NOT_SPECIFIED": "NOT_SUBSCRIBED"}
        address = _address(email)
        return Answer(
            body={
                "recipient": address,
                "subscriptionStatuses": [
                    {
                        "id": str(one["subscriptionId"]),
                        "name": one["subscriptionName"],
                        "description": "",
                        "status": words[one["status"]],
                        "sourceOfStatus": "SUBSCRIPTION_STATUS",
                    }
                    for one in self._statuses([address])[address]
                ],
            }
        )

    def batch_statuses(self, call: Call) -> Answer:
        """The answers of up to 100 people; needs a Marketing Hub Enterprise scope."""
        _channel(call)
        emails = self._emails(call)
        started = iso(call.now)
        found = self._statuses(emails)
        return Answer(
            body={
                "status": "COMPLETE",
                "results": [{"subscriberIdString": email, "statuses": found[email]} for email in emails],
                "startedAt": started,
                "completedAt": started,
            }
        )

    def opted_out(self, call: Call, email: str) -> Answer:
        """Whether a person is out of everything; an empty result says no."""
        _channel(call)
        call.rows = 1
        started = iso(call.now)
        return Answer(
            body={
                "status": "COMPLETE",
                "results": self._wide([_address(email)])[_address(email)],
                "startedAt": started,
                "completedAt": started,
            }
        )

    def batch_opted_out(self, call: Call) -> Answer:
        """The same for up to 100 people."""
        _channel(call)
        emails = self._emails(call)
        started = iso(call.now)
        found = self._wide(emails)
        return Answer(
            body={
                "status": "COMPLETE",
                "results": [{"subscriberIdString": email, "wideStatuses": found[email]} for email in emails],
                "startedAt": started,
                "completedAt": started,
            }
        )

    # engagement and account

    def email_events(self, call: Call) -> Answer:
        """Sends, opens, clicks and the rest, newest first, in a window of time; `offset` is opaque."""
        names = {"startTimestamp", "endTimestamp", "limit", "offset", "recipient", "campaignId", "eventType", "appId"}
        names |= {"excludeFilteredEvents"}
        params = _params(call, names)
        limit = _integer(params.get("limit", "10"), "limit", 1, EVENTS_MAX)
        conditions: list[str] = ["true"]
        values: list[Any] = []
        for name, condition in (("startTimestamp", "created >= ?"), ("endTimestamp", "created < ?")):
            if name in params:
                conditions.append(condition)
                values.append(_integer(params[name], name, 0, None))
        for name, condition in (
            ("recipient", "recipient = ?"),
            ("campaignId", "campaign_id = ?"),
            ("eventType", "type = ?"),
        ):
            if name in params:
                conditions.append(condition)
                values.append(params[name].lower() if name == "recipient" else params[name])
        if _boolean(params.get("excludeFilteredEvents", "false"), "excludeFilteredEvents"):
            conditions.append("json_extract(body, '$.filteredEvent') is not true")
        if params.get("offset"):
            created, event_id = _cursor(params["offset"])
            conditions.append("(created, id) < (?, ?)")
            values += [created, event_id]
        rows = self.store.all(
            f"select * from hubspot_events where {' and '.join(conditions)} order by created desc, id desc limit ?",
            *values, limit + 1,
        )  # fmt: skip
        page = rows[:limit]
        call.rows = len(page)
        offset = ""
        if page:
            offset = base64.urlsafe_b64encode(f"{page[-1]['created']}|{page[-1]['id']}".encode()).decode()
        return Answer(
            body={
                "hasMore": len(rows) > limit,
                "offset": offset,
                "events": [orjson.loads(row["body"]) for row in page],
            }
        )

    def account(self, call: Call) -> Answer:
        """Which portal the key belongs to."""
        _params(call, set())
        return Answer(
            body={
                "portalId": 62515,
                "accountType": "STANDARD",
                "timeZone": "UTC",
                "companyCurrency": "EUR",
                "utcOffset": "+00:00",
                "utcOffsetMilliseconds": 0,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "na1",
            }
        )

    # reading the state

    def _record(self, kind: str, row: Any, wanted: Sequence[str]) -> dict[str, Any]:
        properties = orjson.loads(row["properties"])
        created, modified = _stamps(kind)
        shown: dict[str, Any] = {}
        if not wanted and kind == "contacts":
            wanted = ("email", "firstname", "lastname")
        for name in wanted:
            if name in properties:
                shown[name] = properties[name]
            elif name in self._known(kind):
                shown[name] = None
        shown[created] = row["created_at"]
        shown["hs_object_id"] = str(row["id"])
        shown[modified] = row["updated_at"]
        record = {
            "id": str(row["id"]),
            "properties": shown,
            "createdAt": row["created_at"],
            "updatedAt": row["updated_at"],
            "archived": bool(row["archived"]),
        }
        if row["archived"]:
            record["archivedAt"] = row["archived_at"]
        return record

    def _known(self, kind: str) -> set[str]:
        stamp = self.store.value("select value from meta where key = 'hubspot_properties'")
        cached: tuple[Any, dict[str, set[str]]] | None = getattr(self, "_known_cache", None)
        if cached is None or cached[0] != stamp:
            names: dict[str, set[str]] = {name: {"hs_object_id", *_stamps(name)} for name in OBJECT_TYPES}
            names["contacts"] |= {"email", "firstname", "lastname", "phone", "hs_email_optout", "lifecyclestage"}
            for row in self.store.all("select type, name from hubspot_properties"):
                names[row["type"]].add(row["name"])
            self._known_cache = cached = (stamp, names)
        return cached[1][kind]

    def _properties(self, kind: str) -> list[dict[str, str]]:
        return [{"name": name} for name in sorted(self._known(kind))]

    def _find(self, kind: str, ids: Sequence[str], id_property: str | None, archived: int) -> list[Any]:
        marks = ", ".join("?" * len(ids))
        base = "select * from hubspot_objects where type = ? and archived = ? and "
        if id_property in (None, "hs_object_id"):
            numbers = [int(value) for value in ids if value.isdigit()]
            marks = ", ".join("?" * len(numbers))
            return self.store.all(f"{base} id in ({marks}) order by id desc", kind, archived, *numbers)
        if id_property != "email" or kind != "contacts":
            _refuse(f"Unable to perform read by non-unique {OBJECT_TYPES[kind][1]} property {id_property}")
        emails = [value.strip().lower() for value in ids]
        return self.store.all(f"{base} email in ({marks}) order by id desc", kind, archived, *emails)

    def _links(self, kind: str, to_kind: str, ids: Sequence[str]) -> dict[str, list[int]]:
        marks = ", ".join("?" * len(ids))
        links: dict[str, list[int]] = {}
        for row in self.store.all(
            f"select from_id, to_id from hubspot_associations where from_type = ? and to_type = ? "
            f"and from_id in ({marks}) order by from_id, to_id",
            kind, to_kind, *(int(one) for one in ids),
        ):  # fmt: skip
            links.setdefault(str(row["from_id"]), []).append(row["to_id"])
        return links

    def _associate(self, kind: str, results: list[dict[str, Any]], wanted: Sequence[str]) -> None:
        for name in wanted:
            to_kind = _kind(name)
            links = self._links(kind, to_kind, [record["id"] for record in results])
            label = f"{OBJECT_TYPES[kind][0]}_to_{OBJECT_TYPES[to_kind][0]}"
            key = to_kind.replace("_", " ")  # "line items", with a blank, is what HubSpot answers (seen 2026)
            for record in results:
                others = links.get(record["id"])
                if others:
                    listed = [{"id": str(other), "type": label} for other in others]
                    record.setdefault("associations", {})[key] = {"results": listed}

    def _where(self, kind: str, groups: object) -> tuple[str, list[Any]]:
        if not isinstance(groups, list):
            _refuse_type("filterGroups", "ArrayList", groups)
        if len(groups) > 5:
            _refuse("Too many filterGroups: at most 5 are allowed")
        alternatives: list[str] = []
        values: list[Any] = []
        count = 0
        for group in groups:
            _only(group, {"filters"}, "filterGroups")
            filters = group.get("filters", [])
            if not isinstance(filters, list):
                _refuse_type("filters", "ArrayList", filters)
            if len(filters) > 6:
                _refuse("Too many filters in a filterGroup: at most 6 are allowed")
            count += len(filters)
            parts = []
            for one in filters:
                sql, bound = self._filter(kind, one)
                parts.append(sql)
                values += bound
            alternatives.append(" and ".join(parts) or "true")
        if count > 18:
            _refuse("Too many filters: at most 18 are allowed in one search")
        return " or ".join(f"({part})" for part in alternatives) or "true", values

    def _filter(self, kind: str, one: object) -> tuple[str, list[Any]]:
        _only(one, {"propertyName", "operator", "value", "values", "highValue"}, "filters")
        name, operator = one.get("propertyName"), one.get("operator")  # type: ignore[attr-defined]
        if not isinstance(name, str) or not isinstance(operator, str):
            _refuse("Invalid input JSON: propertyName and operator are required in a filter")
        if operator not in _OPERATORS:
            _refuse(f'Invalid input JSON: Cannot deserialize value of type `Operator` from String "{operator}"')
        if name not in self._known(kind):
            _refuse(f"There was a problem with the request. Property '{name}' does not exist")
        sql, numeric = self._expression(kind, name)
        has = f"coalesce({sql}, '') != ''"
        if operator in ("HAS_PROPERTY", "NOT_HAS_PROPERTY"):
            return (has if operator == "HAS_PROPERTY" else f"not ({has})"), []
        if operator in ("IN", "NOT_IN"):
            many = one.get("values")  # type: ignore[attr-defined]
            if not isinstance(many, list) or not many:
                _refuse(f"operator {operator} requires values")
            bound = [self._operand(name, value) for value in many]
            marks = ", ".join("?" * len(bound))
            return f"({has} and {sql} {'not in' if operator == 'NOT_IN' else 'in'} ({marks}))", bound
        if "value" not in one:  # type: ignore[operator]
            _refuse(f"operator {operator} requires a value")
        value = self._operand(name, one["value"])  # type: ignore[index]
        if operator == "BETWEEN":
            if "highValue" not in one:  # type: ignore[operator]
                _refuse("operator BETWEEN requires value and highValue")
            high = self._operand(name, one["highValue"])  # type: ignore[index]
            return f"({has} and {sql} between ? and ?)", [value, high]
        if operator in ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
            if numeric:
                _refuse(f"operator {operator} is not supported for property {name}")
            inside = f"(' ' || replace({sql}, '@', ' ') || ' ') glob ?"
            negate = "not " if operator == "NOT_CONTAINS_TOKEN" else ""
            return f"({has} and {negate}{inside})", [f"* {str(value).replace('@', ' ')} *"]
        return f"({has} and {sql} {_COMPARE[operator]} ?)", [value]

    def _expression(self, kind: str, name: str) -> tuple[str, bool]:
        created, modified = _stamps(kind)
        if name == "hs_object_id":
            return "id", True
        if name == created:
            return "created_ms", True
        if name == modified:
            return "modified_ms", True
        path = '$."' + name.replace('"', "").replace("'", "") + '"'
        text = f"json_extract(properties, '{path}')"
        if _type(name) == "datetime":
            return f"to_milliseconds({text})", True
        if _type(name) == "number":
            return f"(case when coalesce({text}, '') != '' then cast({text} as real) end)", True
        return f"lower({text})", False

    def _operand(self, name: str, value: object) -> Any:
        if not isinstance(value, str):
            _refuse_type("value", "String", value)
        if _type(name) == "datetime":
            moment = milliseconds(value)
            if moment is None:
                _refuse(f"{name}: {value} was not a valid date-time")
            return moment
        if _type(name) == "number":
            try:
                return float(value)
            except ValueError:
                _refuse(f"{name}: {value} was not a valid number")
        return value.lower()

    def _order(self, kind: str, sorts: object) -> str:
        if not isinstance(sorts, list):
            _refuse_type("sorts", "ArrayList", sorts)
        if not sorts:
            return "id"
        if len(sorts) > 1:
            _refuse("Only one sort is supported per search request")
        rule = sorts[0]
        if isinstance(rule, str):
            name, direction = rule.lstrip("-"), "DESCENDING" if rule.startswith("-") else "ASCENDING"
        else:
            _only(rule, {"propertyName", "direction"}, "sorts")
            name, direction = rule.get("propertyName"), rule.get("direction", "ASCENDING")
        if name not in self._known(kind):
            _refuse(f"There was a problem with the request. Property '{name}' does not exist")
        if direction not in ("ASCENDING", "DESCENDING"):
            _refuse(f"Invalid sort direction {direction}")
        word = "desc" if direction == "DESCENDING" else "asc"
        return f"{self._expression(kind, name)[0]} {word}, id {word}"

    def _definitions(self) -> list[dict[str, Any]]:
        return [orjson.loads(row["body"]) for row in self.store.all("select body from hubspot_definitions order by id")]

    def _statuses(self, emails: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        definitions = self._definitions()
        marks = ", ".join("?" * len(emails))
        known = {
            (row["email"], row["subscription_id"]): row
            for row in self.store.all(f"select * from hubspot_statuses where email in ({marks})", *emails)
        }
        result: dict[str, list[dict[str, Any]]] = {}
        for email in emails:
            result[email] = []
            for definition in definitions:
                row = known.get((email, str(definition["id"])))
                result[email].append(
                    {
                        "businessUnitId": 0,
                        "channel": "EMAIL",
                        "subscriberIdString": email,
                        "subscriptionId": int(definition["id"]),
                        "subscriptionName": definition["name"],
                        "status": row["status"] if row else "NOT_SPECIFIED",
                        "source": "Form" if row else "",
                        "legalBasis": None,
                        "legalBasisExplanation": None,
                        "setStatusSuccessReason": None,
                        "timestamp": row["changed_at"] if row else None,
                    }
                )
        return result

    def _wide(self, emails: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        marks = ", ".join("?" * len(emails))
        out = {
            row["email"]: row["updated_at"]
            for row in self.store.all(
                f"select email, updated_at from hubspot_objects where type = 'contacts' and email in ({marks}) "
                "and json_extract(properties, '$.hs_email_optout') = 'true'",
                *emails,
            )
        }
        return {
            email: [
                {
                    "subscriberIdString": email,
                    "channel": "EMAIL",
                    "wideStatusType": "PORTAL_WIDE",
                    "status": "UNSUBSCRIBED",
                    "businessUnitId": 0,
                    "timestamp": out[email],
                }
            ]
            if email in out
            else []
            for email in emails
        }

    def _emails(self, call: Call) -> list[str]:
        body = _json(call, {"inputs"})
        inputs = body.get("inputs")
        if not isinstance(inputs, list) or not inputs:
            _refuse("Some required fields were not set: [inputs]")
        if len(inputs) > BATCH_MAX:
            _refuse(f"The maximum number of inputs in a batch request is {BATCH_MAX}, got {len(inputs)}")
        for value in inputs:
            if not isinstance(value, str):
                _refuse_type("inputs", "String", value)
        call.rows = len(inputs)
        return [_address(value) for value in inputs]


# small answers and checks


def _problem(status: int, message: str, *, category: str, **more: Any) -> Answer:
    body = {"status": "error", "message": message, "correlationId": str(uuid.uuid4()), "category": category, **more}
    return Answer(status, body)


def _refuse(message: str) -> NoReturn:
    raise Refusal(_problem(400, message, category="VALIDATION_ERROR"))


def _refuse_type(name: str, expected: str, got: object) -> NoReturn:
    _refuse(
        f"Invalid input JSON on line 1, column 1: Cannot deserialize value of type `{expected}` from "
        f"{type(got).__name__} value (field '{name}')"
    )


def _too_many(word: str, policy: str) -> Answer:
    return Answer(
        429,
        {
            "status": "error",
            "message": f"You have reached your {word} limit.",
            "errorType": "RATE_LIMIT",
            "correlationId": str(uuid.uuid4()),
            "policyName": policy,
            "requestId": str(uuid.uuid4()),
        },
    )


def _missing_scope(scope: str) -> Answer:
    return _problem(
        403,
        "This app hasn't been granted all required scopes to make this call. Read more about required scopes here: "
        "https://developers.hubspot.com/scopes.",
        category="MISSING_SCOPES",
        errors=[
            {
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": [scope]},
            }
        ],
        links={"scopes": "https://developers.hubspot.com/scopes"},
    )


def _bearer(call: Call) -> str:
    kind, _, token = call.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _looks_like_key(token: str) -> bool:
    parts = token.split("-", 2)
    return len(parts) == 3 and parts[0] == "pat" and bool(parts[1]) and len(parts[2]) >= 4 and token.isascii()


def _kind(name: str) -> str:
    if name not in _ALIASES:
        _refuse(f"Unable to infer object type from: {name}")
    return _ALIASES[name]


def _stamps(kind: str) -> tuple[str, str]:
    return ("createdate", "lastmodifieddate") if kind == "contacts" else ("hs_createdate", "hs_lastmodifieddate")


def _type(name: str) -> str:
    if name.endswith(("createdate", "modifieddate", "_date")):
        return "datetime"
    return "number" if name in _NUMBERS or name == "hs_object_id" else "string"


def _params(call: Call, allowed: set[str]) -> dict[str, str]:
    for name in call.params:
        if name not in allowed:
            _refuse(f"Query parameter '{name}' is not supported by this endpoint")
    return call.params


def _names(call: Call, name: str) -> list[str]:
    return [part.strip() for key, value in call.pairs if key == name for part in value.split(",") if part.strip()]


def _integer(text: str, name: str, low: int, high: int | None) -> int:
    if not text.isdigit():
        _refuse(f"{name} must be an integer, got '{text}'")
    number = int(text)
    if number < low or (high is not None and number > high):
        _refuse(f"{name} must be between {low} and {high}, got {number}")
    return number


def _boolean(text: str, name: str) -> int:
    if text not in ("true", "false"):
        _refuse(f"{name} must be true or false, got '{text}'")
    return int(text == "true")


def _json(call: Call, allowed: set[str]) -> dict[str, Any]:
    if call.media_type != "application/json":
        raise Refusal(
            _problem(415, f"Content-Type {call.media_type or 'none'} is not supported", category="VALIDATION_ERROR")
        )
    try:
        body = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        _refuse("Invalid input JSON on line 1, column 1: the body is not JSON")
    _only(body, allowed, "body")
    return dict(body)


def _only(value: object, allowed: set[str], where: str) -> None:
    if not isinstance(value, dict):
        _refuse_type(where, "Object", value)
    for name in value:
        if name not in allowed:
            _refuse(f'Invalid input JSON on line 1, column 1: Unrecognized field "{name}" in {where}, not ignorable')


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    values = body.get(name, [])
    if not isinstance(values, list):
        _refuse_type(name, "ArrayList", values)
    for value in values:
        if not isinstance(value, str):
            _refuse_type(name, "String", value)
    return list(values)


def _inputs(body: Mapping[str, Any], most: int, *, numbers: bool = False, extra: Iterable[str] = ()) -> list[str]:
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        _refuse("Some required fields were not set: [inputs]")
    if len(inputs) > most:
        _refuse(f"The maximum number of inputs in a batch request is {most}, got {len(inputs)}")
    ids = []
    for one in inputs:
        _only(one, {"id", *extra}, "inputs")
        value = one.get("id")
        if numbers and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value:
            _refuse_type("id", "String", value)
        if numbers and not value.isdigit():
            _refuse(f"Invalid object id {value}")
        ids.append(value)
    if len(set(ids)) != len(ids):
        _refuse("Duplicate IDs found in batch input: each id may be given once")
    return ids


def _link(style: str, kind: str, to_kind: str, other: int) -> dict[str, Any]:
    if style == "v3":
        return {"id": str(other), "type": f"{OBJECT_TYPES[kind][0]}_to_{OBJECT_TYPES[to_kind][0]}"}
    type_id = ASSOCIATION_TYPE_IDS.get((kind, to_kind), 0)
    return {
        "toObjectId": other if style == "v4" else str(other),
        "associationTypes": [{"category": "HUBSPOT_DEFINED", "typeId": type_id, "label": None}],
    }


def _channel(call: Call) -> None:
    params = _params(call, {"channel", "businessUnitId"})
    if params.get("channel") != "EMAIL":
        _refuse("Required query parameter 'channel' must be EMAIL")


def _address(text: str) -> str:
    address = text.strip().lower()
    local, at, domain = address.rpartition("@")
    if not at or not local or "." not in domain or " " in address:
        _refuse("Email address is invalid")
    return address


def _cursor(text: str) -> tuple[int, str]:
    try:
        created, _, event_id = base64.urlsafe_b64decode(text.encode()).decode().partition("|")
        return int(created), event_id
    except (binascii.Error, ValueError, UnicodeError):
        _refuse("offset is not one this endpoint gave out")


# seeds and changes


def load_seed(store: Store, folder: Path, now: float) -> None:
    """Replace everything by the seed files; all of it is indexed at once."""
    for table in ("objects", "properties", "associations", "definitions", "statuses", "events"):
        store.run(f"delete from hubspot_{table}")
    for kind in OBJECT_TYPES:
        put_objects(store, kind, seed_rows(folder / f"{kind}.jsonl"), indexed_at=0.0, now=now)
    put_associations(store, seed_rows(folder / "associations.jsonl"))
    store.many(
        "insert or replace into hubspot_definitions values (?, ?)",
        (
            (
                str(row["id"]),
                json.dumps(
                    {"isActive": True, "isDefault": False, "isInternal": False, "businessUnitId": 0, **row}
                ).encode(),
            )
            for row in seed_rows(folder / "subscription_definitions.jsonl")
        ),
    )
    put_statuses(store, seed_rows(folder / "subscription_statuses.jsonl"))
    put_events(store, seed_rows(folder / "email_events.jsonl"))


def put_objects(store: Store, kind: str, rows: Iterable[Mapping[str, Any]], *, indexed_at: float, now: float) -> int:
    """Insert or replace records in the shape of the seed files; returns how many."""
    names: set[str] = set()
    count = 0

    def values() -> Iterator[tuple[Any, ...]]:
        nonlocal count
        for row in rows:
            count += 1
            properties = row.get("properties", {})
            names.update(properties)
            created_name, modified_name = _stamps(kind)
            created = row.get("createdAt") or properties.get(created_name) or iso(now)
            updated = row.get("updatedAt") or properties.get(modified_name) or created
            email = properties.get("email")
            archived = bool(row.get("archived", False))
            yield (
                kind, int(row["id"]), int(archived), email.strip().lower() if email else None,
                milliseconds(created), milliseconds(updated), indexed_at, created, updated,
                row.get("archivedAt", updated) if archived else None, orjson.dumps(properties),
            )  # fmt: skip

    marks = ", ".join("?" * 11)
    store.many(f"insert or replace into hubspot_objects values ({marks})", values())
    store.many("insert or ignore into hubspot_properties values (?, ?)", [(kind, name) for name in sorted(names)])
    store.run("insert or replace into meta values ('hubspot_properties', ?)", str(uuid.uuid4()))
    return count


def put_associations(store: Store, rows: Iterable[Mapping[str, Any]]) -> int:
    """Add links, readable from both ends; returns how many."""
    links = [(row["from_type"], int(row["from_id"]), row["to_type"], int(row["to_id"])) for row in rows]
    store.many("insert or ignore into hubspot_associations values (?, ?, ?, ?)", links)
    store.many("insert or ignore into hubspot_associations values (?, ?, ?, ?)", [(c, d, a, b) for a, b, c, d in links])
    return len(links)


def put_statuses(store: Store, rows: Iterable[Mapping[str, Any]]) -> int:
    """Set people's answers to subscription types; returns how many."""
    values = [
        (row["email"].strip().lower(), str(row["subscriptionId"]), row["status"], row.get("timestamp")) for row in rows
    ]
    store.many("insert or replace into hubspot_statuses values (?, ?, ?, ?)", values)
    return len(values)


def put_events(store: Store, rows: Iterable[Mapping[str, Any]]) -> int:
    """Add e-mail events; returns how many."""
    values = [
        (
            int(row["created"]), str(row["id"]), str(row["recipient"]).lower(), str(row.get("emailCampaignId", "")),
            row["type"], orjson.dumps({"portalId": 62515, "appName": "Batch", **row}),
        )
        for row in rows
    ]  # fmt: skip
    store.many("insert or replace into hubspot_events values (?, ?, ?, ?, ?, ?)", values)
    return len(values)
