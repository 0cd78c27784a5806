"""The sandbox as one ASGI app: platforms under their prefixes, controls under `/_sandbox`, the page at `/`.

Requests are handled one after the other on the event loop (each takes milliseconds and is one SQLite transaction);
only waiting is concurrent, so the limit of simultaneous connections is real. Faults are played here, around the
handlers: cut before or after the commit, half an answer, a slow one, any status.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import orjson

from include.sandbox import datamanager, hubspot, mailchimp
from include.sandbox.page import Page
from include.sandbox.store import Store
from include.sandbox.wire import AddedPlatform, Answer, Call, Platform, Refusal, Route, iso

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FAULT_KINDS = ("status", "cut_after_commit", "cut_before", "slow", "truncated")
JOURNAL_LIMIT = 1_000


@dataclass(frozen=True)
class SandboxConfig:
    """Where the state is and how the platforms behave."""

    state: Path | None = None
    seed_dir: Path | None = None
    journal_body_bytes: int = 262_144
    hubspot: hubspot.HubSpotConfig = field(default_factory=hubspot.HubSpotConfig)
    mailchimp: mailchimp.MailchimpConfig = field(default_factory=mailchimp.MailchimpConfig)
    datamanager: datamanager.DataManagerConfig = field(default_factory=datamanager.DataManagerConfig)


class Fault:
    """One misbehaviour to play `remaining` times (None: until it is deleted)."""

    def __init__(self, number: int, spec: dict[str, Any], remaining: int | None) -> None:
        self.number = number
        self.spec = spec
        self.remaining = remaining
        self.route = re.compile(spec["route"])

    def shown(self) -> dict[str, Any]:
        """The fault as the control endpoint lists it."""
        return {"id": self.number, "remaining": self.remaining, **self.spec}


class Cut(ConnectionError):
    """The connection was cut on purpose (raised only where there is no real connection to cut)."""


class Gone(Exception):
    """The client left before its request was whole; nothing is done."""


class Sandbox:
    """The ASGI app. `clock` gives epoch seconds; `pause` is slept by slow faults."""

    def __init__(
        self,
        config: SandboxConfig | None = None,
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.config = config or SandboxConfig()
        self.clock = clock
        self.own_date = clock is not time.time  # a shifted clock shows in the Date header too
        self.pause = pause
        self.store = Store(self.config.state)
        if self.config.seed_dir is not None:
            self.store.load_seed(self.config.seed_dir, clock())
        self.hubspot = hubspot.HubSpot(self.store, self.config.hubspot)
        self.mailchimp = mailchimp.Mailchimp(self.store, self.config.mailchimp)
        self.datamanager = datamanager.DataManager(self.store, self.config.datamanager)
        self.added = added_platforms(self.store)
        self.platforms: tuple[Platform, ...] = (self.hubspot, self.mailchimp, self.datamanager, *self.added.values())
        self.page = Page(self.store, self.datamanager)
        self.in_flight = {platform.name: 0 for platform in self.platforms}
        self.faults = [
            Fault(row["id"], orjson.loads(row["spec"]), row["remaining"])
            for row in self.store.all("select * from faults order by id")
        ]

    def close(self) -> None:
        """Let go of the state file."""
        self.store.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life span of the server."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            await self._answer(scope, receive, send)
        except Gone:
            log.info("a client left before its request was whole")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        for platform in self.platforms:
            if path == platform.prefix or path.startswith(f"{platform.prefix}/"):
                with self._counted(platform):
                    await self._serve(platform, scope, receive, send)
                return
        call = _call(scope, await _body(receive), path, self.clock())
        answer = self.control(call) if path.startswith("/_sandbox/") else self.page.answer(call)
        await self._send(send, answer)

    @contextmanager
    def _counted(self, platform: Platform) -> Iterator[None]:
        self.in_flight[platform.name] += 1
        try:
            yield
        finally:
            self.in_flight[platform.name] -= 1

    async def _serve(self, platform: Platform, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        await asyncio.sleep(0)  # lets requests that are already here be counted
        call = _call(scope, body, scope["path"][len(platform.prefix) :] or "/", self.clock())
        fault = self._fault(platform, call)
        kind = fault.spec["kind"] if fault else None
        if fault and kind == "slow":
            await self.pause(float(fault.spec["seconds"]))
            call.now = self.clock()
        if fault and kind == "status":
            raw = fault.spec.get("body")
            answer = Answer(fault.spec["code"], b"" if raw is None else raw, dict(fault.spec.get("headers", {})))
            self._note(platform, call, answer, 0.0, kind)
        elif kind == "cut_before":
            self._note(platform, call, Answer(0), 0.0, kind)
            await _cut(receive, send)
            return
        else:
            answer = self.handle(platform, call, kind)
        if kind == "cut_after_commit":
            await _cut(receive, send)
            return
        await self._send(send, answer, half=kind == "truncated", receive=receive)

    async def _send(self, send: Send, answer: Answer, *, half: bool = False, receive: Receive | None = None) -> None:
        if self.own_date:
            answer.headers["Date"] = formatdate(self.clock(), usegmt=True)
        await _send(send, answer, half=half, receive=receive)

    def handle(self, platform: Platform, call: Call, fault: str | None = None) -> Answer:
        """Answer one platform request inside one transaction, and write it into the journal."""
        started = time.perf_counter()
        if platform.name == "mailchimp" and self.in_flight["mailchimp"] > self.config.mailchimp.connections:
            answer = self.mailchimp.too_busy()
            self._note(platform, call, answer, started, fault)
            return answer
        route, groups, allowed = _find(platform, call)
        try:
            with self.store.transaction():
                if route is None:
                    raise Refusal(platform.lost(call, allowed))
                platform.admit(call, route)
                answer = route.handler(call, **groups)
                platform.decorate(call, route, answer)
                self._write_note(platform, call, answer, started, fault)
        except Refusal as refusal:
            answer = refusal.answer
            platform.decorate(call, route, answer)
            self._note(platform, call, answer, started, fault)
        except Exception:
            log.exception("the sandbox failed on %s %s", platform.name, call.method)
            answer = Answer(500, {"error": "the sandbox itself failed; see its log"})
            self._note(platform, call, answer, started, fault)
        return answer

    def _note(self, platform: Platform, call: Call, answer: Answer, started: float, fault: str | None) -> None:
        with self.store.transaction():
            self._write_note(platform, call, answer, started, fault)

    def _write_note(self, platform: Platform, call: Call, answer: Answer, started: float, fault: str | None) -> None:
        kept = None
        is_json = call.media_type == "application/json"  # forms hold credentials and are never kept
        if is_json and 0 < len(call.body) <= self.config.journal_body_bytes:
            kept = call.body.decode("utf-8", "replace")
        self.store.note(
            at=iso(call.now),
            platform=platform.name,
            method=call.method,
            path=platform.prefix + call.path + (f"?{call.query}" if call.query else ""),
            is_write=platform.is_write(call),
            status=answer.status,
            rows=call.rows,
            body=kept,
            request_bytes=len(call.body),
            milliseconds=round((time.perf_counter() - started) * 1000, 2) if started else 0.0,
            fault=fault,
        )

    def _fault(self, platform: Platform, call: Call) -> Fault | None:
        for fault in self.faults:
            wanted = fault.spec["platform"]
            if wanted in ("", platform.name) and fault.route.search(f"{call.method} {call.path}"):
                if fault.remaining is not None:
                    fault.remaining -= 1
                    if fault.remaining <= 0:
                        self.faults.remove(fault)
                        self.store.run("delete from faults where id = ?", fault.number)
                    else:
                        self.store.run("update faults set remaining = ? where id = ?", fault.remaining, fault.number)
                return fault
        return None

    # controls

    def control(self, call: Call) -> Answer:
        """The endpoints that look behind the scenes and steer the sandbox; no credentials, loopback only."""
        name = call.path.removeprefix("/_sandbox/").strip("/")
        try:
            match (call.method, name):
                case ("GET", "health"):
                    return Answer(body={"status": "ok", "platforms": [one.name for one in self.platforms]})
                case ("GET", "journal"):
                    return Answer(body=self._journal(call))
                case ("GET", "lists"):
                    return Answer(body=self.lists(call.now))
                case ("GET", "automations"):
                    return Answer(body=self._automations(call))
                case ("GET", "faults"):
                    return Answer(body=[fault.shown() for fault in self.faults])
                case ("POST", "faults"):
                    return Answer(201, self._add_faults(_json(call)))
                case ("DELETE", "faults"):
                    self.faults.clear()
                    self.store.run("delete from faults")
                    return Answer(204)
                case ("POST", "hubspot"):
                    return Answer(body=self._change_hubspot(_json(call), call.now))
                case ("POST", "mailchimp"):
                    return Answer(body=self._change_mailchimp(_json(call), call.now))
                case ("POST", added) if added in self.added:
                    with self.store.transaction():
                        return Answer(body=self.added[added].change(_json(call), call.now))
        except (ValueError, KeyError, TypeError, AttributeError, re.error) as error:
            return Answer(400, {"error": f"{type(error).__name__}: {error}"})
        return Answer(404, {"error": "no such control; see docs/sandbox.md"})

    def _journal(self, call: Call) -> dict[str, Any]:
        params = call.params
        conditions, values = ["id > ?"], [int(params.get("since", "0"))]
        if params.get("platform"):
            conditions.append("platform = ?")
            values.append(params["platform"])  # type: ignore[arg-type]
        if params.get("writes") == "true":
            conditions.append("is_write")
        where = " and ".join(conditions)
        limit = int(params.get("limit", JOURNAL_LIMIT))
        rows = self.store.all(f"select * from journal where {where} order by id limit ?", *values, limit)
        return {
            "last_id": self.store.value("select coalesce(max(id), 0) from journal"),
            "total": self.store.value(f"select count(*) from journal where {where}", *values),
            "entries": [_entry(row) for row in rows],
        }

    def lists(self, now: float) -> list[dict[str, Any]]:
        """Exactly what the platforms hold, per list: Mailchimp tags by address, Customer Match lists by identifier."""
        self.datamanager.process_due(now)
        result: list[dict[str, Any]] = []
        for tag in self.store.all(
            "select s.id, s.name, s.list_id, l.name as list_name from mailchimp_segments as s "
            "inner join mailchimp_lists as l on l.id = s.list_id order by l.name, s.name"
        ):
            rows = self.store.all(
                "select m.email, m.status, m.merge_fields from mailchimp_segment_members as t "
                "inner join mailchimp_members as m on m.list_id = t.list_id and m.hash = t.hash "
                "where t.segment_id = ? order by m.email",
                tag["id"],
            )
            result.append(
                {
                    "platform": "mailchimp",
                    "list": tag["list_name"],
                    "list_id": tag["list_id"],
                    "audience": tag["name"],
                    "audience_id": str(tag["id"]),
                    "members": [row["email"] for row in rows],
                    "statuses": {row["email"]: row["status"] for row in rows},
                    "merge_fields": {row["email"]: orjson.loads(row["merge_fields"]) for row in rows},
                }
            )
        for one in self.store.all("select * from datamanager_lists order by display_name, id"):
            rows = self.store.all(
                "select kind, value from datamanager_members where list_id = ? order by kind, value", one["id"]
            )
            result.append(
                {
                    "platform": "datamanager",
                    "list": one["account_id"],
                    "list_id": one["account_id"],
                    "audience": one["display_name"],
                    "audience_id": str(one["id"]),
                    "members": [row["value"] for row in rows],
                    "kinds": {row["value"]: row["kind"] for row in rows},
                }
            )
        return result + [one for platform in self.added.values() for one in platform.lists(now)]

    def _automations(self, call: Call) -> dict[str, Any]:
        since = int(call.params.get("since", "0"))
        rows = self.store.all("select * from automations where id > ? order by id", since)
        return {
            "last_id": self.store.value("select coalesce(max(id), 0) from automations"),
            "total": len(rows),
            "entries": [dict(row) for row in rows],
        }

    def _add_faults(self, body: Any) -> list[dict[str, Any]]:
        names = {platform.name for platform in self.platforms}
        added = []
        for spec in body if isinstance(body, list) else [body]:
            unknown = set(spec) - {"platform", "route", "times", "kind", "code", "body", "headers", "seconds"}
            if unknown:
                raise ValueError(f"unknown keys {sorted(unknown)}")
            if spec.get("platform", "") not in ("", *names):
                raise ValueError(f"platform is one of {sorted(names)}")
            if spec.get("kind") not in FAULT_KINDS:
                raise ValueError(f"kind is one of {FAULT_KINDS}")
            if spec["kind"] == "status" and not 100 <= int(spec["code"]) <= 599:
                raise ValueError("a status fault needs a code")
            if spec["kind"] == "slow" and not float(spec["seconds"]) >= 0:
                raise ValueError("a slow fault needs seconds")
            kept = {"platform": "", "route": "", **{key: value for key, value in spec.items() if key != "times"}}
            re.compile(kept["route"])
            times = spec.get("times", 1)
            if times is not None and (not isinstance(times, int) or times < 1):
                raise ValueError("times is a positive number, or null for ever")
            cursor = self.store.run("insert into faults (spec, remaining) values (?, ?)", orjson.dumps(kept), times)
            self.faults.append(Fault(int(cursor.lastrowid or 0), kept, times))
            added.append(self.faults[-1].shown())
        return added

    def _change_hubspot(self, body: dict[str, Any], now: float) -> dict[str, int]:
        """What people do in the shop and the CRM; records show up in searches after the index lag."""
        more = ("associations", "subscription_statuses", "email_events")
        unknown = set(body) - {*hubspot.OBJECT_TYPES, *more}
        if unknown:
            raise ValueError(f"unknown keys {sorted(unknown)}")
        with self.store.transaction():
            counts = {
                kind: hubspot.put_objects(self.store, kind, body[kind], indexed_at=now, now=now)
                for kind in hubspot.OBJECT_TYPES
                if kind in body
            }
            counts["associations"] = hubspot.put_associations(self.store, body.get("associations", []))
            counts["subscription_statuses"] = hubspot.put_statuses(self.store, body.get("subscription_statuses", []))
            counts["email_events"] = hubspot.put_events(self.store, body.get("email_events", []))
        return counts

    def _change_mailchimp(self, body: dict[str, Any], now: float) -> dict[str, int]:
        """What people do themselves: sign up, unsubscribe, bounce, ask to be erased."""
        unknown = set(body) - {"lists", "members", "actions"}
        if unknown:
            raise ValueError(f"unknown keys {sorted(unknown)}")
        actions = body.get("actions", [])
        for one in actions:
            if one["status"] not in (*mailchimp.STATUSES, "archived", "forgotten"):
                raise ValueError(f"{one['status']} is no status")
        with self.store.transaction():
            for one in body.get("lists", []):
                mailchimp.make_list(self.store, one["id"], one["name"], iso(now, "seconds"))
            members = mailchimp.put_members(self.store, body.get("members", []), now)
            done = [mailchimp.act(self.store, one["list_id"], one["email"], one["status"], now) for one in actions]
            if not all(done):
                raise ValueError(f"{done.count(False)} of {len(done)} actions name nobody on the list")
        return {"lists": len(body.get("lists", [])), "members": members, "actions": len(done)}


def added_platforms(store: Store) -> dict[str, AddedPlatform]:
    """The platforms of destinations that bring a sandbox side of their own name with a class `Platform`."""
    here = Path(__file__).parent
    names = {path.stem for path in (here.parent / "destinations").glob("*.py")} & {
        path.stem for path in here.glob("*.py")
    }
    found = {}
    for name in sorted(names - {"__init__", "mailchimp"}):
        found[name] = importlib.import_module(f"include.sandbox.{name}").Platform(store)
    return found


def _entry(row: Any) -> dict[str, Any]:
    entry = dict(row)
    entry["is_write"] = bool(entry["is_write"])
    entry["rows"] = entry.pop("row_count")
    if entry["body"]:
        try:
            entry["body"] = orjson.loads(entry["body"])
        except orjson.JSONDecodeError:
            log.debug("journal entry %s holds a body that is not JSON", entry["id"])
    return entry


def _find(platform: Platform, call: Call) -> tuple[Route | None, dict[str, str], list[str]]:
    """The route of a call with its path values; without one, the methods the path does have."""
    allowed = []
    for route in platform.routes:
        match = route.pattern.fullmatch(call.path)
        if match is None:
            continue
        if route.method == call.method:
            return route, match.groupdict(), []
        allowed.append(route.method)
    return None, {}, allowed


def _json(call: Call) -> Any:
    return orjson.loads(call.body)


def _call(scope: Scope, body: bytes, path: str, now: float) -> Call:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return Call(scope["method"], path, scope["query_string"].decode("latin-1"), headers, body, now)


async def _body(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _send(send: Send, answer: Answer, *, half: bool = False, receive: Receive | None = None) -> None:
    payload = answer.payload()
    headers = [(name.lower().encode(), str(value).encode()) for name, value in answer.headers.items()]
    if payload and "content-type" not in {name.lower() for name in answer.headers}:
        headers.append((b"content-type", answer.media_type.encode()))
    if answer.status not in (204, 304):
        headers.append((b"content-length", str(len(payload)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if half and receive is not None:
        await send({"type": "http.response.body", "body": payload[: len(payload) // 2], "more_body": True})
        await _cut(receive, send, gently=True)
        return
    await send({"type": "http.response.body", "body": payload})


async def _cut(receive: Receive, send: Send, *, gently: bool = False) -> None:
    """Close the connection under the client's feet; without a connection of our own, raise `Cut`."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise Cut("the sandbox cut the connection")
    if gently:
        transport.close()  # what was written goes out first
    else:
        transport.abort()
    while (await receive())["type"] != "http.disconnect":
        continue


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
