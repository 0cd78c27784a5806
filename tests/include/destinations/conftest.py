"""What every destination test has: no real waiting, and a platform to talk to."""

from __future__ import annotations

import time

import pytest


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted, not made."""
    noted: list[float] = []
    monkeypatch.setattr(time, "sleep", noted.append)
    return noted
