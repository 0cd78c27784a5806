"""Mailchimp Marketing API 3.0 as a list-keeping client meets it: members, merge fields, tags (static segments).

The member rules are the point: nobody who unsubscribed herself, bounced or was deleted for good can be made subscribed
again, a batch answers 200 with the refused rows inside, and a tag added to a subscribed member fires automations.
Unknown JSON keys are refused where Mailchimp would ignore them; unknown *merge fields* are dropped silently, as there.
Vendor facts as of 2026-11: https://mailchimp.com/developer/marketing/api/
"""

from __future__ import annotations

import base64
import binascii
import re
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson

from include.identity import email_md5
from include.sandbox.store import Store, seed_rows
from include.sandbox.wire import Answer, Call, Refusal, Route, epoch, is_int, iso

BATCH_MAX = 500
COUNT_MAX = 1_000
CONNECTIONS_MAX = 10
TAG_MAX = 10
MERGE_FIELDS_MAX = 80
TEXT_MAX = 255
STATUSES = ("subscribed", "unsubscribed", "cleaned", "pending", "transactional")
MERGE_TYPES = (
    "text", "number", "address", "phone", "date", "url", "imageurl", "radio", "dropdown", "birthday", "zip",
)  # fmt: skip
_KEY = re.compile(r"[0-9a-f]{32}-us\d{1,2}")
_OAUTH = re.compile(r"[0-9a-f]{32,}(-us\d{1,2})?")
_EMAIL = re.compile(r"[^\s@,;<>\"]+@[^\s@,;<>\"]+\.[^\s@,;<>\".]{2,}")
_PROBLEMS = "https://mailchimp.com/developer/marketing/docs/errors/"
_EXTRA = {
    "email_type": str, "language": str, "vip": bool, "location": dict, "marketing_permissions": list,
    "ip_signup": str, "timestamp_signup": str, "ip_opt": str, "timestamp_opt": str, "interests": dict,
}  # fmt: skip
_DEFAULT_MERGE_FIELDS = (
    ("FNAME", "First Name", "text"),
    ("LNAME", "Last Name", "text"),
    ("ADDRESS", "Address", "address"),
    ("PHONE", "Phone Number", "phone"),
    ("BIRTHDAY", "Birthday", "birthday"),
)


@dataclass(frozen=True)
class MailchimpConfig:
    """How this account behaves. `keys` empty accepts every well-formed key; `bare_403` throttles without a body."""

    keys: frozenset[str] = frozenset()
    connections: int = CONNECTIONS_MAX
    bare_403: bool = False


class RowRefused(Exception):
    """One member cannot be written; becomes a problem document or a row of `errors[]`."""

    def __init__(self, title: str, detail: str, *, field: str = "", field_message: str = "", code: str = "") -> None:
        self.title = title
        self.detail = detail
        self.field = field
        self.field_message = field_message
        self.code = code or "ERROR_GENERIC"
        super().__init__(title)


class Mailchimp:
    """The account."""

    name = "mailchimp"
    prefix = "/mailchimp/3.0"

    def __init__(self, store: Store, config: MailchimpConfig) -> None:
        self.store = store
        self.config = config
        one = "/lists/{list_id}"
        member = f"{one}/members/{{member_id}}"
        segment = f"{one}/segments/{{segment_id}}"
        self.routes = (
            Route("GET", "/?", self.root),
            Route("GET", "/ping", self.ping),
            Route("GET", "/lists", self.get_lists),
            Route("GET", one, self.get_list),
            Route("POST", one, self.batch),
            Route("GET", f"{one}/members", self.get_members),
            Route("POST", f"{one}/members", self.add_member),
            Route("GET", member, self.get_member),
            Route("PUT", member, self.put_member),
            Route("PATCH", member, self.patch_member),
            Route("DELETE", member, self.archive_member),
            Route("POST", f"{member}/actions/delete-permanent", self.delete_permanently),
            Route("GET", f"{member}/tags", self.get_member_tags),
            Route("POST", f"{member}/tags", self.set_member_tags),
            Route("GET", f"{one}/merge-fields", self.get_merge_fields),
            Route("POST", f"{one}/merge-fields", self.add_merge_field),
            Route("GET", f"{one}/tag-search", self.search_tags),
            Route("GET", f"{one}/segments", self.get_segments),
            Route("POST", f"{one}/segments", self.add_segment),
            Route("GET", segment, self.get_segment),
            Route("POST", segment, self.change_segment),
            Route("PATCH", segment, self.replace_segment),
            Route("DELETE", segment, self.delete_segment),
            Route("GET", f"{segment}/members", self.get_segment_members),
        )

    # admission

    def admit(self, call: Call, route: Route) -> None:
        """Any user with the key as password, or the key or an OAuth token as bearer."""
        kind, _, given = call.headers.get("authorization", "").partition(" ")
        if not given:
            raise Refusal(
                _problem(
                    401,
                    "API Key Missing",
                    "Your request did not include an API key.",
                )
            )
        key, pattern = given.strip(), _OAUTH
        if kind.lower() == "basic":
            pattern = _KEY
            try:
                key = base64.b64decode(key, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeError):
                key = ""
        known = key in self.config.keys if self.config.keys else pattern.fullmatch(key) is not None
        if not known or kind.lower() not in ("basic", "bearer"):
            raise Refusal(
                _problem(
                    401,
                    "API Key Invalid",
                    "Your API key may be invalid, or you've attempted to access the wrong datacenter.",
                )
            )

    def too_busy(self) -> Answer:
        """The answer to the eleventh simultaneous connection."""
        if self.config.bare_403:
            return Answer(403, b"", media_type="text/html")
        return _problem(
            429,
            "Too Many Requests",
            f"You have exceeded the limit of {self.config.connections} simultaneous connections.",
        )

    def decorate(self, call: Call, route: Route | None, answer: Answer) -> None:
        """Mailchimp sends no rate headers at all."""

    def lost(self, call: Call, allowed: list[str]) -> Answer:
        """404 for a path nobody knows, 405 with the methods it does have."""
        if allowed:
            answer = _problem(
                405, "Method Not Allowed", "The requested method and resource are not compatible. See the Allow header."
            )
            answer.headers["Allow"] = ", ".join(sorted(allowed))
            return answer
        return _not_found()

    def is_write(self, call: Call) -> bool:
        """Everything but reading."""
        return call.method not in ("GET", "HEAD")

    # account and lists

    def root(self, call: Call) -> Answer:
        """Who the key belongs to."""
        _params(call, {"fields", "exclude_fields"})
        total = self.store.value("select count(*) from mailchimp_members where status = 'subscribed'")
        account = {"account_id": "5a1b2c3d4e5f", "account_name": "The shop", "total_subscribers": total, "dc": "us6"}
        return _shown(call, account)

    def ping(self, call: Call) -> Answer:
        """The health check that needs a key."""
        _params(call, set())
        return Answer(body={"health_status": "Everything's Chimpy!"})

    def get_lists(self, call: Call) -> Answer:
        """The audiences of the account."""
        _params(call, {"fields", "exclude_fields", "count", "offset", "sort_field", "sort_dir", "email"})
        count, offset = _page(call)
        rows = self.store.all("select * from mailchimp_lists order by created_at, id limit ? offset ?", count, offset)
        call.rows = len(rows)
        total = self.store.value("select count(*) from mailchimp_lists")
        return _shown(call, {"lists": [self._list_out(row) for row in rows], "total_items": total, "_links": []})

    def get_list(self, call: Call, list_id: str) -> Answer:
        """One audience."""
        _params(call, {"fields", "exclude_fields", "include_total_contacts"})
        return _shown(call, self._list_out(self._list(list_id)))

    def _list(self, list_id: str) -> sqlite3.Row:
        row = self.store.one("select * from mailchimp_lists where id = ?", list_id)
        if row is None:
            raise Refusal(_not_found())
        return row

    def _list_out(self, row: sqlite3.Row) -> dict[str, Any]:
        counts = {
            one["status"]: one["n"]
            for one in self.store.all(
                "select status, count(*) as n from mailchimp_members where list_id = ? and not is_forgotten "
                "group by status",
                row["id"],
            )
        }
        return {
            "id": row["id"],
            "web_id": 1,
            "name": row["name"],
            "date_created": row["created_at"],
            "double_optin": False,
            "stats": {
                "member_count": counts.get("subscribed", 0),
                "unsubscribe_count": counts.get("unsubscribed", 0),
                "cleaned_count": counts.get("cleaned", 0),
                "total_contacts": sum(counts.get(name, 0) for name in STATUSES),
            },
        }

    # members: reading

    def get_members(self, call: Call, list_id: str) -> Answer:
        """A page of members; archived ones only when asked for by status."""
        self._list(list_id)
        params = _params(
            call,
            {
                "fields", "exclude_fields", "count", "offset", "email_type", "status", "since_timestamp_opt",
                "before_timestamp_opt", "since_last_changed", "before_last_changed", "sort_field", "sort_dir",
            },
        )  # fmt: skip
        count, offset = _page(call)
        conditions, values = ["list_id = ?", "not is_forgotten"], [list_id]
        if "status" in params:
            if params["status"] not in (*STATUSES, "archived"):
                _invalid([("status", f"{params['status']} is not a valid status.")])
            conditions.append("status = ?")
            values.append(params["status"])
        else:
            conditions.append("status != 'archived'")
        for name, operator in (("since", ">"), ("before", "<=")):
            for column in ("timestamp_opt", "last_changed"):
                text = params.get(f"{name}_{column}")
                if text:
                    conditions.append(f"{column} {operator} ?")
                    values.append(_stamp(text, f"{name}_{column}"))
        sort = params.get("sort_field", "")
        if sort not in ("", "timestamp_opt", "timestamp_signup", "last_changed"):
            _invalid([("sort_field", "This value is not one of the allowed sort fields.")])
        direction = params.get("sort_dir", "ASC").upper()
        if direction not in ("ASC", "DESC"):
            _invalid([("sort_dir", "This value must be ASC or DESC.")])
        where = " and ".join(conditions)
        order = f"{sort} {direction}, hash" if sort else "hash"
        rows = self.store.all(
            f"select * from mailchimp_members where {where} order by {order} limit ? offset ?", *values, count, offset
        )
        total = self.store.value(f"select count(*) from mailchimp_members where {where}", *values)
        call.rows = len(rows)
        return _shown(
            call,
            {
                "members": self._members_out(list_id, rows),
                "list_id": list_id,
                "total_items": total,
                "_links": [],
            },
        )

    def get_member(self, call: Call, list_id: str, member_id: str) -> Answer:
        """One member; who was deleted for good is as unknown as who never was there."""
        _params(call, {"fields", "exclude_fields"})
        call.rows = 1
        return _shown(call, self._members_out(list_id, [self._member(list_id, member_id)])[0])

    def _member(self, list_id: str, member_id: str) -> sqlite3.Row:
        self._list(list_id)
        row = self._row(list_id, _hash_of(member_id))
        if row is None or row["is_forgotten"]:
            raise Refusal(_not_found())
        return row

    def _row(self, list_id: str, hashed: str) -> sqlite3.Row | None:
        return self.store.one("select * from mailchimp_members where list_id = ? and hash = ?", list_id, hashed)

    def _rows(self, list_id: str, hashes: Iterable[str]) -> dict[str, sqlite3.Row]:
        wanted = list(hashes)
        marks = ", ".join("?" * len(wanted))
        return {
            row["hash"]: row
            for row in self.store.all(
                f"select * from mailchimp_members where list_id = ? and hash in ({marks})", list_id, *wanted
            )
        }

    def _members_out(self, list_id: str, rows: Sequence[sqlite3.Row]) -> list[dict[str, Any]]:
        if not rows:
            return []
        tags: dict[str, list[dict[str, Any]]] = {}
        marks = ", ".join("?" * len(rows))
        for tag in self.store.all(
            "select m.hash, s.id, s.name from mailchimp_segment_members as m inner join mailchimp_segments as s "
            f"on m.segment_id = s.id where m.list_id = ? and m.hash in ({marks}) order by s.id",
            list_id, *(row["hash"] for row in rows),
        ):  # fmt: skip
            tags.setdefault(tag["hash"], []).append({"id": tag["id"], "name": tag["name"]})
        blank = {field["tag"]: "" for field in self._fields(list_id).values()}
        result = []
        for row in rows:
            mine = tags.get(row["hash"], [])
            extra = orjson.loads(row["extra"]) if row["extra"] else {}
            result.append(
                {
                    "id": row["hash"],
                    "email_address": row["email"],
                    "unique_email_id": row["hash"][:10],
                    "contact_id": row["hash"],
                    "full_name": "",
                    "email_type": extra.get("email_type", "html"),
                    "status": row["status"],
                    **({"unsubscribe_reason": row["unsubscribe_reason"]} if row["unsubscribe_reason"] else {}),
                    "merge_fields": {**blank, **orjson.loads(row["merge_fields"])},
                    "interests": {},
                    "timestamp_signup": row["timestamp_signup"] or "",
                    "timestamp_opt": row["timestamp_opt"] or "",
                    "last_changed": row["last_changed"],
                    "language": extra.get("language", ""),
                    "vip": extra.get("vip", False),
                    "source": row["source"],
                    "tags_count": len(mine),
                    "tags": mine[:50],
                    "list_id": list_id,
                }
            )
        return result

    # members: writing

    def batch(self, call: Call, list_id: str) -> Answer:
        """Up to 500 members in one call; refused rows are inside the 200."""
        self._list(list_id)
        params = _params(call, {"skip_merge_validation", "skip_duplicate_check"})
        lenient = _flag(params, "skip_merge_validation")
        first_only = _flag(params, "skip_duplicate_check")
        body = _object(call, {"members", "sync_tags", "update_existing"})
        members = body.get("members")
        if not isinstance(members, list):
            _invalid([("members", f"Schema describes array, {_word(members)} found instead")])
        for name in ("sync_tags", "update_existing"):
            if not isinstance(body.get(name, False), bool):
                _invalid([(name, f"Schema describes boolean, {_word(body[name])} found instead")])
        if len(members) > BATCH_MAX:
            _invalid([("members", f"You may only batch up to {BATCH_MAX} members at a time.")])
        call.rows = len(members)
        keys = {"email_address", "status", "status_if_new", "merge_fields", "tags", *_EXTRA}
        for index, row in enumerate(members):
            self._check_shape(row, keys, f"members.item:{index}.")
        hashes = [subscriber_hash(row.get("email_address") or "") for row in members]
        known = self._rows(list_id, set(hashes))
        fields = self._fields(list_id)
        now = _clock(call)
        written: dict[str, tuple[Any, ...]] = {}
        created: list[str] = []
        updated: list[str] = []
        errors: list[dict[str, str]] = []
        tagged: list[tuple[str, list[str]]] = []
        seen: set[str] = set()
        for hashed, row in zip(hashes, members, strict=True):
            email = row.get("email_address") or ""
            if hashed in seen:
                if not first_only:
                    errors.append(_row_error(email, RowRefused("", f"{email} is in this batch more than once.")))
                continue
            seen.add(hashed)
            old = known.get(hashed)
            try:
                if old is not None and not old["is_forgotten"] and not body.get("update_existing", False):
                    raise RowRefused(
                        "Member Exists",
                        f"{email} is already a list member, do you want to update? please provide update_existing:true "
                        "in the request body",
                        code="ERROR_CONTACT_EXISTS",
                    )
                written[hashed] = self._written(list_id, hashed, row, old, fields, now, lenient=lenient)
            except RowRefused as refused:
                errors.append(_row_error(email, refused))
                continue
            (created if old is None else updated).append(hashed)
            if "tags" in row:
                tagged.append((hashed, row["tags"]))
        self._save(written.values())
        by_name: dict[str, list[str]] = {}
        for hashed, names in tagged:
            if body.get("sync_tags", False):
                self._drop_other_tags(list_id, hashed, names)
            for name in names:
                by_name.setdefault(name, []).append(hashed)
        for name, group in by_name.items():
            self._tag(list_id, self._segment_named(list_id, name, now), name, group, now, trigger="tag in batch")
        rows = self._rows(list_id, written)
        return _shown(
            call,
            {
                "new_members": self._members_out(list_id, [rows[one] for one in created]),
                "updated_members": self._members_out(list_id, [rows[one] for one in updated]),
                "errors": errors,
                "total_created": len(created),
                "total_updated": len(updated),
                "error_count": len(errors),
                "_links": [],
            },
        )

    def add_member(self, call: Call, list_id: str) -> Answer:
        """Add one; an existing one is refused."""
        self._list(list_id)
        lenient = _flag(_params(call, {"skip_merge_validation"}), "skip_merge_validation")
        body = _object(call, {"email_address", "status", "merge_fields", "tags", *_EXTRA})
        self._check_shape(body, None, "")
        _required(body, ("email_address", "status"))
        hashed = subscriber_hash(body["email_address"])
        old = self._row(list_id, hashed)
        if old is not None and not old["is_forgotten"]:
            raise Refusal(
                _problem(
                    400,
                    "Member Exists",
                    f"{body['email_address']} is already a list member. Use PUT to insert or update list members.",
                )
            )
        return self._write_one(call, list_id, hashed, body, old, lenient=lenient)

    def put_member(self, call: Call, list_id: str, member_id: str) -> Answer:
        """Add or update one; `status_if_new` is for who is not there yet."""
        self._list(list_id)
        lenient = _flag(_params(call, {"skip_merge_validation"}), "skip_merge_validation")
        body = _object(call, {"email_address", "status_if_new", "status", "merge_fields", *_EXTRA})
        self._check_shape(body, None, "")
        hashed = _hash_of(member_id)
        old = self._row(list_id, hashed)
        if old is None:
            _required(body, ("email_address", "status_if_new"))
            if subscriber_hash(body["email_address"]) != hashed:
                _invalid([("email_address", "The email address does not belong to the member id in the path.")])
        return self._write_one(call, list_id, hashed, body, old, lenient=lenient)

    def patch_member(self, call: Call, list_id: str, member_id: str) -> Answer:
        """Change one that is there."""
        lenient = _flag(_params(call, {"skip_merge_validation"}), "skip_merge_validation")
        old = self._member(list_id, member_id)
        body = _object(call, {"email_address", "status", "merge_fields", *_EXTRA})
        self._check_shape(body, None, "")
        return self._write_one(call, list_id, old["hash"], body, old, lenient=lenient)

    def archive_member(self, call: Call, list_id: str, member_id: str) -> Answer:
        """Archive: out of the audience without being unsubscribed."""
        _params(call, set())
        old = self._member(list_id, member_id)
        if old["status"] == "archived":
            raise Refusal(_problem(405, "Method Not Allowed", "This list member cannot be removed."))
        call.rows = 1
        self.store.run(
            "update mailchimp_members set status = 'archived', is_compliance = is_compliance or status = 'cleaned', "
            "last_changed = ? where list_id = ? and hash = ?",
            _clock(call), list_id, old["hash"],
        )  # fmt: skip
        return Answer(204)

    def delete_permanently(self, call: Call, list_id: str, member_id: str) -> Answer:
        """Forget for good: only the hash stays, so that nobody can import the person again."""
        _params(call, set())
        old = self._member(list_id, member_id)
        call.rows = 1
        forget(self.store, list_id, old["hash"], _clock(call))
        return Answer(204)

    def _check_shape(self, row: object, keys: set[str] | None, where: str) -> None:
        if not isinstance(row, dict):
            _invalid([(where.rstrip("."), f"Schema describes object, {_word(row)} found instead")])
        for name, value in row.items():
            if keys is not None and name not in keys:
                _invalid([(where + name, "This field is not part of the schema.")])
            expected = _EXTRA.get(name, str)
            if name == "merge_fields":
                expected = dict
            if name == "tags":
                if not isinstance(value, list) or not all(isinstance(tag, str) and tag.strip() for tag in value):
                    _invalid([(where + name, "Schema describes array of tag names")])
                continue
            if not isinstance(value, expected):
                _invalid([(where + name, f"Schema describes {_WORDS[expected]}, {_word(value)} found instead")])

    def _write_one(
        self, call: Call, list_id: str, hashed: str, body: dict[str, Any], old: sqlite3.Row | None, *, lenient: bool
    ) -> Answer:
        call.rows = 1
        now = _clock(call)
        try:
            row = self._written(list_id, hashed, body, old, self._fields(list_id), now, lenient=lenient)
        except RowRefused as refused:
            if refused.field:
                raise Refusal(
                    _problem(
                        400,
                        refused.title,
                        refused.detail,
                        errors=[{"field": refused.field, "message": refused.field_message}],
                    )
                ) from refused
            raise Refusal(_problem(400, refused.title, refused.detail)) from refused
        if row[1] != hashed:
            if self._row(list_id, row[1]) is not None:
                raise Refusal(_problem(400, "Member Exists", f"{row[2]} is already a list member."))
            for table in ("members", "segment_members"):
                self.store.run(
                    f"update mailchimp_{table} set hash = ? where list_id = ? and hash = ?", row[1], list_id, hashed
                )
        self._save([row])
        for name in body.get("tags", []):
            segment = self._segment_named(list_id, name, now)
            self._tag(list_id, segment, name, [row[1]], now, trigger="tag on a new member")
        saved = self._rows(list_id, [row[1]])[row[1]]
        return Answer(body=self._members_out(list_id, [saved])[0])

    def _written(
        self,
        list_id: str,
        hashed: str,
        body: Mapping[str, Any],
        old: sqlite3.Row | None,
        fields: Mapping[str, Mapping[str, Any]],
        now: str,
        *,
        lenient: bool,
    ) -> tuple[Any, ...]:
        """The member's new row, or RowRefused."""
        email = str(body.get("email_address") or (old["email"] if old else "")).strip()
        if not _EMAIL.fullmatch(email):
            raise RowRefused(
                "Invalid Resource",
                f"{email or 'The address'} looks fake or invalid, please enter a real email address.",
                field="email_address",
                field_message="This value should be a valid email address.",
            )
        if old is None or "email_address" in body:
            hashed = subscriber_hash(email)
        status = _next_status(email, old, body.get("status"), body.get("status_if_new"))
        before: dict[str, Any] = orjson.loads(old["merge_fields"]) if old else {}
        merge = dict(before)
        for name, value in body.get("merge_fields", {}).items():
            field = fields.get(name.upper())
            if field is not None:  # an unknown merge field is dropped without a word
                merge[field["tag"]] = _merge_value(field, value)
        if not lenient:
            for tag, field in fields.items():
                if field["required"] and merge.get(tag) in (None, ""):
                    raise _bad_merge(tag, "This value should not be blank.")
        extra = {name: body[name] for name in _EXTRA if name in body}
        if old is not None and old["extra"]:
            extra = {**orjson.loads(old["extra"]), **extra}
        same = old is not None and (old["status"], before, old["email"]) == (status, merge, email)
        opted = old["timestamp_opt"] if old else None
        if status == "subscribed" and (old is None or old["status"] != "subscribed"):
            opted = now
        compliance = bool(old and old["is_compliance"]) and status != "subscribed"
        return (
            list_id, hashed, email, status, int(compliance), 0, orjson.dumps(merge), orjson.dumps(extra),
            old["timestamp_signup"] if old else now, opted, old["last_changed"] if old and same else now,
            old["source"] if old else "API - Generic",
            (old["unsubscribe_reason"] if old else None) if status == "unsubscribed" else None,
        )  # fmt: skip

    def _save(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self.store.many(f"insert or replace into mailchimp_members values ({', '.join('?' * 13)})", rows)

    # tags of one member

    def get_member_tags(self, call: Call, list_id: str, member_id: str) -> Answer:
        """All tags of a member."""
        _params(call, {"fields", "exclude_fields", "count", "offset"})
        row = self._member(list_id, member_id)
        tags = self.store.all(
            "select s.id, s.name, m.added_at as date_added from mailchimp_segment_members as m "
            "inner join mailchimp_segments as s on m.segment_id = s.id where m.list_id = ? and m.hash = ? "
            "order by s.id",
            list_id, row["hash"],
        )  # fmt: skip
        call.rows = len(tags)
        return _shown(call, {"tags": [dict(tag) for tag in tags], "total_items": len(tags)})

    def set_member_tags(self, call: Call, list_id: str, member_id: str) -> Answer:
        """Set tags active or inactive; `is_syncing` keeps automations quiet."""
        _params(call, set())
        row = self._member(list_id, member_id)
        body = _object(call, {"tags", "is_syncing"})
        tags, quiet = body.get("tags"), body.get("is_syncing", False)
        if not isinstance(tags, list) or not isinstance(quiet, bool):
            _invalid([("tags", "Schema describes array of {name, status}")])
        now = _clock(call)
        for tag in tags:
            if not isinstance(tag, dict) or set(tag) != {"name", "status"} or not isinstance(tag["name"], str):
                _invalid([("tags", "Schema describes array of {name, status}")])
            if tag["status"] not in ("active", "inactive") or not tag["name"].strip():
                _invalid([("tags", "The status of a tag is active or inactive.")])
        call.rows = len(tags)
        for tag in tags:
            if tag["status"] == "active":
                segment = self._segment_named(list_id, tag["name"], now)
                trigger = "" if quiet else "tag on member"
                self._tag(list_id, segment, tag["name"], [row["hash"]], now, trigger=trigger)
            else:
                segment = self.store.value(
                    "select id from mailchimp_segments where list_id = ? and name = ?", list_id, tag["name"]
                )
                self._untag(segment, [row["hash"]], now)
        return Answer(204)

    def _segment_named(self, list_id: str, name: str, now: str) -> int:
        found = self.store.value("select id from mailchimp_segments where list_id = ? and name = ?", list_id, name)
        if found is not None:
            return int(found)
        cursor = self.store.run(
            "insert into mailchimp_segments (list_id, name, created_at, updated_at) values (?, ?, ?, ?)",
            list_id, name, now, now,
        )  # fmt: skip
        return int(cursor.lastrowid or 0)

    def _tag(
        self, list_id: str, segment: int, name: str, hashes: Sequence[str], now: str, *, trigger: str
    ) -> list[str]:
        """Tag members; returns those that did not have the tag. A trigger fires automations for the subscribed ones."""
        marks = ", ".join("?" * len(hashes))
        have = {
            row["hash"]
            for row in self.store.all(
                f"select hash from mailchimp_segment_members where segment_id = ? and hash in ({marks})",
                segment, *hashes,
            )
        }  # fmt: skip
        added = [one for one in dict.fromkeys(hashes) if one not in have]
        if not added:
            return []
        self.store.many(
            "insert into mailchimp_segment_members values (?, ?, ?, ?)",
            [(segment, list_id, one, now) for one in added],
        )
        self.store.run("update mailchimp_segments set updated_at = ? where id = ?", now, segment)
        if trigger:
            rows = self._rows(list_id, added)
            self.store.many(
                "insert into automations (at, list_id, segment_id, tag, email, trigger) values (?, ?, ?, ?, ?, ?)",
                [
                    (now, list_id, segment, name, rows[one]["email"], trigger)
                    for one in added
                    if rows[one]["status"] == "subscribed"
                ],
            )
        return added

    def _untag(self, segment: int | None, hashes: Sequence[str], now: str) -> list[str]:
        marks = ", ".join("?" * len(hashes))
        had = [
            row["hash"]
            for row in self.store.all(
                f"select hash from mailchimp_segment_members where segment_id = ? and hash in ({marks})",
                segment, *hashes,
            )
        ]  # fmt: skip
        self.store.many(
            "delete from mailchimp_segment_members where segment_id = ? and hash = ?", [(segment, one) for one in had]
        )
        if had:
            self.store.run("update mailchimp_segments set updated_at = ? where id = ?", now, segment)
        return had

    def _drop_other_tags(self, list_id: str, hashed: str, keep: Sequence[str]) -> None:
        marks = ", ".join("?" * len(keep))
        self.store.run(
            "delete from mailchimp_segment_members where list_id = ? and hash = ? and segment_id not in "
            f"(select id from mailchimp_segments where list_id = ? and name in ({marks}))",
            list_id, hashed, list_id, *keep,
        )  # fmt: skip

    # merge fields

    def get_merge_fields(self, call: Call, list_id: str) -> Answer:
        """The merge fields of an audience."""
        self._list(list_id)
        _params(call, {"fields", "exclude_fields", "count", "offset", "type", "required"})
        count, offset = _page(call)
        fields = list(self._fields(list_id).values())
        page = fields[offset : offset + count]
        call.rows = len(page)
        return _shown(call, {"merge_fields": page, "list_id": list_id, "total_items": len(fields), "_links": []})

    def add_merge_field(self, call: Call, list_id: str) -> Answer:
        """Make a merge field; its tag has at most 10 characters."""
        self._list(list_id)
        _params(call, set())
        body = _object(
            call,
            {"tag", "name", "type", "required", "default_value", "public", "display_order", "options", "help_text"},
        )
        _required(body, ("name", "type"))
        fields = self._fields(list_id)
        kinds = {"required": bool, "public": bool, "display_order": int, "options": dict}
        for name, value in body.items():
            expected = kinds.get(name, str)
            if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
                _invalid([(name, f"Schema describes {_WORDS[expected]}, {_word(value)} found instead")])
        merge_id = max((int(field["merge_id"]) for field in fields.values()), default=0) + 1
        tag = body.get("tag") or f"MMERGE{merge_id}"
        if len(tag) > TAG_MAX:
            _invalid([("tag", f"This value is too long. It should have {TAG_MAX} characters or less.")])
        if not re.fullmatch(r"[A-Za-z0-9_]+", tag):
            _invalid([("tag", "A merge tag holds letters, digits and underscores only.")])
        if body["type"] not in MERGE_TYPES:
            _invalid([("type", f"{body['type']} is not a merge field type.")])
        if not body["name"].strip() or len(body["name"]) > 50:
            _invalid([("name", "This value should have 1 to 50 characters.")])
        if tag.upper() in fields or tag.upper() in ("EMAIL", "UNIQID", "LIST"):
            raise Refusal(
                _problem(400, "Invalid Resource", f'A Merge Field with the tag "{tag}" already exists for this list.')
            )
        if len(fields) >= MERGE_FIELDS_MAX:
            raise Refusal(
                _problem(400, "Merge Max Limit Exceeded", "This list has as many merge fields as it may have.")
            )
        put_merge_field(self.store, list_id, merge_id, tag.upper(), body)
        return Answer(body=self._fields(list_id)[tag.upper()])

    def _fields(self, list_id: str) -> dict[str, dict[str, Any]]:
        return {
            row["tag"]: orjson.loads(row["body"])
            for row in self.store.all(
                "select tag, body from mailchimp_merge_fields where list_id = ? order by merge_id", list_id
            )
        }

    # segments

    def search_tags(self, call: Call, list_id: str) -> Answer:
        """Tags whose name begins with the text."""
        self._list(list_id)
        params = _params(call, {"name"})
        rows = self.store.all(
            "select id, name from mailchimp_segments where list_id = ? and lower(substr(name, 1, ?)) = lower(?) "
            "order by name",
            list_id, len(params.get("name", "")), params.get("name", ""),
        )  # fmt: skip
        call.rows = len(rows)
        return Answer(body={"tags": [dict(row) for row in rows], "total_items": len(rows)})

    def get_segments(self, call: Call, list_id: str) -> Answer:
        """The segments of an audience; every one here is static, that is a tag."""
        self._list(list_id)
        params = _params(
            call,
            {
                "fields", "exclude_fields", "count", "offset", "type", "since_created_at", "before_created_at",
                "include_cleaned", "include_transactional", "include_unsubscribed", "since_updated_at",
                "before_updated_at",
            },
        )  # fmt: skip
        count, offset = _page(call)
        if params.get("type", "static") not in ("static", "saved", "fuzzy"):
            _invalid([("type", "This value must be saved, static or fuzzy.")])
        statuses = _included(params)
        rows = []
        if params.get("type", "static") == "static":
            rows = self.store.all("select * from mailchimp_segments where list_id = ? order by id", list_id)
        page = rows[offset : offset + count]
        call.rows = len(page)
        return _shown(
            call,
            {
                "segments": [self._segment_out(row, statuses) for row in page],
                "list_id": list_id,
                "total_items": len(rows),
                "_links": [],
            },
        )

    def add_segment(self, call: Call, list_id: str) -> Answer:
        """Make a static segment, which is a tag; its name is unique in the audience."""
        self._list(list_id)
        _params(call, set())
        body = _object(call, {"name", "static_segment", "options"})
        _required(body, ("name",))
        name = body["name"]
        if not isinstance(name, str) or not name.strip() or len(name) > 100:
            _invalid([("name", "This value should have 1 to 100 characters.")])
        if "options" in body:
            _invalid([("options", "Saved segments with conditions are not kept here; give static_segment.")])
        if "static_segment" not in body:
            _invalid([("static_segment", "Either static_segment or options is required.")])
        emails = _addresses(body, "static_segment")
        if self._segment_exists(list_id, name):
            raise Refusal(_problem(400, "Bad Request", "Sorry, that tag already exists."))
        now = _clock(call)
        segment = self._segment_named(list_id, name, now)
        call.rows = len(emails)
        self._tag(list_id, segment, name, self._on_list(list_id, emails), now, trigger="segment created")
        return Answer(body=self._segment_out(self._segment(list_id, str(segment)), ("subscribed",)))

    def get_segment(self, call: Call, list_id: str, segment_id: str) -> Answer:
        """One segment."""
        params = _params(
            call,
            {"fields", "exclude_fields", "include_cleaned", "include_transactional", "include_unsubscribed"},
        )
        return _shown(call, self._segment_out(self._segment(list_id, segment_id), _included(params)))

    def change_segment(self, call: Call, list_id: str, segment_id: str) -> Answer:
        """Add and remove up to 500 each; addresses that are not on the list are ignored without a word."""
        _params(call, set())
        segment = self._segment(list_id, segment_id)
        body = _object(call, {"members_to_add", "members_to_remove"})
        add, remove = _addresses(body, "members_to_add"), _addresses(body, "members_to_remove")
        if not body:
            _invalid([("", "members_to_add or members_to_remove is required.")])
        call.rows = len(add) + len(remove)
        now = _clock(call)
        errors = []
        malformed = [email for email in (*add, *remove) if not _EMAIL.fullmatch(email)]
        if malformed:
            errors.append({"email_addresses": malformed, "error": "Email address is not valid."})
        listed = self._on_list(list_id, add)
        added = self._tag(list_id, segment["id"], segment["name"], listed, now, trigger="added to segment")
        removed = self._untag(segment["id"], [subscriber_hash(email) for email in remove], now)
        rows = self._rows(list_id, [*added, *removed])
        return Answer(
            body={
                "members_added": self._members_out(list_id, [rows[one] for one in added]),
                "members_removed": self._members_out(list_id, [rows[one] for one in removed]),
                "errors": errors,
                "total_added": len(added),
                "total_removed": len(removed),
                "error_count": len(errors),
                "_links": [],
            }
        )

    def replace_segment(self, call: Call, list_id: str, segment_id: str) -> Answer:
        """Rename, or replace the members: an empty list empties it."""
        _params(call, set())
        segment = self._segment(list_id, segment_id)
        body = _object(call, {"name", "static_segment"})
        now = _clock(call)
        name = body.get("name", segment["name"])
        if not isinstance(name, str) or not name.strip() or len(name) > 100:
            _invalid([("name", "This value should have 1 to 100 characters.")])
        if name != segment["name"] and self._segment_exists(list_id, name):
            raise Refusal(_problem(400, "Bad Request", "Sorry, that tag already exists."))
        self.store.run("update mailchimp_segments set name = ?, updated_at = ? where id = ?", name, now, segment["id"])
        if "static_segment" in body:
            emails = _addresses(body, "static_segment")
            call.rows = len(emails)
            wanted = set(self._on_list(list_id, emails))
            current = {
                row["hash"]
                for row in self.store.all(
                    "select hash from mailchimp_segment_members where segment_id = ?", segment["id"]
                )
            }
            self.store.many(
                "delete from mailchimp_segment_members where segment_id = ? and hash = ?",
                [(segment["id"], one) for one in current - wanted],
            )
            self._tag(list_id, segment["id"], name, sorted(wanted), now, trigger="segment replaced")
        return Answer(body=self._segment_out(self._segment(list_id, segment_id), ("subscribed",)))

    def delete_segment(self, call: Call, list_id: str, segment_id: str) -> Answer:
        """Drop a segment; its members stay in the audience."""
        _params(call, set())
        segment = self._segment(list_id, segment_id)
        self.store.run("delete from mailchimp_segment_members where segment_id = ?", segment["id"])
        self.store.run("delete from mailchimp_segments where id = ?", segment["id"])
        return Answer(204)

    def get_segment_members(self, call: Call, list_id: str, segment_id: str) -> Answer:
        """Read a segment back; only subscribed members unless the include flags say otherwise."""
        params = _params(
            call,
            {
                "fields", "exclude_fields", "count", "offset", "include_cleaned", "include_transactional",
                "include_unsubscribed",
            },
        )  # fmt: skip
        segment = self._segment(list_id, segment_id)
        count, offset = _page(call)
        statuses = _included(params)
        marks = ", ".join("?" * len(statuses))
        base = (
            "from mailchimp_segment_members as s inner join mailchimp_members as m on m.list_id = s.list_id "
            f"and m.hash = s.hash where s.segment_id = ? and m.status in ({marks}) and not m.is_forgotten"
        )
        rows = self.store.all(
            f"select m.* {base} order by s.hash limit ? offset ?", segment["id"], *statuses, count, offset
        )
        total = self.store.value(f"select count(*) {base}", segment["id"], *statuses)
        call.rows = len(rows)
        return _shown(call, {"members": self._members_out(list_id, rows), "total_items": total, "_links": []})

    def _segment(self, list_id: str, segment_id: str) -> sqlite3.Row:
        self._list(list_id)
        row = None
        if segment_id.isdigit():
            row = self.store.one(
                "select * from mailchimp_segments where list_id = ? and id = ?", list_id, int(segment_id)
            )
        if row is None:
            raise Refusal(_not_found())
        return row

    def _segment_exists(self, list_id: str, name: str) -> bool:
        found = self.store.value(
            "select 1 from mailchimp_segments where list_id = ? and lower(name) = lower(?)", list_id, name
        )
        return found is not None

    def _segment_out(self, row: sqlite3.Row, statuses: Sequence[str]) -> dict[str, Any]:
        marks = ", ".join("?" * len(statuses))
        count = self.store.value(
            "select count(*) from mailchimp_segment_members as s inner join mailchimp_members as m "
            f"on m.list_id = s.list_id and m.hash = s.hash where s.segment_id = ? and m.status in ({marks})",
            row["id"], *statuses,
        )  # fmt: skip
        return {
            "id": row["id"],
            "name": row["name"],
            "member_count": count,
            "type": "static",
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
            "list_id": row["list_id"],
        }

    def _on_list(self, list_id: str, emails: Sequence[str]) -> list[str]:
        hashes = list(dict.fromkeys(subscriber_hash(email) for email in emails))
        rows = self._rows(list_id, hashes)
        return [
            one for one in hashes if one in rows and not rows[one]["is_forgotten"] and rows[one]["status"] != "archived"
        ]


def _next_status(email: str, old: sqlite3.Row | None, status: str | None, status_if_new: str | None) -> str:
    """What the member becomes; RowRefused where Mailchimp does not let that happen."""
    for name, value in (("status", status), ("status_if_new", status_if_new)):
        if value is not None and value not in STATUSES:
            raise RowRefused(
                "Invalid Resource",
                f"{value} is not a valid status.",
                field=name,
                field_message="This value is not one of the allowed statuses.",
            )
    if old is not None and old["is_forgotten"]:
        raise RowRefused(
            "Forgotten Email Not Subscribed",
            f"{email} was permanently deleted and cannot be re-imported. The contact must re-subscribe to get back on "
            "the list.",
        )
    if old is None:
        chosen = status or status_if_new
        if chosen is None:
            raise RowRefused(
                "Invalid Resource",
                "The resource submitted could not be validated.",
                field="status",
                field_message="This value should not be blank: the address is new to this list.",
            )
        return chosen
    if status is None or status == old["status"]:
        return str(old["status"])
    bounced = old["status"] == "cleaned"
    if (
        (old["is_compliance"] or bounced)
        and status not in ("unsubscribed", "cleaned")
        and (status != "pending" or bounced)
    ):
        raise RowRefused(
            "Member In Compliance State",
            f"{email} is in a compliance state due to unsubscribe, bounce, or compliance review and cannot be "
            "subscribed.",
        )
    return status


def _merge_value(field: Mapping[str, Any], value: object) -> Any:
    tag, kind = field["tag"], field["type"]
    if kind == "address":
        if isinstance(value, dict) or value == "":
            return value
        raise _bad_merge(tag, "Please enter a complete address")
    if kind == "number":
        if value == "":
            return value
        try:
            number = float(value) if isinstance(value, str) or is_int(value) or isinstance(value, float) else None  # type: ignore[arg-type]
        except ValueError:
            number = None
        if number is None:
            raise _bad_merge(tag, "Please enter a number")
        return int(number) if number == int(number) else number
    if not isinstance(value, str):
        raise _bad_merge(tag, f"Schema describes string, {_word(value)} found instead")
    if value == "":
        return value
    if kind in ("url", "imageurl") and not re.fullmatch(r"https?://[^\s/]+\S*", value):
        raise _bad_merge(tag, "Please enter a valid URL")
    if kind == "date" and not re.fullmatch(r"\d{4}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/\d{4}", value):
        raise _bad_merge(tag, "Please enter the date")
    if kind == "birthday" and not re.fullmatch(r"\d{1,2}/\d{1,2}", value):
        raise _bad_merge(tag, "Please enter a month (01-12) and a day (01-31)")
    if kind == "zip" and not re.fullmatch(r"\d{5}", value):
        raise _bad_merge(tag, "Please enter a zip code (5 digits)")
    if kind in ("dropdown", "radio") and value not in field["options"].get("choices", []):
        raise _bad_merge(tag, "This value is not one of the choices")
    if kind == "text" and len(value) > TEXT_MAX:
        raise _bad_merge(tag, f"Value must be less than {TEXT_MAX + 1} characters")
    return value


def _bad_merge(tag: str, message: str) -> RowRefused:
    return RowRefused("Invalid Resource", "Your merge fields were invalid.", field=tag, field_message=message)


def _row_error(email: str, refused: RowRefused) -> dict[str, str]:
    return {
        "email_address": email,
        "error": refused.detail,
        "error_code": refused.code,
        "field": refused.field,
        "field_message": refused.field_message,
    }


def subscriber_hash(email: str) -> str:
    """Mailchimp's id of an address: the MD5 of it in lower case."""
    address = email.strip().lower()
    return email_md5(address) if address else ""


def _hash_of(member_id: str) -> str:
    """A member in a path is a hash, a contact id (the same here) or an address."""
    return subscriber_hash(member_id) if "@" in member_id else member_id.lower()


_WORDS: dict[type, str] = {str: "string", bool: "boolean", dict: "object", list: "array", int: "integer"}


def _word(value: object) -> str:
    if value is None:
        return "NULL"
    return {**_WORDS, float: "number"}.get(type(value), "something else")


def _problem(status: int, title: str, detail: str, **more: Any) -> Answer:
    body = {
        "type": _PROBLEMS,
        "title": title,
        "status": status,
        "detail": detail,
        "instance": str(uuid.uuid4()),
        **more,
    }
    return Answer(status, body, media_type="application/problem+json")


def _invalid(errors: Sequence[tuple[str, str]]) -> NoReturn:
    raise Refusal(
        _problem(
            400,
            "Invalid Resource",
            "The resource submitted could not be validated. For field-specific details, see the 'errors' array.",
            errors=[{"field": field, "message": message} for field, message in errors],
        )
    )


def _not_found() -> Answer:
    return _problem(404, "Resource Not Found", "The requested resource could not be found.")


def _params(call: Call, allowed: set[str]) -> dict[str, str]:
    for name in call.params:
        if name not in allowed:
            raise Refusal(_problem(400, "Invalid Parameters", f"The query parameter '{name}' is not known here."))
    return call.params


def _flag(params: Mapping[str, str], name: str) -> bool:
    value = params.get(name, "false")
    if value not in ("true", "false"):
        raise Refusal(_problem(400, "Invalid Parameters", f"The query parameter '{name}' is true or false."))
    return value == "true"


def _page(call: Call) -> tuple[int, int]:
    numbers = []
    for name, default, most in (("count", "10", COUNT_MAX), ("offset", "0", None)):
        text = call.params.get(name, default)
        if not text.isdigit():
            raise Refusal(_problem(400, "Invalid Parameters", f"The query parameter '{name}' is a whole number."))
        if most is not None and int(text) > most:
            raise Refusal(_problem(400, "Invalid Parameters", f"The query parameter '{name}' is at most {most}."))
        numbers.append(int(text))
    return numbers[0], numbers[1]


def _included(params: Mapping[str, str]) -> tuple[str, ...]:
    more = [name for name in ("cleaned", "transactional", "unsubscribed") if _flag(params, f"include_{name}")]
    return ("subscribed", *more)


def _stamp(text: str, name: str) -> str:
    """A time from a query, in the form the members carry."""
    try:
        return _iso(epoch(text.replace(" ", "+")))
    except ValueError:
        raise Refusal(
            _problem(400, "Invalid Parameters", f"The query parameter '{name}' is an ISO 8601 time.")
        ) from None


def _iso(moment: float) -> str:
    return iso(moment, "seconds").replace("Z", "+00:00")


def _clock(call: Call) -> str:
    return _iso(call.now)


def _object(call: Call, allowed: set[str]) -> dict[str, Any]:
    if call.media_type not in ("application/json", ""):
        raise Refusal(_problem(415, "Unsupported Media Type", "The request body must be application/json."))
    try:
        body = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        raise Refusal(_problem(400, "JSON Parse Error", "We encountered an unspecified JSON parsing error.")) from None
    if not isinstance(body, dict):
        _invalid([("", f"Schema describes object, {_word(body)} found instead")])
    unknown = [name for name in body if name not in allowed]
    if unknown:
        _invalid([(name, "This field is not part of the schema.") for name in unknown])
    return body


def _required(body: Mapping[str, Any], names: Sequence[str]) -> None:
    missing = [(name, "This value should not be blank.") for name in names if body.get(name) in (None, "")]
    if missing:
        _invalid(missing)


def _addresses(body: Mapping[str, Any], name: str) -> list[str]:
    values = body.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        _invalid([(name, "Schema describes array of email addresses")])
    if len(values) > BATCH_MAX:
        _invalid([(name, f"You may only add or remove up to {BATCH_MAX} members at a time.")])
    return values


def _shown(call: Call, body: dict[str, Any]) -> Answer:
    """The body, cut down to `fields` or without `exclude_fields`."""
    wanted, unwanted = call.params.get("fields"), call.params.get("exclude_fields")
    if wanted:
        body = _keep(body, [part.strip().split(".") for part in wanted.split(",")])
    elif unwanted:
        body = _drop(body, [part.strip().split(".") for part in unwanted.split(",")])
    return Answer(body=body)


def _keep(value: Any, paths: Sequence[Sequence[str]]) -> Any:
    if isinstance(value, list):
        return [_keep(one, paths) for one in value]
    if not isinstance(value, dict) or any(not path for path in paths):
        return value
    heads: dict[str, list[Sequence[str]]] = {}
    for path in paths:
        heads.setdefault(path[0], []).append(path[1:])
    return {name: _keep(value[name], rest) for name, rest in heads.items() if name in value}


def _drop(value: Any, paths: Sequence[Sequence[str]]) -> Any:
    if isinstance(value, list):
        return [_drop(one, paths) for one in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for name, inner in value.items():
        rest = [path[1:] for path in paths if path[0] == name]
        if any(not path for path in rest):
            continue
        result[name] = _drop(inner, rest) if rest else inner
    return result


# seeds and what people do themselves


def load_seed(store: Store, folder: Path, now: float) -> None:
    """Bring in the audiences and the people of the seed; tags and members made by clients stay."""
    store.run("delete from mailchimp_members where source = 'Signup Form'")
    for row in seed_rows(folder / "lists.jsonl"):
        make_list(store, row["id"], row["name"], row.get("date_created") or _iso(now))
    put_members(store, seed_rows(folder / "members.jsonl"), now)


def make_list(store: Store, list_id: str, name: str, created_at: str) -> None:
    """An audience with the merge fields every audience begins with."""
    store.run(
        "insert into mailchimp_lists values (?, ?, ?) on conflict (id) do update set name = excluded.name",
        list_id, name, created_at,
    )  # fmt: skip
    if not store.value("select count(*) from mailchimp_merge_fields where list_id = ?", list_id):
        for number, (tag, label, kind) in enumerate(_DEFAULT_MERGE_FIELDS, start=1):
            put_merge_field(store, list_id, number, tag, {"name": label, "type": kind})


def put_merge_field(store: Store, list_id: str, merge_id: int, tag: str, body: Mapping[str, Any]) -> None:
    """Write a merge field down in the shape the API answers with."""
    shown = {
        "merge_id": merge_id,
        "tag": tag,
        "name": body["name"],
        "type": body["type"],
        "required": body.get("required", False),
        "default_value": body.get("default_value", ""),
        "public": body.get("public", False),
        "display_order": body.get("display_order", merge_id + 1),
        "options": body.get("options", {}),
        "help_text": body.get("help_text", ""),
        "list_id": list_id,
    }
    store.run(
        "insert into mailchimp_merge_fields values (?, ?, ?, ?, ?, ?, ?)",
        list_id, merge_id, tag, shown["name"], shown["type"], int(shown["required"]), orjson.dumps(shown),
    )  # fmt: skip


def put_members(store: Store, rows: Iterable[Mapping[str, Any]], now: float) -> int:
    """Members as they came about outside the API: who is unsubscribed here did it herself. Returns how many."""

    def values() -> Iterator[tuple[Any, ...]]:
        for row in rows:
            email = row["email_address"].strip()
            changed = row.get("last_changed") or _iso(now)
            status = row.get("status", "subscribed")
            yield (
                row["list_id"], subscriber_hash(email), email, status, int(status in ("unsubscribed", "cleaned")), 0,
                orjson.dumps(row.get("merge_fields", {})), b"{}",
                _iso(epoch(row["timestamp_signup"])) if row.get("timestamp_signup") else "",
                _iso(epoch(row.get("timestamp_opt") or changed)), _iso(epoch(changed)), "Signup Form",
                row.get("unsubscribe_reason") or ("No longer interested" if status == "unsubscribed" else None),
            )  # fmt: skip

    listed = list(values())
    store.many(f"insert or replace into mailchimp_members values ({', '.join('?' * 13)})", listed)
    return len(listed)


def act(store: Store, list_id: str, email: str, status: str, now: float) -> bool:
    """What happens to a member outside the API: unsubscribes, bounces, confirms, is erased. False: no such member."""
    hashed = subscriber_hash(email)
    if store.one("select 1 from mailchimp_members where list_id = ? and hash = ?", list_id, hashed) is None:
        return False
    if status == "forgotten":
        forget(store, list_id, hashed, _iso(now))
        return True
    store.run(
        "update mailchimp_members set email = ?, status = ?, is_compliance = ?, is_forgotten = 0, last_changed = ?, "
        "unsubscribe_reason = ? where list_id = ? and hash = ?",
        email.strip(), status, int(status in ("unsubscribed", "cleaned")), _iso(now),
        "No longer interested" if status == "unsubscribed" else None, list_id, hashed,
    )  # fmt: skip
    return True


def forget(store: Store, list_id: str, hashed: str, now: str) -> None:
    """Delete a member for good, tags and all; only the hash stays, as a block."""
    store.run("delete from mailchimp_segment_members where list_id = ? and hash = ?", list_id, hashed)
    store.run("delete from automations where list_id = ? and email = (select email from mailchimp_members "
              "where list_id = ? and hash = ?)", list_id, list_id, hashed)  # fmt: skip
    store.run(
        "update mailchimp_members set is_forgotten = 1, email = '', merge_fields = '{}', extra = '{}', "
        "status = 'archived', is_compliance = 0, last_changed = ?, unsubscribe_reason = null "
        "where list_id = ? and hash = ?",
        now, list_id, hashed,
    )  # fmt: skip
