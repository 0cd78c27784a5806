"""The working tables behind one plan: SQL steps that read each other, run inside one transaction.

A step is a file in `sql/sync/plan`. It names what it reads as `target.<step>`; the workbench puts the table (or the
query) of this one target in its place, fills the placeholders and keeps the answer as a table until the plan is
written. Nothing of it is seen by others, and no person passes through Python.

The finished texts are kept for the next plan (`include/warehouse/finished.py`): making them takes longer than many a
plan. What changes from plan to plan (ids, times, names) is put in last.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import sqlalchemy
from sqlglot import exp

from include.errors import ConfigurationError
from include.settings import get_settings
from include.warehouse.dialects import to_sql
from include.warehouse.engine import Warehouse
from include.warehouse.finished import finished
from include.warehouse.render import PutInLast, parse, placeholders, put_in, render_tree

log = logging.getLogger(__name__)

# Working tables are this session's alone where there is such a thing: nothing of them is logged or kept.
_CREATE = {"duckdb": ("create temp table", ""), "postgres": ("create temp table", "on commit drop")}


@dataclass(frozen=True)
class Function:
    """What stands in SQL in the place of a function of ours. `made_from` says all that `write` depends on."""

    made_from: object
    write: Callable[[list[exp.Expr]], exp.Expr]


@dataclass(frozen=True)
class Query:
    """A statement that is made when its text is not there yet. `key` stands for all that it is made from."""

    key: str
    make: Callable[[], exp.Expr]


def query_from(made_from: object, make: Callable[[], exp.Expr]) -> Query:
    """A query that `make` makes from these things (they are told apart by their `repr`) and from nothing else."""
    return Query(uuid.uuid5(uuid.NAMESPACE_OID, repr(made_from)).hex, make)


class Workbench:
    """Runs steps for one target. Use it as a context: the working tables are gone at the end."""

    def __init__(
        self,
        warehouse: Warehouse,
        session: sqlalchemy.Connection,
        name: str,
        params: Mapping[str, Any],
        functions: Mapping[str, Function],
        *,
        keeps_texts: bool = True,
    ) -> None:
        """Texts and times among `params` are put in last; what a single query brings is a part of its text."""
        self.warehouse = warehouse
        self.session = session
        self.params = dict(params)
        self.functions = dict(functions)
        self._is_session_alone = warehouse.dialect in _CREATE
        self._keeps_texts = keeps_texts and self._is_session_alone
        self._name = name
        self._inputs: dict[str, Query] = {}
        self._made: list[str] = []
        self._inlined = 0
        sends = _file("sends.sql")
        self.give("sync.sends", query_from(sends, lambda: parse(sends, "sync/sends.sql")))

    def __enter__(self) -> Workbench:
        self.warehouse.expect_whole_tables(self.session)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._drop_tables()
        elif not self.warehouse.has_transactions:  # else the transaction is rolled back, and the tables with it
            with suppress(sqlalchemy.exc.SQLAlchemyError):
                self._drop_tables()

    def _drop_tables(self) -> None:
        for table in self._made:
            self._run(f"drop table if exists {table}")

    def give(self, name: str, query: Query) -> None:
        """Let steps read `name` (`target.segment`), which stands for a query."""
        self._inputs[name] = query

    def build(self, step: str, query: Query | None = None) -> None:
        """Run a step (its file, or a query made of such) and let later ones read it as `target.<step>`."""
        create, given = _CREATE.get(self.warehouse.dialect, ("create table", ""))
        table = f"work_{step}" if self._is_session_alone else f"sync.work_{self._name}_{step}"
        made = query or self.query(step)
        self._made.append(table)
        if self._is_session_alone:
            self._run(f"{create} {table} {given} as {self._text(made)}")
        else:
            with self.warehouse.finished(self.session, made.make(), table) as text:
                self._run(f"{create} {table} {given} as {text}")
        self.warehouse.analyze(table, connection=self.session)
        self.give(f"target.{step}", query_from(table, lambda: exp.select("*").from_(exp.to_table(table))))
        log.debug("step %s done", step)

    def query(
        self,
        step: str,
        params: Mapping[str, Any] | None = None,
        functions: Mapping[str, Function] | None = None,
    ) -> Query:
        """The statement of a step, finished; `params` and `functions` are added to the workbench's own."""
        return self.written(_file(f"plan/{step}.sql"), params, functions, where=f"sync/plan/{step}.sql")

    def written(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        functions: Mapping[str, Function] | None = None,
        *,
        where: str = "the plan",
    ) -> Query:
        """A statement written like a step: inputs, functions and values are put in their places."""
        known = {**self.functions, **(functions or {})}
        used = {name: function for name, function in known.items() if f"{name}(" in sql}
        inputs = {name: query for name, query in self._inputs.items() if name in sql}
        values = {**self._standing(), **(params or {})}
        made_from = (
            sql,
            {name: query.key for name, query in inputs.items()},
            {name: values[name] for name in placeholders((sql,)) if name in values},
            {name: function.made_from for name, function in used.items()},
        )
        return query_from(made_from, lambda: self._finish(parse(sql, where), inputs, values, used, where))

    def _standing(self) -> dict[str, Any]:
        """The workbench's own values, texts and times among them only named: those are put in last."""
        if not self._is_session_alone:
            return self.params
        return {
            name: PutInLast(name, isinstance(value, datetime)) if isinstance(value, str | datetime) else value
            for name, value in self.params.items()
        }

    def _finish(
        self,
        tree: exp.Expr,
        inputs: Mapping[str, Query],
        values: Mapping[str, Any],
        functions: Mapping[str, Function],
        where: str,
    ) -> exp.Expr:
        finished_tree = tree.copy()
        for call in list(finished_tree.find_all(exp.Anonymous)):
            if (function := functions.get(str(call.this).lower())) is not None:
                call.replace(function.write(call.expressions))
        for table in list(finished_tree.find_all(exp.Table)):
            name = f"{table.db}.{table.name}"
            if table.db != "target" and name not in inputs:
                continue
            if name not in inputs:
                raise ConfigurationError(f"{where}: {name} is read before it is made")
            self._inlined += 1
            inner = _with_names_of_its_own(inputs[name].make(), self._inlined)
            table.replace(exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier(_alias(table)))))
        return render_tree(finished_tree, values, where=where)

    def _text(self, query: Query) -> str:
        """The statement in the engine's dialect, with everything in it."""

        def make() -> str:
            return to_sql(query.make(), self.warehouse.dialect, copy=False)

        text = finished(("plan", self.warehouse.dialect, query.key), make) if self._keeps_texts else make()
        return put_in(text, {name: value for name, value in self.params.items() if isinstance(value, str | datetime)})

    def insert(self, table: str, columns: list[str], select: str, params: Mapping[str, Any] | None = None) -> None:
        """`insert into table (columns) <select>`, the select written like a step."""
        self._run(f"insert into {table} ({', '.join(columns)}) {self._text(self.written(select, params))}")

    def rows(self, select: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The answer to a small question (counts), the select written like a step."""
        return [dict(row) for row in self._run(self._text(self.written(select, params))).mappings()]

    def _run(self, statement: str) -> sqlalchemy.CursorResult[Any]:
        escaped = statement.replace("%", "%%") if self.session.dialect.paramstyle == "pyformat" else statement
        return self.session.exec_driver_sql(escaped)


def _alias(table: exp.Table) -> str:
    return table.alias or table.name


def _with_names_of_its_own(query: exp.Expr, number: int) -> exp.Expr:
    """A copy whose CTEs no other copy in the same statement shares names with: Spark knows a name once."""
    copy = query.copy()
    names = {cte.alias: f"{cte.alias}__{number}" for cte in copy.find_all(exp.CTE)}
    for cte in copy.find_all(exp.CTE):
        cte.args["alias"].set("this", exp.to_identifier(names[cte.alias]))
    for table in copy.find_all(exp.Table):
        if not table.db and (written := table.name) in names:
            alias = _alias(table)
            table.set("this", exp.to_identifier(names[written]))
            table.set("alias", exp.TableAlias(this=exp.to_identifier(alias)))
    return copy


def _file(name: str) -> str:
    return (get_settings().sql_dir / "sync" / name).read_text(encoding="utf-8")
