"""The four cases: first load, 1 % changed, nothing changed, refused rows; every contender does each in the same run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from include.warehouse.engine import Warehouse
from tests.benchmarks.sync.contenders import Died, Run, Server, environment, run
from tests.benchmarks.sync.people import AUDIENCE, AUDIENCE_FILE, Day, copy_members, fill, truth, write_members
from tests.postgres import CannotStart, PostgresServer, running_server

BATCH = 500
CONSTANT_CALLS = 5
REFUSED_IN = 1000
PEERS = ("dlt", "drt")
Say = Callable[[str], None]


@dataclass
class Case:
    """One case: the runs by contender, and what the server was to tell afterwards."""

    name: str
    rows: int
    runs: dict[str, Run] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)
    fewest_calls: int = 0

    def ran(self, who: str) -> Run | None:
        found = self.runs.get(who)
        return found if found is not None and not found.failure else None


@dataclass
class Table:
    """Where one run of the benchmark keeps its files, and what it measured."""

    folder: Path
    server: Server
    environments: Path
    people: int
    history: int
    with_peers: bool = True
    say: Say = lambda _: None
    cases: list[Case] = field(default_factory=list)

    def prepare(self) -> Table:
        """Write the audience file."""
        (self.folder / "audiences").mkdir(parents=True, exist_ok=True)
        (self.folder / "audiences" / f"{AUDIENCE}.yaml").write_text(AUDIENCE_FILE, encoding="utf-8")
        return self

    def measure(self) -> list[Case]:
        """All cases, smallest first."""
        self.prepare()
        if not self.with_peers:
            return self._all(None)
        try:
            with running_server() as postgres:
                return self._all(postgres)
        except CannotStart as error:
            self.say(f"no PostgreSQL: {error}")
            return self._all(None)

    def _all(self, postgres: PostgresServer | None) -> list[Case]:
        self.first_and_changed(postgres)
        self._refused()
        self._unchanged(postgres)
        return self.cases

    def first_and_changed(self, postgres: PostgresServer | None) -> tuple[Case, Case]:
        """An empty list is filled, then 1 % of it changes and 0.1 % leaves."""
        day, later = Day(self.people), Day(self.people, 1)
        first = Case("first load", day.members, truth=truth(day), fewest_calls=math.ceil(day.members / BATCH))
        calls = math.ceil(later.changed / BATCH) + math.ceil(later.leavers / BATCH)
        changed = Case("1 % changed, 0.1 % leave", later.changed, truth=truth(later), fewest_calls=calls)
        self.cases += [first, changed]
        warehouse = self._warehouse("main")
        fill(warehouse, day)
        self._take(first, "ours", lambda: self._ours(warehouse))
        fill(warehouse, later)
        self._take(changed, "ours", lambda: self._ours(warehouse), is_new=False)
        if not self.with_peers:
            return first, changed
        members = self.folder / "members.duckdb"
        write_members(members, day)
        self._take(first, "dlt", lambda: self._dlt(members, "main"))
        write_members(members, later)
        self._take(changed, "dlt", lambda: self._dlt(members, "main"), is_new=False)
        write_members(members, day)
        self._take(first, "drt", lambda: self._drt(file=str(members)))
        self._take(changed, "drt", lambda: self._drt_difference(postgres, day, later), is_new=False)
        return first, changed

    def _refused(self) -> None:
        day = Day(self.people)
        case = Case(
            f"0.1 % refused inside a 200, {day.members:,} rows",
            day.members,
            truth=truth(day, REFUSED_IN),
            fewest_calls=math.ceil(day.members / BATCH),
        )
        self.cases.append(case)
        warehouse = self._warehouse("refused")
        fill(warehouse, day)
        self._take(case, "ours", lambda: self._ours(warehouse), refuse=REFUSED_IN)
        if not self.with_peers:
            return
        members = self.folder / "members.duckdb"
        write_members(members, day)
        self._take(case, "dlt", lambda: self._dlt(members, "refused"), refuse=REFUSED_IN)
        self._take(case, "drt", lambda: self._drt(file=str(members)), refuse=REFUSED_IN)

    def _unchanged(self, postgres: PostgresServer | None) -> None:
        day = Day(self.history)
        size = f"{day.members:,}"
        first = Case(f"first load, {size}", day.members, truth=truth(day), fewest_calls=math.ceil(day.members / BATCH))
        case = Case(f"nothing changed, {size} members", day.members)
        self.cases += [first, case]
        warehouse = self._warehouse("history")
        fill(warehouse, day)
        self._take(first, "ours", lambda: self._ours(warehouse))
        self._take(case, "ours", lambda: self._ours(warehouse), is_new=False)
        if postgres is None:
            return
        with _database(postgres) as server:
            fill(server, day)
            self._take(first, "ours on PostgreSQL", lambda: self._ours(server))
            self._take(case, "ours on PostgreSQL", lambda: self._ours(server), is_new=False)
        self._take(case, "drt", lambda: self._drt_difference(postgres, day, day))

    def _take(self, case: Case, who: str, work: Callable[[], Run], *, refuse: int = 0, is_new: bool = True) -> None:
        """One contender in one case; `is_new`: on an empty list."""
        self.say(f"{case.name}: {who}")
        self.server.ask(f"/_reset?refuse={refuse}" if is_new else "/_forget")
        try:
            done = work()
        except Died as error:
            done = Run(failure=str(error))
        case.runs[who] = replace(done, server=self.server.ask("/_told"))

    def _warehouse(self, name: str) -> Warehouse:
        return Warehouse(f"duckdb:///{self.folder / name}.duckdb")

    def _ours(self, warehouse: Warehouse) -> Run:
        warehouse.close()
        tool = {"conn_type": "http", "host": self.server.url, "password": "key-us1"}
        surroundings = {
            "REKINDLE_AUDIENCES_DIR": str(self.folder / "audiences"),
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "generic", "extra": {"url": warehouse.url}}),
            "AIRFLOW_CONN_MAILCHIMP_DEFAULT": json.dumps(tool),
        }
        return run(sys.executable, "ours", AUDIENCE, "mailchimp", "bench", environ=surroundings)

    def _dlt(self, members: Path, name: str) -> Run:
        python = environment("dlt", self.environments)
        return run(python, "with_dlt", self.server.url, str(members), str(self.folder / f"pipelines-{name}"))

    def _drt(self, **chosen: object) -> Run:
        python = environment("drt", self.environments)
        return run(python, "with_drt", json.dumps({"server": self.server.url, "sync": "carts", **chosen}))

    def _drt_difference(self, postgres: PostgresServer | None, before: Day, now: Day) -> Run:
        if postgres is None:
            raise Died("takes differences on PostgreSQL only, and there is none here")
        with _database(postgres) as server:
            url = server._parsed
            where = {"host": url.host, "port": url.port, "user": url.username, "dbname": url.database}
            if url.password:
                where["password"] = str(url.password)
            copy_members(server, before)
            self._drt(postgres=where, dry=True)
            copy_members(server, now)
            return self._drt(postgres=where)


@contextmanager
def _database(postgres: PostgresServer) -> Iterator[Warehouse]:
    name = postgres.create()
    warehouse = Warehouse(postgres.url_of(name))
    try:
        yield warehouse
    finally:
        warehouse.close()
        postgres.drop(name)
