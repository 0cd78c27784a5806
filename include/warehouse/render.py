"""From the SQL a person wrote to the SQL an engine runs: values in, house functions out, dialect changed.

A model is written in DuckDB's dialect with placeholders (`:as_of`, a setting, an audience's parameter). They become
typed literals in the syntax tree, never pasted text, so that the finished statement can be read, logged and explained.
House functions (`stage_of`, those of `house.py`, and the hashes of `include/identity/sql.py`) are written out in the
same pass.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

import sqlglot
from sqlglot import exp

from include.errors import ConfigurationError
from include.identity.sql import SQL_FUNCTIONS
from include.warehouse.dialects import to_sql
from include.warehouse.finished import finished
from include.warehouse.house import STAGING_FUNCTIONS
from include.warehouse.slices import in_slices
from include.warehouse.touched import SINCE, TOUCHED_IN_FULL, TOUCHED_NOW

FUNCTIONS = {**SQL_FUNCTIONS, **STAGING_FUNCTIONS}

NOTHING = "(nothing)"  # stands for an empty list: no text we hold looks like it, and `not in` stays true


def render(
    sql: str,
    dialect: str,
    params: Mapping[str, Any],
    stages: Mapping[str, timedelta] | None = None,
    *,
    where: str = "the SQL",
    incremental: bool = False,
    instead: Mapping[str, str] | None = None,
) -> str:
    """The SELECT in `dialect` with every placeholder filled; `where` names the file in errors.

    With `incremental`, `touched_profile(x)` and its kind ask for the keys of this build; without, they are true.
    `instead` names tables and the queries (DuckDB's dialect) that are read in their place.
    """

    others = tuple(sorted((instead or {}).items()))

    def make(filling: Mapping[str, Any]) -> str:
        filled = render_tree(parse(sql, where), filling, stages, where=where, incremental=incremental)
        _read_all_instead(filled, others, filling, where, incremental=incremental)
        return to_sql(filled, dialect, copy=False)

    texts = (sql, *(query for _, query in others))
    return _finished(make, texts, dialect, params, ("select", stages, incremental, others))


def render_in_slices(
    sql: str,
    dialect: str,
    params: Mapping[str, Any],
    *,
    where: str = "the SQL",
    instead: Mapping[str, str] | None = None,
    keys: Mapping[str, str | None],
) -> tuple[str, dict[str, str]]:
    """As `render` for an incremental build, reading the slices of `slices.py`; the SELECT, and by name their queries.

    `keys` names the tables that are kept, and by what.
    """
    others = tuple(sorted((instead or {}).items()))

    def make(filling: Mapping[str, Any]) -> str:
        tree = parse(sql, where).copy()
        slices = in_slices(tree, {name: key for name, key in keys.items() if name not in dict(others)})
        filled = render_tree(tree, filling, where=where, incremental=True)
        _read_all_instead(filled, others, filling, where, incremental=True)
        made = {
            name: to_sql(render_tree(parse(query, where), filling, where=where, incremental=True), dialect, copy=False)
            for name, query in slices.items()
        }
        return json.dumps([to_sql(filled, dialect, copy=False), made])

    texts = (sql, *(query for _, query in others))
    text, slices = json.loads(_finished(make, texts, dialect, params, ("slices", others, tuple(sorted(keys.items())))))
    return text, slices


def render_statement(sql: str, dialect: str, params: Mapping[str, Any]) -> str:
    """A statement of any kind in `dialect`, over the keys of this build."""
    return _finished(
        lambda filling: to_sql(render_tree(parse_statement(sql), filling, incremental=True), dialect, copy=False),
        (sql,),
        dialect,
        params,
        ("statement",),
    )


@dataclass(frozen=True)
class PutInLast:
    """A point in time, or a text, that is put in last, so that the rest of a statement is the same on every day."""

    name: str
    is_moment: bool = True

    @property
    def text(self) -> str:
        return f"rekindle value {self.name} here"


def put_in(text: str, values: Mapping[str, datetime | str]) -> str:
    """A finished statement with the values that were left out of it."""
    for name, value in values.items():
        written = _in_utc(value) if isinstance(value, datetime) else value.replace("'", "''")
        text = text.replace(PutInLast(name).text, written)
    return text


def _finished(
    make: Callable[[Mapping[str, Any]], str],
    texts: tuple[str, ...],
    dialect: str,
    params: Mapping[str, Any],
    more: tuple[object, ...],
) -> str:
    used = {name: params[name] for name in placeholders(texts) if name in params}
    moments = {name: value for name, value in used.items() if isinstance(value, datetime)}
    standing = {name: PutInLast(name) for name in moments}
    written = finished(
        (texts, dialect, {**used, **standing}, *more),
        lambda: make({**params, **standing}),
    )
    return put_in(written, moments)


@lru_cache(maxsize=2048)
def placeholders(texts: tuple[str, ...]) -> tuple[str, ...]:
    """What the result may depend on, also what house functions look at without being told."""
    names = {name for text in texts for name in _NAMED.findall(text)}
    if any("stage_of" in text.lower() for text in texts):
        names.add("as_of")
    if any(f"{name}(" in text.lower() for text in texts for name in SINCE):
        names.add("touched_since")
    return tuple(sorted(names))


def render_tree(
    tree: exp.Expr,
    params: Mapping[str, Any],
    stages: Mapping[str, timedelta] | None = None,
    *,
    where: str = "the SQL",
    incremental: bool = False,
) -> exp.Expr:
    """A filled copy of a parsed statement."""
    filled = tree.copy()
    functions = {**FUNCTIONS, **(TOUCHED_NOW if incremental else TOUCHED_IN_FULL)}
    for call in reversed(list(filled.find_all(exp.Anonymous))):  # the inner ones first
        name = str(call.this).lower()
        if name != "stage_of" and name not in functions:
            continue
        if len(call.expressions) != 1:
            raise ConfigurationError(f"{where}: {name}() takes one argument, here it has {len(call.expressions)}")
        argument = call.expressions[0]
        call.replace(_stage_case(argument, stages or {}) if name == "stage_of" else functions[name](argument))
    return fill(filled, params, where)


def fill(tree: exp.Expr, params: Mapping[str, Any], where: str = "the SQL") -> exp.Expr:
    """The tree itself with a typed literal in the place of every placeholder."""
    for node in list(tree.find_all(exp.Placeholder)):
        name = str(node.this)
        if name not in params:
            near = difflib.get_close_matches(name, list(params), 1)
            hint = f"; did you mean :{near[0]}?" if near else f"; known are {', '.join(sorted(params))}"
            raise ConfigurationError(f"{where}: there is no value for :{name}{hint}")
        value = params[name]
        if isinstance(value, list | tuple | set | frozenset):
            if not isinstance(node.parent, exp.In):
                raise ConfigurationError(f"{where}: :{name} is a list; it can only be used as `in (:{name})`")
            items = [literal(item, f"{where}: :{name}") for item in value] or [exp.Literal.string(NOTHING)]
            kept = [item for item in node.parent.expressions if item is not node]
            node.parent.set("expressions", kept + items)
        else:
            node.replace(literal(value, f"{where}: :{name}"))
    return tree


def _read_all_instead(
    tree: exp.Expr, others: tuple[tuple[str, str], ...], filling: Mapping[str, Any], where: str, *, incremental: bool
) -> None:
    for name, query in others:
        _read_instead(tree, name, render_tree(parse(query, where), filling, where=where, incremental=incremental))


def _read_instead(tree: exp.Expr, name: str, query: exp.Expr) -> None:
    """Put a query where a statement reads a table."""
    for table in list(tree.find_all(exp.Table)):
        if f"{table.db}.{table.name}".lower() == name:
            alias = table.alias or table.name
            table.replace(exp.Subquery(this=query.copy(), alias=exp.TableAlias(this=exp.to_identifier(alias))))


@lru_cache(maxsize=512)
def parse(sql: str, where: str = "the SQL") -> exp.Expr:
    """The syntax tree of one SELECT. Shared: copy it before changing it."""
    tree = parse_statement(sql, where)
    if not isinstance(tree, exp.Query):
        raise ConfigurationError(f"{where}: it must hold exactly one SELECT")
    return tree


_TOKEN = re.compile(r"<Token .*?>")
_NAMED = re.compile(r":([A-Za-z_]\w*)")

# sqlglot reads `select :name` as DuckDB's `alias: value`; DuckDB's own sign for a parameter has no such twin.
_PLACEHOLDER = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/)|(?<![:\w\])]):(?=[A-Za-z_])""", re.DOTALL
)


def parse_statement(sql: str, where: str = "the SQL") -> exp.Expr:
    """The syntax tree of one statement of any kind, in DuckDB's dialect with `:name` placeholders."""
    try:
        found = sqlglot.parse(_PLACEHOLDER.sub(lambda match: match[1] or "$", sql), read="duckdb")
    except sqlglot.errors.ParseError as error:
        place = error.errors[0] if error.errors else {}
        said = _TOKEN.sub("the end", str(place.get("description")))
        raise ConfigurationError(
            f"{where}:{place.get('line')}: the SQL cannot be read: {said} near '{place.get('highlight')}'"
        ) from error
    except sqlglot.errors.TokenError as error:
        raise ConfigurationError(f"{where}: the SQL cannot be read: {error}") from error
    statements = [tree for tree in found if tree is not None]
    if len(statements) != 1:
        raise ConfigurationError(f"{where}: it must hold exactly one statement, it holds {len(statements)}")
    return statements[0]


def literal(value: Any, what: str = "the value") -> exp.Expr:
    """A typed literal for a Python value."""
    if value is None:
        return exp.null()
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    if isinstance(value, str):
        return exp.Literal.string(value)
    if isinstance(value, int | float | Decimal):
        number = f"{value:f}" if isinstance(value, Decimal) else repr(value)
        if number.lstrip("-").replace(".", "", 1).replace("e-", "", 1).replace("e+", "", 1).isdigit():
            node: exp.Expr = exp.Literal.number(number.lstrip("-"))
            return exp.Paren(this=exp.Neg(this=node)) if number.startswith("-") else node
        raise ConfigurationError(f"{what} is not a finite number")
    if isinstance(value, PutInLast):
        node = exp.Literal.string(value.text)
        return exp.cast(node, "timestamp") if value.is_moment else node
    if isinstance(value, datetime):
        return exp.cast(exp.Literal.string(_in_utc(value)), "timestamp")
    if isinstance(value, date):
        return exp.cast(exp.Literal.string(value.isoformat()), "date")
    if isinstance(value, timedelta):
        micros = value // timedelta(microseconds=1)
        if micros % 1_000_000:
            return exp.Interval(this=exp.Literal.string(str(micros)), unit=exp.var("MICROSECOND"))
        return exp.Interval(this=exp.Literal.string(str(micros // 1_000_000)), unit=exp.var("SECOND"))
    raise ConfigurationError(f"{what} has the type {type(value).__name__}, which SQL does not know")


def _in_utc(moment: datetime) -> str:
    return (moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment).isoformat(sep=" ")


def _stage_case(moment: exp.Expr, stages: Mapping[str, timedelta]) -> exp.Expr:
    """The last stage whose time has passed; exactly at its time it is still the one before (rule 12)."""
    if not stages:
        return exp.cast(exp.null(), "text")
    case = exp.Case()
    for name, after in sorted(stages.items(), key=lambda item: item[1], reverse=True):
        before = exp.Sub(this=exp.Placeholder(this="as_of"), expression=literal(after))
        subject = moment.copy() if isinstance(moment, exp.Column) else exp.Paren(this=moment.copy())
        case = case.when(exp.LT(this=subject, expression=before), exp.Literal.string(name))
    return exp.Paren(this=case)
