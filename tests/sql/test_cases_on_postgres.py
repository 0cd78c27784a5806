"""Every case under tests/sql once more, on a real PostgreSQL: one SQL text, two engines, the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from include.settings import ROOT
from include.warehouse.engine import Warehouse
from tests.sql.conftest import Template, make_template

ENGINE = "postgres"


def test_case(case_path: Path, run_case: Callable[[Path], None]) -> None:
    run_case(case_path)


def test_every_model_has_the_same_columns_and_types_as_on_duckdb(template: Template) -> None:
    there = make_template(ROOT / "sql", Warehouse("duckdb://"))
    assert (template.errors, there.errors) == ({}, {})
    assert template.columns == there.columns
