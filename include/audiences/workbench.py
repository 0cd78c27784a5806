"""The working tables behind one plan: SQL steps that read each other, run inside one transaction.

A step is a file in `sql/sync/plan`. It names what it reads as `target.<step>`; the workbench puts the table (or the
query) of this one target in its place, fills the placeholders and keeps the answer as a table until the plan is
written. Nothing of it is seen by others, and no person passes through Python.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

import sqlalchemy
from sqlglot import exp

from include.errors import ConfigurationError
from include.settings import get_settings
from include.warehouse.dialects import to_sql
from include.warehouse.engine import Warehouse
from include.warehouse.render import parse, render_tree

log = logging.getLogger(__name__)

# Working tables are this session's alone where there is such a thing: nothing of them is logged or kept.
_CREATE = {"duckdb": ("create temp table", ""), "postgres": ("create temp table", "on commit drop")}

Function = Callable[[list[exp.Expr]], exp.Expr]


class Workbench:
    """Runs steps for one target. Use it as a context: the working tables are gone at the end."""

    def __init__(
        self,
        warehouse: Warehouse,
        session: sqlalchemy.Connection,
        name: str,
        params: Mapping[str, Any],
        functions: Mapping[str, Function],
    ) -> None:
        self.warehouse = warehouse
        self.session = session
        self.params = dict(params)
        self.functions = dict(functions)
        self._name = name
        self._inputs: dict[str, exp.Expr] = {}
        self._made: list[str] = []
        self._inlined = 0
        self.give("sync.sends", _file("sends.sql"))

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

    def give(self, name: str, query: exp.Expr) -> None:
        """Let steps read `name` (`target.segment`), which stands for a query."""
        self._inputs[name] = query

    def build(self, step: str, query: exp.Expr | None = None) -> None:
        """Run a step (its file, or a query made of such) and let later ones read it as `target.<step>`."""
        table = f"work_{self._name}_{step}"
        create, given = _CREATE.get(self.warehouse.dialect, ("create table", ""))
        if "temp" not in create:
            table = f"sync.{table}"
        filled = query if query is not None else self.query(step)
        self._made.append(table)
        with self.warehouse.finished(self.session, filled, table) as text:
            self._run(f"{create} {table} {given} as {text}")
        self.warehouse.analyze(table, connection=self.session)
        self.give(f"target.{step}", exp.select("*").from_(exp.to_table(table)))
        log.debug("step %s done", step)

    def query(
        self,
        step: str,
        params: Mapping[str, Any] | None = None,
        functions: Mapping[str, Function] | None = None,
    ) -> exp.Expr:
        """The statement of a step, finished; `params` and `functions` are added to the workbench's own."""
        return self.finish(_file(f"plan/{step}.sql"), params, functions, where=f"sync/plan/{step}.sql")

    def finish(
        self,
        tree: exp.Expr,
        params: Mapping[str, Any] | None = None,
        functions: Mapping[str, Function] | None = None,
        *,
        where: str = "the plan",
    ) -> exp.Expr:
        """Put inputs, functions and values in their places."""
        finished = tree.copy()
        written = {**self.functions, **(functions or {})}
        for call in list(finished.find_all(exp.Anonymous)):
            if (function := written.get(str(call.this).lower())) is not None:
                call.replace(function(call.expressions))
        for table in list(finished.find_all(exp.Table)):
            if table.db != "target" and f"{table.db}.{table.name}" not in self._inputs:
                continue
            source = self._inputs.get(f"{table.db}.{table.name}")
            if source is None:
                raise ConfigurationError(f"{where}: {table.db}.{table.name} is read before it is made")
            self._inlined += 1
            inner = _with_names_of_its_own(source, self._inlined)
            table.replace(exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier(_alias(table)))))
        return render_tree(finished, {**self.params, **(params or {})}, where=where)

    def insert(self, table: str, columns: list[str], select: str, params: Mapping[str, Any] | None = None) -> None:
        """`insert into table (columns) <select>`, the select written like a step."""
        query = self.finish(parse(select), params)
        self._run(f"insert into {table} ({', '.join(columns)}) {to_sql(query, self.warehouse.dialect)}")

    def rows(self, select: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The answer to a small question (counts), the select written like a step."""
        query = self.finish(parse(select), params)
        return [dict(row) for row in self._run(to_sql(query, self.warehouse.dialect)).mappings()]

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


def _file(name: str) -> exp.Expr:
    path = get_settings().sql_dir / "sync" / name
    return parse(path.read_text(encoding="utf-8"), f"sync/{name}")
