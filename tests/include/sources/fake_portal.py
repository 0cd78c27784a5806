"""A HubSpot portal at the HTTP transport, written from what the vendor documents (2026-11), not from our client.

What it refuses: pages over 100, search pages over 200, paging beyond 10,000, batches over 100 (associations 1,000).
Archived records are only in the `archived=true` list. A record is in the search index from `indexed_from` on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

CONTACT_DATE, OTHER_DATE = "lastmodifieddate", "hs_lastmodifieddate"
V = "2026-09"


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


class Portal:
    """`now` is the portal's clock in ISO; requests are kept in `calls` as (method, path)."""

    def __init__(self, now: str = "2026-11-24T10:00:00Z") -> None:
        self.now = now
        self.records: dict[str, dict[str, dict[str, Any]]] = {
            kind: {} for kind in ("contacts", "orders", "carts", "line_items")
        }
        self.links: dict[tuple[str, str], dict[str, list[str]]] = {}
        self.statuses: dict[str, list[dict[str, Any]]] = {}
        self.definitions = [{"id": "1", "name": "Newsletter", "isActive": True, "isInternal": False}]
        self.events: list[dict[str, Any]] = []
        self.calls: list[tuple[str, str]] = []
        self.scripted: list[httpx.Response | Exception] = []
        self.missing_scopes: dict[str, str] = {}
        self.after_search: Callable[[int], None] | None = None
        self.embeds_associations = True
        self.searches = 0

    def put(self, kind: str, record_id: str, modified: str, **properties: str | None) -> None:
        stamp = CONTACT_DATE if kind == "contacts" else OTHER_DATE
        created = {"contacts": "createdate"}.get(kind, "hs_createdate")
        old = self.records[kind].get(record_id, {"properties": {created: "2026-01-01T00:00:00.000Z"}})
        self.records[kind][record_id] = {
            "id": record_id,
            "properties": {**old["properties"], **properties, stamp: modified},
            "createdAt": old["properties"][created],
            "updatedAt": modified,
            "archived": False,
        }

    def archive(self, kind: str, record_id: str, at: str) -> None:
        self.records[kind][record_id] |= {"archived": True, "archivedAt": at}

    def link(self, kind: str, record_id: str, to_kind: str, *others: str) -> None:
        self.links.setdefault((kind, to_kind), {}).setdefault(record_id, []).extend(others)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append((request.method, path))
        if self.scripted:
            answer = self.scripted.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if request.headers.get("Authorization") != "Bearer pat-na1-secret":
            return self._problem(401, category="INVALID_AUTHENTICATION")
        for part, scope in self.missing_scopes.items():
            if part in path:
                errors = [{"message": "no", "context": {"requiredGranularScopes": [scope]}}]
                return self._problem(403, category="MISSING_SCOPES", errors=errors)
        answer = self._route(request.method, path, dict(request.url.params), request.content)
        answer.headers["Date"] = datetime.fromisoformat(self.now).strftime("%a, %d %b %Y %H:%M:%S GMT")
        return answer

    def _problem(self, status: int, message: str = "", **fields: Any) -> httpx.Response:
        return httpx.Response(status, json={"status": "error", "message": message, **fields})

    def _route(self, method: str, path: str, params: dict[str, str], content: bytes) -> httpx.Response:
        body = json.loads(content) if content else {}
        parts = path.strip("/").split("/")
        if method == "GET" and parts[:3] == ["crm", "objects", V] and len(parts) == 4:
            return self._list(parts[3], params)
        if method == "POST" and parts[-1] == "search":
            return self._search(parts[3], body)
        if method == "POST" and parts[:3] == ["crm", "associations", V]:
            return self._associations(parts[3], parts[4], body)
        if method == "POST" and parts[:3] == ["crm", "objects", V] and parts[4:] == ["batch", "read"]:
            return self._batch(parts[3], body)
        if path == f"/communication-preferences/{V}/definitions":
            return httpx.Response(200, json={"status": "COMPLETE", "results": self.definitions})
        if path == f"/communication-preferences/{V}/statuses/batch/read":
            return self._statuses(params, body)
        if path == "/email/public/v1/events":
            return self._events(params)
        return httpx.Response(404, text="<html>not found</html>")

    def _shown(self, kind: str, record: dict[str, Any], names: list[str]) -> dict[str, Any]:
        always = ["createdate", CONTACT_DATE] if kind == "contacts" else ["hs_createdate", OTHER_DATE]
        return record | {"properties": {name: record["properties"].get(name) for name in [*names, *always]}}

    def _list(self, kind: str, params: dict[str, str]) -> httpx.Response:
        limit = int(params.get("limit", "10"))
        if limit > 100:
            return self._problem(400, category="VALIDATION_ERROR")
        archived = params.get("archived") == "true"
        ids = sorted((int(i) for i, r in self.records[kind].items() if r["archived"] == archived))
        rest = [i for i in ids if i > int(params.get("after", "0"))]
        names = params.get("properties", "").split(",")
        results = []
        for record_id in map(str, rest[:limit]):
            record = self._shown(kind, self.records[kind][record_id], names)
            for to_kind in params.get("associations", "").split(",") if self.embeds_associations else []:
                others = self.links.get((kind, to_kind), {}).get(record_id)
                if others:
                    listed = {"results": [{"id": other, "type": "x"} for other in others]}
                    record.setdefault("associations", {})[to_kind.replace("_", " ")] = listed
            results.append(record)
        page: dict[str, Any] = {"results": results}
        if len(rest) > limit:
            page["paging"] = {"next": {"after": str(rest[limit - 1])}}
        return httpx.Response(200, json=page)

    def _search(self, kind: str, body: dict[str, Any]) -> httpx.Response:
        limit, after = body.get("limit", 10), int(body.get("after", "0"))
        if limit > 200 or after + limit > 10_000 or len(body["filterGroups"]) > 5 or len(body.get("sorts", [])) > 1:
            return self._problem(400, category="VALIDATION_ERROR")
        stamp = CONTACT_DATE if kind == "contacts" else OTHER_DATE
        (condition,) = body["filterGroups"][0]["filters"]
        if condition["propertyName"] != stamp or condition["operator"] != "GTE":
            return self._problem(400, category="VALIDATION_ERROR")
        found = [
            record
            for record in self.records[kind].values()
            if not record["archived"]
            and ms(record["properties"][stamp]) >= int(condition["value"])
            and record.get("indexed_from", "") <= self.now
        ]
        found.sort(key=lambda record: (ms(record["properties"][stamp]), int(record["id"])))
        results = [self._shown(kind, record, body["properties"]) for record in found[after : after + limit]]
        page: dict[str, Any] = {"total": len(found), "results": results}
        if after + limit < len(found):
            page["paging"] = {"next": {"after": str(after + limit)}}
        self.searches += 1
        answer = httpx.Response(200, json=page)
        if self.after_search:
            self.after_search(self.searches)
        return answer

    def _associations(self, kind: str, to_kind: str, body: dict[str, Any]) -> httpx.Response:
        ids = [one["id"] for one in body["inputs"]]
        if len(ids) > 1000:
            return self._problem(400, category="VALIDATION_ERROR")
        links = self.links.get((kind, to_kind), {})
        results = [
            {"from": {"id": i}, "to": [{"toObjectId": int(other), "associationTypes": []} for other in links[i]]}
            for i in ids
            if i in links
        ]
        lonely = [i for i in ids if i not in links]
        page: dict[str, Any] = {"status": "COMPLETE", "results": results}
        if lonely:
            page |= {"numErrors": len(lonely), "errors": [{"status": "error", "category": "OBJECT_NOT_FOUND"}]}
        return httpx.Response(207 if lonely else 200, json=page)

    def _batch(self, kind: str, body: dict[str, Any]) -> httpx.Response:
        ids = [one["id"] for one in body["inputs"]]
        if len(ids) > 100 or len(set(ids)) < len(ids):
            return self._problem(400, category="VALIDATION_ERROR")
        found = [self.records[kind][i] for i in reversed(ids) if i in self.records[kind]]
        results = [self._shown(kind, record, body["properties"]) for record in found]
        return httpx.Response(200 if len(found) == len(ids) else 207, json={"status": "COMPLETE", "results": results})

    def _statuses(self, params: dict[str, str], body: dict[str, Any]) -> httpx.Response:
        if params.get("channel") != "EMAIL" or len(body["inputs"]) > 100:
            return self._problem(400, category="VALIDATION_ERROR")
        if any("@" not in email or email != email.lower() for email in body["inputs"]):
            return self._problem(400, "Email address is invalid", category="VALIDATION_ERROR")
        results = [{"subscriberIdString": email, "statuses": self.statuses.get(email, [])} for email in body["inputs"]]
        return httpx.Response(200, json={"status": "COMPLETE", "results": results})

    def say(self, email: str, status: str, at: str | None, subscription: int = 1) -> None:
        self.statuses.setdefault(email, []).append(
            {
                "subscriberIdString": email,
                "subscriptionId": subscription,
                "status": status,
                "timestamp": at,
                "channel": "EMAIL",
            }
        )

    def _events(self, params: dict[str, str]) -> httpx.Response:
        limit, offset = int(params.get("limit", "10")), int(params.get("offset") or 0)
        if limit > 1000:
            return self._problem(400, category="VALIDATION_ERROR")
        start, end = int(params["startTimestamp"]), int(params["endTimestamp"])
        found = sorted((e for e in self.events if start <= e["created"] < end), key=lambda e: -e["created"])
        more = offset + limit < len(found)
        return httpx.Response(
            200, json={"events": found[offset : offset + limit], "hasMore": more, "offset": str(offset + limit)}
        )
