"""Great Expectations over the warehouse: the one place that imports it, and only when a gate runs (that takes seconds).

GX opens connections as it likes and closes them before it has fetched, which DuckDB does not forgive (seen with 1.24).
Here it works on the one connection our session holds: the file is open once, everything is seen in one transaction,
and GX never learns where the warehouse is.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlalchemy

from include.errors import ConfigurationError


@dataclass(frozen=True)
class Check:
    """One expectation, by the name of its class in GX, and the sentence for when it fails.

    `{count}` in the sentence is the number of unexpected rows, or the observed value where there are none to count.
    """

    expectation: str
    sentence: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def failed_checks(connection: sqlalchemy.Connection, query: str, checks: Sequence[Check]) -> list[str]:
    """The sentences of the checks that fail on the rows of a query, in order. `query` is in the engine's dialect."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import; nothing about a run goes to anyone
    with _without_pyspark():
        import great_expectations as gx

    with _quiet():
        context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # they would be drawn into the task's log
    source = _source_class()(name="warehouse", connection_string="duckdb://")
    source.hold(connection)
    asset = context.data_sources.add_or_update_warehouse(datasource=source).add_query_asset(name="rows", query=query)
    suite = gx.ExpectationSuite(
        name="gate",
        expectations=[
            getattr(gx.expectations, check.expectation)(**check.arguments, meta={"place": place})
            for place, check in enumerate(checks)
        ],
    )
    try:
        batch = asset.add_batch_definition_whole_table("all").get_batch()
        with _quiet():
            result = batch.validate(suite, result_format="BASIC")
    finally:
        source.let_go()
    failed = []
    for outcome in result.results:
        if outcome.success:
            continue
        if _raised(outcome.exception_info):
            raise ConfigurationError(
                f"a check of the quality gate could not be run ({outcome.expectation_config.type}); the log above has "
                "the statement; most often a table it reads is not built yet"
            )
        place = outcome.expectation_config.meta["place"]
        failed.append((place, checks[place].sentence.format(count=_count(outcome.result))))
    return [sentence for _, sentence in sorted(failed)]


def _raised(info: Any) -> bool:
    """Whether a check broke down instead of failing; GX says so at the top, or once for each metric."""
    if not isinstance(info, Mapping):
        return False
    return bool(info.get("raised_exception")) or any(_raised(nested) for nested in info.values())


def _count(result: Mapping[str, Any]) -> Any:
    unexpected = result.get("unexpected_count")
    return result.get("observed_value", "some") if unexpected is None else unexpected


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("great_expectations")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _without_pyspark() -> Iterator[None]:
    """Keep GX from importing all of pyspark where that is installed: it takes seconds, and without a main file pyspark
    ends the process (seen with 4.3)."""
    if "pyspark" in sys.modules:
        yield
        return
    sys.modules["pyspark"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["pyspark"]


@lru_cache
def _source_class() -> Any:
    """A GX data source (`add_warehouse`) that runs on a connection it is given. Made once: GX registers each class."""
    from great_expectations.compatibility import pydantic
    from great_expectations.datasource.fluent import SQLDatasource
    from great_expectations.execution_engine import SqlAlchemyExecutionEngine

    class HeldConnectionEngine(SqlAlchemyExecutionEngine):  # type: ignore[misc]
        """Never opens and never closes: the connection belongs to our session."""

        def __init__(self, connection: sqlalchemy.Connection) -> None:
            super().__init__(engine=connection.engine, create_temp_table=False)
            self._connection = connection
            self._inspector = sqlalchemy.inspect(connection)

        @contextmanager
        def get_connection(self) -> Iterator[sqlalchemy.Connection]:
            yield self._connection

        def close(self) -> None:
            pass

    class WarehouseDatasource(SQLDatasource):  # type: ignore[misc]
        """Rows of the warehouse, over a connection that is held for it."""

        type: str = "warehouse"
        _held: Any = pydantic.PrivateAttr(None)

        def hold(self, connection: sqlalchemy.Connection) -> None:
            self._held = HeldConnectionEngine(connection)

        def let_go(self) -> None:
            self._held._connection = self._held._inspector = self._held.engine = None
            self._held = None

        def get_execution_engine(self) -> Any:
            return self._held

        def test_connection(self, test_assets: bool = True) -> None:
            pass

    return WarehouseDatasource
