"""Every error Rekindle raises on purpose, named by what has to happen next.

    RekindleError
    ├── ConfigurationError      a person must fix a file or a setting; retrying changes nothing
    │   └── AudienceFileError   ... in an audience or source definition; carries file and line
    ├── AuthenticationError     a person must fix a credential or a right; retrying changes nothing
    ├── AudienceRejected        the platform refuses the list itself; a person must act there
    │   └── ListGone            ... because it is not there any more: nobody is on it
    ├── NotSupported            the platform has no such feature
    ├── QualityGateFailed       the data is not fit to be sent; nothing was sent
    ├── BatchRefused            the platform refuses a batch as a whole; halves of it are tried, down to single rows
    ├── PlanOutdated            the world has moved on since the plan was made; plan again
    └── TransientError          try again, after `retry_after` seconds where the other side said so
        ├── AnswerLost          the call may have been carried out; only raised where it must not be repeated
        ├── Throttled           too fast, or too much at once
        └── QuotaExhausted      nothing more before `resets_at`: the quota of an hour or a day is used up

Texts say what failed, where, and what to do. They carry counts and ids, never a person's data, a hash or a secret.
"""

from __future__ import annotations

from datetime import UTC, datetime


class RekindleError(Exception):
    """Base of all errors raised on purpose. `is_final` tells a scheduler that a retry cannot help."""

    is_final = True


class ConfigurationError(RekindleError):
    """A file or a setting is wrong."""


class AudienceFileError(ConfigurationError):
    """A YAML definition is wrong at one place."""

    def __init__(self, message: str, *, path: str, line: int | None = None) -> None:
        self.path = path
        self.line = line
        super().__init__(f"{path}:{line}: {message}" if line else f"{path}: {message}")


class AuthenticationError(RekindleError):
    """A credential is wrong, expired or lacks a right."""


class AudienceRejected(RekindleError):
    """The platform does not accept this list (terms, policy, account)."""


class ListGone(AudienceRejected):
    """The list is not there any more: nobody is on it, and nobody can be put on it or taken off."""


class NotSupported(RekindleError):
    """The platform cannot do this; the text says so in a sentence."""


class BatchRefused(RekindleError):
    """The platform refuses a batch without saying which rows are at fault; the same rows in smaller batches may pass.

    The text is kept as the reason of a row that is refused alone, so it holds nobody's data.
    """


class QualityGateFailed(RekindleError):
    """A quality gate stopped an audience before anything was sent."""


class PlanOutdated(RekindleError):
    """A stored plan is not what would be planned now; nothing of it was sent."""


class TransientError(RekindleError):
    """The other side could not answer now. `retry_after` is in seconds, None where it did not say."""

    is_final = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class AnswerLost(TransientError):
    """A call that must not be repeated blindly may have been carried out: its answer did not arrive."""


class Throttled(TransientError):
    """The other side asks to slow down."""


class QuotaExhausted(TransientError):
    """A quota is used up until `resets_at` (with a time zone); asking earlier is in vain."""

    def __init__(self, message: str, *, resets_at: datetime) -> None:
        self.resets_at = resets_at
        super().__init__(message, retry_after=max((resets_at - datetime.now(UTC)).total_seconds(), 0.0))
