"""Building only what new loads touched: what a build takes in, what it works out anew, and how a table keeps up.

A build begins (`begin_build`), its models run one by one, and it ends (`finish_build`). Beginning it fixes what it
takes in: of every source the loads up to a moment. What changed in staging is followed to identifiers, from there to
their islands (`core.islands`), and so to every browser and profile that could look different; those are worked out
anew by the same SQL as in a full build, cut where it reads (`touched.py`). Everything else keeps its rows.

A build that died is no loss: the next one takes in everything since the last *finished* one, and the keys the dead one
had touched stay touched until then. A build is full when there is nothing to go on: the first, another version of the
models, settings or engine, an earlier `as_of`, after a full build that died, on an engine that cannot delete rows, or
when asked to be.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from include.errors import ConfigurationError
from include.warehouse.dialects import to_sql
from include.warehouse.models import Model, load_models
from include.warehouse.render import literal, parse_statement, render, render_tree
from include.warehouse.tables import metadata
from include.warehouse.touched import UNITS

if TYPE_CHECKING:
    import sqlalchemy

    from include.warehouse.engine import Warehouse

log = logging.getLogger(__name__)

# A load is named after its start and seen when it ends; nobody's takes longer.
LONGEST_LOAD = timedelta(days=2)
# What arrives: the table, the column that says when, and the one that says from where.
_ARRIVALS = {
    **{name: ("loaded_at", "source") for name in metadata.tables if name.startswith("raw.")},
    "sync.opt_outs": ("read_at", "destination"),
}
# A copy of an event that differs in nothing else says nothing new.
_SAYS_NOTHING = {"loaded_at", "source_file"}
_KEY_FUNCTIONS = {column: name for name, (_, column, _) in UNITS.items()}

Loads = Mapping[str, Mapping[str | None, tuple[datetime | None, datetime]]]


@dataclass(frozen=True)
class Build:
    """One build: what it is for and what it takes in.

    `since` is the `as_of` of the last finished build. `loads` holds, by table and source, the moments between which
    (the first left out, the last included) the rows are new; tables and sources without new rows are not in it.
    """

    build_id: str
    is_full: bool
    as_of: datetime
    since: datetime | None = None
    loads: Loads = field(default_factory=dict)


# beginning and ending


def begin_build(
    warehouse: Warehouse, as_of: datetime, settings: Mapping[str, Any], *, full_refresh: bool = False
) -> Build:
    """Fix what the next models take in, and forget the keys of the last finished build."""
    models = load_models()
    fingerprint = _fingerprint(warehouse, models, settings)
    with warehouse.session() as session:
        done = warehouse.read(
            "select build_id, status, is_full, as_of, fingerprint, recorded_at from sync.builds "
            "order by recorded_at desc, status desc",
            connection=session,
        )
        finished_ids = {row["build_id"] for row in done if row["status"] == "finished"}
        last = next((row for row in done if row["status"] == "finished"), None)
        died = [
            row
            for row in done
            if row["build_id"] not in finished_ids and (last is None or row["recorded_at"] >= last["recorded_at"])
        ]
        reason = _why_full(warehouse, session, models, as_of, full_refresh, fingerprint, last, died)
        marks = {} if reason else _marks(warehouse, session)
        loads = _loads(warehouse, session, marks)
        build = Build(uuid.uuid4().hex, reason is not None, as_of, None if reason else _of(last, "as_of"), loads)
        if reason or not died:
            for table in [name for name in metadata.tables if name.startswith("core.touched_")]:
                warehouse.clear(table, connection=session)
        _record(warehouse, session, build, "begun", fingerprint)
        warehouse.insert(
            "sync.build_loads",
            [
                {"build_id": build.build_id, "table_name": table, "source": source, "loaded_until": until}
                for table, sources in loads.items()
                for source, (_, until) in sources.items()
            ],
            connection=session,
        )
    if reason:
        log.info("a full build: %s", reason)
    else:
        log.info(
            "an incremental build: %s, %s died before it",
            ", ".join(f"{len(sources)} sources of {table}" for table, sources in loads.items()) or "no new loads",
            len(died),
        )
    return build


def finish_build(warehouse: Warehouse) -> None:
    """Say that everything the build that began last took in is in every table."""
    with warehouse.session() as session:
        build = current_build(warehouse, session)
        if build is None:
            raise ConfigurationError("no build has begun; python -m include.warehouse build does all of it")
        _record(warehouse, session, build, "finished", None)


def current_build(warehouse: Warehouse, session: sqlalchemy.Connection) -> Build | None:
    """The build that began last, for a model that runs in a process of its own; None when there was none."""
    rows = warehouse.read(
        "select build_id, is_full, as_of, recorded_at from sync.builds where status = 'begun' "
        "order by recorded_at desc limit 1",
        connection=session,
    )
    if not rows:
        return None
    begun = rows[0]
    if begun["is_full"]:
        return Build(begun["build_id"], True, begun["as_of"])
    before = "finished.recorded_at < :moment"
    since = warehouse.read(
        f"select as_of from sync.builds as finished where status = 'finished' and {before} "
        "and build_id <> :build order by recorded_at desc limit 1",
        connection=session,
        moment=begun["recorded_at"],
        build=begun["build_id"],
    )
    marks = _marks(warehouse, session, begun["recorded_at"], begun["build_id"])
    loads: dict[str, dict[str | None, tuple[datetime | None, datetime]]] = {}
    for row in warehouse.read(
        "select table_name, source, loaded_until from sync.build_loads where build_id = :build",
        connection=session,
        build=begun["build_id"],
    ):
        after = marks.get(row["table_name"], {}).get(row["source"])
        loads.setdefault(row["table_name"], {})[row["source"]] = (after, row["loaded_until"])
    return Build(begun["build_id"], False, begun["as_of"], since[0]["as_of"], loads)


def _of(row: Mapping[str, Any] | None, column: str) -> Any:
    return None if row is None else row[column]


def _why_full(
    warehouse: Warehouse,
    session: sqlalchemy.Connection,
    models: Mapping[str, Model],
    as_of: datetime,
    full_refresh: bool,
    fingerprint: str,
    last: Mapping[str, Any] | None,
    died: list[dict[str, Any]],
) -> str | None:
    if full_refresh:
        return "it was asked for"
    if not warehouse.deletes_rows:
        return f"{warehouse.dialect} tables are only ever replaced"
    if last is None:
        return "it is the first"
    begun = next(iter(warehouse.read(
        "select fingerprint from sync.builds where build_id = :build and status = 'begun'",
        connection=session, build=last["build_id"],
    )), None)  # fmt: skip
    if _of(begun, "fingerprint") != fingerprint:
        return "the models, the settings or the engine are not those of the last build"
    if any(row["is_full"] for row in died):
        return "the last full build did not finish"
    if as_of < max(row["as_of"] for row in (last, *died)):
        return "it is for an earlier moment than the last one"
    present = warehouse._all_columns(session)
    missing = [name for name, model in models.items() if model.schema in ("staging", "core") and name not in present]
    return f"there is no {missing[0]} yet" if missing else None


def _fingerprint(warehouse: Warehouse, models: Mapping[str, Model], settings: Mapping[str, Any]) -> str:
    texts = [warehouse.dialect, warehouse.version, repr(sorted(settings.items(), key=lambda item: item[0]))]
    texts += [f"{name}\n{models[name].sql}" for name in sorted(models) if models[name].schema in ("staging", "core")]
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "\n".join(texts)))


def _marks(
    warehouse: Warehouse,
    session: sqlalchemy.Connection,
    before: datetime | None = None,
    but: str | None = None,
) -> dict[str, dict[str | None, datetime]]:
    """By table and source, the newest load that is in every table."""
    rows = warehouse.read(
        "select loads.table_name, loads.source, max(loads.loaded_until) as loaded_until "
        "from sync.build_loads as loads inner join sync.builds as builds on loads.build_id = builds.build_id "
        "where builds.status = 'finished'"
        + (" and builds.recorded_at < :before and builds.build_id <> :but" if before else "")
        + " group by loads.table_name, loads.source",
        connection=session,
        **({"before": before, "but": but} if before else {}),
    )
    marks: dict[str, dict[str | None, datetime]] = {}
    for row in rows:
        marks.setdefault(row["table_name"], {})[row["source"]] = row["loaded_until"]
    return marks


def _loads(
    warehouse: Warehouse, session: sqlalchemy.Connection, marks: Mapping[str, Mapping[str | None, datetime]]
) -> dict[str, dict[str | None, tuple[datetime | None, datetime]]]:
    found: dict[str, dict[str | None, tuple[datetime | None, datetime]]] = {}
    for table, (moment, origin) in _ARRIVALS.items():
        known = marks.get(table, {})
        rows = warehouse.read(
            f"select {origin} as origin, max({moment}) as until from {table} where {moment} is not null"
            + (f" and {moment} > :oldest" if known else "")
            + f" group by {origin}",
            connection=session,
            **({"oldest": min(known.values()) - LONGEST_LOAD} if known else {}),
        )
        news = {
            row["origin"]: (known.get(row["origin"]), row["until"])
            for row in rows
            if row["origin"] not in known or row["until"] > known[row["origin"]]
        }
        if news:
            found[table] = news
    return found


def _record(
    warehouse: Warehouse, session: sqlalchemy.Connection, build: Build, status: str, fingerprint: str | None
) -> None:
    from include.warehouse.build import utc_now  # the clock of the settings

    warehouse.insert(
        "sync.builds",
        [
            {
                "build_id": build.build_id,
                "status": status,
                "is_full": build.is_full,
                "as_of": build.as_of,
                "fingerprint": fingerprint,
                "recorded_at": _strictly_later(warehouse, session, utc_now()),
            }
        ],
        connection=session,
    )


def _strictly_later(warehouse: Warehouse, session: sqlalchemy.Connection, now: datetime) -> datetime:
    """The order of builds must not depend on a clock that stands still or goes back."""
    last = warehouse.read("select max(recorded_at) as moment from sync.builds", connection=session)[0]["moment"]
    return now if last is None or now > last else last + timedelta(microseconds=1)


# new rows


def new_rows(build: Build, table: str, loads: Loads | None = None) -> str:
    """A query for the rows of an arriving table that this build takes in (DuckDB's dialect)."""
    moment, origin = _ARRIVALS[table]
    windows = (loads or build.loads).get(table, {})
    if not windows:
        return f"select * from {table} where false"
    tests = [
        f"({origin} is not distinct from {_text(source)} and {moment} <= {_text(until)}"
        + (f" and {moment} > {_text(after)})" if after else ")")
        for source, (after, until) in windows.items()
    ]
    known = [after for after, _ in windows.values()]
    floor = ""
    if all(known):
        floor = f"{moment} > {_text(min(after for after in known if after))} and "
    return f"select * from {table} where {floor}({' or '.join(tests)})"


def _text(value: Any) -> str:
    return to_sql(literal(value), "duckdb")


# keeping a table up


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
            "staging.events": self.events,
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

    def execute(self, sql: str, **params: Any) -> None:
        """A statement in DuckDB's dialect, house functions and settings filled in."""
        tree = render_tree(parse_statement(sql), {**self.params, **params}, incremental=True)
        text = to_sql(tree, self.warehouse.dialect, copy=False)
        self.session.exec_driver_sql(text.replace("%", "%%") if self.session.dialect.paramstyle == "pyformat" else text)

    def read(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        """Rows of a query in DuckDB's dialect."""
        return self.warehouse.read(sql, connection=self.session, **params)

    def some(self, sql: str, **params: Any) -> bool:
        """Whether a query has a row."""
        return bool(self.read(f"select 1 as one from ({sql}) as found limit 1", **params))

    def make(self, table: str, query: str) -> None:
        """A table for the rest of this transaction's work; one that a dead run left is dropped."""
        self.execute(f"drop table if exists {table}")
        self.execute(f"create table {table} as {query}")

    def columns(self, table: str | None = None) -> list[str]:
        return list(self.warehouse.columns(table or self.name, connection=self.session) or {})

    def query(self, instead: Mapping[str, str] | None = None) -> str:
        """The model's SELECT over the touched keys, in the engine's dialect."""
        return render(
            self.model.sql,
            self.warehouse.dialect,
            self.params,
            where=self.model.where,
            incremental=True,
            instead=instead,
        )

    def fresh(self, instead: Mapping[str, str] | None = None) -> str:
        """The touched rows as they are now, in a table beside the real one."""
        table = f"{self.name}__new"
        self.warehouse.expect_whole_tables(self.session)
        self.execute(f"drop table if exists {table}")
        self.warehouse.run_text(f"create table {table} as {self.query(instead)}", self.session)
        return table

    def take_in(self, fresh: str) -> None:
        names = ", ".join(f'"{name}"' for name in self.columns())
        self.execute(f"insert into {self.name} ({names}) select {names} from {fresh}")
        self.execute(f"drop table {fresh}")

    def touch(self, table: str, query: str) -> None:
        """Add keys to those this build works out anew."""
        column = ", ".join(self.columns(f"core.{table}"))
        self.execute(f"insert into core.{table} ({column}) select distinct * from ({query}) as keys")

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
        self.execute(f"drop table {fresh}")

    def by_load(self) -> None:
        """Rows that are judged alone: those of the new loads of any table, whole."""
        windows: dict[str | None, tuple[datetime | None, datetime]] = {}
        for table in self.model.depends_on:
            for source, (after, until) in self.build.loads.get(table, {}).items():
                if source in windows:
                    was, end = windows[source]
                    after = None if was is None or after is None else min(was, after)
                    until = max(end, until)
                windows[source] = (after, until)
        if not windows:
            return
        loads = {table: windows for table in self.model.depends_on if table.startswith("raw.")}
        fresh = self.fresh({table: new_rows(self.build, table, loads) for table in loads})
        taken = new_rows(self.build, next(iter(loads)), loads).split(" where ", 1)[1]
        self.execute(f"delete from {self.name} where {taken}")
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
        """A table of records: read anew when there is something new; whose records changed is touched."""
        base = [name for name in self.columns() if name != "loaded_at"]
        listed = ", ".join(base)
        changed = f"{self.name}__changed"
        self.execute(f"drop table if exists {changed}")
        if self.has_news():
            old = f"{self.name}__old"
            self.make(old, f"select {listed} from {self.name}")
            self.rebuild()
            self.execute(
                f"create table {changed} as (select {listed} from {self.name} except select {listed} from {old}) "
                f"union all (select {listed} from {old} except select {listed} from {self.name})"
            )
            self.execute(f"drop table {old}")
        else:
            self.execute(f"create table {changed} as select {listed} from {self.name} where false")
        # What was dated ahead of the last build and is not any more.
        moments = [
            name
            for name, kind in (self.warehouse.columns(self.name, connection=self.session) or {}).items()
            if kind == "timestamp" and name != "loaded_at"
        ]
        if moments and self.build.since and self.build.since < self.build.as_of:
            crossed = " or ".join(f"({name} >= :since and {name} < :as_of)" for name in moments)
            self.execute(
                f"insert into {changed} ({listed}) select {listed} from {self.name} where {crossed}",
                since=self.build.since,
            )
        if self.some(f"select 1 from {changed}"):
            self.touch_records(changed)
        self.execute(f"drop table {changed}")

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
        self.warehouse.run_text(
            f"insert into core.touched_records (record, node) select distinct record, node from ({text}) as found",
            self.session,
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

    def event_keys(self) -> bool:
        """The keys of all event rows that arrived, in `staging.events__keys`; False when nothing did."""
        if not ({"raw.events", "raw.event_items"} & self.build.loads.keys()):
            return False
        arrived = " union ".join(
            f"select tidy(event_key) as event_key from ({new_rows(self.build, table)}) as arrived"
            for table in ("raw.events", "raw.event_items")
        )
        self.make(
            "staging.events__keys",
            f"select event_key, key_hash(event_key) as event_hash from ({arrived}) as keys where event_key is not null",
        )
        return True

    def replace_keys(self, raw: str, also: Mapping[str, str]) -> tuple[str, str]:
        """Put the winners among the new rows and those already there in their place; tables of the old and the new."""
        ours = (
            "event_hash in (select event_hash from staging.events__keys) "
            "and event_key in (select event_key from staging.events__keys)"
        )
        old = f"{self.name}__old"
        self.make(old, f"select * from {self.name} where {ours}")
        columns = ", ".join(column.name for column in metadata.tables[raw].columns)
        fresh = self.fresh(
            {
                raw: f"select {columns} from ({new_rows(self.build, raw)}) as arrived "
                f"union all select {columns} from {old}",
                **also,
            }
        )
        if self.some(f"select 1 from {old}"):
            self.execute(f"delete from {self.name} where {ours}")
        names = ", ".join(f'"{name}"' for name in self.columns())
        self.execute(f"insert into {self.name} ({names}) select {names} from {fresh}")
        return old, fresh

    def events(self) -> None:
        """New events and other versions of known ones; what they touch is followed from here."""
        columns = ", ".join(self.columns())
        telling = ", ".join(name for name in self.columns() if name not in _SAYS_NOTHING)
        changed = "staging.events__changed"
        if self.event_keys():
            old, fresh = self.replace_keys("raw.events", {})
            self.make(
                changed,
                f"select {columns} from {fresh} where event_key in (select event_key from "
                f"(select {telling} from {fresh} except select {telling} from {old}) as versions) "
                f"union all select {columns} from {old} where event_key in (select event_key from "
                f"(select {telling} from {old} except select {telling} from {fresh}) as versions)",
            )
            self.touch_rewritten(old, fresh, changed, columns)
            self.execute(f"drop table {old}")
            self.execute(f"drop table {fresh}")
            self.execute("drop table staging.events__keys")
        else:
            self.make(changed, f"select {columns} from staging.events where false")
        if self.build.since and self.build.since < self.build.as_of:
            self.execute(
                f"insert into {changed} ({columns}) select {columns} from staging.events "
                "where occurred_at >= :since and occurred_at < :as_of",
                since=self.build.since,
            )
        self.follow(changed)
        self.execute(f"drop table {changed}")

    def touch_rewritten(self, old: str, fresh: str, changed: str, columns: str) -> None:
        """Browsers of which an event says something else than before: their links are made anew from all they did."""
        said = (
            "event_key, source, user_id, email, visitor_id, occurred_at, "
            "case when event_name = 'purchase' then transaction_id end as transaction_id"
        )
        rewritten = (
            f"select distinct visitor_id from (select {said} from {old} except select {said} from {fresh}) as versions"
        )
        if not self.some(rewritten):
            return
        everything = f"select {columns} from staging.events where visitor_id in ({rewritten})"
        self.execute(f"insert into {changed} ({columns}) {everything}")
        self.execute(f"delete from core.event_identities where visitor_id in ({rewritten})")

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
        if not self.event_keys():
            return
        telling = ", ".join(name for name in self.columns() if name not in _SAYS_NOTHING)
        of_keys = (
            "select * from staging.events where event_hash in (select event_hash from staging.events__keys) "
            "and event_key in (select event_key from staging.events__keys)"
        )
        old, fresh = self.replace_keys("raw.event_items", {"staging.events": of_keys})
        changed = (
            f"select event_key from (select {telling} from {fresh} except select {telling} from {old}) as one "
            f"union select event_key from (select {telling} from {old} except select {telling} from {fresh}) as other"
        )
        unseen = (
            f"select event_key from ({changed}) as keys "
            "where event_key not in (select event_key from core.touched_events)"
        )
        if self.some(unseen):
            columns = ", ".join(self.columns("staging.events"))
            self.make(
                "staging.events__changed",
                f"select {columns} from staging.events where event_hash in "
                f"(select key_hash(event_key) from ({unseen}) as keys) and event_key in ({unseen})",
            )
            self.follow("staging.events__changed")
            self.execute("drop table staging.events__changed")
        for table in (old, fresh, "staging.events__keys"):
            self.execute(f"drop table {table}")

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
        told = f"select * from ({new_rows(self.build, 'sync.opt_outs')}) as told"
        if self.build.since and self.build.since < self.build.as_of:
            told += (
                f" union all select * from sync.opt_outs where occurred_at >= {_text(self.build.since)} "
                f"and occurred_at < {_text(self.build.as_of)}"
            )
        node = (
            "case kind when 'email' then '3:' || lower(trim(value)) when 'phone' then '4:' || value "
            "when 'contact_id' then '1:' || value end"
        )
        self.touch(
            "touched_records",
            f"select node as record, node from (select {node} as node from ({told}) as told) as nodes "
            "where node is not null",
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
        old = "core.erased_identifiers__old"
        self.make(old, "select node, erased_until from core.erased_identifiers where touched_node(node)")
        self.replace_touched()
        now = "select node, erased_until from core.erased_identifiers where touched_node(node)"
        changed = (
            f"select node from ({now} except select node, erased_until from {old}) as one "
            f"union select node from (select node, erased_until from {old} except {now}) as other"
        )
        if self.some(self.text(changed)):
            visitors = (
                "select substr(islands.node, 3) from core.islands as islands where islands.node like '5:%' "
                f"and islands.island in (select island from core.islands where node in ({changed})) "
                f"union select substr(node, 3) from ({changed}) as alone where node like '5:%'"
            )
            rows = f"select visitor_id, session_id, occurred_at from staging.events where visitor_id in ({visitors})"
            self.make("staging.events__changed", rows)
            self.touch("touched_days", "select cast(occurred_at as date) as day from staging.events__changed")
            self.touch(
                "touched_visits",
                "select visitor_id || '.' || session_id as session_key from staging.events__changed "
                "where session_id is not null",
            )
            self.touch("touched_walkers", "select visitor_id from staging.events__changed where session_id is null")
            self.execute("drop table staging.events__changed")
        self.execute(f"drop table {old}")
        self.whole_visits()

    def text(self, sql: str) -> str:
        """A query with its house functions spelt out, still in DuckDB's dialect."""
        return to_sql(render_tree(parse_statement(sql), self.params, incremental=True), "duckdb", copy=False)

    def identifiers(self) -> None:
        """The answer of identity for the touched islands; profiles that went into others leave a trail."""
        old = "core.identifiers__old"
        self.make(old, "select node, profile_id from core.identifiers where touched_node(node)")
        self.replace_touched()
        now = self.text("select node, profile_id from core.identifiers where touched_node(node)")
        leave_trail(self.warehouse, self.session, old, now, self.build.as_of)
        self.touch(
            "touched_profiles",
            f"select profile_id from {old} where profile_id is not null union "
            "select profile_id from core.identifiers where profile_id is not null and touched_node(node)",
        )
        self.execute(f"drop table {old}")

    def whole_visits(self) -> None:
        """Visits with new events are read whole; of browsers without session ids all of them."""
        self.touch(
            "touched_visits",
            "select session_key from core.visits where visitor_id in (select visitor_id from core.touched_walkers)",
        )
        spans = self.read(
            "select distinct cast(started_at as date) as first_day, cast(ended_at as date) as last_day "
            "from core.visits where session_key in (select session_key from core.touched_visits)"
        )
        days = {
            first + timedelta(days=number)
            for first, last in ((row["first_day"], row["last_day"]) for row in spans)
            for number in range((last - first).days + 1)
        }
        self.warehouse.insert("core.touched_days", [{"day": day} for day in sorted(days)], connection=self.session)


def leave_trail(warehouse: Warehouse, session: sqlalchemy.Connection, old: str, now: str, as_of: datetime) -> None:
    """Note which profiles are gone and where their identifiers went."""
    warehouse.execute(
        "insert into core.profile_merges (profile_id, into_profile_id, merged_at) "
        "select distinct was.profile_id, became.profile_id, :as_of "
        f"from {old} as was inner join ({now}) as became on was.node = became.node "
        f"left join (select distinct profile_id from ({now}) as names) as living on was.profile_id = living.profile_id "
        "where was.profile_id is not null and became.profile_id is not null and living.profile_id is null",
        connection=session,
        as_of=as_of,
    )
