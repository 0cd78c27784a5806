"""The two ways of `make bench-payload` write the same people; nothing is timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.warehouse.engine import Warehouse
from tests.benchmarks.payload import PLATFORMS, Platform, fill, ours, same


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_ours_and_the_plain_loop_write_the_same_people(tmp_path: Path, platform: Platform) -> None:
    warehouse = Warehouse(f"duckdb:///{tmp_path / 'w.duckdb'}")
    fill(warehouse, 700)
    assert same(warehouse, platform)
    assert sum(body.count(b"@") for body in ours(warehouse, platform)) == 0
