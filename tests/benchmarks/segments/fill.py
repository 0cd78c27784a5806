"""The shop's rows into a warehouse or into Parquet files.

python -m tests.benchmarks.segments.fill --events 5000000 --parquet build/shop
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy

from include.warehouse.engine import Warehouse
from tests.benchmarks.segments.shop import DAYS, RAW_TABLES, Shop, steps, write_step

Told = Callable[[str, int, float], None]


def fill(warehouse: Warehouse, shop: Shop, first: int, end: int, told: Told) -> None:
    """Append loads to raw.*; `told` hears how many of them are there."""
    warehouse.ensure_tables()
    began = time.perf_counter()
    if warehouse.dialect == "duckdb":
        import duckdb

        path = str(sqlalchemy.make_url(warehouse.url).database)
        for begin, stop in steps(shop, first, end):
            with warehouse.exclusive(), duckdb.connect(path) as connection:
                write_step(connection, shop, begin, stop)
            told("loads", stop - first, time.perf_counter() - began)
        return
    with _drawing_board() as board, TemporaryDirectory(prefix="rekindle-shop-") as folder:
        for begin, stop in steps(shop, first, end):
            write_step(board, shop, begin, stop)
            for table in RAW_TABLES:
                path = f"{folder}/{table}.parquet"
                _take_off(board, table, path)
                warehouse.append_parquet(f"raw.{table}", path)
            told("loads", stop - first, time.perf_counter() - began)


def write_parquet(shop: Shop, first: int, end: int, folder: Path, told: Told) -> None:
    """One directory a table, in it one file a range of loads."""
    began = time.perf_counter()
    with _drawing_board() as board:
        for begin, stop in steps(shop, first, end):
            write_step(board, shop, begin, stop)
            for table in RAW_TABLES:
                (folder / table).mkdir(parents=True, exist_ok=True)
                _take_off(board, table, f"{folder / table}/{begin:05}.parquet")
            told("loads", stop - first, time.perf_counter() - began)


@contextmanager
def _drawing_board() -> Iterator[Any]:
    """A connection to a database in memory that has the tables of raw."""
    board = Warehouse("duckdb://")
    board.ensure_tables()
    with board.session() as session:
        yield session.connection.driver_connection


def _take_off(board: Any, table: str, path: str) -> None:
    """Move the rows of a table of the board to a Parquet file."""
    board.execute(f"copy raw.{table} to '{path}' (format parquet)")
    board.execute(f"delete from raw.{table}")


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
