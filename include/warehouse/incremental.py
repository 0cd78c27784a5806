"""How a table keeps up in an incremental build: from new rows to touched keys, and from those to new rows.

Every staging table says what changed in it; `core.islands` follows that to all identifiers that could be judged
otherwise, `core.identifiers` to the profiles they belonged to and belong to now. What those keys are is kept in
`core.touched_*` (tables.py); models ask for them with `touched_profile(x)` and its kind (touched.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from include.errors import ConfigurationError
from include.warehouse.builds import Build, new_rows, window
from include.warehouse.models import Model
from include.warehouse.records import RECORDS
from include.warehouse.render import parse_statement, render, render_in_slices, render_statement
from include.warehouse.slices import LASTING, slice_name
from include.warehouse.tables import metadata
from include.warehouse.touched import SINCE, UNITS

if TYPE_CHECKING:
    import sqlalchemy

    from include.warehouse.engine import Warehouse

# A copy of an event that differs in nothing else says nothing new.
_SAYS_NOTHING = {"loaded_at", "source_file"}
# What is followed of a changed event.
_FOLLOWED = (
    "event_key, source, event_name, visitor_id, user_id, email, session_id, transaction_id, engagement_ms, occurred_at"
)
_KEY_FUNCTIONS = {column: name for name, (_, column, _) in UNITS.items()}


# Tests by table for when rows were loaded, and their params.
Loaded = tuple[dict[str, str], dict[str, Any]]


class Update:
    """One model of an incremental build, inside its transaction."""

    def __init__(
        self,
        warehouse: Warehouse,
        session: sqlalchemy.Connection,
        model: Model,
        params: Mapping[str, Any],
        build: Build,
        rebuild: Callable[[], int],
    ) -> None:
        self.warehouse, self.session, self.model, self.build = warehouse, session, model, build
        self.params, self.rebuild = params, rebuild
        self.name = model.name

    def run(self) -> None:
        """Bring the table up to date; what does not depend on anything new is left as it is."""
        model = self.model
        special = {
            "staging.event_loads": self.leave,
            "staging.mended_keys": self.leave,
            "staging.mended_events": self.events,
            "staging.event_items": self.event_items,
            "core.event_identities": self.fold,
            "core.islands": self.islands,
            "core.erased_identifiers": self.erased,
            "core.identifiers": self.identifiers,
        }
        if self.name in special:
            special[self.name]()
        elif model.key == "load":
            self.by_load()
        elif model.schema == "staging":
            self.records()
        elif model.materialized == "incremental":
            self.replace_touched()
        else:
            self.rebuild()

    # pieces

    def execute(self, sql: str, **params: Any) -> sqlalchemy.CursorResult[Any]:
        """A statement in DuckDB's dialect, house functions and settings filled in."""
        return self.run_text(render_statement(sql, self.warehouse.dialect, {**self.params, **params}))

    def run_text(self, text: str) -> sqlalchemy.CursorResult[Any]:
        """A finished statement."""
        return self.session.exec_driver_sql(
            text.replace("%", "%%") if self.session.dialect.paramstyle == "pyformat" else text
        )

    def some(self, sql: str, **params: Any) -> bool:
        """Whether a query has a row."""
        return bool(self.execute(f"select 1 as one from ({sql}) as found limit 1", **params).fetchall())

    def make(self, table: str, query: str, **params: Any) -> None:
        """A table for the rest of this transaction, seen by nobody else and gone afterwards."""
        self.keep(table, render_statement(query, self.warehouse.dialect, {**self.params, **params}))

    def keep(self, table: str, text: str) -> None:
        """The rows of a finished query, as a table for the rest of this transaction."""
        if self.warehouse.dialect == "duckdb":
            self.run_text(f"create or replace temp table {table} as {text}")
        else:
            self.run_text(f"drop table if exists pg_temp.{table}")
            self.run_text(f"create temp table {table} on commit drop as {text}")

    def columns(self, table: str | None = None) -> Mapping[str, str]:
        """The columns of a table and their types."""
        return self.build.columns_of(table or self.name, self.warehouse, self.session)

    def beside(self, what: str) -> str:
        """The name of a table that stands beside this model's for a while."""
        return f"{self.name.split('.')[1]}__{what}"

    def fresh(self, instead: Mapping[str, str] | None = None, table: str | None = None, **params: Any) -> str:
        """The touched rows as they are now, in a table beside the real one."""
        table = table or self.beside("new")
        if instead is None and (loaded := self.loaded()):
            tests, moments = loaded
            instead = {
                name: f"select * from {name} where {test}"
                for name, test in tests.items()
                if name in self.model.depends_on
            }
            params |= moments
        self.warehouse.expect_whole_tables(self.session)
        self.keep(
            table,
            touched_part(
                self.warehouse,
                self.session,
                self.model,
                {**self.params, **params, **self.first_day()},
                self.build,
                instead,
            ),
        )
        return table

    def first_day(self) -> dict[str, datetime]:
        """What a model that asks for touched days needs to know: when the first of them begins."""
        if not any(f"{name}(" in self.model.sql for name in SINCE):
            return {}
        first = self.execute("select min(day) from core.touched_days").scalar()
        return {"touched_since": datetime.combine(first or date.max, time.min)}

    def take_in(self, fresh: str) -> None:
        names = ", ".join(f'"{name}"' for name in self.columns())
        self.execute(f"insert into {self.name} ({names}) select {names} from {fresh}")

    def touch(self, table: str, query: str, **params: Any) -> None:
        """Add keys to those this build works out anew."""
        column = ", ".join(column.name for column in metadata.tables[f"core.{table}"].columns)
        self.execute(f"insert into core.{table} ({column}) select distinct * from ({query}) as keys", **params)

    # kinds of tables

    def replace_touched(self, instead: Mapping[str, str] | None = None) -> str | None:
        """Delete the touched rows and put in what they are now; a table of these, None where no key is touched."""
        function = _KEY_FUNCTIONS.get(self.model.key or "")
        if function is None:
            raise ConfigurationError(
                f"{self.model.where}: incremental by {', '.join(sorted(_KEY_FUNCTIONS))}; not by {self.model.key}"
            )
        # A browser without session ids may have had no visit yet; a touched day is there in any case.
        table = "core.touched_days" if function == "touched_visit" else UNITS[function][0]
        if not self.some(f"select 1 from {table}"):
            return None
        part = None
        if self.build.slices is not None and function in LASTING:
            part = slice_name(self.name, function, str(self.model.key))
            self.build.slices.add(part)
        fresh = self.fresh(instead, part)
        self.execute(f"delete from {self.name} where {function}({self.model.key})")
        self.take_in(fresh)
        return fresh

    def fold(self) -> None:
        """Take new rows into smallest and largest values by group; a row taken in twice changes nothing."""
        if not self.some("select 1 from core.touched_events"):
            return
        select = parse_statement(self.model.sql)
        names = [item.alias_or_name for item in select.expressions]
        smallest = [item.alias_or_name for item in select.expressions if isinstance(item.unalias(), exp.Min)]
        largest = [item.alias_or_name for item in select.expressions if isinstance(item.unalias(), exp.Max)]
        groups = [name for name in names if name not in smallest and name not in largest]
        fresh = self.fresh()
        key = self.model.key
        self.execute(
            f"insert into {fresh} ({', '.join(names)}) select {', '.join(names)} from {self.name} "
            f"where {key} in (select {key} from {fresh})"
        )
        self.execute(f"delete from {self.name} where {key} in (select {key} from {fresh})")
        folded = [f"min({name}) as {name}" for name in smallest] + [f"max({name}) as {name}" for name in largest]
        self.execute(
            f"insert into {self.name} ({', '.join(groups + smallest + largest)}) "
            f"select {', '.join(groups + folded)} from {fresh} group by {', '.join(groups)}"
        )

    def by_load(self) -> None:
        """Rows that are judged alone: those of the new loads of any table, whole."""
        windows: dict[str | None, tuple[datetime | None, datetime]] = {}
        for table in sorted(self.model.depends_on):
            for source, (after, until) in self.build.loads.get(table, {}).items():
                if source in windows:
                    was, end = windows[source]
                    after = None if was is None or after is None else min(was, after)
                    until = max(end, until)
                windows[source] = (after, until)
        if not windows:
            return
        taken, moments = window("loaded_at", "source", windows)
        fresh = self.fresh(
            {table: f"select * from {table} where {taken}" for table in sorted(self.model.depends_on)}, **moments
        )
        self.execute(f"delete from {self.name} where {taken}", **moments)
        self.take_in(fresh)

    # staging

    def has_news(self, name: str | None = None) -> bool:
        """Whether a staging model, or one it reads, reads a table with new rows."""
        models = self.build.models
        reads = models[name or self.name].depends_on
        return any(table in self.build.loads for table in reads) or any(
            self.has_news(table) for table in reads if table in models
        )

    def records(self) -> None:
        """A table of records: those of which a new row tells are read anew; whose records changed is touched."""
        listed = ", ".join(name for name in self.columns() if name != "loaded_at")
        told = []
        if self.has_news():
            old, fresh = self.replace_records() if self.name in RECORDS else self.rebuild_records()
            told = [
                f"(select {listed} from {fresh} except select {listed} from {old})",
                f"(select {listed} from {old} except select {listed} from {fresh})",
            ]
        # What was dated ahead of the last build and is not any more.
        moments = [name for name, kind in self.columns().items() if kind == "timestamp" and name != "loaded_at"]
        if moments and self.build.since and self.build.since < self.build.as_of:
            crossed = " or ".join(f"({name} >= :since and {name} < :as_of)" for name in moments)
            told.append(f"(select {listed} from {self.name} where {crossed})")
        if not told:
            return
        changed = self.beside("changed")
        self.make(changed, " union all ".join(told), since=self.build.since)
        if self.some(f"select 1 from {changed}"):
            self.touch_records(changed)

    def replace_records(self) -> tuple[str, str]:
        """Put the records of new rows in their place; tables of the old and the new."""
        records, keys, old = RECORDS[self.name], self.beside("keys"), self.beside("old")
        arrived: list[str] = []
        moments: dict[str, Any] = {}
        for table, key in records.of.items():
            if table in self.build.loads:
                query, its = new_rows(self.build, table)
                arrived.append(f"select {key} as record_key from ({query}) as arrived")
                moments |= its
        self.make(keys, " union ".join(arrived), **moments)
        ours = f"{records.key} in (select record_key from {keys})"
        self.make(old, f"select * from {self.name} where {ours}")
        fresh = self.fresh(
            {
                table: f"select * from {table} where {key} in (select record_key from {keys})"
                for table, key in records.of.items()
                if table in self.model.depends_on
            }
        )
        self.execute(f"delete from {self.name} where {ours}")
        self.take_in(fresh)
        return old, fresh

    def rebuild_records(self) -> tuple[str, str]:
        """Read a table of somebody else's whole; tables of the old and the new."""
        old = self.beside("old")
        self.make(old, f"select * from {self.name}")
        self.rebuild()
        return old, self.name

    def touch_records(self, changed: str) -> None:
        """Touch the identifiers of changed records, tied by record."""
        nodes = self.build.models["core.record_nodes"]
        lines = {
            "staging.order_items": ("staging.orders", "order_id"),
            "staging.cart_items": ("staging.carts", "cart_id"),
        }
        table, query = self.name, f"select * from {changed}"
        if self.name in lines:
            table, key = lines[self.name]
            query = (
                f"select records.* from {table} as records inner join (select distinct source, {key} from {changed}) "
                f"as lines on records.source = lines.source and records.{key} = lines.{key}"
            )
        if table not in nodes.depends_on:
            return
        others = {name: f"select * from {name} where false" for name in nodes.depends_on if name != table}
        text = render(
            nodes.sql, self.warehouse.dialect, self.params, where=nodes.where, instead={table: query, **others}
        )
        self.run_text(
            f"insert into core.touched_records (record, node) select distinct record, node from ({text}) as found"
        )
        if self.name == "staging.suppressions":
            self.touch_domains(changed)

    def touch_domains(self, changed: str) -> None:
        """A domain stands for every address at it or at a sub-domain, also those a contact held before."""
        at = (
            "(domains.value = split_part({0}, '@', 2) "
            "or '.' || domains.value = right(split_part({0}, '@', 2), length(domains.value) + 1))"
        )
        domains = f"(select distinct value from {changed} where kind = 'domain') as domains"
        if not self.some(f"select 1 from {changed} where kind = 'domain'"):
            return
        self.touch(
            "touched_records",
            "select node as record, node from core.identifiers as identifiers "
            f"inner join {domains} on {at.format('identifiers.identifier_value')} "
            "where identifiers.identifier_kind = 'email'",
        )
        self.touch(
            "touched_records",
            "select '1:' || held.source || ':' || held.contact_id as record, "
            "'1:' || held.source || ':' || held.contact_id as node from staging.contact_identifiers as held "
            f"inner join {domains} on {at.format('held.value')} where held.kind = 'email'",
        )

    # events

    def leave(self) -> None:
        """Nothing: `staging.mended_events` changes this table when its turn comes."""

    def arrived(self, *tables: str) -> bool:
        """The keys of the rows that arrived there, in `events__keys`; False when nothing did."""
        if not self.build.loads.keys() & {*tables}:
            return False
        moments: dict[str, Any] = {}
        keys = []
        for table in tables:
            query, its = new_rows(self.build, table)
            keys.append(f"select tidy(event_key) as event_key from ({query}) as arrived")
            moments |= its
        self.make(
            "events__keys",
            "select event_key, key_hash(event_key) as event_hash "
            f"from ({' union '.join(keys)}) as keys where event_key is not null",
            **moments,
        )
        return True

    def loaded_with(self, rows: str, **params: Any) -> Loaded:
        """When the rows of some events were loaded, as a test for events, one for their lines, and params.

        It spares reading the others, since rows lie in the order of loading. A line holds with a copy of its event that
        has the same load, or where one of the two has none.
        """
        oldest, newest, undated = self.execute(
            f"select min(loaded_at), max(loaded_at), count(*) - count(loaded_at) from ({rows}) as found", **params
        ).one()
        tests = ["loaded_at is null"] if undated else []
        if oldest:
            tests.append("loaded_at between :oldest_load and :newest_load")
        of_events = f"({' or '.join(tests) or 'false'})"
        of_lines = "true" if undated else f"(loaded_at is null or {of_events})"
        moments = {"oldest_load": oldest, "newest_load": newest}
        return {"staging.events": of_events, "staging.event_items": of_lines}, moments

    def loaded(self) -> Loaded | None:
        """When the events that a model of core asks for were loaded; None where it asks for something else."""
        hashes = "select key_hash(event_key) from core.touched_events"
        events_asked_for = {
            "touched_event(": f"select loaded_at from staging.event_keys where event_hash in ({hashes})",
            "touched_day(": "select loaded_at from raw.events where touched_day(occurred_at)",
        }
        for asked, events in events_asked_for.items():
            if asked in self.model.sql:
                if asked not in self.build.loaded:
                    self.build.loaded[asked] = self.loaded_with(events, **self.first_day())
                found: Loaded = self.build.loaded[asked]
                return found
        return None

    def make_of_events(self, table: str, hashes: str, columns: str = "*") -> None:
        """The events whose keys have these hashes, in a table beside."""
        tests, moments = self.loaded_with(f"select loaded_at from staging.event_keys where event_hash in ({hashes})")
        loaded = tests["staging.events"]
        self.make(table, f"select {columns} from staging.events where {loaded} and event_hash in ({hashes})", **moments)

    def events(self) -> None:
        """New events and other versions of known ones; what they touch is followed from here."""
        telling = ", ".join(name for name in self.columns("staging.events") if name not in _SAYS_NOTHING)
        changed = "events__changed"
        told: list[str] = []
        moments: dict[str, Any] = {}
        if self.arrived("raw.events"):
            old, now, unknown, moments = self.take_in_events()
            told = [
                unknown,
                f"select {_FOLLOWED} from {now} where event_key in (select event_key from "
                f"(select {telling} from {now} except select {telling} from {old}) as versions)",
                f"select {_FOLLOWED} from {old} where event_key in (select event_key from "
                f"(select {telling} from {old} except select {telling} from {now}) as versions)",
                *self.rewritten(old, now),
            ]
        if self.build.since and self.build.since < self.build.as_of:
            told.append(f"select {_FOLLOWED} from staging.events where occurred_at >= :since and occurred_at < :as_of")
        if told:
            self.make(changed, " union all ".join(told), **moments, since=self.build.since)
            self.follow(changed)

    def take_in_events(self) -> tuple[str, str, str, dict[str, Any]]:
        """Let the view show the new rows, and of each event the copy that stands.

        Returns tables of the old and the new of what came again or had to be mended, and a query, with its params, for
        what was never seen before.
        """
        old, now, mended, known = "events__old", "events__now", "events__mended", "events__known"
        again = f"select event_hash from {mended}"
        keys = self.build.models["staging.mended_keys"]
        self.make(known, "select * from staging.event_keys where event_hash in (select event_hash from events__keys)")
        instead = {"staging.event_keys": f"select * from {known}"}
        self.keep(mended, render(keys.sql, self.warehouse.dialect, self.params, where=keys.where, instead=instead))
        tests, moments = self.loaded_with(f"select loaded_at from {known}")
        loaded = tests["staging.events"]
        of_again = f"select * from staging.events where {loaded} and event_hash in ({again})"
        self.make(old, of_again, **moments)
        self.note_loads()
        columns = ", ".join(column.name for column in metadata.tables["raw.events"].columns)
        copies = self.fresh(
            {
                "raw.events": f"select {columns} from raw.events where {loaded}",
                keys.name: f"select * from {mended}",
            },
            **moments,
        )
        for table in (keys.name, self.name):
            self.execute(f"delete from {table} where event_hash in ({again})")
        self.execute(f"insert into {keys.name} (event_hash, loaded_hash) select event_hash, loaded_hash from {mended}")
        self.take_in(copies)
        self.make(now, of_again, **moments)
        unknown = (
            f"select {_FOLLOWED} from staging.events where {loaded} "
            f"and event_hash in (select event_hash from events__keys) and event_hash not in ({again})"
        )
        return old, now, unknown, moments

    def note_loads(self) -> None:
        """Up to which load of each source the view shows events from now on."""
        until = dict(self.execute("select source, loaded_until from staging.event_loads").tuples().all())
        for source, (_, newest) in self.build.loads["raw.events"].items():
            name = source or ""
            newest = max(newest, until.get(name, newest))
            self.execute("delete from staging.event_loads where source = :name", name=name)
            self.execute(
                "insert into staging.event_loads (source, loaded_until) values (:name, :newest)",
                name=name,
                newest=newest,
            )

    def rewritten(self, old: str, fresh: str) -> list[str]:
        """Browsers of which an event says something else than before: their links are made anew from all they did."""
        said = (
            "event_key, source, user_id, email, visitor_id, occurred_at, "
            "case when event_name = 'purchase' then transaction_id end as transaction_id"
        )
        visitors = (
            f"select distinct visitor_id from (select {said} from {old} except select {said} from {fresh}) as versions"
        )
        if not self.some(visitors):
            return []
        self.execute(f"delete from core.event_identities where visitor_id in ({visitors})")
        return [f"select {_FOLLOWED} from staging.events where visitor_id in ({visitors})"]

    def follow(self, changed: str) -> None:
        """From changed events to their browsers, visits and days."""
        if not self.some(f"select 1 from {changed}"):
            return
        self.touch("touched_events", f"select event_key from {changed}")
        self.touch("touched_days", f"select cast(occurred_at as date) as day from {changed}")
        self.touch(
            "touched_visits",
            f"select visitor_id || '.' || session_id as session_key from {changed} where session_id is not null",
        )
        self.touch_walks(f"select visitor_id, cast(occurred_at as date) as day from {changed} where session_id is null")
        nodes = {
            "visitor_id": "'5:' || visitor_id",
            "user_id": "'2:' || user_id",
            "email": "'3:' || email",
            "transaction_id": "case when event_name = 'purchase' then '6:' || transaction_id end",
        }
        for node in nodes.values():
            self.touch(
                "touched_records",
                f"select record, node from (select '5:' || visitor_id as record, {node} as node from {changed}) "
                "as rows where node is not null",
            )
        # A source that begins to send engagement time is judged by it from then on, and so are its old visits.
        begins = (
            f"select distinct source from {changed} where engagement_ms is not null "
            "and source not in (select source from core.timed_sources)"
        )
        if self.some(begins):
            self.touch(
                "touched_records",
                "select '5:' || visitor_id as record, '5:' || visitor_id as node from core.visits "
                f"where source in ({begins})",
            )

    def event_items(self) -> None:
        """Lines of new events, and of other versions of known ones."""
        if not self.arrived("raw.events", "raw.event_items"):
            return
        telling = ", ".join(name for name in self.columns() if name not in _SAYS_NOTHING)
        old, fresh = self.replace_lines()
        changed = (
            f"select event_key from (select {telling} from {fresh} except select {telling} from {old}) as one "
            f"union select event_key from (select {telling} from {old} except select {telling} from {fresh}) as other"
        )
        unseen = (
            f"select event_key from ({changed}) as keys "
            "where event_key not in (select event_key from core.touched_events)"
        )
        if self.some(unseen):
            self.make("events__unseen", f"select event_key, key_hash(event_key) as event_hash from ({unseen}) as keys")
            self.make_of_events("events__changed", "select event_hash from events__unseen", _FOLLOWED)
            self.execute("delete from events__changed where event_key not in (select event_key from events__unseen)")
            self.follow("events__changed")

    def replace_lines(self) -> tuple[str, str]:
        """Put the winners among the new lines and those already there in their place; tables of the old and the new."""
        hashes = "select event_hash from events__keys"
        tests, loads = self.loaded_with(f"select loaded_at from staging.event_keys where event_hash in ({hashes})")
        keys = "event_key in (select event_key from events__keys)"
        ours = f"{tests[self.name]} and event_hash in ({hashes})"
        old = self.beside("old")
        # Numbers first: an engine that looks for both at once compares the texts of all lines there are.
        found = f"with found as materialized (select * from {self.name} where {ours}) select * from found where {keys}"
        self.make(old, found, **loads)
        events = f"select event_hash, loaded_at from staging.events where {tests['staging.events']}"
        self.make("events__of_lines", f"{events} and event_hash in ({hashes})", **loads)
        columns = ", ".join(column.name for column in metadata.tables["raw.event_items"].columns)
        arrived, moments = new_rows(self.build, "raw.event_items")
        fresh = self.fresh(
            {
                "raw.event_items": f"select {columns} from ({arrived}) as arrived "
                f"union all select {columns} from {old}",
                "staging.events": "select * from events__of_lines",
            },
            **moments,
        )
        if self.some(f"select 1 from {old}"):
            self.execute(f"delete from {self.name} where {ours} and {keys}", **loads)
        self.take_in(fresh)
        return old, fresh

    # identity

    def islands(self) -> None:
        """From touched identifiers to all of their islands, and to the profiles in them as they were."""
        self.touch_opt_outs()
        self.touch_ageing_carts()
        islands = "select island from core.islands where node in (select node from core.touched_records)"
        self.touch(
            "touched_records",
            f"select 'island:' || island as record, node from core.islands where island in ({islands})",
        )
        self.touch("touched_nodes", "select node from core.touched_records")
        self.touch(
            "touched_visitors", "select substr(node, 3) as visitor_id from core.touched_nodes where node like '5:%'"
        )
        self.replace_touched({"core.record_nodes": "select record, node from core.touched_records"})

    def touch_opt_outs(self) -> None:
        """What a tool told since the last build, or dated ahead of it."""
        told, moments = new_rows(self.build, "sync.opt_outs")
        if self.build.since and self.build.since < self.build.as_of:
            told += " union all select * from sync.opt_outs where occurred_at >= :since and occurred_at < :as_of"
        node = (
            "case kind when 'email' then '3:' || lower(trim(value)) when 'phone' then '4:' || value "
            "when 'contact_id' then '1:' || value end"
        )
        self.touch(
            "touched_records",
            f"select node as record, node from (select {node} as node from ({told}) as told) as nodes "
            "where node is not null",
            **moments,
            since=self.build.since,
        )

    def touch_ageing_carts(self) -> None:
        """Carts that nobody touched long enough since the last build to have expired."""
        if not (self.build.since and self.build.since < self.build.as_of):
            return
        self.execute(
            "insert into core.touched_records (record, node) select distinct identifiers.node, identifiers.node "
            "from core.carts as carts inner join core.identifiers as identifiers "
            "on carts.profile_id = identifiers.profile_id "
            "where carts.last_activity_at >= :since - :cart_lifetime "
            "and carts.last_activity_at < :as_of - :cart_lifetime",
            since=self.build.since,
        )

    def erased(self) -> None:
        """Who is erased, or back; what their islands did is read again."""
        old = self.beside("old")
        self.make(old, "select node, erased_until from core.erased_identifiers where touched_node(node)")
        fresh = self.replace_touched()
        if fresh is None:
            return
        now = f"select node, erased_until from {fresh}"
        changed = (
            f"select node from ({now} except select node, erased_until from {old}) as one "
            f"union select node from (select node, erased_until from {old} except {now}) as other"
        )
        if self.some(changed):
            visitors = (
                "select substr(islands.node, 3) from core.islands as islands where islands.node like '5:%' "
                f"and islands.island in (select island from core.islands where node in ({changed})) "
                f"union select substr(node, 3) from ({changed}) as alone where node like '5:%'"
            )
            rows = f"select visitor_id, session_id, occurred_at from staging.events where visitor_id in ({visitors})"
            self.make("events__changed", rows)
            self.touch("touched_days", "select cast(occurred_at as date) as day from events__changed")
            self.touch(
                "touched_visits",
                "select visitor_id || '.' || session_id as session_key from events__changed "
                "where session_id is not null",
            )
            self.touch_walks(
                "select visitor_id, cast(occurred_at as date) as day from events__changed where session_id is null"
            )
        self.whole_walks()
        self.whole_visits()

    def identifiers(self) -> None:
        """The answer of identity for the touched islands; profiles that went into others leave a trail."""
        old = self.beside("old")
        self.make(old, "select node, profile_id from core.identifiers where touched_node(node)")
        fresh = self.replace_touched()
        if fresh is None:
            return
        self.execute(leave_trail(old, f"select node, profile_id from {fresh}"))
        self.touch(
            "touched_profiles",
            f"select profile_id from {old} where profile_id is not null union "
            f"select profile_id from {fresh} where profile_id is not null",
        )

    def touch_walks(self, query: str, **params: Any) -> None:
        """Browsers and days, on which what came without a session id is cut into visits anew."""
        self.touch(
            "touched_walks",
            f"select visitor_id || '.' || cast(day as varchar) as walk, visitor_id, day from ({query}) as walked",
            **params,
        )

    def whole_walks(self) -> None:
        """Visits without session id that a new event could belong to are read whole, and so are those beside them.

        Afterwards no visit of such a browser reaches over the end of its touched days, nor comes as near to it as the
        silence that ends a visit: what is cut anew there is what a cut through everything gives.
        """
        walkers = "select visitor_id from core.touched_walks"
        if not self.some(walkers):
            return
        # What an erased browser did is in no visit, and yet goes on where the next one begins.
        erased = (
            "select identifier_value from core.erased_identifiers where identifier_kind = 'visitor_id' "
            f"and identifier_value in ({walkers})"
        )
        if self.some(erased):
            self.touch_walks(
                "select visitor_id, cast(occurred_at as date) as day from staging.events "
                f"where session_id is null and visitor_id in ({erased})"
            )
        visits, near = "visits__walked", "visits__near"
        self.make(
            visits,
            "select visitor_id, session_key, min(started_at) as started_at, max(ended_at) as ended_at "
            f"from core.visits where session_id is null and visitor_id in ({walkers}) group by visitor_id, session_key",
        )
        while True:
            self.make(
                near,
                "with recursive days as ("
                "select distinct visits.visitor_id, visits.session_key, cast(visits.started_at as date) as day, "
                f"cast(visits.ended_at as date) as last_day from {visits} as visits "
                "inner join core.touched_walks as walks on visits.visitor_id = walks.visitor_id "
                "and walks.day >= cast(visits.started_at - :session_gap as date) "
                "and walks.day <= cast(visits.ended_at + :session_gap as date) "
                "union all select visitor_id, session_key, day + 1, last_day from days where day < last_day) "
                "select * from days",
            )
            unseen = (
                f"select near.visitor_id, near.day from {near} as near left join core.touched_walks as walks "
                "on near.visitor_id = walks.visitor_id and near.day = walks.day where walks.walk is null"
            )
            if not self.some(unseen):
                break
            self.touch_walks(unseen)
        self.touch("touched_visits", f"select session_key from {near}")
        self.touch("touched_days", "select day from core.touched_walks")

    def whole_visits(self) -> None:
        """Visits with new events are read whole."""
        spans = self.execute(
            "select distinct cast(started_at as date) as first_day, cast(ended_at as date) as last_day "
            "from core.visits where session_key in (select session_key from core.touched_visits)"
        ).fetchall()
        days = {first + timedelta(days=number) for first, last in spans for number in range((last - first).days + 1)}
        if days:
            listed = ", ".join(f"(date '{day.isoformat()}')" for day in sorted(days))
            self.run_text(f"insert into core.touched_days (day) values {listed}")


def touched_part(
    warehouse: Warehouse,
    session: sqlalchemy.Connection,
    model: Model,
    params: Mapping[str, Any],
    build: Build,
    instead: Mapping[str, str] | None = None,
) -> str:
    """The finished query for what a build works out anew of a model; the slices it reads are there."""
    if build.slices is None:
        return render(model.sql, warehouse.dialect, params, where=model.where, incremental=True, instead=instead)
    keys = {name: its.key for name, its in build.models.items() if its.schema in ("staging", "core")}
    text, slices = render_in_slices(model.sql, warehouse.dialect, params, where=model.where, instead=instead, keys=keys)
    for name, query in slices.items():
        if name not in build.slices:
            warehouse.run_text(f"create temp table {name} as {query}", session)
            build.slices.add(name)
    return text


def leave_trail(old: str, now: str) -> str:
    """The statement that notes which names are gone, each with an identifier it had, as of `:as_of`."""
    return (
        "insert into core.former_names (profile_id, node, gone_at) "
        "select was.profile_id, was.node, :as_of as gone_at "
        f"from {old} as was inner join ({now}) as became on was.node = became.node "
        f"left join (select distinct profile_id from ({now}) as names) as living on was.profile_id = living.profile_id "
        "where was.profile_id is not null and became.profile_id is not null and living.profile_id is null "
        "qualify row_number() over (partition by was.profile_id "
        "order by case when was.profile_id = 'p_' || md5(was.node) then 0 else 1 end, was.node) = 1"
    )
