"""The connection to the warehouse: sessions, reading, bulk writing; DuckDB, PostgreSQL or Spark SQL.

Everything that reads or writes the warehouse goes through `Warehouse`. SQL is written once, in DuckDB's dialect, and
translated to the engine's. A DuckDB file can be open in one process at a time, so a session opens it late, closes it
early, waits its turn among our own processes at a lock file and tries again while somebody else's tool holds it.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
import threading
import time
import uuid
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy
from filelock import FileLock, Timeout
from sqlalchemy.pool import NullPool
from sqlglot import exp
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from include.connections import get_connection
from include.errors import ConfigurationError, RekindleError, TransientError
from include.warehouse import postgres, spark, torn
from include.warehouse.dialects import to_sql
from include.warehouse.finished import finished
from include.warehouse.pieces import in_pieces
from include.warehouse.render import NOTHING, fill, parse_statement
from include.warehouse.tables import metadata, recorded_columns

log = logging.getLogger(__name__)

SCHEMAS = ("raw", "staging", "core", "segments", "sync", "reports")
INSERT_CHUNK = 50_000
READ_CHUNK = 10_000  # rows as Python's values at a time, where the driver gives nothing else
_SHORT = 5_000  # a longer list is worth what pyarrow does first (_arrow_array)
_PLAIN = {
    "string": str, "int64": int, "int32": int, "double": float, "bool": bool, "timestamp[us]": datetime,
    "date32[day]": date,
}  # fmt: skip
LOCK_PATIENCE_SECONDS = 120.0
QUEUE_PATIENCE_SECONDS = 3600.0
_QUIET_WAIT_SECONDS = 5.0
_DIALECTS = {"postgresql": "postgres", "postgres": "postgres", "hive": "spark", "databricks": "databricks"}
_TYPE_WORDS = {
    "varchar": "text",
    "character varying": "text",
    "string": "text",
    "double precision": "double",
    "timestamp without time zone": "timestamp",
    "integer": "integer",
    "int8": "bigint",
    "bool": "boolean",
}
_NAME = re.compile(r"[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*", re.IGNORECASE)

_locks: dict[str, FileLock] = {}
_locks_guard = threading.Lock()


class Warehouse:
    """One warehouse, by its SQLAlchemy URL. Cheap to make; nothing is opened before it is used."""

    def __init__(self, url: str) -> None:
        try:
            parsed = sqlalchemy.make_url(url)
        except sqlalchemy.exc.ArgumentError as error:
            raise ConfigurationError("the warehouse URL cannot be read; it looks like duckdb:////path/file") from error
        self.url = url
        backend = parsed.get_backend_name()
        self.dialect = _DIALECTS.get(backend, backend)
        self._file: Path | None = None
        self._anchor: Any = None
        self._staging_dir: str | None = None
        self._engine_errors: tuple[type[Exception], ...] = (sqlalchemy.exc.DBAPIError,)
        options: dict[str, Any] = {"hide_parameters": True}
        if backend == "duckdb":
            import duckdb

            # By name, because SQLAlchemy would look for it in all packages there are.
            sqlalchemy.dialects.registry.register("duckdb", "duckdb_engine", "Dialect")
            self._engine_errors = (sqlalchemy.exc.DBAPIError, duckdb.Error)
            if parsed.database in (None, "", ":memory:"):
                # A named memory database lives as long as one connection to it, and every session has its own.
                parsed = parsed.set(database=f":memory:rekindle_{uuid.uuid4().hex}")
            else:
                self._file = Path(str(parsed.database)).resolve()
                parsed = parsed.set(database=str(self._file))
            options["poolclass"] = NullPool
        elif self.dialect != "spark":
            options["pool_pre_ping"] = True
        if self.dialect == "spark":
            parsed, self._staging_dir = spark.without_options(parsed)
            options["connect_args"] = spark.connect_arguments()
            options["poolclass"] = NullPool  # a session of Spark remembers files, and would not see what others wrote
            self._engine_errors = spark.errors()
        if self.dialect == "postgres":
            # One driver, however the URL is written; prepared plans would outlive the tables that builds replace.
            parsed = parsed.set(drivername="postgresql+psycopg")
            options["connect_args"] = {"prepare_threshold": None, "client_encoding": "utf8"}
        self._parsed = parsed
        self._engine = sqlalchemy.create_engine(parsed, **options)
        if self.dialect == "postgres":
            postgres.prepare(self._engine)
        if self.dialect == "spark":
            spark.prepare()
        if backend == "duckdb" and self._file is None:
            self._anchor = self._engine.raw_connection()

    def __repr__(self) -> str:
        return f"Warehouse({self._parsed.render_as_string(hide_password=True)})"

    @property
    def deletes_rows(self) -> bool:
        """Whether single rows can be deleted, which an incremental build needs."""
        return self.dialect in ("duckdb", "postgres")

    @property
    def has_transactions(self) -> bool:
        """Whether an error takes back what a session did before it."""
        return self.dialect != "spark"

    @property
    def version(self) -> str:
        """The engine's version as far as stored hashes depend on it."""
        if self.dialect == "duckdb":
            import duckdb

            return str(duckdb.__version__)
        return ""

    def close(self) -> None:
        """Give connections back to a server; a warehouse that is closed can be used again."""
        self._engine.dispose()

    # sessions

    @contextmanager
    def session(self) -> Iterator[sqlalchemy.Connection]:
        """One transaction: committed at the end, rolled back on an error, and the file closed afterwards."""
        with self.exclusive(), self._open() as connection, connection.begin():
            yield connection

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the database open over several sessions of this process, which then open in no time."""
        with self.exclusive(), self._open():
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the file among our own processes, for a client that is not ours. Nothing to do for a server."""
        if self._file is None:
            yield
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock_for(self._file)
        began = time.monotonic()
        try:
            lock.acquire(timeout=_QUIET_WAIT_SECONDS)
        except Timeout:
            log.info("the warehouse %s is in use by another task; waiting for it", self._file.name)
            try:
                lock.acquire(timeout=QUEUE_PATIENCE_SECONDS)
            except Timeout as error:
                raise TransientError(
                    f"the warehouse {self._file.name} was in use by another task for an hour; find the task that hangs"
                ) from error
            log.info("waited %.0f s for the warehouse", time.monotonic() - began)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _open(self) -> Iterator[sqlalchemy.Connection]:
        """A connection; while somebody else's tool holds the file, try again for up to two minutes."""
        try:
            for attempt in Retrying(
                retry=retry_if_exception(_is_locked_out),
                stop=stop_after_delay(LOCK_PATIENCE_SECONDS),
                wait=wait_random_exponential(multiplier=0.1, max=3),
                before_sleep=self._say_locked_once(),
            ):
                with attempt:
                    connection = self._connect()
        except RetryError as error:
            raise TransientError(
                f"another program holds the warehouse file {self._file.name if self._file else ''} open; "
                "close it there (a DuckDB shell, a notebook, a BI tool), then run this again"
            ) from error
        except self._engine_errors as error:
            self._say_in_words(error)
            raise
        try:
            yield connection
        except self._engine_errors as error:
            self._say_in_words(error)
            raise
        finally:
            connection.close()

    def _connect(self) -> sqlalchemy.Connection:
        """A new connection; a file that was left in the middle of a checkpoint is mended first."""
        while True:
            try:
                return self._engine.connect()
            except self._engine_errors as error:
                if self._file is None or not torn.mend(self._file, str(error)):
                    raise

    def _say_in_words(self, error: Exception) -> None:
        """Raise an error of ours in the place of the engine's, where there is one."""
        if self.dialect == "spark":
            raise spark.in_words(error) from None  # the original quotes the statement with all its values
        translated = _in_words(error)
        if translated is not None:
            raise translated from error

    def _say_locked_once(self) -> Any:
        said: list[bool] = []

        def say(_: Any) -> None:
            if not said:
                log.info("another program holds the warehouse file; trying again for up to two minutes")
                said.append(True)

        return say

    def _joined(self, connection: sqlalchemy.Connection | None) -> AbstractContextManager[sqlalchemy.Connection]:
        return self.session() if connection is None else nullcontext(connection)

    # reading and writing

    def read(self, sql: str, *, connection: sqlalchemy.Connection | None = None, **params: Any) -> list[dict[str, Any]]:
        """All rows of a query. For answers that fit in memory; see `stream` for the others."""
        with self._joined(connection) as session:
            return [dict(row) for row in self._result(session, sql, params).mappings()]

    def tuples(
        self, sql: str, *, connection: sqlalchemy.Connection | None = None, **params: Any
    ) -> list[tuple[Any, ...]]:
        """All rows of a query as plain tuples; `read` for large answers."""
        with self._joined(connection) as session:
            if self.dialect == "duckdb":
                statement, values = self._statement(sql, params)
                duck: Any = session.connection.driver_connection
                found: list[tuple[Any, ...]] = duck.execute(_dollars(statement.text), values).fetchall()
                return found
            return [tuple(row) for row in self._result(session, sql, params)]

    def read_columns(self, sql: str, *, connection: sqlalchemy.Connection | None = None, **params: Any) -> Any:
        """All rows of a query as an Arrow table: the form for many rows of which most are only handed on."""
        import pyarrow as pa

        with self._joined(connection) as session:
            if self.dialect == "duckdb":
                statement, values = self._statement(sql, params)
                duck: Any = session.connection.driver_connection
                return duck.sql(_dollars(statement.text), params=values).to_arrow_table()
            found = self._result(session, sql, params)
            names = list(found.keys())
            parts = [_in_columns(names, rows) for rows in found.partitions(READ_CHUNK)]
        return pa.concat_tables(parts or [_in_columns(names, [])], promote_options="default")

    def scalar(self, sql: str, *, connection: sqlalchemy.Connection | None = None, **params: Any) -> Any:
        """The first value of the first row, None when there is no row."""
        with self._joined(connection) as session:
            return self._result(session, sql, params).scalar()

    def execute(self, sql: str, *, connection: sqlalchemy.Connection | None = None, **params: Any) -> None:
        """Run one statement."""
        with self._joined(connection) as session:
            self._result(session, sql, params)

    def clear(self, table: str, *, connection: sqlalchemy.Connection) -> None:
        """Take every row out of a table."""
        _check_name(table)
        if self.deletes_rows and connection.execute(sqlalchemy.text(f"select 1 from {table} limit 1")).fetchall():
            connection.exec_driver_sql(f"delete from {table}")

    def run_text(self, statement: str, connection: sqlalchemy.Connection) -> None:
        """Run finished SQL as it stands: no placeholders are looked for in it."""
        connection.exec_driver_sql(statement.replace("%", "%%") if self.dialect == "postgres" else statement)

    def stream(
        self, sql: str, batch: int, *, connection: sqlalchemy.Connection | None = None, **params: Any
    ) -> Iterator[list[dict[str, Any]]]:
        """Rows in lists of at most `batch`, in bounded memory.

        On DuckDB the answer is first set aside in an anonymous temporary file, so that the warehouse is free again
        while the caller works through it, for hours if need be.
        """
        if self.dialect == "duckdb":
            yield from self._stream_aside(sql, batch, connection, params)
            return
        with self._joined(connection) as session:
            result = self._result(session, sql, params, stream_results=True, yield_per=batch)
            for rows in result.mappings().partitions(batch):
                yield [dict(row) for row in rows]

    def _stream_aside(
        self, sql: str, batch: int, connection: sqlalchemy.Connection | None, params: Mapping[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        import pyarrow as pa

        statement, values = self._statement(sql, params)
        with tempfile.TemporaryFile() as aside:
            with self._joined(connection) as session:
                duck: Any = session.connection.driver_connection
                reader = duck.sql(_dollars(statement.text), params=values).to_arrow_reader(batch)
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                with pa.ipc.new_stream(aside, reader.schema, options=options) as writer:
                    for part in reader:
                        writer.write_batch(part)
            aside.seek(0)
            waiting: list[dict[str, Any]] = []
            with pa.ipc.open_stream(aside) as parts:
                for part in parts:
                    waiting.extend(part.to_pylist())
                    while len(waiting) >= batch:
                        yield waiting[:batch]
                        waiting = waiting[batch:]
            if waiting:
                yield waiting

    def insert(
        self, table: str, rows: Iterable[Mapping[str, Any]], *, connection: sqlalchemy.Connection | None = None
    ) -> int:
        """Append rows to `schema.table`; columns not named are null. Returns the number of rows."""
        _check_name(table)
        written = 0
        source = iter(rows)
        chunk = list(islice(source, INSERT_CHUNK))
        if not chunk:
            return 0
        with self._joined(connection) as session:
            schema = self._arrow_schema(session, table)
            while chunk:
                self._append_arrow(session, table, _arrow_rows(table, schema, chunk))
                written += len(chunk)
                chunk = list(islice(source, INSERT_CHUNK))
        return written

    def insert_columns(
        self, table: str, columns: Mapping[str, Any], rows: int, *, connection: sqlalchemy.Connection | None = None
    ) -> None:
        """Append rows given as whole columns, Arrow's or lists; a text is a column that says the same in every row."""
        import pyarrow as pa

        _check_name(table)
        if not rows:
            return
        with self._joined(connection) as session:
            schema = self._arrow_schema(session, table)
            arrays = [
                pa.repeat(_arrow_array([values], schema.field(name).type)[0], rows)
                if isinstance(values, str)
                else values.cast(schema.field(name).type)
                if isinstance(values, pa.ChunkedArray)
                else _arrow_array(values, schema.field(name).type)
                for name, values in columns.items()
            ]
            self._append_arrow(session, table, without_zeros(pa.Table.from_arrays(arrays, names=list(columns))))

    def _append_arrow(self, session: sqlalchemy.Connection, table: str, part: Any) -> None:
        if self.dialect == "duckdb":
            self._append(session, table, part)
        elif self.dialect == "postgres":
            postgres.copy_in(session, table, part)
        elif self.dialect == "spark":
            spark.insert(session, table, part, self._staging_dir)
        else:
            names = ", ".join(part.column_names)
            values = ", ".join(f":{name}" for name in part.column_names)
            statement = sqlalchemy.text(f"insert into {table} ({names}) values ({values})")
            session.execute(statement, part.to_pylist())

    def _arrow_schema(self, session: sqlalchemy.Connection, table: str) -> Any:
        """The columns of a table as Arrow knows them."""
        import pyarrow as pa

        missing = ConfigurationError(f"the warehouse has no table {table}; call ensure_tables first")
        if self.dialect == "duckdb":
            import duckdb

            duck: Any = session.connection.driver_connection
            try:
                return duck.sql(f"select * from {table} limit 0").to_arrow_table().schema
            except duckdb.CatalogException as error:
                raise missing from error
        columns = self.columns(table, connection=session)
        if columns is None:
            raise missing
        types = {
            "bigint": pa.int64(), "integer": pa.int32(), "smallint": pa.int16(), "double": pa.float64(),
            "real": pa.float32(), "boolean": pa.bool_(), "timestamp": pa.timestamp("us"), "date": pa.date32(),
            "numeric": pa.decimal128(38, 9),
        }  # fmt: skip
        return pa.schema([(name, types.get(kind) or _decimal(kind) or pa.string()) for name, kind in columns.items()])

    @staticmethod
    def _append(session: sqlalchemy.Connection, table: str, rows: Any) -> None:
        duck: Any = session.connection.driver_connection
        duck.register("rekindle_rows", rows)
        try:
            columns = ", ".join(f'"{name}"' for name in rows.column_names)
            duck.execute(f"insert into {table} ({columns}) select {columns} from rekindle_rows")
        finally:
            duck.unregister("rekindle_rows")

    def _result(
        self, session: sqlalchemy.Connection, sql: str, params: Mapping[str, Any], **options: Any
    ) -> sqlalchemy.CursorResult[Any]:
        """Run one statement written in our dialect, with its values."""
        if self.dialect == "spark":  # whose driver can bind none
            written = to_sql(fill(parse_statement(sql), params), self.dialect, copy=False)
            return session.exec_driver_sql(written.replace("%", "%%"), execution_options=options)
        statement, values = self._statement(sql, params)
        return session.execute(statement.execution_options(**options), values)

    @contextmanager
    def finished(self, connection: sqlalchemy.Connection, tree: exp.Expr, target: str) -> Iterator[str]:
        """The text of a large query whose answer becomes the table `target`; run it inside. The tree may be changed.

        On Spark it is what is left of the query once its pieces are set aside.
        """
        if self.dialect == "spark":
            with in_pieces(connection, tree, self.dialect, spark.beside(target)) as rest:
                yield to_sql(rest, self.dialect, copy=False)
            return
        yield to_sql(tree, self.dialect, copy=False)

    def beside(self, table: str) -> str:
        """The name under which a table is built before it takes the place of the old one."""
        return spark.beside(table) if self.dialect == "spark" else f"{table}__new"

    def _statement(self, sql: str, params: Mapping[str, Any]) -> tuple[sqlalchemy.TextClause, dict[str, Any]]:
        sizes = tuple(
            (name, len(value)) for name, value in sorted(params.items()) if isinstance(value, list | tuple | set)
        )
        text = _bound_sql(sql, self.dialect, sizes)
        values: dict[str, Any] = {}
        for name, value in params.items():
            if isinstance(value, list | tuple | set):
                values.update({f"{name}__{i}": _naive_utc(item) for i, item in enumerate(value)})
            else:
                values[name] = _naive_utc(value)
        statement = sqlalchemy.text(text)
        missing = sorted(set(statement._bindparams) - set(values))
        if missing:
            raise ConfigurationError(f"no value was given for {', '.join(':' + name for name in missing)}")
        return statement, {name: value for name, value in values.items() if name in statement._bindparams}

    # what is there

    def ensure_tables(self) -> None:
        """Create the schemas and the tables of `tables.py`, and add columns that a newer version brought."""
        with self.session() as session:
            found = self._all_columns(session)
            if all(
                name in found and not {column.name for column in table.columns} - found[name].keys()
                for name, table in metadata.tables.items()
            ) and self._has_schemas(session):
                return
            if self.dialect == "postgres":
                postgres.check_database(session)
                postgres.one_at_a_time(session)
            for schema in SCHEMAS:
                session.execute(sqlalchemy.text(f"create schema if not exists {schema}"))
            if self.dialect == "spark":
                self._ensure_on_spark(session, found)
                return
            compiler = self._engine.dialect.type_compiler_instance
            for name, table in metadata.tables.items():
                if name not in found:
                    session.execute(sqlalchemy.schema.CreateTable(table, if_not_exists=True))
                    continue
                for column in table.columns:
                    if column.name not in found[name]:
                        kind = compiler.process(column.type)
                        session.execute(sqlalchemy.text(f"alter table {name} add column {column.name} {kind}"))
                        log.info("added column %s.%s", name, column.name)
            if self.dialect == "postgres":
                postgres.create_indexes(session)

    @staticmethod
    def _ensure_on_spark(session: sqlalchemy.Connection, found: Mapping[str, Mapping[str, str]]) -> None:
        for name, columns in recorded_columns().items():
            if name not in found:
                spark.create_table(session, name, columns)
                continue
            for column, kind in columns.items():
                if column not in found[name]:
                    spark.add_column(session, name, column, kind)
                    log.info("added column %s.%s", name, column)

    def _has_schemas(self, session: sqlalchemy.Connection) -> bool:
        if self.dialect == "spark":
            return set(SCHEMAS) <= spark.schemas(session)
        rows = session.execute(sqlalchemy.text("select schema_name from information_schema.schemata"))
        return set(SCHEMAS) <= {row[0] for row in rows}

    def _all_columns(self, session: sqlalchemy.Connection) -> dict[str, dict[str, str]]:
        if self.dialect == "spark":
            return spark.all_columns(session, SCHEMAS)
        rows = session.execute(
            sqlalchemy.text(
                "select table_schema, table_name, column_name, data_type from information_schema.columns "
                "where table_schema not in ('information_schema', 'pg_catalog') "
                "order by table_schema, table_name, ordinal_position"
            )
        )
        found: dict[str, dict[str, str]] = {}
        for schema, table, column, kind in rows:
            word = str(kind).lower()
            found.setdefault(f"{schema}.{table}", {})[column] = _TYPE_WORDS.get(word, word)
        return found

    def columns(self, table: str, *, connection: sqlalchemy.Connection | None = None) -> dict[str, str] | None:
        """Column name to type (text, bigint, double, boolean, timestamp, ...) in order; None without the table."""
        _check_name(table)
        schema, name = table.split(".")
        with self._joined(connection) as session:
            if self.dialect == "spark":
                return spark.columns(session, table)
            rows = session.execute(
                sqlalchemy.text(
                    "select column_name, data_type from information_schema.columns "
                    "where table_schema = :table_schema and table_name = :table_name order by ordinal_position"
                ),
                {"table_schema": schema, "table_name": name},
            ).all()
        words = {column: str(kind).lower() for column, kind in rows}
        return {column: _TYPE_WORDS.get(word, word) for column, word in words.items()} or None

    def analyze(self, *tables: str, connection: sqlalchemy.Connection | None = None) -> None:
        """Let the engine look at tables that were just filled, where it would plan badly until it has."""
        if self.dialect != "postgres":
            return
        with self._joined(connection) as session:
            for table in tables:
                session.exec_driver_sql(f"analyze {table}")

    def expect_whole_tables(self, connection: sqlalchemy.Connection) -> None:
        """Until the end of the transaction, plan for statements that read tables whole.

        PostgreSQL guesses that a step of a long statement gives one row, and then loops over the next one's rows for
        each of thousands: the identities of 20,000 people took 9 s, now under one.
        """
        if self.dialect == "postgres":
            connection.exec_driver_sql("set local enable_nestloop = off")

    @contextmanager
    def limited_memory(self, connection: sqlalchemy.Connection, megabytes: int) -> Iterator[None]:
        """Let DuckDB, which otherwise takes most of the machine, hold this much; the rest goes to disk and back."""
        if self.dialect != "duckdb":
            yield
            return
        before = connection.exec_driver_sql(
            "select current_setting('memory_limit'), current_setting('preserve_insertion_order')"
        ).one()
        connection.exec_driver_sql(f"set memory_limit = '{megabytes}MiB'")
        connection.exec_driver_sql("set preserve_insertion_order = false")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"set memory_limit = '{before[0]}'")
            connection.exec_driver_sql(f"set preserve_insertion_order = {str(before[1]).lower()}")

    def prepare_build(self, connection: sqlalchemy.Connection, megabytes: int) -> None:
        """Let DuckDB hold this much at most, and write texts as they are, until its file is closed.

        What it may hold anyway is never raised, and what is above it goes to disk and back. Looking for what ids and
        hashes have in common was a fifth of a full build; without, the file is twice as large.
        """
        if self.dialect != "duckdb":
            return
        allowed = connection.exec_driver_sql(
            "select parse_formatted_bytes(current_setting('memory_limit'))"
        ).scalar_one()
        if allowed > megabytes << 20:
            connection.exec_driver_sql(f"set memory_limit = '{megabytes}MiB'")
        connection.exec_driver_sql("set disabled_compression_methods = 'dict_fsst'")

    def append_parquet(self, table: str, place: str, *, connection: sqlalchemy.Connection | None = None) -> int:
        """Append a Parquet file, or all that lie in a directory, to `schema.table`; returns the number of rows.

        Columns go by name and become what the table says; missing ones are null, unknown ones an error. On Spark the
        cluster reads the files, and `place` is a path or URI as the cluster sees it.
        """
        _check_name(table)
        with self._joined(connection) as session:
            if self.dialect == "spark":
                return spark.append_files(session, table, place)
            import pyarrow.dataset

            schema = self._arrow_schema(session, table)
            files = pyarrow.dataset.dataset(place, format="parquet")
            names = _column_names(table, [dict.fromkeys(files.schema.names)], schema.names)
            written = 0
            for batch in files.to_batches(columns=names, batch_size=INSERT_CHUNK):
                part = without_zeros(_as_declared(table, batch, schema))
                if self.dialect == "duckdb":
                    self._append(session, table, part)
                else:
                    postgres.copy_in(session, table, part)
                written += part.num_rows
        return written

    def take_in(self, source: str) -> int:
        """Append what dlt has left for the cluster to read, where it cannot load itself; returns the rows.

        A file is removed when its rows are in. A run that dies in between leaves files to the next one: rows may
        arrive twice and never get lost.
        """
        if self.dialect != "spark":
            return 0
        import fsspec

        system, root = fsspec.url_to_fs(f"{self._landing(source)}/raw")
        rows = 0
        with self.session() as session:
            for name in recorded_columns():
                schema, table = name.split(".")
                folder = f"{root}/{table}"
                if schema != "raw" or not system.isdir(folder):
                    continue
                for path in sorted(system.glob(f"{folder}/*.parquet")):
                    place = f"{self._landing(source)}/raw/{table}/{path.rsplit('/', 1)[-1]}"
                    rows += spark.append_files(session, name, place)
                    system.rm(path)
        return rows

    def _landing(self, source: str) -> str:
        if self._staging_dir is None:
            raise ConfigurationError(spark.NO_STAGING)
        return f"{self._staging_dir}/dlt/{source}"

    def dlt_destination(self, source: str = "") -> Any:
        """The same database as dlt wants to see it; run its load step inside `exclusive()`, and `take_in` after it.

        dlt cannot load into Spark: there it writes Parquet into the staging directory, one folder for each source.
        """
        import dlt

        if self.dialect == "spark":
            place = self._landing(source)
            return dlt.destinations.filesystem(
                bucket_url=place if "://" in place else f"file://{place}", preferred_loader_file_format="parquet"
            )

        if self.dialect == "duckdb":
            if self._file:
                return dlt.destinations.duckdb(str(self._file))
            return dlt.destinations.duckdb(self._anchor.driver_connection.execute("select 1").cursor())
        if self.dialect == "postgres":
            if not self._parsed.host or not self._parsed.username:
                raise ConfigurationError("connection warehouse: loading needs the server's host and the login")
            # dlt takes no password for a missing one; an empty one leaves it to the server's own rules.
            url = self._parsed.set(drivername="postgresql", password=str(self._parsed.password or ""))
            return dlt.destinations.postgres(
                url.render_as_string(hide_password=False), preferred_loader_file_format="csv"
            )
        raise ConfigurationError(f"loading into {self.dialect} is not supported; use DuckDB or PostgreSQL")


def get_warehouse() -> Warehouse:
    """The warehouse of the Airflow connection `warehouse`."""
    found = get_connection("warehouse")
    url = found.extra.get("url")
    if url:
        return Warehouse(str(url))
    if found.conn_type == "duckdb":
        path = found.extra.get("path") or "/".join(part for part in (found.host, found.schema) if part)
        if path:
            return Warehouse(f"duckdb:///{path}")
    if found.conn_type in ("postgres", "postgresql") and found.host:
        return Warehouse(
            sqlalchemy.URL.create(
                "postgresql+psycopg",
                username=found.login,
                password=found.password,
                host=found.host,
                port=found.port,
                database=found.schema,
                query={name: str(found.extra[name]) for name in postgres.URL_EXTRAS if found.extra.get(name)},
            ).render_as_string(hide_password=False)
        )
    if found.conn_type in spark.CONNECTION_TYPES and found.host:
        return Warehouse(
            sqlalchemy.URL.create(
                "hive",
                username=found.login,
                password=found.password,
                host=found.host,
                port=found.port or 10000,
                database=found.schema or "default",
                query={name: str(found.extra[name]) for name in spark.URL_EXTRAS if found.extra.get(name)},
            ).render_as_string(hide_password=False)
        )
    raise ConfigurationError(
        'connection warehouse: it names no database; give it the extra {"url": "duckdb:////path/warehouse.duckdb"} '
        "or make it a postgres or hiveserver2 connection"
    )


def _lock_for(path: Path) -> FileLock:
    """One lock object per file and process: a thread that holds it may take it again."""
    key = str(path)
    with _locks_guard:
        if key not in _locks:
            _locks[key] = FileLock(f"{key}.lock")
        return _locks[key]


def _is_locked_out(error: BaseException) -> bool:
    return isinstance(error, sqlalchemy.exc.DBAPIError) and "Could not set lock on file" in str(error.orig)


_MISSING_TABLE = re.compile(r"Table with name \"?(\S+?)\"? does not exist|relation \"(\S+)\" does not exist")


def _in_words(error: BaseException) -> RekindleError | None:
    found = _MISSING_TABLE.search(str(getattr(error, "orig", error)))
    if found is None:
        return postgres.in_words(error)
    return ConfigurationError(
        f"the warehouse has no table {found[1] or found[2]} yet; build it first (python -m include.warehouse build)"
    )


def _decimal(kind: str) -> Any:
    """The Arrow type of `decimal(38,9)`, None for another."""
    import pyarrow as pa

    found = re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", kind)
    return pa.decimal128(int(found[1]), int(found[2])) if found else None


def _check_name(table: str) -> None:
    if not _NAME.fullmatch(table):
        raise ConfigurationError(f"'{table}' is not a table name; it looks like schema.table")


def _arrow_rows(table: str, schema: Any, chunk: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as Arrow, in the types of the table; a value of another type is refused without being shown."""
    import pyarrow as pa

    names = _column_names(table, chunk, schema.names)
    arrays = []
    for name in names:
        field = schema.field(name)
        values = [row.get(name) for row in chunk]
        try:  # Arrow itself brings times with an offset to UTC
            arrays.append(_arrow_array(values, field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            # The text of the error would quote the value.
            raise ConfigurationError(f"{table}.{name}: a value is not of type {field.type}") from None
    return without_zeros(pa.Table.from_arrays(arrays, names=names))


def _in_columns(names: Sequence[str], rows: Sequence[Any]) -> Any:
    """Rows as an Arrow table; the first value that is there tells a column's type, a column without one has none."""
    import pyarrow as pa

    kinds = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), datetime: pa.timestamp("us"), str: pa.string()}
    columns = []
    for values in zip(*rows, strict=True) if rows else [()] * len(names):
        first = next((type(value) for value in values if value is not None), None)
        columns.append(pa.nulls(len(values)) if first is None else _arrow_array(values, kinds[first]))
    return pa.Table.from_arrays(columns, names=list(names))


def _arrow_array(values: Sequence[Any], kind: Any) -> Any:
    """Values as Arrow, in the type of a column.

    At the first list it is given pyarrow imports pandas, only to see whether the list is one of pandas' own: 0.4 s of
    computing, more than many a task takes (pyarrow 26, 2026-11). So texts, and a short list of other plain values, are
    built as texts, and an `array` of whole numbers (times are microseconds since 1970) is taken as it is.
    """
    import pyarrow as pa

    if isinstance(values, array):
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
    plain = _PLAIN.get(str(kind))
    if (
        (len(values) > _SHORT and plain is not str)
        or "pandas" in sys.modules
        or any(value is not None and type(value) is not plain for value in values)
    ):
        return pa.array(values, type=kind)
    texts = pa.lib.StringBuilder()
    texts.append_values(
        values if plain is str else [None if value is None else str(_naive_utc(value)) for value in values]
    )
    built = texts.finish()
    return built if plain is str else built.cast(kind)


def without_zeros(rows: Any) -> Any:
    """Arrow rows without the character of number zero, which no text of PostgreSQL can hold."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for position, field in enumerate(rows.schema):
        if pa.types.is_string(field.type) and pc.any(pc.match_substring(rows.column(position), "\0")).as_py():
            rows = rows.set_column(position, field, pc.replace_substring(rows.column(position), "\0", ""))
    return rows


def _as_declared(table: str, batch: Any, schema: Any) -> Any:
    """A batch of foreign rows in the types of the table."""
    import pyarrow as pa

    arrays = []
    for name in batch.schema.names:
        kind, column = schema.field(name).type, batch.column(name)
        try:
            if pa.types.is_timestamp(column.type) and column.type.tz is not None:
                column = column.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
            arrays.append(column.cast(kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise ConfigurationError(f"{table}.{name}: a value is not of type {kind}") from None
    return pa.Table.from_arrays(arrays, names=batch.schema.names)


def _column_names(table: str, chunk: Sequence[Mapping[str, Any]], known: Sequence[str]) -> list[str]:
    """The columns that the rows name, in the table's order."""
    named = set(chunk[0])
    for row in chunk:
        if not row.keys() <= named:
            named |= row.keys()
    unknown = sorted(named - set(known))
    if unknown:
        raise ConfigurationError(f"{table} has no column {', '.join(unknown)}")
    return [name for name in known if name in named]


def _naive_utc(value: Any) -> Any:
    """Times are kept in UTC without an offset."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


_MARK = re.compile(r"rekindle_bound_(\w+?)_end\b", re.IGNORECASE)
_BIND = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")


def _dollars(text: str) -> str:
    """SQLAlchemy's `:name` and `\\:` as DuckDB itself writes them."""
    return _BIND.sub(r"$\1", text).replace("\\:", ":")


_OF_ONE_RUN = re.compile(r"[0-9a-f]{32}")


@lru_cache(maxsize=512)
def _bound_sql(sql: str, dialect: str, sizes: tuple[tuple[str, int], ...]) -> str:
    """The statement in the engine's dialect, its placeholders as SQLAlchemy's `:name`; a list becomes one per value.

    Kept for the next process, unless it is hardly ever asked again: with so many values, or of a table of one run.
    """
    if sizes or _OF_ONE_RUN.search(sql):
        return _make_bound_sql(sql, dialect, sizes)
    return finished(("bound", sql, dialect), lambda: _make_bound_sql(sql, dialect, sizes))


def _make_bound_sql(sql: str, dialect: str, sizes: tuple[tuple[str, int], ...]) -> str:
    tree = parse_statement(sql)
    lists = dict(sizes)
    for node in list(tree.find_all(exp.Placeholder)):
        name = str(node.this)
        if name not in lists:
            node.replace(exp.column(f"rekindle_bound_{name}_end"))
            continue
        if not isinstance(node.parent, exp.In):
            raise ConfigurationError(f":{name} is a list; a list can only be used as `in (:{name})`")
        items: list[exp.Expr] = [exp.column(f"rekindle_bound_{name}__{i}_end") for i in range(lists[name])]
        rest = [item for item in node.parent.expressions if item is not node]
        node.parent.set("expressions", rest + (items or [exp.Literal.string(NOTHING)]))
    text = to_sql(tree, dialect, copy=False)
    return _MARK.sub(r":\1", re.sub(r":(?=\S)", r"\:", text))
