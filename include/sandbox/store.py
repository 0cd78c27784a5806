"""The state of the sandbox in one SQLite file: what the platforms hold, the journal of requests and the faults to play.

One connection, used from one thread. Each request is one transaction, so a killed process loses nothing it answered
for. Seed files (JSON lines, see `docs/sandbox.md`) are loaded once, and again when their `dataset.json` has changed.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from include.sandbox.wire import epoch

log = logging.getLogger(__name__)

JOURNAL_ROWS = 50_000

SCHEMA = """
create table if not exists meta (key text primary key, value text);
create table if not exists journal (
    id integer primary key autoincrement, at text, platform text, method text, path text, is_write integer,
    status integer, row_count integer, body text, request_bytes integer, milliseconds real, fault text);
create index if not exists journal_platform on journal (platform, id);
create table if not exists faults (id integer primary key autoincrement, spec text, remaining integer);

create table if not exists hubspot_objects (
    type text, id integer, archived integer, email text, created_ms integer, modified_ms integer, indexed_at real,
    created_at text, updated_at text, archived_at text, properties blob, primary key (type, id)) without rowid;
create index if not exists hubspot_modified on hubspot_objects (type, archived, modified_ms, id);
create index if not exists hubspot_email on hubspot_objects (type, email);
create table if not exists hubspot_properties (type text, name text, primary key (type, name)) without rowid;
create table if not exists hubspot_associations (
    from_type text, from_id integer, to_type text, to_id integer,
    primary key (from_type, from_id, to_type, to_id)) without rowid;
create table if not exists hubspot_definitions (id text primary key, body blob);
create table if not exists hubspot_statuses (
    email text, subscription_id text, status text, changed_at text, primary key (email, subscription_id)) without rowid;
create table if not exists hubspot_events (
    created integer, id text, recipient text, campaign_id text, type text, body blob,
    primary key (created, id)) without rowid;

create table if not exists mailchimp_lists (id text primary key, name text, created_at text);
create table if not exists mailchimp_merge_fields (
    list_id text, merge_id integer, tag text, name text, type text, is_required integer, body blob,
    primary key (list_id, merge_id), unique (list_id, tag)) without rowid;
create table if not exists mailchimp_members (
    list_id text, hash text, email text, status text, is_compliance integer default 0, is_forgotten integer default 0,
    merge_fields blob, extra blob, timestamp_signup text, timestamp_opt text, last_changed text, source text,
    unsubscribe_reason text, primary key (list_id, hash)) without rowid;
create index if not exists mailchimp_changed on mailchimp_members (list_id, last_changed, hash);
create table if not exists mailchimp_segments (
    id integer primary key autoincrement, list_id text, name text, created_at text, updated_at text,
    unique (list_id, name));
create table if not exists mailchimp_segment_members (
    segment_id integer, list_id text, hash text, added_at text, primary key (segment_id, hash)) without rowid;
create index if not exists mailchimp_tags_of on mailchimp_segment_members (list_id, hash);
create table if not exists automations (
    id integer primary key autoincrement, at text, list_id text, segment_id integer, tag text, email text,
    trigger text);

create table if not exists datamanager_tokens (token text primary key, expires_at real);
create table if not exists datamanager_lists (
    id integer primary key autoincrement, account_type text, account_id text, login_account text, display_name text,
    body blob, created_at real, changed_at real, is_computed integer default 0,
    unique (account_type, account_id, display_name));
create table if not exists datamanager_members (
    list_id integer, kind text, value text, added_at real, primary key (list_id, kind, value)) without rowid;
create table if not exists datamanager_requests (
    seq integer primary key autoincrement, request_id text unique, verb text, received_at real, polls integer default 0,
    processed_at real, payload blob, results blob);
"""


class Store:
    """The SQLite file; `None` keeps everything in memory."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(
            path or ":memory:", isolation_level=None, check_same_thread=False, cached_statements=256
        )
        self.db.row_factory = sqlite3.Row
        self.db.create_function("to_milliseconds", 1, milliseconds, deterministic=True)
        self.db.execute("pragma journal_mode = wal")
        self.db.execute("pragma synchronous = off")
        self.db.execute("pragma cache_size = -65536")
        self.db.executescript(SCHEMA)

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; an error inside rolls back and is raised again."""
        self.db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self.db.execute("rollback")
            raise
        self.db.execute("commit")

    def all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query."""
        return self.db.execute(sql, values).fetchall()

    def one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """The first row of a query, None without any."""
        row: sqlite3.Row | None = self.db.execute(sql, values).fetchone()
        return row

    def value(self, sql: str, *values: Any) -> Any:
        """The first column of the first row, None without any."""
        row = self.one(sql, *values)
        return None if row is None else row[0]

    def run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Execute one statement."""
        return self.db.execute(sql, values)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for many rows."""
        self.db.executemany(sql, rows)

    # the journal

    def note(
        self,
        *,
        at: str,
        platform: str,
        method: str,
        path: str,
        is_write: bool,
        status: int,
        rows: int,
        body: str | None,
        request_bytes: int,
        milliseconds: float,
        fault: str | None,
    ) -> int:
        """Write one request down; returns its number."""
        cursor = self.db.execute(
            "insert into journal (at, platform, method, path, is_write, status, row_count, body, request_bytes, "
            "milliseconds, fault) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (at, platform, method, path, is_write, status, rows, body, request_bytes, milliseconds, fault),
        )
        number = int(cursor.lastrowid or 0)
        if number % 1000 == 0:
            self.db.execute("delete from journal where id <= ?", (number - JOURNAL_ROWS,))
        return number

    # seeds

    def load_seed(self, folder: Path, now: float) -> bool:
        """Load the seed files unless exactly these are loaded; what clients made stays. True when loaded."""
        state = _seed_state(folder)
        if self.value("select value from meta where key = 'seed'") == state:
            return False
        from include.sandbox import hubspot, mailchimp

        with self.transaction():
            hubspot.load_seed(self, folder / "hubspot", now)
            mailchimp.load_seed(self, folder / "mailchimp", now)
            self.db.execute("insert or replace into meta values ('seed', ?)", (state,))
        return True


def _seed_state(folder: Path) -> str:
    """What tells one seed from another: the text of its dataset.json, or the names, sizes and times of its files."""
    dataset = folder / "dataset.json"
    if dataset.is_file():
        return dataset.read_text(encoding="utf-8")
    files = sorted(path for path in folder.glob("*/*.jsonl"))
    return "\n".join(f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)


def seed_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; a missing file has none. A bad line is a ValueError with file and line."""
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise ValueError(f"{path}:{number}: not JSON") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{path}:{number}: not a JSON object")
                yield row


def milliseconds(value: object) -> int | None:
    """An ISO time or epoch milliseconds (number or text) as epoch milliseconds; None when it is neither."""
    if isinstance(value, int | float):
        return int(value)
    if not isinstance(value, str) or not value.strip():
        return None
    if value.strip().lstrip("-").isdigit():
        return int(value)
    try:
        return round(epoch(value) * 1000)
    except ValueError:
        return None
