"""The benchmark's shop gives what it says, and the pandas script finds the people that our SQL finds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from include.warehouse.build import build_tables
from include.warehouse.engine import Warehouse
from tests.benchmarks.segments.engines import CannotStart, running
from tests.benchmarks.segments.fill import write_parquet
from tests.benchmarks.segments.measure import AUDIENCES, digests, segments
from tests.benchmarks.segments.report import lines_of, show
from tests.benchmarks.segments.run import Figures, Measured, Rival
from tests.benchmarks.segments.shop import RAW_TABLES, Shop, write_step
from tests.benchmarks.segments_in_pandas import audiences

LOADS = 150
SHOP = Shop(20_000 / LOADS)
KINDS = {"contact_id": "contact", "user_id": "user", "email": "email", "visitor_id": "visitor", "phone": "phone"}


@pytest.fixture
def board() -> Iterator[Any]:
    """A connection to a database in memory that has the tables of raw."""
    warehouse = Warehouse("duckdb://")
    warehouse.ensure_tables()
    with warehouse.session() as session:
        yield session.connection.driver_connection


def test_a_shop_has_the_events_visitors_and_names_it_says(board: Any) -> None:
    write_step(board, Shop(100_000 / LOADS), 0, LOADS)
    rows, events, visitors, sessions, views, purchases, late = board.sql("""
        select
            count(*),
            count(distinct event_key),
            count(distinct visitor_id),
            count(distinct visitor_id || session_id),
            avg((event_name = 'page_view')::int),
            avg((event_name = 'purchase')::int),
            avg((occurred_at < date_trunc('day', loaded_at - interval '1 hour'))::int)
        from raw.events
    """).fetchall()[0]
    assert events == pytest.approx(100_000, rel=0.05)
    assert events / visitors == pytest.approx(20, rel=0.1)
    assert 3 < sessions / visitors < 4
    assert rows / events == pytest.approx(1.01, abs=0.002)
    assert views == pytest.approx(0.6, abs=0.02)
    assert purchases == pytest.approx(0.01, abs=0.004)
    assert 0.005 < late < 0.03


def test_some_visitors_are_known_and_some_browsers_are_shared(board: Any) -> None:
    write_step(board, Shop(100_000 / LOADS), 0, LOADS)
    visitors, known, shared, on_two_browsers, contacts = board.sql("""
        with logins as (
            select visitor_id, count(distinct user_id) as users from raw.events group by visitor_id
        ),
        browsers as (
            select count(distinct visitor_id) as browsers from raw.events where user_id <> '' group by user_id
        )
        select
            count(*),
            avg((users > 0)::int),
            avg((users > 1)::int),
            (select count(*) from browsers where browsers > 1),
            (select count(distinct contact_id) from raw.contacts)
        from logins
    """).fetchall()[0]
    assert 0.1 < known < 0.17
    assert 0.002 < shared < 0.02
    assert on_two_browsers > 10
    assert 0.08 < contacts / visitors < 0.2


def test_rows_are_appended_in_the_order_of_loads_and_of_time(board: Any) -> None:
    for begin in range(0, 20, 10):
        write_step(board, SHOP, begin, begin + 10)
    for table in RAW_TABLES:
        loads = board.sql(f"select loaded_at from raw.{table} order by rowid").fetchall()
        assert loads == sorted(loads)
    days = board.sql("select loaded_at, occurred_at from raw.events order by rowid").fetchall()
    assert days == sorted(days)
    assert all(occurred_at < loaded_at for loaded_at, occurred_at in days)
    assert {loaded_at for loaded_at, _ in days} == {datetime(2020, 1, day, 0, 30) for day in range(2, 22)}


def test_a_load_is_the_same_however_the_loads_are_cut(board: Any) -> None:
    def rows(*steps: tuple[int, int]) -> dict[str, list[Any]]:
        for begin, end in steps:
            write_step(board, SHOP, begin, end)
        found = {table: board.sql(f"select * from raw.{table}").fetchall() for table in RAW_TABLES}
        for table in RAW_TABLES:
            board.execute(f"delete from raw.{table}")
        return {table: sorted(lines, key=repr) for table, lines in found.items()}

    whole = rows((0, 40))
    assert all(whole.values())
    assert rows((0, 13), (13, 14), (14, 40)) == whole


def test_another_seed_is_another_shop(board: Any) -> None:
    write_step(board, Shop(100, seed=1), 0, 5)
    write_step(board, Shop(100, seed=2), 0, 5)
    rows, keys, visitors = board.sql(
        "select count(*), count(distinct event_key), count(distinct visitor_id) from raw.events"
    ).fetchall()[0]
    alone = Shop(100, seed=1)
    board.execute("delete from raw.events")
    write_step(board, alone, 0, 5)
    first_visitors = board.sql("select count(distinct visitor_id) from raw.events").fetchall()[0][0]
    assert 0.97 * rows < keys
    assert visitors > 1.5 * first_visitors


def test_a_load_has_the_same_size_and_newcomers_after_any_history(board: Any) -> None:
    def shares(first: int) -> tuple[int, float]:
        write_step(board, Shop(20_000), first, first + 1)
        rows, newcomers = board.sql(
            "select count(*), avg((session_number = 1)::int) from raw.events where loaded_at = $at",
            params={"at": Shop(1).as_of(first + 1).replace(hour=0, minute=30)},
        ).fetchall()[0]
        return rows, newcomers

    early, late = shares(200), shares(2_000)
    assert early[0] == pytest.approx(20_000, rel=0.06)
    assert late[0] == pytest.approx(early[0], rel=0.06)
    assert late[1] == pytest.approx(early[1], abs=0.04)


def _ours(warehouse: Warehouse) -> tuple[dict[str, set[str]], pd.DataFrame]:
    names = pd.DataFrame(
        warehouse.read(
            "select profile_id, min(identifier_kind || ' ' || identifier_value) as name "
            "from core.identifiers where profile_id is not null group by profile_id"
        )
    ).set_index("profile_id")
    audience_tables = ("cart_abandoners", "lapsed_subscribers", "non_converting_visitors")
    found = {table: warehouse.read(f"select profile_id from segments.{table}") for table in audience_tables}
    return {table: {names.name[row["profile_id"]] for row in rows} for table, rows in found.items()}, names


def _in_pandas(folder: Path, as_of: datetime) -> dict[str, set[str]]:
    found, people = audiences(folder, as_of)
    shown = {theirs: ours for ours, theirs in KINDS.items()}
    names = pd.concat(
        [pd.Series(shown[kind] + " " + profile.index, index=profile) for kind, profile in people.profile.items()]
    )
    first = names.groupby(level=0).min()
    return {audience: {first[profile] for profile in profiles} for audience, profiles in found.items()}


def test_pandas_finds_the_same_people_after_a_first_build_and_after_a_new_load(tmp_path: Path) -> None:
    warehouse = Warehouse("duckdb://")
    warehouse.ensure_tables()
    with warehouse.session() as session:
        write_step(session.connection.driver_connection, SHOP, 0, LOADS)
    for first, end in ((0, LOADS), (LOADS, LOADS + 2)):
        if first:
            with warehouse.session() as session:
                write_step(session.connection.driver_connection, SHOP, first, end)
        write_parquet(SHOP, first, end, tmp_path, lambda *_: None)
        build_tables(warehouse, SHOP.as_of(end), full_refresh=not first)
        segments(warehouse, SHOP.as_of(end), lambda *_: None)
        ours, _ = _ours(warehouse)
        assert min(len(people) for people in ours.values()) > 15
        assert _in_pandas(tmp_path, SHOP.as_of(end)) == ours


def _figures(**changes: Any) -> Figures:
    sizes = [("cart_abandoners", 5, 0.5), ("lapsed_subscribers", 6, 0.5), ("non_converting_visitors", 7, 2.0)]
    full = Measured(50, 90, 9_000, [("staging.events", 10, 20.0), ("core.events", 10, 29.0)])
    chosen = {
        "engine": "duckdb",
        "bound": Measured(15, 30, 500, [("bound", 3, 5.0)] * 3),
        "bound_seconds": 5.0,
        "full": full,
        "segments": Measured(3, 3, 400, sizes),
        "new": Measured(2, 2, 400),
        "new_segments": Measured(3, 3, 400, sizes),
        "digests": (Measured(parts=sizes), Measured(parts=sizes)),
        "short": Measured(1.0, 1, 300),
        "long": Measured(1.2, 1, 300),
        "rival": Rival(1_000, Measured(530, 500, 9_000, sizes)),
        "ours": (full, Measured(3, 3, 400, sizes)),
    }
    return Figures(**{**chosen, **changes})


def test_every_target_is_shown_with_its_verdict() -> None:
    verdicts = {line.what: (line.ratio, line.is_met) for line in lines_of(_figures()) if line.target}
    assert verdicts == {
        "full build": ("", False),
        "segment cart_abandoners": ("", True),
        "segment lapsed_subscribers": ("", True),
        "segment non_converting_visitors": ("", False),
        "full build + 3 segments": ("10.6 x raw bound", False),
        "1 % new events": ("4.0% of full build", True),
        "the same on 2,000 days": ("1.20 x 200 days", True),
        "pandas, 1,000 events": ("10.0 x full build + 3 segments", False),
        "": ("106.0 x 1 % new + 3 segments", True),
    }


def test_an_audience_of_another_size_in_pandas_is_named() -> None:
    others = [("cart_abandoners", 4, 0.5), ("lapsed_subscribers", 6, 0.5), ("non_converting_visitors", 7, 2.0)]
    figures = _figures(rival=Rival(1_000, Measured(530, 500, 9_000, others)))
    assert figures.differences == ["cart_abandoners: 5 here, 4 in pandas"]
    assert not _figures().differs


def test_an_audience_with_other_rows_on_another_engine_is_named() -> None:
    others = [("cart_abandoners", 5, 0), ("lapsed_subscribers", 9, 0), ("non_converting_visitors", 7, 0)]
    same = _figures().digests[0]
    assert _figures().other_rows(_figures()) == []
    assert _figures(digests=(same, Measured(parts=others))).other_rows(_figures()) == ["lapsed_subscribers"]


def test_the_digest_of_rows_is_of_their_content_whatever_their_order() -> None:
    found = []
    for rows in ("('a', 1.50, timestamp '2026-03-10')", "('a', 1.5, timestamp '2026-03-10'), ('b', 2, null)"):
        for order in ("asc", "desc"):
            warehouse = Warehouse("duckdb://")
            warehouse.ensure_tables()
            for name in AUDIENCES:
                warehouse.execute(
                    f"create table segments.{name} as select * from (values {rows}) as t(profile_id, value, at) "
                    f"order by profile_id {order}"
                )
            told: list[int] = []
            digests(warehouse, lambda name, rows, seconds, told=told: told.append(rows))  # type: ignore[misc]
            found.append(told)
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[0] != found[2]


def test_what_pandas_did_not_survive_is_said_in_its_line() -> None:
    console = Console(width=200, record=True, quiet=True)
    figures = _figures(rival=Rival(10_000_000, Measured(), "did not survive"), ours=None)
    last = lines_of(figures)[-1]
    assert (last.what, last.note) == ("pandas, 10,000,000 events", "did not survive")
    show(console, "duckdb", [last])


def test_an_engine_nobody_knows_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="no engine oracle"), running("oracle", tmp_path):
        pass
