"""What every test gets: settings read afresh, so that one test's environment never reaches the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.settings import get_settings


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()
