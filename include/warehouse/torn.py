"""Mends a DuckDB file whose writer was killed in the middle of a checkpoint.

Seen with DuckDB 2.0.0 (2026-11): a checkpoint writes the new version of the catalog and of the tables' pointers into
the free parts of a block that also holds the living version, and puts the whole block of 256 kB back in place with a
new checksum over it. A SIGKILL (or a power cut) during that one write leaves a block of which the beginning is new and
the rest old. The file's header still points at the living version, which is the same in both, and the log
(`.wal`) still holds everything since; but DuckDB looks at the checksum first and says "Corrupt database file".

So the checksum is worked out anew, and then every row of every table is read before anybody relies on it.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from include.errors import ConfigurationError

log = logging.getLogger(__name__)

HEADERS = 12_288  # three headers of 4 kB, then blocks
BLOCK = 262_144  # DuckDB's default; the first 8 bytes are the checksum of the others
_DAMAGED = re.compile(r"Corrupt database file: computed checksum \d+ does not match.* at location (\d+)")


def is_damaged(text: str) -> bool:
    """Whether an error of DuckDB says that a block is not what was written."""
    return _DAMAGED.search(text) is not None


def mend(file: Path, text: str) -> bool:
    """Mend the block that an error of DuckDB names, while nobody has the file open; False where there is nothing to do.

    ConfigurationError, and the file as it was, where the damage is of another kind than a checkpoint cut short.
    """
    found = _DAMAGED.search(text)
    if found is None:
        return False
    start = int(found[1])
    wal = file.with_name(f"{file.name}.wal")
    is_block = start >= HEADERS and (start - HEADERS) % BLOCK == 0 and file.stat().st_size >= start + BLOCK
    # A checkpoint takes the log away only after it is through: without one it was not cut short.
    if not is_block or not wal.exists() or wal.stat().st_size == 0:
        raise _beyond_repair(file, start)
    with file.open("r+b") as handle:
        handle.seek(start)
        block = handle.read(BLOCK)
        _write(handle.fileno(), start, checksum(block[8:]).to_bytes(8, "little"))
    if not _can_be_read(file):
        with file.open("r+b") as handle:
            _write(handle.fileno(), start, block[:8])
        raise _beyond_repair(file, start)
    log.warning(
        "the warehouse %s was left in the middle of a checkpoint by a process that was killed; block %s is mended, "
        "every table was read, nothing is lost",
        file.name,
        (start - HEADERS) // BLOCK,
    )
    return True


def checksum(body: bytes) -> int:
    """DuckDB's checksum of a block, without the 8 bytes that hold it."""
    import numpy as np

    words = np.frombuffer(body, dtype="<u8") * np.uint64(0xBF58476D1CE4E5B9)
    return int(np.bitwise_xor.reduce(words) ^ np.uint64(5381))


def _can_be_read(file: Path) -> bool:
    """Whether every row of every table can be read, the log taken in; the file is not changed by it."""
    import duckdb

    try:
        with duckdb.connect(str(file), read_only=True) as connection:
            names = connection.execute(
                "select schema_name, table_name from duckdb_tables() where not internal and not temporary"
            ).fetchall()
            for schema, table in names:
                connection.execute(f'select sum(hash(row_read)) from "{schema}"."{table}" as row_read').fetchall()
    except duckdb.Error:
        return False
    return True


def _write(descriptor: int, start: int, content: bytes) -> None:
    os.pwrite(descriptor, content, start)
    os.fsync(descriptor)


def _beyond_repair(file: Path, start: int) -> ConfigurationError:
    return ConfigurationError(
        f"the warehouse file {file.name} is damaged at byte {start}, and not by a killed process; put the newest "
        "backup of it in its place, or load and build it anew (docs/engines.md, 'A DuckDB file after a kill')"
    )
