"""Talking to HubSpot: one paced, patient client; errors that say what to do and never show a token or an address.

Limits and error bodies as of 2026-11: https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines
and https://developers.hubspot.com/docs/api-reference/error-handling
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from include.connections import Connection
from include.destinations.http import retry_after
from include.errors import AuthenticationError, ConfigurationError, TransientError
from include.sources.base import Pace

log = logging.getLogger(__name__)

API_VERSION = "2026-09"  # https://developers.hubspot.com/docs/developer-tooling/platform/versioning
DEFAULT_URL = "https://api.hubapi.com"
ATTEMPTS = 8
LONGEST_WAIT = 120.0  # whoever asks for more gets the task retried later, not a sleeping worker
SEARCHES_PER_SECOND = 5  # per account: https://developers.hubspot.com/docs/api-reference/search/guide (2026-11)
PASSING = {500, 502, 503, 504, 521, 523, 524}
INTERVALS = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0}
_WORD = re.compile(r"[A-Za-z0-9_.\-]{1,80}")

# httpx logs the address of each request at INFO.
for _chatty in ("httpx", "httpcore"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)


class MissingScopes(AuthenticationError):
    """The token may not do this one thing; the caller may have another way."""

    def __init__(self, message: str, scopes: list[str]) -> None:
        self.scopes = scopes
        super().__init__(message)


class NotNow(TransientError):
    """Waiting inside the task does not help; the task has to be tried later."""


class HubSpotClient:
    """GET and POST with pacing, retries and our errors."""

    def __init__(
        self,
        connection: Connection,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.conn_id = connection.conn_id
        self._sleep = sleep
        try:
            per_ten_seconds = int(connection.extra.get("requests_per_10s", 100))
        except (TypeError, ValueError):
            per_ten_seconds = 0
        if per_ten_seconds < 1:
            raise ConfigurationError(f"connection {self.conn_id}: requests_per_10s in its extra must be a whole number")
        self._pace = Pace(per_ten_seconds, 10.0, sleep)
        self._search_pace = Pace(SEARCHES_PER_SECOND, 1.0, sleep)
        self.server_time: datetime | None = None
        token = connection.secret("HubSpot service key (pat-...)").strip()
        self._http = httpx.Client(
            base_url=connection.base_url(DEFAULT_URL),
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json", "User-Agent": "rekindle"},
            timeout=httpx.Timeout(60.0, connect=20.0),
            transport=transport,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, what: str, **params: Any) -> dict[str, Any]:
        """The JSON of a GET; `what` completes "HubSpot would not let us ..."."""
        return self._call("GET", path, what, params, None, is_search=False)

    def post(self, path: str, what: str, body: Mapping[str, Any], **params: Any) -> dict[str, Any]:
        """The JSON of a POST that only reads."""
        return self._call("POST", path, what, params, body, is_search=False)

    def search(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One page of a search."""
        return self._call(
            "POST", f"/crm/objects/{API_VERSION}/{kind}/search", f"search {kind}", {}, body, is_search=True
        )

    def pages(self, kind: str, **params: Any) -> Iterator[list[dict[str, Any]]]:
        """Every record of a kind, a page at a time, in the order of their ids."""
        after: str | None = None
        while True:
            cursor = {"after": after} if after else {}
            page = self.get(f"/crm/objects/{API_VERSION}/{kind}", f"read {kind}", limit=100, **params, **cursor)
            yield _list(page, "results")
            after = _next(page)
            if after is None:
                return

    def _call(
        self,
        method: str,
        path: str,
        what: str,
        params: Mapping[str, Any],
        body: Mapping[str, Any] | None,
        *,
        is_search: bool,
    ) -> dict[str, Any]:
        growing = wait_exponential_jitter(initial=1, max=60, jitter=0.5)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, TransientError) else None
            return asked if asked is not None else growing(state)

        def say(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            seconds = state.next_action.sleep if state.next_action else 0
            log.info("%s; attempt %s, waiting %.1f s", error, state.attempt_number, seconds)

        retrying = Retrying(
            retry=retry_if_exception(_is_passing),
            wait=pause,
            stop=stop_after_attempt(ATTEMPTS),
            sleep=self._sleep,
            before_sleep=say,
            reraise=True,
        )
        return retrying(self._once, method, path, what, params, body, is_search)

    def _once(
        self,
        method: str,
        path: str,
        what: str,
        params: Mapping[str, Any],
        body: Mapping[str, Any] | None,
        is_search: bool,
    ) -> dict[str, Any]:
        (self._search_pace if is_search else self._pace).wait()
        try:
            response = self._http.request(method, path, params=dict(params), json=body)
        except httpx.TransportError as error:
            kind = type(error).__name__  # its text may hold the address
            raise TransientError(f"HubSpot gave no answer ({kind}) when asked to {what}") from None
        except httpx.InvalidURL:
            raise ConfigurationError(f"connection {self.conn_id}: its host is not an address") from None
        if self.server_time is None:
            self.server_time = _date(response.headers.get("Date"))
        if response.status_code in (200, 201, 207):
            try:
                data = response.json()
            except ValueError:
                raise TransientError(f"HubSpot's answer broke off when asked to {what}") from None
            if not isinstance(data, dict):
                raise TransientError(f"HubSpot's answer was no JSON object when asked to {what}")
            return data
        raise self._error(response, what)

    def _error(self, response: httpx.Response, what: str) -> Exception:
        status = response.status_code
        try:
            body = response.json()
        except ValueError:
            body = None
        body = body if isinstance(body, dict) else {}
        asked = retry_after(response.headers.get("Retry-After"))
        if status == 429:
            policy = str(body.get("policyName", "")).upper()
            if policy == "DAILY":
                return NotNow(
                    "HubSpot's daily request quota of this account is used up; it resets at midnight in the account's "
                    "own time zone, and the next run goes on from where this one began",
                    retry_after=3600.0 if asked is None else asked,
                )
            interval = retry_after(response.headers.get("X-HubSpot-RateLimit-Interval-Milliseconds"))
            fallback = INTERVALS.get(policy, interval / 1000 if interval else 10.0)
            return TransientError(
                f"HubSpot's rate limit was reached ({_safe(policy) or 'no policy named'}) when asked to {what}",
                retry_after=fallback if asked is None else asked,
            )
        if status == 423:
            return TransientError(
                f"HubSpot has locked the data for a moment when asked to {what}", retry_after=max(asked or 0.0, 2.0)
            )
        if status == 477:
            return NotNow(
                "HubSpot is moving this account to another data centre and answers nothing until that is done",
                retry_after=3600.0 if asked is None else asked,
            )
        if status in PASSING:
            return TransientError(f"HubSpot answered {status} when asked to {what}", retry_after=asked)
        if status == 401:
            return AuthenticationError(
                f"HubSpot does not accept the token of connection {self.conn_id}: it was rotated, deleted or mistyped. "
                "Create a service key in HubSpot under Settings > Integrations > Service Keys and put it in the "
                "password of the connection in Airflow (Admin > Connections)"
            )
        if status == 403:
            scopes = _scopes(body)
            missing = ", ".join(scopes) if scopes else "HubSpot does not say which"
            return MissingScopes(
                f"the HubSpot key of connection {self.conn_id} may not {what}. Missing scopes: {missing}. Add them to "
                "the key in HubSpot under Settings > Integrations > Service Keys",
                scopes,
            )
        details = [_safe(body.get(key)) for key in ("category", "subCategory", "correlationId")]
        told = ", ".join(detail for detail in details if detail)
        return ConfigurationError(
            f"HubSpot refused when asked to {what} (HTTP {status}{': ' + told if told else ''}); check the property "
            "names in the source definition and the host of the connection"
        )


def _is_passing(error: BaseException) -> bool:
    return (
        isinstance(error, TransientError)
        and not isinstance(error, NotNow)
        and (error.retry_after or 0.0) <= LONGEST_WAIT
    )


def _scopes(body: Mapping[str, Any]) -> list[str]:
    """The scopes HubSpot says are missing."""
    found: list[str] = []
    errors = body.get("errors")
    for error in errors if isinstance(errors, list) else []:
        context = error.get("context") if isinstance(error, dict) else None
        for key in ("requiredGranularScopes", "requiredScopes"):
            scopes = context.get(key) if isinstance(context, dict) else None
            found += [word for scope in scopes if (word := _safe(scope))] if isinstance(scopes, list) else []
    return sorted(set(found))


def _safe(value: object) -> str:
    """A machine word of an error body; anything else could be a person's data."""
    text = str(value or "")
    return text if _WORD.fullmatch(text) and "@" not in text else ""


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC).replace(tzinfo=None) if text else None
    except ValueError:
        return None


def _list(page: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = page.get(key)
    return found if isinstance(found, list) else []


def _next(page: Mapping[str, Any]) -> str | None:
    """The cursor of the next page."""
    following = (page.get("paging") or {}).get("next") or {}
    after = following.get("after")
    return str(after) if after not in (None, "") else None
