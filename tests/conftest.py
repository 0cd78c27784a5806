"""What every test gets: settings read afresh, and where it asks, a warehouse on each engine.

A test that takes `new_warehouse` (or `empty_warehouse`) runs on DuckDB in memory, on a real PostgreSQL and on a real
Spark cluster. Where a server cannot be started, its runs are skipped and say why. On Spark a statement takes tenths of
a second: `make test` runs those tests there that are marked `on_spark`, and `make test-long` the others, marked `long`.

Hypothesis has two profiles, chosen by HYPOTHESIS_PROFILE: `ci` tries the same examples every time, `soak` ten times as
many and new ones. REKINDLE_EXAMPLES sets their number. A failure prints what reproduces it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from include.settings import get_settings
from include.warehouse.engine import Warehouse
from tests.postgres import CannotStart, PostgresServer, running_server
from tests.spark import CannotStart as SparkCannotStart
from tests.spark import SparkServer, running_cluster

# Files that take minutes begin first; of the longest, a process takes one test at a time.
LONGEST = "tests/sql/test_loads.py"
LONG = (
    LONGEST,
    "tests/include/sync/test_crash.py",
    "tests/include/sync/test_policy.py",
    "tests/dags/test_approvals_in_airflow.py",
    "tests/include/privacy/test_erasure.py",
)

SPARK = pytest.mark.spark
ENGINES = (pytest.param("duckdb"), pytest.param("postgres"), pytest.param("spark", marks=SPARK))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files to each process, the longest in parts, and to one all that needs the cluster: it is slow to start.

    By name, because the groups of xdist 3.8 do not reach pytest 9.2 (2026-11).
    """
    from xdist.scheduler import LoadFileScheduling

    class OneCluster(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            return "spark" if "spark" in nodeid else nodeid if file == LONGEST else file

    return OneCluster(config, log)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on Spark may wait for it to start; those that are not marked `on_spark` are long ones.

    They begin first, then the other long ones: whoever is last to finish should not have begun late.
    """

    def turn(item: pytest.Item) -> int:
        file = item.nodeid.split("::")[0]
        return -1 if "spark" in item.nodeid else LONG.index(file) if file in LONG else len(LONG)

    items.sort(key=turn)
    for item in items:
        if item.get_closest_marker("spark") is None:
            continue
        if "spark" not in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid} runs on Spark and its name does not say so")
        item.add_marker(pytest.mark.timeout(1800))
        if item.get_closest_marker("on_spark") is None:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session", autouse=True)
def _state_of_the_tests() -> Iterator[None]:
    """Working files of the tests are not those of the project that is tested."""
    folder = tempfile.mkdtemp(prefix="rekindle-state-")
    with pytest.MonkeyPatch.context() as patch:
        if "REKINDLE_STATE_DIR" not in os.environ:
            patch.setenv("REKINDLE_STATE_DIR", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)


def _register_profiles() -> None:
    # An example may be a whole warehouse, so none is too slow.
    common = settings(deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
    number = int(os.environ.get("REKINDLE_EXAMPLES", 0))
    settings.register_profile("ci", common, derandomize=True, max_examples=number or 200)
    settings.register_profile("soak", common, derandomize=False, max_examples=number or 2000)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


_register_profiles()


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with ExitStack() as until_the_end:
        try:
            server = until_the_end.enter_context(running_server())
        except CannotStart as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture(scope="session")
def postgres_tables(postgres_server: PostgresServer) -> Iterator[str]:
    """A database with the tables of include/warehouse/tables.py, to copy."""
    name = postgres_server.create()
    warehouse = Warehouse(postgres_server.url_of(name))
    warehouse.ensure_tables()
    warehouse.close()
    yield name
    postgres_server.drop(name)


@pytest.fixture(scope="session")
def spark_server() -> Iterator[SparkServer]:
    with ExitStack() as until_the_end:
        try:
            server = until_the_end.enter_context(running_cluster())
        except SparkCannotStart as error:
            pytest.skip(str(error))
        yield server


Fill = Callable[[Warehouse], object]


@pytest.fixture(scope="session")
def filled_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Fill], str]:
    """The DuckDB file with what a function fills in; it is asked once."""

    @cache
    def filled(fill: Fill) -> str:
        file = str(tmp_path_factory.mktemp("filled") / "warehouse.duckdb")
        warehouse = Warehouse("duckdb://")
        warehouse.ensure_tables()
        fill(warehouse)
        _copy_duckdb(warehouse, file, f"copy from database {_name(warehouse)} to filled")
        return file

    return filled


@pytest.fixture(scope="session")
def filled_database(postgres_server: PostgresServer, postgres_tables: str) -> Iterator[Callable[[Fill], str]]:
    """The same on PostgreSQL: a database."""
    with ExitStack() as until_the_end:

        @cache
        def filled(fill: Fill) -> str:
            name = postgres_server.create(postgres_tables)
            until_the_end.callback(postgres_server.drop, name)
            warehouse = Warehouse(postgres_server.url_of(name))
            fill(warehouse)
            warehouse.close()
            return name

        yield filled


def _copy_duckdb(warehouse: Warehouse, file: str, copy: str) -> None:
    with warehouse.session() as session:
        duck: Any = session.connection.driver_connection
        for statement in ("commit", f"attach '{file}' as filled", copy, "detach filled", "begin"):
            duck.execute(statement)


def _name(warehouse: Warehouse) -> str:
    """What DuckDB calls a database in memory."""
    return str(warehouse.scalar("select current_database()"))


@pytest.fixture(params=ENGINES)
def new_warehouse(request: pytest.FixtureRequest) -> Iterator[Callable[..., Warehouse]]:
    """Makes warehouses whose tables are there and empty, on one engine; they are gone after the test.

    With `fill` they hold what it fills in. On DuckDB and PostgreSQL it does so once, and each gets a copy: a build of
    nearly nothing takes a second, a copy of it a twentieth.
    """
    with ExitStack() as afterwards:

        def make(fill: Fill | None = None) -> Warehouse:
            if request.param == "duckdb":
                warehouse = Warehouse("duckdb://")
                if fill is None:
                    warehouse.ensure_tables()
                else:
                    file = request.getfixturevalue("filled_file")(fill)
                    _copy_duckdb(warehouse, file, f"copy from database filled to {_name(warehouse)}")
                return warehouse
            if request.param == "spark":
                cluster: SparkServer = request.getfixturevalue("spark_server")
                warehouse = cluster.empty()
                afterwards.callback(warehouse.close)
                if fill is not None:
                    fill(warehouse)
                return warehouse
            server: PostgresServer = request.getfixturevalue("postgres_server")
            tables = request.getfixturevalue("filled_database")(fill) if fill else None
            name = server.create(tables or request.getfixturevalue("postgres_tables"))
            afterwards.callback(server.drop, name)
            warehouse = Warehouse(server.url_of(name))
            afterwards.callback(warehouse.close)
            return warehouse

        yield make


@pytest.fixture
def empty_warehouse(new_warehouse: Callable[[], Warehouse]) -> Warehouse:
    """One warehouse with its tables, all empty."""
    return new_warehouse()
