"""Sources loaded into a real Spark cluster: dlt writes Parquet, the cluster takes it in; and Parquet of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from include.errors import ConfigurationError, TransientError
from include.warehouse import spark
from include.warehouse.__main__ import app
from include.warehouse.engine import Warehouse
from include.warehouse.tables import metadata
from tests.conftest import SPARK
from tests.include.sources.test_files import HEADER, TILLS
from tests.include.sources.test_ga4_export import WEB, event, write_jsonl
from tests.spark import SparkServer

pytestmark = [SPARK, pytest.mark.on_spark]
Run = Callable[..., dict[str, int]]


@pytest.fixture(scope="module")
def cluster(spark_server: SparkServer) -> Iterator[Warehouse]:
    """One for all: every test here has its own source or table."""
    made = spark_server.empty()
    yield made
    made.close()


@pytest.fixture
def warehouse(cluster: Warehouse) -> Warehouse:
    return cluster


def test_files_land_once_with_their_types(exports: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    awkward = '"Zoë ""Z"" \\N\tO\'Neill, \u200b用户"'
    (exports / "tills1.csv").write_text(
        HEADER + f"R1,020 7946 0018,,{awkward},2,1.50,paid,2026-07-01 10:05\nR2,,ana@x.example,S9,1,10,VOIDED,,\n"
    )
    assert run_source_file("shop", TILLS)["orders"] >= 1
    before = {name: warehouse.columns(name) for name in metadata.tables}
    (exports / "tills2.csv").write_text(HEADER + "R3,,bo@x.example,a,1,3,,2026-07-02T10:00:00+02:00\n")
    run_source_file("shop", TILLS)
    orders = warehouse.read(
        "select order_id, phone, email, total_amount, ordered_at from raw.orders where source = 'shop' "
        "order by order_id"
    )
    assert [row["order_id"] for row in orders if row["order_id"] != "R2"] == ["R1", "R3"]
    assert orders[0]["phone"] == "+442079460018"
    assert orders[0]["ordered_at"] == datetime(2026, 7, 1, 9, 5)
    assert orders[-1]["ordered_at"] == datetime(2026, 7, 2, 8)
    skus = warehouse.read(
        "select sku, quantity, price from raw.order_items where order_id in ('R1', 'R3') order by order_id"
    )
    assert skus == [
        {"sku": 'Zoë "Z" \\N\tO\'Neill, \u200b用户', "quantity": 2, "price": 1.5},
        {"sku": "a", "quantity": 1, "price": 3.0},
    ]
    assert {name: warehouse.columns(name) for name in metadata.tables} == before


def test_what_a_dead_run_left_for_the_cluster_is_taken_in_by_the_next(
    exports: Path, warehouse: Warehouse, run_source_file: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(exports / "events_20261120.jsonl", event(user_id="u1"), event(user_pseudo_id="33.44"))

    def die(*_: object) -> int:
        raise TransientError("the cluster went away")

    with monkeypatch.context() as dying:
        dying.setattr(spark, "append_files", die)
        with pytest.raises(TransientError, match="went away"):
            run_source_file("web", WEB)
    assert warehouse.scalar("select count(*) from raw.events") == 0
    assert run_source_file("web", WEB).get("events", 0) == 0
    assert warehouse.scalar("select count(*) from raw.events") == 2
    run_source_file("web", WEB)
    assert warehouse.scalar("select count(*) from raw.events") == 2


def test_a_directory_of_parquet_is_appended_in_the_types_of_the_table(warehouse: Warehouse, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    noon = datetime(2026, 3, 10, 12, tzinfo=UTC)
    one = pa.table({"contact_id": ["1"], "email": ["o'brien@x.example"], "created_at": [noon], "is_deleted": [False]})
    two = pa.table(
        {"contact_id": ["2"], "email": pa.array([None], pa.string()), "created_at": [noon], "is_deleted": [True]}
    )
    for number, rows in enumerate((one, two)):
        pq.write_table(rows, tmp_path / f"{number}.parquet")
    result = CliRunner().invoke(app, ["load", "raw.contacts", str(tmp_path), "--url", warehouse.url])
    assert result.exit_code == 0, result.output
    assert warehouse.read(
        "select contact_id, email, created_at, is_deleted, source from raw.contacts order by contact_id"
    ) == [
        {
            "contact_id": "1", "email": "o'brien@x.example", "created_at": datetime(2026, 3, 10, 12),
            "is_deleted": False, "source": None,
        },
        {
            "contact_id": "2", "email": None, "created_at": datetime(2026, 3, 10, 12), "is_deleted": True,
            "source": None,
        },
    ]  # fmt: skip


def test_parquet_with_a_column_nobody_knows_is_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"cart_id": ["1"], "colour": ["red"]}), tmp_path / "carts.parquet")
    with pytest.raises(ConfigurationError, match=r"raw\.carts has no column colour"):
        warehouse.append_parquet("raw.carts", str(tmp_path))
    assert warehouse.scalar("select count(*) from raw.carts") == 0
