"""Google Ads: the audience is a Customer Match list, filled through the Data Manager API.

Facts as of 2026-11-23:
- Customer Match uploads through the Google Ads API are closed to new projects since 2026-04-01; this is the way in.
  https://developers.google.com/data-manager/api/devguides/audiences/customer-match
- One bad member makes the whole request fail (400 with `fieldViolations`); those rows are set aside and the rest sent
  again. A good request answers with an id only. Whether its members were taken is told later, per request and as counts
  by reason, never per member; so every row is `pending` until `outcome` knows.
- 10,000 members a request and 10 identifiers a member. 300 requests a minute and 100,000 a day per Cloud project: the
  minute is waited for, the day is not (it ends at midnight, Pacific time).
- Consent is said for the whole request; who has not granted it is kept out before, by the waterfall.
- Removing needs the very hash that was uploaded; the ledger keeps it.
- Google shows ads to a list from 100 active people on, and forgets members after `membership_days` (540 at most).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, cast
from zoneinfo import ZoneInfo

import orjson
from pydantic import Field

from include.connections import Connection
from include.destinations.base import Destination, DestinationSettings, ListStats, Member, RequestOutcome, RowResult
from include.destinations.http import patiently, retry_after, time_to_come, without_people
from include.errors import (
    AudienceRejected,
    AuthenticationError,
    ConfigurationError,
    ListGone,
    QuotaExhausted,
    RekindleError,
    Throttled,
    TransientError,
)
from include.pacing import Limits

ENDPOINT = "https://datamanager.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/datamanager"
TIMEOUT = 120.0
MEMBERSHIP_DAYS = 540  # at most
MAX_IDENTIFIERS = 10  # per member
MAX_ROUNDS = 100  # of setting bad rows aside; a batch with more is mostly bad and waits for the next run

# What a person has to do, by Google's reason.
_ADVICE = {
    "EU_POLITICAL_ADVERTISING_DECLARATION_REQUIRED": (
        "say in Google Ads, under Admin > Account settings, whether the account runs EU political ads"
    ),
    "TERMS_AND_CONDITIONS_NOT_SIGNED": "accept the Customer Match terms in Google Ads, under Tools > Audience manager",
    "ADVERTISER_TOS_NOT_ACCEPTED": "accept the Customer Match terms in Google Ads, under Tools > Audience manager",
    "NOT_ALLOWLISTED": "the account may not use Customer Match; see Google's Customer Match policy",
    "ADVERTISER_NOT_ALLOWLISTED_FOR_UPLOADED_DATA": (
        "the account may not use Customer Match; see Google's Customer Match policy"
    ),
    "DISPLAY_NAME_ALREADY_USED": "a list of that name is there but cannot be written; rename it or the audience",
    "MEMBERSHIP_DURATION_TOO_LONG": "membership_days may be 540 at most",
    "INVALID_USER_LIST_ID": (
        "the list is not there any more; the next push looks for it by its name, and says what to do where it is "
        "another one now"
    ),
    "INVALID_USER_LIST_TYPE": "the list of that name is not a contact list; rename it or the audience",
    "OPERATING_ACCOUNT_LOGIN_ACCOUNT_MISMATCH": "login_customer_id must be the manager account of customer_id",
    "DESTINATION_ACCOUNT_TYPE_MISMATCH": "customer_id must be a Google Ads account",
}
_NO_SUCH_REQUEST = {"INVALID_REQUEST_ID", "REQUEST_TOO_OLD", "NOT_FOUND"}
_MEMBER_FIELD = re.compile(r"audience_?members\[(\d+)\]", re.IGNORECASE)


class GoogleAdsSettings(DestinationSettings):
    """Options in the audience file."""

    membership_days: int = Field(
        MEMBERSHIP_DAYS,
        ge=1,
        le=MEMBERSHIP_DAYS,
        title="Membership",
        description="days until Google forgets a member who is not sent again",
    )
    customer_id: str | None = Field(
        None, title="Account", description="another Google Ads account than the connection's"
    )


class GoogleAds(Destination):
    """A Customer Match list of hashed e-mail addresses and phone numbers."""

    name = "google_ads"
    label = "Google Ads"
    description = "A Customer Match list for Search, Shopping, YouTube, Gmail and Display."
    channel = "ads"
    api_version = "v1"
    docs_url = "https://developers.google.com/data-manager/api"
    identifiers = ("google_email_sha256", "google_phone_sha256")
    max_batch_rows = 10_000
    connections = 2
    limits = Limits(per_minute=300)
    min_audience_size = 100
    refresh_after_days = 450  # of 540
    Settings: ClassVar[type[DestinationSettings]] = GoogleAdsSettings

    def __init__(self, connection: Connection, settings: DestinationSettings | None = None) -> None:
        super().__init__(connection, settings)
        self.options = cast(GoogleAdsSettings, self.settings)
        self.poll_seconds = int(connection.extra.get("poll_seconds") or type(self).poll_seconds)
        wanted = self.options.customer_id or connection.require("customer_id", "the Google Ads account, 10 digits")
        self.customer_id = _digits(wanted, connection, "customer_id")
        login = connection.extra.get("login_customer_id")
        self.login_id = _digits(str(login), connection, "login_customer_id") if login else None
        self._clients: dict[str, Any] = {}
        self._closed: set[str] = set()  # lists that a person has closed

    @classmethod
    def refresh_after(cls, settings: DestinationSettings) -> timedelta:
        """As much before the end of a shorter membership."""
        days = cast(GoogleAdsSettings, settings).membership_days
        return timedelta(days=days) * cls.refresh_after_days / MEMBERSHIP_DAYS

    def check(self) -> None:
        request = {"parent": self._parent, "page_size": 1}
        self._call(lambda: next(iter(self._lists(request)), None), "see the lists of the account")

    def ensure_audience(self, label: str, description: str, fields: Sequence[str]) -> str:
        found = self._find(label)
        if found is not None:
            return self._up_to_date(found, label)
        from google.ads import datamanager_v1 as dm

        wanted = dm.UserList(
            display_name=label,
            description=description,
            membership_duration=self._membership,
            ingested_user_list_info=dm.IngestedUserListInfo(
                upload_key_types=[dm.IngestedUserListInfo.UploadKeyType.CONTACT_ID]
            ),
        )
        request = dm.CreateUserListRequest(parent=self._parent, user_list=wanted)
        try:
            created = self._call(
                lambda: self._user_lists.create_user_list(
                    request=request, retry=None, timeout=TIMEOUT, metadata=self._metadata
                ),
                f"create the list '{label}'",
            )
        except AudienceRejected:
            found = self._find(label)  # a repeat after a cut connection finds the name taken, by ourselves
            if found is None:
                raise
            return self._up_to_date(found, label)
        return str(created.id)

    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        if batch and list_id in self._closed:
            raise AudienceRejected(
                f"Google Ads: list {list_id} is closed, so nobody who is added comes in; leavers were taken off. Open "
                "it in Google Ads, under Tools > Audience manager, or take google_ads out of the audience file"
            )
        envelope = {
            "destinations": [self._destination(list_id)],
            "consent": {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"},
            "encoding": "HEX",
            "termsOfService": {"customerMatchTermsOfServiceStatus": "ACCEPTED"},
        }
        return self._send(batch, lambda members: self._upload("ingest", envelope, members), "add")

    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        envelope = {"destinations": [self._destination(list_id)], "encoding": "HEX"}
        return self._send(batch, lambda members: self._upload("remove", envelope, members), "remove")

    def outcome(self, request_id: str) -> RequestOutcome:
        from google.ads import datamanager_v1 as dm

        request = dm.RetrieveRequestStatusRequest(request_id=request_id)
        try:
            answer = self._call(
                lambda: self._ingestion.retrieve_request_status(request=request, retry=None, timeout=TIMEOUT),
                "ask after a request",
            )
        except _Refused as error:
            if error.reasons & _NO_SUCH_REQUEST:
                return RequestOutcome("failed", detail="Google does not know the request (any more)", try_again=True)
            raise
        return _outcome(list(answer.request_status_per_destination))

    def stats(self, list_id: str) -> ListStats:
        """Google's estimate where the list is largest, and its match rate; None until it has worked them out."""
        found = self._call(
            lambda: self._user_lists.get_user_list(
                request={"name": f"{self._parent}/userLists/{list_id}"},
                retry=None,
                timeout=TIMEOUT,
                metadata=self._metadata,
            ),
            "read the size of a list",
        )
        sizes = found.size_info
        known = [
            int(getattr(sizes, f"{network}_members_count"))
            for network in ("display_network", "search_network", "youtube", "gmail")
            if f"{network}_members_count" in sizes
        ]
        contacts = found.ingested_user_list_info.contact_id_info
        matched = contacts.match_rate_percentage if "match_rate_percentage" in contacts else None
        return ListStats(max(known) if known else None, matched / 100 if matched is not None else None)

    def _send(self, batch: Sequence[Member], send: Callable[[Sequence[Any]], str], verb: str) -> list[RowResult]:
        """Send a batch, setting aside the rows that Google names as bad, until the rest is taken."""
        left = self._messages(batch)
        results: list[RowResult | None] = [RowResult("rejected", "no identifier that Google takes")] * len(batch)
        for index, _ in left:
            results[index] = None
        for _ in range(MAX_ROUNDS):
            if not left:
                break
            now, later = _whole_rows(left, self.max_batch_rows)
            members = [message for _, message in now]
            try:
                request_id = self._call(lambda: send(members), f"{verb} {len(members)} members")  # noqa: B023
            except _Refused as error:
                if not error.rows or max(error.rows) >= len(now):
                    raise
                for position, reason in error.rows.items():
                    results[now[position][0]] = RowResult("rejected", reason)
                left = [(index, message) for index, message in left if results[index] is None]
                continue
            pending = RowResult("pending", request_id=request_id)
            for index, _ in now:
                results[index] = pending
            left = later
        return [
            result or RowResult("retry", "too many bad rows in one batch; sent with the next") for result in results
        ]

    def _messages(self, batch: Sequence[Member]) -> list[tuple[int, Any]]:
        """Each person with all identifiers: one message, and another for every ten more; with the row it belongs to."""
        email, phone = self.identifiers
        found: list[tuple[int, Any]] = []
        for index, member in enumerate(batch):
            known_by = [
                *[{"emailAddress": value} for value in member.identifiers.get(email, ())],
                *[{"phoneNumber": value} for value in member.identifiers.get(phone, ())],
            ]
            for start in range(0, len(known_by), MAX_IDENTIFIERS):
                part = known_by[start : start + MAX_IDENTIFIERS]
                found.append((index, {"userData": {"userIdentifiers": part}}))
        return found

    def _upload(self, verb: str, envelope: Mapping[str, Any], members: Sequence[Any]) -> str:
        """Make the call `audienceMembers:<verb>` and return Google's id of the request.

        The JSON is written here and not by Google's library, which computes for 60 microseconds on each member
        (google-ads-datamanager 0.9, 2026-11) where this takes two; login, transport and errors are the library's.
        """
        from google.api_core.exceptions import from_http_response

        response = self._session.post(
            f"{self.connection.base_url(ENDPOINT)}/v1/audienceMembers:{verb}",
            data=orjson.dumps({**envelope, "audienceMembers": members}),
            headers={"Content-Type": "application/json"},
            timeout=TIMEOUT,
        )
        if response.status_code >= 400:
            raise from_http_response(response)
        try:
            return str(orjson.loads(response.content)["requestId"])
        except (ValueError, KeyError):
            raise TransientError("Google Ads sent half an answer to an upload") from None

    def _up_to_date(self, found: Any, label: str) -> str:
        """The id of a list, after it was made to be what the audience file says and what we go by.

        Google closes a list that no campaign used for a year; it takes uploads then, and lets nobody in. Such a list is
        opened again; one that a person has closed is theirs to open.
        """
        from google.ads import datamanager_v1 as dm

        is_closed = found.membership_status.name == "CLOSED"
        changes: dict[str, Any] = {}
        if found.membership_duration != self._membership:
            changes["membership_duration"] = self._membership
        if is_closed and found.closing_reason.name == "UNUSED":
            changes["membership_status"] = dm.UserList.MembershipStatus.OPEN
        elif is_closed:
            self._closed.add(str(found.id))
        if changes:
            request = dm.UpdateUserListRequest(
                user_list=dm.UserList(name=found.name, **changes), update_mask={"paths": list(changes)}
            )
            self._call(
                lambda: self._user_lists.update_user_list(
                    request=request, retry=None, timeout=TIMEOUT, metadata=self._metadata
                ),
                f"set {' and '.join(changes)} of the list '{label}'",
            )
        return str(found.id)

    @property
    def _membership(self) -> timedelta:
        return timedelta(days=self.options.membership_days)

    def _find(self, label: str) -> Any:
        """Our list with exactly this name, or None. Lists that others share with the account do not count."""
        quoted = label.replace("\\", "\\\\").replace('"', '\\"')
        request = {"parent": self._parent, "filter": f'display_name = "{quoted}"', "page_size": 1000}
        found = self._call(lambda: list(self._lists(request)), f"find the list '{label}'")
        for item in found:
            if item.display_name == label and item.access_reason.name in ("OWNED", "ACCESS_REASON_UNSPECIFIED"):
                return item
        return None

    def _lists(self, request: Mapping[str, Any]) -> Any:
        return self._user_lists.list_user_lists(
            request=dict(request), retry=None, timeout=TIMEOUT, metadata=self._metadata
        )

    def _destination(self, list_id: str) -> dict[str, Any]:
        account = {"accountType": "GOOGLE_ADS", "accountId": self.customer_id}
        login = {"loginAccount": {"accountType": "GOOGLE_ADS", "accountId": self.login_id}} if self.login_id else {}
        return {"operatingAccount": account, **login, "productDestinationId": list_id}

    @property
    def _parent(self) -> str:
        return f"accountTypes/GOOGLE_ADS/accounts/{self.customer_id}"

    @property
    def _metadata(self) -> list[tuple[str, str]]:
        return [("login-account", f"accountTypes/GOOGLE_ADS/accounts/{self.login_id}")] if self.login_id else []

    @property
    def _session(self) -> Any:
        """Requests that carry the login, for what Google's library is too slow to write."""
        if "session" not in self._clients:
            from google.auth.transport.requests import AuthorizedSession

            logging.getLogger("google.auth").setLevel(logging.INFO)  # at DEBUG it logs tokens
            self._clients["session"] = AuthorizedSession(self._credentials())
        return self._clients["session"]

    @property
    def _ingestion(self) -> Any:
        return self._client("IngestionServiceClient")

    @property
    def _user_lists(self) -> Any:
        return self._client("UserListServiceClient")

    def _client(self, name: str) -> Any:
        if name not in self._clients:
            from google.ads import datamanager_v1 as dm
            from google.api_core.client_options import ClientOptions

            # At DEBUG these two log whole requests, with the hashes and the tokens in them.
            for chatty in ("google.ads.datamanager_v1", "google.auth"):
                logging.getLogger(chatty).setLevel(logging.INFO)
            endpoint = self.connection.base_url("") or None
            self._clients[name] = getattr(dm, name)(
                transport="rest", credentials=self._credentials(), client_options=ClientOptions(api_endpoint=endpoint)
            )
        return self._clients[name]

    def _credentials(self) -> Any:
        if "credentials" not in self._clients:
            self._clients["credentials"] = _credentials(self.connection)
        return self._clients["credentials"]

    def _call(self, call: Callable[[], Any], what: str) -> Any:
        """Make a call that is safe to repeat, with our patience and our errors."""
        return patiently(self.label)(self._once, call, what)

    def _once(self, call: Callable[[], Any], what: str) -> Any:
        from google.api_core import exceptions as api
        from google.auth import exceptions as auth

        try:
            with self.pace.turn():
                return call()
        except api.GoogleAPICallError as error:
            raise _in_our_words(error, what, self.connection.conn_id) from None
        except auth.RefreshError as error:
            if error.retryable or not _is_refusal(error):
                raise TransientError(f"Google's login gave no answer while trying to {what}") from None
            raise AuthenticationError(
                f"Google does not accept the credential in connection {self.connection.conn_id} while trying to "
                f"{what}; it was revoked, has expired or lacks the Data Manager scope: make a new one and put it there"
            ) from None
        except auth.TransportError:
            raise TransientError(f"Google's login gave no answer while trying to {what}") from None
        except auth.GoogleAuthError as error:
            raise AuthenticationError(
                f"the credential in connection {self.connection.conn_id} cannot be used ({type(error).__name__}) while "
                f"trying to {what}; put a service account's key or a refresh token there"
            ) from None
        except OSError as error:
            # OSError is the root of what the transport raises for cut and slow connections.
            kind = type(error).__name__  # its text may hold an address
            raise TransientError(f"Google Ads gave no answer ({kind}) while trying to {what}") from None


def _is_refusal(error: Any) -> bool:
    """Whether Google's login said no, by an OAuth error code or in the client's own words.

    An outage whose body is no JSON comes as an error that "cannot be retried" with that body as its text
    (google-auth 2.x, 2026-11, reauth.refresh_grant), and is none.
    """
    if len(error.args) > 1 and isinstance(error.args[1], Mapping):
        return "error" in error.args[1]
    return str(error).startswith(("Not all requested scopes", "The credentials do not contain", "Reauthentication"))


class _Refused(AudienceRejected):
    """A 4xx answer: `rows` are the members it names, with the reason; `reasons` all of Google's words."""

    def __init__(self, message: str, rows: Mapping[int, str], reasons: set[str]) -> None:
        self.rows = rows
        self.reasons = reasons
        super().__init__(message)


def _in_our_words(error: Any, what: str, conn_id: str) -> RekindleError:
    """Google's error by what has to happen next. Over REST its details are plain dictionaries."""
    status = int(error.code or 0)
    details = [detail for detail in error.details or () if isinstance(detail, Mapping)]
    if status == 429:
        return _over_quota(details, what, _asked(error))
    if status >= 500:
        return TransientError(
            f"Google Ads has a problem of its own (HTTP {status}) while trying to {what}", retry_after=_asked(error)
        )
    reasons = {str(detail["reason"]) for detail in details if detail.get("reason")}
    violations = [item for detail in details for item in detail.get("fieldViolations") or ()]
    rows: dict[int, str] = {}
    whole: list[str] = []
    for item in violations:
        reason = str(item.get("reason") or "INVALID_ARGUMENT")
        reasons.add(reason)
        named = _MEMBER_FIELD.search(str(item.get("field") or ""))
        if named:
            rows.setdefault(int(named[1]), reason)
        else:
            whole.append(f"{reason} ({without_people(str(item.get('field') or 'request'))})")
    advice = next((text for reason, text in _ADVICE.items() if reason in reasons), None)
    said = ", ".join(sorted(whole)) or ", ".join(sorted(reasons)) or without_people(str(error.message or ""))
    if status == 401:
        return AuthenticationError(
            f"Google does not accept the credential in connection {conn_id} (HTTP 401) while trying to {what}; "
            "make a new one and put it there"
        )
    if status == 403 and advice is None:
        return AuthenticationError(
            f"Google says that the credential in connection {conn_id} may not {what} (HTTP 403: {said}); give its user "
            "access to the account in Google Ads, under Admin > Access and security, and check login_customer_id"
        )
    text = f"Google Ads refuses to {what}: {said}" + (f"; {advice}" if advice else "")
    if "INVALID_USER_LIST_ID" in reasons:
        return ListGone(text)
    return _Refused(text, {} if whole or advice else rows, reasons)


def _asked(error: Any) -> float | None:
    """Seconds to wait by the header of an answer."""
    headers = getattr(error.response, "headers", None) or {}
    return retry_after(headers.get("Retry-After"))


def _over_quota(details: Sequence[Mapping[str, Any]], what: str, asked: float | None) -> TransientError:
    """The quota of the day is over until midnight in California; the quota of the minute is waited for."""
    limits = " ".join(str((detail.get("metadata") or {}).get("quota_limit", "")) for detail in details)
    if "PerDay" in limits:
        return QuotaExhausted(
            f"Google Ads: the day's quota of the Cloud project is used up while trying to {what}; it is given back at "
            "midnight Pacific time",
            resets_at=_midnight_pacific(),
        )
    delays = [re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay", ""))) for detail in details]
    seconds_asked = [float(found[1]) for found in delays if found]
    return Throttled(
        f"Google Ads asks to slow down while trying to {what}",
        retry_after=time_to_come(max(seconds_asked, default=0)) or asked,
    )


def _midnight_pacific() -> datetime:
    tomorrow = datetime.now(ZoneInfo("America/Los_Angeles")) + timedelta(days=1)
    return tomorrow.replace(hour=0, minute=0, second=0, microsecond=0)


def _outcome(statuses: Sequence[Any]) -> RequestOutcome:
    """One outcome of a request to one list; counts are members."""
    names = {status.request_status.name for status in statuses}
    if not names or names & {"PROCESSING", "REQUEST_STATUS_UNKNOWN"}:
        return RequestOutcome("pending")
    sent = sum(_record_count(status) for status in statuses)
    errors = {
        count.reason.name.removeprefix("PROCESSING_ERROR_REASON_").lower(): int(count.record_count)
        for status in statuses
        for count in status.error_info.error_counts
    }
    warnings = {
        str(count.reason.name).lower(): int(count.record_count)
        for status in statuses
        for count in status.warning_info.warning_counts
    }
    failed = sum(errors.values())
    detail = ", ".join(f"{reason}: {count}" for reason, count in sorted({**warnings, **errors}.items()))
    if names == {"SUCCESS"}:
        return RequestOutcome("succeeded", accepted=sent, detail=detail)
    if names == {"FAILED"}:
        # The counts "may not be populated in all cases" (2026-11); without a reason nobody is refused for good.
        has_refused_all = failed >= sent and errors and "internal_error" not in errors
        return RequestOutcome(
            "failed", rejected=failed or sent, detail=detail or "Google gave no reason", try_again=not has_refused_all
        )
    return RequestOutcome(
        "partial", accepted=max(sent - failed, 0), rejected=failed, detail=detail or "Google gave no reason"
    )


def _record_count(status: Any) -> int:
    """Rows of a request, wherever its kind of status keeps them."""
    added = status.audience_members_ingestion_status.user_data_ingestion_status.record_count
    removed = status.audience_members_removal_status.user_data_removal_status.record_count
    return int(added) + int(removed)


def _whole_rows(messages: list[tuple[int, Any]], size: int) -> tuple[list[tuple[int, Any]], list[tuple[int, Any]]]:
    """The first `size` messages and the rest, without parting the messages of one row."""
    cut = size
    while cut < len(messages) and cut > 0 and messages[cut][0] == messages[cut - 1][0]:
        cut -= 1
    return messages[:cut], messages[cut:]


def _credentials(connection: Connection) -> Any:
    """A service account (`keyfile_dict`) or a user's refresh token."""
    key = connection.extra.get("keyfile_dict")
    if key:
        from google.oauth2 import service_account

        try:
            info = json.loads(key) if isinstance(key, str) else dict(key)
            return service_account.Credentials.from_service_account_info(info, scopes=[SCOPE])
        except ValueError:  # its text may quote the key
            raise ConfigurationError(
                f"connection {connection.conn_id}: the extra 'keyfile_dict' is not a service account's key file"
            ) from None
    from google.oauth2.credentials import Credentials

    return Credentials(
        None,
        refresh_token=connection.require("refresh_token", "or a service account's key as 'keyfile_dict'"),
        client_id=connection.require("client_id", "of the OAuth client that made the refresh token"),
        client_secret=connection.require("client_secret", "of the OAuth client that made the refresh token"),
        token_uri=str(connection.extra.get("token_uri") or "https://oauth2.googleapis.com/token"),
        scopes=[SCOPE],
    )


def _digits(value: str, connection: Connection, name: str) -> str:
    """An account id without its dashes."""
    digits = value.replace("-", "").strip()
    if not digits.isdigit():
        raise ConfigurationError(f"connection {connection.conn_id}: {name} must be digits like 123-456-7890")
    return digits
