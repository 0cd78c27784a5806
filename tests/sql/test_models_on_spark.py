"""Every model on a real Spark cluster exactly as it runs for a user, over the given rows of all cases in one world.

People of different cases meet in it and get mixed up, on purpose: whatever comes of that must be the same on Spark as
on DuckDB, column by column and row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from include.settings import ROOT
from include.warehouse.build import run_model
from include.warehouse.engine import Warehouse
from include.warehouse.models import build_order
from include.warehouse.tables import metadata
from tests.conftest import SPARK
from tests.spark import SparkServer
from tests.sql.conftest import Template, case_paths, load_case, make_template, params_of, settings_of, typed_row

pytestmark = [SPARK, pytest.mark.on_spark]
AS_OF = datetime(2026, 3, 10, 12)
# Every engine hashes in its own way; only the engine itself ever compares these.
LEFT_OUT = {"event_hash", "loaded_hash"}


@pytest.fixture(scope="module")
def there() -> Template:
    template = make_template(ROOT / "sql", Warehouse("duckdb://"))
    assert template.errors == {}
    return template


@pytest.fixture(scope="module")
def here(there: Template, spark_server: SparkServer) -> Iterator[Warehouse]:
    """The same rows and the same models on both engines."""
    given: dict[str, list[dict[str, Any]]] = {}
    for path in case_paths():
        for name, rows in load_case(path)["given"].items():
            if name in metadata.tables:
                given.setdefault(name, []).extend(typed_row(name, row, there.columns[name]) for row in rows or ())
    assert len(given) > 10
    warehouse = spark_server.empty()
    for engine in (there.warehouse, warehouse):
        for name, rows in given.items():
            engine.insert(name, rows)
        with engine.session() as session:
            for name in build_order(there.models):
                model = there.models[name]
                params, stages = params_of(model, {"as_of": AS_OF}, settings_of({}))
                run_model(engine, session, model, params, stages)
    yield warehouse
    warehouse.close()


def test_every_table_has_the_same_columns_and_types(there: Template, here: Warehouse) -> None:
    with here.session() as session:
        assert here._all_columns(session) == there.columns


@pytest.mark.parametrize("schema", ["staging", "core", "segments", "sync", "reports"])
def test_every_table_has_the_same_rows(there: Template, here: Warehouse, schema: str) -> None:
    names = [name for name in there.models if name.startswith(f"{schema}.")]
    assert names
    different = [name for name in names if rows(here, name) != rows(there.warehouse, name)]
    assert different == []


def test_identities_built_again_are_the_same_and_a_name_that_is_gone_leaves_a_trail(
    there: Template, here: Warehouse
) -> None:
    before = rows(here, "core.identifiers")
    node = str(here.scalar("select min(node) from core.identifiers where profile_id is not null"))
    columns = ", ".join(
        "'p_gone' as profile_id" if name == "profile_id" else name for name in there.columns["core.identifiers"]
    )
    here.execute(f"insert into core.identifiers select {columns} from core.identifiers where node = :node", node=node)
    with here.session() as session:
        model = there.models["core.identifiers"]
        run_model(here, session, model, params_of(model, {"as_of": AS_OF}, settings_of({}))[0])
        tables = {str(row[1]) for row in session.exec_driver_sql("show tables in core")}
    assert rows(here, "core.identifiers") == before
    assert here.read("select node from core.former_names where profile_id = 'p_gone'") == [{"node": node}]
    assert not [name for name in tables if "__" in name]


def rows(warehouse: Warehouse, name: str) -> list[str]:
    """The rows as texts, numbers to nine digits: the order in which an engine adds is its own."""
    found = warehouse.read(f"select * from {name}")
    return sorted(
        repr(
            {
                key: f"{value:.9g}" if isinstance(value, float) else value
                for key, value in row.items()
                if key not in LEFT_OUT
            }
        )
        for row in found
    )


def test_the_common_world_is_not_empty(there: Template) -> None:
    filled = [name for name in there.models if there.warehouse.scalar(f"select count(*) from {name}")]
    assert len(filled) > 35
