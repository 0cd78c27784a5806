"""The commands, as somebody types them."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from include.settings import ROOT
from include.warehouse.engine import Warehouse

AT = datetime(2026, 3, 1, 12)


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "include.warehouse", *arguments]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, timeout=120)


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"duckdb:///{tmp_path}/test.duckdb"
    warehouse = Warehouse(made)
    warehouse.ensure_tables()
    warehouse.insert(
        "raw.orders",
        [
            {
                "source": "shop",
                "order_id": f"o{i}",
                "total_amount": i * 1.5,
                "email": "ana@shop.example",
                "ordered_at": AT,
                "loaded_at": AT,
            }
            for i in range(3)
        ],
    )
    return made


def test_a_query_shows_its_rows(url: str) -> None:
    said = run("query", "select order_id, total_amount from raw.orders order by order_id", "--url", url)
    assert said.returncode == 0, said.stderr
    assert [word for word in ("order_id", "total_amount", "o0", "o2", "3.0", "3 rows") if word not in said.stdout] == []


def test_a_query_comes_from_a_file_or_standard_input(url: str, tmp_path: Path) -> None:
    sql = "select count(*) as how_many from raw.orders where :as_of is not null"
    (tmp_path / "ask.sql").write_text(sql)
    for said in (run("query", str(tmp_path / "ask.sql"), "--url", url), run("query", "-", "--url", url, given=sql)):
        assert "how_many" in said.stdout, said.stderr


def test_a_limit_says_that_there_is_more(url: str) -> None:
    said = run("query", "select order_id from raw.orders", "--limit", "2", "--url", url)
    assert "the first 2 rows" in said.stdout


@pytest.mark.parametrize(
    ("sql", "words"), [("select * from core.nowhere", "no table"), ("select nothing from raw.orders", "nothing")]
)
def test_an_error_is_said_without_a_traceback(url: str, sql: str, words: str) -> None:
    said = run("query", sql, "--url", url)
    assert said.returncode == 1
    assert words in said.stderr
    assert "Traceback" not in said.stderr


def test_build_makes_a_model_and_the_views(url: str) -> None:
    said = run("build", "staging.orders", "--as-of", "2026-03-10T12:00", "--url", url)
    assert said.returncode == 0, said.stderr
    assert "staging.orders" in said.stderr
    assert Warehouse(url).scalar("select count(*) from staging.orders") == 3


def test_models_are_listed_with_what_they_read() -> None:
    said = run("models")
    assert said.returncode == 0, said.stderr
    assert "staging.orders" in said.stdout
    assert "raw.orders" in said.stdout
