"""All SQL cases in one build: each case is a world of its own, told apart by one more key in every table.

On an engine where a statement takes a second, 230 cases with twenty models each cannot be built one after the other.
So every query gets the column `case_id`: it is selected, joined on, grouped by and partitioned by wherever there is a
table, a join, a group or a window, and a parameter is what the row's case says. Nothing else of the query is touched.
Whether that is true is shown on DuckDB, where each case also runs by itself (test_cases.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlglot import exp

from include.warehouse.engine import SCHEMAS, Warehouse
from include.warehouse.models import Model, build_order
from include.warehouse.render import literal, parse, render_tree

KEY = "case_id"
Rows = Mapping[int, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Values:
    """The parameters and stages of one case."""

    params: Mapping[str, Any]
    stages: Mapping[str, timedelta] | None


def build_side_by_side(
    warehouse: Warehouse,
    models: Mapping[str, Model],
    columns: Mapping[str, Mapping[str, str]],
    given: Mapping[str, Rows],
    values: Callable[[Model], Mapping[int, Values]],
) -> None:
    """Build models for many cases at once, over an empty warehouse.

    `given` are rows by table and case, `columns` all tables there could be, `values` what a model's placeholders stand
    for in each case. A given table is never built in the cases that give it.
    """
    with warehouse.session() as session:

        def put(name: str) -> None:
            rows = ({**row, KEY: case} for case, listed in given.get(name, {}).items() for row in listed)
            warehouse.insert(name, rows, connection=session)

        for schema in SCHEMAS:
            session.exec_driver_sql(f"create schema if not exists {schema}")
        read = {name for model in models.values() for name in model.depends_on}
        for name in sorted((read | set(given)) - set(models)):
            listed = ", ".join(f"{column} {kind}" for column, kind in {**columns[name], KEY: "bigint"}.items())
            warehouse.execute(f"create table {name} ({listed})", connection=session)
            put(name)
        for name in build_order(models):
            model = models[name]
            tree = side_by_side(parse(model.sql, model.where), values(model), list(given.get(name, {})))
            with warehouse.finished(session, tree, name) as text:
                statement = f"create table {name} as {text}"
                is_escaped = session.dialect.paramstyle == "pyformat"
                session.exec_driver_sql(statement.replace("%", "%%") if is_escaped else statement)
            put(name)


def side_by_side(tree: exp.Expr, values: Mapping[int, Values], without: Sequence[int] = ()) -> exp.Expr:
    """The query over all cases; for the cases of `without` it has no rows."""
    names = {str(node.this) for node in tree.find_all(exp.Placeholder)}
    stages = {repr(value.stages): value.stages for value in values.values()}
    if len(stages) > 1:
        raise ValueError("cases with different stages cannot stand side by side")
    # The house functions first; placeholders stay placeholders.
    marks = {name: exp.Placeholder(this=name) for name in names | {"as_of"}}
    written = _written(tree, next(iter(stages.values())), marks)
    constant = _constants(written)
    for select in list(written.find_all(exp.Select)):
        if not _is_constant(select, constant):
            _add_key(select, constant)
    for node in list(written.find_all(exp.Placeholder)):
        _fill(node, values)
    for select in _outer_selects(written):
        if without:
            numbers = [exp.Literal.number(number) for number in without]
            select.where(exp.not_(exp.In(this=_key_of(select), expressions=numbers)), copy=False)
    return written


def _written(tree: exp.Expr, stages: Mapping[str, timedelta] | None, marks: Mapping[str, exp.Placeholder]) -> exp.Expr:
    """House functions written out. `render_tree` fills placeholders too, so they hide behind names meanwhile."""
    hidden = tree.copy()
    for node in list(hidden.find_all(exp.Placeholder)):
        node.replace(exp.column(f"hidden_{node.this}"))
    moment = exp.column("hidden_as_of")
    rendered = render_tree(hidden, {"as_of": "hidden as_of"}, stages)
    for text in list(rendered.find_all(exp.Literal)):
        if text.is_string and text.this == "hidden as_of":
            text.replace(moment.copy())
    for column in list(rendered.find_all(exp.Column)):
        if column.name.startswith("hidden_"):
            column.replace(marks[column.name.removeprefix("hidden_")].copy())
    return rendered


def _sources(select: exp.Select) -> list[exp.Expr]:
    from_ = select.args.get("from_") or select.args.get("from")
    if from_ is None:
        raise ValueError("a select without a table cannot stand beside others")
    return [from_.this, *(join.this for join in select.args.get("joins") or [])]


def _constants(tree: exp.Expr) -> set[str]:
    """CTEs that read no table: the same in every case."""
    found: set[str] = set()
    for cte in tree.find_all(exp.CTE):
        if isinstance(cte.this, exp.Select) and _is_constant(cte.this, found):
            found.add(cte.alias)
    return found


def _is_constant(select: exp.Select, constant: set[str]) -> bool:
    return all(isinstance(source, exp.Values) or source.name in constant for source in _sources(select))


def _key_of(select: exp.Select) -> exp.Column:
    return exp.column(KEY, table=_sources(select)[0].alias_or_name)


def _add_key(select: exp.Select, constant: set[str]) -> None:
    key = _key_of(select)
    for join in select.args.get("joins") or []:
        if join.side not in ("", "LEFT") or join.args.get("using"):
            raise ValueError(f"a join that cannot stand beside others: {join.sql()}")
        if join.this.name in constant:
            continue
        same = exp.EQ(this=exp.column(KEY, table=join.this.alias_or_name), expression=key.copy())
        on = join.args.get("on")
        join.set("on", exp.and_(on, same) if on is not None else same)
        if join.kind == "CROSS":
            join.set("kind", "INNER")
    for inner in select.find_all(exp.Subquery, exp.Exists, exp.In):
        is_source = isinstance(inner.parent, exp.From | exp.Join | exp.SetOperation)
        is_list = isinstance(inner, exp.In) and inner.args.get("query") is None
        if inner.find_ancestor(exp.Select) is select and not is_source and not is_list:
            raise ValueError(f"a nested select cannot stand beside others: {inner.sql()}")
    groups = any(
        node.find_ancestor(exp.Select) is select and node.find_ancestor(exp.Window, exp.Select) is select
        for node in select.find_all(exp.AggFunc)
    )
    if select.args.get("group") is not None or groups:
        select.group_by(key.copy(), copy=False)
    for window in select.find_all(exp.Window):
        if window.find_ancestor(exp.Select) is select:
            window.set("partition_by", [*(window.args.get("partition_by") or []), key.copy()])
    if not any(column.is_star for column in select.expressions):
        select.select(exp.alias_(key.copy(), KEY), copy=False)


def _fill(node: exp.Placeholder, values: Mapping[int, Values]) -> None:
    """The value of the row's own case in the place of a placeholder."""
    name = str(node.this)
    select = node.find_ancestor(exp.Select)
    assert select is not None
    key = _key_of(select)
    cases: dict[str, tuple[Any, list[int]]] = {}
    for case, value in values.items():
        found = value.params[name]
        cases.setdefault(repr(found), (found, []))[1].append(case)
    ordered = sorted(cases.values(), key=lambda item: len(item[1]))
    if isinstance(ordered[0][0], list | tuple | set | frozenset):
        listed = node.parent
        assert isinstance(listed, exp.In)
        subject = listed.this
        listed.replace(_choice(key, [(_within(subject, items), who) for items, who in ordered]))
    elif (shift := node.find_ancestor(exp.Lag, exp.Lead)) is not None and shift.find(exp.Placeholder) is node:
        # How far to look back must be a constant.
        window = shift.find_ancestor(exp.Window)
        assert window is not None
        options = []
        for item, who in ordered:
            node.replace(literal(item))
            node = shift.args["offset"].find(exp.Literal)
            options.append((window.copy(), who))
        window.replace(_choice(key, options))
    else:
        node.replace(_choice(key, [(literal(value), who) for value, who in ordered]))


def _within(subject: exp.Expr, items: Sequence[Any]) -> exp.Expr:
    if not items:
        return exp.false()
    return exp.In(this=subject.copy(), expressions=[literal(item) for item in items])


def _choice(key: exp.Column, options: Sequence[tuple[exp.Expr, list[int]]]) -> exp.Expr:
    *rare, (usual, _) = options
    if not rare:
        return exp.Paren(this=usual)
    case = exp.Case()
    for value, who in rare:
        case = case.when(exp.In(this=key.copy(), expressions=[exp.Literal.number(n) for n in who]), value)
    return exp.Paren(this=case.else_(usual))


def _outer_selects(tree: exp.Expr) -> list[exp.Select]:
    if isinstance(tree, exp.Select):
        return [tree]
    if isinstance(tree, exp.SetOperation):
        return [*_outer_selects(tree.left), *_outer_selects(tree.right)]
    if isinstance(tree, exp.Subquery):
        return _outer_selects(tree.this)
    raise ValueError(f"not a select: {type(tree).__name__}")
