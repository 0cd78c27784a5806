"""One measurement in a process of its own, so that its peak memory is its own. Prints JSON lines.

python -m tests.benchmarks.segments.measure generate --url duckdb:////tmp/x.duckdb --events-per-day 25000 --end 200
python -m tests.benchmarks.segments.measure tables --url duckdb:////tmp/x.duckdb --as-of 2020-07-19T01:00

A line for every part that is ready ({"part", "rows", "seconds"}), and a last one with the whole ({"seconds",
"cpu_seconds", "peak_mb"}). What a process needs before it can begin (imports, reading the models) is not counted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from include.audiences.load import load_audiences
from include.warehouse.build import build_segment, build_tables
from include.warehouse.engine import Warehouse
from include.warehouse.models import load_models
from tests.benchmarks.segments.bound import BOUND
from tests.benchmarks.segments.fill import fill, write_parquet
from tests.benchmarks.segments.shop import Shop

AUDIENCES = ("cart_abandoners", "lapsed_subscribers", "non_converting_visitors")
BOUND_RUNS = 3
Told = Callable[[str, int, float], None]


def bound(warehouse: Warehouse, told: Told) -> None:
    """What one pass over the events costs on this engine, a few times over."""
    for _ in range(BOUND_RUNS):
        with warehouse.session() as session:
            session.exec_driver_sql("drop table if exists reports.bound")
            began = time.perf_counter()
            session.exec_driver_sql(f"create table reports.bound as {BOUND}")
            rows = session.exec_driver_sql("select count(*) from reports.bound").scalar_one()
            told("bound", rows, time.perf_counter() - began)
            session.exec_driver_sql("drop table reports.bound")


def tables(warehouse: Warehouse, as_of: datetime, full_refresh: bool, told: Told) -> None:
    """Staging, core and reports: whole, or what arrived since the last build."""
    build_tables(warehouse, as_of, full_refresh=full_refresh, told=told)


def segments(warehouse: Warehouse, as_of: datetime, told: Told) -> None:
    """The shipped audiences on tables that are built."""
    loaded = load_audiences()
    for name in AUDIENCES:
        audience = loaded.audience(name)
        began = time.perf_counter()
        rows = build_segment(warehouse, name, audience.segment, as_of, audience.params, audience.stages)
        told(name, rows, time.perf_counter() - began)


def digests(warehouse: Warehouse, told: Told) -> None:
    """A number for each audience that was built, equal where two engines have the same rows."""
    for name in AUDIENCES:
        told(name, _digest(warehouse, name), 0)


def _digest(warehouse: Warehouse, audience: str) -> int:
    """The sum of the digests of all rows, whatever their order, modulo 2 ** 53."""
    columns = ", ".join(sorted(warehouse.columns(f"segments.{audience}") or ()))
    total = 0
    for row in warehouse.tuples(f"select {columns} from segments.{audience}"):
        written = "|".join(map(_written, row))
        total += uuid.uuid5(uuid.NAMESPACE_OID, written).int
    return total % 2**53


def _written(value: object) -> str:
    """A value in one spelling, whatever the engine's type."""
    if isinstance(value, (float, Decimal)):
        return f"{value:.4f}"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def pandas(folder: Path, as_of: datetime, told: Told) -> None:
    """The same audiences by the script beside this package."""
    from tests.benchmarks.segments_in_pandas import audiences

    began = time.perf_counter()
    found, _ = audiences(folder, as_of)
    for name, profiles in found.items():
        told(name, len(profiles), time.perf_counter() - began)


def _say(part: str, rows: int, seconds: float) -> None:
    print(json.dumps({"part": part, "rows": rows, "seconds": seconds}), flush=True)


def main() -> None:
    """Measure one thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("generate", "parquet", "bound", "tables", "segments", "digests", "pandas"))
    parser.add_argument("--url", help="a warehouse")
    parser.add_argument("--folder", type=Path, help="where the Parquet files are")
    parser.add_argument("--as-of", type=datetime.fromisoformat)
    parser.add_argument("--full-refresh", action="store_true")
    parser.add_argument("--events-per-day", type=float)
    parser.add_argument("--first", type=int, default=0, help="the first load to generate")
    parser.add_argument("--end", type=int, help="the load to stop before")
    parser.add_argument("--memory-mb", type=int, help="memory it may ask for; it fails beyond")
    chosen = parser.parse_args()
    if chosen.memory_mb:
        resource.setrlimit(resource.RLIMIT_DATA, (chosen.memory_mb << 20, chosen.memory_mb << 20))
    work: dict[str, Callable[[], None]] = {
        "generate": lambda: fill(Warehouse(chosen.url), Shop(chosen.events_per_day), chosen.first, chosen.end, _say),
        "parquet": lambda: write_parquet(Shop(chosen.events_per_day), chosen.first, chosen.end, chosen.folder, _say),
        "bound": lambda: bound(Warehouse(chosen.url), _say),
        "tables": lambda: tables(Warehouse(chosen.url), chosen.as_of, chosen.full_refresh, _say),
        "segments": lambda: segments(Warehouse(chosen.url), chosen.as_of, _say),
        "digests": lambda: digests(Warehouse(chosen.url), _say),
        "pandas": lambda: pandas(chosen.folder, chosen.as_of, _say),
    }
    if chosen.what == "pandas":
        importlib.import_module("tests.benchmarks.segments_in_pandas")
    else:
        load_models()
    began, used = time.perf_counter(), time.process_time()
    work[chosen.what]()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb}))


if __name__ == "__main__":
    main()
