"""What the tests of sources share: a warehouse in a DuckDB file, a folder for definitions, and the real data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from include.settings import get_settings
from include.sources import ingest
from include.warehouse.engine import Warehouse

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("REKINDLE_STATE_DIR", str(tmp_path / "state"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(f"duckdb:///{tmp_path / 'warehouse.duckdb'}")


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    folder = tmp_path / "exports"
    folder.mkdir()
    return folder


@pytest.fixture
def run_source_file(
    tmp_path: Path, exports: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, int]]:
    """Write a definition named `name` and ingest it; its connection points at the folder `exports`."""

    def run(name: str, definition: str, said: list[str] | None = None, extra: Mapping[str, Any] | None = None) -> Any:
        folder = tmp_path / "definitions"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(definition, encoding="utf-8")
        monkeypatch.setenv("AIRFLOW_CONN_EXPORTS", json.dumps({"extra": {"path": str(exports), **(extra or {})}}))
        return ingest(name, warehouse, said.append if said is not None else None, folder=folder)

    return run


@pytest.fixture
def shared_data() -> Path:
    folder = Path(os.environ.get("REKINDLE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data is not here (REKINDLE_SHARED_DATA)")
    return folder
