"""The shop's rows into a warehouse: straight into a DuckDB file, by COPY into PostgreSQL, or as Parquet files.

python -m tests.benchmarks.segments.fill --events 5000000 --parquet build/shop
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy

from include.warehouse.engine import Warehouse
from tests.benchmarks.segments.shop import RAW_TABLES, Shop, steps, write_loads, write_step

DAYS = 200
Told = Callable[[str, int, float], None]


def fill(warehouse: Warehouse, shop: Shop, first: int, end: int, told: Told) -> None:
    """Append loads to raw.*; `told` hears how many loads are there."""
    warehouse.ensure_tables()
    began = time.perf_counter()
    if warehouse.dialect == "duckdb":
        import duckdb

        path = str(sqlalchemy.make_url(warehouse.url).database)
        with warehouse.exclusive(), duckdb.connect(path) as connection:
            write_loads(connection, shop, first, end, lambda n: told("loads", n - first, time.perf_counter() - began))
        return
    raise NotImplementedError


def write_parquet(shop: Shop, first: int, end: int, folder: Path, told: Told) -> None:
    """One directory a table, one file a range of loads."""
    import duckdb

    began = time.perf_counter()
    # A database in memory with our tables in it, emptied after every range.
    scratch = Warehouse("duckdb:///:memory:")
    scratch.ensure_tables()
    with scratch.session() as session:
        connection: duckdb.DuckDBPyConnection = session.connection.driver_connection  # type: ignore[assignment]
        for begin, stop in steps(shop, first, end):
            write_step(connection, shop, begin, stop)
            for table in RAW_TABLES:
                (folder / table).mkdir(parents=True, exist_ok=True)
                connection.execute(f"copy raw.{table} to '{folder / table}/{begin:05}.parquet' (format parquet)")
                connection.execute(f"delete from raw.{table}")
            told("loads", stop - first, time.perf_counter() - began)


def main() -> None:
    """Write the rows as Parquet files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--parquet", type=Path, required=True, help="a directory; raw tables become directories in it")
    chosen = parser.parse_args()
    shop = Shop(chosen.events / chosen.days)
    write_parquet(
        shop, 0, chosen.days, chosen.parquet, lambda _, loads, seconds: print(f"{loads} loads, {seconds:.0f} s")
    )


if __name__ == "__main__":
    main()
