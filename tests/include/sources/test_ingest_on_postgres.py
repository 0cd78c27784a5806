"""Sources loaded by dlt into a real PostgreSQL: files and a GA4 export, twice, and from there through the models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from include.warehouse.build import build_model
from include.warehouse.engine import Warehouse
from include.warehouse.tables import metadata
from tests.include.sources.test_files import HEADER, TILLS
from tests.include.sources.test_ga4_export import WEB, event, write_jsonl
from tests.postgres import PostgresServer

Run = Callable[..., dict[str, int]]


@pytest.fixture
def warehouse(postgres_server: PostgresServer, postgres_tables: str) -> Iterator[Warehouse]:
    name = postgres_server.create(postgres_tables)
    made = Warehouse(postgres_server.url_of(name))
    yield made
    made.close()
    postgres_server.drop(name)


def test_files_land_once_with_their_types(exports: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    awkward = '"Zoë ""Z"" \\N\tO\'Neill, \u200b用户"'
    (exports / "tills1.csv").write_text(
        HEADER + f"R1,020 7946 0018,,{awkward},2,1.50,paid,2026-07-01 10:05\nR2,,ana@x.example,S9,1,10,VOIDED,,\n"
    )
    assert run_source_file("shop", TILLS)["orders"] >= 1
    before = {name: warehouse.columns(name) for name in metadata.tables}
    (exports / "tills2.csv").write_text(HEADER + "R3,,bo@x.example,a\x00b,1,3,,2026-07-02T10:00:00+02:00\n")
    run_source_file("shop", TILLS)
    orders = warehouse.read(
        "select order_id, phone, email, status, is_test, total_amount, ordered_at from raw.orders order by order_id"
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
        {"sku": "ab", "quantity": 1, "price": 3.0},
    ]
    assert {name: warehouse.columns(name) for name in metadata.tables} == before


def test_a_web_export_becomes_events_and_profiles(exports: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    folder = exports
    write_jsonl(folder / "events_20261120.jsonl", event(user_id="u1"), event(user_pseudo_id="33.44"))
    assert run_source_file("web", WEB)["events"] == 2
    assert run_source_file("web", WEB).get("events", 0) == 0
    from include.warehouse.models import build_order, load_models

    models = load_models()
    for name in build_order(models):
        if models[name].schema in ("staging", "core"):
            build_model(warehouse, name, datetime(2026, 11, 24))
    assert warehouse.scalar("select count(*) from core.events") == 2
    assert warehouse.scalar("select count(*) from core.profiles where is_known") == 1
