"""Every case under tests/sql once more, on a real PostgreSQL: one SQL text, two engines, the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

ENGINE = "postgres"


def test_case(case_path: Path, run_case: Callable[[Path], None]) -> None:
    run_case(case_path)
