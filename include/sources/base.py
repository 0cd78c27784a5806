"""What a source is: a class that reads one kind of system and yields typed rows for the tables of `raw`.

One kind is one module in this folder with one subclass of `Source`; a definition file names it with `kind:`. The
base owns what is the same everywhere: Arrow schemas taken from the warehouse's own table list, the columns `source`
and `loaded_at`, rejected rows, progress, and pacing. `load.py` owns dlt, state and the warehouse.
"""

from __future__ import annotations

import importlib
import json
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from include.connections import Connection
from include.errors import ConfigurationError
from include.warehouse.tables import metadata

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

Progress = Callable[[str], None]
State = dict[str, Any]
Batch = tuple[str, "pa.Table"]
BATCH_ROWS = 5_000


class SourceSettings(BaseModel):
    """Base of what a definition file may set for one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass
class Run:
    """One run of one source: who it is, when it began, and how it reports."""

    name: str
    connection: Connection
    loaded_at: datetime
    progress: Progress | None = None
    rows: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    _spoke_at: float = field(default_factory=time.monotonic)
    _began_at: float = field(default_factory=time.monotonic)

    def say(self, text: str, *args: object) -> None:
        """One line for the task log, and for the terminal where there is one."""
        log.info("%s: " + text, self.name, *args)
        if self.progress is not None:
            self.progress(f"{self.name}: " + (text % args if args else text))

    def advance(self, what: str, done: int, total: int | None = None, every: float = 10.0) -> None:
        """Report rows, rate and remaining time, at most once in `every` seconds."""
        now = time.monotonic()
        if now - self._spoke_at < every:
            return
        self._spoke_at = now
        rate = done / max(now - self._began_at, 0.001)
        if total and total > done > 0:
            self.say("%s: %s of %s (%.0f/s, about %.0f s left)", what, done, total, rate, (total - done) / rate)
        else:
            self.say("%s: %s so far (%.0f/s)", what, done, rate)

    def start_clock(self) -> None:
        """Begin a new step, so that rates are about this step."""
        self._began_at = self._spoke_at = time.monotonic()


class Source(ABC):
    """A system we read."""

    kind: ClassVar[str]
    label: ClassVar[str]
    docs_url: ClassVar[str]
    Settings: ClassVar[type[SourceSettings]] = SourceSettings

    def __init__(self, run: Run, settings: SourceSettings) -> None:
        self.run = run
        self.settings = settings

    @abstractmethod
    def read(self, state: State) -> Iterator[Batch]:
        """Yield (raw table, Arrow rows) of everything new since `state`, and bring `state` up to date.

        `state` is kept only together with the rows: when a run dies, the next one starts from the old state.
        """

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Arrow rows for one raw table from dicts; `source` and `loaded_at` are filled in here."""
        import pyarrow as pa

        schema = raw_schema(name)
        stamped = {"source": self.run.name, "loaded_at": self.run.loaded_at}
        arrays = [
            pa.array([stamped[c.name]] * len(rows) if c.name in stamped else [r.get(c.name) for r in rows], c.type)
            for c in schema
        ]
        return name, pa.Table.from_arrays(arrays, schema=schema)

    def stamp(self, name: str, rows: pa.Table) -> Batch:
        """Bring Arrow rows to a raw table's columns: missing ones are null, `source` and `loaded_at` filled in."""
        import pyarrow as pa

        schema = raw_schema(name)
        arrays = []
        for column in schema:
            if column.name == "source":
                arrays.append(pa.repeat(pa.scalar(self.run.name, column.type), rows.num_rows))
            elif column.name == "loaded_at":
                arrays.append(pa.repeat(pa.scalar(self.run.loaded_at, column.type), rows.num_rows))
            elif column.name in rows.column_names:
                arrays.append(rows.column(column.name).cast(column.type))
            else:
                arrays.append(pa.nulls(rows.num_rows, column.type))
        return name, pa.Table.from_arrays(arrays, schema=schema)


class Rows:
    """Collects dict rows per raw table and hands them on in batches."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.pending: dict[str, list[dict[str, Any]]] = {}

    def add(self, table: str, row: dict[str, Any]) -> None:
        """Put one row aside for its table."""
        self.pending.setdefault(table, []).append(row)

    def reject(self, table: str, location: str, reason: str, raw: object) -> None:
        """Set a row aside with the reason, in words a person can act on."""
        text = raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, default=str)
        self.add("rejected_rows", {"table_name": table, "location": location, "reason": reason, "raw_row": text})

    def full(self) -> Iterator[Batch]:
        """The tables that hold a batch by now."""
        for table in [name for name, rows in self.pending.items() if len(rows) >= BATCH_ROWS]:
            yield self.source.table(table, self.pending.pop(table))

    def rest(self) -> Iterator[Batch]:
        """Everything that is left."""
        for table in list(self.pending):
            yield self.source.table(table, self.pending.pop(table))


class Pace:
    """At most `calls` within any `seconds`; `wait` sleeps as long as that takes. Safe between threads."""

    def __init__(self, calls: int, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self.calls = calls
        self.seconds = seconds
        self._sleep = sleep
        self._times: deque[float] = deque()
        self._lock = Lock()

    def wait(self) -> None:
        """Return when one more call is allowed."""
        with self._lock:
            now = time.monotonic()
            while self._times and now - self._times[0] >= self.seconds:
                self._times.popleft()
            start = now
            if len(self._times) >= self.calls:
                start = self._times[-self.calls] + self.seconds
            self._times.append(start)
        if start > now:
            self._sleep(start - now)


@lru_cache
def raw_schema(name: str) -> pa.Schema:
    """The Arrow schema of a raw table, from the warehouse's own list."""
    import pyarrow as pa

    types = {
        "Text": pa.string(),
        "BigInteger": pa.int64(),
        "Double": pa.float64(),
        "Boolean": pa.bool_(),
        "DateTime": pa.timestamp("us"),
    }
    return pa.schema([(c.name, types[type(c.type).__name__]) for c in metadata.tables[f"raw.{name}"].columns])


def raw_tables() -> list[str]:
    """The raw tables a source may fill."""
    return [key.removeprefix("raw.") for key in metadata.tables if key.startswith("raw.")]


def raw_columns(name: str) -> dict[str, str]:
    """Columns of a raw table with their type: text, bigint, double, boolean or timestamp."""
    words = {"Text": "text", "BigInteger": "bigint", "Double": "double", "Boolean": "boolean", "DateTime": "timestamp"}
    return {c.name: words[type(c.type).__name__] for c in metadata.tables[f"raw.{name}"].columns}


def source_class(kind: str) -> type[Source]:
    """The class of a kind by name; ConfigurationError where there is none."""
    try:
        module = importlib.import_module(f"include.sources.{kind}")
    except ModuleNotFoundError as error:
        if error.name != f"include.sources.{kind}":
            raise
        raise ConfigurationError(f"there is no kind of source '{kind}' (no include/sources/{kind}.py)") from error
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, Source) and found.__module__ == module.__name__:
            return found
    raise ConfigurationError(f"'{kind}' is not a kind of source: include/sources/{kind}.py has no Source class")


def utc_now() -> datetime:
    """Now in UTC without an offset, as the warehouse keeps times."""
    return datetime.now(UTC).replace(tzinfo=None)
