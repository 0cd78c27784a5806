"""Mailchimp's side: tags, statuses and problem documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from include.connections import Connection
from include.destinations.base import Member
from tests.include.destinations.running_sandbox import Entry
from tests.include.destinations.sides import LABEL, TOLD, BaseSide

LIST = "a1b2c3d4e5"
KEY = "0123456789abcdef0123456789abcdef-us6"


class Side(BaseSide):
    """One audience called Newsletter."""

    platform = "mailchimp"
    options = {"audience": "Newsletter"}
    unknown_list = f"{LIST}/999999"

    def prepare(self) -> None:
        self.sandbox.control("mailchimp", {"lists": [{"id": LIST, "name": "Newsletter"}]})

    def connection(self) -> Connection:
        return Connection("mailchimp_default", host=f"{self.sandbox.url}/mailchimp", password=KEY)

    def people(self, count: int) -> list[Member]:
        return [person(f"person{i}@shop.example", CART_URL=f"https://shop.example/{i}") for i in range(count)]

    def bad_person(self) -> Member:
        return person("bad.row@")

    def say_no(self) -> list[Member]:
        ways = ("unsubscribed", "cleaned", "archived", "pending")
        people = {way: f"{way}@shop.example" for way in ways}
        members = [{"list_id": LIST, "email_address": address} for address in people.values()]
        actions = [{"list_id": LIST, "email": address, "status": way} for way, address in people.items()]
        self.sandbox.control("mailchimp", {"members": members})
        self.sandbox.control("mailchimp", {"actions": actions})
        return [person(address) for address in people.values()]

    def remember_in_capitals(self, members: Sequence[Member]) -> None:
        known = [{"list_id": LIST, "email_address": one.member_key.upper()} for one in members]
        self.sandbox.control("mailchimp", {"members": known})

    def lose_list(self, label: str = LABEL) -> None:
        self.sandbox.app.store.run("delete from mailchimp_segments where name = ?", label)

    def statuses(self) -> dict[str, str]:
        rows = self.sandbox.app.store.all("select email, status from mailchimp_members")
        return {row["email"].lower(): row["status"] for row in rows}

    def on_list(self, label: str = LABEL) -> set[str]:
        lists = [one for one in self.sandbox.get("lists") if one["platform"] == "mailchimp"]
        return {email.lower() for one in lists if one["audience"] == label for email in one["members"]}

    def is_list_write(self, entry: Entry) -> bool:
        people = re.fullmatch(r"/lists/\w+(/segments/\d+|/members.*)?(\?.*)?", entry.path)
        return entry.is_write and people is not None

    @property
    def write_route(self) -> str:
        return f"^POST /lists/{LIST}$"

    @property
    def unauthorized(self) -> dict[str, Any]:
        return _problem(401, "API Key Invalid", "Your API key may be invalid.")

    @property
    def throttled(self) -> dict[str, Any]:
        return _problem(429, "Too Many Requests", "slow down") | {"headers": {"Retry-After": f"{TOLD:.0f}"}}

    def refusing(self, member: Member) -> dict[str, Any]:
        return _problem(400, "Invalid Resource", f"{member.identifiers['email'][0]} looks fake or invalid.")


def person(address: str, **fields: str | None) -> Member:
    return Member(address, {"email": [address]}, fields)


def _problem(status: int, title: str, detail: str) -> dict[str, Any]:
    return {"kind": "status", "code": status, "body": {"title": title, "status": status, "detail": detail}}
