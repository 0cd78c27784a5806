"""The engines that can be measured: each gives the URL of a warehouse where nothing has happened yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import postgres

New = Callable[[str], str]
SPARK_WORKER_MB = 5000


class CannotStart(Exception):
    """Why an engine cannot be measured here."""


@contextmanager
def running(engine: str, folder: Path) -> Iterator[New]:
    """A function from a name to the URL of an empty warehouse; all of them are gone at the end."""
    if engine == "duckdb":

        def new(name: str) -> str:
            url = f"duckdb:///{folder / name}.duckdb"
            drop(url)  # an earlier run may have left one in a directory that is kept
            return url

        yield new
        return
    if engine == "postgres":
        try:
            with postgres.running_server() as server:
                yield lambda _: server.url_of(server.create())
        except postgres.CannotStart as error:
            raise CannotStart(str(error)) from error
        return
    if engine == "spark":
        try:
            from tests import spark
        except ImportError as error:
            raise CannotStart("Spark is not an engine of the warehouse yet") from error
        try:
            with spark.running_cluster(SPARK_WORKER_MB) as cluster:
                yield lambda _: cluster.empty(with_tables=False).url
        except spark.CannotStart as error:
            raise CannotStart(str(error)) from error
        return
    raise CannotStart(f"there is no engine {engine}; duckdb, postgres and spark can be measured")


def drop(url: str) -> None:
    """Give the disk of a DuckDB file back; the others go with their server."""
    if url.startswith("duckdb:///"):
        for path in Path(url.removeprefix("duckdb:///")).parent.glob(Path(url).name + "*"):
            path.unlink()
