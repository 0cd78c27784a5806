"""What only a server has: views that hang on tables, grants, readers meanwhile, other writers, logins, encodings."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy

from include.errors import ConfigurationError, TransientError
from include.settings import get_settings
from include.warehouse.build import build_model, ensure_views
from include.warehouse.engine import Warehouse, get_warehouse
from tests.postgres import PostgresServer

AS_OF = datetime(2026, 3, 10, 12)
Write = Callable[[str, str], None]


@pytest.fixture
def url(postgres_server: PostgresServer, postgres_tables: str) -> Iterator[str]:
    name = postgres_server.create(postgres_tables)
    yield postgres_server.url_of(name)
    postgres_server.drop(name)


@pytest.fixture
def warehouse(url: str) -> Iterator[Warehouse]:
    made = Warehouse(url)
    yield made
    made.close()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setattr(get_settings(), "sql_dir", tmp_path / "sql")

    def put(name: str, sql: str) -> None:
        path = tmp_path / "sql" / f"{name.replace('.', '/')}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sql)

    return put


@pytest.fixture
def orders(write: Write, warehouse: Warehouse) -> Warehouse:
    """A table that is built from raw.orders, one order long."""
    write("core.orders", "select order_id, total_amount from staging.orders")
    write("staging.orders", "select order_id, total_amount from raw.orders")
    warehouse.insert("raw.orders", [{"order_id": "1", "total_amount": 2.5}])
    rebuild(warehouse)
    return warehouse


def rebuild(warehouse: Warehouse) -> None:
    build_model(warehouse, "staging.orders", AS_OF)
    build_model(warehouse, "core.orders", AS_OF)


def direct(warehouse: Warehouse, *statements: str) -> None:
    """SQL of an analyst, as she writes it."""
    with warehouse.session() as session:
        for statement in statements:
            session.exec_driver_sql(statement)


ANALYST = (
    "create schema bi",
    "create view bi.orders as select order_id, total_amount * 2 as twice from core.orders where order_id like '%%'",
    'create view bi."Over A View" as select twice from bi.orders',
    "create materialized view bi.sums as select sum(twice) as total from bi.orders",
    "create unique index sums_total on bi.sums (total)",
)


def test_views_of_other_people_stay_and_show_the_new_rows(orders: Warehouse) -> None:
    direct(orders, *ANALYST)
    orders.insert("raw.orders", [{"order_id": "2", "total_amount": 4.0}])
    rebuild(orders)
    rebuild(orders)
    assert orders.read("select order_id, twice from bi.orders order by order_id") == [
        {"order_id": "1", "twice": 5.0},
        {"order_id": "2", "twice": 8.0},
    ]
    assert orders.scalar('select sum(twice) from bi."Over A View"') == 13.0
    assert orders.scalar("select total from bi.sums") == 13.0
    assert orders.scalar("select count(*) from pg_indexes where indexname = 'sums_total'") == 1


def test_a_view_that_does_not_fit_any_more_stops_the_change_and_all_stays(orders: Warehouse, write: Write) -> None:
    direct(orders, *ANALYST)
    write("core.orders", "select order_id from staging.orders")
    with pytest.raises(ConfigurationError, match=r"core\.orders cannot be replaced: the view bi\.orders reads it"):
        build_model(orders, "core.orders", AS_OF)
    assert orders.columns("core.orders") == {"order_id": "text", "total_amount": "double"}
    assert orders.scalar("select count(*) from bi.orders") == 1
    assert orders.columns("core.orders__new") is None


def test_a_view_of_ours_that_does_not_fit_waits_for_the_next_views(orders: Warehouse, write: Write) -> None:
    write("reports.amounts", "-- materialized: view\nselect total_amount from core.orders")
    ensure_views(orders)
    write("core.orders", "select order_id as order_key from staging.orders")
    build_model(orders, "core.orders", AS_OF)
    assert orders.columns("reports.amounts") is None
    write("reports.amounts", "-- materialized: view\nselect order_key from core.orders")
    ensure_views(orders)
    assert orders.columns("reports.amounts") == {"order_key": "text"}


def test_grants_survive_a_build_and_new_views(orders: Warehouse, write: Write, postgres_server: PostgresServer) -> None:
    write("reports.amounts", "-- materialized: view\nselect total_amount from core.orders")
    ensure_views(orders)
    role = f"reader_{orders.url[-12:]}"
    direct(
        orders,
        f"create role {role}",
        *(f"grant select on {name} to {role}" for name in ("core.orders", "reports.amounts")),
    )
    rebuild(orders)
    ensure_views(orders)
    for name in ("core.orders", "reports.amounts"):
        assert orders.scalar(f"select has_table_privilege('{role}', '{name}', 'select')") is True
    direct(orders, f"drop owned by {role}", f"drop role {role}")


def test_readers_see_the_old_table_until_the_new_one_is_there(orders: Warehouse, url: str) -> None:
    from include.warehouse.build import run_model
    from include.warehouse.models import load_models

    reader = Warehouse(url)
    orders.insert("raw.orders", [{"order_id": "2"}])
    build_model(orders, "staging.orders", AS_OF)
    with orders.session() as session:
        session.exec_driver_sql("create table core.orders__half as select * from staging.orders")
        assert reader.scalar("select count(*) from core.orders") == 1
        run_model(orders, session, load_models()["core.orders"], {"as_of": AS_OF})
    assert reader.scalar("select count(*) from core.orders") == 2
    reader.close()


def test_many_builds_of_one_table_at_once_take_turns(orders: Warehouse, url: str) -> None:
    errors: list[Exception] = []

    def build() -> None:
        own = Warehouse(url)
        try:
            for _ in range(4):
                build_model(own, "core.orders", AS_OF)
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert orders.scalar("select count(*) from core.orders") == 1


def test_tables_are_made_once_by_many_at_a_time(postgres_server: PostgresServer) -> None:
    name = postgres_server.create()
    errors: list[Exception] = []

    def make() -> None:
        own = Warehouse(postgres_server.url_of(name))
        try:
            own.ensure_tables()
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    postgres_server.drop(name)
    assert errors == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "\\N",
        "\\.",
        'a "b", c',
        "line\nline\r\ntab\t",
        "O'Neill",
        "{1,2}",
        "Zoë 用户 👩‍👧",
        "a\\b",
        "%s %%",
    ],
)
def test_text_of_every_kind_arrives_as_it_was(warehouse: Warehouse, text: str) -> None:
    warehouse.insert("raw.contacts", [{"contact_id": "1", "first_name": text, "last_name": None}, {"contact_id": "2"}])
    assert warehouse.read("select first_name, last_name from raw.contacts order by contact_id") == [
        {"first_name": text, "last_name": None},
        {"first_name": None, "last_name": None},
    ]
    assert warehouse.scalar("select contact_id from raw.contacts where first_name = :text", text=text) == "1"


def test_a_zero_character_is_left_out(warehouse: Warehouse) -> None:
    warehouse.insert("raw.contacts", [{"first_name": "A\x00na"}])
    assert warehouse.scalar("select first_name from raw.contacts") == "Ana"


def test_numbers_at_the_edges_arrive(warehouse: Warehouse) -> None:
    numbers = [0.1, 1e-300, -1.7976931348623157e308, 123456789.123456789, float("inf")]
    warehouse.insert("raw.orders", [{"order_id": str(i), "total_amount": n} for i, n in enumerate(numbers)])
    assert [row["n"] for row in warehouse.read("select total_amount as n from raw.orders order by order_id")] == numbers
    warehouse.insert("raw.events", [{"session_number": 2**63 - 1}])
    assert warehouse.scalar("select session_number from raw.events") == 2**63 - 1


def test_times_are_utc_whatever_the_server_thinks(warehouse: Warehouse) -> None:
    direct(warehouse, f"alter database {warehouse._parsed.database} set timezone to 'Asia/Tokyo'")
    warehouse.close()
    warehouse.insert("raw.orders", [{"ordered_at": datetime(2026, 7, 1, 12)}])
    assert warehouse.read("select ordered_at, cast(ordered_at as text) as said from raw.orders") == [
        {"ordered_at": datetime(2026, 7, 1, 12), "said": "2026-07-01 12:00:00"}
    ]
    assert warehouse.scalar("select current_setting('timezone')") == "UTC"


def test_a_session_that_the_server_ends_is_tried_again(warehouse: Warehouse, url: str) -> None:
    def be_ended() -> None:
        with warehouse.session() as session:
            pid = session.exec_driver_sql("select pg_backend_pid()").scalar_one()
            other = Warehouse(url)
            other.execute("select pg_terminate_backend(:pid)", pid=pid)
            other.close()
            session.exec_driver_sql("select 1")

    with pytest.raises(TransientError, match="AdminShutdown"):
        be_ended()
    assert warehouse.scalar("select 1") == 1


def test_a_deadlock_is_tried_again(warehouse: Warehouse, url: str) -> None:
    other, met = Warehouse(url), threading.Barrier(2)
    said: list[Exception] = []

    def lock(who: Warehouse, first: str, second: str) -> None:
        try:
            with who.session() as session:
                session.exec_driver_sql(f"lock table raw.{first}")
                met.wait(5)
                session.exec_driver_sql(f"lock table raw.{second}")
        except Exception as error:  # noqa: BLE001 - told below
            said.append(error)

    thread = threading.Thread(target=lock, args=(other, "orders", "events"))
    thread.start()
    lock(warehouse, "events", "orders")
    thread.join()
    other.close()
    assert [type(error) for error in said] == [TransientError]


def test_a_server_that_is_away_is_tried_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TransientError, match="does not answer") as caught:
        Warehouse(f"postgresql://ana:secret@127.0.0.1:{port}/shop").scalar("select 1")
    assert "secret" not in str(caught.value)


def test_a_database_that_is_not_there_is_said(postgres_server: PostgresServer) -> None:
    with pytest.raises(ConfigurationError, match='database "nowhere" does not exist'):
        Warehouse(postgres_server.url_of("nowhere")).scalar("select 1")


@pytest.mark.parametrize("kind", ["encoding 'SQL_ASCII' locale 'C'", "encoding 'UTF8' locale 'C'"])
def test_a_database_that_would_compare_addresses_wrongly_is_refused(postgres_server: PostgresServer, kind: str) -> None:
    name = f"unfit_{abs(hash(kind))}"
    postgres_server._run(f"drop database if exists {name}")
    postgres_server._run(f"create database {name} template template0 {kind} locale_provider libc")
    warehouse = Warehouse(postgres_server.url_of(name))
    with pytest.raises(ConfigurationError, match="create database warehouse"):
        warehouse.ensure_tables()
    warehouse.close()
    postgres_server.drop(name)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_a_url_may_name_the_driver_or_not(url: str, scheme: str) -> None:
    warehouse = Warehouse(url.replace("postgresql+psycopg", scheme))
    assert warehouse.dialect == "postgres"
    assert warehouse.scalar("select 1") == 1
    warehouse.close()


def test_an_airflow_connection_of_postgres_is_a_warehouse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_WAREHOUSE",
        '{"conn_type": "postgres", "host": "db.example", "login": "ana", "password": "p@ss/w", "port": 5433, '
        '"schema": "shop", "extra": {"sslmode": "require", "cursor": "dictcursor"}}',
    )
    found = sqlalchemy.make_url(get_warehouse().url)
    assert (found.drivername, found.host, found.port, found.database) == (
        "postgresql+psycopg",
        "db.example",
        5433,
        "shop",
    )
    assert (found.password, dict(found.query)) == ("p@ss/w", {"sslmode": "require"})


def test_a_value_whose_type_nobody_can_tell_is_explained(warehouse: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match="cast"):
        warehouse.read("select 1 as one where :nothing is null", nothing=None)


def test_an_answer_does_not_stay_in_memory(warehouse: Warehouse) -> None:
    parts = warehouse.stream("select i from range(1000000) as r(i)", 1000)
    assert [row["i"] for row in next(parts)] == list(range(1000))
    parts.close()
    assert warehouse.scalar("select 1") == 1


def test_login_and_database_are_made_once(postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]) -> None:
    from include.warehouse.__main__ import create_database

    name = f"made_{uuid.uuid4().hex[:8]}"
    url = postgres_server.url.set(username=name, password="it's 100% /@:", database=name)
    admin = postgres_server.url.render_as_string(hide_password=False)
    for _ in range(2):
        create_database(admin, url.render_as_string(hide_password=False))
    warehouse = Warehouse(url.render_as_string(hide_password=False))
    warehouse.ensure_tables()
    assert warehouse.scalar("select current_user") == name
    warehouse.close()
    postgres_server.drop(name)
    postgres_server._run(f"drop role {name}")
    assert capsys.readouterr().err.split("\n")[:2] == [
        f"made login {name} and database {name}",
        "login and database are there",
    ]


def test_a_warehouse_on_another_server_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from include.warehouse.__main__ import create_database

    for url in ("duckdb://", "postgresql://a:b@elsewhere.invalid/shop"):
        create_database("postgresql://admin@127.0.0.1:1/postgres", url)
    assert capsys.readouterr().err.count("nothing to make") == 2
