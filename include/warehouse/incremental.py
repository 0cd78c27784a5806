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
from include.warehouse.models import Model, load_models
from include.warehouse.records import RECORDS
from include.warehouse.render import parse_statement, render, render_statement
from include.warehouse.tables import metadata
from include.warehouse.touched import SINCE, UNITS

if TYPE_CHECKING:
    import sqlalchemy

    from include.warehouse.engine import Warehouse

# A copy of an event that differs in nothing else says nothing new.
_SAYS_NOTHING = {"loaded_at", "source_file"}
_KEY_FUNCTIONS = {column: name for name, (_, column, _) in UNITS.items()}


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
            self.run_text(f"create temp table {table} on commit drop as {text}")

    def columns(self, table: str | None = None) -> Mapping[str, str]:
        """The columns of a table and their types."""
        return self.build.columns_of(table or self.name, self.warehouse, self.session)

    def beside(self, what: str) -> str:
        """The name of a table that stands beside this model's for a while."""
        return f"{self.name.split('.')[1]}__{what}"

    def fresh(self, instead: Mapping[str, str] | None = None, **params: Any) -> str:
        """The touched rows as they are now, in a table beside the real one."""
        table = self.beside("new")
        if "touched_event(" in self.model.sql:
            loaded, moments = self.loaded_with("select key_hash(event_key) from core.touched_events")
            instead = {"staging.events": f"select * from staging.events where {loaded}", **(instead or {})}
            params |= moments
        self.warehouse.expect_whole_tables(self.session)
        query = render(
            self.model.sql,
            self.warehouse.dialect,
            {**self.params, **params, **self.first_day()},
            where=self.model.where,
            incremental=True,
            instead=instead,
        )
        self.keep(table, query)
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

    def replace_touched(self, instead: Mapping[str, str] | None = None) -> None:
        """Delete the touched rows and put in what they are now."""
        function = _KEY_FUNCTIONS.get(self.model.key or "")
        if function is None:
            raise ConfigurationError(
                f"{self.model.where}: incremental by {', '.join(sorted(_KEY_FUNCTIONS))}; not by {self.model.key}"
            )
        # A browser without session ids may have had no visit yet; a touched day is there in any case.
        table = "core.touched_days" if function == "touched_visit" else UNITS[function][0]
        if not self.some(f"select 1 from {table}"):
            return
        fresh = self.fresh(instead)
        self.execute(f"delete from {self.name} where {function}({self.model.key})")
        self.take_in(fresh)

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
        models = load_models()
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
        models = load_models()
        nodes = models["core.record_nodes"]
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

    def loaded_with(self, hashes: str) -> tuple[str, dict[str, Any]]:
        """When the raw rows of these events were loaded, as a test and its params: it spares reading the others."""
        oldest, newest, undated = self.execute(
            "select min(loaded_at), max(loaded_at), count(*) - count(loaded_at) from staging.event_keys "
            f"where event_hash in ({hashes})"
        ).one()
        tests = ["loaded_at is null"] if undated else []
        if oldest:
            tests.append("loaded_at between :oldest_load and :newest_load")
        return f"({' or '.join(tests) or 'false'})", {"oldest_load": oldest, "newest_load": newest}

    def make_of_events(self, table: str, hashes: str) -> None:
        """The events whose keys have these hashes, in a table beside."""
        loaded, moments = self.loaded_with(hashes)
        self.make(table, f"select * from staging.events where {loaded} and event_hash in ({hashes})", **moments)

    def events(self) -> None:
        """New events and other versions of known ones; what they touch is followed from here."""
        columns = ", ".join(self.columns("staging.events"))
        telling = ", ".join(name for name in self.columns("staging.events") if name not in _SAYS_NOTHING)
        changed = "events__changed"
        told = []
        if self.arrived("raw.events"):
            old, fresh = self.take_in_events()
            told = [
                f"select {columns} from {fresh} where event_key in (select event_key from "
                f"(select {telling} from {fresh} except select {telling} from {old}) as versions)",
                f"select {columns} from {old} where event_key in (select event_key from "
                f"(select {telling} from {old} except select {telling} from {fresh}) as versions)",
                *self.rewritten(old, fresh, columns),
            ]
        if self.build.since and self.build.since < self.build.as_of:
            told.append(f"select {columns} from staging.events where occurred_at >= :since and occurred_at < :as_of")
        if told:
            self.make(changed, " union all ".join(told), since=self.build.since)
            self.follow(changed)

    def take_in_events(self) -> tuple[str, str]:
        """Let the view show the new rows, and of each event the copy that stands; tables of the old and the new."""
        old, fresh, mended = "events__old", "events__fresh", "events__mended"
        arrived, again = "select event_hash from events__keys", f"select event_hash from {mended}"
        keys = load_models()["staging.mended_keys"]
        known = f"select * from staging.event_keys where event_hash in ({arrived})"
        instead = {"staging.event_keys": known}
        self.keep(mended, render(keys.sql, self.warehouse.dialect, self.params, where=keys.where, instead=instead))
        self.make_of_events(old, again)
        self.note_loads()
        loaded, moments = self.loaded_with(again)
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
        self.make_of_events(fresh, arrived)
        return old, fresh

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

    def rewritten(self, old: str, fresh: str, columns: str) -> list[str]:
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
        return [f"select {columns} from staging.events where visitor_id in ({visitors})"]

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
        self.touch("touched_walkers", f"select visitor_id from {changed} where session_id is null")
        nodes = {
            "visitor_id": "'5:' || visitor_id",
            "user_id": "'2:' || user_id",
            "email": "'3:' || email",
            "transaction_id": "case when event_name = 'purchase' "
            "and lower(transaction_id) not in ('(not set)', '<other>') then '6:' || transaction_id end",
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
            self.make_of_events("events__changed", "select event_hash from events__unseen")
            self.execute("delete from events__changed where event_key not in (select event_key from events__unseen)")
            self.follow("events__changed")

    def replace_lines(self) -> tuple[str, str]:
        """Put the winners among the new lines and those already there in their place; tables of the old and the new."""
        ours = (
            "event_hash in (select event_hash from events__keys) and event_key in (select event_key from events__keys)"
        )
        old = self.beside("old")
        self.make(old, f"select * from {self.name} where {ours}")
        self.make_of_events("events__of_lines", "select event_hash from events__keys")
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
            self.execute(f"delete from {self.name} where {ours}")
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
        self.replace_touched()
        now = "select node, erased_until from core.erased_identifiers where touched_node(node)"
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
            self.touch("touched_walkers", "select visitor_id from events__changed where session_id is null")
        self.whole_visits()

    def identifiers(self) -> None:
        """The answer of identity for the touched islands; profiles that went into others leave a trail."""
        old = self.beside("old")
        self.make(old, "select node, profile_id from core.identifiers where touched_node(node)")
        self.replace_touched()
        now = "select node, profile_id from core.identifiers where touched_node(node)"
        self.execute(leave_trail(old, now))
        self.touch(
            "touched_profiles",
            f"select profile_id from {old} where profile_id is not null union "
            "select profile_id from core.identifiers where profile_id is not null and touched_node(node)",
        )

    def whole_visits(self) -> None:
        """Visits with new events are read whole; of browsers without session ids all of them."""
        self.touch(
            "touched_visits",
            "select session_key from core.visits where visitor_id in (select visitor_id from core.touched_walkers)",
        )
        spans = self.execute(
            "select distinct cast(started_at as date) as first_day, cast(ended_at as date) as last_day "
            "from core.visits where session_key in (select session_key from core.touched_visits)"
        ).fetchall()
        days = {first + timedelta(days=number) for first, last in spans for number in range((last - first).days + 1)}
        if days:
            listed = ", ".join(f"(date '{day.isoformat()}')" for day in sorted(days))
            self.run_text(f"insert into core.touched_days (day) values {listed}")


def leave_trail(old: str, now: str) -> str:
    """The statement that notes which profiles are gone and where their identifiers went, as of `:as_of`."""
    return (
        "insert into core.profile_merges (profile_id, into_profile_id, merged_at) "
        "select distinct was.profile_id, became.profile_id, :as_of "
        f"from {old} as was inner join ({now}) as became on was.node = became.node "
        f"left join (select distinct profile_id from ({now}) as names) as living on was.profile_id = living.profile_id "
        "where was.profile_id is not null and became.profile_id is not null and living.profile_id is null"
    )
