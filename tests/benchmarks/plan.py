"""What a plan costs: N members in a DuckDB file, of whom a share has changed since the destination acknowledged them.

    python -m tests.benchmarks.plan --members 1000000 --changed 0 --destination mailchimp

Prints one JSON line: wall and CPU seconds of planning, the peak of memory above the interpreter's start (MB), and the
counts of the plan. The warehouse is made by SQL alone, in a process of its own, so that it costs no memory here.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from datetime import datetime
from pathlib import Path

AS_OF = datetime(2026, 3, 10, 12)
AUDIENCE = """
label: Benchmark
description: Everyone who is in the benchmark.
owner: lifecycle@example.com
segment: cart_abandoners
params: {idle_for: 1h, window: 7d, min_cart_value: 0}
destinations:
  - {to: mailchimp, audience: Newsletter, fields: {CART_URL: cart_url, CART_TOTAL: cart_value}}
  - {to: google_ads}
"""
FILL = """
    create table segments.bench as
        select 'p' || i as profile_id, timestamp '2026-03-10 08:00:00' as entered_at, 'reminder' as stage,
            'https://shop.example/cart/' || i as cart_url, (i % 9973) / 7.0 as cart_value
        from range({members}) as numbers(i);
    create table core.profiles as
        select 'p' || i as profile_id, 'person.' || i || '@example.com' as email,
            case when i % 3 = 0 then '+4219' || lpad(cast(i as text), 8, '0') end as phone,
            false as is_bot, false as is_staff
        from range({members}) as numbers(i);
    create table core.identifiers as
        select 'email' as identifier_kind, email as identifier_value, profile_id, 'strong' as strength, 'alone' as state
        from core.profiles
        union all
        select 'phone', phone, profile_id, 'weak', 'joined' from core.profiles where phone is not null;
    create table core.consents as
        select profile_id, channel, 'granted' as status
        from core.profiles, (values ('email'), ('ads')) as channels(channel);
    create table core.suppressions (profile_id text, channel text, reason text);
    create table core.engagement (profile_id text, channel text, type text, occurred_at timestamp);
    create table core.profile_merges (profile_id text, into_profile_id text, merged_at timestamp);
    create table core.profile_activity (profile_id text, last_order_at timestamp);
    create table staging.contact_identifiers (source text, contact_id text, kind text, value text, is_current boolean)
"""
ACKNOWLEDGE = """
    insert into sync.ledger (
        sequence, audience, destination, list_id, plan_id, action, profile_id, member_key, identifiers, payload_hash,
        status, acknowledged_at
    )
    select row_number, 'bench', '{destination}', 'list', plan_id, action, profile_id, member_key, identifiers,
        payload_hash, 'accepted', timestamp '2026-03-10 12:00:00'
    from sync.plan_rows
"""


def prepare(folder: Path, members: int, destination: str) -> str:
    """A warehouse in which every member is acknowledged as she is; returns its URL."""
    (folder / "bench.yaml").write_text(AUDIENCE)
    url = f"duckdb:///{folder}/bench.duckdb"
    process = multiprocessing.get_context("spawn").Process(target=_fill, args=(url, members, destination))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("the warehouse could not be filled")
    return url


def _fill(url: str, members: int, destination: str) -> None:
    from include.sync.plan import plan_target
    from include.warehouse.engine import Warehouse

    warehouse = Warehouse(url)
    warehouse.ensure_tables()
    for statement in FILL.format(members=members).split(";"):
        warehouse.execute(statement)
    plan = plan_target(warehouse, "bench", destination, AS_OF, "first")
    if plan.adds != members:
        raise SystemExit(f"{plan.adds} of {members} are to be added")
    warehouse.execute(ACKNOWLEDGE.format(destination=destination))


def measure(url: str, destination: str, changed: int, left: int) -> dict[str, object]:
    """Change and take out so many members, plan, and say what it cost."""
    start = _peak_mb()
    from include.sync.plan import plan_target
    from include.warehouse.engine import Warehouse

    warehouse = Warehouse(url)
    if changed:
        warehouse.execute(
            f"update segments.bench set cart_value = 0.5 where cast(substr(profile_id, 2) as bigint) < {changed}"
        )
    if left:
        warehouse.execute(
            "delete from segments.bench where cast(substr(profile_id, 2) as bigint) "
            f"between {changed} and {changed + left - 1}"
        )
    before = _peak_mb()
    wall, cpu = time.monotonic(), time.process_time()
    plan = plan_target(warehouse, "bench", destination, AS_OF, "second")
    return {
        "destination": destination,
        "wall_s": round(time.monotonic() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_mb_above_start": round(_peak_mb() - start),
        "peak_mb_before_plan": round(before - start),
        "adds": plan.adds,
        "updates": plan.updates,
        "removes": plan.removes,
        "unchanged": plan.unchanged,
    }


def _with_cpu(record: logging.LogRecord) -> bool:
    record.cpu = time.process_time()
    return record.name.startswith("include.")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure one plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--changed", type=int, default=0, help="members whose cart has another value")
    parser.add_argument("--left", type=int, default=0, help="members who are not in the segment any more")
    parser.add_argument("--destination", default="mailchimp", choices=["mailchimp", "google_ads"])
    parser.add_argument("--keep", type=Path, help="a folder for the warehouse, used again when it is there")
    parser.add_argument("--verbose", action="store_true", help="the time of each step")
    options = parser.parse_args()
    if options.verbose:
        logging.basicConfig(level=logging.DEBUG, format="%(cpu)6.2f s of CPU: %(message)s")
        logging.getLogger().handlers[0].addFilter(_with_cpu)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="rekindle-plan-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["REKINDLE_AUDIENCES_DIR"] = str(folder)
    url = f"duckdb:///{folder}/bench.duckdb"
    if not (folder / "bench.duckdb").exists():
        url = prepare(folder, options.members, options.destination)
    try:
        print(json.dumps(measure(url, options.destination, options.changed, options.left)))
    finally:
        if options.keep is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
