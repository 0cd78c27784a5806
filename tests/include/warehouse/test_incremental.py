"""What an incremental build takes in, when a build is full instead, and the trail of profiles that went into others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy

from include.settings import get_settings
from include.warehouse.build import build_model, build_tables, run_model, setting_params
from include.warehouse.builds import LONGEST_LOAD
from include.warehouse.engine import Warehouse
from include.warehouse.incremental import Update
from include.warehouse.models import load_models
from include.warehouse.tables import metadata

AS_OF = datetime(2026, 3, 10, 12)
FIRST = datetime(2026, 3, 10, 11)


def event(key: str, visitor: str, *, hours_ago: float = 2, loaded: int = 0, **more: Any) -> Mapping[str, Any]:
    return {
        "source": "web",
        "event_key": key,
        "event_name": "page_view",
        "visitor_id": visitor,
        "session_id": "s",
        "occurred_at": AS_OF - timedelta(hours=hours_ago),
        "loaded_at": FIRST + timedelta(minutes=loaded),
        **more,
    }


def was_full(warehouse: Warehouse) -> bool:
    rows = warehouse.read("select is_full from sync.builds where status = 'finished' order by recorded_at desc limit 1")
    return bool(rows[0]["is_full"])


def profile_of(warehouse: Warehouse, node: str) -> str:
    return str(warehouse.scalar("select profile_id from core.identifiers where node = :node", node=node))


def two_browsers(warehouse: Warehouse) -> None:
    warehouse.insert("raw.events", [event("a1", "a"), event("b1", "b")])
    build_tables(warehouse, AS_OF)


@pytest.fixture
def built(new_warehouse: Callable[..., Warehouse]) -> Warehouse:
    """Two browsers, built once."""
    warehouse = new_warehouse(two_browsers)
    if not warehouse.deletes_rows:
        pytest.skip("every build is full there")
    return warehouse


def test_the_first_build_is_full_and_the_next_takes_in_what_is_new(built: Warehouse) -> None:
    assert was_full(built)
    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1)])
    rows = build_tables(built, AS_OF)
    assert not was_full(built)
    assert (built.scalar("select count(*) from staging.events"), rows["core.visits"]) == (3, 2)
    assert built.read("select visitor_id from core.touched_visitors") == [{"visitor_id": "a"}]
    # What this build worked on is about the touched browser alone.
    assert built.read("select distinct node_a from core.identifier_links") == [{"node_a": "5:a"}]


def test_without_new_loads_nothing_is_touched(built: Warehouse) -> None:
    build_tables(built, AS_OF)
    touched = [name for name in metadata.tables if name.startswith("core.touched_")]
    assert {name: built.scalar(f"select count(*) from {name}") for name in touched} == dict.fromkeys(touched, 0)


def test_without_new_loads_nothing_is_read_again(built: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def unasked(*_: Any, **__: Any) -> str:
        raise AssertionError("a table was worked out though nothing is new")

    for name in ("fresh", "rebuild_records", "take_in", "touch_records", "follow"):
        monkeypatch.setattr(Update, name, unasked)
    build_tables(built, AS_OF)
    assert not was_full(built)


def test_the_columns_of_all_tables_are_asked_for_once_a_build(built: Warehouse) -> None:
    asked = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        asked.extend(["information_schema.columns"] * ("information_schema.columns" in statement))

    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1, user_id="ana")])
    sqlalchemy.event.listen(built._engine, "before_cursor_execute", note)
    build_tables(built, AS_OF)
    sqlalchemy.event.remove(built._engine, "before_cursor_execute", note)
    # Whether all tables are there, what the models find, and for which views there are tables.
    assert len(asked) <= 3


@contextmanager
def statements_of(warehouse: Warehouse) -> Iterator[list[str]]:
    """What is run inside; `COMMIT` for the end of a transaction."""
    said: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        said.append(statement)

    def note_commit(_: Any) -> None:
        said.append("COMMIT")

    sqlalchemy.event.listen(warehouse._engine, "before_cursor_execute", note)
    sqlalchemy.event.listen(warehouse._engine, "commit", note_commit)
    yield said
    sqlalchemy.event.remove(warehouse._engine, "before_cursor_execute", note)
    sqlalchemy.event.remove(warehouse._engine, "commit", note_commit)


def test_a_build_on_duckdb_is_one_transaction(built: Warehouse) -> None:
    if built.dialect != "duckdb":
        pytest.skip("a table that is replaced would keep readers waiting until the last one is")
    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1)])
    seen = []

    def told(name: str, rows: int, seconds: float) -> None:
        with built._engine.connect() as reader:
            seen.append(reader.exec_driver_sql("select count(*) from staging.events").scalar())

    with statements_of(built) as said:
        build_tables(built, AS_OF, told=told)
    assert said.count("COMMIT") == 2  # whether all tables are there, and the build
    assert set(seen) == {2}
    assert built.scalar("select count(*) from staging.events") == 3


def test_rows_that_were_just_worked_out_are_not_looked_for(built: Warehouse) -> None:
    if built.dialect != "duckdb":
        pytest.skip("what is set aside is gone with the transaction")
    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1)])
    with statements_of(built) as said:
        build_tables(built, AS_OF)
    for table in ("core.sessions", "core.profiles", "core.engagement"):
        read = [text for text in said if f"FROM {table} " in text and not text.startswith("DELETE")]
        assert read == [], table
    for table in ("staging.orders", "staging.contacts", "staging.consents"):
        asked = [text for text in said if f"FROM {table} WHERE" in text and "core.touched_nodes" in text]
        assert len(asked) == 1, table


@pytest.mark.parametrize("table", ["event_identities", "actions", "visits", "visit_products"])
def test_events_are_read_only_where_their_loads_lie(built: Warehouse, table: str) -> None:
    """Rows lie in the order of loading, so an engine skips the rest."""
    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1)])
    with statements_of(built) as said:
        build_tables(built, AS_OF)
    read = next(text for text in said if f"temp table {table}__new " in text)
    since = f"loaded_at BETWEEN CAST('{FIRST}' AS TIMESTAMP) AND" if "visit" in table else "loaded_at BETWEEN"
    for name in ("staging.events", "staging.event_items"):
        for after in read.split(f"FROM {name} ")[1:]:
            assert since in after[:200], name


def test_lines_of_events_are_read_only_where_their_loads_lie(built: Warehouse) -> None:
    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1)])
    with statements_of(built) as said:
        build_tables(built, AS_OF)
    assert "loaded_at BETWEEN" in next(text for text in said if "temp table event_items__old " in text)


def test_a_copy_that_says_nothing_new_touches_nobody(built: Warehouse) -> None:
    built.insert("raw.events", [event("a1", "a", loaded=1, source_file="again")])
    build_tables(built, AS_OF)
    assert built.scalar("select count(*) from staging.events") == 2
    assert built.scalar("select count(*) from core.touched_visitors") == 0


def test_nothing_shows_before_a_build_has_taken_it_in(built: Warehouse) -> None:
    """Else the copies of an event would stand side by side until the next build."""
    built.insert("raw.events", [event("a1", "a", loaded=1, page_title="again"), event("a2", "a", loaded=1)])
    titles = "select event_key, page_title from staging.events where visitor_id = 'a' order by event_key"
    assert built.read(titles) == [{"event_key": "a1", "page_title": None}]
    build_tables(built, AS_OF)
    assert built.read(titles) == [{"event_key": "a1", "page_title": "again"}, {"event_key": "a2", "page_title": None}]


def test_a_late_login_moves_the_whole_past_and_leaves_a_trail(built: Warehouse) -> None:
    anonymous = profile_of(built, "5:a")
    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1, user_id="ana", event_name="login")])
    build_tables(built, AS_OF)
    known = profile_of(built, "2:ana")
    assert profile_of(built, "5:a") == known != anonymous
    assert built.read("select profile_id, into_profile_id, merged_at from core.profile_merges") == [
        {"profile_id": anonymous, "into_profile_id": known, "merged_at": AS_OF}
    ]
    assert built.read("select profile_id, page_views from core.sessions where visitor_id = 'a'") == [
        {"profile_id": known, "page_views": 1}
    ]


def test_a_refresh_leaves_the_trail_too(built: Warehouse) -> None:
    anonymous = profile_of(built, "5:a")
    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1, user_id="ana")])
    build_tables(built, AS_OF, full_refresh=True)
    assert was_full(built)
    assert built.read("select profile_id from core.profile_merges") == [{"profile_id": anonymous}]


def merges(warehouse: Warehouse) -> dict[str, str]:
    """Which name went where; the same, whether it was kept up by builds or read from all there ever was."""
    rows = warehouse.read("select * from core.profile_merges order by profile_id, node")
    with warehouse.session() as session:
        run_model(warehouse, session, load_models()["core.profile_merges"], {**setting_params(), "as_of": AS_OF})
    assert warehouse.read("select * from core.profile_merges order by profile_id, node") == rows
    found = {str(row["profile_id"]): str(row["into_profile_id"]) for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_profile_that_comes_back_leaves_no_trail(built: Warehouse, full_refresh: bool) -> None:
    """A contact was given somebody else's address for a while; her earlier names come back with her."""

    def contact(number: str, email: str, loaded: int) -> None:
        at = FIRST + timedelta(minutes=loaded)
        row = {"source": "crm", "contact_id": number, "email": email, "updated_at": at, "loaded_at": at}
        built.insert("raw.contacts", [{**row, "created_at": datetime(2025, 1, int(number))}])

    def build() -> None:
        build_tables(built, AS_OF, full_refresh=full_refresh)

    browser = profile_of(built, "5:b")
    contact("1", "ana@x.example", 1)
    contact("2", "ben@x.example", 1)
    built.insert("raw.events", [event("b2", "b", hours_ago=1, loaded=1, email="ben@x.example")])
    build()
    ana, ben = profile_of(built, "1:crm:1"), profile_of(built, "1:crm:2")
    assert merges(built) == {browser: ben}
    contact("2", "ana@x.example", 2)
    build()
    assert profile_of(built, "1:crm:2") == ana
    assert merges(built)[ben] == ana
    contact("2", "ben@x.example", 3)
    build()
    assert profile_of(built, "1:crm:2") == ben != ana
    assert merges(built)[browser] == ben
    assert ben not in merges(built)


@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_browser_that_turns_out_to_be_shared_leaves_no_trail(built: Warehouse, full_refresh: bool) -> None:
    own = profile_of(built, "5:a")
    for number, login in enumerate(("ana", "bob"), 2):
        built.insert("raw.events", [event(f"a{number}", "a", hours_ago=1, loaded=number, user_id=login)])
        build_tables(built, AS_OF, full_refresh=full_refresh)
        assert merges(built) == ({own: profile_of(built, "2:ana")} if login == "ana" else {})
    assert profile_of(built, "5:a") == own


@pytest.mark.parametrize("full_refresh", [False, True])
def test_names_that_go_from_one_to_the_next_end_at_the_living(built: Warehouse, full_refresh: bool) -> None:
    """Contacts 1 and 2 become one by turns of 1, 2 and 3: no circle, and nobody on the way."""

    def merged(number: str, others: tuple[str, ...], loaded: int, email: str) -> None:
        at = FIRST + timedelta(minutes=loaded)
        row = {"source": "crm", "contact_id": number, "loaded_at": at}
        built.insert(
            "raw.contacts", [{**row, "email": email, "created_at": datetime(2025, 1, int(number)), "updated_at": at}]
        )
        built.insert(
            "raw.contact_identifiers", [{**row, "kind": "merged_contact_id", "value": other} for other in others]
        )

    for number in "321":
        merged(number, (), 1, f"c{number}@x.example")
    build_tables(built, AS_OF, full_refresh=full_refresh)
    names = {number: profile_of(built, f"1:crm:{number}") for number in "123"}
    assert len(set(names.values())) == 3
    merged("2", ("3",), 2, "c2@x.example")
    build_tables(built, AS_OF, full_refresh=full_refresh)
    assert merges(built) == {names["3"]: names["2"]}
    merged("1", ("2",), 3, "c1@x.example")
    build_tables(built, AS_OF, full_refresh=full_refresh)
    assert merges(built) == {names["3"]: names["1"], names["2"]: names["1"]}


def test_an_address_that_fewer_hold_joins_again(built: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKINDLE_QUARANTINE_ABOVE", "2")
    get_settings.cache_clear()

    def told(loaded: int, **emails: str) -> list[tuple[str | None, str]]:
        """Profile and state of the shared address after contacts said theirs; how many profiles show it."""
        at = FIRST + timedelta(minutes=loaded)
        contacts = [
            {"source": "crm", "contact_id": number, "email": f"{email}@x.example", "updated_at": at, "loaded_at": at}
            for number, email in emails.items()
        ]
        built.insert("raw.contacts", contacts)
        build_tables(built, AS_OF)
        rows = built.read("select profile_id, state from core.identifiers where node = '3:sales@x.example'")
        return [(row["profile_id"], row["state"]) for row in rows]

    shows_it = "select profile_id from core.profiles where email = 'sales@x.example'"
    assert told(1, c1="sales", c2="sales", c3="sales") == [(None, "quarantined")]
    assert was_full(built)  # other settings
    assert built.read(shows_it) == []
    answer = told(2, c3="cyd")
    assert not was_full(built)
    one = profile_of(built, "1:crm:c1")
    assert answer == [(one, "joined")]
    assert profile_of(built, "1:crm:c2") == one != profile_of(built, "1:crm:c3")
    assert built.read(shows_it) == [{"profile_id": one}]
    assert told(3, c3="sales") == [(None, "quarantined")]
    assert not was_full(built)
    assert built.read(shows_it) == []
    assert len({profile_of(built, f"1:crm:c{number}") for number in (1, 2, 3)}) == 3


def test_a_load_that_was_overtaken_by_another_source_is_not_forgotten(built: Warehouse) -> None:
    slow = {**event("c1", "c"), "source": "app", "loaded_at": FIRST - timedelta(minutes=30)}
    built.insert("raw.events", [slow])
    build_tables(built, AS_OF)
    assert built.scalar("select count(*) from staging.events") == 3
    assert not was_full(built)


@pytest.mark.parametrize(("took", "events"), [(LONGEST_LOAD - timedelta(minutes=1), 3), (LONGEST_LOAD, 2)])
def test_a_load_of_two_days_waits_for_a_full_build(built: Warehouse, took: timedelta, events: int) -> None:
    built.insert("raw.events", [{**event("c1", "c"), "source": "app", "loaded_at": FIRST - took}])
    build_tables(built, AS_OF)
    assert not was_full(built)
    assert built.scalar("select count(*) from staging.events") == events
    build_tables(built, AS_OF, full_refresh=True)
    assert built.scalar("select count(*) from staging.events") == 3


def test_events_that_came_with_their_lines_are_not_looked_for_again(built: Warehouse) -> None:
    line = {"source": "web", "event_key": "a2", "item_index": 0, "sku": "mug", "quantity": 1, "price": 9.0}
    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1, event_name="add_to_cart")])
    line |= {"loaded_at": FIRST + timedelta(minutes=1)}
    built.insert("raw.event_items", [line])
    with statements_of(built) as said:
        build_tables(built, AS_OF)
    assert not any("temp table events__unseen" in text for text in said)
    built.insert("raw.event_items", [{**line, "source": "late", "item_index": 1}])  # of the same load, seen afterwards
    with statements_of(built) as said:
        build_tables(built, AS_OF)
    assert any("temp table events__unseen" in text for text in said)


def test_only_tables_of_which_something_new_tells_are_read(built: Warehouse) -> None:
    order = {"source": "shop", "order_id": "1", "email": "ana@x.example", "ordered_at": AS_OF - timedelta(hours=1)}
    built.insert("raw.orders", [{**order, "loaded_at": FIRST + timedelta(minutes=1)}])
    with statements_of(built) as said:
        build_tables(built, AS_OF)
    assert not was_full(built)
    kept = {text.split("temp table ")[1].split()[0] for text in said if "temp table " in text}
    assert "orders__keys" in kept
    assert not {f"{name}__keys" for name in ("contacts", "carts", "subscriptions", "engagement", "consents")} & kept


def test_what_was_dated_ahead_comes_to_be(built: Warehouse) -> None:
    built.insert("raw.events", [event("a2", "a", hours_ago=-1, loaded=1)])
    build_tables(built, AS_OF)
    assert built.scalar("select sum(page_views) from core.sessions where visitor_id = 'a'") == 1
    build_tables(built, AS_OF + timedelta(hours=2))
    assert not was_full(built)
    assert built.scalar("select sum(page_views) from core.sessions where visitor_id = 'a'") == 2


def test_an_earlier_moment_is_built_in_full(built: Warehouse) -> None:
    build_tables(built, AS_OF - timedelta(days=1))
    assert was_full(built)
    assert built.scalar("select count(*) from core.sessions") == 0


def test_other_settings_are_built_in_full(built: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKINDLE_SESSION_GAP", "PT1H")
    get_settings.cache_clear()
    build_tables(built, AS_OF)
    assert was_full(built)


# Rounds of what a browser without session ids did around midnights: what comes later joins visits, and none of them may
# be cut at the end of a day that something new touched.
WALKS = (
    ("5 23:50", "6 00:10", "6 23:55", "7 00:05", "7 12:00", "8 23:40", "9 00:30"),
    ("7 00:20",),
    ("9 00:05",),
    ("5 23:30", "7 12:20"),
)


@pytest.mark.parametrize("is_erased", [False, True])
def test_visits_without_session_ids_are_cut_as_by_a_full_build(built: Warehouse, is_erased: bool) -> None:
    if is_erased:  # what a shared browser did before is in no visit, and yet goes on in the next one
        for who in ("ana", "ben"):
            person = {"source": "crm", "contact_id": who, "updated_at": FIRST - timedelta(days=9), "loaded_at": FIRST}
            built.insert("raw.contacts", [{**person, "email": f"{who}@x.example"}])
            built.insert("raw.contact_identifiers", [{**person, "kind": "visitor_id", "value": "w"}])
        erased = {"source": "crm", "kind": "contact_id", "value": "ana", "reason": "erased", "loaded_at": FIRST}
        built.insert("raw.suppressions", [{**erased, "changed_at": datetime(2026, 3, 7, 0, 1)}])
    for number, times in enumerate(WALKS, 1):
        steps = [datetime.strptime(f"2026-03-{moment}", "%Y-%m-%d %H:%M") for moment in times]
        walk = [{**event(f"w{step}", "w", loaded=number), "session_id": None, "occurred_at": step} for step in steps]
        built.insert("raw.events", walk)
        build_tables(built, AS_OF)
        assert not was_full(built)
    visits = "select session_key, page_views, started_at, ended_at from core.visits order by session_key, started_at"
    found = built.read(visits)
    build_tables(built, AS_OF, full_refresh=True)
    assert found == built.read(visits)
    starts = {row["session_key"]: row["started_at"].minute for row in found}
    assert starts["w.2026-03-06 23:55:00"] == (5 if is_erased else 55)


def test_an_old_visit_of_a_browser_without_session_ids_is_not_read_again(built: Warehouse) -> None:
    steps = [AS_OF - timedelta(days=days) for days in (90, 30, 1)]
    for number, step in enumerate(steps, 1):
        news = {**event(f"w{number}", "w", loaded=number), "session_id": None, "occurred_at": step}
        built.insert("raw.events", [news])
        build_tables(built, AS_OF)
    assert built.read("select distinct day from core.touched_days") == [{"day": steps[-1].date()}]
    assert built.scalar("select count(*) from core.visits where visitor_id = 'w'") == 3


class Died(Exception):
    """Stands for a process that was killed."""


def test_after_a_full_build_that_died_the_next_is_full(built: Warehouse) -> None:
    def die(name: str, rows: int, seconds: float) -> None:
        if name == "core.identifiers":
            raise Died

    with pytest.raises(Died):
        build_tables(built, AS_OF, full_refresh=True, told=die)
    build_tables(built, AS_OF)
    assert was_full(built)


def test_what_a_dead_build_touched_stays_touched(built: Warehouse) -> None:
    def die(name: str, rows: int, seconds: float) -> None:
        if name == "core.identifiers":
            raise Died

    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1, user_id="ana")])
    with pytest.raises(Died):
        build_tables(built, AS_OF, told=die)
    build_tables(built, AS_OF)
    assert not was_full(built)
    assert built.read("select distinct profile_id from core.sessions where visitor_id = 'a'") == [
        {"profile_id": profile_of(built, "2:ana")}
    ]


def test_one_model_may_be_built_again_after_a_build(built: Warehouse) -> None:
    built.insert("raw.events", [event("a2", "a", hours_ago=1, loaded=1)])
    build_tables(built, AS_OF)
    for name, model in load_models().items():
        if model.schema == "core" and model.materialized != "view":
            before = built.scalar(f"select count(*) from {name}")
            assert (name, build_model(built, name, AS_OF)) == (name, before)
