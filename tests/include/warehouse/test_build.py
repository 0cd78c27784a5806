"""Building: types, change-over, segments and their rules, views."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from include.errors import ConfigurationError, QualityGateFailed
from include.settings import get_settings
from include.warehouse.build import build_model, build_segment, build_tables, ensure_views
from include.warehouse.engine import Warehouse

AS_OF = datetime(2026, 3, 10, 12)
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setattr(get_settings(), "sql_dir", tmp_path / "sql")

    def put(name: str, sql: str) -> None:
        path = tmp_path / "sql" / f"{name.replace('.', '/')}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sql)

    return put


@pytest.fixture
def warehouse(empty_warehouse: Warehouse) -> Warehouse:
    return empty_warehouse


@pytest.mark.on_spark
def test_a_model_is_built_as_of_a_time(write: Write, warehouse: Warehouse) -> None:
    warehouse.insert(
        "raw.orders",
        [{"order_id": "past", "ordered_at": AS_OF - timedelta(days=1)}, {"order_id": "now", "ordered_at": AS_OF}],
    )
    write("staging.orders", "select order_id from raw.orders where ordered_at < :as_of")
    assert build_model(warehouse, "staging.orders", AS_OF) == 1
    assert warehouse.read("select order_id from staging.orders") == [{"order_id": "past"}]


@pytest.mark.on_spark
def test_open_types_become_plain_ones(write: Write, warehouse: Warehouse) -> None:
    write("staging.x", "select null as nothing, sum(1) as total, 'a' as letter, null::double as number")
    assert build_model(warehouse, "staging.x", AS_OF) == 1
    assert warehouse.columns("staging.x") == {
        "nothing": "text",
        "total": "bigint",
        "letter": "text",
        "number": "double",
    }


@pytest.mark.on_spark
def test_building_again_replaces_and_views_follow(write: Write, warehouse: Warehouse) -> None:
    write("staging.orders", "select order_id from raw.orders")
    write("reports.orders", "-- materialized: view\nselect order_id from staging.orders")
    build_model(warehouse, "staging.orders", AS_OF)
    ensure_views(warehouse)
    warehouse.insert("raw.orders", [{"order_id": "1"}])
    build_model(warehouse, "staging.orders", AS_OF)
    assert warehouse.scalar("select count(*) from reports.orders") == 1
    ensure_views(warehouse)
    assert warehouse.scalar("select count(*) from reports.orders") == 1


def test_what_a_dead_run_left_is_dropped(write: Write, warehouse: Warehouse) -> None:
    write("staging.x", "select 1 as a")
    warehouse.execute("create table staging.x__new as select 2 as b")
    build_model(warehouse, "staging.x", AS_OF)
    assert warehouse.columns("staging.x__new") is None
    assert warehouse.read("select * from staging.x") == [{"a": 1}]


@pytest.mark.on_spark
def test_a_build_that_fails_leaves_the_old_table(write: Write, warehouse: Warehouse) -> None:
    write("staging.x", "select source from raw.orders")
    build_model(warehouse, "staging.x", AS_OF)
    warehouse.insert("raw.orders", [{"source": "ana@shop.example"}])
    write("staging.x", "select cast(source as bigint) as source from raw.orders")
    with pytest.raises(ConfigurationError, match=r"staging/x\.sql") as caught:
        build_model(warehouse, "staging.x", AS_OF)
    assert "ana" not in str(caught.value)
    assert warehouse.columns("staging.x") == {"source": "text"}
    assert warehouse.columns("staging.x__new") is None


@pytest.mark.on_spark
def test_a_wrong_column_names_the_file(write: Write, warehouse: Warehouse) -> None:
    write("staging.x", "select sorce from raw.orders")
    with pytest.raises(ConfigurationError, match=r"staging/x\.sql: .*sorce"):
        build_model(warehouse, "staging.x", AS_OF)


def test_an_unknown_model_is_named(write: Write, warehouse: Warehouse) -> None:
    write("staging.x", "select 1 as a")
    with pytest.raises(ConfigurationError, match=r"no model staging\.y; known are staging\.x"):
        build_model(warehouse, "staging.y", AS_OF)


def test_a_segment_gets_its_audiences_params_and_stages(write: Write, warehouse: Warehouse) -> None:
    write(
        "segments.idle",
        "select 'p1' as profile_id, :as_of - :idle_for as entered_at, stage_of(:as_of - :idle_for) as stage, "
        ":least as least, 'a' in (:letters) as listed",
    )
    params = {"idle_for": timedelta(hours=2), "least": 5, "letters": ["a"]}
    assert build_segment(warehouse, "idle_people", "idle", AS_OF, params, {"first": timedelta(hours=1)}) == 1
    assert warehouse.read("select * from segments.idle_people") == [
        {"profile_id": "p1", "entered_at": datetime(2026, 3, 10, 10), "stage": "first", "least": 5, "listed": True}
    ]


@pytest.mark.parametrize(
    ("sql", "error", "said"),
    [
        ("select 'p' as profile_id", ConfigurationError, "entered_at"),
        ("select :as_of as entered_at", ConfigurationError, "profile_id"),
        (
            "select 'p' as profile_id, :as_of as entered_at from (values (1), (2), (3)) as r(i)",
            QualityGateFailed,
            "3 rows for 1 profiles",
        ),
        ("select null::text as profile_id, :as_of as entered_at", QualityGateFailed, "1 of 1 rows have no profile_id"),
    ],
)
def test_a_segment_that_breaks_its_shape_is_not_published(
    write: Write, warehouse: Warehouse, sql: str, error: type[Exception], said: str
) -> None:
    write("segments.s", sql)
    with pytest.raises(error, match=said):
        build_segment(warehouse, "s", "s", AS_OF, {}, None)
    assert warehouse.columns("segments.s") is None


def test_an_empty_segment_is_a_segment(write: Write, warehouse: Warehouse) -> None:
    write("segments.s", "select 'p' as profile_id, :as_of as entered_at where false")
    assert build_segment(warehouse, "s", "s", AS_OF, {}, None) == 0
    assert warehouse.columns("segments.s") == {"profile_id": "text", "entered_at": "timestamp"}


@pytest.mark.parametrize("table", ["a b", "x; drop table y", "Großes", "1st", "a.b", ""])
def test_a_segment_table_must_be_a_name(write: Write, warehouse: Warehouse, table: str) -> None:
    with pytest.raises(ConfigurationError, match="table name"):
        build_segment(warehouse, table, "s", AS_OF, {}, None)


def test_a_param_may_not_hide_a_setting(write: Write, warehouse: Warehouse) -> None:
    write("segments.s", "select 'p' as profile_id, :as_of as entered_at")
    with pytest.raises(ConfigurationError, match="as_of is the name of a project setting"):
        build_segment(warehouse, "s", "s", AS_OF, {"as_of": 1}, None)


def test_a_view_waits_for_its_tables(write: Write, warehouse: Warehouse) -> None:
    write("core.x", "select 1 as a")
    write("sync.of_core", "-- materialized: view\nselect a from core.x")
    write("sync.of_ledger", "-- materialized: view\nselect count(*) as n from sync.ledger")
    ensure_views(warehouse)
    assert warehouse.columns("sync.of_core") is None
    assert warehouse.read("select n from sync.of_ledger") == [{"n": 0}]
    build_model(warehouse, "core.x", AS_OF)
    ensure_views(warehouse)
    assert warehouse.read("select a from sync.of_core") == [{"a": 1}]


def test_a_table_may_become_a_view_and_a_table_again(write: Write, warehouse: Warehouse) -> None:
    write("core.events", "select 'e1' as event_key")
    build_tables(warehouse, AS_OF)
    write(
        "core.events", "-- materialized: view\nselect 'e2' as event_key where timestamp '2026-03-10 12:00:00' <= :as_of"
    )
    assert "core.events" not in build_tables(warehouse, AS_OF)
    assert warehouse.read("select event_key from core.events") == [{"event_key": "e2"}]
    write("core.events", "select 'e3' as event_key")
    build_tables(warehouse, AS_OF)
    assert warehouse.read("select event_key from core.events") == [{"event_key": "e3"}]


def test_a_build_holds_what_it_may_and_a_smaller_bound_stays(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = Warehouse("duckdb://")
    warehouse.ensure_tables()
    write("staging.x", "select 'a' as letter")
    bounds = []
    for megabytes in (300, 200, 400):
        monkeypatch.setattr(get_settings(), "build_memory_mb", megabytes)
        build_model(warehouse, "staging.x", AS_OF)
        bounds.append(warehouse.scalar("select current_setting('memory_limit')"))
    assert bounds == ["300.0 MiB", "200.0 MiB", "200.0 MiB"]


def test_a_large_table_is_written_without_compressing_its_texts(write: Write, tmp_path: Path) -> None:
    warehouse = Warehouse(f"duckdb:///{tmp_path / 'w.duckdb'}")
    warehouse.ensure_tables()
    write("staging.x", "select md5(numbers.n::text) as word from unnest(generate_series(1, 130000)) as numbers(n)")
    build_model(warehouse, "staging.x", AS_OF)
    how = "select distinct compression from pragma_storage_info('staging.x') where segment_type = 'VARCHAR'"
    with warehouse.session() as session:
        assert session.exec_driver_sql(how).scalars().all() == ["Uncompressed"]
