"""Exported files: find them, notice which are new or rewritten, and read them by lines with their line numbers."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from include.errors import ConfigurationError, TransientError
from include.settings import get_settings

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

CHUNK_LINES = 20_000
CHUNK_BYTES = 32 * 1024 * 1024
DATA_ENDINGS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")


def file_format(path: Path) -> str | None:
    """parquet, jsonl, csv or None, from the name; a .gz at the end is looked through."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        return None if path.name.lower().endswith(".gz") else "parquet"
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return "jsonl"
    if name.endswith((".csv", ".tsv", ".txt")):
        return "csv"
    return None


@dataclass(frozen=True)
class DataFile:
    """A file as it was when we looked: `name` is relative to its folder and is what logs and rejected rows show."""

    path: Path
    name: str
    format: str
    size: int
    mtime_ns: int

    @property
    def signature(self) -> list[int]:
        """What tells a rewritten file from the one we know."""
        return [self.size, self.mtime_ns]


def find_files(base: Path, patterns: Sequence[str], formats: Sequence[str]) -> list[DataFile]:
    """Data files below `base` that match one of the patterns (at any depth), sorted by name.

    A folder that matches stands for the data files in it. `base` may itself be a file or a pattern.
    """
    if base.is_file():
        root, found = base.parent, {base}
    elif base.is_dir():
        root, found = base, set()
        for pattern in patterns:
            for path in base.rglob(pattern) if "/" not in pattern else base.glob(pattern):
                found.update(p for p in path.rglob("*")) if path.is_dir() else found.add(path)
    else:
        root, found = base.parent, set(base.parent.glob(base.name)) if base.parent.is_dir() else set()
    files = []
    for path in sorted(found):
        kind = file_format(path)
        if kind is None or kind not in formats or path.name.startswith((".", "_")) or not path.is_file():
            continue
        stat = path.stat()
        files.append(DataFile(path, path.relative_to(root).as_posix(), kind, stat.st_size, stat.st_mtime_ns))
    return files


@dataclass
class Lines:
    """A chunk of text lines with their numbers, and the ones that are no text."""

    numbers: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)

    def arrow(self) -> pa.Table:
        """The lines as columns `line_number` and `line`."""
        import pyarrow as pa

        return pa.table({"line_number": pa.array(self.numbers, pa.int64()), "line": pa.array(self.texts, pa.string())})


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, through gzip where its name says so."""
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def read_lines(file: DataFile) -> Iterator[Lines]:
    """The lines of a file in chunks; a line that is not UTF-8 and a file that breaks off are told in `broken`."""
    chunk, size, number = Lines(), 0, 0
    try:
        with open_bytes(file.path) as handle:
            for number, raw in enumerate(handle, 1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError:
                    chunk.broken.append((number, "not UTF-8 text"))
                    continue
                if not text:
                    continue
                chunk.numbers.append(number)
                chunk.texts.append(text)
                size += len(raw)
                if len(chunk.texts) >= CHUNK_LINES or size >= CHUNK_BYTES:
                    yield chunk
                    chunk, size = Lines(), 0
    except (EOFError, gzip.BadGzipFile, zlib.error):
        chunk.broken.append((number + 1, "the compressed file breaks off or is damaged here"))
    except OSError as error:
        raise TransientError(f"{file.name}: cannot be read ({type(error).__name__})") from error
    if chunk.texts or chunk.broken:
        yield chunk


def work_database() -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that turns files into typed rows; it spills to the state folder when they are large."""
    import duckdb

    spill = get_settings().state_dir / "spill"
    spill.mkdir(parents=True, exist_ok=True)
    database = duckdb.connect(":memory:", config={"temp_directory": str(spill), "threads": 2})
    database.execute("set TimeZone = 'UTC'")
    return database


def parquet_schema(file: DataFile) -> pa.Schema | None:
    """The schema of a Parquet file, None when it is not one (or only half written)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(file.path)
    except pa.ArrowInvalid:
        return None
    except OSError as error:
        raise TransientError(f"{file.name}: cannot be read ({type(error).__name__})") from error


def is_damage(error: Exception) -> bool:
    """Whether DuckDB says that a file is broken inside, and not that our SQL or the machine is."""
    import duckdb

    return type(error) is duckdb.Error or isinstance(
        error, duckdb.InvalidInputException | duckdb.SerializationException | duckdb.IOException
    )


def batches(database: duckdb.DuckDBPyConnection, sql: str) -> Iterator[pa.Table]:
    """The answer of a query as Arrow tables of moderate size."""
    import pyarrow as pa

    reader = database.sql(sql).to_arrow_reader(50_000)
    for batch in reader:
        yield pa.Table.from_batches([batch])


def quote(text: str) -> str:
    """A SQL text literal."""
    return "'" + text.replace("'", "''") + "'"


def name(identifier: str) -> str:
    """A SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def base_folder(conn_id: str, extra: Any, chosen: str | None) -> Path:
    """Where the files are: the definition's own `path`, else the connection's extra `path`."""
    text = chosen or extra.get("path")
    if not text:
        raise ConfigurationError(
            f"connection {conn_id}: its extra has no 'path' (the folder of the exported files); "
            "add it in Admin > Connections"
        )
    return Path(str(text)).expanduser()


def announce_new_columns(run: Any, state: dict[str, Any], key: str, columns: Sequence[str]) -> None:
    """One line when a file has columns that earlier ones did not have; they are not loaded."""
    seen = state.setdefault("columns", {})
    known = seen.get(key)
    if known is None:
        seen[key] = sorted(columns)
        return
    fresh = sorted(set(columns) - set(known))
    if fresh:
        run.say("%s has new columns, which are not loaded: %s", key, ", ".join(fresh))
        seen[key] = sorted({*known, *fresh})


def as_json(value: object) -> str:
    """A stable text of a setting, to notice that it changed."""
    return json.dumps(value, sort_keys=True, default=str)
