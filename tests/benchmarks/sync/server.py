"""A Mailchimp-like server without limits: as little work as possible, and it remembers who is on the list.

python -m tests.benchmarks.sync.server prints its port and serves until its standard input ends. One list with one
tag. Unlike the sandbox it checks nothing and never says no, except to the share of rows that it is told to refuse.
`/_reset?refuse=N` forgets everything and refuses one address in N from then on (0: none), inside a 200; `/_forget` sets
the counts to zero; `/_told` tells calls, rows and who has the tag.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from include.identity import email_md5, text_sha256

LIST = "bench"
LIST_NAME = "Newsletter"
TAG = "1"
FIELDS = ("CART_ITEMS", "CART_TOTAL", "CART_URL")  # the list has them: the others do not make any
_REFUSED = "looks fake or invalid, please enter a real email address."


class Mailing:
    """The list: members by address with a fingerprint of their merge fields, and who has the tag."""

    def __init__(self) -> None:
        self.reset(0)

    def reset(self, refuse: int) -> None:
        self.refuse = refuse
        self.members: dict[str, bytes] = {}
        self.tagged: set[str] = set()
        self.tag_name: str | None = None
        self.fields = set(FIELDS)
        self.forget()

    def forget(self) -> None:
        self.calls = self.rows = self.refused = 0

    def told(self) -> dict[str, Any]:
        """`digest` stands for every tagged member with her merge fields, in whatever order they came."""
        total = sum(fingerprint(address, self.members[address]) for address in self.tagged if address in self.members)
        return {
            "calls": self.calls,
            "rows": self.rows,
            "refused": self.refused,
            "tagged": len(self.tagged),
            "digest": f"{total % 2**64:016x}",
        }

    def add_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        new, updated, errors = [], [], []
        for row in body["members"]:
            address = row["email_address"]
            key = address.lower()
            if is_refused(key, self.refuse):
                errors.append(
                    {"email_address": address, "error": f"{address} {_REFUSED}", "error_code": "ERROR_GENERIC"}
                )
                continue
            fields, tags = row.get("merge_fields") or {}, row.get("tags") or ()
            (updated if key in self.members else new).append(_shown(address, key, fields, tags))
            self.members[key] = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
            if tags:
                self.tagged.add(key)
        self.rows += len(body["members"])
        self.refused += len(errors)
        return {
            "new_members": new,
            "updated_members": updated,
            "errors": errors,
            "total_created": len(new),
            "total_updated": len(updated),
            "error_count": len(errors),
        }

    def change_tag(self, body: dict[str, Any]) -> dict[str, Any]:
        added, removed = body.get("members_to_add") or (), body.get("members_to_remove") or ()
        self.tagged.update(address.lower() for address in added)
        self.tagged.difference_update(address.lower() for address in removed)
        self.rows += len(added) + len(removed)
        shown = [{"email_address": address, "list_id": LIST} for address in (*added, *removed)]
        kind = "members_removed" if removed else "members_added"
        return {kind: shown, "errors": [], f"total_{kind.removeprefix('members_')}": len(shown), "error_count": 0}

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if parts[0] == "_reset":
            self.reset(int(query.get("refuse", 0)))
            return 200, {}
        if parts[0] == "_forget":
            self.forget()
            return 200, {}
        if parts[0] == "_told":
            return 200, self.told()
        self.calls += 1
        what = parts[3] if len(parts) > 3 else ""
        if parts[1:] == ["ping"]:
            return 200, {"health_status": "Everything's Chimpy!"}
        if parts[1:] == ["lists"]:
            return 200, {"lists": [{"id": LIST, "name": LIST_NAME}], "total_items": 1}
        if method == "POST" and len(parts) == 3:
            return 200, self.add_batch(body)
        if what == "members" and method == "GET":
            return 200, {"members": [], "total_items": 0}
        if what == "merge-fields":
            if method == "POST":
                self.fields.add(body["tag"])
                return 200, body
            return 200, {"merge_fields": [{"tag": tag} for tag in self.fields], "total_items": len(self.fields)}
        if what == "segments" and len(parts) == 4:
            if method == "POST":
                self.tag_name = body["name"]
                return 200, {"id": int(TAG), "name": self.tag_name}
            tags = [{"id": int(TAG), "name": self.tag_name}] if self.tag_name else []
            return 200, {"segments": tags, "total_items": len(tags)}
        if what == "segments" and len(parts) == 5:
            return 200, self.change_tag(body) if method == "POST" else {"id": int(TAG), "name": self.tag_name}
        return 404, {"title": "Resource Not Found", "status": 404, "detail": "this server does not know it"}


def is_refused(address: str, refuse: int) -> bool:
    """Whether an address (in lower case) is one of those that a server told to refuse one in `refuse` refuses."""
    return bool(refuse) and zlib.crc32(address.encode()) % refuse == 0


def fingerprint(address: str, fields: bytes) -> int:
    """One member as a number; `fields` is the JSON of the merge fields with sorted keys, without blanks."""
    return int(text_sha256(address + fields.decode())[:16], 16)


def _shown(address: str, key: str, fields: dict[str, Any], tags: Any) -> dict[str, Any]:
    """A member as the real API shows one, without the links."""
    return {
        "id": email_md5(key),
        "email_address": address,
        "unique_email_id": "d0a3c7b1e2",
        "contact_id": "5f1b0d2c4e6a8091b3d5f7192b3d4f60",
        "full_name": "",
        "web_id": 123456789,
        "email_type": "html",
        "status": "transactional",
        "consents_to_one_to_one_messaging": True,
        "merge_fields": fields,
        "stats": {"avg_open_rate": 0, "avg_click_rate": 0},
        "ip_signup": "",
        "timestamp_signup": "",
        "ip_opt": "",
        "timestamp_opt": "",
        "member_rating": 2,
        "last_changed": "2026-11-28T12:00:00+00:00",
        "language": "",
        "vip": False,
        "email_client": "",
        "location": {"latitude": 0, "longitude": 0, "gmtoff": 0, "dstoff": 0, "country_code": "", "timezone": ""},
        "source": "API - Generic",
        "tags_count": len(tags),
        "tags": [{"id": int(TAG), "name": tag} for tag in tags],
        "list_id": LIST,
    }


class _Http(asyncio.Protocol):
    """Just enough of HTTP/1.1: kept-alive connections, bodies with a length."""

    def __init__(self, mailing: Mailing) -> None:
        self.mailing = mailing
        self.waiting = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while (end := self.waiting.find(b"\r\n\r\n")) >= 0:
            head, *lines = bytes(self.waiting[:end]).split(b"\r\n")
            headers = dict(line.lower().split(b": ", 1) for line in lines if b": " in line)
            length = int(headers.get(b"content-length", 0))
            if len(self.waiting) < end + 4 + length:
                return
            body = bytes(self.waiting[end + 4 : end + 4 + length])
            del self.waiting[: end + 4 + length]
            method, target, _ = head.decode().split(" ", 2)
            url = urlsplit(target)
            status, told = self.mailing.answer(
                method, url.path, dict(parse_qsl(url.query)), orjson.loads(body) if body else {}
            )
            answer = orjson.dumps(told)
            self.transport.write(
                b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % (status, len(answer))
                + answer
            )


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    mailing = Mailing()
    server = await loop.create_server(lambda: _Http(mailing), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # the one who started us is gone, or has had enough
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
