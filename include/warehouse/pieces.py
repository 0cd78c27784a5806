"""A query in pieces, for an engine that works a CTE out wherever it is read, and whose recursion is not ours.

Spark writes the text of a CTE into every place that names it: one that is read three times by one that is read three
times is worked out nine times, and the plan of a statement of ours grows beyond all bounds. It also knows `union` in no
recursion, and no windows. So the runner sets such CTEs aside first: what is read more than once becomes a table beside
the one that is built, and a recursion is walked step by step in another; they are gone afterwards. The rows are those
of the one statement; the SQL of the models knows nothing of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import sqlalchemy
from sqlglot import exp

from include.errors import ConfigurationError
from include.warehouse.dialects import to_sql

log = logging.getLogger(__name__)

# A CTE that reads so many tables or is marked `materialized`, and is read more than once, is worked out once and kept.
WORTH_KEEPING = 3

_ROUND = "walk_round"


@contextmanager
def in_pieces(session: sqlalchemy.Connection, tree: exp.Expr, dialect: str, target: str) -> Iterator[exp.Expr]:
    """What is left of a query once its pieces are there to be read; they are gone afterwards. The tree is changed."""
    with_ = _with_of(tree)
    if with_ is None:
        yield tree
        return
    with ExitStack() as afterwards:
        pieces = _Pieces(session, dialect, target, afterwards)
        pieces.take_apart(tree, with_)
        yield tree


class _Pieces:
    def __init__(self, session: sqlalchemy.Connection, dialect: str, target: str, afterwards: ExitStack) -> None:
        self.session = session
        self.dialect = dialect
        self.target = target
        self.afterwards = afterwards

    def take_apart(self, tree: exp.Expr, with_: exp.With) -> None:
        ctes = list(with_.expressions)
        weights: dict[str, int] = {}
        kept: list[exp.CTE] = []
        stepped = {name for cte in ctes if _reads(cte.this, cte.alias) for name in _names_read(_step_of(cte))}
        for position, cte in enumerate(ctes):
            later = [*(other.this for other in ctes[position + 1 :]), *_outside(tree, with_)]
            times = sum(_reads(query, cte.alias) for query in later)
            if _reads(cte.this, cte.alias):
                cte.set("this", self._walk(cte, kept))
                weights[cte.alias] = 1
            else:
                weights[cte.alias] = sum(weights.get(name, 1) for name in _names_read(cte.this))
                is_dear = weights[cte.alias] >= WORTH_KEEPING or bool(cte.args.get("materialized"))
                if (times > 1 and is_dear) or cte.alias in stepped:
                    cte.set("this", self._keep(cte.alias, _with(kept, cte.this)))
                    weights[cte.alias] = 1
            kept.append(cte)
        with_.set("recursive", False)

    def _keep(self, name: str, query: exp.Expr) -> exp.Expr:
        """Have the rows of a query kept in a table of its own; the query that reads it."""
        piece = self._fresh(name)
        self._run(f"create table {piece} as {to_sql(query, self.dialect)}")
        return exp.select("*").from_(exp.to_table(piece))

    def _fresh(self, name: str) -> str:
        table = f"{self.target}__{name}"
        self._run(f"drop table if exists {table}")
        self.afterwards.callback(self._run, f"drop table if exists {table}")
        return table

    def _walk(self, cte: exp.CTE, before: list[exp.CTE]) -> exp.Expr:
        """Walk a recursion to its end; the query that reads all its rows."""
        union = cte.this
        is_distinct = bool(union.args.get("distinct"))
        seed, step = union.this, union.expression
        names = [column.lower() for column in seed.named_selects]
        if not names or "*" in names:
            raise ConfigurationError(f"the recursive CTE {cte.alias} must name the columns it begins with")
        first = exp.select(*names).from_(_subquery(seed, "seed"))
        start = self._keep(f"{cte.alias}_seed", _with(before, first.distinct() if is_distinct else first))
        if not self._count(start):
            return start
        table = self._fresh(cte.alias)
        listed = ", ".join(names)
        begun = exp.select(f"0 as {_ROUND}", *names).from_(_subquery(start, "seed"))
        self._run(f"create table {table} as {to_sql(begun, self.dialect)}")
        walked = exp.select(*names).from_(exp.to_table(table))
        done = 0
        while True:
            last = exp.CTE(
                this=walked.copy().where(f"{_ROUND} = {done}"), alias=exp.TableAlias(this=exp.to_identifier(cte.alias))
            )
            found: exp.Expr = exp.select(*names).from_(_renamed(step, names))
            if is_distinct:
                found = exp.except_(found, walked.copy())
            query = _with(
                [*before, last], exp.select(f"{done + 1} as {_ROUND}", *names).from_(_subquery(found, "found"))
            )
            self._run(f"insert into {table} ({_ROUND}, {listed}) {to_sql(query, self.dialect)}")
            done += 1
            if not self._count(exp.select("1 as one").from_(exp.to_table(table)).where(f"{_ROUND} = {done}")):
                log.debug("%s.%s: %s rounds", self.target, cte.alias, done)
                return walked

    def _count(self, query: exp.Expr) -> int:
        return int(self._run(f"select count(*) from ({to_sql(query, self.dialect)}) as counted").scalar_one())

    def _run(self, statement: str) -> sqlalchemy.CursorResult[tuple[int]]:
        return self.session.exec_driver_sql(statement.replace("%", "%%"))


def _with_of(tree: exp.Expr) -> exp.With | None:
    found = tree.args.get("with_") or tree.args.get("with")
    return found if isinstance(found, exp.With) else None


def _with(ctes: list[exp.CTE], query: exp.Expr) -> exp.Expr:
    """A copy of the query that can read these CTEs."""
    copy = query.copy()
    named = _names_needed(ctes, copy)
    chosen = [cte.copy() for cte in ctes if cte.alias in named]
    if not chosen:
        return copy
    own = _with_of(copy)
    if own is not None:
        own.set("expressions", [*chosen, *own.expressions])
    else:
        copy.set("with_", exp.With(expressions=chosen))
    return copy


def _names_needed(ctes: list[exp.CTE], query: exp.Expr) -> set[str]:
    needed: set[str] = set()
    waiting = _names_read(query)
    by_name = {cte.alias: cte for cte in ctes}
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in needed:
            needed.add(name)
            waiting += _names_read(by_name[name].this)
    return needed


def _names_read(query: exp.Expr) -> list[str]:
    """Every table and CTE it reads, as often as it reads it."""
    return [table.name if not table.db else f"{table.db}.{table.name}" for table in query.find_all(exp.Table)]


def _reads(query: exp.Expr, name: str) -> int:
    return _names_read(query).count(name)


def _outside(tree: exp.Expr, with_: exp.With) -> list[exp.Expr]:
    """The query without its CTEs, in parts."""
    parts: list[exp.Expr] = []
    for value in tree.args.values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, exp.Expr) and part is not with_:
                parts.append(part)
    return parts


def _step_of(cte: exp.CTE) -> exp.Expr:
    union = cte.this
    if not isinstance(union, exp.Union) or _reads(union.this, cte.alias):
        raise ConfigurationError(f"the recursive CTE {cte.alias} must be `<where it begins> union [all] <a step>`")
    step: exp.Expr = union.expression
    return step


def _subquery(query: exp.Expr, alias: str) -> exp.Subquery:
    inner = query.this if isinstance(query, exp.Subquery) and not query.alias else query
    return exp.Subquery(this=inner.copy(), alias=exp.TableAlias(this=exp.to_identifier(alias)))


def _renamed(query: exp.Expr, names: list[str]) -> exp.Subquery:
    """The query in brackets, its columns called as those it is added to: a union goes by position."""
    made = _subquery(query, "step")
    made.set(
        "alias", exp.TableAlias(this=exp.to_identifier("step"), columns=[exp.to_identifier(name) for name in names])
    )
    return made
