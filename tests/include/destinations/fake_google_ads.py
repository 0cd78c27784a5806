"""Just enough of Google's Data Manager for the tests, from the vendor facts: user lists, ingest, remove, status."""

from __future__ import annotations

import re
from typing import Any

from include.connections import Connection
from include.destinations.base import Member
from tests.include.destinations.local_server import LocalServer, Reply, Request

CUSTOMER = "4445556666"


def error(status: int, word: str, *details: dict[str, Any]) -> Reply:
    return Reply(
        status, {"error": {"code": status, "status": word, "message": "There was a problem.", "details": details}}
    )


def violation(field: str, reason: str) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": field, "description": "wrong", "reason": reason}],
    }


def quota(limit: str, delay: str | None = None) -> Reply:
    details: list[dict[str, Any]] = [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RESOURCE_EXHAUSTED",
         "domain": "datamanager.googleapis.com", "metadata": {"quota_limit": limit}}
    ]  # fmt: skip
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return error(429, "RESOURCE_EXHAUSTED", *details)


class Platform(LocalServer):
    """One account. `requests` is request id -> what `requestStatus:retrieve` answers for it."""

    options: dict[str, object] = {}
    throttled = quota("IngestionMutateRequestsPerMinutePerProject", "7s")
    unauthorized = error(401, "UNAUTHENTICATED")

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[str, dict[str, Any]] = {}
        self.members: dict[str, set[str]] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.token_ok = True
        self.login_faults: list[Reply] = []

    def connection(self) -> Connection:
        return Connection(
            "google_ads_default",
            host=f"{self.url}/datamanager",
            extra={
                "customer_id": "444-555-6666", "login_customer_id": "111-222-3333", "refresh_token": "refresh-secret",
                "client_id": "client", "client_secret": "client-secret", "token_uri": f"{self.url}/token",
            },
        )  # fmt: skip

    def opt_in_state(self) -> dict[str, str]:
        return {}

    def on_list(self) -> set[str]:
        return set().union(*self.members.values())

    def is_api(self, request: Request) -> bool:
        return request.path != "/token"

    def handle(self, request: Request) -> Reply:
        if request.path == "/token":
            if self.login_faults:
                return self.login_faults.pop()
            if not self.token_ok:
                return Reply(400, {"error": "invalid_grant", "error_description": "revoked"})
            return Reply(200, {"access_token": "access-secret", "expires_in": 3600, "token_type": "Bearer"})
        if request.headers.get("authorization") != "Bearer access-secret":
            return error(401, "UNAUTHENTICATED")
        path = request.path.removeprefix("/datamanager/v1/")
        if path == f"accountTypes/GOOGLE_ADS/accounts/{CUSTOMER}/userLists":
            return self.user_lists(request)
        one = re.fullmatch(rf"accountTypes/GOOGLE_ADS/accounts/{CUSTOMER}/userLists/(\d+)", path)
        if one and one[1] in self.lists:
            if request.method == "PATCH":
                names = [
                    re.sub("_(.)", lambda found: found[1].upper(), part)
                    for part in request.query["updateMask"].split(",")
                ]
                self.lists[one[1]].update({name: request.body[name] for name in names})
            return Reply(200, self.lists[one[1]])
        if path in ("audienceMembers:ingest", "audienceMembers:remove"):
            return self.change_members(path, request.body)
        if path == "requestStatus:retrieve":
            known = self.requests.get(request.query["requestId"])
            if known is None:
                return error(400, "INVALID_ARGUMENT", violation("request_id", "INVALID_REQUEST_ID"))
            return Reply(200, {"requestStatusPerDestination": [known]})
        return error(404, "NOT_FOUND")

    def user_lists(self, request: Request) -> Reply:
        if request.method == "GET":
            wanted = re.fullmatch(r'display_name = "(.*)"', request.query.get("filter", ""))
            name = re.sub(r"\\(.)", r"\1", wanted[1]) if wanted else None
            found = [item for item in self.lists.values() if name is None or item["displayName"] == name]
            return Reply(200, {"userLists": found})
        key = str(42 + len(self.lists))
        name = f"accountTypes/GOOGLE_ADS/accounts/{CUSTOMER}/userLists/{key}"
        self.lists[key] = {**request.body, "name": name, "id": key, "accessReason": "OWNED"}
        self.members[key] = set()
        return Reply(200, self.lists[key])

    def change_members(self, path: str, body: dict[str, Any]) -> Reply:
        list_id = body["destinations"][0]["productDestinationId"]
        if list_id not in self.lists:
            return error(
                400, "INVALID_ARGUMENT", violation("destinations[0].product_destination_id", "INVALID_USER_LIST_ID")
            )
        if len(body["audienceMembers"]) > 10_000:
            return error(400, "INVALID_ARGUMENT", violation("audience_members", "TOO_MANY_AUDIENCE_MEMBERS"))
        keys = []
        for i, member in enumerate(body["audienceMembers"]):
            for j, identifier in enumerate(member["userData"]["userIdentifiers"]):
                value = next(iter(identifier.values()))
                if not re.fullmatch(r"[0-9a-f]{64}", value):  # one bad member fails the whole request
                    field = f"audience_members[{i}].user_data.user_identifiers[{j}].email_address"
                    return error(400, "INVALID_ARGUMENT", violation(field, "INVALID_SHA256_FORMAT"))
                keys.append(value)
        if path.endswith("ingest"):
            self.members[list_id].update(keys)
        else:
            self.members[list_id].difference_update(keys)
        request_id = f"request-{len(self.requests) + 1}"
        self.requests[request_id] = status(path.removeprefix("audienceMembers:"), len(body["audienceMembers"]))
        return Reply(200, {"requestId": request_id})


def status(verb: str, rows: int, word: str = "SUCCESS", **errors: int) -> dict[str, Any]:
    """A status as the vendor tells it; `errors` are counts by reason."""
    kind, part = {
        "ingest": ("audienceMembersIngestionStatus", "userDataIngestionStatus"),
        "remove": ("audienceMembersRemovalStatus", "userDataRemovalStatus"),
    }[verb]
    found: dict[str, Any] = {"requestStatus": word, kind: {part: {"recordCount": str(rows)}}}
    if errors:
        found["errorInfo"] = {
            "errorCounts": [
                {"reason": f"PROCESSING_ERROR_REASON_{reason}", "recordCount": str(count)}
                for reason, count in errors.items()
            ]
        }
    return found


def person(email_hash: str, *phone_hashes: str) -> Member:
    identifiers = {"google_email_sha256": [email_hash], "google_phone_sha256": list(phone_hashes)}
    return Member(email_hash, {kind: values for kind, values in identifiers.items() if values}, {})
