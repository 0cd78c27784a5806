"""Sessions, reading and writing: on DuckDB in a file and in memory, and on PostgreSQL."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from include.errors import ConfigurationError, TransientError
from include.settings import ROOT
from include.warehouse import engine
from include.warehouse.engine import Warehouse, _arrow_array, get_warehouse


@pytest.fixture(params=["memory", "file", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Warehouse]:
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        name = server.create(request.getfixturevalue("postgres_tables"))
        made = Warehouse(server.url_of(name))
        yield made
        made.close()
        server.drop(name)
        return
    made = Warehouse("duckdb:///:memory:" if request.param == "memory" else f"duckdb:///{tmp_path}/test.duckdb")
    made.ensure_tables()
    yield made


def file_warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(f"duckdb:///{tmp_path}/test.duckdb")


def test_a_value_that_looks_like_sql_stays_a_value(warehouse: Warehouse) -> None:
    text = "'; drop table raw.contacts; --"
    assert warehouse.scalar("select :text", text=text) == text
    assert warehouse.columns("raw.contacts") is not None


def test_a_colon_in_text_is_no_placeholder(warehouse: Warehouse) -> None:
    found = warehouse.read("select ' :name 12:30' as a, :name::text as b, '2026-01-01 10:00'::timestamp as c", name="x")
    assert found == [{"a": " :name 12:30", "b": "x", "c": datetime(2026, 1, 1, 10)}]


@pytest.mark.parametrize(("values", "expected"), [(["a", "b"], ["a", "b"]), (("c",), ["c"]), ([], []), ({"b"}, ["b"])])
def test_a_list_is_bound_value_by_value(warehouse: Warehouse, values: list[str], expected: list[str]) -> None:
    rows = warehouse.read(
        "select letter from (values ('a'), ('b'), ('c')) as t(letter) where letter in (:letters) order by letter",
        letters=values,
    )
    assert [row["letter"] for row in rows] == expected


def test_nothing_is_in_an_empty_list_and_everything_is_outside_it(warehouse: Warehouse) -> None:
    assert warehouse.scalar("select 'a' in (:letters)", letters=[]) is False
    assert warehouse.scalar("select 'a' not in (:letters)", letters=[]) is True


def test_a_missing_value_is_named(warehouse: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match=":since"):
        warehouse.read("select 1 where 1 > :since")


def test_a_list_outside_of_in_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match="in \\(:x\\)"):
        warehouse.read("select :x", x=[1, 2])


def test_inserted_rows_come_back_with_their_types(warehouse: Warehouse) -> None:
    at = datetime(2026, 3, 1, 12, 30, 15, 250_000)
    written = warehouse.insert(
        "raw.events",
        [
            {"event_key": "e1", "value": 1.5, "is_engaged": True, "occurred_at": at},
            {"event_key": "e2", "session_number": 7},
        ],
    )
    assert written == 2
    assert warehouse.read(
        "select event_key, value, session_number, is_engaged, occurred_at from raw.events order by event_key"
    ) == [
        {"event_key": "e1", "value": 1.5, "session_number": None, "is_engaged": True, "occurred_at": at},
        {"event_key": "e2", "value": None, "session_number": 7, "is_engaged": None, "occurred_at": None},
    ]


def test_a_time_with_an_offset_is_kept_in_utc(warehouse: Warehouse) -> None:
    noon_in_berlin = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    warehouse.insert("raw.events", [{"occurred_at": noon_in_berlin}])
    assert warehouse.scalar("select occurred_at from raw.events") == datetime(2026, 7, 1, 10)
    assert warehouse.scalar("select :t = timestamp '2026-07-01 10:00:00'", t=noon_in_berlin) is True


def test_insert_takes_more_rows_than_a_chunk(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "INSERT_CHUNK", 10)
    assert warehouse.insert("raw.contacts", ({"contact_id": str(i)} for i in range(25))) == 25
    assert warehouse.scalar("select count(distinct contact_id) from raw.contacts") == 25


def test_an_unknown_column_is_named_and_nothing_is_written(warehouse: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match=r"raw\.contacts has no column e_mail"):
        warehouse.insert("raw.contacts", [{"email": "a"}, {"e_mail": "b"}])
    assert warehouse.scalar("select count(*) from raw.contacts") == 0


def test_a_wrong_value_is_refused_without_showing_it(warehouse: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match=r"raw\.orders\.total_amount") as caught:
        warehouse.insert("raw.orders", [{"total_amount": "ana@shop.example"}])
    assert "ana" not in str(caught.value)


@pytest.mark.parametrize("name", ["contacts", "raw.contacts; drop", "raw.contacts x", 'raw."c"', ""])
def test_a_table_name_that_is_none_is_refused(warehouse: Warehouse, name: str) -> None:
    with pytest.raises(ConfigurationError, match="table name"):
        warehouse.insert(name, [{"a": 1}])


def test_inserting_into_a_missing_table_says_so(warehouse: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match=r"core\.nowhere"):
        warehouse.insert("core.nowhere", [{"a": 1}])


def test_parquet_of_others_is_appended_in_the_types_of_the_table(warehouse: Warehouse, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    folder = tmp_path / "landed"
    folder.mkdir()
    noon = datetime(2026, 3, 10, 12, tzinfo=timezone(timedelta(hours=2)))
    for number in (1, 2):
        rows = pa.table({"order_id": [str(number)], "total_amount": [number], "ordered_at": [noon], "email": ["a\0b"]})
        pyarrow.parquet.write_table(rows, folder / f"{number}.parquet")
    assert warehouse.append_parquet("raw.orders", str(folder)) == 2
    assert warehouse.read(
        "select order_id, total_amount, ordered_at, email, status from raw.orders order by order_id"
    ) == [
        {"order_id": str(n), "total_amount": float(n), "ordered_at": datetime(2026, 3, 10, 10), "email": "ab",
         "status": None} for n in (1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [{"colour": ["red"]}, {"total_amount": ["ana@shop.example"]}])
def test_parquet_that_does_not_fit_is_refused(
    warehouse: Warehouse, tmp_path: Path, columns: dict[str, list[str]]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "landed.parquet")
    with pytest.raises(ConfigurationError, match=r"raw\.orders") as caught:
        warehouse.append_parquet("raw.orders", str(tmp_path / "landed.parquet"))
    assert "ana" not in str(caught.value)
    assert warehouse.scalar("select count(*) from raw.orders") == 0


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 25])
def test_a_stream_gives_every_row_once_in_order(warehouse: Warehouse, rows: int) -> None:
    parts = list(warehouse.stream("select i from range(cast(:rows as bigint)) as r(i) order by i", 10, rows=rows))
    assert [row["i"] for part in parts for row in part] == list(range(rows))
    assert all(0 < len(part) <= 10 for part in parts)


def test_the_warehouse_can_be_written_while_a_stream_is_read(warehouse: Warehouse) -> None:
    warehouse.insert("raw.contacts", [{"contact_id": str(i)} for i in range(30)])
    seen = 0
    for part in warehouse.stream("select contact_id from raw.contacts", 10):
        warehouse.insert("raw.orders", [{"order_id": row["contact_id"]} for row in part])
        seen += len(part)
    assert seen == warehouse.scalar("select count(*) from raw.orders") == 30


def test_a_stream_in_a_session_sees_what_the_session_wrote(warehouse: Warehouse) -> None:
    with warehouse.session() as session:
        warehouse.insert("raw.contacts", [{"contact_id": "1"}], connection=session)
        found = list(warehouse.stream("select contact_id from raw.contacts", 10, connection=session))
    assert found == [[{"contact_id": "1"}]]


def test_a_session_that_fails_leaves_nothing(warehouse: Warehouse) -> None:
    def write_and_fail() -> None:
        with warehouse.session() as session:
            warehouse.insert("raw.contacts", [{"contact_id": "1"}], connection=session)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert warehouse.scalar("select count(*) from raw.contacts") == 0


def test_two_memory_warehouses_are_two() -> None:
    one, two = Warehouse("duckdb:///:memory:"), Warehouse("duckdb:///:memory:")
    one.ensure_tables()
    assert two.columns("raw.contacts") is None


def test_a_missing_table_is_said_in_words(warehouse: Warehouse) -> None:
    for ask in (
        lambda: warehouse.read("select * from core.nowhere"),
        lambda: list(warehouse.stream("select * from core.nowhere", 10)),
    ):
        with pytest.raises(ConfigurationError, match="nowhere yet; build it first"):
            ask()


def test_an_error_of_the_engine_does_not_show_bound_values(warehouse: Warehouse) -> None:
    with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
        warehouse.read("select no_such_column from raw.contacts where email = :email", email="ana@shop.example")
    assert "ana" not in str(caught.value)


def test_columns_are_in_our_words_and_in_order(warehouse: Warehouse) -> None:
    found = warehouse.columns("raw.subscriptions")
    assert found is not None
    assert list(found)[:2] == ["source", "subscription_id"]
    assert {found["source"], found["amount"], found["is_deleted"], found["loaded_at"]} == {
        "text",
        "double",
        "boolean",
        "timestamp",
    }
    assert warehouse.columns("raw.nowhere") is None


def test_ensure_tables_adds_columns_of_a_newer_version_and_keeps_the_rows(warehouse: Warehouse) -> None:
    warehouse.insert("raw.contacts", [{"contact_id": "1", "country": "DE"}])
    warehouse.execute("alter table raw.contacts drop column country")
    warehouse.ensure_tables()
    assert warehouse.read("select contact_id, country from raw.contacts") == [{"contact_id": "1", "country": None}]


def test_the_file_is_free_after_each_call(tmp_path: Path) -> None:
    warehouse = file_warehouse(tmp_path)
    warehouse.ensure_tables()
    warehouse.insert("raw.contacts", [{"contact_id": "1"}])
    code = (
        "import duckdb, sys; print(duckdb.connect(sys.argv[1]).execute('select count(*) from raw.contacts').fetchone())"
    )
    said = subprocess.run([sys.executable, "-c", code, f"{tmp_path}/test.duckdb"], capture_output=True, text=True)
    assert said.stdout.strip() == "(1,)", said.stderr


@pytest.fixture
def outsider(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that holds the file until its standard input ends."""
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, f"{tmp_path}/test.duckdb"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_session_waits_for_another_program(tmp_path: Path, outsider: subprocess.Popen[str]) -> None:
    assert outsider.stdin is not None
    threading.Timer(1.0, outsider.stdin.close).start()
    began = time.monotonic()
    assert file_warehouse(tmp_path).scalar("select 1") == 1
    assert time.monotonic() - began > 0.8


def test_a_program_that_never_lets_go_is_a_transient_error(
    tmp_path: Path, outsider: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_PATIENCE_SECONDS", 0.5)
    with pytest.raises(TransientError, match=r"another program holds the warehouse file test\.duckdb"):
        file_warehouse(tmp_path).scalar("select 1")


def test_our_own_tasks_take_turns(tmp_path: Path) -> None:
    file_warehouse(tmp_path).execute("create table counted (n bigint)")
    file_warehouse(tmp_path).execute("insert into counted values (0)")

    def count_up() -> None:
        warehouse = file_warehouse(tmp_path)
        for _ in range(5):
            with warehouse.session() as session:
                seen = warehouse.scalar("select n from counted", connection=session)
                time.sleep(0.005)
                warehouse.execute("update counted set n = :n", connection=session, n=seen + 1)

    threads = [threading.Thread(target=count_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file_warehouse(tmp_path).scalar("select n from counted") == 15


def test_a_long_wait_for_our_own_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "_QUIET_WAIT_SECONDS", 0.1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with file_warehouse(tmp_path).exclusive():
            held.set()
            done.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5)
    threading.Timer(0.5, done.set).start()
    with caplog.at_level(logging.INFO):
        file_warehouse(tmp_path).scalar("select 1")
    thread.join()
    assert [record.message for record in caplog.records if "in use" in record.message] == [
        "the warehouse test.duckdb is in use by another task; waiting for it"
    ]


def test_the_connection_names_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", f'{{"extra": {{"url": "duckdb:///{tmp_path}/a.duckdb"}}}}')
    assert get_warehouse().url == f"duckdb:///{tmp_path}/a.duckdb"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", f'{{"conn_type": "duckdb", "host": "{tmp_path}/b.duckdb"}}')
    get_warehouse().execute("create table t as select 1 as one")
    assert (tmp_path / "b.duckdb").exists()


def test_a_connection_without_a_database_says_what_to_add(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", '{"conn_type": "http"}')
    with pytest.raises(ConfigurationError, match="url"):
        get_warehouse()


def test_an_unreadable_url_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Warehouse("postgres//user:secret@host")
    assert "secret" not in str(caught.value)


def test_dlt_loads_into_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    dlt = pytest.importorskip("dlt")
    warehouse = file_warehouse(tmp_path)
    warehouse.ensure_tables()
    with warehouse.exclusive():
        pipeline = dlt.pipeline(
            "trial", destination=warehouse.dlt_destination(), dataset_name="raw", pipelines_dir=str(tmp_path / "p")
        )
        pipeline.run([{"n": 1}, {"n": 2}], table_name="trial", loader_file_format="insert_values")
    assert warehouse.scalar("select sum(n) from raw.trial") == 3


def test_now_is_read_in_utc() -> None:
    from include.warehouse.build import utc_now

    assert abs(datetime.now(UTC).replace(tzinfo=None) - utc_now()) < timedelta(seconds=5)


def test_a_few_rows_are_written_without_importing_pandas() -> None:
    code = (
        "import sys; from include.warehouse.engine import Warehouse; w = Warehouse('duckdb://'); w.ensure_tables(); "
        "w.insert('sync.segment_builds', [{'audience': 'a', 'matched': 1}]); "
        "w.insert_columns('sync.segment_builds', {'audience': 'b', 'matched': [1, 2]}, 2); "
        "assert w.scalar('select sum(matched) as s from sync.segment_builds') == 4; assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("string", ["a", None, 'ü\n"', ""]),
        ("int64", [1, None, -(2**63), 1.0, True]),
        ("int64", [1, None, -(2**63)]),
        ("double", [1.5, None, 0.1 + 0.2, float("inf"), 5e-324]),
        ("double", [1, 2.5]),
        ("bool", [True, None, False]),
        ("date32", [date(2026, 3, 1), None]),
        ("timestamp[us]", [datetime(2026, 3, 1, 1, 2, 3, 4), None, datetime(1, 1, 1)]),
        ("timestamp[us]", [datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=2)))]),
        ("string", []),
    ],
)
def test_a_short_list_becomes_what_pyarrow_makes_of_it(
    monkeypatch: pytest.MonkeyPatch, name: str, values: list[Any]
) -> None:
    import pyarrow as pa

    kind = pa.type_for_alias(name)
    try:
        expected: Any = pa.array(values, type=kind)
    except pa.ArrowException as error:
        expected = type(error)
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    if isinstance(expected, type):
        with pytest.raises(expected):
            _arrow_array(values, kind)
    else:
        assert _arrow_array(values, kind).equals(expected)
