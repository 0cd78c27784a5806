"""From an audience file to its segment table and the note about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from include.audiences.segment import build_audience_segment
from include.errors import AudienceFileError, ConfigurationError, QualityGateFailed
from include.settings import get_settings
from include.warehouse.engine import Warehouse

AS_OF = datetime(2026, 3, 10, 12)

CARTS = """
create table core.carts as select * from (values
    ('ana', 'c1', 'https://shop.example/1', 'EUR', 12.5, 1, '1 x Mug', 'open', timestamp '2026-03-10 10:00'),
    ('ben', 'c2', null, 'EUR', 80.0, 2, '2 x Hat', 'open', timestamp '2026-03-05 10:00'),
    ('cleo', 'c3', null, 'EUR', 80.0, 2, '2 x Hat', 'ordered', timestamp '2026-03-05 10:00')
) as carts (profile_id, cart_key, cart_url, currency, cart_value, item_count, items, state, last_activity_at)
"""
PEOPLE = """
create table core.profiles as select * from (values
    ('ana', false, false, 'Bern'), ('ben', false, false, 'Basel'), ('cleo', false, false, 'Chur')
) as people (profile_id, is_bot, is_staff, town)
"""
OWN = """\
label: Own
description: Everybody.
owner: analytics@example.com
segment: everybody
destinations: [{to: mailchimp, audience: Newsletter, fields: {TOWN: town}}]
"""


@pytest.fixture
def warehouse(empty_warehouse: Warehouse) -> Warehouse:
    empty_warehouse.execute(CARTS)
    empty_warehouse.execute(PEOPLE)
    return empty_warehouse


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder of the test's own, with one audience; its SQL is what the test writes."""
    (tmp_path / "sql" / "segments").mkdir(parents=True)
    (tmp_path / "sql" / "core").mkdir()
    (tmp_path / "sql" / "core" / "profiles.sql").write_text("select contact_id as profile_id from staging.contacts\n")
    (tmp_path / "sql" / "staging").mkdir()
    (tmp_path / "sql" / "staging" / "contacts.sql").write_text("select contact_id from raw.contacts\n")
    (tmp_path / "definitions").mkdir()
    (tmp_path / "definitions" / "own.yaml").write_text(OWN)
    monkeypatch.setenv("REKINDLE_SQL_DIR", str(tmp_path / "sql"))
    monkeypatch.setenv("REKINDLE_AUDIENCES_DIR", str(tmp_path / "definitions"))
    get_settings.cache_clear()
    yield tmp_path / "sql" / "segments" / "everybody.sql"
    get_settings.cache_clear()


@pytest.mark.on_spark
def test_a_segment_is_built_with_the_audiences_params_and_stages(warehouse: Warehouse) -> None:
    assert build_audience_segment(warehouse, "cart_abandoners", AS_OF, "run1") == 2
    assert warehouse.read("select profile_id, stage, cart_items from segments.cart_abandoners order by profile_id") == [
        {"profile_id": "ana", "stage": "reminder", "cart_items": "1 x Mug"},
        {"profile_id": "ben", "stage": "offer", "cart_items": "2 x Hat"},
    ]
    assert warehouse.read("select audience, run_id, matched, as_of from sync.segment_builds") == [
        {"audience": "cart_abandoners", "run_id": "run1", "matched": 2, "as_of": AS_OF}
    ]


def test_the_next_run_replaces_the_table_and_adds_a_note(warehouse: Warehouse) -> None:
    build_audience_segment(warehouse, "cart_abandoners", AS_OF, "run1")
    assert build_audience_segment(warehouse, "cart_abandoners", datetime(2026, 3, 13, 12), "run2") == 1
    assert warehouse.read("select profile_id from segments.cart_abandoners") == [{"profile_id": "ana"}]
    assert warehouse.read("select run_id, matched from sync.segment_builds order by run_id") == [
        {"run_id": "run1", "matched": 2},
        {"run_id": "run2", "matched": 1},
    ]


def test_an_audience_that_does_not_exist_is_told(warehouse: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match="there is no audience 'cart_abandoner'"):
        build_audience_segment(warehouse, "cart_abandoner", AS_OF, "run1")


def test_the_table_has_the_name_of_the_audience_not_of_the_segment(warehouse: Warehouse, own: Path) -> None:
    own.write_text("select profile_id, town, :as_of as entered_at from core.profiles\n")
    assert build_audience_segment(warehouse, "own", AS_OF, "run1") == 3
    assert warehouse.scalar("select count(*) from segments.own") == 3


def test_two_rows_for_one_profile_publish_nothing_and_leave_no_note(warehouse: Warehouse, own: Path) -> None:
    own.write_text("select 'ana' as profile_id, town, :as_of as entered_at from core.profiles\n")
    with pytest.raises(QualityGateFailed):
        build_audience_segment(warehouse, "own", AS_OF, "run1")
    assert warehouse.columns("segments.own") is None
    assert warehouse.scalar("select count(*) from sync.segment_builds") == 0


def test_a_column_that_only_the_database_knows_is_checked_after_the_build(warehouse: Warehouse, own: Path) -> None:
    own.write_text("select *, :as_of as entered_at from core.profiles\n")
    assert build_audience_segment(warehouse, "own", AS_OF, "run1") == 3
    warehouse.execute("create table core.moved as select profile_id, town as place from core.profiles")
    warehouse.execute("drop table core.profiles")
    warehouse.execute("create table core.profiles as select profile_id, place from core.moved")
    with pytest.raises(AudienceFileError, match=r"own.yaml:5: fields.TOWN: the segment has no column 'town'"):
        build_audience_segment(warehouse, "own", AS_OF, "run2")
    assert warehouse.scalar("select count(*) from sync.segment_builds") == 1
