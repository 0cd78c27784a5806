"""However a history is cut into loads, in whatever order they come, the warehouse says the same in the end.

Each example is a small random history (histories.py) told twice to DuckDB in memory. Once in pieces: a load, a build,
the next load, the next build, with repeated rows and rows that come late. And once as a whole: every delivery once, one
load, one full build. Every table of staging and core and the shipped segments must then hold the same rows.

Three more properties lean on the same machinery: the clock moves on between the builds (what was in the future comes
to be, carts expire, plans end); builds are killed at any statement and followed by the next load; and loads end in
another order than they begin, or begin in the same second, as those of two sources do. Some builds are one transaction,
others a transaction for each model, as Airflow's tasks are.

Left out of the comparison are only what says when a row was loaded (`loaded_at`, and the tables that the view
staging.events is made of), tables that hold what the last build worked on, islands, which never fall apart between
full builds, and core.profile_merges, which tells of earlier builds: it must say what all names that ever went tell.

An example is a town: what happened there, and which load brings each piece of it, is drawn for it alone. One to ten of
them share a warehouse, because a build costs the same for all, and with it the number of loads, the clock and the kills
of a draw. So the 200 examples of `make test` are about 36 warehouses (80 towns cut into loads alone, 40 for each other
property), and the 2,000 of `make soak` about 360. REKINDLE_EXAMPLES and HYPOTHESIS_PROFILE say how many are tried
(tests/conftest.py).
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from include.settings import ROOT, get_settings
from include.warehouse.build import build_model, build_segment, build_tables, run_model, setting_params
from include.warehouse.builds import begin_build, finish_build
from include.warehouse.engine import Warehouse
from include.warehouse.models import build_order, load_models
from tests.sql.conftest import shipped
from tests.sql.histories import AS_OF, Delivery, History, Row, histories

LEFT_OUT = {"loaded_at"}
# What staging.events is made of says how often and when a row came; the view itself is compared.
PARTS_OF_EVENTS = {f"staging.{name}" for name in ("event_keys", "event_loads", "mended_keys", "mended_events")}
MERGES = "core.profile_merges"
TOWNS = 5.5  # in a history, on average
SEGMENTS = ("cart_abandoners", "lapsed_subscribers", "non_converting_visitors")
EXAMPLES = settings().max_examples

# The limits are low, so that a town of three reaches them.
LIMITS = {"QUARANTINE_ABOVE": "2", "BOT_PAGE_VIEWS_PER_MINUTE": "5", "COMPANY_DOMAINS": '["staff.example"]'}

pytestmark = pytest.mark.timeout(300 + 10 * EXAMPLES)


def kept_tables() -> list[str]:
    """The tables of staging and core that are the same however they were built."""
    return [
        name
        for name, model in load_models().items()
        if model.schema in ("staging", "core")
        and model.materialized != "work"
        and name not in {"core.islands", MERGES, *PARTS_OF_EVENTS}
    ]


class Killed(Exception):
    """What a kill looks like from inside: the open transaction is rolled back and nothing after it runs."""


@pytest.fixture(autouse=True, scope="module")
def _low_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LIMITS.items():
            patch.setenv(f"REKINDLE_{name}", value)
        yield


class Teller:
    """A warehouse that is told a history, and how many statements a build takes."""

    def __init__(self) -> None:
        self.warehouse = Warehouse("duckdb://")
        self.warehouse.ensure_tables()
        self._statements = 0
        self._last_statement = sys.maxsize
        self._usual = 300
        sqlalchemy.event.listen(self.warehouse._engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self._statements += 1
        if self._statements > self._last_statement:
            raise Killed

    def load(
        self,
        deliveries: list[Delivery],
        loaded_at: datetime,
        behind: Mapping[str, int],
        records_loaded_at: datetime | None = None,
    ) -> None:
        rows: dict[str, list[Row]] = {}
        for delivery in deliveries:
            for table, row in delivery.rows:
                began = loaded_at - timedelta(minutes=behind.get(str(row.get("source")), 0))
                if records_loaded_at and not table.startswith("raw.event"):
                    began = records_loaded_at
                stamp = {} if table == "sync.opt_outs" else {"loaded_at": began}
                rows.setdefault(table, []).append({**row, **stamp})
        # An answer of a tool is read when it is loaded; of two in one load, the one that was to be read first.
        for place, row in enumerate(sorted(rows.get("sync.opt_outs", ()), key=itemgetter("read_at"))):
            row["read_at"] = loaded_at + timedelta(microseconds=place)
        with self.warehouse.session() as session:
            for table, listed in rows.items():
                self.warehouse.insert(table, listed, connection=session)

    def build(
        self, as_of: datetime, kill_at: float | None = None, *, full_refresh: bool = False, in_tasks: bool = False
    ) -> bool:
        """Whether the build was finished; `kill_at` is a share of the statements of an earlier build.

        In tasks every model has a transaction of its own, and knows no more of the build than what is stored.
        """
        self._statements = 0
        self._last_statement = sys.maxsize if kill_at is None else int(kill_at * self._usual)
        try:
            if in_tasks:
                begin_build(self.warehouse, as_of, setting_params(), full_refresh=full_refresh)
                models = load_models()
                for name in build_order(models):
                    if models[name].schema in ("staging", "core"):
                        build_model(self.warehouse, name, as_of)
                finish_build(self.warehouse)
            else:
                build_tables(self.warehouse, as_of, full_refresh=full_refresh)
        except Killed:
            return False
        finally:
            self._last_statement = sys.maxsize
        self._usual = self._statements
        return True

    def tables(self, as_of: datetime) -> dict[str, Counter[tuple[Any, ...]]]:
        """Everything that is compared: the rows of a table as a multiset."""
        for segment in SEGMENTS:
            build_segment(self.warehouse, segment, segment, as_of, *shipped(segment))
        names = kept_tables()
        found = {}
        with self.warehouse.session() as session:
            for name in [*names, *(f"segments.{segment}" for segment in SEGMENTS)]:
                result = session.exec_driver_sql(f"select * from {name}")
                kept = [number for number, column in enumerate(result.keys()) if column not in LEFT_OUT]
                found[name] = Counter(tuple(row[number] for number in kept) for row in result)
        return found

    def merges(self, as_of: datetime) -> tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]:
        """Which names went where: as the builds left it, and as all names that ever went tell."""
        with self.warehouse.session() as session:
            kept = Counter(map(tuple, session.exec_driver_sql(f"select * from {MERGES}")))
            run_model(self.warehouse, session, load_models()[MERGES], {**setting_params(), "as_of": as_of})
            return kept, Counter(map(tuple, session.exec_driver_sql(f"select * from {MERGES}")))

    def close(self) -> None:
        self.warehouse.close()
        self.warehouse._anchor.close()


def in_pieces(history: History, teller: Teller) -> int:
    """Load after load, each followed by a build; how many of them were killed."""
    order = random.Random(history.shuffle)
    finished = True
    killed = 0
    for number, as_of in enumerate(history.clocks):
        brought = [delivery for delivery in history.deliveries for load in delivery.loads if load == number]
        order.shuffle(brought)
        teller.load(brought, history.began[number], history.behind)
        finished = teller.build(as_of, history.kills[number], in_tasks=order.random() < 0.4)
        killed += not finished
    if not finished:
        teller.build(history.clocks[-1])
    return killed


def as_a_whole(history: History, teller: Teller) -> None:
    """Every delivery once, all records in one load, one build; versions of an event are told apart by their loads."""
    for number, began in enumerate(history.began):
        last = [delivery for delivery in history.deliveries if max(delivery.loads) == number]
        teller.load(last, began, history.behind, records_loaded_at=AS_OF)
    teller.build(history.clocks[-1], full_refresh=True)


@dataclass
class Seen:
    """What the examples had in them, so that a run of empty histories cannot pass for a proof."""

    tables: set[str] = field(default_factory=set)
    states: set[str] = field(default_factory=set)
    killed: int = 0


def holds(history: History, seen: Seen) -> None:
    """The property; AssertionError with the rows that differ."""
    pieces, whole = Teller(), Teller()
    try:
        killed = in_pieces(history, pieces)
        as_a_whole(history, whole)
        found, expected = (teller.tables(history.clocks[-1]) for teller in (pieces, whole))
        kept, told = pieces.merges(history.clocks[-1])
        found, expected = found | {MERGES: kept}, expected | {MERGES: told}
        seen.killed += killed
        seen.tables |= {name for name, rows in expected.items() if rows}
        for table in ("core.identifiers", "core.carts"):
            seen.states |= {row["state"] for row in whole.warehouse.read(f"select distinct state from {table}")}
    finally:
        pieces.close()
        whole.close()
    differences = [
        f"{name} {side}: {row}"
        for name in expected
        for side, rows in (
            ("only in pieces", found[name] - expected[name]),
            ("only as a whole", expected[name] - found[name]),
        )
        for row in rows.elements()
    ]
    assert not differences, "\n".join(differences)


def on_examples(drawn: st.SearchStrategy[History], title: str, towns: float, **options: Any) -> Seen:
    """Try the property on so many towns; a long run says every so often how far it is (pytest -s shows it)."""
    began = said = time.monotonic()
    seen, done = Seen(), 0

    @settings(max_examples=max(1, round(towns / TOWNS)), **options)
    @given(drawn)
    def run(history: History) -> None:
        nonlocal done, said
        holds(history, seen)
        done += history.towns
        now = time.monotonic()
        if now > said + 30:
            said = now
            left = max(towns - done, 0) * (now - began) / done
            print(f"{title}: {done} of {towns:.0f} towns, {left:.0f} s left", flush=True)

    run()
    print(f"{title}: {done} towns in {time.monotonic() - began:.0f} s", flush=True)
    return seen


def test_the_cut_into_loads_changes_nothing() -> None:
    seen = on_examples(histories(), "loads", EXAMPLES * 0.4)
    if EXAMPLES < 100:
        return
    assert {*kept_tables()} | {f"segments.{segment}" for segment in SEGMENTS} <= seen.tables
    assert {"joined", "shared", "alone", "quarantined"} | {"open", "ordered", "emptied", "expired"} <= seen.states


def test_a_clock_that_moves_on_between_loads_changes_nothing() -> None:
    on_examples(histories(is_moving=True), "clock", EXAMPLES * 0.2)


def test_a_killed_build_changes_nothing() -> None:
    seen = on_examples(histories(is_moving=True, is_killed=True), "kills", EXAMPLES * 0.2)
    assert seen.killed


def test_loads_that_overtake_each_other_change_nothing() -> None:
    on_examples(histories(is_moving=True, is_overtaken=True), "overtaken", EXAMPLES * 0.2)


@pytest.mark.parametrize(
    ("model", "right", "wrong"),
    [
        ("staging/mended_events", "    ) = 1", "    ) >= 1"),
        ("staging/contacts", "updated_at desc nulls last,", ""),
    ],
)
def test_a_broken_model_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, right: str, wrong: str
) -> None:
    """Whether these examples could fail at all: copies that stay, and the last load taken for the newest version."""
    shutil.copytree(ROOT / "sql", tmp_path / "sql")
    path = tmp_path / "sql" / f"{model}.sql"
    sql = path.read_text(encoding="utf-8")
    assert right in sql
    path.write_text(sql.replace(right, wrong), encoding="utf-8")
    monkeypatch.setenv("REKINDLE_SQL_DIR", str(tmp_path / "sql"))
    get_settings.cache_clear()
    with pytest.raises(AssertionError, match=r"only (in pieces|as a whole)"):
        on_examples(histories(), model, 100, phases=[Phase.generate], database=None, derandomize=True)
