"""One measurement in a process of its own, so that its peak memory is its own. Prints JSON lines.

python -m tests.benchmarks.segments.measure generate --url duckdb:///... --events-per-day 25000 --first 0 --end 200
python -m tests.benchmarks.segments.measure tables --url duckdb:///... --as-of 2020-07-19T01:00 [--full-refresh]

A line for every part that is ready ({"part", "rows", "seconds"}), and a last one with the whole ({"seconds",
"cpu_seconds", "peak_mb"}). What a process needs before it can begin (imports, reading the models) is not counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from datetime import datetime

from include.audiences.load import load_audiences
from include.warehouse.build import build_segment, build_tables
from include.warehouse.engine import Warehouse
from include.warehouse.models import load_models
from tests.benchmarks.segments.bound import BOUND

AUDIENCES = ("cart_abandoners", "lapsed_subscribers", "non_converting_visitors")
Told = Callable[[str, int, float], None]


def bound(warehouse: Warehouse, told: Told) -> None:
    """What one pass over the events costs on this engine."""
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


def _say(part: str, rows: int, seconds: float) -> None:
    print(json.dumps({"part": part, "rows": rows, "seconds": seconds}), flush=True)


def main() -> None:
    """Measure one thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("generate", "bound", "tables", "segments"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--as-of", type=datetime.fromisoformat)
    parser.add_argument("--full-refresh", action="store_true")
    parser.add_argument("--events-per-day", type=float)
    parser.add_argument("--first", type=int)
    parser.add_argument("--end", type=int)
    chosen = parser.parse_args()
    warehouse = Warehouse(chosen.url)
    load_models()
    began, used = time.perf_counter(), time.process_time()
    if chosen.what == "generate":
        from tests.benchmarks.segments.fill import fill
        from tests.benchmarks.segments.shop import Shop

        fill(warehouse, Shop(chosen.events_per_day), chosen.first, chosen.end, _say)
    elif chosen.what == "bound":
        bound(warehouse, _say)
    elif chosen.what == "tables":
        tables(warehouse, chosen.as_of, chosen.full_refresh, _say)
    else:
        segments(warehouse, chosen.as_of, _say)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb}))


if __name__ == "__main__":
    main()
