"""The people of the benchmark, drawn in DuckDB's SQL from hashes: the same for every contender.

Ours gets them as the tables of a warehouse that is built (profiles, identifiers, consents, a segment) and works out who
may be sent what; the others get the finished list as a table `members`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import orjson

from include.warehouse.engine import Warehouse
from tests.benchmarks.sync.server import fingerprint, is_refused
from tests.include.sync.target_world import CORE, SEGMENT

AUDIENCE = "bench"
AS_OF = datetime(2026, 3, 10, 12)
CHANGED_IN = 100  # one in so many changes
LEAVES_IN = 1000  # one in so many goes
AUDIENCE_FILE = """
label: Carts
description: Left something in the cart.
owner: lifecycle@example.com
segment: cart_abandoners
params: {idle_for: 1h, window: 7d, min_cart_value: 0}
channels: {email: {consent: email}, ads: {consent: ads}}
guard: {max_add: 100%, max_remove: 100%, min_size: 0}
destinations:
  - {to: mailchimp, audience: Newsletter, fields: {CART_URL: cart_url, CART_TOTAL: cart_value, CART_ITEMS: cart_items}}
"""

# `version` 0 is the first day; on day 1 one in CHANGED_IN has another cart and one in LEAVES_IN is gone.
_PEOPLE = f"""
    select
        'p' || n as profile_id,
        'person.' || n || (array['@example.com', '@mail.example.org', '@example.co.uk'])[n % 3 + 1] as email,
        '+4930' || (10000000 + n) as phone,
        'v.' || md5('v' || n) as visitor_id,
        'https://shop.example/cart/' || md5('c' || n) as cart_url,
        (n % 20000) / 100 + case when $version = 1 and n % {CHANGED_IN} = 7 then 1.5 else 0.25 end as cart_value,
        case
            when n % 50 = 0 then '2 x 7" vinyl, 1 x Möbius mug'
            else (1 + n % 3) || ' x Blue shirt, 1 x Socks (' || n % 40 || ')'
        end as cart_items,
        1 + n % 4 as item_count,
        case
            when $version = 1 and n % {CHANGED_IN} = 7 then timestamp '2026-03-10 10:00:00'
            else timestamp '2026-03-09 10:00:00'
        end as changed_at
    from range($people) as numbers (n)
    where $version = 0 or n % {LEAVES_IN} <> 3
"""
_MEMBERS = f"""
    select email, cart_url, cast(cast(cart_value as decimal(18, 2)) as text) as cart_total, cart_items, changed_at
    from ({_PEOPLE})
"""
_TABLES = {
    "core.profiles": "select profile_id, email, phone, false as is_bot, false as is_staff from people",
    "core.identifiers": "select 'email' as identifier_kind, email as identifier_value, profile_id, "
    "'strong' as strength, 'joined' as state from people "
    "union all select 'phone', phone, profile_id, 'weak', 'alone' from people "
    "union all select 'visitor_id', visitor_id, profile_id, 'weak', 'alone' from people",
    "core.consents": "select profile_id, channel, 'granted' as status from people, "
    "(select unnest(['email', 'ads']) as channel)",
    f"segments.{AUDIENCE}": "select profile_id, changed_at as entered_at, 'reminder' as stage, cart_url, cart_items, "
    "cart_value, item_count, changed_at as abandoned_at, cast(null as varchar) as allowed_channels from people",
}


@dataclass(frozen=True)
class Day:
    """Who is on the list on a day: so many people, in the version of that day."""

    people: int
    version: int = 0

    @property
    def params(self) -> dict[str, int]:
        return {"people": self.people, "version": self.version}

    @property
    def members(self) -> int:
        return self.people - self.leavers

    @property
    def leavers(self) -> int:
        return len(range(3, self.people, LEAVES_IN)) if self.version else 0

    @property
    def changed(self) -> int:
        return len(range(7, self.people, CHANGED_IN)) if self.version else 0


def fill(warehouse: Warehouse, day: Day) -> None:
    """Make the warehouse what a build of that day leaves; on a later day only the segment is another."""
    with TemporaryDirectory() as folder, duckdb.connect() as board:
        board.execute(f"create view people as {_inlined(_PEOPLE, day)}")
        warehouse.ensure_tables()
        if day.version == 0:
            for statement in [*CORE.split(";"), f"create table segments.{AUDIENCE} {SEGMENT}"]:
                warehouse.execute(statement)
        else:
            warehouse.execute(f"delete from segments.{AUDIENCE}")
        for table, query in _TABLES.items():
            if day.version and not table.startswith("segments."):
                continue
            file = Path(folder) / f"{table}.parquet"
            board.execute(f"copy ({query}) to '{file}' (format parquet)")
            warehouse.append_parquet(table, str(file))
        warehouse.analyze(*_TABLES)
    passed = {"audience": AUDIENCE, "is_passed": True, "as_of": AS_OF, "checked_at": AS_OF, "matched": day.members}
    warehouse.insert("sync.gate_results", [passed])


def write_members(file: Path, day: Day) -> None:
    """The finished list as the table `members` of a DuckDB file."""
    with duckdb.connect(str(file)) as board:
        board.execute(f"create or replace table members as {_inlined(_MEMBERS, day)}")


def copy_members(warehouse: Warehouse, day: Day) -> None:
    """The finished list as `public.members` of a server."""
    with TemporaryDirectory() as folder, duckdb.connect() as board:
        file = Path(folder) / "members.parquet"
        board.execute(f"copy ({_inlined(_MEMBERS, day)}) to '{file}' (format parquet)")
        warehouse.execute("drop table if exists public.members")
        warehouse.execute(
            "create table public.members "
            "(email text, cart_url text, cart_total text, cart_items text, changed_at timestamp)"
        )
        warehouse.append_parquet("public.members", str(file))
        warehouse.execute("create index on public.members (email)")
        warehouse.analyze("public.members")


def truth(day: Day, refuse: int = 0, keep: Callable[[str], bool] = lambda _: True) -> dict[str, Any]:
    """What the server is to tell afterwards: how many are tagged, and their digest."""
    with duckdb.connect() as board:
        rows = board.execute(
            f"select email, cart_items, cart_total, cart_url from ({_inlined(_MEMBERS, day)})"
        ).fetchall()
    count = total = 0
    for email, items, cart_total, url in rows:
        if is_refused(email, refuse) or not keep(email):
            continue
        count += 1
        total += fingerprint(email, orjson.dumps({"CART_ITEMS": items, "CART_TOTAL": cart_total, "CART_URL": url}))
    return {"tagged": count, "digest": f"{total % 2**64:016x}"}


def _inlined(sql: str, day: Day) -> str:
    for name, number in day.params.items():
        sql = sql.replace(f"${name}", str(number))
    return sql
