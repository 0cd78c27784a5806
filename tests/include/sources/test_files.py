from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigurationError
from include.sources import ingest
from include.warehouse.engine import Warehouse

Run = Callable[..., dict[str, int]]


def feeds(text: str) -> str:
    return f"label: Shop\nkind: files\nconnection: exports\nsettings:\n  feeds:\n{text}"


TILLS = feeds("""
    - path: tills*.csv
      table: order_lines
      timezone: Europe/London
      default_country: GB
      columns:
        order_id: receipt
        phone: phone
        email: email
        sku: sku
        quantity: qty
        price: price
        currency: {const: GBP}
        status: {column: state, map: {"void*": cancelled}, default: fulfilled}
        ordered_at: sold
""")
HEADER = "receipt,phone,email,sku,qty,price,state,sold\n"
PEOPLE = feeds("""
    - path: people.csv
      table: contacts
      columns: {contact_id: id, email: mail, country: land, created_at: {column: since, format: "%d.%m.%Y"}}
""")


def rows(warehouse: Warehouse, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in warehouse.read(sql)]


def test_lines_become_orders_and_items(exports: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    (exports / "tills.csv").write_text(
        HEADER
        + "R1,020 7946 0018,,S1,2,1.50,paid,2026-07-01 10:05\n"
        + "R2,,ana@x.example,S9,1,10,VOIDED,2026-01-05 09:00\n"
        + "R1,,Ana@x.example,S2,,3,,2026-07-01 10:00\n"
        + "R3,,,S2,1,3,,2026-07-01T10:00:00+02:00\n"
    )
    assert run_source_file("shop", TILLS) == {"order_items": 4, "orders": 3, "rejected": 0}
    orders = rows(
        warehouse,
        "select order_id, email, phone, status, currency, total_amount, is_test, ordered_at::text "
        "from raw.orders order by 1",
    )
    assert orders == [
        ("R1", "Ana@x.example", "+442079460018", "paid", "GBP", 6.0, False, "2026-07-01 09:00:00"),
        ("R2", "ana@x.example", None, "cancelled", "GBP", 10.0, False, "2026-01-05 09:00:00"),
        ("R3", None, None, "fulfilled", "GBP", 3.0, False, "2026-07-01 08:00:00"),
    ]
    items = rows(
        warehouse, "select order_id, line_id, sku, quantity, price, currency from raw.order_items order by 1, 2"
    )
    assert items == [
        ("R1", "1", "S1", 2, 1.5, "GBP"),
        ("R1", "2", "S2", None, 3.0, "GBP"),
        ("R2", "1", "S9", 1, 10.0, "GBP"),
        ("R3", "1", "S2", 1, 3.0, "GBP"),
    ]


def test_bad_rows_are_set_aside_with_line_and_reason(exports: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    (exports / "tills.csv").write_bytes(
        HEADER.encode()
        + b"R1,,,S1,two,1.50,,2026-07-01 10:05\n"
        + b'R2,,,"S1\nsecond line",1,1.50,,2026-07-01 10:05\n'
        + b"R3,,,S1,1,1.50\n"
        + b",,,S1,1,1.50,,2026-02-30 10:05\n"
        + b"R5,,caf\xe9,S1,1,1.50,,2026-07-01 10:05\n"
    )
    assert run_source_file("shop", TILLS)["orders"] == 1
    assert rows(warehouse, "select table_name, location, reason from raw.rejected_rows order by location") == [
        ("order_lines", "tills.csv:2", "quantity is not a whole number"),
        ("order_lines", "tills.csv:5", "has 6 fields where the first line has 8"),
        ("order_lines", "tills.csv:6", "order_id is empty; ordered_at is not a date or time"),
        ("order_lines", "tills.csv:7", "not utf-8-sig text"),
    ]
    assert '"qty":"two"' in warehouse.scalar("select raw_row from raw.rejected_rows where location = 'tills.csv:2'")


def test_only_new_and_rewritten_files_are_read_again(exports: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    (exports / "tills1.csv").write_text(HEADER + "R1,,,S1,1,1,,2026-07-01 10:05\n")
    run_source_file("shop", TILLS)
    assert run_source_file("shop", TILLS) == {"rejected": 0}
    (exports / "tills2.csv").write_text(HEADER + "R2,,,S1,1,1,,2026-07-01 10:05\n")
    assert run_source_file("shop", TILLS)["orders"] == 1
    (exports / "tills1.csv").write_text(HEADER + "R1,,,S1,1,1,void,2026-07-01 10:05\n")
    assert run_source_file("shop", TILLS)["orders"] == 1
    assert run_source_file("shop", TILLS.replace("GBP", "EUR"))["orders"] == 2, "an edited feed is read again"
    assert rows(warehouse, "select status from raw.orders where order_id = 'R1' order by loaded_at") == [
        ("fulfilled",),
        ("cancelled",),
        ("cancelled",),
    ]


def test_contacts_keep_accents_and_countries_become_codes(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    (exports / "people.csv").write_text(
        "id;mail;land;since\n1; chloe\u0301@x.example ;Deutschland;31.12.2025\n2;;Mars;\n"
    )
    run_source_file("crm", PEOPLE)
    assert rows(
        warehouse, "select contact_id, email, country, created_at::text, is_deleted from raw.contacts order by 1"
    ) == [
        ("1", "chlo\u00e9@x.example", "DE", "2025-12-31 00:00:00", False),
        ("2", None, None, None, False),
    ]


def test_json_lines_and_parquet_feed_the_same_table(exports: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    import duckdb

    (exports / "opens.jsonl").write_text(
        '{"who": "a@x.example", "at": 1763633045000}\nnonsense\n{"who": "b@x.example"}\n'
    )
    duckdb.sql("select 'c@x.example' as who, timestamp '2025-11-20 10:04:05' as at").write_parquet(
        str(exports / "opens.parquet")
    )
    feed = "{{path: {}, table: engagement, columns: {{email: who, type: {{const: open}}, occurred_at: at}}}}"
    definition = feeds(f"    - {feed.format('opens.jsonl')}\n    - {feed.format('opens.parquet')}\n")
    assert run_source_file("mail", definition) == {"engagement": 2, "rejected": 2}
    landed = rows(
        warehouse,
        "select email, channel, type, occurred_at::text, length(engagement_id) from raw.engagement order by 1",
    )
    assert landed == [
        ("a@x.example", "email", "open", "2025-11-20 10:04:05", 32),
        ("c@x.example", "email", "open", "2025-11-20 10:04:05", 32),
    ]
    assert rows(warehouse, "select location, reason from raw.rejected_rows order by 1") == [
        ("opens.jsonl:2", "not a JSON object"),
        ("opens.jsonl:3", "occurred_at is empty"),
    ]


def test_suppressions_are_never_lost_to_a_word(exports: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    (exports / "block.csv").write_text(
        "kind,value,channel,reason\nDomain,@Rival.example,everywhere,competitors\nphone,020 7946 0018,ads,\n"
    )
    said: list[str] = []
    definition = feeds(
        "    - {path: block.csv, table: suppressions, default_country: GB, "
        "columns: {kind: kind, value: value, channel: channel, reason: reason}}\n"
    )
    run_source_file("block", definition, said)
    assert rows(warehouse, "select kind, value, channel, reason, is_active from raw.suppressions order by 1") == [
        ("domain", "rival.example", "all", "competitors", True),
        ("phone", "+442079460018", "ads", None, True),
    ]
    assert "block: block.csv: words for channel taken as 'all': everywhere (1)" in said


def test_unknown_order_words_are_taken_as_placed_and_reported(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    (exports / "o.csv").write_text("id,at,state\n1,2026-01-01,Paid\n2,2026-01-01,on hold\n3,2026-01-01,on hold\n")
    said: list[str] = []
    definition = feeds("    - {path: o.csv, table: orders, columns: {order_id: id, ordered_at: at, status: state}}\n")
    run_source_file("shop", definition, said)
    assert rows(warehouse, "select status from raw.orders order by order_id") == [("paid",), ("placed",), ("placed",)]
    assert "shop: o.csv: words for status taken as 'placed': on hold (2)" in said


def test_a_new_column_is_announced_and_a_missing_one_named(exports: Path, run_source_file: Run) -> None:
    said: list[str] = []
    (exports / "people.csv").write_text("id;mail;land;since\n1;a@x.example;DE;\n")
    run_source_file("crm", PEOPLE, said)
    (exports / "people.csv").write_text("id;mail;land;since;shoe\n1;a@x.example;DE;;44\n")
    run_source_file("crm", PEOPLE, said)
    assert [line for line in said if "new columns" in line] == [
        "crm: people.csv has new columns, which are not loaded: shoe"
    ]
    (exports / "people.csv").write_text("idd;mail;land;since\n1;a@x.example;DE;\n")
    with pytest.raises(ConfigurationError, match=r"has no column 'id' for contacts\.contact_id; did you mean 'idd'"):
        run_source_file("crm", PEOPLE, said)
    (exports / "people.csv").write_text("id;mail;land;since\n2;b@x.example;DE;\n")
    assert run_source_file("crm", PEOPLE, said)["contacts"] == 1, "the corrected file is read"


def test_missing_and_empty_files_take_nothing_away(
    exports: Path, warehouse: Warehouse, run_source_file: Run, caplog: pytest.LogCaptureFixture
) -> None:
    two = PEOPLE + "    - {path: more.csv, table: contacts, columns: {contact_id: id}}\n"
    with pytest.raises(ConfigurationError, match=r"there is no file at .*people\.csv"):
        run_source_file("crm", two)
    (exports / "people.csv").write_text("id;mail;land;since\n1;a@x.example;DE;\n")
    with pytest.raises(ConfigurationError, match=r"more\.csv \(the other feeds were loaded\)"):
        run_source_file("crm", two)
    assert warehouse.scalar("select count(*) from raw.contacts") == 1
    (exports / "more.csv").write_text("id\n2\n")
    run_source_file("crm", two)
    (exports / "people.csv").write_text("")
    (exports / "more.csv").unlink()
    with caplog.at_level(logging.WARNING, "include"):
        assert run_source_file("crm", two) == {"rejected": 0}
    assert "what was loaded stays" in caplog.text
    assert warehouse.scalar("select count(*) from raw.contacts") == 2


def test_the_real_invoice_lines_load_fast(
    shared_data: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    folder = shared_data / "uci-online-retail"
    monkeypatch.setenv("AIRFLOW_CONN_FILES_DEFAULT", f'{{"extra": {{"path": "{folder}"}}}}')
    began = time.monotonic()
    counts = ingest("online_retail", warehouse, folder=Path("include/sandbox/published"))
    assert time.monotonic() - began < 60  # 8 s alone; tests may share the machine
    truth = duckdb.sql(
        f"select count(*), count(distinct InvoiceNo), count(distinct InvoiceNo) filter (where InvoiceNo like 'C%') "
        f"from '{folder / 'online_retail.parquet'}' where upper(StockCode) not in ('POST', 'DOT', 'D', 'M', 'S', 'B', "
        "'C2', 'CRUK', 'PADS', 'BANK CHARGES', 'AMAZONFEE') and upper(StockCode) not like 'GIFT\\_%' escape '\\'"
    ).fetchall()[0]
    assert (counts["order_items"], counts["orders"], counts["rejected"]) == (truth[0], truth[1], 0)
    assert warehouse.scalar("select count(*) from raw.orders where status = 'cancelled'") == truth[2]
    assert rows(
        warehouse, "select contact_id, ordered_at::text, total_amount from raw.orders where order_id = '536365'"
    ) == [("17850", "2010-12-01 08:26:00", 139.12)]
    summer = "select ordered_at::text from raw.orders where order_id = '561873'"
    local = duckdb.sql(
        f"select (min(InvoiceDate) - interval 1 hour)::text from '{folder / 'online_retail.parquet'}' "
        "where InvoiceNo = '561873'"
    ).fetchall()[0]
    assert warehouse.scalar(summer) == local[0], "London is an hour ahead in July"


def test_the_numbers_of_two_shops_are_two_events(exports: Path, warehouse: Warehouse, run_source_file: Run) -> None:
    logs = feeds("""
    - path: log*.csv
      table: events
      columns: {event_key: id, event_name: what, visitor_id: who, occurred_at: at}
    - path: lines*.csv
      table: event_items
      columns: {event_key: id, sku: sku}
""")
    (exports / "log.csv").write_text("id,what,who,at\n1,add_to_cart,v1,2026-07-01 10:00\n")
    (exports / "lines.csv").write_text("id,sku\n1,S1\n")
    for shop in ("shop_a", "shop_b"):
        run_source_file(shop, logs)
    for table in ("raw.events", "raw.event_items"):
        assert warehouse.tuples(f"select event_key from {table} order by 1") == [("shop_a:1",), ("shop_b:1",)], table


def test_ids_from_a_column_of_doubles_are_whole_numbers(
    exports: Path, warehouse: Warehouse, run_source_file: Run
) -> None:
    import pandas as pd

    pd.DataFrame({"id": [1234.0, None, 3.5], "mail": ["ana@x.com", "bo@x.com", "cy@x.com"]}).to_parquet(
        exports / "people.parquet"
    )
    run_source_file("crm", PEOPLE.replace("people.csv", "people.parquet"))
    assert warehouse.tuples("select contact_id from raw.contacts order by email") == [("1234",), ("3.5",)]
