"""A DuckDB file after a checkpoint that was cut short: it opens, with every row that was committed."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigurationError
from include.warehouse.engine import Warehouse
from include.warehouse.torn import BLOCK, HEADERS, checksum, is_damaged

TABLES = 100  # their pointers fill more than one block


@dataclass(frozen=True)
class Checkpoint:
    """A file before and after a checkpoint, the log that it takes in, and what the tables hold."""

    before: bytes
    wal: bytes
    after: bytes
    rows: list[tuple[int, int, str]]

    def overwritten(self) -> list[int]:
        """Where blocks begin that the living version uses and the checkpoint writes over."""
        places = range(HEADERS, len(self.before), BLOCK)
        return [start for start in places if self.before[start : start + BLOCK] != self.after[start : start + BLOCK]]

    def cut_short(self, file: Path, start: int, size: int) -> None:
        """The file as a writer leaves it that dies after `size` bytes of one block."""
        torn = bytearray(self.before)
        torn[start : start + size] = self.after[start : start + size]
        file.write_bytes(torn)
        file.with_name(f"{file.name}.wal").write_bytes(self.wal)


def contents(connection: Any) -> list[tuple[int, int, str]]:
    queries = (f"select {k}, count(*), coalesce(sum(hash(r)), 0)::text from t{k} as r" for k in range(TABLES))
    rows: list[tuple[int, int, str]] = connection.execute(" union all ".join(queries) + " order by 1").fetchall()
    return rows


def checkpoints(file: Path, number: int) -> list[Checkpoint]:
    import duckdb

    chance = random.Random(7)
    with duckdb.connect(str(file)) as connection:
        for k in range(TABLES):
            connection.execute(f"create table t{k} (i bigint, a text, b text, c timestamp, d double)")
            connection.execute(f"insert into t{k} select i, 'x' || i, 'y', null, i from range(50) r(i)")
    made = []
    for _ in range(number):
        connection = duckdb.connect(str(file))
        for _ in range(3):
            table, rows = chance.randrange(TABLES), chance.choice([1, 700, 30_000])
            connection.execute(
                f"insert into t{table} select i, 'n' || i, md5(i::text), null, i from range({rows}) r(i)"
            )
            connection.execute(f"delete from t{chance.randrange(TABLES)} where i % 3 = 0")
        before, wal = file.read_bytes(), file.with_name(f"{file.name}.wal").read_bytes()
        rows_now = contents(connection)
        connection.close()
        made.append(Checkpoint(before, wal, file.read_bytes(), rows_now))
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    return checkpoints(tmp_path_factory.mktemp("checkpoints") / "w.duckdb", 2)


def says_corrupt(file: Path) -> bool:
    import duckdb

    try:
        duckdb.connect(str(file), read_only=True).close()
    except duckdb.Error as error:
        return is_damaged(str(error))
    return False


def test_a_checkpoint_cut_short_anywhere_loses_nothing(
    made: list[Checkpoint], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    file = tmp_path / "w.duckdb"
    mended = 0
    for checkpoint in made:
        for start in checkpoint.overwritten():
            checkpoint.cut_short(file, start, 4096)
            mended += says_corrupt(file)
            with Warehouse(f"duckdb:///{file}").session() as session:
                assert contents(session.connection.driver_connection) == checkpoint.rows
    assert mended > 0, "this DuckDB does not overwrite blocks in place any more: include/warehouse/torn.py can go"
    assert caplog.text.count("nothing is lost") == mended


def test_the_checksum_is_duckdbs(made: list[Checkpoint]) -> None:
    block = made[0].before[HEADERS : HEADERS + BLOCK]
    assert checksum(block[8:]) == int.from_bytes(block[:8], "little")


@pytest.mark.parametrize("has_log", [True, False])
def test_damage_of_another_kind_is_said_and_the_file_left_alone(
    made: list[Checkpoint], tmp_path: Path, has_log: bool
) -> None:
    file = tmp_path / "w.duckdb"
    damaged = bytearray(made[0].before)
    damaged[HEADERS + 8 : HEADERS + BLOCK] = bytes(BLOCK - 8)  # the catalog is gone
    file.write_bytes(damaged)
    if has_log:
        (tmp_path / "w.duckdb.wal").write_bytes(made[0].wal)
    with pytest.raises(ConfigurationError, match=r"damaged at byte 12288, and not by a killed process"):
        Warehouse(f"duckdb:///{file}").scalar("select 1 as one")
    assert file.read_bytes() == bytes(damaged)
