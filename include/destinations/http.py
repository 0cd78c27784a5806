"""Talking to a platform over HTTP: log in, wait and try again when it says so, and speak of errors without secrets.

`HttpApi` is for platforms reached with httpx; `patiently` is the same patience for a vendor's own client. What comes
back is either an `Answer` (2xx, and the 4xx answers that only the caller understands) or one of our errors. No address
of a call appears in a log or an error: it may hold a person's hash. `what` says in words which call it was.
"""

from __future__ import annotations

import logging
import math
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import httpx
import msgspec
import orjson
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from include.errors import AuthenticationError, QuotaExhausted, Throttled, TransientError
from include.pacing import Limits, Pace

logger = logging.getLogger(__name__)

ATTEMPTS = 6  # 1 s, 2 s, 4 s, 8 s, 16 s between them where the platform names no time
LONGEST_WAIT = 120.0  # a platform that asks for more gets the whole task retried later, not a sleeping worker
LONGEST_ASKED = 7 * 86_400.0  # of what a platform may ask for; more is a slip, like milliseconds or a date

# httpx logs the address of each request at INFO, and httpcore headers at DEBUG; both may hold a person or a secret.
for _chatty in ("httpx", "httpcore"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)

_JSON = {"Content-Type": "application/json"}
_PERSONAL = re.compile(
    r"[^\s@<>\"']+@[^\s@<>\"',;]+"  # an e-mail address
    r"|\b[0-9a-fA-F]{32,}\b(?:-[a-z]+\d+)?"  # a hash, or a key
    r"|(?:eyJ|ya29\.)[\w.-]+"  # a token
    r"|\+?\d[\d\s().-]{7,}\d"  # a phone number
)


def without_people(text: str, limit: int = 300) -> str:
    """A vendor's sentence without addresses, numbers, hashes and tokens, so that it may be shown and stored."""
    return _PERSONAL.sub("***", " ".join(text.split()))[:limit]


def utc_now() -> datetime:
    """Now, in UTC without an offset, as the warehouse holds times."""
    return datetime.now(UTC).replace(tzinfo=None)


def patiently(label: str) -> Retrying:
    """Call something again while it raises TransientError: after its `retry_after`, or with growing pauses.

    A longer wait than LONGEST_WAIT and a used up quota are not slept through: the whole task is tried again then.
    """
    growing = wait_exponential_jitter(initial=1, max=60, jitter=0.5)

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, TransientError) else None
        return asked if asked is not None else growing(state)

    def is_worth_it(error: BaseException) -> bool:
        is_too_long = isinstance(error, QuotaExhausted) or (getattr(error, "retry_after", None) or 0) > LONGEST_WAIT
        return isinstance(error, TransientError) and not is_too_long

    def say(state: RetryCallState) -> None:
        seconds = state.next_action.sleep if state.next_action else 0
        error = state.outcome.exception() if state.outcome else None
        logger.warning("%s: attempt %s: %s; waiting %.1f s", label, state.attempt_number, error, seconds)

    return Retrying(
        retry=retry_if_exception(is_worth_it),
        wait=pause,
        stop=stop_after_attempt(ATTEMPTS),
        before_sleep=say,
        reraise=True,
    )


@dataclass(frozen=True, repr=False)
class Answer:
    """What a platform answered: the status and the JSON body (None when it is empty or no JSON).

    The body of a good answer is of the type that the call asked for.
    """

    status: int
    data: Any

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def problem(self) -> str:
        """Title and detail of an error body, without people."""
        if not isinstance(self.data, Mapping):
            return f"HTTP {self.status}"
        words = [str(self.data[key]) for key in ("title", "detail", "message") if self.data.get(key)]
        fields = self.data.get("errors")
        for item in fields if isinstance(fields, list) else []:
            if isinstance(item, Mapping):
                words.append(" ".join(str(item[key]) for key in ("field", "message") if item.get(key)))
        return without_people(": ".join(words)) or f"HTTP {self.status}"


class HttpApi:
    """A JSON API. 401 and 403 are final, 429 and 5xx and cut connections are waited for, the rest is an `Answer`.

    `is_throttled` recognises a vendor's own way to say "too fast" (Mailchimp's bare 403), and `quota_reset` tells when
    a quota that an answer calls used up is given back (with a time zone), None for any other answer. `pace` is the
    account's (`Destination.pace`).
    """

    def __init__(
        self,
        label: str,
        base_url: str,
        conn_id: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float = 120.0,
        is_throttled: Callable[[httpx.Response], bool] = lambda response: False,
        quota_reset: Callable[[httpx.Response], datetime | None] = lambda response: None,
        key_hint: str = "",
        rights_hint: str = "",
        pace: Pace | None = None,
    ) -> None:
        self.label = label
        self.conn_id = conn_id
        self._is_throttled = is_throttled
        self._quota_reset = quota_reset
        self._key_hint = key_hint
        self._rights_hint = rights_hint
        self._pace = pace or Pace(label, Limits())
        self._client = httpx.Client(
            base_url=base_url,
            auth=auth,
            headers={"Accept": "application/json", "User-Agent": "rekindle", **(headers or {})},
            timeout=httpx.Timeout(timeout, connect=30.0),
            verify=_trusted(base_url.startswith("https:")),
        )

    def call(
        self,
        method: str,
        path: str,
        what: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        shape: Any = None,
    ) -> Answer:
        """Make a call that is safe to repeat; `what` completes "while trying to ...".

        `shape` is the type to read a good answer as (msgspec): what it does not name is passed over, which makes a long
        answer three times as quick to read.
        """
        return patiently(self.label)(self._once, method, path, what, params, json, shape)

    def _once(
        self, method: str, path: str, what: str, params: Mapping[str, Any] | None, json: Any, shape: Any
    ) -> Answer:
        try:
            body = None if json is None else orjson.dumps(json)
            headers = None if json is None else _JSON
            with self._pace.turn():
                response = self._client.request(method, path, params=params, content=body, headers=headers)
        except httpx.TransportError as error:
            kind = type(error).__name__  # its text may hold the address
            raise TransientError(f"{self.label} gave no answer ({kind}) while trying to {what}") from None
        status = response.status_code
        resets_at = None if response.is_success else self._quota_reset(response)
        if resets_at is not None:
            raise QuotaExhausted(
                f"{self.label}: a quota is used up (HTTP {status}) while trying to {what}; it is given back at "
                f"{resets_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
                resets_at=resets_at,
            )
        if status == 429 or self._is_throttled(response):
            raise Throttled(
                f"{self.label} asks to slow down (HTTP {status}) while trying to {what}",
                retry_after=retry_after(response.headers.get("Retry-After")),
            )
        if status >= 500:
            raise TransientError(
                f"{self.label} has a problem of its own (HTTP {status}) while trying to {what}",
                retry_after=retry_after(response.headers.get("Retry-After")),
            )
        answer = Answer(status, _json(response, shape if response.is_success else None))
        if status == 401:
            raise AuthenticationError(
                f"{self.label} does not accept the credential in connection {self.conn_id} (HTTP 401) while trying to "
                f"{what}. {self._key_hint}".rstrip()
            )
        if status == 403:
            raise AuthenticationError(
                f"{self.label} says that the credential in connection {self.conn_id} may not {what} (HTTP 403: "
                f"{answer.problem()}). {self._rights_hint}".rstrip()
            )
        if answer.ok and response.content and answer.data is None:
            raise TransientError(f"{self.label} sent half an answer while trying to {what}")
        return answer


def retry_after(value: str | None) -> float | None:
    """Seconds to wait from a `Retry-After` header: a number or a date; None where it names no time to come."""
    try:
        return time_to_come(float(value or ""))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value or "")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return time_to_come((moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def time_to_come(seconds: float) -> float | None:
    """A wait that was asked for: a week at most, None where it is none (nan, inf, 0, in the past); pauses grow then."""
    return min(seconds, LONGEST_ASKED) if math.isfinite(seconds) and seconds > 0 else None


def _json(response: httpx.Response, shape: Any) -> Any:
    try:
        if shape is not None:
            return msgspec.json.decode(response.content, type=shape)
        return orjson.loads(response.content)
    except ValueError:
        return None


@lru_cache
def _trusted(is_secure: bool) -> ssl.SSLContext:
    """Whose certificates are believed; to read them takes as long as several calls. Without TLS: nobody's."""
    return httpx.create_ssl_context() if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
