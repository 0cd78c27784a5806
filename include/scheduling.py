"""What all DAGs share: defaults, when a failure is worth another try, and the time a run works for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryDecision

from include.errors import ConfigurationError, QuotaExhausted, RekindleError, TransientError
from include.settings import get_settings

CLOCKS_DIFFER = timedelta(seconds=30)


class RekindleRetryPolicy(ExceptionRetryPolicy):  # type: ignore[misc]
    """Wait as long as the other side asked; never repeat what a person has to fix first."""

    def __init__(self) -> None:
        super().__init__(rules=[])

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """Decide from the class of the error; anything we did not raise on purpose keeps Airflow's own rule."""
        if isinstance(exception, QuotaExhausted):  # seconds may have passed since the answer, and clocks differ
            left = exception.resets_at - datetime.now(UTC) + CLOCKS_DIFFER
            return RetryDecision.retry(max(left, CLOCKS_DIFFER), reason=str(exception))
        if isinstance(exception, TransientError):
            wait = exception.retry_after
            return RetryDecision.retry(timedelta(seconds=wait) if wait is not None else None, reason=str(exception))
        if isinstance(exception, RekindleError):
            return RetryDecision.fail(reason=str(exception))
        return RetryDecision.default()


START_DATE = datetime(2026, 1, 1, tzinfo=UTC)

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "data-engineering",
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": RekindleRetryPolicy(),
}

WAREHOUSE_POOL = "warehouse"


def run_as_of(context: Mapping[str, Any]) -> datetime:
    """The moment a run works for (UTC, no offset): its parameter, the project's frozen clock, or when it was due.

    A retried or cleared task gets the same answer, because a run keeps the time it was due.
    """
    given = context["params"].get("as_of")
    if given:
        try:
            moment = datetime.fromisoformat(str(given))
        except ValueError as error:
            raise ConfigurationError(f"parameter as_of: '{given}' is no ISO date and time") from error
    else:
        moment = get_settings().as_of or context["dag_run"].run_after
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
