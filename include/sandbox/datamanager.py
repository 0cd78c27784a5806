"""Google's Data Manager API v1 over REST, for one kind of client: who fills Customer Match lists.

Fast-fail as there: one bad member refuses the whole request, and only the counts of a later status call tell what
became of an accepted one. Members take effect when their request is processed, in the order requests came.
A member is held by its identifiers: removing one e-mail hash leaves the phone hash of the same person on the list.
Whether Google "knows" an identifier is drawn from the hash itself: match rates are stable and never touch membership.
Vendor facts as of 2026-11: https://developers.google.com/data-manager/api/reference/rest
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import orjson

from include.sandbox.store import Store
from include.sandbox.wire import Answer, Call, Refusal, Route, Window, epoch, is_int

SCOPE = "https://www.googleapis.com/auth/datamanager"
MEMBERS_MAX = 10_000
IDENTIFIERS_MAX = 10
DESTINATIONS_MAX = 10
DURATION_MAX_DAYS = 540
DAY = 86_400
TOKEN_SECONDS = 3_599
VIOLATIONS_SHOWN = 100
NEWEST_LIST = """
    select max(
        8000000000,
        coalesce((select max(id) from datamanager_lists), 0),
        coalesce((select seq from sqlite_sequence where name = 'datamanager_lists'), 0))"""  # no id comes twice
KNOWN_PERCENT = {"email": 62, "phone": 48, "address": 40, "mobile": 70, "user": 55}

ACCOUNT_TYPES = (
    "ACCOUNT_TYPE_UNSPECIFIED", "GOOGLE_ADS", "DISPLAY_VIDEO_PARTNER", "DISPLAY_VIDEO_ADVERTISER", "DATA_PARTNER",
    "GOOGLE_ANALYTICS_PROPERTY", "GOOGLE_AD_MANAGER_AUDIENCE_LINK", "FLOODLIGHT_CONFIG", "GOOGLE_AD_MANAGER",
)  # fmt: skip
ENUMS: dict[str, tuple[str, ...]] = {
    "account_type": ACCOUNT_TYPES,
    "product": ACCOUNT_TYPES[:5],
    "encoding": ("ENCODING_UNSPECIFIED", "HEX", "BASE64"),
    "consent": ("CONSENT_STATUS_UNSPECIFIED", "CONSENT_GRANTED", "CONSENT_DENIED"),
    "terms": ("TERMS_OF_SERVICE_STATUS_UNSPECIFIED", "ACCEPTED", "REJECTED"),
    "upload_key_type": (
        "UPLOAD_KEY_TYPE_UNSPECIFIED", "CONTACT_ID", "MOBILE_ID", "USER_ID", "PAIR_ID", "PSEUDONYMOUS_ID",
    ),
    "key_space": ("KEY_SPACE_UNSPECIFIED", "IOS", "ANDROID"),
    "data_source_type": (
        "DATA_SOURCE_TYPE_UNSPECIFIED", "DATA_SOURCE_TYPE_FIRST_PARTY", "DATA_SOURCE_TYPE_THIRD_PARTY_CREDIT_BUREAU",
        "DATA_SOURCE_TYPE_THIRD_PARTY_VOTER_FILE", "DATA_SOURCE_TYPE_THIRD_PARTY_PARTNER_DATA",
    ),
    "membership_status": ("MEMBERSHIP_STATUS_UNSPECIFIED", "OPEN", "CLOSED"),
    "access_reason": ("ACCESS_REASON_UNSPECIFIED", "OWNED", "SHARED", "LICENSED", "SUBSCRIBED", "AFFILIATED"),
    "access_status": ("ACCESS_STATUS_UNSPECIFIED", "ENABLED", "DISABLED"),
    "request_status": ("REQUEST_STATUS_UNKNOWN", "SUCCESS", "PROCESSING", "FAILED", "PARTIAL_SUCCESS"),
    "match_rate": (
        "MATCH_RATE_RANGE_UNKNOWN", "MATCH_RATE_RANGE_NOT_ELIGIBLE", "MATCH_RATE_RANGE_LESS_THAN_20",
        "MATCH_RATE_RANGE_20_TO_30", "MATCH_RATE_RANGE_31_TO_40", "MATCH_RATE_RANGE_41_TO_50",
        "MATCH_RATE_RANGE_51_TO_60", "MATCH_RATE_RANGE_61_TO_70", "MATCH_RATE_RANGE_71_TO_80",
        "MATCH_RATE_RANGE_81_TO_90", "MATCH_RATE_RANGE_91_TO_100",
    ),
}  # fmt: skip
_REASONS = {"PROCESSING_ERROR_REASON_DENIED_CONSENT": 4, "PROCESSING_ERROR_REASON_NO_CONSENT": 5}
_HEX = re.compile(r"[0-9a-f]{64}")
_ACCOUNT = re.compile(r"\d{1,10}")
_LOGIN_HEADER = re.compile(r"accountTypes/([A-Z_]+)/accounts/(\d+)")
_DATA_KINDS = {"userData": "CONTACT_ID", "mobileData": "MOBILE_ID", "userIdData": "USER_ID"}
_CLOSED_KINDS = ("pairData", "ppidData", "compositeData", "googleUserIdData", "partnerProvidedIdData")
_SYSTEM_PARAMS = {"$alt", "alt", "$prettyPrint", "prettyPrint", "$.xgafv", "key", "quotaUser", "$userProject"}


@dataclass(frozen=True)
class DataManagerConfig:
    """How this project behaves: when requests are processed, and the quota per minute."""

    polls: int = 1
    seconds: float = 60.0
    requests_per_minute: int = 300
    refresh_tokens: frozenset[str] = frozenset()


class Invalid(Exception):
    """One field is wrong; `reason` is a name of Google's ErrorReason, empty for JSON that cannot be bound."""

    def __init__(self, field: str, description: str, reason: str = "") -> None:
        self.field = field
        self.description = description
        self.reason = reason
        super().__init__(description)


class DataManager:
    """The Cloud project and the accounts it may write to."""

    name = "datamanager"
    prefix = "/datamanager"

    def __init__(self, store: Store, config: DataManagerConfig) -> None:
        self.store = store
        self.config = config
        limit = config.requests_per_minute
        self.windows = {
            "IngestionMutateRequestsPerMinutePerProject": Window(limit, 60.0),
            "IngestionReadRequestsPerMinutePerProject": Window(limit, 60.0),
            "UserListRequestsPerMinutePerProject": Window(limit, 60.0),
        }
        lists = "/v1/accountTypes/{account_type}/accounts/{account_id}/userLists"
        mutate, read, other = self.windows
        self.routes = (
            Route("POST", "/token", self.token, scope="open"),
            Route("POST", "/v1/audienceMembers:ingest", self.ingest, scope=mutate),
            Route("POST", "/v1/audienceMembers:remove", self.remove, scope=mutate),
            Route("POST", "/v1/audienceMembers:removeAll", self.remove_all, scope=mutate),
            Route("GET", "/v1/requestStatus:retrieve", self.retrieve, scope=read),
            Route("GET", lists, self.list_lists, scope=other),
            Route("POST", lists, self.create_list, scope=other),
            Route("GET", f"{lists}/{{list_id}}", self.get_list, scope=other),
            Route("PATCH", f"{lists}/{{list_id}}", self.update_list, scope=other),
            Route("DELETE", f"{lists}/{{list_id}}", self.delete_list, scope=other),
        )

    # admission

    def admit(self, call: Call, route: Route) -> None:
        """A token this server gave out and that has not expired, then the quota of the minute."""
        if route.scope == "open":
            return
        kind, _, token = call.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise Refusal(
                _error(
                    401,
                    "UNAUTHENTICATED",
                    "Request is missing required authentication credential. Expected OAuth 2 access token, login "
                    "cookie or other valid authentication credential.",
                    [_info("CREDENTIALS_MISSING")],
                )
            )
        expires = self.store.value("select expires_at from datamanager_tokens where token = ?", token.strip())
        if expires is None or expires <= call.now:
            raise Refusal(
                _error(
                    401,
                    "UNAUTHENTICATED",
                    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or "
                    "other valid authentication credential.",
                    [_info("ACCESS_TOKEN_EXPIRED" if expires is not None else "ACCESS_TOKEN_TYPE_UNSUPPORTED")],
                )
            )
        window = self.windows[route.scope]
        if not window.take(call.now):
            raise Refusal(
                _error(
                    429,
                    "RESOURCE_EXHAUSTED",
                    f"Quota exceeded for quota metric '{route.scope}' and limit '{route.scope}' of service "
                    "'datamanager.googleapis.com'.",
                    [
                        _info("RESOURCE_EXHAUSTED", quota_limit=route.scope),
                        {
                            "@type": "type.googleapis.com/google.rpc.RetryInfo",
                            "retryDelay": f"{max(round(window.wait(call.now)), 1)}s",
                        },
                    ],
                )
            )

    def decorate(self, call: Call, route: Route | None, answer: Answer) -> None:
        """Google sends no rate headers."""

    def lost(self, call: Call, allowed: list[str]) -> Answer:
        """404 for every path and method that is not in the API."""
        return _error(404, "NOT_FOUND", "Requested entity was not found.")

    def is_write(self, call: Call) -> bool:
        """Everything but reading, getting a token and asking to validate only."""
        if call.method in ("GET", "HEAD") or call.path == "/token":
            return False
        if call.params.get("validateOnly") == "true":
            return False
        return not re.search(rb'"(validateOnly|validate_only)"\s*:\s*true', call.body)

    def token(self, call: Call) -> Answer:
        """OAuth: a refresh token or a signed assertion for an access token."""
        if call.media_type != "application/x-www-form-urlencoded":
            return _oauth(400, "invalid_request", "The request body must be form encoded.")
        pairs = parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True)
        form = dict(pairs)
        if len(form) != len(pairs):
            return _oauth(400, "invalid_request", "A parameter was given twice.")
        grant = form.get("grant_type", "")
        if grant == "refresh_token":
            refused = self._refresh(form)
        elif grant == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            refused = _assertion_problem(form, call.now)
        else:
            refused = _oauth(400, "unsupported_grant_type", f"Invalid grant_type: {grant}")
        if refused is not None:
            return refused
        token = f"ya29.{secrets.token_urlsafe(32)}"
        self.store.run("delete from datamanager_tokens where expires_at < ?", call.now - DAY)
        self.store.run("insert into datamanager_tokens values (?, ?)", token, call.now + TOKEN_SECONDS)
        return Answer(
            body={"access_token": token, "expires_in": TOKEN_SECONDS, "scope": SCOPE, "token_type": "Bearer"},
            headers={"Cache-Control": "no-cache, no-store"},
        )

    def _refresh(self, form: Mapping[str, str]) -> Answer | None:
        unknown = set(form) - {"grant_type", "client_id", "client_secret", "refresh_token", "scope"}
        if unknown:
            return _oauth(400, "invalid_request", f"Invalid parameter: {sorted(unknown)[0]}")
        for name in ("client_id", "client_secret"):
            if not form.get(name):
                return _oauth(401, "invalid_client", f"Could not determine {name} from request.")
        token = form.get("refresh_token", "")
        if not token:
            return _oauth(400, "invalid_request", "Missing required parameter: refresh_token")
        known = self.config.refresh_tokens
        if (known and token not in known) or token.startswith(("revoked", "expired")):
            return _oauth(400, "invalid_grant", "Token has been expired or revoked.")
        if form.get("scope") and SCOPE not in form["scope"].split():
            return _oauth(400, "invalid_scope", "Some requested scopes were invalid.")
        return None

    # user lists

    def list_lists(self, call: Call, account_type: str, account_id: str) -> Answer:
        """The lists of an account, filtered and paged."""
        params = _params(call, {"filter", "pageSize", "pageToken"})
        self._account(call, account_type, account_id)
        size = params.get("pageSize", "0")
        token = params.get("pageToken", "0")
        if not size.isdigit():
            raise Refusal(_violation(Invalid("page_size", "The page size is a whole number.", "INVALID_NUMBER_FORMAT")))
        if not token.isdigit():
            raise Refusal(_violation(Invalid("page_token", "The page token is invalid.", "INVALID_PAGE_TOKEN")))
        keep = _filter(params.get("filter", ""))
        self.process_due(call.now)
        rows = self.store.all(
            "select * from datamanager_lists where account_type = ? and account_id = ? and id > ? order by id",
            account_type, account_id, int(token),
        )  # fmt: skip
        limit = min(int(size) or 50, 1_000)
        found = [row for row in rows if keep(row)]
        call.rows = len(found[:limit])
        body: dict[str, Any] = {"userLists": [self._list_out(row, call.now) for row in found[:limit]]}
        if len(found) > limit:
            body["nextPageToken"] = str(found[limit - 1]["id"])
        return _json_answer(call, body)

    def create_list(self, call: Call, account_type: str, account_id: str) -> Answer:
        """Make a Customer Match list; its upload key types are fixed for good."""
        params = _params(call, {"validateOnly"})
        login = self._account(call, account_type, account_id)
        body = _parse(call)
        try:
            wanted = _user_list(body)
            if not wanted.get("displayName"):
                raise Invalid("user_list.display_name", "A display name is required.", "REQUIRED_FIELD_MISSING")
            info = wanted.get("ingestedUserListInfo")
            if not info or not info.get("uploadKeyTypes"):
                raise Invalid(
                    "user_list.ingested_user_list_info.upload_key_types",
                    "At least one upload key type is required.",
                    "REQUIRED_FIELD_MISSING",
                )
            _check_info(info)
        except Invalid as invalid:
            raise Refusal(_violation(invalid)) from invalid
        if self._named(account_type, account_id, wanted["displayName"]) is not None:
            raise Refusal(_violation(_name_used()))
        call.rows = 1
        wanted.setdefault("membershipDuration", DURATION_MAX_DAYS * DAY)
        wanted.setdefault("membershipStatus", "OPEN")
        list_id = int(self.store.value(NEWEST_LIST)) + 1
        row_values = (
            list_id, account_type, account_id, login, wanted["displayName"], orjson.dumps(wanted), call.now, call.now,
        )  # fmt: skip
        if params.get("validateOnly") == "true":
            return Answer(body={})
        self.store.run(
            "insert into datamanager_lists (id, account_type, account_id, login_account, display_name, body, "
            "created_at, changed_at) values (?, ?, ?, ?, ?, ?, ?, ?)",
            *row_values,
        )
        return _json_answer(call, self._list_out(self._row(list_id), call.now))

    def get_list(self, call: Call, account_type: str, account_id: str, list_id: str) -> Answer:
        """One list with its estimated sizes and match rate, once computed."""
        _params(call, set())
        self._account(call, account_type, account_id)
        self.process_due(call.now)
        call.rows = 1
        return _json_answer(call, self._list_out(self._owned(account_type, account_id, list_id), call.now))

    def update_list(self, call: Call, account_type: str, account_id: str, list_id: str) -> Answer:
        """Change what may be changed; immutable fields are refused."""
        params = _params(call, {"updateMask", "validateOnly"})
        self._account(call, account_type, account_id)
        row = self._owned(account_type, account_id, list_id)
        body = _parse(call)
        body = {name: value for name, value in body.items() if name not in ("name", "id")}
        mutable = {"displayName", "description", "integrationCode", "membershipDuration", "membershipStatus"}
        try:
            wanted = _user_list(body)
            mask = [_camel(part.strip()) for part in params.get("updateMask", "").split(",") if part.strip()]
            for part in mask or wanted:
                if part.split(".")[0] == "ingestedUserListInfo":
                    raise Invalid(
                        "user_list.ingested_user_list_info",
                        "The upload key types of a list are fixed when it is made.",
                        "IMMUTABLE_FIELD_FOR_UPDATE",
                    )
                if part != "*" and part not in mutable:
                    raise Invalid("update_mask", f"{part} cannot be updated.", "INVALID_UPDATE_MASK")
            if mask and "*" not in mask:
                wanted = {name: wanted.get(name) for name in mask}
            if "displayName" in wanted and not wanted["displayName"]:
                raise Invalid("user_list.display_name", "A display name is required.", "INVALID_DISPLAY_NAME")
        except Invalid as invalid:
            raise Refusal(_violation(invalid)) from invalid
        name = wanted.get("displayName", row["display_name"])
        other = self._named(account_type, account_id, name)
        if other is not None and other != row["id"]:
            raise Refusal(_violation(_name_used()))
        call.rows = 1
        merged = {**orjson.loads(row["body"]), **wanted}
        if params.get("validateOnly") != "true":
            self.store.run(
                "update datamanager_lists set display_name = ?, body = ?, changed_at = ? where id = ?",
                name, orjson.dumps(merged), call.now, row["id"],
            )  # fmt: skip
        return _json_answer(call, self._list_out(self._row(row["id"]), call.now))

    def delete_list(self, call: Call, account_type: str, account_id: str, list_id: str) -> Answer:
        """Drop a list with its members."""
        params = _params(call, {"validateOnly"})
        self._account(call, account_type, account_id)
        row = self._owned(account_type, account_id, list_id)
        call.rows = 1
        if params.get("validateOnly") != "true":
            self.store.run("delete from datamanager_members where list_id = ?", row["id"])
            self.store.run("delete from datamanager_lists where id = ?", row["id"])
        return Answer(body={})

    def _account(self, call: Call, account_type: str, account_id: str) -> str:
        """Check the account in the path and the login account in the headers; returns the login account."""
        if account_type not in ("GOOGLE_ADS", "DISPLAY_VIDEO_ADVERTISER", "DISPLAY_VIDEO_PARTNER"):
            raise Refusal(
                _violation(Invalid("parent", "The account type cannot hold user lists.", "INVALID_RESOURCE_NAME"))
            )
        if not _ACCOUNT.fullmatch(account_id):
            raise Refusal(
                _violation(
                    Invalid("parent", "An account id is up to 10 digits, without dashes.", "INVALID_RESOURCE_NAME")
                )
            )
        header = call.headers.get("login-account")
        if header is None:
            return account_id
        match = _LOGIN_HEADER.fullmatch(header)
        if match is None:
            raise Refusal(
                _violation(
                    Invalid("login-account", "The header is accountTypes/*/accounts/*.", "INVALID_RESOURCE_NAME")
                )
            )
        return match[2]

    def _named(self, account_type: str, account_id: str, name: str) -> int | None:
        found: int | None = self.store.value(
            "select id from datamanager_lists where account_type = ? and account_id = ? and display_name = ?",
            account_type, account_id, name,
        )  # fmt: skip
        return found

    def _row(self, list_id: int) -> sqlite3.Row:
        row = self.store.one("select * from datamanager_lists where id = ?", list_id)
        if row is None:
            raise Refusal(_error(404, "NOT_FOUND", "Requested entity was not found.", [_info("NOT_FOUND")]))
        return row

    def _owned(self, account_type: str, account_id: str, list_id: str) -> sqlite3.Row:
        row = self._row(int(list_id)) if list_id.isdigit() else None
        if row is None or (row["account_type"], row["account_id"]) != (account_type, account_id):
            raise Refusal(_error(404, "NOT_FOUND", "Requested entity was not found.", [_info("NOT_FOUND")]))
        return row

    def _list_out(self, row: sqlite3.Row, now: float) -> dict[str, Any]:
        wanted = orjson.loads(row["body"])
        info = {**wanted["ingestedUserListInfo"]}
        result: dict[str, Any] = {
            "name": f"accountTypes/{row['account_type']}/accounts/{row['account_id']}/userLists/{row['id']}",
            "id": str(row["id"]),
            "displayName": row["display_name"],
            "membershipStatus": wanted["membershipStatus"],
            "membershipDuration": f"{wanted['membershipDuration']}s",
            "accessReason": "OWNED",
            "accountAccessStatus": "ENABLED",
        }
        for name in ("description", "integrationCode"):
            if wanted.get(name):
                result[name] = wanted[name]
        if row["is_computed"]:
            summary = self.summary(row["id"], now)
            result["sizeInfo"] = {name: str(size) for name, size in summary["sizes"].items()}
            result["targetNetworkInfo"] = {
                "eligibleForDisplay": summary["sizes"]["displayNetworkMembersCount"] >= 100,
                "eligibleForSearch": summary["sizes"]["searchNetworkMembersCount"] >= 100,
            }
            if "CONTACT_ID" in info["uploadKeyTypes"] and summary["match_rate"] is not None:
                info["contactIdInfo"] = {**info.get("contactIdInfo", {}), "matchRatePercentage": summary["match_rate"]}
        result["ingestedUserListInfo"] = info
        return result

    def summary(self, list_id: int, now: float) -> dict[str, Any]:
        """Members, identifiers known to Google, match rate and sizes per network (two significant digits)."""
        self._expire(list_id, now)
        rows = self.store.all("select kind, value from datamanager_members where list_id = ?", list_id)
        matched = sum(_is_known(row["kind"], row["value"]) for row in rows)
        return {
            "identifiers": len(rows),
            "matched": matched,
            "match_rate": round(100 * matched / len(rows)) if rows else None,
            "sizes": {
                "displayNetworkMembersCount": _rounded(matched * 0.92),
                "searchNetworkMembersCount": _rounded(matched * 0.97),
                "youtubeMembersCount": _rounded(matched * 0.85),
                "gmailMembersCount": _rounded(matched * 0.55),
            },
        }

    def _expire(self, list_id: int, now: float) -> None:
        body = self.store.value("select body from datamanager_lists where id = ?", list_id)
        if body is not None:
            oldest = now - int(orjson.loads(body)["membershipDuration"])
            self.store.run("delete from datamanager_members where list_id = ? and added_at < ?", list_id, oldest)

    # members

    def ingest(self, call: Call) -> Answer:
        """Put up to 10,000 members on up to 10 lists."""
        return self._change(call, "ingest")

    def remove(self, call: Call) -> Answer:
        """Take members off lists."""
        return self._change(call, "remove")

    def _change(self, call: Call, verb: str) -> Answer:
        _params(call, set())
        body = _parse(call)
        names = {"destinations", "audienceMembers", "validateOnly", "encoding", "encryptionInfo"}
        if verb == "ingest":
            names |= {"consent", "termsOfService"}
        try:
            body = _fields(body, names, "")
            validate_only = _bool(body.get("validateOnly", False), "validate_only")
            encoding = _enum(body.get("encoding", 0), "encoding", "encoding")
            if body.get("encryptionInfo") is not None:
                raise Invalid("encryption_info", "Encrypted uploads are not taken here.", "NOT_ALLOWLISTED")
            consent = _consent(body.get("consent"), "consent")
            terms = _terms(body.get("termsOfService"))
            destinations = self._destinations(body.get("destinations"))
            members = body.get("audienceMembers")
            if members is not None and not isinstance(members, list):
                raise Invalid("audience_members", _bad_value("audience_members", "TYPE_MESSAGE", members))
        except Invalid as invalid:
            raise Refusal(_violation(invalid)) from invalid
        call.rows = len(members or [])
        if not members:
            raise Refusal(_violation(Invalid("audience_members", "Members are required.", "REQUIRED_FIELD_MISSING")))
        if len(members) > MEMBERS_MAX:
            raise Refusal(
                _violation(
                    Invalid(
                        "audience_members",
                        "Maximum number of audience members allowed per request is 10,000.",
                        "TOO_MANY_AUDIENCE_MEMBERS",
                    )
                )
            )
        reader = _MemberReader(encoding, consent, {one["reference"] for one in destinations if one["reference"]})
        reader.read(members)
        violations = reader.violations
        if "userData" in reader.kinds and encoding == "ENCODING_UNSPECIFIED":
            violations.insert(
                0, Invalid("encoding", "The encoding is required for user data.", "REQUIRED_FIELD_MISSING")
            )
        if verb == "ingest" and reader.kinds & {"userData", "mobileData"} and terms != "ACCEPTED":
            violations.insert(
                0,
                Invalid(
                    "terms_of_service.customer_match_terms_of_service_status",
                    "The Customer Match terms must be accepted.",
                    "TERMS_AND_CONDITIONS_NOT_SIGNED",
                ),
            )
        if len(reader.kinds) > 1:
            violations.insert(
                0,
                Invalid(
                    "audience_members",
                    "Multiple data types are not allowed to be ingested in a single request.",
                    "MULTIPLE_DATA_TYPES_NOT_ALLOWED",
                ),
            )
        for index, one in enumerate(destinations):
            for kind in reader.kinds:
                if _DATA_KINDS[kind] not in one["upload_key_types"]:
                    violations.append(
                        Invalid(
                            f"destinations[{index}].product_destination_id",
                            "Type of the user list is not applicable for this request.",
                            "INVALID_USER_LIST_TYPE",
                        )
                    )
        if violations:
            raise Refusal(_violation(*violations))
        if validate_only:
            return Answer(body={"requestId": _request_id()})
        request_id = _request_id()
        payload = {
            "destinations": destinations,
            "kind": next(iter(reader.kinds)),
            "members": reader.members,
            "encoding": encoding,
        }
        self._queue(request_id, verb, call.now, payload)
        return Answer(body={"requestId": request_id})

    def remove_all(self, call: Call) -> Answer:
        """Empty lists of everybody last added before a time, which is now unless given."""
        _params(call, set())
        try:
            body = _fields(_parse(call), {"destinations", "removeAsOfTime", "validateOnly"}, "")
            validate_only = _bool(body.get("validateOnly", False), "validate_only")
            destinations = self._destinations(body.get("destinations"))
            moment = call.now
            if body.get("removeAsOfTime") is not None:
                try:
                    moment = epoch(body["removeAsOfTime"])
                except (ValueError, AttributeError, TypeError):
                    raise Invalid(
                        "remove_as_of_time", _bad_value("remove_as_of_time", "Timestamp", body["removeAsOfTime"])
                    ) from None
                if moment > call.now:
                    raise Invalid("remove_as_of_time", "The time is in the future.", "INVALID_REMOVE_AS_OF_TIME")
        except Invalid as invalid:
            raise Refusal(_violation(invalid)) from invalid
        call.rows = len(destinations)
        request_id = _request_id()
        if not validate_only:
            self._queue(request_id, "removeAll", call.now, {"destinations": destinations, "as_of": moment})
        return Answer(body={"requestId": request_id})

    def _destinations(self, value: object) -> list[dict[str, Any]]:
        if value is not None and not isinstance(value, list):
            raise Invalid("destinations", _bad_value("destinations", "TYPE_MESSAGE", value))
        if not value:
            raise Invalid("destinations", "At least one destination is required.", "REQUIRED_FIELD_MISSING")
        if len(value) > DESTINATIONS_MAX:
            raise Invalid(
                "destinations", "Maximum number of destinations allowed per request is 10.", "TOO_MANY_DESTINATIONS"
            )
        result: list[dict[str, Any]] = []
        for index, one in enumerate(value):
            where = f"destinations[{index}]"
            names = {"reference", "loginAccount", "linkedAccount", "operatingAccount", "productDestinationId"}
            one = _fields(one, names, where)
            reference = _text(one.get("reference", ""), f"{where}.reference")
            if reference and any(reference == other["reference"] for other in result):
                raise Invalid(f"{where}.reference", "References must differ.", "DUPLICATE_DESTINATION_REFERENCE")
            if one.get("operatingAccount") is None:
                raise Invalid(
                    f"{where}.operating_account", "The operating account is required.", "REQUIRED_FIELD_MISSING"
                )
            kind, account = _product_account(one["operatingAccount"], f"{where}.operating_account")
            login_kind, login = kind, account
            if one.get("loginAccount") is not None:
                login_kind, login = _product_account(one["loginAccount"], f"{where}.login_account")
            if one.get("linkedAccount") is not None and login_kind != "DATA_PARTNER":
                raise Invalid(
                    f"{where}.linked_account",
                    "Linked account is only supported when the login account is a DATA_PARTNER account.",
                    "LINKED_ACCOUNT_ONLY_ALLOWED_WITH_DATA_PARTNER_LOGIN_ACCOUNT",
                )
            list_id = _text(one.get("productDestinationId", ""), f"{where}.product_destination_id")
            if not list_id:
                raise Invalid(
                    f"{where}.product_destination_id", "The user list id is required.", "REQUIRED_FIELD_MISSING"
                )
            row = None
            if list_id.isdigit():
                row = self.store.one("select * from datamanager_lists where id = ?", int(list_id))
            if row is None or row["account_id"] != account:
                raise Invalid(f"{where}.product_destination_id", "User list is not valid.", "INVALID_USER_LIST_ID")
            if row["account_type"] != kind:
                raise Invalid(
                    f"{where}.operating_account.account_type",
                    "The account type is not that of the list.",
                    "DESTINATION_ACCOUNT_TYPE_MISMATCH",
                )
            if login not in (account, row["login_account"]):
                raise Invalid(
                    f"{where}.login_account",
                    "The login account has no access to the operating account.",
                    "OPERATING_ACCOUNT_LOGIN_ACCOUNT_MISMATCH",
                )
            info = orjson.loads(row["body"])["ingestedUserListInfo"]
            result.append(
                {
                    "reference": reference,
                    "list_id": row["id"],
                    "account_type": kind,
                    "account_id": account,
                    "login_type": login_kind,
                    "login_id": login,
                    "upload_key_types": info["uploadKeyTypes"],
                }
            )
        return result

    def _queue(self, request_id: str, verb: str, now: float, payload: dict[str, Any]) -> None:
        self.store.run(
            "insert into datamanager_requests (request_id, verb, received_at, payload) values (?, ?, ?, ?)",
            request_id, verb, now, orjson.dumps(payload),
        )  # fmt: skip

    # processing

    def retrieve(self, call: Call) -> Answer:
        """What became of a request: PROCESSING for its first polls or seconds, counts by reason afterwards."""
        params = _params(call, {"requestId"})
        request_id = params.get("requestId", "")
        row = self.store.one("select * from datamanager_requests where request_id = ?", request_id)
        if row is None:
            raise Refusal(
                _violation(
                    Invalid(
                        "request_id",
                        "The request ID used to retrieve the status of a request is not valid. Status can only be "
                        "retrieved for requests that succeed and don't have validate_only=true.",
                        "INVALID_REQUEST_ID",
                    )
                )
            )
        self.process_due(call.now)
        if row["processed_at"] is None and row["polls"] >= self.config.polls:
            self._process_up_to(row["seq"], call.now)
        self.store.run("update datamanager_requests set polls = polls + 1 where seq = ?", row["seq"])
        row = self.store.one("select * from datamanager_requests where seq = ?", row["seq"])
        payload = orjson.loads(row["payload"])  # type: ignore[index]
        results = orjson.loads(row["results"]) if row["results"] else None  # type: ignore[index]
        statuses = []
        for index, one in enumerate(payload["destinations"]):
            status: dict[str, Any] = {
                "destination": _destination_out(one),
                "requestStatus": "PROCESSING",
            }
            if results is not None:
                status.update(results[index])
            statuses.append(status)
        call.rows = len(statuses)
        return _json_answer(call, {"requestStatusPerDestination": statuses})

    def process_due(self, now: float) -> None:
        """Process what has waited long enough, in order."""
        due = self.store.value(
            "select max(seq) from datamanager_requests where processed_at is null and received_at <= ?",
            now - self.config.seconds,
        )
        if due is not None:
            self._process_up_to(due, now)

    def _process_up_to(self, seq: int, now: float) -> None:
        for row in self.store.all(
            "select * from datamanager_requests where processed_at is null and seq <= ? order by seq", seq
        ):
            payload = orjson.loads(row["payload"])
            results = [self._apply(row["verb"], row["received_at"], payload, one) for one in payload["destinations"]]
            # the members have arrived where they belong; a status needs the destinations only
            kept = orjson.dumps({"destinations": payload["destinations"]})
            self.store.run(
                "update datamanager_requests set processed_at = ?, results = ?, payload = ? where seq = ?",
                now, orjson.dumps(results), kept, row["seq"],
            )  # fmt: skip

    def _apply(self, verb: str, received_at: float, payload: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
        list_id = one["list_id"]
        if self.store.value("select 1 from datamanager_lists where id = ?", list_id) is None:
            return {"requestStatus": "FAILED"}
        self.store.run(
            "update datamanager_lists set changed_at = ?, is_computed = 1 where id = ?", received_at, list_id
        )
        if verb == "removeAll":
            self.store.run(
                "delete from datamanager_members where list_id = ? and added_at < ?", list_id, payload["as_of"]
            )
            return {"requestStatus": "SUCCESS", "removeAllAudienceMembersStatus": {}}
        members = [
            member
            for member in payload["members"]
            if not member[2] or not one["reference"] or one["reference"] in member[2]
        ]
        reasons: dict[str, int] = {}
        taken: list[tuple[str, str]] = []
        identifiers = matched = 0
        for values, consent, _ in members:
            identifiers += len(values)
            if verb == "ingest" and consent != "GRANTED":
                reason = f"PROCESSING_ERROR_REASON_{consent}"
                reasons[reason] = reasons.get(reason, 0) + 1
                continue
            taken.extend((kind, value) for kind, value in values)
        if verb == "ingest":
            if (
                self.store.value("select body ->> 'membershipStatus' from datamanager_lists where id = ?", list_id)
                == "CLOSED"
            ):
                known = self.store.all("select kind, value from datamanager_members where list_id = ?", list_id)
                there = {(row["kind"], row["value"]) for row in known}
                taken = [one for one in taken if one in there]  # nobody new comes in, and nothing is said of it
            matched = sum(_is_known(kind, value) for kind, value in taken)
            self.store.many(
                "insert or replace into datamanager_members values (?, ?, ?, ?)",
                [(list_id, kind, value, received_at) for kind, value in taken],
            )
        else:
            self.store.many(
                "delete from datamanager_members where list_id = ? and kind = ? and value = ?",
                [(list_id, kind, value) for kind, value in taken],
            )
        failed = sum(reasons.values())
        result: dict[str, Any] = {"requestStatus": "SUCCESS"}
        if failed:
            result["requestStatus"] = "FAILED" if failed == len(members) else "PARTIAL_SUCCESS"
            result["errorInfo"] = {
                "errorCounts": [{"recordCount": str(count), "reason": reason} for reason, count in reasons.items()]
            }
        result.update(_counts(verb, payload["kind"], len(members), identifiers, matched))
        return result


class _MemberReader:
    """Reads the members of a request into (identifiers, consent, references) each, or into violations."""

    def __init__(self, encoding: str, consent: str, references: set[str]) -> None:
        self.encoding = encoding
        self.consent = consent
        self.references = references
        self.kinds: set[str] = set()
        self.members: list[tuple[list[tuple[str, str]], str, list[str]]] = []
        self.violations: list[Invalid] = []

    def read(self, members: Sequence[object]) -> None:
        """Read all of them; JSON that cannot be bound is refused at once, the rest is collected."""
        for index, member in enumerate(members):
            try:
                self._member(member, index)
            except Invalid as invalid:
                if not invalid.reason:
                    raise Refusal(_violation(invalid)) from invalid
                self.violations.append(invalid)
                if len(self.violations) >= VIOLATIONS_SHOWN:
                    return

    def _member(self, member: object, index: int) -> None:
        where = f"audience_members[{index}]"
        names = {"destinationReferences", "consent", *_DATA_KINDS, *_CLOSED_KINDS}
        found = _fields(member, names, where)
        kinds = [kind for kind in found if kind.endswith("Data") and found[kind] is not None]
        if not kinds:
            raise Invalid(where, "This audience member is not valid: it holds no data.", "INVALID_AUDIENCE_MEMBER")
        if len(kinds) > 1:
            text = f"Invalid value at '{where}' (oneof), oneof field 'data' is already set. Cannot set '{kinds[1]}'"
            raise Invalid(where, text)
        kind = kinds[0]
        if kind in _CLOSED_KINDS:
            raise Invalid(f"{where}.{_snake(kind)}", "The account is not allowlisted for this data.", "NOT_ALLOWLISTED")
        self.kinds.add(kind)
        consent = _consent(found.get("consent"), f"{where}.consent") or self.consent or "NO_CONSENT"
        references = found.get("destinationReferences") or []
        for reference in references:
            if reference not in self.references:
                raise Invalid(
                    f"{where}.destination_references", "No destination has this reference.", "INVALID_DESTINATION"
                )
        if kind == "userData":
            values = self._user_data(found[kind], f"{where}.user_data")
        elif kind == "mobileData":
            values = self._mobile_data(found[kind], f"{where}.mobile_data")
        else:
            inner = _fields(found[kind], {"userId"}, f"{where}.user_id_data")
            user_id = _text(inner.get("userId", ""), f"{where}.user_id_data.user_id")
            if not user_id:
                raise Invalid(f"{where}.user_id_data.user_id", "The user id is required.", "REQUIRED_FIELD_MISSING")
            values = [("user", user_id)]
        self.members.append((values, consent, references))

    def _user_data(self, data: object, where: str) -> list[tuple[str, str]]:
        data = _fields(data, {"userIdentifiers"}, where)
        identifiers = data.get("userIdentifiers")
        path = f"{where}.user_identifiers"
        if identifiers is not None and not isinstance(identifiers, list):
            raise Invalid(path, _bad_value(path, "TYPE_MESSAGE", identifiers))
        if not identifiers:
            raise Invalid(path, "At least one identifier is required.", "REQUIRED_FIELD_MISSING")
        if len(identifiers) > IDENTIFIERS_MAX:
            raise Invalid(
                path,
                "Maximum number of user identifiers allowed per audience member is 10.",
                "TOO_MANY_USER_IDENTIFIERS",
            )
        values = []
        for index, identifier in enumerate(identifiers):
            field = f"{path}[{index}]"
            one = _fields(identifier, {"emailAddress", "phoneNumber", "address"}, field)
            given = [name for name in one if one[name] is not None]
            if len(given) != 1:
                if given:
                    already = f"Invalid value at '{field}' (oneof), oneof field 'identifier' is already set. "
                    raise Invalid(field, f"{already}Cannot set '{given[1]}'")
                raise Invalid(field, "The identifier is empty.", "REQUIRED_FIELD_MISSING")
            if given[0] == "emailAddress":
                values.append(("email", self._hash(one["emailAddress"], f"{field}.email_address", "Email")))
            elif given[0] == "phoneNumber":
                values.append(("phone", self._hash(one["phoneNumber"], f"{field}.phone_number", "Phone number")))
            else:
                values.append(("address", self._address(one["address"], f"{field}.address")))
        return values

    def _address(self, value: object, where: str) -> str:
        names = {"givenName", "familyName", "regionCode", "postalCode", "addressLine", "city", "administrativeArea"}
        one = _fields(value, names, where)
        for name in ("givenName", "familyName", "regionCode", "postalCode"):
            if not _text(one.get(name, ""), f"{where}.{_snake(name)}"):
                raise Invalid(f"{where}.{_snake(name)}", "An address needs all four parts.", "REQUIRED_FIELD_MISSING")
        if not re.fullmatch(r"[A-Z]{2}", one["regionCode"]):
            raise Invalid(f"{where}.region_code", "The region is two capital letters.", "INVALID_REGION_CODE")
        names_hashed = [
            self._hash(one[name], f"{where}.{_snake(name)}", "Name") for name in ("givenName", "familyName")
        ]
        return "|".join([*names_hashed, one["regionCode"], one["postalCode"]])

    def _hash(self, value: object, where: str, what: str) -> str:
        if not isinstance(value, str):
            raise Invalid(where, _bad_value(where, "TYPE_STRING", value))
        if self.encoding == "BASE64":
            try:
                raw = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise Invalid(where, "The value is not Base64.", "INVALID_BASE64_ENCODING") from None
            if len(raw) != 32:
                raise Invalid(where, f"{what} is not hashed.", "INVALID_SHA256_FORMAT")
            return raw.hex()
        if not _HEX.fullmatch(value):
            is_hex = re.fullmatch(r"[0-9a-fA-F]+", value) is not None
            if is_hex:
                raise Invalid(where, "The SHA256 encoded value is malformed.", "INVALID_SHA256_FORMAT")
            if len(value) == 64:
                raise Invalid(where, "The value is not hex encoded.", "INVALID_HEX_ENCODING")
            raise Invalid(where, f"{what} is not hashed.", "INVALID_SHA256_FORMAT")
        return value

    @staticmethod
    def _mobile_data(data: object, where: str) -> list[tuple[str, str]]:
        ids = _fields(data, {"mobileIds"}, where).get("mobileIds")
        path = f"{where}.mobile_ids"
        if not isinstance(ids, list) or not ids:
            raise Invalid(path, "At least one mobile id is required.", "REQUIRED_FIELD_MISSING")
        if len(ids) > IDENTIFIERS_MAX:
            raise Invalid(path, "Maximum number of mobile ids per member is 10.", "TOO_MANY_USER_IDENTIFIERS")
        for one in ids:
            if not isinstance(one, str) or not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", one):
                raise Invalid(path, "Mobile ID format is not valid.", "INVALID_MOBILE_ID_FORMAT")
        return [("mobile", one) for one in ids]


# reading JSON the way Google's front end does: either spelling of a name, enums as names or numbers


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name)


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


_SPELLINGS: dict[frozenset[str], dict[str, str]] = {}


def _fields(value: object, names: set[str], where: str) -> dict[str, Any]:
    """The object with its names in camel case; unknown names are refused."""
    if not isinstance(value, dict):
        raise Invalid(where, _bad_value(where, "TYPE_MESSAGE", value))
    if value.keys() <= names:
        return value
    key = frozenset(names)
    spellings = _SPELLINGS.setdefault(key, {spelling: name for name in names for spelling in (name, _snake(name))})
    result: dict[str, Any] = {}
    for given, inner in value.items():
        name = spellings.get(given)
        if name is None:
            at = f" at '{where}'" if where else ""
            raise Invalid(where, f'Invalid JSON payload received. Unknown name "{given}"{at}: Cannot find field.')
        if name in result:
            raise Invalid(where, f'Invalid JSON payload received. "{given}" is given twice.')
        result[name] = inner
    return result


def _bad_value(where: str, kind: str, value: object) -> str:
    shown = type(value).__name__
    return f"Invalid value at '{where}' ({kind}), {shown}"


def _text(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    raise Invalid(where, _bad_value(where, "TYPE_STRING", value))


def _bool(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    raise Invalid(where, _bad_value(where, "TYPE_BOOL", value))


def _enum(value: object, kind: str, where: str) -> str:
    names = ENUMS[kind]
    if isinstance(value, str) and value in names:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    raise Invalid(where, f"Invalid value at '{where}' (type.googleapis.com/google.ads.datamanager.v1), {value!r}")


def _consent(value: object, where: str) -> str:
    """GRANTED, DENIED_CONSENT, NO_CONSENT; empty when there is no such message."""
    if value is None:
        return ""
    one = _fields(value, {"adUserData", "adPersonalization"}, where)
    answers = [
        _enum(one.get(name, 0), "consent", f"{where}.{_snake(name)}") for name in ("adUserData", "adPersonalization")
    ]
    if "CONSENT_DENIED" in answers:
        return "DENIED_CONSENT"
    return "GRANTED" if answers == ["CONSENT_GRANTED", "CONSENT_GRANTED"] else "NO_CONSENT"


def _terms(value: object) -> str:
    if value is None:
        return ""
    name = "customerMatchTermsOfServiceStatus"
    one = _fields(value, {name}, "terms_of_service")
    return _enum(one.get(name, 0), "terms", f"terms_of_service.{_snake(name)}")


def _product_account(value: object, where: str) -> tuple[str, str]:
    one = _fields(value, {"accountId", "accountType", "product"}, where)
    if "accountType" not in one and "product" in one:
        kind = _enum(one["product"], "product", f"{where}.product")
    else:
        kind = _enum(one.get("accountType", 0), "account_type", f"{where}.account_type")
    if kind == "ACCOUNT_TYPE_UNSPECIFIED" or kind == "PRODUCT_UNSPECIFIED":
        raise Invalid(f"{where}.account_type", "The account type is required.", "REQUIRED_FIELD_MISSING")
    account = one.get("accountId", "")
    account = str(account) if is_int(account) else _text(account, f"{where}.account_id")
    if not _ACCOUNT.fullmatch(account):
        raise Invalid(
            f"{where}.account_id", "An account id is up to 10 digits, without dashes.", "INVALID_NUMBER_FORMAT"
        )
    return kind, account


def _user_list(body: dict[str, Any]) -> dict[str, Any]:
    """A UserList as given, checked and in our spelling: durations as seconds, enums as names."""
    writable = {
        "displayName", "description", "membershipStatus", "integrationCode", "membershipDuration",
        "ingestedUserListInfo", "accountAccessStatus", "targetNetworkInfo",
    }  # fmt: skip
    output_only = {"name", "id", "readOnly", "closingReason", "accessReason", "sizeInfo"}
    one = _fields(body, writable | output_only, "user_list")
    result: dict[str, Any] = {}
    for name in ("displayName", "description", "integrationCode"):
        if one.get(name) is not None:
            result[name] = _text(one[name], f"user_list.{_snake(name)}")
    if len(result.get("displayName", "")) > 255:
        raise Invalid("user_list.display_name", "The display name is too long.", "FIELD_VALUE_TOO_LONG")
    if one.get("membershipStatus") is not None:
        result["membershipStatus"] = _enum(one["membershipStatus"], "membership_status", "user_list.membership_status")
    if one.get("membershipDuration") is not None:
        result["membershipDuration"] = _duration(one["membershipDuration"], "user_list.membership_duration")
    if one.get("ingestedUserListInfo") is not None:
        result["ingestedUserListInfo"] = _info_of_list(one["ingestedUserListInfo"])
    return result


def _duration(value: object, where: str) -> int:
    match = re.fullmatch(r"(\d+)(?:\.0+)?s", value) if isinstance(value, str) else None
    if match is None:
        raise Invalid(where, f"Invalid value at '{where}' (type.googleapis.com/google.protobuf.Duration), {value!r}")
    seconds = int(match[1])
    if seconds == 0 or seconds % DAY:
        raise Invalid(where, "The duration must be an exact multiple of 24 hours.", "INVALID_ARGUMENT")
    if seconds > DURATION_MAX_DAYS * DAY:
        raise Invalid(where, f"The duration is at most {DURATION_MAX_DAYS} days.", "MEMBERSHIP_DURATION_TOO_LONG")
    return seconds


def _info_of_list(value: object) -> dict[str, Any]:
    where = "user_list.ingested_user_list_info"
    names = {
        "uploadKeyTypes", "contactIdInfo", "mobileIdInfo", "userIdInfo", "pairIdInfo", "pseudonymousIdInfo",
        "partnerAudienceInfo",
    }  # fmt: skip
    one = _fields(value, names, where)
    kinds = one.get("uploadKeyTypes", [])
    if not isinstance(kinds, list):
        kinds = [kinds]
    result: dict[str, Any] = {
        "uploadKeyTypes": [_enum(kind, "upload_key_type", f"{where}.upload_key_types") for kind in kinds]
    }
    if one.get("contactIdInfo") is not None:
        inner = _fields(one["contactIdInfo"], {"dataSourceType", "matchRatePercentage"}, f"{where}.contact_id_info")
        kind = _enum(inner.get("dataSourceType", 1), "data_source_type", f"{where}.contact_id_info.data_source_type")
        result["contactIdInfo"] = {"dataSourceType": kind}
    if one.get("mobileIdInfo") is not None:
        inner = _fields(one["mobileIdInfo"], {"dataSourceType", "keySpace", "appId"}, f"{where}.mobile_id_info")
        result["mobileIdInfo"] = {
            "keySpace": _enum(inner.get("keySpace", 0), "key_space", f"{where}.mobile_id_info.key_space"),
            "appId": _text(inner.get("appId", ""), f"{where}.mobile_id_info.app_id"),
        }
    if one.get("userIdInfo") is not None:
        _fields(one["userIdInfo"], {"dataSourceType"}, f"{where}.user_id_info")
    return result


def _check_info(info: Mapping[str, Any]) -> None:
    where = "user_list.ingested_user_list_info"
    for kind in info["uploadKeyTypes"]:
        if kind not in ("CONTACT_ID", "MOBILE_ID", "USER_ID"):
            raise Invalid(
                f"{where}.upload_key_types",
                "The upload key type is not supported.",
                "UNSUPPORTED_USER_LIST_UPLOAD_KEY_TYPES",
            )
    if "MOBILE_ID" in info["uploadKeyTypes"]:
        mobile = info.get("mobileIdInfo", {})
        if not mobile.get("appId") or mobile.get("keySpace") in (None, "KEY_SPACE_UNSPECIFIED"):
            raise Invalid(f"{where}.mobile_id_info", "App id and key space are required.", "REQUIRED_FIELD_MISSING")
    if "mobileIdInfo" in info and "MOBILE_ID" not in info["uploadKeyTypes"]:
        raise Invalid(
            f"{where}.mobile_id_info", "The list takes no mobile ids.", "UNSUPPORTED_INGESTED_USER_LIST_INFO_CONFIG"
        )


_FILTER_FIELDS = {
    "id": "id", "display_name": "display_name", "displayName": "display_name", "description": "description",
    "membership_status": "membershipStatus", "membershipStatus": "membershipStatus",
    "integration_code": "integrationCode", "integrationCode": "integrationCode",
    "access_reason": "access_reason", "accessReason": "access_reason",
}  # fmt: skip
_CONDITION = re.compile(r'\s*([A-Za-z_.]+)\s*(!=|>=|<=|=|>|<|:)\s*("(?:[^"\\]|\\.)*"|[A-Za-z0-9_]+)\s*')
_IN = re.compile(r'\s*IN\(\s*([A-Za-z_.]+)\s*,\s*((?:"(?:[^"\\]|\\.)*"|[A-Za-z0-9_]+|\s*,\s*)+)\)\s*')


def _filter(text: str) -> Callable[[sqlite3.Row], bool]:
    """A filter expression as a test of a row; INVALID_FILTER where it cannot be read."""
    tests: list[Callable[[sqlite3.Row], bool]] = []
    position = 0
    while position < len(text):
        if tests:
            match = re.compile(r"\s*AND\s+").match(text, position)
            if match is None:
                _bad_filter()
            position = match.end()
        match = _IN.match(text, position)
        if match is not None:
            values = [_unquote(one) for one in re.findall(r'"(?:[^"\\]|\\.)*"|[A-Za-z0-9_]+', match[2])]
            tests.append(_test(match[1], "in", values))
        else:
            match = _CONDITION.match(text, position)
            if match is None:
                _bad_filter()
            tests.append(_test(match[1], match[2], [_unquote(match[3])]))
        position = match.end()
    return lambda row: all(test(row) for test in tests)


def _test(field: str, operator: str, values: list[str]) -> Callable[[sqlite3.Row], bool]:
    if field not in _FILTER_FIELDS:
        _bad_filter()
    column = _FILTER_FIELDS[field]

    def read(row: sqlite3.Row) -> str:
        if column == "access_reason":
            return "OWNED"
        if column in ("id", "display_name"):
            return str(row[column])
        return str(orjson.loads(row["body"]).get(column, ""))

    if operator == "in":
        return lambda row: read(row) in values
    value = values[0]
    if operator == ":":
        return lambda row: value.lower() in read(row).lower()
    if operator == "=":
        return lambda row: read(row) == value
    if operator == "!=":
        return lambda row: read(row) != value
    if column != "id" or not value.isdigit():
        _bad_filter()
    number = int(value)
    compare: dict[str, Callable[[int], bool]] = {
        ">": lambda left: left > number,
        ">=": lambda left: left >= number,
        "<": lambda left: left < number,
        "<=": lambda left: left <= number,
    }
    return lambda row: compare[operator](int(row["id"]))


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _bad_filter() -> NoReturn:
    raise Refusal(_violation(Invalid("filter", "The query filter is invalid.", "INVALID_FILTER")))


def _name_used() -> Invalid:
    return Invalid("user_list.display_name", "The display name is already used.", "DISPLAY_NAME_ALREADY_USED")


# answers


def _error(code: int, status: str, message: str, details: Sequence[dict[str, Any]] = ()) -> Answer:
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = list(details)
    return Answer(code, {"error": error})


def _info(reason: str, **metadata: str) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "datamanager.googleapis.com",
        "metadata": metadata,
    }


def _violation(*invalid: Invalid) -> Answer:
    """400 with every field that is wrong; JSON that cannot be bound has its own shape."""
    unbound = [one for one in invalid if not one.reason]
    if unbound:
        violations = [{"field": one.field, "description": one.description} for one in unbound]
        details = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}]
        return _error(400, "INVALID_ARGUMENT", "\n".join(one.description for one in unbound), details)
    return _error(
        400,
        "INVALID_ARGUMENT",
        "There was a problem with the request.",
        [
            _info("INVALID_ARGUMENT", requestId=_request_id()),
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [
                    {"field": one.field, "description": one.description, "reason": one.reason} for one in invalid
                ],
            },
        ],
    )


def _oauth(status: int, error: str, description: str) -> Answer:
    return Answer(status, {"error": error, "error_description": description})


def _assertion_problem(form: Mapping[str, str], now: float) -> Answer | None:
    parts = form.get("assertion", "").split(".")
    if len(parts) != 3 or not all(parts):
        return _oauth(400, "invalid_grant", "Invalid JWT: must have three parts.")
    try:
        header, claims = (orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
        issuer, audience, scope, expires = claims["iss"], claims["aud"], claims["scope"], float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return _oauth(400, "invalid_grant", "Invalid JWT: header or claims cannot be read.")
    if header.get("alg") != "RS256" or not issuer or not str(audience).endswith("/token"):
        return _oauth(400, "invalid_grant", "Invalid JWT Signature.")
    if expires <= now or expires > now + 3_700:
        return _oauth(400, "invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes).")
    if SCOPE not in str(scope).split():
        return _oauth(400, "invalid_scope", "Invalid OAuth scope or ID token audience provided.")
    return None


def _params(call: Call, allowed: set[str]) -> dict[str, str]:
    spellings = {spelling: name for name in allowed for spelling in (name, _snake(name))}
    result: dict[str, str] = {}
    for name, value in call.params.items():
        if name in _SYSTEM_PARAMS:
            continue
        if name not in spellings:
            text = f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.'
            raise Refusal(_violation(Invalid("", text)))
        result[spellings[name]] = value
    return result


def _parse(call: Call) -> dict[str, Any]:
    if call.media_type != "application/json":
        raise Refusal(_error(400, "INVALID_ARGUMENT", "Invalid content type: the body must be application/json."))
    try:
        body = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        raise Refusal(_error(400, "INVALID_ARGUMENT", "Invalid JSON payload received. Parse error.")) from None
    if not isinstance(body, dict):
        raise Refusal(
            _error(400, "INVALID_ARGUMENT", "Invalid JSON payload received. Unexpected token: an object is due.")
        )
    return body


_ENUM_OF_FIELD = {
    "accountType": "account_type",
    "membershipStatus": "membership_status",
    "accessReason": "access_reason",
    "accountAccessStatus": "access_status",
    "uploadKeyTypes": "upload_key_type",
    "dataSourceType": "data_source_type",
    "keySpace": "key_space",
    "requestStatus": "request_status",
    "uploadMatchRateRange": "match_rate",
}


def _json_answer(call: Call, body: dict[str, Any]) -> Answer:
    """The body, with enums as numbers when the client asks for them so (`$alt=json;enum-encoding=int`)."""
    wanted = call.params.get("$alt") or call.params.get("alt") or ""
    return Answer(body=_numbered(body) if "enum-encoding=int" in wanted else body)


def _numbered(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {inner: _numbered(one, inner) for inner, one in value.items()}
    if isinstance(value, list):
        return [_numbered(one, name) for one in value]
    if name == "reason" and value in _REASONS:
        return _REASONS[value]
    kind = _ENUM_OF_FIELD.get(name)
    return ENUMS[kind].index(value) if kind and value in ENUMS[kind] else value


def _destination_out(one: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "loginAccount": {"accountType": one["login_type"], "accountId": one["login_id"]},
        "operatingAccount": {"accountType": one["account_type"], "accountId": one["account_id"]},
        "productDestinationId": str(one["list_id"]),
    }
    if one["reference"]:
        result["reference"] = one["reference"]
    return result


def _counts(verb: str, kind: str, records: int, identifiers: int, matched: int) -> dict[str, Any]:
    ending = "Ingestion" if verb == "ingest" else "Removal"
    counts: dict[str, Any] = {"recordCount": str(records)}
    if kind == "userData":
        counts["userIdentifierCount"] = str(identifiers)
        if verb == "ingest":
            counts["uploadMatchRateRange"] = _match_range(matched, identifiers)
    elif kind == "mobileData":
        counts["mobileIdCount"] = str(identifiers)
    else:
        counts["userIdCount"] = str(identifiers)
    return {f"audienceMembers{ending}Status": {f"{kind}{ending}Status": counts}}


def _match_range(matched: int, identifiers: int) -> str:
    if identifiers < 100:
        return "MATCH_RATE_RANGE_NOT_ELIGIBLE"
    percent = 100 * matched / identifiers
    if percent < 20:
        return "MATCH_RATE_RANGE_LESS_THAN_20"
    step = max(0, min(int((percent - 20.0001) // 10), 7)) if percent > 20 else 0
    return ENUMS["match_rate"][3 + step]


def _is_known(kind: str, value: str) -> bool:
    return zlib.crc32(value.encode()) % 100 < KNOWN_PERCENT[kind]


def _rounded(number: float) -> int:
    whole = round(number)
    return whole if whole < 100 else int(float(f"{whole:.1e}"))


def _request_id() -> str:
    return f"t-{secrets.token_urlsafe(12)}"
