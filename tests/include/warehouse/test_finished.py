"""Finished statements are kept for the next process, whatever the day, until the code that makes them changes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from include.settings import get_settings
from include.warehouse import finished, render
from include.warehouse.build import build_tables
from include.warehouse.engine import Warehouse

AS_OF = datetime(2026, 3, 10, 12)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of finished statements, and a process that remembers none."""
    monkeypatch.setenv("REKINDLE_CACHE_DIR", str(tmp_path / "cache"))
    get_settings.cache_clear()
    forget()
    yield tmp_path / "cache"
    forget()


def forget() -> None:
    finished._texts.clear()
    finished._folder.cache_clear()


def unasked() -> str:
    raise AssertionError("it was made again")


def kept_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_another_process_need_not_make_it_again(folder: Path) -> None:
    assert finished.finished(("a", 1), lambda: "select 'é\r\n'") == "select 'é\r\n'"
    forget()
    assert finished.finished(("a", 1), unasked) == "select 'é\r\n'"


def test_what_was_made_from_something_else_is_something_else(folder: Path) -> None:
    assert finished.finished(("a", 1), lambda: "one") == "one"
    assert finished.finished(("a", 2), lambda: "two") == "two"


def test_other_code_makes_its_own_and_the_old_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished.finished(("a",), lambda: "old")
    monkeypatch.setattr(finished, "version", lambda _: "0")
    forget()
    assert finished.finished(("a",), lambda: "new") == "new"
    assert [path.read_text() for path in kept_in(folder)] == ["new"]


def test_a_folder_that_cannot_be_written_is_done_without(folder: Path) -> None:
    folder.write_text("a file")
    assert finished.finished(("a",), lambda: "one") == "one"
    forget()
    assert finished.finished(("a",), lambda: "two") == "two"


def test_a_statement_of_another_time_is_the_same_statement(folder: Path) -> None:
    sql = "select stage_of(a) as b from core.x where a < :as_of - :gap"
    texts = [
        render.render(sql, "duckdb", {"as_of": moment, "gap": timedelta(hours=1)}, {"late": timedelta(days=1)})
        for moment in (AS_OF, AS_OF + timedelta(days=1))
    ]
    assert texts[0].replace("2026-03-10 12:00:00", "2026-03-11 12:00:00") == texts[1] != texts[0]
    assert len(kept_in(folder)) == 1


def test_another_parameter_makes_another_statement(folder: Path) -> None:
    made = {render.render("select :n as n", "duckdb", {"n": number, "as_of": AS_OF}) for number in (1, 2, "1")}
    assert len(made) == len(kept_in(folder)) == 3


def test_the_build_of_another_day_translates_nothing(
    folder: Path, empty_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not empty_warehouse.deletes_rows:
        pytest.skip("a query is taken apart there, and translated in pieces")

    def load(day: int) -> None:
        moment = AS_OF + timedelta(days=day)
        event = {"source": "web", "event_key": f"e{day}", "event_name": "page_view", "visitor_id": "v", "user_id": "u"}
        empty_warehouse.insert(
            "raw.events", [{**event, "occurred_at": moment - timedelta(hours=1), "loaded_at": moment}]
        )
        contact = {"source": "crm", "contact_id": "c", "email": "ana@x.example", "user_id": "u", "updated_at": moment}
        empty_warehouse.insert("raw.contacts", [{**contact, "loaded_at": moment}])
        build_tables(empty_warehouse, moment)

    load(0)
    load(1)
    forget()
    for name in ("parse", "parse_statement"):
        monkeypatch.setattr(render, name, unasked)
    load(2)
    assert empty_warehouse.scalar("select count(*) from core.events") == 3
