"""Mailchimp: the audience is a tag, its details are merge fields, on one Mailchimp list (there: "audience").

Facts as of 2026-11-23; where the vendor's pages are silent it is said:
- A tag is a static segment of the list. `POST /lists/{id}` takes 500 members, answers 200 and tells bad rows in
  `errors[]`. `sync_tags: false` leaves a member's other tags alone.
  https://mailchimp.com/developer/marketing/api/lists/
- `status` in a write re-subscribes people who said no, so no request of ours carries it. New contacts come in by
  `status_if_new: transactional` (no marketing mail) or not at all. Whether the batch call knows `status_if_new` on
  every account is not documented (the 3.0.8x clients send it); rows refused for want of a status go one by one by PUT.
- Who unsubscribed, bounced or was deleted for good is refused by Mailchimp or comes back with that status; she is
  `rejected` and taken off the tag. The common workaround (`pending`, which mails her a question) is not used.
- Too many calls at once are answered by 429, or by a bare 403 without a JSON body; a 403 with JSON is about rights.
  https://mailchimp.com/developer/marketing/docs/fundamentals/#throttling
- Members who are on a segment but get no marketing mail are left out of reads unless `include_*` flags are set, and the
  count that Mailchimp shows beside a tag counts subscribed people only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, ClassVar, Literal, cast
from urllib.parse import urlsplit

import httpx
import msgspec
from pydantic import Field

from include.connections import Connection
from include.destinations.base import Destination, DestinationSettings, Member, OptOut, RowResult
from include.destinations.http import Answer, HttpApi, without_people
from include.errors import AudienceRejected, BatchRefused, ConfigurationError, ListGone, TransientError
from include.pacing import Limits

PAGE_ROWS = 1000
OVERLAP = 20  # rows of a page that were on the one before
MAX_STEPS_BACK = 100
TEXT_CHARACTERS = 255
RECEIVING = {"subscribed", "transactional"}  # a member with one of these may carry our tag
_COMPLIANCE = "Member In Compliance State: unsubscribed, bounced or under review at Mailchimp"
_FORGOTTEN = "Forgotten Email Not Subscribed: erased at Mailchimp, only she can come back"
_STATUS_REASONS = {status: f"{status} at Mailchimp" for status in ("unsubscribed", "cleaned", "archived", "pending")}
_OTHER_STATUS = "without a status that may be mailed at Mailchimp"
_MAY_NOT_RECEIVE = {_COMPLIANCE, _FORGOTTEN, _OTHER_STATUS, *_STATUS_REASONS.values()}
_NOT_THERE = "not on the Mailchimp list"


class MailchimpSettings(DestinationSettings):
    """Options in the audience file."""

    audience: str = Field(
        title="Mailchimp audience",
        description="the list in Mailchimp that gets the tag, by its exact name",
        min_length=1,
    )
    new_contacts: Literal["transactional", "skip"] = Field(
        "transactional",
        title="People who are not on the list yet",
        description="transactional: add them without marketing consent; skip: leave them out",
    )


class Mailchimp(Destination):
    """A tag and merge fields on one list; people are never subscribed or unsubscribed by us."""

    name = "mailchimp"
    label = "Mailchimp"
    description = "A tag with merge fields on a Mailchimp audience; start campaigns and flows from the tag."
    channel = "email"
    api_version = "3.0"
    docs_url = "https://mailchimp.com/developer/marketing/api/"
    identifiers = ("email",)
    max_batch_rows = 500
    connections = 4
    limits = Limits(connections=6)  # of the ten that an account has for all apps together
    has_fields = True
    passing_refusals = frozenset({*_MAY_NOT_RECEIVE, _NOT_THERE})
    Settings: ClassVar[type[DestinationSettings]] = MailchimpSettings

    def __init__(self, connection: Connection, settings: DestinationSettings | None = None) -> None:
        super().__init__(connection, settings)
        self.options = cast(MailchimpSettings, self.settings)
        self._tags: dict[str, str] = {}  # list_id -> name of the tag
        token = connection.extra.get("access_token")
        self.api = HttpApi(
            self.label,
            _base_url(connection),
            connection.conn_id,
            auth=None if token else ("rekindle", connection.secret("Mailchimp API key")),
            headers={"Authorization": f"Bearer {token}"} if token else None,
            is_throttled=_is_bare_403,
            pace=self.pace,
            key_hint="Make a new key in Mailchimp under Account > Extras > API keys and put it into the connection.",
            rights_hint="The user who made the key needs the role Manager or higher in Mailchimp.",
        )

    def check(self) -> None:
        self._done(self.api.call("GET", "/ping", "log in"), "log in")
        self._list_id()

    def ensure_audience(self, label: str, description: str, fields: Sequence[str]) -> str:
        list_id = self._list_id()
        self._ensure_merge_fields(list_id, fields)
        segment_id = self._segment_id(list_id, label)
        if segment_id is None:
            what = f"create the tag '{label}'"
            body = {"name": label, "static_segment": []}
            answer = self.api.call("POST", f"/lists/{list_id}/segments", what, json=body)
            # A repeat after a cut connection finds the name taken, by ourselves.
            segment_id = str(answer.data["id"]) if answer.ok else self._segment_id(list_id, label)
            if segment_id is None:
                raise AudienceRejected(f"Mailchimp does not accept the tag '{label}': {answer.problem()}")
        found = f"{list_id}/{segment_id}"
        self._tags[found] = label
        return found

    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        if not batch:
            return []
        audience, segment = _split(list_id)
        tag = self._tag(list_id)
        keys = [_address(member).lower() for member in batch]
        rows = {key: self._row(member, tag) for key, member in zip(keys, batch, strict=True)}
        what = f"add {len(rows)} members"
        answer = self.api.call(
            "POST",
            f"/lists/{audience}",
            what,
            params={"skip_merge_validation": "true", "skip_duplicate_check": "true"},
            json={"members": list(rows.values()), "update_existing": True, "sync_tags": False},
            shape=_Added,
        )
        self._must_be_good(answer, what, is_batch=True)
        told = answer.data or _Added()
        results: dict[str, RowResult] = {}
        untagged: list[str] = []
        for members in (told.new_members, told.updated_members):
            for member in members or ():
                address = (member.email_address or "").lower()
                results[address] = result = _judge(member.status or "")
                if result is _ACCEPTED and tag not in [item.name for item in member.tags or ()]:
                    untagged.append(address)
        for error in told.errors or ():
            address = str(error.get("email_address", "")).lower()
            if address not in rows:
                continue
            if not _wants_status(error):
                results[address] = RowResult("rejected", _reason(error))
            elif self.options.new_contacts == "skip":
                results[address] = RowResult("rejected", _NOT_THERE)
            else:
                results[address] = self._put(audience, rows[address])
                if results[address].status == "accepted":
                    untagged.append(address)
        if untagged:
            results.update(self._tag_by_segment(audience, segment, untagged))
        # Who may not be mailed must not be found under the tag, now or from an earlier day.
        unwelcome = [
            address
            for address, result in results.items()
            if result is not _ACCEPTED and result.reason in _MAY_NOT_RECEIVE and address in rows
        ]
        if unwelcome:
            self._take_off(audience, segment, unwelcome)
        return [results.get(key, _UNANSWERED) for key in keys]

    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        if not batch:
            return []
        audience, segment = _split(list_id)
        failed = self._take_off(audience, segment, [_address(member) for member in batch])
        # What errors say of people who are not there is nowhere documented (2026-11), so each is looked at.
        failed = {address: why for address, why in failed.items() if self._is_tagged(audience, address, list_id)}
        # Never `rejected`: a leaver must not stay because her row does not change any more.
        return [
            RowResult("retry", failed[address]) if (address := _address(member).lower()) in failed
            else RowResult("accepted")
            for member in batch
        ]  # fmt: skip

    def opt_out_scope(self) -> str:
        return self.options.audience

    def read_opt_outs(self, since: datetime | None, said_no: Collection[str] | None = None) -> Iterator[OptOut]:
        list_id = self._list_id()
        for status in ("unsubscribed", "cleaned"):
            for member in self._members_changed(list_id, status, since):
                if member.get("email_address"):  # else a contact with a phone number only
                    yield _opt_out(member, status)
        if since is None or (said_no is not None and not said_no):
            return  # who came back matters only to those who were told about before
        changed = self._members_changed(list_id, "subscribed", since)
        found = list(islice(changed, PAGE_ROWS))
        if said_no is not None and len(found) == PAGE_ROWS:  # our own writes of fields and tags are changes, too
            members = (self._member(list_id, address, "email_address,status,last_changed") for address in said_no)
            found = [member for member in members if member and member.get("status") == "subscribed"]
        else:
            found += changed
        for member in found:
            if member.get("email_address"):
                yield _opt_out(member, "subscribed")

    def read_back(self, list_id: str) -> Iterator[str]:
        """See the base. Who leaves meanwhile moves the others up, so pages overlap: each begins with a known member."""
        audience, segment = _split(list_id)
        path = f"/lists/{audience}/segments/{segment}/members"
        params: dict[str, Any] = {"fields": "members.email_address", "count": PAGE_ROWS}
        params |= {f"include_{kind}": "true" for kind in ("cleaned", "transactional", "unsubscribed")}
        what, seen, offset, steps_back = "read the tag back", set[str](), 0, 0
        while True:
            answer = self.api.call("GET", path, what, params={**params, "offset": offset})
            members = self._done(answer, what).get("members", [])
            page = [str(member.get("email_address") or "").lower() for member in members]  # "": a phone number only
            if offset and (not page or page[0] not in seen):
                steps_back += 1
                if steps_back > MAX_STEPS_BACK:
                    raise TransientError("Mailchimp: the members of the tag keep changing while we read them back")
                offset = max(offset - PAGE_ROWS, 0)
                continue
            yield from (address for address in page if address and address not in seen)
            seen.update(page)
            if len(page) < PAGE_ROWS:
                return
            offset += PAGE_ROWS - OVERLAP

    def erase(self, identifiers: Mapping[str, Sequence[str]]) -> None:
        list_id = self._list_id()
        for address in identifiers.get("email", ()):
            path = f"{_member_path(list_id, address)}/actions/delete-permanent"
            answer = self.api.call("POST", path, "erase a member")
            if answer.status != 404:  # 404: never was on the list, or is erased already
                self._done(answer, "erase a member")

    def _list_id(self) -> str:
        """Mailchimp's id of the list named in the settings."""
        wanted = self.options.audience
        pages = self._pages("/lists", "find the list", "lists", {"fields": "lists.id,lists.name,total_items"})
        found = [(str(item["id"]), item["name"]) for item in pages]
        ids = [list_id for list_id, name in found if name == wanted]
        if len(ids) != 1:
            problem = "there is no" if not ids else f"there are {len(ids)} with the name, so it is not clear which"
            raise ConfigurationError(
                f"Mailchimp: {problem} list '{wanted}' among the {len(found)} lists that connection "
                f"{self.connection.conn_id} can see; set 'audience' to the exact name shown under Audience in Mailchimp"
            )
        return ids[0]

    def _ensure_merge_fields(self, list_id: str, fields: Sequence[str]) -> None:
        for tag in fields:
            if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,9}", tag):
                raise ConfigurationError(
                    f"Mailchimp: '{tag}' cannot be a merge field; use at most 10 capital letters, digits or underscores"
                )
        if not fields:
            return
        path = f"/lists/{list_id}/merge-fields"
        params = {"fields": "merge_fields.tag,total_items"}
        there = {str(item["tag"]).upper() for item in self._pages(path, "read merge fields", "merge_fields", params)}
        for tag in sorted(set(fields) - there - {"EMAIL"}):
            what = f"create the merge field {tag}"
            answer = self.api.call("POST", path, what, json={"tag": tag, "name": tag, "type": "text", "public": False})
            if not answer.ok and not self._has_merge_field(path, tag):
                raise ConfigurationError(f"Mailchimp does not accept the merge field {tag}: {answer.problem()}")

    def _has_merge_field(self, path: str, tag: str) -> bool:
        """Whether a field is there after all: its first creation may have been cut off before the answer came."""
        return any(str(item["tag"]).upper() == tag for item in self._pages(path, "read merge fields", "merge_fields"))

    def _segment_id(self, list_id: str, label: str) -> str | None:
        params = {"type": "static", "fields": "segments.id,segments.name,total_items"}
        for item in self._pages(f"/lists/{list_id}/segments", "find the tag", "segments", params):
            if item["name"] == label:
                return str(item["id"])
        return None

    def _tag(self, list_id: str) -> str:
        """The name of the tag behind our list id."""
        if list_id not in self._tags:
            audience, segment = _split(list_id)
            answer = self.api.call("GET", f"/lists/{audience}/segments/{segment}", "read the tag's name")
            self._tags[list_id] = str(self._done(answer, "read the tag's name")["name"])
        return self._tags[list_id]

    def _row(self, member: Member, tag: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "email_address": _address(member),
            "merge_fields": {
                name: value if value is not None and len(value) <= TEXT_CHARACTERS else _text(value)
                for name, value in member.fields.items()
            },
            "tags": [tag],
        }
        if self.options.new_contacts == "transactional":
            row["status_if_new"] = "transactional"
        return row

    def _put(self, audience: str, row: Mapping[str, Any]) -> RowResult:
        """One member by herself, where the batch call does not know `status_if_new`."""
        answer = self.api.call(
            "PUT",
            _member_path(audience, row["email_address"]),
            "add one member",
            params={"skip_merge_validation": "true"},
            json={key: row[key] for key in ("email_address", "status_if_new", "merge_fields")},
        )
        if answer.ok:
            return _judge(str(answer.data.get("status", "")))
        error = answer.data if isinstance(answer.data, Mapping) else {}
        return RowResult("rejected", _reason({"error": f"{error.get('title', '')}: {error.get('detail', '')}"}))

    def _tag_by_segment(self, audience: str, segment: str, addresses: Sequence[str]) -> dict[str, RowResult]:
        """Tag members whom the call before left without it; the answers of those that failed."""
        what = f"tag {len(addresses)} members"
        path = f"/lists/{audience}/segments/{segment}"
        answer = self._done(
            self.api.call("POST", path, what, json={"members_to_add": list(addresses)}), what, is_batch=True
        )
        return {address: RowResult("retry", reason) for address, reason in _failures(answer, addresses).items()}

    def _take_off(self, audience: str, segment: str, addresses: Sequence[str]) -> dict[str, str]:
        """Take addresses off the tag; reasons by address for those where it failed. Their status stays as it is."""
        what = f"take {len(addresses)} members off the tag"
        path = f"/lists/{audience}/segments/{segment}"
        answer = self._done(
            self.api.call("POST", path, what, json={"members_to_remove": list(addresses)}), what, is_batch=True
        )
        return _failures(answer, addresses)

    def _is_tagged(self, audience: str, address: str, list_id: str) -> bool:
        """Whether a member carries our tag; who is archived or not on the list does not count as carrying it."""
        member = self._member(audience, address, "status,tags,tags_count")
        if member is None:
            return False
        tags = [str(item.get("name")) for item in member.get("tags") or ()]
        are_all_told = int(member.get("tags_count") or 0) <= len(tags)  # an answer holds 50 at most
        return member.get("status") != "archived" and (not are_all_told or self._tag(list_id) in tags)

    def _member(self, audience: str, address: str, fields: str) -> Mapping[str, Any] | None:
        """One member of the list; None for who is not on it (404)."""
        what = "look at one member"
        path = _member_path(audience, address)
        answer = self.api.call("GET", path, what, params={"fields": fields})
        return None if answer.status == 404 else self._done(answer, what)

    def _members_changed(self, list_id: str, status: str, since: datetime | None) -> Iterator[Mapping[str, Any]]:
        """Members with that status changed since then, oldest change first.

        Pages by time, not by offset: who changes while we read would shift the offsets and hide someone else.
        """
        path, offset = f"/lists/{list_id}/members", 0
        start = since - timedelta(seconds=1) if since else None
        fields = "members.email_address,members.status,members.unsubscribe_reason,members.last_changed"
        while True:
            params: dict[str, Any] = {
                "status": status, "count": PAGE_ROWS, "offset": offset, "fields": f"{fields},total_items",
                "sort_field": "last_changed", "sort_dir": "ASC",
            }  # fmt: skip
            if start is not None:
                params["since_last_changed"] = f"{start:%Y-%m-%dT%H:%M:%S}+00:00"
            answer = self.api.call("GET", path, f"read {status} members", params=params)
            members = self._done(answer, f"read {status} members").get("members", [])
            yield from members
            if len(members) < PAGE_ROWS:
                return
            last = _time(members[-1].get("last_changed"))
            next_start = last - timedelta(seconds=1) if last else None
            if next_start is not None and (start is None or next_start > start):
                start, offset = next_start, 0
            else:  # more than a page within one second
                offset += len(members)

    def _pages(
        self, path: str, what: str, key: str, params: Mapping[str, Any] | None = None
    ) -> Iterator[Mapping[str, Any]]:
        offset = 0
        while True:
            wanted = {**(params or {}), "count": PAGE_ROWS, "offset": offset}
            items = self._done(self.api.call("GET", path, what, params=wanted), what).get(key, [])
            yield from items
            offset += len(items)
            if len(items) < PAGE_ROWS:
                return

    def _done(self, answer: Answer, what: str, *, is_batch: bool = False) -> Mapping[str, Any]:
        """The body of an answer that has to be a good one."""
        self._must_be_good(answer, what, is_batch=is_batch)
        return answer.data if isinstance(answer.data, Mapping) else {}

    def _must_be_good(self, answer: Answer, what: str, *, is_batch: bool = False) -> None:
        """Raise an error of ours for any other; `is_batch`: smaller batches may pass where this did not."""
        if answer.ok:
            return
        if answer.status == 404:
            raise ListGone(
                f"Mailchimp cannot {what}: the list or tag is not there any more; the next push looks for it by its "
                "name, and says what to do where it is another one now"
            )
        if is_batch and answer.status in (400, 413, 414, 422):
            raise BatchRefused(f"refused by Mailchimp: {answer.problem()}")
        raise AudienceRejected(f"Mailchimp refuses to {what}: {answer.problem()}")


def _base_url(connection: Connection) -> str:
    if connection.host:
        url = connection.base_url("")
        return url if urlsplit(url).path.rstrip("/").endswith("/3.0") else f"{url}/3.0"
    if connection.extra.get("access_token"):
        return f"https://{connection.require('dc', 'the data centre, like us6')}.api.mailchimp.com/3.0"
    center = re.fullmatch(r"[^-]+-([a-z]+\d+)", connection.secret("Mailchimp API key"))
    if not center:
        raise ConfigurationError(
            f"connection {connection.conn_id}: the key does not end in a data centre (like -us6); copy the whole API "
            "key from Mailchimp, or set the host"
        )
    return f"https://{center[1]}.api.mailchimp.com/3.0"


def _is_bare_403(response: httpx.Response) -> bool:
    """Mailchimp's throttle in front of the API answers 403 without JSON; the API itself always sends JSON."""
    is_json = "json" in response.headers.get("Content-Type", "").lower() and bool(response.content)
    return response.status_code == 403 and not is_json


def _split(list_id: str) -> tuple[str, str]:
    audience, _, segment = list_id.partition("/")
    if not audience or not segment:
        raise ConfigurationError(f"'{list_id}' is no Mailchimp '<list>/<segment>' id")
    return audience, segment


def _address(member: Member) -> str:
    return member.identifiers["email"][0]


def _text(value: str | None) -> str:
    """A value as a text merge field takes it: empty for none, and cut at 255 characters (2026-11), but never a link."""
    if value is None or len(value) <= TEXT_CHARACTERS or value.startswith(("http://", "https://")):
        return value or ""
    return value[: TEXT_CHARACTERS - 1] + "…"


class _Tag(msgspec.Struct, gc=False):
    """A tag of a member in the answer to an upload."""

    name: str | None = None


class _Returned(msgspec.Struct, gc=False):
    """What is read of a member in the answer to an upload."""

    email_address: str | None = None
    status: str | None = None
    tags: list[_Tag] | None = None


class _Added(msgspec.Struct):
    """What is read of the answer to an upload."""

    new_members: list[_Returned] | None = None
    updated_members: list[_Returned] | None = None
    errors: list[dict[str, Any]] | None = None


# One answer for all who have it, not one object for each.
_ACCEPTED = RowResult("accepted")
_UNANSWERED = RowResult("rejected", "no answer")


def _judge(status: str) -> RowResult:
    """The result of a member that came back: what counts is the status she has at Mailchimp."""
    if status in RECEIVING:
        return _ACCEPTED
    return RowResult("rejected", _STATUS_REASONS.get(status, _OTHER_STATUS))


def _wants_status(error: Mapping[str, Any]) -> bool:
    """Whether a row was refused because a new member needs a status."""
    text = f"{error.get('error', '')} {error.get('field_message', '')}".lower()
    return error.get("field") in ("status", "status_if_new") or bool(
        re.search(
            r"\bstatus\b.*\b(missing|required|provide|blank|invalid|specif)|\b(requires?|missing)\b.*\bstatus\b", text
        )
    )


_KNOWN: Sequence[tuple[str, str]] = (
    ("compliance", _COMPLIANCE),
    ("permanently deleted", _FORGOTTEN),
    ("forgotten", _FORGOTTEN),
    ("fake or invalid", "Mailchimp takes the address for fake or invalid"),
)


def _reason(error: Mapping[str, Any]) -> str:
    """Why a row was refused, in words without the person."""
    text = str(error.get("error", ""))
    for part, reason in _KNOWN:
        if part in text.lower():
            return reason
    code, field = error.get("error_code") or "", error.get("field") or ""
    words = [str(word) for word in (code, field, error.get("field_message") or text) if word]
    return without_people(": ".join(words)) or "refused without a reason"


def _member_path(list_id: str, address: str) -> str:
    from include.identity.hashing import email_md5

    return f"/lists/{list_id}/members/{email_md5(address)}"


def _failures(answer: Mapping[str, Any], sent: Sequence[str]) -> dict[str, str]:
    """Addresses (lower case) of a tag call that failed, with the reason; an error that names none may be about any."""
    return {
        str(address).lower(): _reason(error)
        for error in answer.get("errors") or ()
        for address in error.get("email_addresses") or sent
    }


def _opt_out(member: Mapping[str, Any], status: str) -> OptOut:
    why = str(member.get("unsubscribe_reason") or "").lower()
    reason = (
        "bounced" if status == "cleaned" else "complained" if re.search(r"abuse|spam|complain", why) else "opted_out"
    )
    return OptOut(
        kind="email",
        value=str(member["email_address"]).strip().lower(),
        channel="email",
        reason=reason,
        is_active=status != "subscribed",
        occurred_at=_time(member.get("last_changed")),
    )


def _time(text: object) -> datetime | None:
    """Mailchimp's ISO time as UTC without an offset."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
