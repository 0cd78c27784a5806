"""A build: what it takes in, when it is full, and what becomes of one that died.

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.errors import ConfigurationError
from include.warehouse.models import Model, load_models
from include.warehouse.tables import metadata

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
    columns: dict[str, dict[str, str]] = field(default_factory=dict, repr=False, compare=False)
    models: Mapping[str, Model] = field(default_factory=load_models, repr=False, compare=False)
    # When what models ask for was loaded, once somebody has looked (incremental.py).
    loaded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    # Where the build is one transaction: the temporary tables of slices.py that are there.
    slices: set[str] | None = field(default=None, repr=False, compare=False)

    def columns_of(self, table: str, warehouse: Warehouse, session: sqlalchemy.Connection) -> Mapping[str, str]:
        """The columns of a table of staging or core; they stay as they are during an incremental build."""
        if table not in self.columns:
            self.columns[table] = warehouse.columns(table, connection=session) or {}
        return self.columns[table]


# beginning and ending


def begin_build(
    warehouse: Warehouse,
    as_of: datetime,
    settings: Mapping[str, Any],
    *,
    full_refresh: bool = False,
    connection: sqlalchemy.Connection | None = None,
) -> Build:
    """Fix what the next models take in, and forget the keys of the last finished build."""
    models = load_models()
    fingerprint = _fingerprint(warehouse, models, settings)
    with warehouse._joined(connection) as session:
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
        present = warehouse._all_columns(session)
        reason = _why_full(warehouse, session, models, present, as_of, full_refresh, fingerprint, last, died)
        marks = {} if reason else _marks(warehouse, session)
        loads = _loads(warehouse, session, marks)
        since = None if reason else _of(last, "as_of")
        build = Build(uuid.uuid4().hex, reason is not None, as_of, since, loads, {} if reason else present, models)
        if reason or not died:
            for table in [name for name in metadata.tables if name.startswith("core.touched_")]:
                warehouse.clear(table, connection=session)
        _record(warehouse, session, build, "begun", fingerprint)
        for table, sources in loads.items():
            for source, (_, until) in sources.items():
                warehouse.execute(
                    "insert into sync.build_loads (build_id, table_name, source, loaded_until) "
                    "values (:build_id, :table_name, cast(:source as text), :loaded_until)",
                    connection=session,
                    build_id=build.build_id,
                    table_name=table,
                    source=source,
                    loaded_until=until,
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


def finish_build(
    warehouse: Warehouse, build: Build | None = None, *, connection: sqlalchemy.Connection | None = None
) -> None:
    """Say that everything a build took in (without one: that which began last) is in every table."""
    with warehouse._joined(connection) as session:
        build = build or current_build(warehouse, session)
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
    present: Mapping[str, Mapping[str, str]],
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

    warehouse.execute(
        "insert into sync.builds (build_id, status, is_full, as_of, fingerprint, recorded_at) "
        "values (:build_id, :status, :is_full, :as_of, cast(:fingerprint as text), :recorded_at)",
        connection=session,
        build_id=build.build_id,
        status=status,
        is_full=build.is_full,
        as_of=build.as_of,
        fingerprint=fingerprint,
        recorded_at=_strictly_later(warehouse, session, utc_now()),
    )


def _strictly_later(warehouse: Warehouse, session: sqlalchemy.Connection, now: datetime) -> datetime:
    """The order of builds must not depend on a clock that stands still or goes back."""
    last = warehouse.read("select max(recorded_at) as moment from sync.builds", connection=session)[0]["moment"]
    return now if last is None or now > last else last + timedelta(microseconds=1)


# new rows


def new_rows(build: Build, table: str) -> tuple[str, dict[str, Any]]:
    """A query for the rows of an arriving table that this build takes in (DuckDB's dialect), and its params."""
    if table not in build.loads:
        return f"select * from {table} where false", {}
    test, params = window(*_ARRIVALS[table], build.loads[table], prefix=table.replace(".", "_"))
    return f"select * from {table} where {test}", params


def window(
    moment: str,
    origin: str,
    loads: Mapping[str | None, tuple[datetime | None, datetime]],
    prefix: str = "load",
) -> tuple[str, dict[str, Any]]:
    """The test whether a row came with one of these loads, and its params; `moment` and `origin` are columns."""
    tests: list[str] = []
    params: dict[str, Any] = {}
    for number, (source, (after, until)) in enumerate(sorted(loads.items(), key=lambda load: str(load[0]))):
        name = f"{prefix}_{number}"
        test = f"{origin} is not distinct from :{name}_source and {moment} <= :{name}_until"
        params |= {f"{name}_source": source, f"{name}_until": until}
        if after:
            test += f" and {moment} > :{name}_after"
            params[f"{name}_after"] = after
        tests.append(f"({test})")
    known = [after for after, _ in loads.values() if after]
    floor = ""
    if len(known) == len(loads):
        floor = f"{moment} > :{prefix}_floor and "
        params[f"{prefix}_floor"] = min(known)
    return f"{floor}({' or '.join(tests)})", params
