"""What Spark SQL needs and the other engines do not: a session that counts as they do, Parquet as the way in, words.

The warehouse is then a cluster behind a Thrift server (`hive://host:10000`). Its tables are plain Parquet: rows are
appended and tables are rebuilt whole; there are no transactions, and nothing is ever updated or deleted in place.
Used by the engine and the builder only.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import sqlalchemy

from include.errors import ConfigurationError, RekindleError, TransientError
from include.warehouse.dialects import to_sql
from include.warehouse.render import literal

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

# Extras of an Airflow connection that belong to the driver or to us.
CONNECTION_TYPES = ("hiveserver2", "hive", "spark")
URL_EXTRAS = ("auth", "kerberos_service_name", "staging_dir")

# So many rows go into the statement itself; more of them go through a Parquet file.
FEW_ROWS = 200

NO_STAGING = (
    "connection warehouse: writing into Spark needs a directory that this machine and the cluster both see; "
    "add ?staging_dir=/shared/path (or s3a://bucket/path) to its URL"
)

# Whatever the server's own settings are, a statement means the same as on the other engines.
_SESSION = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.storeAssignmentPolicy": "ANSI",
    "spark.sql.defaultColumn.useNullsForMissingDefaultValues": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.parser.escapedStringLiterals": "false",
    # `${env:HOME}` in somebody's name would be looked up on the server.
    "spark.sql.variable.substitute": "false",
    # A table without further words is a Parquet table.
    "spark.sql.sources.default": "parquet",
    "spark.sql.legacy.createHiveTableByDefault": "false",
    # Spark 4.3 (2026-11) makes an invalid plan with it of a union under two windows and a join, and then refuses it.
    "spark.sql.optimizer.excludedRules": "org.apache.spark.sql.catalyst.optimizer.RemoveRedundantAliases",
    # An answer is handed on partition by partition and is never whole in the server's memory.
    "spark.sql.thriftServer.incrementalCollect": "true",
    # Two tasks may append to one table at once: each publishes its own file and leaves the other's alone.
    "mapreduce.fileoutputcommitter.algorithm.version": "2",
    "mapreduce.fileoutputcommitter.cleanup.skipped": "true",
}
_TYPES = {
    "text": "string",
    "bigint": "bigint",
    "double": "double",
    "boolean": "boolean",
    "timestamp": "timestamp_ntz",
    "date": "date",
}
_WORDS = {"string": "text", "long": "bigint", "timestamp_ntz": "timestamp", "int": "integer", "short": "smallint"}
_COLUMN = re.compile(r"^ \|-- (.+?): (\S+) \(", re.MULTILINE)
_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_.]+)\]\s*(.*)", re.DOTALL)
_MISSING = re.compile(r"The table or view `(\w+)`\.`(\w+)` cannot be found")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_DATA_FAULTS = ("CAST_INVALID_INPUT", "DIVIDE_BY_ZERO", "ARITHMETIC_OVERFLOW", "CAST_OVERFLOW", "NUMERIC_VALUE_OUT")
_PASSING = ("FAILED_READ_FILE", "FileNotFoundException", "Job aborted", "SparkContext was shut down")


def without_options(url: sqlalchemy.URL) -> tuple[sqlalchemy.URL, str | None]:
    """The URL as the driver takes it, and the directory where data for the cluster may be left."""
    staging = url.query.get("staging_dir")
    # The driver reads plain texts only, and insists on a database.
    bare = url.set(query={name: value for name, value in url.query.items() if name != "staging_dir"})
    return bare, str(staging).rstrip("/") if staging else None


def connect_arguments() -> dict[str, Any]:
    """What the driver hands to the server when a session begins."""
    return {"configuration": {f"set:hiveconf:{name}": value for name, value in _SESSION.items()}}


def errors() -> tuple[type[Exception], ...]:
    """What the driver raises: errors of the database, and those of its transport as they are."""
    from thrift.Thrift import TException

    return (sqlalchemy.exc.DBAPIError, TException)


def prepare() -> None:
    """Keep the driver quiet, and have it give dates as dates."""
    from pyhive import hive

    # It writes every statement to the log, and with it the values.
    logging.getLogger("pyhive.hive").setLevel(logging.WARNING)
    hive.TYPES_CONVERTER.setdefault("DATE_TYPE", date.fromisoformat)


# what went wrong


def said(error: BaseException) -> tuple[str, str]:
    """Spark's name for an error and its first sentence, without values and without the statement."""
    status = getattr(next(iter(getattr(error, "args", ())), None), "status", None)
    message = str(getattr(status, "errorMessage", None) or "")
    found = _CONDITION.search(message)
    if found is None:
        return "", _QUOTED.sub("'...'", (message or type(error).__name__).splitlines()[0])[:200]
    # The message is there twice, with the class of the exception between.
    text = found[2].split(f"[{found[1]}]")[-1].split("SQLSTATE")[0].split("== SQL")[0]
    return found[1], " ".join(_QUOTED.sub("'...'", text).split())[:300]


def in_words(error: BaseException) -> RekindleError:
    """What went wrong as one of our errors; the driver's own would quote the statement and all that is in it."""
    cause = getattr(error, "orig", None) or error
    if not isinstance(error, sqlalchemy.exc.DBAPIError) or isinstance(cause, errors()[1:]):
        return TransientError("the warehouse's server does not answer; is it running, and reachable from here?")
    name, sentence = said(cause)
    if name.startswith("TABLE_OR_VIEW_NOT_FOUND"):
        missing = _MISSING.search(sentence)
        table = f"{missing[1]}.{missing[2]}" if missing else "of that name"
        return ConfigurationError(
            f"the warehouse has no table {table} yet; build it first (python -m include.warehouse build)"
        )
    if any(word in name or word in sentence for word in _PASSING):
        return TransientError(f"the cluster gave up ({name or sentence}); a table may have been replaced; run it again")
    return ConfigurationError(f"Spark says: {f'[{name}] ' if name else ''}{sentence}")


# what is there


def word(kind: str) -> str:
    """Spark's name of a type as ours."""
    return _WORDS.get(kind, kind)


def schemas(session: sqlalchemy.Connection) -> set[str]:
    """The schemas there are."""
    return {str(row[0]) for row in session.exec_driver_sql("show schemas")}


def all_columns(session: sqlalchemy.Connection, wanted: Sequence[str]) -> dict[str, dict[str, str]]:
    """The columns of all tables and views in some schemas."""
    found = {}
    for schema in sorted(schemas(session) & set(wanted)):
        for database, table, is_temporary, text in session.exec_driver_sql(f"show table extended in {schema} like '*'"):
            if database == schema and not is_temporary:
                columns = text.split("Schema: root", 1)[-1]
                found[f"{schema}.{table}"] = {name: word(kind) for name, kind in _COLUMN.findall(columns)}
    return found


def columns(session: sqlalchemy.Connection, table: str) -> dict[str, str] | None:
    """The columns of one table in order; None when there is none."""
    try:
        rows = session.exec_driver_sql(f"describe {table}").all()
    except sqlalchemy.exc.DBAPIError as error:
        if said(error.orig or error)[0].startswith(("TABLE_OR_VIEW_NOT_FOUND", "SCHEMA_NOT_FOUND")):
            return None
        raise
    return {name: word(kind) for name, kind, _ in rows}


def beside(target: str) -> str:
    """A new name for what is built beside a table. What a server that died left in a folder would be in the way of an
    old name."""
    return f"{target}__{uuid.uuid4().hex[:8]}"


def drop_leftovers(session: sqlalchemy.Connection, target: str) -> None:
    """Drop what a build of this table that died left beside it."""
    schema, name = target.split(".")
    if schema in schemas(session):
        for row in session.exec_driver_sql(f"show tables in {schema} like '{name}__*'").all():
            session.exec_driver_sql(f"drop table if exists {schema}.{row[1]}")


def create_table(session: sqlalchemy.Connection, name: str, columns: Mapping[str, str]) -> None:
    """An empty table."""
    listed = ", ".join(f"{column} {_TYPES[kind]}" for column, kind in columns.items())
    session.exec_driver_sql(f"create table if not exists {name} ({listed}) using parquet")


def add_column(session: sqlalchemy.Connection, table: str, column: str, kind: str) -> None:
    """One more column, null in the rows that are there."""
    session.exec_driver_sql(f"alter table {table} add columns ({column} {_TYPES[kind]})")


def typed(session: sqlalchemy.Connection, query: str) -> str:
    """The query with a plain type for a column that is nothing but null."""
    if "NULL AS" not in query.upper():
        return query
    described = session.exec_driver_sql(f"describe query {query}".replace("%", "%%")).all()
    if not any(kind == "void" for _, kind, *_ in described):
        return query
    listed = ", ".join(
        f"cast(`{name}` as string) as `{name}`" if kind == "void" else f"`{name}`" for name, kind, *_ in described
    )
    return f"select {listed} from ({query}) as typed"


# data on its way in


def insert(session: sqlalchemy.Connection, table: str, rows: pa.Table, staging_dir: str | None) -> None:
    """Append Arrow rows: a few as values in the statement, more through a Parquet file that the cluster reads."""
    if rows.num_rows <= FEW_ROWS:
        _insert_values(session, table, rows)
        return
    if staging_dir is None:
        raise ConfigurationError(NO_STAGING)
    import fsspec
    import pyarrow.parquet

    place = f"{staging_dir}/{uuid.uuid4().hex}.parquet"
    system, path = fsspec.url_to_fs(place)
    system.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    try:
        with system.open(path, "wb") as file:
            pyarrow.parquet.write_table(rows, file)
        append_parquet(session, table, place, rows.column_names)
    finally:
        if system.exists(path):
            system.rm(path)


def append_files(session: sqlalchemy.Connection, table: str, place: str) -> int:
    """Append foreign Parquet to a table, in the table's types; unknown columns are an error. Returns the rows."""
    wanted = columns(session, table)
    if wanted is None:
        raise ConfigurationError(f"the warehouse has no table {table}; call ensure_tables first")
    source = f"parquet.`{_uri(place)}`"
    found = [
        str(row[0]) for row in session.exec_driver_sql(f"describe query select * from {source}".replace("%", "%%"))
    ]
    unknown = sorted(name for name in found if name.lower() not in wanted)
    if unknown:
        raise ConfigurationError(f"{table} has no column {', '.join(unknown)}")
    names = ", ".join(f"`{name}`" for name in found)
    typed = ", ".join(f"cast(`{name}` as {_TYPES.get(wanted[name.lower()], wanted[name.lower()])})" for name in found)
    counted = session.exec_driver_sql(f"select count(*) from {source}".replace("%", "%%")).scalar_one()
    _run(session, f"insert into {table} ({names}) select {typed} from {source}")
    return int(counted)


def append_parquet(session: sqlalchemy.Connection, table: str, place: str, names: Sequence[str]) -> None:
    """Append what lies in a Parquet file or directory, by the names of its columns."""
    listed = ", ".join(f"`{name}`" for name in names)
    # One task and one file: nobody ever sees half of it.
    _run(session, f"insert into {table} ({listed}) select /*+ coalesce(1) */ {listed} from parquet.`{_uri(place)}`")


def _uri(place: str) -> str:
    if "`" in place:
        raise ConfigurationError("a directory for Spark cannot have a backtick in its name")
    return place if "://" in place else f"file://{place}"


def _insert_values(session: sqlalchemy.Connection, table: str, rows: pa.Table) -> None:
    import pyarrow as pa

    kinds = [_kind(pa, field.type) for field in rows.schema]
    lines = ", ".join(
        "(" + ", ".join(_written(row[name], kind) for name, kind in zip(rows.column_names, kinds, strict=True)) + ")"
        for row in rows.to_pylist()
    )
    listed = ", ".join(f"`{name}`" for name in rows.column_names)
    _run(
        session,
        f"insert into {table} ({listed}) select /*+ coalesce(1) */ * from values {lines} as given ({listed})",
    )


def _kind(pa: Any, kind: Any) -> str:
    if pa.types.is_timestamp(kind):
        return "timestamp_ntz"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    return {"string": "string", "int64": "bigint", "int32": "int", "double": "double", "bool": "boolean"}.get(
        str(kind), {"date32[day]": "date", "int16": "smallint", "float": "float"}.get(str(kind), "string")
    )


def _written(value: Any, kind: str) -> str:
    if value is None:
        return f"cast(null as {kind})"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"cast('{value}' as {kind})"
    text = to_sql(literal(value), "spark")
    return text if kind in ("string", "boolean", "timestamp_ntz") else f"cast({text} as {kind})"


def _run(session: sqlalchemy.Connection, statement: str) -> None:
    session.exec_driver_sql(statement.replace("%", "%%"))
