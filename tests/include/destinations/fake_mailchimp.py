"""Just enough of Mailchimp for the tests, from the vendor facts: batch upsert, tags, members, merge fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from include.connections import Connection
from include.destinations.base import Member
from include.identity import email_md5
from tests.include.destinations.local_server import LocalServer, Reply, Request

KEY = "0123456789abcdef0123456789abcdef-us6"
LIST = "a1b2c3d4e5"
LABEL = "Cart abandoners"


def problem(status: int, title: str, detail: str) -> Reply:
    return Reply(status, {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": "x"})


class Platform(LocalServer):
    """One list called Newsletter. `members` is address -> {status, merge_fields, tags, last_changed}."""

    options: dict[str, object] = {"audience": "Newsletter"}
    throttled = Reply(429, {"type": "x", "title": "Too Many Requests", "status": 429, "detail": "slow"}, ())
    unauthorized = Reply(401, {"type": "x", "title": "API Key Invalid", "status": 401, "detail": "bad key"})

    def __init__(self) -> None:
        super().__init__()
        self.lists = {LIST: "Newsletter"}
        self.members: dict[str, dict[str, Any]] = {}
        self.segments: dict[int, str] = {}
        self.merge_fields = {"FNAME", "LNAME"}
        self.forgotten: set[str] = set()
        self.knows_status_if_new = True
        self.tags_in_batch = True
        self.tells_who_is_not_there = False  # whether a segment call has errors for them, which is not documented

    def connection(self) -> Connection:
        return Connection("mailchimp_default", host=f"{self.url}/mailchimp", password=KEY)

    def opt_in_state(self) -> dict[str, str]:
        return {address: member["status"] for address, member in self.members.items()}

    def on_list(self) -> set[str]:
        return {address for address, member in self.members.items() if LABEL in member["tags"]}

    def list_writes(self) -> list[Request]:
        writes = re.compile(r".*/lists/\w+(/segments/\d+)?")
        return [call for call in self.journal if call.method == "POST" and writes.fullmatch(call.path)]

    def put(
        self, address: str, status: str, tags: Sequence[str] = (), changed: str = "2026-03-01T10:00:00+00:00"
    ) -> None:
        self.members[address] = {
            "email_address": address, "status": status, "merge_fields": {}, "tags": list(tags), "last_changed": changed,
        }  # fmt: skip

    def handle(self, request: Request) -> Reply:
        if not request.path.startswith("/mailchimp/3.0/"):
            return problem(404, "Resource Not Found", "no such path")
        path = request.path.removeprefix("/mailchimp/3.0")
        where = f"{request.method} {path}"
        if where == "GET /ping":
            return Reply(200, {"health_status": "Everything's Chimpy!"})
        if where == "GET /lists":
            return self.page(request, "lists", [{"id": key, "name": name} for key, name in self.lists.items()])
        found = re.fullmatch(r"/lists/(\w+)(/.*)?", path)
        if not found or found[1] not in self.lists:
            return problem(404, "Resource Not Found", "no such list")
        rest = f"{request.method} {found[2] or ''}"
        if rest == "POST ":
            return self.upsert(request)
        if rest == "GET /merge-fields":
            return self.page(request, "merge_fields", [{"tag": tag} for tag in sorted(self.merge_fields)])
        if rest == "POST /merge-fields":
            self.merge_fields.add(request.body["tag"])
            return Reply(200, {"merge_id": len(self.merge_fields), **request.body})
        if rest == "GET /segments":
            return self.page(request, "segments", [{"id": key, "name": name} for key, name in self.segments.items()])
        if rest == "POST /segments":
            if request.body["name"] in self.segments.values():
                return problem(400, "Bad Request", "Tag already exists")
            self.segments[49377 + len(self.segments)] = request.body["name"]
            return Reply(200, {"id": max(self.segments), "name": request.body["name"], "type": "static"})
        if rest == "GET /members":
            return self.changed_members(request)
        if request.method == "PUT" and (one := re.fullmatch(r"/members/([0-9a-f]{32})", found[2])):
            return self.put_member(one[1], request)
        if request.method == "GET" and (one := re.fullmatch(r"/members/([0-9a-f]{32})", found[2])):
            for address, member in self.members.items():
                if email_md5(address) == one[1]:
                    tags = [{"id": 1, "name": tag} for tag in member["tags"]]
                    return Reply(200, {**member, "tags": tags[:50], "tags_count": len(tags)})
            return problem(404, "Resource Not Found", "The requested resource could not be found.")
        gone = re.fullmatch(r"/members/([0-9a-f]{32})/actions/delete-permanent", found[2])
        if request.method == "POST" and gone:
            for address in [one for one in self.members if email_md5(one) == gone[1]]:
                del self.members[address]
                self.forgotten.add(address)
            return Reply(204)
        segment = re.fullmatch(r"/segments/(\d+)(/members)?", found[2])
        if segment and int(segment[1]) in self.segments:
            name = self.segments[int(segment[1])]
            if segment[2]:
                flags = {"unsubscribed", "cleaned", "transactional"} - {
                    key.removeprefix("include_") for key, value in request.query.items() if value == "true"
                }
                tagged = [m for m in self.members.values() if name in m["tags"] and m["status"] not in flags]
                return self.page(request, "members", tagged)
            if request.method == "GET":
                return Reply(200, {"id": int(segment[1]), "name": name})
            return self.change_segment(name, request)
        return problem(404, "Resource Not Found", "no such path")

    @staticmethod
    def page(request: Request, key: str, items: list[Any]) -> Reply:
        count, offset = int(request.query.get("count", 10)), int(request.query.get("offset", 0))
        return Reply(200, {key: items[offset : offset + min(count, 1000)], "total_items": len(items)})

    def upsert(self, request: Request) -> Reply:
        body, created, updated, errors = request.body, [], [], []
        if len(body["members"]) > 500:
            return problem(400, "Bad Request", "more than 500 members")
        for row in body["members"]:
            address = row["email_address"]

            def refuse(text: str, code: str = "ERROR_GENERIC", address: str = address) -> None:
                errors.append({"email_address": address, "error": text, "error_code": code})

            if not re.fullmatch(r"\S+@\S+\.\S+", address):
                refuse("Please provide a valid email address.")
            elif address in self.forgotten:
                refuse(f"{address} was permanently deleted and cannot be re-imported.")
            elif address in self.members:
                if not body["update_existing"]:
                    refuse(f"{address} is already a list member", "ERROR_CONTACT_EXISTS")
                    continue
                if "status" in row:
                    self.members[address]["status"] = row["status"]
                updated.append(self.write(address, row))
            elif "status_if_new" in row and self.knows_status_if_new:
                self.put(address, row["status_if_new"])
                created.append(self.write(address, row))
            else:
                errors.append(
                    {"email_address": address, "error": "Invalid Resource", "error_code": "ERROR_GENERIC",
                     "field": "status", "field_message": "This value should not be blank."}
                )  # fmt: skip
        return Reply(
            200,
            {"new_members": created, "updated_members": updated, "errors": errors, "total_created": len(created),
             "total_updated": len(updated), "error_count": len(errors)},
        )  # fmt: skip

    def write(self, address: str, row: dict[str, Any]) -> dict[str, Any]:
        member = self.members[address]
        if any(value is None for value in row["merge_fields"].values()):
            raise ValueError("null merge field")
        member["merge_fields"].update(row["merge_fields"])
        for tag in row.get("tags", []) if self.tags_in_batch else []:
            if tag not in member["tags"]:
                member["tags"].append(tag)
        return {**member, "tags": [{"id": 1, "name": tag} for tag in member["tags"]]}

    def put_member(self, md5: str, request: Request) -> Reply:
        address = request.body["email_address"]
        if address in self.forgotten:
            return problem(400, "Forgotten Email Not Subscribed", f"{address} was permanently deleted")
        if address not in self.members:
            self.put(address, request.body["status_if_new"])
        return Reply(200, self.write(address, request.body))

    def change_segment(self, name: str, request: Request) -> Reply:
        added, removed = request.body.get("members_to_add", []), request.body.get("members_to_remove", [])
        if len(added) > 500 or len(removed) > 500:
            return problem(400, "Bad Request", "more than 500 members")
        absent = [one for one in removed if name not in self.members.get(one.lower(), {"tags": ()})["tags"]]
        errors = [{"email_addresses": absent, "error": "Not in the segment."}] if self.tells_who_is_not_there else []
        for address in added:
            if address in self.members and name not in self.members[address]["tags"]:
                self.members[address]["tags"].append(name)
        for address in removed:
            if address in self.members and name in self.members[address]["tags"]:
                self.members[address]["tags"].remove(name)
        return Reply(200, {"members_added": [], "members_removed": [], "errors": errors, "error_count": len(errors)})

    def changed_members(self, request: Request) -> Reply:
        since = request.query.get("since_last_changed", "")
        found = [
            {**member, "unsubscribe_reason": member.get("unsubscribe_reason", "")}
            for member in sorted(self.members.values(), key=lambda member: member["last_changed"])
            if member["status"] == request.query["status"] and member["last_changed"] > since
        ]
        return self.page(request, "members", found)


def person(address: str, **fields: str | None) -> Member:
    return Member(address, {"email": [address]}, fields)
