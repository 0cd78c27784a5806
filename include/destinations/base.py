"""What a destination is: data the rest can read first, then verbs.

One platform is one module in this folder with one subclass of `Destination`; `get_destination(name)` finds it by file
name. The base owns what is the same everywhere; see `docs/destinations.md` for how to add one.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from include.connections import Connection, get_connection
from include.errors import ConfigurationError, NotSupported
from include.pacing import Limits, pace_of

Status = Literal["accepted", "rejected", "retry", "pending", "unattributed", "intended", "unknown"]


class Member(msgspec.Struct, frozen=True, gc=False):
    """One row to send. `identifiers` maps a kind the destination accepts to its values, ready to be sent."""

    # A struct, because a push makes one of each row, and a dataclass takes fourteen times as long.
    member_key: str
    identifiers: Mapping[str, Sequence[str]]
    fields: Mapping[str, str | None]

    def __repr__(self) -> str:
        return "Member()"  # a person is not shown


@dataclass(frozen=True)
class RowResult:
    """The destination's answer for one row; `reason` never holds a person's data."""

    status: Status
    reason: str = ""
    request_id: str | None = None


@dataclass(frozen=True)
class RequestOutcome:
    """What became of an asynchronous request; counts are rows."""

    status: Literal["pending", "succeeded", "partial", "failed"]
    accepted: int = 0
    rejected: int = 0
    detail: str = ""
    try_again: bool = False  # failed by a fault of the platform itself: the rows may be sent again


@dataclass(frozen=True, repr=False)
class OptOut:
    """A person's answer at a tool. `is_active=False` means the tool says the person came back."""

    kind: str
    value: str
    channel: Literal["email", "ads"]
    reason: str
    is_active: bool
    occurred_at: datetime | None


@dataclass(frozen=True)
class ListStats:
    """What a platform itself says about a list; None where it does not say. `match_rate` is a share, 0 to 1."""

    size: int | None = None
    match_rate: float | None = None


class DestinationSettings(BaseModel):
    """Base of the options an audience file may give one destination."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Destination(ABC):
    """A platform that holds lists. Verbs may be called from several threads, and are safe to repeat.

    A verb that is not (its call starts an automation) is left out of `repeatable`: it raises AnswerLost where it cannot
    tell whether the platform has acted, and `was_done` finds out.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    description: ClassVar[str]
    channel: ClassVar[Literal["email", "ads"]]
    api_version: ClassVar[str]
    docs_url: ClassVar[str]
    identifiers: ClassVar[tuple[str, ...]]  # kinds it accepts, in order of preference (include/identity)
    max_batch_rows: ClassVar[int]
    min_audience_size: ClassVar[int] = 0  # a list under it does nothing: removals that can wait keep it there
    refresh_after_days: ClassVar[int | None] = None  # it forgets members some time later; None where adding triggers
    passing_refusals: ClassVar[frozenset[str]] = frozenset()  # reasons about the person there, who is tried again later
    has_fields: ClassVar[bool] = False  # whether merge fields can be mapped
    connections: ClassVar[int] = 1  # calls at once that are safe in one push
    limits: ClassVar[Limits] = Limits()  # what an account allows to all its tasks together (include/pacing.py)
    repeatable: ClassVar[frozenset[str]] = frozenset({"add", "remove"})  # verbs that do no harm when sent twice
    poll_seconds: int = 60  # how often to ask after an asynchronous request
    Settings: ClassVar[type[DestinationSettings]] = DestinationSettings

    def __init__(self, connection: Connection, settings: DestinationSettings | None = None) -> None:
        self.connection = connection
        self.settings = settings or self.Settings()
        self.pace = pace_of(self.name, connection, self.limits)

    @classmethod
    def tells_opt_outs(cls) -> bool:
        """Whether people can say no at this tool and we can read it there."""
        return cls.read_opt_outs is not Destination.read_opt_outs

    @classmethod
    def answers_later(cls) -> bool:
        """Whether a verb may answer `pending`, to be asked after with `outcome`."""
        return cls.outcome is not Destination.outcome

    @classmethod
    def refresh_after(cls, settings: DestinationSettings) -> timedelta | None:
        """After how long a member who has not changed is sent again; None for never."""
        return None if cls.refresh_after_days is None else timedelta(days=cls.refresh_after_days)

    @abstractmethod
    def check(self) -> None:
        """Log in and see that the rights suffice; AuthenticationError with a sentence a marketer can act on."""

    @abstractmethod
    def ensure_audience(self, label: str, description: str, fields: Sequence[str]) -> str:
        """Find or create the list called `label` (and its merge fields); returns the platform's id of it."""

    @abstractmethod
    def add(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        """Put members on the list, or bring their fields up to date; one result per row, in order."""

    @abstractmethod
    def remove(self, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        """Take members off the list; never an unsubscribe. Who is not on it is `accepted`."""

    def was_done(self, list_id: str, verb: str, batch: Sequence[Member], since: datetime) -> list[bool | None]:
        """Whether a verb whose answer was lost was carried out since then (UTC), by member; None if nobody can tell.

        A member may have come in, left and come in again: what was done for her before `since` says nothing.
        """
        raise NotSupported(f"{self.label} does not show what a call has done")

    def outcome(self, request_id: str) -> RequestOutcome:
        """What became of a request that answered `pending`."""
        raise NotSupported(f"{self.label} answers at once; it has no requests to ask after")

    def read_opt_outs(self, since: datetime | None, said_no: Collection[str] | None = None) -> Iterator[OptOut]:
        """People who said no (or came back) at the tool since then, all of them when `since` is None.

        Only who said no before can come back: `said_no` holds their addresses, where they are few.
        """
        raise NotSupported(f"{self.label} does not tell who opted out")

    def opt_out_scope(self) -> str:
        """What one `read_opt_outs` covers, when it is less than the whole account (the name of a list)."""
        return ""

    def read_back(self, list_id: str) -> Iterator[str]:
        """The member keys that are on the list now."""
        raise NotSupported(f"{self.label} does not let a list be read back")

    def stats(self, list_id: str) -> ListStats:
        """How large the platform says the list is, and how many of the members it knows."""
        raise NotSupported(f"{self.label} does not tell the size of a list")

    def erase(self, identifiers: Mapping[str, Sequence[str]]) -> None:
        """Forget a person for good."""
        raise NotSupported(f"{self.label} has no call to erase a person")


def destination_class(name: str) -> type[Destination]:
    """The class of a destination by name; ConfigurationError where there is none."""
    try:
        module = importlib.import_module(f"include.destinations.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"include.destinations.{name}":
            raise
        raise ConfigurationError(f"there is no destination '{name}'") from error
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, Destination) and found.__module__ == module.__name__:
            return found
    raise ConfigurationError(f"include/destinations/{name}.py has no Destination class")


def get_destination(name: str, options: Mapping[str, object] | None = None) -> Destination:
    """A destination ready to use, on its connection `<name>_default` (or the option `connection`)."""
    cls = destination_class(name)
    chosen = dict(options or {})
    conn_id = str(chosen.pop("connection", f"{name}_default"))
    return cls(get_connection(conn_id), read_settings(name, chosen))


Connect = Callable[[str, Mapping[str, object]], Destination]  # get_destination, or what stands in for it


def read_settings(name: str, options: Mapping[str, object]) -> DestinationSettings:
    """The options of a destination, checked; ConfigurationError names each wrong one."""
    try:
        return destination_class(name).Settings.model_validate(dict(options))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'options'}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"destination {name}: {wrong}") from None
