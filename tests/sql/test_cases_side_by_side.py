"""Every case under tests/sql once more, all of them in one build: on a real Spark cluster, and on DuckDB.

On DuckDB it shows that cases that stand side by side (side_by_side.py) come out as each does by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include.settings import ROOT
from include.warehouse.engine import Warehouse
from include.warehouse.models import Model
from tests.conftest import ENGINES
from tests.spark import SparkServer
from tests.sql.conftest import (
    PERSON,
    case_paths,
    compare,
    load_case,
    make_template,
    needed,
    params_of,
    settings_of,
    typed_row,
)
from tests.sql.side_by_side import KEY, Values, build_side_by_side

pytestmark = pytest.mark.on_spark
Found = Mapping[int, list[dict[str, Any]]]


@dataclass
class Worlds:
    """All cases after the build: their numbers, the columns and the rows of every table, by case."""

    numbers: Mapping[Path, int]
    columns: Mapping[str, Mapping[str, str]]
    tables: Mapping[str, Found]

    def profile_of(self, case: int, who: Mapping[str, str]) -> str | None:
        (found,) = {
            row["profile_id"]
            for row in self.tables["core.identifiers"][case]
            for kind, value in who.items()
            if (row["identifier_kind"], row["identifier_value"]) == (kind, str(value))
        }
        return str(found) if found is not None else None


@pytest.fixture(scope="module", params=[engine for engine in ENGINES if engine.values != ("postgres",)])
def worlds(request: pytest.FixtureRequest) -> Iterator[Worlds]:
    template = make_template(ROOT / "sql", Warehouse("duckdb://"))
    paths = case_paths()
    cases = [load_case(path) for path in paths]
    wanted: set[str] = set()
    given: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(dict)
    for number, case in enumerate(cases):
        targets = set(case["expect"]) | {"core.identifiers"}
        wanted |= needed(targets, set(case["given"]), template)
        for name, rows in case["given"].items():
            given[name][number] = [typed_row(name, row, template.columns[name]) for row in rows or ()]
    settings = [settings_of(case) for case in cases]

    def values(model: Model) -> dict[int, Values]:
        return {number: Values(*params_of(model, case, settings[number])) for number, case in enumerate(cases)}

    if request.param == "duckdb":
        warehouse = Warehouse("duckdb://")
    else:
        cluster: SparkServer = request.getfixturevalue("spark_server")
        warehouse = cluster.empty(with_tables=False)
    build_side_by_side(warehouse, {name: template.models[name] for name in wanted}, template.columns, given, values)
    tables: dict[str, Found] = {}
    for name in {name for case in cases for name in case["expect"]} | {"core.identifiers"}:
        by_case: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in warehouse.read(f"select * from {name}"):
            by_case[row[KEY]].append(row)
        tables[name] = by_case
    yield Worlds({path: number for number, path in enumerate(paths)}, template.columns, tables)
    warehouse.close()


def test_case(case_path: Path, worlds: Worlds) -> None:
    case, number = load_case(case_path), worlds.numbers[case_path]
    failures = []
    for name, rows in case["expect"].items():
        found = worlds.tables[name][number]
        failure = compare(
            name, list(rows or ()), found, worlds.columns[name], lambda who: worlds.profile_of(number, who)
        )
        failures += [failure] if failure else []
    if failures:
        pytest.fail("\n\n".join([case["about"].strip(), *failures]), pytrace=False)


def test_a_person_can_be_looked_up_in_every_case_that_names_one(worlds: Worlds) -> None:
    named = [path for path in case_paths() if names_a_person(load_case(path))]
    assert len(named) > 20
    assert all(worlds.tables["core.identifiers"][worlds.numbers[path]] for path in named)


def names_a_person(case: Mapping[str, Any]) -> bool:
    return any(PERSON & set(row) for rows in case["expect"].values() for row in rows or ())
