"""What PostgreSQL needs and DuckDB does not: session settings, COPY, and a change-over that keeps views and grants.

Used by the engine and the builder only.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy

from include.errors import ConfigurationError, RekindleError, TransientError

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

# Compares and sorts by code point and knows the small letters of every script; PostgreSQL 17 and newer.
DATABASE_KIND = "template template0 encoding 'UTF8' locale_provider builtin builtin_locale 'C.UTF-8' locale 'C'"

# Extras of an Airflow connection that go to the server's driver as they are.
URL_EXTRAS = (
    "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "application_name", "options",
    "target_session_attrs",
)  # fmt: skip

_INDEXES = {
    "sync.plan_rows": "plan_id, row_number",
    "sync.exclusions": "plan_id",
    "sync.ledger": "plan_id, member_key",
}

# Just-in-time compilation costs seconds on statements of this size and gains nothing.
_SESSION = "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set jit = off"
_PASSING = {
    "DeadlockDetected", "SerializationFailure", "LockNotAvailable", "AdminShutdown", "CrashShutdown",
    "CannotConnectNow", "TooManyConnections", "DiskFull", "ConnectionFailure", "ConnectionException", "QueryCanceled",
}  # fmt: skip
_NOT_LET_IN = re.compile(r"FATAL: +(.*(?:authentication failed|does not exist|no pg_hba.conf entry|not permitted).*)")


def prepare(engine: sqlalchemy.Engine) -> None:
    """Give every new connection of the engine the settings our SQL counts on."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        connection.execute(_SESSION)
        connection.autocommit = False


def in_words(error: BaseException) -> RekindleError | None:
    """A failure that is about the server and not about the SQL, as one of ours."""
    if not isinstance(error, sqlalchemy.exc.DBAPIError):
        return None
    cause = error.orig
    name = type(cause).__name__
    if name in _PASSING:
        return TransientError(f"the warehouse's server stopped this session ({name}); run it again")
    if name == "InsufficientPrivilege":
        said = getattr(getattr(cause, "diag", None), "message_primary", None)
        return ConfigurationError(f"the warehouse's login may not do that: {said}; it must own the schemas it writes")
    if name in ("AmbiguousParameter", "IndeterminateDatatype"):
        return ConfigurationError("PostgreSQL cannot tell the type of a value in this SQL; write `cast(:name as text)`")
    if isinstance(error, sqlalchemy.exc.OperationalError):
        refused = _NOT_LET_IN.search(str(cause))
        if refused:
            return ConfigurationError(f"connection warehouse: the server says: {refused[1].strip()}")
        if error.connection_invalidated or getattr(cause, "sqlstate", None) is None:
            return TransientError("the warehouse's server does not answer; is it running, and reachable from here?")
    return None


def create_database(admin_url: str, url: str) -> list[str]:
    """Make the login and the database of a warehouse where they are missing; returns what was made.

    `admin_url` is the server with a login that may do so, `url` the warehouse to come.
    """
    wanted = sqlalchemy.make_url(url)
    engine = sqlalchemy.create_engine(
        sqlalchemy.make_url(admin_url).set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )
    made = []
    try:
        with engine.connect() as connection:
            quote = engine.dialect.identifier_preparer.quote_identifier
            asked = {"login": wanted.username, "password": str(wanted.password or ""), "name": wanted.database}
            if not connection.execute(sqlalchemy.text("select 1 from pg_roles where rolname = :login"), asked).scalar():
                # A password cannot be bound here; the server itself quotes it.
                statement = connection.execute(
                    sqlalchemy.text(
                        "select format('create role %I login password %L', cast(:login as text), "
                        "cast(:password as text))"
                    ),
                    asked,
                ).scalar_one()
                with _without_statement():
                    connection.exec_driver_sql(statement.replace("%", "%%"))
                made.append(f"login {wanted.username}")
            if not connection.execute(
                sqlalchemy.text("select 1 from pg_database where datname = :name"), asked
            ).scalar():
                owner = quote(str(wanted.username))
                connection.exec_driver_sql(f"grant {owner} to current_user")
                connection.exec_driver_sql(
                    f"create database {quote(str(wanted.database))} owner {owner} {DATABASE_KIND}"
                )
                made.append(f"database {wanted.database}")
    except sqlalchemy.exc.DBAPIError as error:
        raise in_words(error) or error from error
    finally:
        engine.dispose()
    return made


@contextmanager
def _without_statement() -> Iterator[None]:
    """The statement holds a password: an error may not quote it."""
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        raise ConfigurationError(
            f"the login of the warehouse could not be made ({type(error.orig).__name__})"
        ) from None


def one_at_a_time(session: sqlalchemy.Connection, what: str = "the shape of the warehouse") -> None:
    """Wait until no other session works on the same thing, and keep the others waiting until this transaction ends."""
    session.exec_driver_sql("select pg_advisory_xact_lock(hashtext('rekindle'), hashtext(%(what)s))", {"what": what})


def check_database(session: sqlalchemy.Connection) -> None:
    """ConfigurationError where e-mail addresses would be compared wrongly: not UTF-8, or blind to letters like É."""
    is_fit = (
        session.exec_driver_sql("show server_encoding").scalar_one() == "UTF8"
        and session.exec_driver_sql("select lower('É') = 'é'").scalar_one()
    )
    if not is_fit:
        raise ConfigurationError(
            "the warehouse's database must be UTF8 and know small letters of every script; "
            f"make one with: create database warehouse {DATABASE_KIND}"
        )


def create_indexes(session: sqlalchemy.Connection) -> None:
    """For what is looked up by plan, page by page; everything else is read whole."""
    for table, columns in _INDEXES.items():
        name = table.split(".")[1]
        session.exec_driver_sql(f"create index if not exists {name}_by_plan on {table} ({columns})")


def copy_in(session: sqlalchemy.Connection, table: str, rows: pa.Table) -> None:
    """Append Arrow rows by COPY: unquoted nothing is null, quoted nothing is an empty text."""
    import pyarrow.csv

    buffer = io.BytesIO()
    pyarrow.csv.write_csv(rows, buffer, pyarrow.csv.WriteOptions(include_header=False))
    columns = ", ".join(f'"{name}"' for name in rows.column_names)
    driver: Any = session.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"copy {table} ({columns}) from stdin (format csv)") as copy:
        copy.write(buffer.getbuffer())


# the change-over

_DEPENDENTS = """
    with recursive dependents (oid, depth) as (
        select rewrites.ev_class, 1
        from pg_depend as depends
        inner join pg_rewrite as rewrites on depends.objid = rewrites.oid
        where depends.classid = 'pg_rewrite'::regclass and depends.refclassid = 'pg_class'::regclass
            and depends.refobjid = to_regclass(%(name)s) and rewrites.ev_class <> depends.refobjid
        union
        select rewrites.ev_class, dependents.depth + 1
        from dependents
        inner join pg_depend as depends
            on depends.refobjid = dependents.oid and depends.refclassid = 'pg_class'::regclass
        inner join pg_rewrite as rewrites on depends.objid = rewrites.oid and depends.classid = 'pg_rewrite'::regclass
        where rewrites.ev_class <> dependents.oid and dependents.depth < 100
    )
    select classes.oid, format('%%I.%%I', schemas.nspname, classes.relname) as name,
        schemas.nspname || '.' || classes.relname as plain_name,
        case classes.relkind when 'm' then 'materialized view' else 'view' end as kind,
        pg_get_viewdef(classes.oid) as definition, pg_get_userbyid(classes.relowner) as owner,
        pg_get_userbyid(classes.relowner) = current_user as is_own,
        (select array_agg(pg_get_indexdef(indexrelid)) from pg_index where indrelid = classes.oid) as indexes
    from pg_class as classes
    inner join pg_namespace as schemas on classes.relnamespace = schemas.oid
    inner join (select oid, max(depth) as depth from dependents group by oid) as found on found.oid = classes.oid
    order by found.depth, classes.oid
"""
_GRANTS = """
    select format('grant %%s on %%s to %%s%%s', grants.privilege_type, %(name)s::text,
        case grants.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grants.grantee)) end,
        case when grants.is_grantable then ' with grant option' else '' end)
    from pg_class as classes, aclexplode(classes.relacl) as grants
    where classes.oid = to_regclass(%(name)s) and grants.grantee <> classes.relowner
"""


@contextmanager
def keeping_dependents(session: sqlalchemy.Connection, target: str, ours: Collection[str]) -> Iterator[None]:
    """Inside, `target` may be dropped with `cascade` and made anew; grants and the views over it are there again after.

    Views of ours (`ours`, by name) are made anew from their files, by `ensure_views`, when they do not fit any more.
    Somebody else's view that does not fit stops the change, and everything stays as it was.
    """
    parameters = {"name": target}
    dependents = session.exec_driver_sql(_DEPENDENTS, parameters).mappings().all()
    if dependents:
        one_at_a_time(session)
        dependents = session.exec_driver_sql(_DEPENDENTS, parameters).mappings().all()
    grants = list(session.exec_driver_sql(_GRANTS, parameters).scalars())
    view_grants = {row["oid"]: list(_grants_of(session, row["name"])) for row in dependents}
    yield
    for grant in grants:
        session.exec_driver_sql(grant.replace("%", "%%"))
    for view in dependents:
        _make_again(session, view, view_grants[view["oid"]], target, ours)


def _grants_of(session: sqlalchemy.Connection, name: str) -> list[str]:
    return list(session.exec_driver_sql(_GRANTS, {"name": name}).scalars())


def _make_again(
    session: sqlalchemy.Connection, view: Any, grants: list[str], target: str, ours: Collection[str]
) -> None:
    name, kind = view["name"], view["kind"]
    statements = [
        f"create {kind} {name} as {view['definition'].rstrip().rstrip(';')}",
        *(view["indexes"] or []),
        *grants,
    ]
    if not view["is_own"]:
        statements.append(f'alter {kind} {name} owner to "{view["owner"]}"')
    try:
        with session.begin_nested():
            for statement in statements:
                session.exec_driver_sql(statement.replace("%", "%%"))
    except sqlalchemy.exc.ProgrammingError as error:
        if view["plain_name"] in ours:
            log.info("view %s does not fit the new %s; it is made anew with the next views", view["plain_name"], target)
            return
        said = getattr(getattr(error.orig, "diag", None), "message_primary", "")
        raise ConfigurationError(
            f"{target} cannot be replaced: the {kind} {view['plain_name']} reads it and does not fit any more "
            f"({said}); change or drop that view, then run this again"
        ) from error
