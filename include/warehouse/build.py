"""Running the models: a table, or its touched rows, is built beside the old and changed over in one transaction.

Readers see the whole old table or the whole new one. What a run that died left behind is dropped by the next. The
caller says what time it is (`as_of`); nothing here asks the clock.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy

from include.errors import ConfigurationError, QualityGateFailed
from include.settings import Settings, get_settings
from include.warehouse import postgres, spark
from include.warehouse.builds import Build, begin_build, current_build, finish_build
from include.warehouse.engine import Warehouse
from include.warehouse.incremental import Update, leave_trail, touched_part
from include.warehouse.models import Model, build_order, load_models
from include.warehouse.render import parse, render, render_statement, render_tree

log = logging.getLogger(__name__)

_TABLE = re.compile(r"[a-z][a-z0-9_]*")
_OUR_FAULT = {"BinderException", "CatalogException", "ParserException"}
_NOT_ALLOWED = "InsufficientPrivilege"
_DATA_FAULT = {"ConversionException", "OutOfRangeException", "InvalidInputException"}
_OPEN_TYPE = re.compile(r"(?<!cast\()\bsum\(|(?<!cast\()\bnull as\b|\bselect null\b", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def setting_params(settings: Settings | None = None) -> dict[str, Any]:
    """The project settings that SQL may name."""
    chosen = settings or get_settings()
    return {
        "cart_lifetime": chosen.cart_lifetime,
        "clock_tolerance": chosen.clock_tolerance,
        "session_gap": chosen.session_gap,
        "quarantine_above": chosen.quarantine_above,
        "bot_page_views_per_minute": chosen.bot_page_views_per_minute,
        "erasure_salt": chosen.erasure_salt,
        "company_domains": [domain.strip().lower() for domain in chosen.company_domains],
    }


def build_model(warehouse: Warehouse, name: str, as_of: datetime) -> int:
    """Build one model and publish it; returns its number of rows."""
    models = load_models()
    model = models.get(name)
    if model is None:
        raise ConfigurationError(f"there is no model {name}; known are {', '.join(sorted(models))}")
    if model.schema == "segments":
        raise ConfigurationError(f"{name} is a segment; it is built for an audience, with the audience's params")
    began = time.monotonic()
    with warehouse.session() as session:
        warehouse.prepare_build(session, get_settings().build_memory_mb)
        build = current_build(warehouse, session)
        rows = run_model(warehouse, session, model, {**setting_params(), "as_of": as_of}, build=build)
    log.info("built %s: %s rows in %.2f s", name, rows, time.monotonic() - began)
    return rows


def build_tables(
    warehouse: Warehouse,
    as_of: datetime,
    *,
    full_refresh: bool = False,
    told: Callable[[str, int, float], None] | None = None,
) -> dict[str, int]:
    """Build staging, core and the tables of reports in order, then the views; rows by table.

    `told` hears of every table that is ready: its name, rows and seconds. Segments are built per audience.

    Where readers of an engine never wait for a writer, an incremental build is one transaction: they see all of it or
    nothing, and it needs no more than one commit. Otherwise every table is.
    """
    with warehouse.held():
        warehouse.ensure_tables()
        with warehouse.session() as session:
            warehouse.prepare_build(session, get_settings().build_memory_mb)
            build = begin_build(warehouse, as_of, setting_params(), full_refresh=full_refresh, connection=session)
            is_one = warehouse.dialect == "duckdb" and not build.is_full
            if is_one:
                rows = _build_all(warehouse, replace(build, slices=set()), told, session)
        if not is_one:
            rows = _build_all(warehouse, build, told)
    return rows


def _build_all(
    warehouse: Warehouse,
    build: Build,
    told: Callable[[str, int, float], None] | None,
    connection: sqlalchemy.Connection | None = None,
) -> dict[str, int]:
    """Every model of a build that has begun, in one session or each in its own."""
    models, rows = build.models, {}
    params = {**setting_params(), "as_of": build.as_of}
    for name in build_order(models):
        if models[name].schema not in ("staging", "core", "reports"):
            continue
        if models[name].schema == "reports" and models[name].materialized == "view":
            continue
        began = time.monotonic()
        with warehouse.session() if connection is None else nullcontext(connection) as session:
            count = run_model(warehouse, session, models[name], params, build=build)
        if models[name].materialized == "view":
            continue
        rows[name] = count
        if told is not None:
            told(name, count, time.monotonic() - began)
    finish_build(warehouse, build, connection=connection)
    ensure_views(warehouse, connection)
    return rows


def build_segment(
    warehouse: Warehouse,
    table: str,
    segment: str,
    as_of: datetime,
    params: Mapping[str, Any],
    stages: Mapping[str, timedelta] | None,
) -> int:
    """Build `sql/segments/<segment>.sql` into `segments.<table>` with an audience's params; returns its rows."""
    if not _TABLE.fullmatch(table):
        raise ConfigurationError(f"'{table}' cannot be a table name: small letters, digits and underscores")
    models = load_models()
    model = models.get(f"segments.{segment}")
    if model is None:
        known = ", ".join(sorted(name.split(".")[1] for name in models if name.startswith("segments.")))
        raise ConfigurationError(f"there is no sql/segments/{segment}.sql; known segments are {known}")
    fixed = {**setting_params(), "as_of": as_of}
    taken = sorted(fixed.keys() & params.keys())
    if taken:
        raise ConfigurationError(f"params of {table}: {', '.join(taken)} is the name of a project setting")
    began = time.monotonic()
    with warehouse.session() as session:
        warehouse.prepare_build(session, get_settings().build_memory_mb)
        rows = run_model(warehouse, session, model, {**fixed, **params}, stages, into=f"segments.{table}")
    log.info("built segments.%s: %s rows in %.2f s", table, rows, time.monotonic() - began)
    return rows


def run_model(
    warehouse: Warehouse,
    session: sqlalchemy.Connection,
    model: Model,
    params: Mapping[str, Any],
    stages: Mapping[str, timedelta] | None = None,
    *,
    into: str | None = None,
    build: Build | None = None,
) -> int:
    """Build one model inside an open session; the change-over happens when the session commits.

    Within an incremental `build` only what it touched is worked out; without one, everything.
    """
    target = into or model.name
    incremental = build is not None and not build.is_full and model.schema in ("staging", "core")

    def query() -> str:
        if build is not None and incremental and model.materialized == "work":
            return touched_part(warehouse, session, model, params, build)
        return render(model.sql, warehouse.dialect, params, stages, where=model.where, incremental=incremental)

    with _naming(warehouse, model):
        if model.materialized == "view":
            # The others are as they were: an incremental build has the text and the settings of the last.
            if not incremental or ":as_of" in model.sql:
                _replace_view(warehouse, session, target, query())
            return 0

        def rebuild() -> int:
            if warehouse.dialect != "spark":
                return _replace_table(warehouse, session, target, query(), model)
            spark.drop_leftovers(session, target)
            tree = render_tree(parse(model.sql, model.where), params, stages, where=model.where)
            with warehouse.finished(session, tree, target) as finished:
                return _replace_table(warehouse, session, target, finished, model)

        if build is None or not incremental:
            return (
                rebuild() if target != "core.identifiers" else _rebuild_identifiers(warehouse, session, rebuild, params)
            )
        Update(warehouse, session, model, params, build, rebuild).run()
        return _count(session, target)


def _rebuild_identifiers(
    warehouse: Warehouse, session: sqlalchemy.Connection, rebuild: Callable[[], int], params: Mapping[str, Any]
) -> int:
    """All identities anew; profiles that went into others leave a trail."""
    before = warehouse.columns("core.identifiers", connection=session)
    if not before or "node" not in before or warehouse.columns("core.former_names", connection=session) is None:
        return rebuild()
    # A name of its own: Spark drops what lies beside a table before it builds that anew.
    old = warehouse.beside("core.replaced_identifiers")
    if warehouse.dialect == "spark":
        spark.drop_leftovers(session, "core.replaced_identifiers")
    _run(session, f"drop table if exists {old}")
    _run(session, f"create table {old} as select node, profile_id from core.identifiers")
    rows = rebuild()
    trail = leave_trail(old, "select node, profile_id from core.identifiers")
    _run(session, render_statement(trail, warehouse.dialect, params))
    _run(session, f"drop table {old}")
    return rows


@contextmanager
def _naming(warehouse: Warehouse, model: Model) -> Iterator[None]:
    """Name the file in what the engine says about its SQL, without the values the engine would quote."""
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        if warehouse.dialect == "spark":
            told = spark.in_words(error)
            if isinstance(told, ConfigurationError):
                raise ConfigurationError(f"{model.where}: {told}") from None
            raise
        # PostgreSQL adds a piece of the statement; what it says itself is enough.
        said = str(getattr(getattr(error.orig, "diag", None), "message_primary", None) or error.orig)
        kind = type(error.orig).__name__
        if kind in _OUR_FAULT or (isinstance(error, sqlalchemy.exc.ProgrammingError) and kind != _NOT_ALLOWED):
            raise ConfigurationError(f"{model.where}: {said}") from error
        if isinstance(error, sqlalchemy.exc.DataError) or type(error.orig).__name__ in _DATA_FAULT:
            raise ConfigurationError(f"{model.where}: {_QUOTED.sub('...', said.splitlines()[0])}") from None
        raise


def _replace_table(warehouse: Warehouse, session: sqlalchemy.Connection, target: str, query: str, model: Model) -> int:
    """The seam where another way to materialize (incremental, by key) would stand beside the rebuild."""
    schema, name = target.split(".")
    fresh = warehouse.beside(target)
    query = _typed(warehouse, session, query)
    if warehouse.dialect == "postgres":
        postgres.one_at_a_time(session, target)
    _run(session, f"create schema if not exists {schema}")
    _run(session, f"drop table if exists {fresh}")
    if warehouse.dialect == "duckdb":
        # Readers have their own transaction and see the old table until this one is committed.
        if _is_view(session, target):
            _run(session, f"drop view {target}")
        _run(session, f"create or replace table {target} as {query}")
        if model.schema == "segments":
            _check_segment(warehouse, session, target, model)
        return _count(session, target)
    warehouse.expect_whole_tables(session)
    _run(session, f"create table {fresh} as {query}")
    if model.schema == "segments":
        _check_segment(warehouse, session, fresh, model)
    rows = _count(session, fresh)
    warehouse.analyze(fresh, connection=session)
    with _in_the_place_of(warehouse, session, target) as cascade:
        _drop(session, target, cascade)
        new_name = target if warehouse.dialect == "spark" else name
        _run(session, f"alter table {fresh} rename to {new_name}")
    return rows


def _is_view(session: sqlalchemy.Connection, target: str) -> bool:
    """Whether DuckDB has a view of that name."""
    schema, name = target.split(".")
    test = "schema_name = :schema and view_name = :name and database_name = current_database()"
    found = session.execute(
        sqlalchemy.text(f"select 1 from duckdb_views() where {test}"), {"schema": schema, "name": name}
    )
    return bool(found.fetchall())


@contextmanager
def _in_the_place_of(warehouse: Warehouse, session: sqlalchemy.Connection, target: str) -> Iterator[str]:
    """How to drop what a table or view replaces; views over it stay, where the engine ties them to it."""
    if warehouse.dialect != "postgres":
        yield ""
        return
    ours = {name for name, model in load_models().items() if model.materialized == "view"}
    with postgres.keeping_dependents(session, target, ours):
        yield " cascade"


def _typed(warehouse: Warehouse, session: sqlalchemy.Connection, query: str) -> str:
    """The query with a plain type for what DuckDB leaves open: null is text, a sum of bigints is a bigint."""
    if warehouse.dialect == "spark":
        return spark.typed(session, query)
    if warehouse.dialect != "duckdb" or not _OPEN_TYPE.search(query):
        return query
    described = session.exec_driver_sql(f"describe {query}").all()
    casts = {'"NULL"': "text", "HUGEINT": "bigint"}
    if not any(kind in casts for _, kind, *_ in described):
        return query
    columns = ", ".join(
        f'cast("{column}" as {casts[kind]}) as "{column}"' if kind in casts else f'"{column}"'
        for column, kind, *_ in described
    )
    return f"select {columns} from ({query}) as typed"


def _check_segment(warehouse: Warehouse, session: sqlalchemy.Connection, fresh: str, model: Model) -> None:
    columns = warehouse.columns(fresh, connection=session) or {}
    missing = [name for name in ("profile_id", "entered_at") if name not in columns]
    if missing:
        raise ConfigurationError(f"{model.where}: a segment must have the column {' and '.join(missing)}")
    rows, profiles, unnamed = session.execute(
        sqlalchemy.text(
            "select count(*), count(distinct profile_id), "
            f"coalesce(sum(case when profile_id is null then 1 else 0 end), 0) from {fresh}"
        )
    ).one()
    if unnamed:
        raise QualityGateFailed(f"{model.where}: {unnamed} of {rows} rows have no profile_id; nothing was published")
    if rows != profiles:
        raise QualityGateFailed(
            f"{model.where}: {rows} rows for {profiles} profiles; a segment has one row per profile; "
            "nothing was published"
        )


def ensure_views(warehouse: Warehouse, connection: sqlalchemy.Connection | None = None) -> None:
    """Create the views of sql/reports and sql/sync anew; one whose tables are not built yet waits for them."""
    models = load_models()
    params = setting_params()
    with warehouse._joined(connection) as session:
        if warehouse.dialect == "postgres":
            postgres.one_at_a_time(session)
        present = set(warehouse._all_columns(session))
        for name in build_order(models):
            model = models[name]
            if model.materialized != "view" or model.schema not in ("reports", "sync"):
                continue
            missing = sorted(model.depends_on - present)
            if missing:
                log.info("view %s waits for %s", name, ", ".join(missing))
                continue
            _replace_view(warehouse, session, name, render(model.sql, warehouse.dialect, params, where=model.where))
            present.add(name)


def _replace_view(warehouse: Warehouse, session: sqlalchemy.Connection, target: str, query: str) -> None:
    _run(session, f"create schema if not exists {target.split('.')[0]}")
    with _in_the_place_of(warehouse, session, target) as cascade:
        _drop(session, target, cascade)
        _run(session, f"create view {target} as {query}")


def _drop(session: sqlalchemy.Connection, target: str, cascade: str) -> None:
    """Make room for a model, which may have been a view and be a table now, or the other way round."""
    schema, name = target.split(".")
    if session.dialect.name == "hive":
        is_view = session.exec_driver_sql(f"show views in {schema} like '{name}'").fetchall()
        _run(session, f"drop {'view' if is_view else 'table'} if exists {target}")
        return
    kind = session.execute(
        sqlalchemy.text(
            "select table_type from information_schema.tables "
            "where table_catalog = current_database() and table_schema = :schema and table_name = :name"
        ),
        {"schema": schema, "name": name},
    ).scalar()
    if kind is not None:
        _run(session, f"drop {'view' if kind == 'VIEW' else 'table'} {target}{cascade}")


def _run(session: sqlalchemy.Connection, statement: str) -> None:
    """Run finished SQL as it stands: no placeholders are looked for in it."""
    session.exec_driver_sql(statement.replace("%", "%%") if session.dialect.paramstyle == "pyformat" else statement)


def _count(session: sqlalchemy.Connection, table: str) -> int:
    return int(session.execute(sqlalchemy.text(f"select count(*) from {table}")).scalar_one())


def utc_now() -> datetime:
    """The time of a run that was given none: the frozen clock of the settings, else the present (naive UTC)."""
    frozen = get_settings().as_of
    if frozen is not None:
        return frozen.astimezone(UTC).replace(tzinfo=None) if frozen.tzinfo else frozen
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)
