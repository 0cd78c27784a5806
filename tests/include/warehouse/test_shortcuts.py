"""An incremental build works on what new loads touched, and everything that cuts its work down is needed.

A shop with a history is built whole, a handful of rows of every kind is loaded, and the build is counted instead of
timed: how many rows DuckDB's operators were given that have to hold, sort, join or add them up. Reading a table and
picking the touched rows out of it is not counted. What is held:

* no model of staging and core works on more than a small share of what a full build of it works on;
* every `touched_...()` in a model is found in its text, made `true` alone, and then the model works on more rows, with
  or without what DuckDB finds to filter by itself. One that asks for days is there so that old pages of a table are
  not read, and so what is counted for it are the rows that were read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, time, timedelta
from typing import Any

import pytest
import sqlalchemy
from sqlglot import exp

from include.warehouse import build
from include.warehouse.build import build_tables, setting_params
from include.warehouse.builds import begin_build
from include.warehouse.dialects import to_sql
from include.warehouse.engine import Warehouse
from include.warehouse.models import load_models
from include.warehouse.render import parse, render_tree
from include.warehouse.touched import SINCE, UNITS

AS_OF = datetime(2026, 3, 10, 12)
LOADED = AS_OF - timedelta(hours=1)
PEOPLE = 2000
# What a call that is needed saves at least, in rows, where every kind of record has 2000 of them.
SAVES = 100
# Somebody known with session ids, somebody known without, and two new ones of each kind.
NEWS = (7, 8, 2000, 2001)

# What holds rows: it is given them, and so they are counted.
HOLDS = {"HASH_GROUP_BY", "PERFECT_HASH_GROUP_BY", "WINDOW", "STREAMING_WINDOW", "ORDER_BY", "HASH_JOIN",
         "NESTED_LOOP_JOIN",
         "BLOCKWISE_NL_JOIN", "IE_JOIN", "PIECEWISE_MERGE_JOIN", "INSERT", "BATCH_INSERT", "CREATE_TABLE_AS",
         "BATCH_CREATE_TABLE_AS", "CTE", "RECURSIVE_CTE"}  # fmt: skip

# The view staging.events and the tables it is made of are counted together.
PARTS_OF_EVENTS = {f"staging.{name}" for name in ("event_keys", "event_loads", "mended_keys", "mended_events")}
USUAL_SHARE = 0.1
# Models that work on more, each a little above what it is today.
SHARES = {
    "core.order_profiles": 0.55,
    "core.shop_carts": 0.35,
    "core.engagement": 0.35,
    "core.order_items": 0.15,
    "core.subscriptions": 0.21,
    "core.suppressions": 0.21,
    "core.visit_products": 0.16,
    "core.timed_sources": 1.1,  # a table of sources, made whole from the visits
}
HISTORY = {
    # Three quarters of the browsers send session ids, every third person logs in, every tenth has an e-mail in events.
    "raw.events": f"""
        select case when p % 4 = 0 then 'log' else 'web' end as source, 'e' || p || '.' || n as event_key,
            ['page_view', 'view_item', 'add_to_cart', 'page_view', 'purchase', 'generate_lead', 'page_view',
                'login'][n + 1]
                as event_name,
            'v' || p as visitor_id, case when p % 4 > 0 then 's' || (n // 4) end as session_id,
            case when n = 7 and p % 3 = 0 then 'u' || p end as user_id,
            case when n = 7 and p % 10 = 0 then 'm' || p || '@x.example' end as email,
            case when n = 4 then 't' || p end as transaction_id, 'EUR' as currency, 10 as value, 'Chrome' as browser,
            case when p % 4 > 0 then 900 end as engagement_ms, case when p % 2 = 0 then 'Yes' end as ads_storage,
            case when p % 3 = 1 then 'internal' end as traffic_type,
            timestamp '{AS_OF}'
                - to_minutes(cast(p % 300 * 1440 + 1500 - 3 * n - (n // 4) * 60 as bigint)) as occurred_at
        from people, range(8) as numbers(n)""",
    "raw.event_items": """
        select case when p % 4 = 0 then 'log' else 'web' end as source, 'e' || p || '.' || n as event_key,
                0 as item_index,
            'A' || p % 50 as sku, 'Axe' as name, 1 as quantity, 10 as price
        from people, range(1, 5) as numbers(n) where n <> 3""",
    "raw.contacts": f"""
        select 'crm' as source, 'c' || p as contact_id, 'm' || p || '@x.example' as email,
                '+43' || (100000 + p) as phone,
            'u' || p as user_id, timestamp '{AS_OF - timedelta(days=200)}' as updated_at from people""",
    "raw.contact_identifiers": f"""
        select 'crm' as source, 'c' || p as contact_id, 'email' as kind, 'n' || p || '@x.example' as value,
            timestamp '{AS_OF - timedelta(days=200)}' as updated_at from people""",
    "raw.consents": f"""
        select 'crm' as source, 'c' || p as contact_id, 'email' as channel, 'granted' as status,
            timestamp '{AS_OF - timedelta(days=100)}' as changed_at from people""",
    "raw.suppressions": f"""
        select 'crm' as source,
                case when p % 10 = 0 then 'phone' when p % 2 = 0 then 'email' else 'contact_id' end as kind,
            case when p % 10 = 0 then '+43' || (100000 + p)
                when p % 2 = 0 then 'm' || p || '@x.example' else 'c' || p end
                as value,
            'all' as channel, case when p % 7 = 0 then 'erased' else 'opted_out' end as reason, true as is_active,
            timestamp '{AS_OF - timedelta(days=250)}' as changed_at from people""",
    "raw.orders": f"""
        select 'shop' as source, 'o' || p as order_id, 'c' || p as contact_id, 'm' || p || '@x.example' as email,
            't' || p as transaction_id, 'paid' as status, 'EUR' as currency, 10 as total_amount,
            timestamp '{AS_OF - timedelta(days=50)}' as ordered_at,
                timestamp '{AS_OF - timedelta(days=50)}' as updated_at
        from people""",
    "raw.order_items": f"""
        select 'shop' as source, 'o' || p as order_id, '1' as line_id, 'A' as sku, 'Axe' as name, 1 as quantity,
            10 as price,
            timestamp '{AS_OF - timedelta(days=50)}' as updated_at from people""",
    "raw.carts": f"""
        select 'shop' as source, 'k' || p as cart_id, 'c' || p as contact_id, 'v' || p as visitor_id, 'open' as status,
            'EUR' as currency, 10 as total_amount, timestamp '{AS_OF - timedelta(days=2)}' as created_at,
            timestamp '{AS_OF - timedelta(days=2)}' as updated_at from people""",
    "raw.cart_items": f"""
        select 'shop' as source, 'k' || p as cart_id, '1' as line_id, 'A' as sku, 'Axe' as name, 1 as quantity,
            10 as price,
            timestamp '{AS_OF - timedelta(days=2)}' as updated_at from people""",
    "raw.subscriptions": f"""
        select 'shop' as source, 's' || p as subscription_id, 'c' || p as contact_id, 'paid' as kind, 'gold' as plan,
            'active' as status,
            timestamp '{AS_OF - timedelta(days=90)}' as started_at,
            timestamp '{AS_OF - timedelta(days=90)}' as updated_at from people""",
    "raw.engagement": f"""
        select 'crm' as source, 'g' || p as engagement_id, 'c' || p as contact_id, 'email' as channel,
            case when p % 2 = 0 then 'bounce' else 'open' end as type,
            timestamp '{AS_OF - timedelta(days=9)}' as occurred_at from people""",
    "sync.opt_outs": f"""
        select 'mailchimp' as destination, 'email' as kind, 'm' || p || '@x.example' as value, 'email' as channel,
            'opted_out' as reason, true as is_active, timestamp '{AS_OF - timedelta(days=30)}' as occurred_at
        from people where p % 3 = 0""",
}  # fmt: skip


def rows_of_statement(information: str) -> tuple[int, int]:
    """The rows that the operators of one statement were given to hold, without picking touched ones out; rows read."""
    held = read = 0

    def rows_of(node: Mapping[str, Any]) -> int:
        if node.get("type") == "UNION":  # which passes on, and counts nothing
            return sum(rows_of(child) for child in node.get("children", ()))
        return int(node.get("intermediate_rows", 0))

    def visit(node: Mapping[str, Any]) -> None:
        nonlocal held, read
        children = node.get("children", ())
        join = node.get("extra_info", {}).get("Join Type", "")
        if node.get("type") in HOLDS and join not in ("SEMI", "ANTI", "MARK"):
            held += sum(rows_of(child) for child in children)
        if node.get("type") == "TABLE_SCAN":
            read += rows_of(node)
        for child in children:
            visit(child)

    for root in json.loads(information).get("operator", ()):
        visit(root)
    return held, read


class Counted:
    """A warehouse whose statements are counted."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.held = self.rows_read = 0
        self._ours: Any = None
        sqlalchemy.event.listen(warehouse._engine, "before_cursor_execute", self._before)
        sqlalchemy.event.listen(warehouse._engine, "after_cursor_execute", self._after)

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """The rows held, and read, by what happens inside, when it has happened."""
        before, counted = (self.held, self.rows_read), [0, 0]
        yield counted
        counted[:] = self.held - before[0], self.rows_read - before[1]

    def _before(self, connection: Any, *_: Any) -> None:
        duck = connection.connection.driver_connection
        if duck is not self._ours:
            duck.execute("set enable_profiling = 'no_output'")
            self._ours = duck

    def _after(self, connection: Any, *_: Any) -> None:
        duck = connection.connection.driver_connection
        held, read = rows_of_statement(duck.get_profiling_information(format="json"))
        self.held += held
        self.rows_read += read


def load(warehouse: Warehouse, people: str, loaded_at: datetime, mark: str = "") -> None:
    """What these people did, as one load; with a mark, records and events of their own."""
    with warehouse.session() as session:
        for table, query in HISTORY.items():
            text = f"with people as ({people}) {query}"
            for letter in "egoks" if mark else "":
                text = text.replace(f"'{letter}' || p", f"'{letter}{mark}' || p")
            columns = [row[0] for row in session.exec_driver_sql(f"describe {text}")]
            moment = "read_at" if table == "sync.opt_outs" else "loaded_at"
            names = ", ".join([*columns, moment])
            query = f"select *, timestamp '{loaded_at}' from ({text}) as news"
            session.exec_driver_sql(f"insert into {table} ({names}) {query}")


class Shop:
    """The warehouse after both builds, and what each model held in them."""

    def __init__(self) -> None:
        self.warehouse = Warehouse("duckdb://")
        self.warehouse.ensure_tables()
        with self.warehouse.session() as session:
            session.exec_driver_sql("set threads = 1")
        self.counted = Counted(self.warehouse)
        load(self.warehouse, f"select range as p from range({PEOPLE})", LOADED)
        names = f"select 'gone' || range, '5:v' || range, timestamp '{LOADED}' from range({PEOPLE})"
        with self.warehouse.session() as session:
            session.exec_driver_sql(f"insert into core.former_names (profile_id, node, gone_at) {names}")
        self.full = self.build()
        news = ", ".join(f"({person})" for person in NEWS)
        load(self.warehouse, f"select p from (values {news}) as news(p)", LOADED + timedelta(minutes=5), "n")
        self.incremental = self.build()

    def build(self) -> dict[str, int]:
        held: dict[str, int] = {}

        def told(name: str, rows: int, seconds: float) -> None:
            known = sum(held.values())
            model = "staging.events" if name in PARTS_OF_EVENTS else name
            held[model] = held.get(model, 0) + self.counted.held - known - before

        def begin(*given: Any, **named: Any) -> Any:
            nonlocal before
            begun = begin_build(*given, **named)
            before = self.counted.held  # what it takes to see what is new is no model's
            return begun

        before = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "begin_build", begin)
            build_tables(self.warehouse, AS_OF, told=told)
        return held

    def work(self, name: str, removed: int | None, is_left_alone: bool) -> list[int]:
        """The rows that a model's touched part holds, and those it reads, with one of its calls made `true`."""
        model = load_models()[name]
        tree = parse(model.sql, model.where).copy()
        if removed is not None:
            calls_in(tree)[removed].replace(exp.true())
        first = self.warehouse.scalar("select min(day) from core.touched_days")
        params = {**setting_params(), "as_of": AS_OF, "touched_since": datetime.combine(first, time.min)}
        text = to_sql(render_tree(tree, params, where=model.where, incremental=True), "duckdb", copy=False)
        off = "" if is_left_alone else "join_filter_pushdown"
        with self.warehouse.session() as session:
            session.exec_driver_sql(f"set disabled_optimizers = '{off}'")
            with self.counted.counting() as counted:
                session.exec_driver_sql(f"create temp table probe as {text}")
            session.exec_driver_sql("drop table probe")
            session.exec_driver_sql("set disabled_optimizers = ''")
        return counted

    def saved_by(self, name: str, number: int) -> int:
        """The rows that a call saves, with or without what DuckDB finds to filter by itself."""
        model = load_models()[name]
        asked = str(calls_in(parse(model.sql, model.where))[number].this).lower()
        what = 1 if asked in SINCE else 0
        return max(self.work(name, number, alone)[what] - self.work(name, None, alone)[what] for alone in (True, False))


def calls_in(tree: exp.Expr) -> list[exp.Anonymous]:
    return [call for call in tree.find_all(exp.Anonymous) if str(call.this).lower() in UNITS]


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


def calls_of_models() -> Iterator[Any]:
    """Every call: its model, and its number there."""
    for name, model in load_models().items():
        for number, call in enumerate(calls_in(parse(model.sql, model.where))):
            yield pytest.param(name, number, id=f"{name} {call.sql(dialect='duckdb').lower()} {number}")


CALLS = list(calls_of_models())
KEPT = [
    name
    for name, model in load_models().items()
    if model.schema in ("staging", "core")
    and (model.materialized != "view" or name == "staging.events")
    and name not in PARTS_OF_EVENTS
]


@pytest.mark.parametrize(("name", "number"), CALLS)
def test_a_call_that_is_taken_out_costs_work(shop: Shop, name: str, number: int) -> None:
    assert shop.saved_by(name, number) >= SAVES


@pytest.mark.parametrize("name", KEPT)
def test_a_model_works_on_a_small_share(shop: Shop, name: str) -> None:
    assert shop.incremental[name] <= SHARES.get(name, USUAL_SHARE) * shop.full[name]
