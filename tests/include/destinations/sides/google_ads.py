"""Google's side: Customer Match lists of hashes, behind the Data Manager API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from include.connections import Connection
from include.destinations.base import Member
from include.identity.hashing import google_email_sha256
from tests.include.destinations.running_sandbox import Entry
from tests.include.destinations.sides import LABEL, TOLD, BaseSide


class Side(BaseSide):
    """One Google Ads account under a manager account."""

    platform = "datamanager"
    unknown_list = "999999"
    asks_again_on_401 = 2  # google-auth renews the token and asks again, twice (2026-11)

    def connection(self) -> Connection:
        return Connection(
            "google_ads_default",
            host=f"{self.sandbox.url}/datamanager",
            extra={
                "customer_id": "444-555-6666", "login_customer_id": "111-222-3333", "refresh_token": "refresh-secret",
                "client_id": "client", "client_secret": "client-secret", "requests_per_minute": 0,
                "token_uri": f"{self.sandbox.url}/datamanager/token",
            },
        )  # fmt: skip

    def people(self, count: int) -> list[Member]:
        return [person(google_email_sha256(f"person{i}@shop.example")) for i in range(count)]

    def bad_person(self) -> Member:
        return person("not a hash")

    def say_no(self) -> list[Member]:
        return []  # consent is kept by the shop; Google holds hashes only

    def remember_in_capitals(self, members: Sequence[Member]) -> None:
        pass  # it holds hashes only, and tells none

    def lose_list(self, label: str = LABEL) -> None:
        self.sandbox.app.store.run("delete from datamanager_lists where display_name = ?", label)

    def statuses(self) -> dict[str, str]:
        return {}

    def on_list(self, label: str = LABEL) -> set[str]:
        lists = [one for one in self.sandbox.get("lists") if one["platform"] == "datamanager"]
        return {value for one in lists if one["audience"] == label for value in one["members"]}

    def is_list_write(self, entry: Entry) -> bool:
        return "audienceMembers:" in entry.path

    def is_login(self, entry: Entry) -> bool:
        return entry.path.startswith("/token")

    @property
    def write_route(self) -> str:
        return "audienceMembers:"

    @property
    def api_route(self) -> str:
        return " /v1/"

    @property
    def unauthorized(self) -> dict[str, Any]:
        return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")

    @property
    def throttled(self) -> dict[str, Any]:
        retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{TOLD:.0f}s"}
        return _error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", _QUOTA, retry)

    def throttled_until(self, moment: datetime) -> dict[str, Any]:
        fault = _error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", _QUOTA)
        return {**fault, "headers": {"Retry-After": format_datetime(moment, usegmt=True)}}

    def refusing(self, member: Member) -> dict[str, Any]:
        return _error(400, "INVALID_ARGUMENT", f"There was a problem with {member.member_key}.")


_QUOTA = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RESOURCE_EXHAUSTED",
    "domain": "datamanager.googleapis.com", "metadata": {"quota_limit": "IngestionMutateRequestsPerMinutePerProject"},
}  # fmt: skip


def person(email_hash: str) -> Member:
    return Member(email_hash, {"google_email_sha256": [email_hash]}, {})


def _error(status: int, word: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    body = {"error": {"code": status, "status": word, "message": message, "details": details}}
    return {"kind": "status", "code": status, "body": body}
