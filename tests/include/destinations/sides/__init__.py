"""What the contract suite has to know of a platform: one module per destination, with one class `Side`.

A side speaks for the platform's own side, the sandbox: who is on a list there, what people said there, and how the
platform says no. It never asks the destination under test.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any, ClassVar

import pytest

from include.connections import Connection
from include.destinations.base import Member
from tests.include.destinations.running_sandbox import Entry, RunningSandbox

LABEL = "Cart abandoners"  # of the audience under test
TOLD = 7.0  # seconds that `throttled` asks us to wait


class BaseSide(ABC):
    """The platform's side of one destination. Member keys are how our ledger names people."""

    platform: ClassVar[str]  # its name in the sandbox's journal
    options: ClassVar[dict[str, object]] = {}  # what the audience file has to say
    unknown_list: ClassVar[str]  # an id of the right shape that no list has
    asks_again_on_401: ClassVar[int] = 0  # a vendor's client that renews its token and asks again, so many times

    def __init__(self, sandbox: RunningSandbox) -> None:
        self.sandbox = sandbox
        self._since = 0
        self.prepare()
        self.forget_calls()

    def prepare(self) -> None:  # noqa: B027
        """Put there what a real account has (nothing by default)."""

    @abstractmethod
    def connection(self) -> Connection:
        """How the destination reaches the sandbox."""

    @abstractmethod
    def people(self, count: int) -> list[Member]:
        """The first `count` of the people to send; the same ones every time."""

    @abstractmethod
    def bad_person(self) -> Member:
        """A row that the platform refuses for itself."""

    @abstractmethod
    def say_no(self) -> list[Member]:
        """Let one person say no at the tool in each way it knows, and return them; [] where it keeps no consent."""

    @abstractmethod
    def remember_in_capitals(self, members: Sequence[Member]) -> None:
        """Let the tool know these people already, in capitals; nothing where it keeps no addresses."""

    @abstractmethod
    def lose_list(self, label: str = LABEL) -> None:
        """Delete a list, as a person does at the tool."""

    @abstractmethod
    def statuses(self) -> dict[str, str]:
        """What the platform holds of everybody's consent, by member key; {} where it keeps none."""

    @abstractmethod
    def on_list(self, label: str = LABEL) -> set[str]:
        """The member keys on a list."""

    @abstractmethod
    def is_list_write(self, entry: Entry) -> bool:
        """Whether a request puts people on a list or takes them off."""

    def is_login(self, entry: Entry) -> bool:
        """Whether a request only gets a token."""
        return False

    @property
    @abstractmethod
    def write_route(self) -> str:
        """A regular expression on `METHOD /path` of the request that puts people on a list."""

    @property
    def api_route(self) -> str:
        """A regular expression on `METHOD /path` of every request but logins."""
        return ""

    @property
    @abstractmethod
    def unauthorized(self) -> dict[str, Any]:
        """A fault (`/_sandbox/faults`): the credential is not accepted, in the vendor's words."""

    @property
    @abstractmethod
    def throttled(self) -> dict[str, Any]:
        """A fault: too fast, come back in `TOLD` seconds, in the vendor's words."""

    def throttled_until(self, moment: datetime) -> dict[str, Any]:
        """A fault: too fast, come back at that time, said as an HTTP date."""
        return {**self.throttled, "headers": {"Retry-After": format_datetime(moment, usegmt=True)}}

    @abstractmethod
    def refusing(self, member: Member) -> dict[str, Any]:
        """A fault: the whole request is refused, with the person in the text of the error, as vendors do."""

    # what is the same for all

    def misbehave(self, fault: dict[str, Any], times: int = 1, route: str = "") -> None:
        """Play a fault on the next requests (`route`: only on those)."""
        self.sandbox.control("faults", {"platform": self.platform, "route": route, "times": times, **fault})

    def behave(self) -> None:
        """Forget the faults that are left."""
        self.sandbox.http.delete("/_sandbox/faults").raise_for_status()

    def calls(self) -> list[Entry]:
        """The requests since `forget_calls`, without logins."""
        return [entry for entry in self.sandbox.journal(self.platform, self._since) if not self.is_login(entry)]

    def forget_calls(self) -> None:
        self._since = self.sandbox.last_id()

    def list_writes(self) -> list[Entry]:
        return [entry for entry in self.calls() if self.is_list_write(entry)]


def side_of(name: str, sandbox: RunningSandbox) -> BaseSide:
    """The side of a destination; the test fails with what to write where there is none."""
    module = f"tests.include.destinations.sides.{name}"
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        pytest.fail(
            f"the destination '{name}' is not in the contract suite yet: write {module.replace('.', '/')}.py with a "
            "class Side(BaseSide) that tells who is on its lists in the sandbox (see docs/destinations.md)"
        )
    made: BaseSide = found.Side(sandbox)
    return made
