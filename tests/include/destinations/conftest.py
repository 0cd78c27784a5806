"""What every destination test has: no real waiting, and a sandbox to talk to."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.include.destinations.running_sandbox import RunningSandbox, running_sandbox


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted, not made."""
    noted: list[float] = []
    monkeypatch.setattr(time, "sleep", noted.append)
    return noted


@pytest.fixture(scope="module")
def served() -> Iterator[RunningSandbox]:
    """One running sandbox for a file of tests."""
    with running_sandbox() as running:
        yield running
