"""What only Spark has: values inside statements, Parquet as the way in, recursion in steps, words for its errors."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy

from include.errors import ConfigurationError, TransientError
from include.settings import get_settings
from include.warehouse import spark
from include.warehouse.build import build_model
from include.warehouse.engine import Warehouse, get_warehouse
from include.warehouse.tables import recorded_columns
from tests.conftest import SPARK
from tests.spark import SparkServer

pytestmark = [SPARK, pytest.mark.on_spark]
AS_OF = datetime(2026, 3, 10, 12)
AWKWARD = [
    "O'Brien", 'say "hi"', "back\\slash", "trailing\\", "\\'", "line\nbreak", "a\r\n\tb", "50 % of %s", "%(name)s",
    ":as_of", "\\:x", "'; drop table raw.contacts; --", "-- no comment", "/* nor this */", "Zoë 用户 😀", "${HOME}",
    "\u2028", "\\u0041", "\\n", "`", "", " ", "null",
]  # fmt: skip


@pytest.fixture(scope="module")
def warehouse(spark_server: SparkServer) -> Iterator[Warehouse]:
    """One for all: no test here looks at another's rows."""
    made = spark_server.empty()
    yield made
    made.close()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    monkeypatch.setattr(get_settings(), "sql_dir", tmp_path / "sql")

    def put(name: str, sql: str) -> None:
        path = tmp_path / "sql" / f"{name.replace('.', '/')}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sql)

    return put


# values


def test_awkward_texts_arrive_as_they_are_in_a_statement(warehouse: Warehouse) -> None:
    columns = ", ".join(f":v{number} as c{number}" for number in range(len(AWKWARD)))
    (row,) = warehouse.read(f"select {columns}", **{f"v{number}": text for number, text in enumerate(AWKWARD)})
    assert list(row.values()) == AWKWARD
    assert warehouse.scalar("select count(*) from (values ('a%b')) as t(x) where x in (:texts)", texts=AWKWARD) == 0


@pytest.mark.parametrize("copies", [1, 20], ids=["in_the_statement", "through_a_file"])
def test_awkward_texts_arrive_as_they_are_in_a_table(warehouse: Warehouse, copies: int) -> None:
    name = f"core.texts_{copies}"
    warehouse.execute(f"create table {name} (position bigint, value text)")
    rows = [{"position": n, "value": text} for n, text in enumerate([*AWKWARD, None] * copies)]
    assert (len(rows) > spark.FEW_ROWS) is (copies > 1)
    assert warehouse.insert(name, rows) == len(rows)
    assert warehouse.read(f"select * from {name} order by position") == rows


@pytest.mark.parametrize("copies", [1, 250], ids=["in_the_statement", "through_a_file"])
def test_every_type_comes_back_as_it_went(warehouse: Warehouse, copies: int) -> None:
    name = f"core.types_{copies}"
    warehouse.execute(
        f"create table {name} (a bigint, b double, c boolean, d timestamp, e date, f integer, g decimal(38, 9))"
    )
    full = {
        "a": -(2**62), "b": 1e-300, "c": False, "d": datetime(9999, 12, 31, 23, 59, 59, 999_999),
        "e": date(2026, 2, 28), "f": -7, "g": Decimal("-12.345678901"),
    }  # fmt: skip
    old = {**dict.fromkeys(full), "d": datetime(1969, 7, 20, 20, 17, 40, 1)}
    assert warehouse.insert(name, [full, old] * copies) == 2 * copies
    found = warehouse.read(f"select distinct * from {name} order by a nulls last")
    assert found == [full, old]


def test_a_time_is_what_it_says_whatever_the_clock_of_the_cluster(warehouse: Warehouse) -> None:
    found = warehouse.read(
        "select timestamp '2026-03-29 02:30:00' as a, :t as b, cast('2026-03-29 02:30:00.5' as timestamp) as c", t=AS_OF
    )
    assert found == [{"a": datetime(2026, 3, 29, 2, 30), "b": AS_OF, "c": datetime(2026, 3, 29, 2, 30, 0, 500_000)}]


EQUAL = [
    "epoch(timestamp '2026-01-01 10:00:00.25')",
    "lower('ÀÉİ ΟΔΟΣ')",
    "regexp_matches('a' || chr(10), '^a$')",
    "7 / 2",
    "7 // 2",
    "length('用户')",
    "'a' < 'B'",
    "'é' < 'z'",
    "split_part('a@b', '@', 3)",
    "cast(timestamp '2026-01-01 10:00:00.120' as varchar)",
    "round(cast(2.675 as double), 2)",
    "null || 'x'",
    "greatest(null, 1)",
    "least(2, null)",
    "sha256('é')",
    "md5('é')",
    "to_base64(unhex(sha256('é')))",
    "null is distinct from 1",
    "(select string_agg(x, ', ' order by y desc, x) from (values ('a', 1), ('b', null), ('c', 2)) as t(x, y))",
    "(select min(x) from (values (null), ('Z'), ('a'), ('É')) as t(x))",
    "(select count(*) filter (where x > 1) from (values (1), (2), (3)) as t(x))",
]


def test_an_expression_means_the_same_as_on_duckdb(warehouse: Warehouse) -> None:
    query = "select " + ", ".join(f"{expression} as c{number}" for number, expression in enumerate(EQUAL))
    assert warehouse.read(query) == Warehouse("duckdb://").read(query)


@pytest.mark.parametrize("order", ["x", "x desc", "x nulls first", "x desc nulls last"])
def test_nulls_sort_as_on_duckdb(warehouse: Warehouse, order: str) -> None:
    query = f"select x from (values (1), (null), (2)) as t(x) order by {order}"
    assert warehouse.read(query) == Warehouse("duckdb://").read(query)


# recursion

WALK = """
    with recursive edges as (
        select * from (values {edges}) as pairs(node, neighbour)
    ),
    both_ways as (
        select node, neighbour from edges
        union all
        select neighbour as node, node as neighbour from edges
    ),
    walked as (
        select 0 as start_node, 0 as node
        union
        select walked.start_node, both_ways.neighbour as node
        from walked
        inner join both_ways on walked.node = both_ways.node
    ),
    countdown as (
        select 3 as n
        union all
        select n - 1 as n from countdown where n > 0
    )
    select 'walk' as kind, node as value from walked
    union all
    select 'count' as kind, n as value from countdown
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_a_recursion_ends_with_the_rows_it_has_on_duckdb(
    warehouse: Warehouse, write: Callable[[str, str], None], seed: int
) -> None:
    chance = random.Random(seed)
    edges = ", ".join(f"({chance.randrange(12)}, {chance.randrange(12)})" for _ in range(9))
    write("core.walk", WALK.format(edges=edges))
    duck = Warehouse("duckdb://")
    duck.ensure_tables()
    assert build_model(warehouse, "core.walk", AS_OF) == build_model(duck, "core.walk", AS_OF)
    query = "select kind, value from core.walk order by kind, value"
    assert warehouse.read(query) == duck.read(query)
    with warehouse.session() as session:
        assert [name for name in warehouse._all_columns(session) if "walk__" in name] == []


def test_a_build_that_fails_takes_its_pieces_with_it(warehouse: Warehouse, write: Callable[[str, str], None]) -> None:
    write("core.walk", WALK.format(edges="(0, 1)").replace("n as value", "cast('x' as bigint) as value"))
    with pytest.raises(ConfigurationError, match=r"core/walk\.sql: .*CAST_INVALID_INPUT"):
        build_model(warehouse, "core.walk", AS_OF)
    with warehouse.session() as session:
        assert [name for name in warehouse._all_columns(session) if "walk__" in name] == []


# writing


def test_everyone_sees_at_once_what_another_wrote(spark_server: SparkServer, warehouse: Warehouse) -> None:
    other = Warehouse(spark_server.url)
    count = "select count(*) from core.shared"
    warehouse.execute("create table core.shared as select 1 as n")
    assert warehouse.scalar(count) == other.scalar(count) == 1
    other.execute("insert into core.shared select 2 as n")
    assert warehouse.scalar(count) == other.scalar(count) == 2
    warehouse.execute("drop table core.shared")
    warehouse.execute("create table core.shared as select n from (values (1), (2), (3)) as t(n)")
    assert warehouse.scalar(count) == other.scalar(count) == 3


def test_two_who_append_at_once_lose_nothing(spark_server: SparkServer, warehouse: Warehouse) -> None:
    def append(who: int) -> None:
        own = Warehouse(spark_server.url)
        for number in range(6):
            rows = [{"event_key": f"{who}-{number}-{n}"} for n in range(spark.FEW_ROWS + 1 if number % 2 else 2)]
            own.insert("raw.events", rows)

    threads = [threading.Thread(target=append, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = 3 * (3 * 2 + 3 * (spark.FEW_ROWS + 1))
    assert warehouse.scalar("select count(distinct event_key) from raw.events") == wanted
    assert warehouse.scalar("select count(*) from raw.events") == wanted


def test_without_a_staging_directory_many_rows_are_refused_and_few_are_not(spark_server: SparkServer) -> None:
    bare = Warehouse(spark_server.url.split("?")[0])
    assert bare.insert("raw.contacts", [{"contact_id": "few"}]) == 1
    with pytest.raises(ConfigurationError, match="staging_dir"):
        bare.insert("raw.contacts", [{"contact_id": "many"}] * (spark.FEW_ROWS + 1))


def test_nothing_is_left_in_the_staging_directory(spark_server: SparkServer, warehouse: Warehouse) -> None:
    warehouse.insert("raw.carts", [{"cart_id": str(n)} for n in range(spark.FEW_ROWS + 1)])
    folder = Path(spark_server.url.split("staging_dir=")[1])
    assert list(folder.glob("*.parquet")) == []


def test_a_table_of_an_older_version_gets_its_new_columns(warehouse: Warehouse) -> None:
    older = {name: kind for name, kind in recorded_columns()["sync.opt_outs"].items() if name != "reason"}
    warehouse.execute("drop table sync.opt_outs")
    warehouse.execute(
        "create table sync.opt_outs (" + ", ".join(f"{name} {kind}" for name, kind in older.items()) + ")"
    )
    warehouse.insert("sync.opt_outs", [{"value": "ana@shop.example"}])
    warehouse.ensure_tables()
    warehouse.insert("sync.opt_outs", [{"reason": "bounced"}])
    rows = warehouse.read("select value, reason from sync.opt_outs order by value nulls last")
    assert rows == [{"value": "ana@shop.example", "reason": None}, {"value": None, "reason": "bounced"}]


def test_what_a_dead_build_left_is_dropped_and_nothing_else(
    warehouse: Warehouse, write: Callable[[str, str], None]
) -> None:
    for name in ("left__0badcafe", "left__0badcafe__step", "left_alone", "leftover"):
        warehouse.execute(f"create table core.{name} as select 1 as one")
    write("core.left", "select 2 as two")
    assert build_model(warehouse, "core.left", AS_OF) == 1
    assert warehouse.read("select * from core.left") == [{"two": 2}]
    with warehouse.session() as session:
        assert [name for name in warehouse._all_columns(session) if name.startswith("core.left")] == [
            "core.left",
            "core.left_alone",
            "core.leftover",
        ]


def test_a_stream_is_handed_on_batch_by_batch(warehouse: Warehouse) -> None:
    sizes = [len(part) for part in warehouse.stream("select unnest(range(25000)) as i", 4000)]
    assert sizes == [4000] * 6 + [1000]


# words for what goes wrong


def test_an_error_shows_no_value_and_no_statement(warehouse: Warehouse) -> None:
    for sql in (
        "select no_such_column from raw.contacts where email = :email",
        "select cast(:email as bigint)",
        "select nothing(:email)",
    ):
        with pytest.raises(ConfigurationError, match="Spark says") as caught:
            warehouse.read(sql, email="ana@shop.example")
        assert "ana" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_statements_are_not_written_to_the_log(warehouse: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        warehouse.scalar("select :email", email="ana@shop.example")
    assert "ana" not in caplog.text


def test_a_server_that_is_away_is_a_passing_error() -> None:
    with pytest.raises(TransientError, match="does not answer"):
        Warehouse("hive://127.0.0.1:1/default").scalar("select 1")


def test_a_connection_of_airflow_names_the_cluster(monkeypatch: pytest.MonkeyPatch, spark_server: SparkServer) -> None:
    url = sqlalchemy.make_url(spark_server.url)
    monkeypatch.setenv(
        "AIRFLOW_CONN_WAREHOUSE",
        f'{{"conn_type": "hiveserver2", "host": "{url.host}", "port": {url.port}, '
        f'"extra": {{"staging_dir": "{url.query["staging_dir"]}"}}}}',
    )
    found = get_warehouse()
    assert found.dialect == "spark"
    assert found.scalar("select 3") == 3
    assert "staging_dir" in found.url
