"""The example in docs/audiences.md is complete: it loads, it runs, and its case holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

from include.audiences.load import load_audiences
from include.settings import ROOT, get_settings
from include.warehouse.render import render

DOCS = (ROOT / "docs" / "audiences.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "sql" / "segments").mkdir(parents=True)
    (tmp_path / "sql" / "core").symlink_to(ROOT / "sql" / "core")
    (tmp_path / "sql" / "staging").symlink_to(ROOT / "sql" / "staging")
    (tmp_path / "sql" / "segments" / "quiet_regulars.sql").write_text(blocks("sql")[0])
    (tmp_path / "quiet_regulars.yaml").write_text(blocks("yaml")[0])
    monkeypatch.setenv("REKINDLE_SQL_DIR", str(tmp_path / "sql"))
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def test_the_example_loads(project: Path) -> None:
    loaded = load_audiences(project)
    assert [str(error) for error in loaded.errors] == []
    assert loaded.audience("quiet_regulars").stages == {"hello": timedelta(days=120), "gift": timedelta(days=150)}


def test_the_example_answers_as_its_case_says(project: Path) -> None:
    import duckdb

    audience = load_audiences(project).audience("quiet_regulars")
    case = yaml.safe_load(blocks("yaml")[1])
    as_of = datetime.fromisoformat(case["as_of"])
    sql = render(blocks("sql")[0], "duckdb", {**audience.params, "as_of": as_of}, audience.stages)
    with duckdb.connect() as database:
        database.execute("create schema core")
        database.execute("create table core.profiles (profile_id text, is_bot boolean, is_staff boolean)")
        database.execute(
            "create table core.profile_activity "
            "(profile_id text, last_viewed_products text, orders_count bigint, last_order_at timestamp)"
        )
        for table, rows in case["given"].items():
            for row in rows:
                marks = ", ".join("?" for _ in row)
                database.execute(f"insert into {table} ({', '.join(row)}) values ({marks})", list(row.values()))
        found = database.execute(f"select profile_id, stage, entered_at from ({sql})").fetchall()
    expected = case["expect"]["segments.quiet_regulars"]
    assert found == [(row["profile_id"], row["stage"], datetime.fromisoformat(row["entered_at"])) for row in expected]


def test_every_key_and_parameter_is_documented() -> None:
    loaded = load_audiences()
    keys = {key for audience in loaded.audiences.values() for key in type(audience).model_fields} - {"name"}
    params = {name for audience in loaded.audiences.values() for name in audience.params}
    assert sorted(word for word in keys | params if f"`{word}`" not in DOCS) == []
