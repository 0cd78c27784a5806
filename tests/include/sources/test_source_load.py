from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

import pytest
from filelock import FileLock

from include.connections import Connection
from include.errors import AuthenticationError, TransientError
from include.settings import get_settings
from include.sources.base import Batch, Pace, Run, Source, SourceSettings, State, raw_schema
from include.sources.load import run_source
from include.warehouse.engine import Warehouse
from include.warehouse.tables import metadata

ROOT = Path(__file__).resolve().parents[3]
AT = datetime(2026, 11, 24, 10)


class Numbers(Source):
    """A source that counts: every run brings the next contact."""

    kind = "numbers"
    label = "Numbers"
    docs_url = ""
    during: Callable[[], None] | None = None

    def read(self, state: State) -> Iterator[Batch]:
        state["next"] = state.get("next", 0) + 1
        yield self.table("contacts", [{"contact_id": str(state["next"]), "is_deleted": False, "updated_at": AT}])
        if self.during is not None:
            type(self).during()  # type: ignore[misc]


def numbers(at: datetime = AT) -> Numbers:
    return Numbers(Run("numbers", Connection("none"), at), SourceSettings())


def contacts(warehouse: Warehouse) -> list[str]:
    return [row["contact_id"] for row in warehouse.read("select contact_id from raw.contacts order by contact_id")]


def test_rows_land_in_the_tables_as_they_are_declared(warehouse: Warehouse) -> None:
    run_source(numbers(), warehouse)
    run_source(numbers(datetime(2026, 11, 24, 11)), warehouse)
    assert warehouse.read("select * from raw.contacts order by contact_id") == [
        {
            **dict.fromkeys(column.name for column in metadata.tables["raw.contacts"].columns),
            "source": "numbers",
            "contact_id": str(number),
            "is_deleted": False,
            "updated_at": AT,
            "loaded_at": loaded_at,
        }
        for number, loaded_at in ((1, AT), (2, datetime(2026, 11, 24, 11)))
    ]
    tables = warehouse.read("select distinct table_name from information_schema.columns where table_schema = 'raw'")
    ours = {name.removeprefix("raw.") for name in metadata.tables if name.startswith("raw.")}
    assert {row["table_name"] for row in tables if not row["table_name"].startswith("_dlt_")} == ours
    for table in sorted(ours):
        assert list(warehouse.columns(f"raw.{table}") or {}) == raw_schema(table).names


def test_the_warehouse_is_free_while_a_source_is_read(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []

    def look() -> None:
        with FileLock(f"{warehouse.url.removeprefix('duckdb:///')}.lock", timeout=0):
            count = (
                f"import duckdb; print(duckdb.connect({warehouse.url.removeprefix('duckdb:///')!r}).sql('select 42'))"
            )
            answers.append(subprocess.run([sys.executable, "-c", count], capture_output=True, text=True).returncode)

    monkeypatch.setattr(Numbers, "during", look)
    run_source(numbers(), warehouse)
    assert answers == [0]


class DiesAtTheLoad(Warehouse):
    """A warehouse whose second use by the loader, the load itself, never comes."""

    turns = 0

    def exclusive(self) -> AbstractContextManager[None]:
        if sys._getframe(1).f_code.co_name == "_run_locked":
            self.turns += 1
            if self.turns == 2:
                raise TransientError("the machine went away")
        return super().exclusive()


def test_a_run_that_dies_before_the_load_leaves_no_gap(warehouse: Warehouse) -> None:
    run_source(numbers(), warehouse)
    with pytest.raises(TransientError, match="went away"):
        run_source(numbers(), DiesAtTheLoad(warehouse.url))
    assert contacts(warehouse) == ["1"]
    run_source(numbers(), warehouse)
    assert contacts(warehouse) == ["1", "2"]


def test_a_killed_process_leaves_no_gap(warehouse: Warehouse, tmp_path: Path) -> None:
    run_source(numbers(), warehouse)
    script = f"""
import os
from dlt.load.load import Load
from tests.include.sources.test_source_load import numbers
from include.sources.load import run_source
from include.warehouse.engine import Warehouse
whole = Load.complete_package
Load.complete_package = lambda *a, **k: os._exit(9)  # rows are written, the package is not committed
run_source(numbers(), Warehouse({warehouse.url!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, env=_environment())
    assert done.returncode == 9, done.stderr[-2000:]
    run_source(numbers(), warehouse)
    assert set(contacts(warehouse)) == {"1", "2"}, "the second contact may be there twice, but never not at all"
    run_source(numbers(), warehouse)
    assert contacts(warehouse)[-1] == "3"


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_the_state_survives_the_loss_of_the_working_folder(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_source(numbers(), warehouse)
    monkeypatch.setenv("REKINDLE_STATE_DIR", str(tmp_path / "another machine"))
    get_settings.cache_clear()
    run_source(numbers(), warehouse)
    assert contacts(warehouse) == ["1", "2"]


def test_our_own_errors_come_out_as_they_are(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AuthenticationError("put a new key in")

    monkeypatch.setattr(Numbers, "during", refuse)
    with pytest.raises(AuthenticationError, match=r"^put a new key in$"):
        run_source(numbers(), warehouse)


def test_a_library_s_error_tells_the_place_and_no_row(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble() -> None:
        raise RuntimeError("cannot read 'Ana' <ana@shop.example> 00491701234567\nher whole row")

    monkeypatch.setattr(Numbers, "during", stumble)
    with pytest.raises(TransientError) as caught:
        run_source(numbers(), warehouse)
    assert "RuntimeError at test_source_load.py" in str(caught.value)
    for secret in ("Ana", "ana@", "4917", "her whole row"):
        assert secret not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_dlt_asks_neither_airflow_nor_its_makers(warehouse: Warehouse) -> None:
    script = f"""
import json, sys
from tests.include.sources.test_source_load import numbers
from include.sources.load import run_source
from include.warehouse.engine import Warehouse
run_source(numbers(), Warehouse({warehouse.url!r}))
import dlt
print(json.dumps([dlt.config.get("runtime.dlthub_telemetry"), "airflow.models.variable" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, env=_environment())
    assert json.loads(done.stdout.splitlines()[-1]) == ["false", False], done.stderr[-2000:]


def test_the_pace_waits_only_when_a_window_is_full() -> None:
    waits: list[float] = []
    pace = Pace(2, 10.0, waits.append)
    for _ in range(5):
        pace.wait()
    assert [round(seconds) for seconds in waits] == [10, 10, 20]
