from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigurationError
from include.warehouse.engine import Warehouse

WEB = "label: Web\nkind: ga4_export\nconnection: exports\n"
Run = Callable[..., dict[str, int]]


def event(**fields: Any) -> dict[str, Any]:
    """A row as BigQuery exports it to JSON: INT64 are strings."""
    parameters = fields.pop("params", {"ga_session_id": 17, "page_location": "https://shop.example/"})
    row: dict[str, Any] = {
        "event_date": "20261120",
        "event_timestamp": "1763633045000123",
        "event_name": "page_view",
        "user_pseudo_id": "11.22",
        "event_bundle_sequence_id": "5",
        "batch_event_index": "1",
        "event_params": [
            {"key": key, "value": {"int_value": str(value)} if isinstance(value, int) else {"string_value": value}}
            for key, value in parameters.items()
        ],
    }
    return row | fields


def write_jsonl(path: Path, *rows: dict[str, Any] | str) -> None:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")


def write_parquet(path: Path, select: str) -> None:
    import duckdb

    duckdb.sql(select).write_parquet(str(path))


PARAMETER = (
    "struct(key varchar, value struct(string_value varchar, int_value bigint, float_value double, double_value double))"
)


def test_a_row_of_the_json_export_is_flattened(exports: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    params = {
        "ga_session_id": 17,
        "ga_session_number": 3,
        "session_engaged": "1",
        "engagement_time_msec": 1200,
        "page_location": "https://shop.example/cart",
        "page_title": "Cart",
        "transaction_id": "T9",
        "currency": "EUR",
        "traffic_type": "internal",
        "email": " Chloe\u0301@Shop.example ",
    }
    items = [
        {"item_id": "S1", "item_name": "Mug", "price": 4.5, "quantity": "2", "item_category": "(not set)"},
        {"item_id": "(not set)", "item_name": "Spoon", "price": "3"},
    ]
    row = event(
        event_name="purchase",
        user_id="u1",
        params=params,
        items=items,
        privacy_info={"ads_storage": "Yes", "analytics_storage": "Yes"},
        device={"category": "mobile", "web_info": {"browser": "Firefox"}},
        geo={"country": "Germany"},
        ecommerce={"transaction_id": "(not set)", "purchase_revenue": 12.0},
        platform="WEB",
    )
    write_jsonl(exports / "events_intraday_20261120.jsonl", row)
    assert run_source_file("web", WEB) == {"event_items": 2, "events": 1, "rejected": 0}
    (landed,) = warehouse.read("select * from raw.events")
    assert len(landed.pop("event_key")) == 32
    assert landed.pop("loaded_at") is not None
    assert str(landed.pop("occurred_at")) == "2025-11-20 10:04:05.000123"
    assert landed == {
        "source": "web",
        "event_name": "purchase",
        "visitor_id": "11.22",
        "user_id": "u1",
        "email": "chlo\u00e9@shop.example",
        "session_id": "17",
        "page_location": "https://shop.example/cart",
        "page_referrer": None,
        "page_title": "Cart",
        "transaction_id": "T9",
        "currency": "EUR",
        "browser": "Firefox",
        "device_category": "mobile",
        "country": "DE",
        "traffic_type": "internal",
        "ads_storage": "Yes",
        "analytics_storage": "Yes",
        "platform": "WEB",
        "source_file": "events_intraday_20261120.jsonl",
        "session_number": 3,
        "engagement_ms": 1200,
        "value": 12.0,
        "is_engaged": True,
    }
    lines = warehouse.read(
        "select item_index, sku, name, category, quantity, price from raw.event_items order by item_index"
    )
    assert lines == [
        {"item_index": 0, "sku": "S1", "name": "Mug", "category": None, "quantity": 2, "price": 4.5},
        {"item_index": 1, "sku": None, "name": "Spoon", "category": None, "quantity": None, "price": 3.0},
    ]


def test_a_daily_and_an_intraday_copy_have_the_same_key(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    items = [{"item_id": "S1", "item_name": "Mug", "price": 4.5, "quantity": "2"}]
    write_jsonl(
        exports / "events_intraday_20261120.jsonl",
        event(),
        event(event_name="add_to_cart", items=items, batch_event_index=None, stream_id="9"),
    )
    write_parquet(
        exports / "events_20261120.parquet",
        f"""
        select 1763633045000123::bigint as event_timestamp, 'page_view' as event_name, '11.22' as user_pseudo_id,
            5::bigint as event_bundle_sequence_id, 1::bigint as batch_event_index,
            [{{'key': 'ga_session_id', 'value': {{'int_value': 17}}}}]::{PARAMETER}[] as event_params,
            []::struct(item_id varchar, item_name varchar, price double, quantity bigint)[] as items
        union all
        select 1763633045000123, 'add_to_cart', '11.22', 5, null,
            [{{'key': 'ga_session_id', 'value': {{'int_value': 17}}}}]::{PARAMETER}[],
            [{{'item_id': 'S1', 'item_name': 'Mug', 'price': 4.5, 'quantity': 2}}]
        """,
    )
    assert run_source_file("web", WEB)["events"] == 4
    copies = warehouse.read(
        "select event_name, count(*) as copies, count(distinct event_key) as keys from raw.events group by 1 order by 1"
    )
    assert copies == [
        {"event_name": "add_to_cart", "copies": 2, "keys": 1},
        {"event_name": "page_view", "copies": 2, "keys": 1},
    ]


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"batch_event_index": "2"}, 2),
        ({"event_name": "scroll"}, 2),
        ({"user_pseudo_id": "11.23"}, 2),
        ({"items": [{"item_id": "S2"}]}, 1),  # with a place in the batch the items do not matter
        ({"event_date": "20261121"}, 1),
    ],
)
def test_what_makes_two_events_of_two_rows(
    exports: Path, warehouse: Warehouse, run_source_file: Run, change: dict[str, Any], keys: int
) -> None:
    write_jsonl(exports / "events_1.jsonl", event(items=[{"item_id": "S1"}]), event(items=[{"item_id": "S1"}]) | change)
    run_source_file("web", WEB)
    assert warehouse.scalar("select count(distinct event_key) from raw.events") == keys


def test_without_a_place_in_the_batch_the_item_ids_tell_two_events_apart(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    for_item = [event(batch_event_index=None, items=[{"item_id": sku}]) for sku in ("S1", "S2")]
    write_jsonl(exports / "events_1.jsonl", *for_item)
    run_source_file("web", WEB)
    assert warehouse.scalar("select count(distinct event_key) from raw.events") == 2


def test_a_parquet_file_with_hardly_any_column_is_read(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    write_parquet(
        exports / "events_20261120.parquet", "select 1763633045000123 as event_timestamp, 'page_view' as event_name"
    )
    assert run_source_file("web", WEB) == {"events": 1, "rejected": 0}
    assert warehouse.read("select visitor_id, event_name, is_engaged from raw.events") == [
        {"visitor_id": None, "event_name": "page_view", "is_engaged": None}
    ]


def test_rows_that_say_nothing_are_set_aside_with_their_place(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    write_jsonl(
        exports / "events_1.jsonl.gz",
        event(),
        '{"event_name": "page_',
        event(event_name=None),
        "",
        event(event_timestamp="soon"),
        event(event_timestamp=None),
        "[]",
        event(items=[{"item_id": "S1", "quantity": "two"}]),
    )
    write_parquet(
        exports / "events_2.parquet",
        "select unnest([1763633045000123, -1]) as event_timestamp, 'view_item' as event_name",
    )
    assert run_source_file("web", WEB) == {"events": 3, "rejected": 7}
    rejected = warehouse.read("select table_name, location, reason from raw.rejected_rows order by location")
    assert [tuple(row.values()) for row in rejected] == [
        ("events", "events_1.jsonl.gz:2", "not JSON"),
        ("events", "events_1.jsonl.gz:3", "no event_name"),
        ("events", "events_1.jsonl.gz:5", "event_timestamp is no time in microseconds"),
        ("events", "events_1.jsonl.gz:6", "no event_timestamp"),
        ("events", "events_1.jsonl.gz:7", "no event_name"),
        ("event_items", "events_1.jsonl.gz:8 item 1", "quantity or price is not a number"),
        ("events", "events_2.parquet:2", "event_timestamp is no time in microseconds"),
    ]


def test_damaged_files_are_set_aside_and_the_rest_loads(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    (exports / "events_1.parquet").write_bytes(b"PAR1 half of it")
    write_jsonl(exports / "events_2.jsonl.gz", event())
    whole = (exports / "events_2.jsonl.gz").read_bytes()
    (exports / "events_2.jsonl.gz").write_bytes(whole[:-12])
    (exports / "events_3.jsonl").write_bytes(json.dumps(event()).encode() + b"\n\xff\xfe broken\n")
    assert run_source_file("web", WEB)["rejected"] == 3
    rejected = warehouse.read("select location, reason from raw.rejected_rows order by location")
    assert [row["location"].split(":")[0] for row in rejected] == [
        "events_1.parquet",
        "events_2.jsonl.gz",
        "events_3.jsonl",
    ]
    assert rejected[2]["reason"] == "not UTF-8 text"
    assert warehouse.scalar("select count(*) from raw.events where source_file = 'events_3.jsonl'") == 1


def test_the_second_run_reads_only_new_and_rewritten_files(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    write_jsonl(exports / "events_20261119.jsonl", event(event_name="first"))
    write_jsonl(exports / "events_20261120.jsonl", event(event_name="second"))
    assert run_source_file("web", WEB)["events"] == 2
    assert run_source_file("web", WEB) == {"rejected": 0}
    write_jsonl(exports / "events_20261120.jsonl", event(event_name="second"), event(event_name="third"))
    write_jsonl(exports / "events_20261121.jsonl", event(event_name="fourth"))
    assert run_source_file("web", WEB)["events"] == 3
    names = warehouse.read("select event_name, count(*) as n from raw.events group by 1 order by 1")
    assert {row["event_name"]: row["n"] for row in names} == {"first": 1, "second": 2, "third": 1, "fourth": 1}


def test_a_rewrite_of_the_same_size_is_noticed_by_its_time(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    path = exports / "events_1.jsonl"
    write_jsonl(path, event(event_name="aaa"))
    run_source_file("web", WEB)
    stat = path.stat()
    write_jsonl(path, event(event_name="bbb"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert run_source_file("web", WEB)["events"] == 1


def test_a_new_column_is_announced_once_and_not_fatal(exports: Path, run_source_file: Run) -> None:
    said: list[str] = []
    write_jsonl(exports / "events_1.jsonl", event(is_active_user=True))
    run_source_file("web", WEB, said)
    assert not [line for line in said if "new columns" in line]
    write_jsonl(exports / "events_2.jsonl", event(shiny="x"))
    write_jsonl(exports / "events_3.jsonl", event(shiny="x"))
    assert run_source_file("web", WEB, said)["events"] == 2
    assert [line for line in said if "new columns" in line] == [
        "web: the export has new columns, which are not loaded: shiny"
    ]


def test_files_in_day_folders_and_other_files_beside_them(exports: Path, run_source_file: Run) -> None:
    (exports / "events_20261120").mkdir()
    write_jsonl(exports / "events_20261120" / "part-0.json", event())
    write_jsonl(exports / "users_20261120.jsonl", event())
    write_jsonl(exports / "pseudonymous_users_20261120.jsonl", event())
    assert run_source_file("web", WEB)["events"] == 1


def test_an_empty_folder_is_an_error_at_first_and_a_note_later(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    with pytest.raises(ConfigurationError, match=str(exports)):
        run_source_file("web", WEB)
    write_jsonl(exports / "events_1.jsonl", event())
    run_source_file("web", WEB)
    (exports / "events_1.jsonl").unlink()
    assert run_source_file("web", WEB) == {"rejected": 0}
    assert warehouse.scalar("select count(*) from raw.events") == 1


def test_the_real_sample_reads(shared_data: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    import duckdb

    folder = shared_data / "ga4-merch-store-sample"
    definition = WEB + 'settings: {files: ["ga4_events_sampled*"]}\n'
    counts = run_source_file("web", definition, extra={"path": str(folder)})
    assert counts == {"event_items": 23294, "events": 24219, "rejected": 0}
    flat = folder / "ga4_events_flat.parquet"
    expected = duckdb.sql(
        f"select count(*), count(distinct user_pseudo_id), count(ga_session_id), count(page_location), "
        f"sum(engagement_time_msec), min(event_timestamp) from '{flat}'"
    ).fetchall()[0]
    landed = warehouse.read(
        "select count(*), count(distinct visitor_id), count(session_id), count(page_location), "
        "sum(engagement_ms), epoch_us(min(occurred_at)) from raw.events"
    )
    assert tuple(landed[0].values()) == expected
    assert warehouse.scalar("select count(distinct event_key) from raw.events") == 24219


def test_a_file_that_is_damaged_inside_does_not_stop_its_neighbours(
    shared_data: Path, exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    whole = (shared_data / "ga4-merch-store-sample" / "ga4_events_sampled.snappy.parquet").read_bytes()
    damaged = bytearray(whole)
    damaged[500_000:600_000] = bytes((7 * byte + 13) % 256 for byte in damaged[500_000:600_000])
    (exports / "events_1.parquet").write_bytes(whole)
    (exports / "events_2.parquet").write_bytes(bytes(damaged))
    run_source_file("web", WEB)
    good = "select count(distinct event_key) from raw.events where source_file = 'events_1.parquet'"
    assert warehouse.scalar(good) == 24219
    assert warehouse.scalar("select location from raw.rejected_rows") == "events_2.parquet"
    assert run_source_file("web", WEB) == {"rejected": 0}
