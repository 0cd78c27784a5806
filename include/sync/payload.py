"""What is sent of a member, written as JSON text by the warehouse itself.

Keys are sorted and values are text in one spelling (two decimals for money, ISO times in UTC, no trailing zeros), so
that a payload changes only when something a marketer can see has changed. No value holds a quotation mark or a
backslash as such, only escaped as `\\u0022` and `\\u005c`: `sql/sync/plan/changes.sql` relies on that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import sqlglot
from sqlglot import exp

from include.errors import ConfigurationError

_MONEY = re.compile(r"(^|_)(value|amount|price|total)$")
_WHOLE = ("bigint", "integer", "int", "smallint", "tinyint", "hugeint", "int4", "ubigint", "uinteger")
_BROKEN = ("double", "float", "real", "float8", "decimal", "numeric")
_LARGEST = "1e15"
_TOGETHER = 50  # texts joined by one call: PostgreSQL takes a hundred
# Control characters that JSON has no short name for; chr(0) cannot be in a text of PostgreSQL at all.
_CONTROLS = "".join(chr(code) for code in range(1, 32) if chr(code) not in "\n\r\t")

# Anything but plain letters, digits and marks; most texts hold none, and escaping costs ten times as much as looking.
_UNUSUAL = "[^ !#-Z^-~]"


def json_escaped(arguments: list[exp.Expr]) -> exp.Expr:
    """The text between the quotation marks of a JSON string."""
    text: exp.Expr = arguments[0].copy()
    for character, written in (
        (exp.Literal.string("\\"), "\\u005c"),
        (exp.Literal.string('"'), "\\u0022"),
        (_character(10), "\\n"),
        (_character(13), "\\r"),
        (_character(9), "\\t"),
    ):
        text = exp.func("replace", text, character, exp.Literal.string(written), dialect="duckdb")
    text = exp.func("translate", text, exp.Literal.string(_CONTROLS), exp.Literal.string(""), dialect="duckdb")
    is_unusual = exp.RegexpLike(this=arguments[0].copy(), expression=exp.Literal.string(_UNUSUAL))
    return exp.Case(ifs=[exp.If(this=is_unusual, true=text)], default=arguments[0].copy())


def mapped_fields(fields: Mapping[str, str], columns: Mapping[str, str], table: str = "segment") -> exp.Expr:
    """The JSON object of the merge fields; `fields` maps a merge field to a column of the segment."""
    parts: list[exp.Expr] = []
    for position, (field, column) in enumerate(sorted(fields.items())):
        if column not in columns:
            raise ConfigurationError(f"the segment has no column '{column}' for the field {field}")
        opening = "{" if position == 0 else ","
        parts.append(exp.Literal.string(f"{opening}{json.dumps(field, ensure_ascii=False)}:"))
        value = json_escaped([field_text(f"{table}.{column}", column, columns[column])])
        quoted = _joined([exp.Literal.string('"'), value, exp.Literal.string('"')])
        parts.append(exp.Coalesce(this=quoted, expressions=[exp.Literal.string("null")]))
    if not parts:
        return exp.Literal.string("{}")
    return _joined([*parts, exp.Literal.string("}")])


def mapped_values(fields: Mapping[str, str], columns: Mapping[str, str], table: str = "segment") -> exp.Expr:
    """A text that is equal exactly where `mapped_fields` is, without the work of escaping: it is hashed, never sent.

    It says itself where it ends, so that another text can follow: only a text of the segment can hold anything, and
    its length is written before it.
    """
    parts: list[exp.Expr] = [exp.Literal.string(json.dumps(sorted(fields), ensure_ascii=False))]
    for _, column in sorted(fields.items()):
        if column not in columns:
            raise ConfigurationError(f"the segment has no column '{column}'")
        value = field_text(f"{table}.{column}", column, columns[column])
        is_text = isinstance(value, exp.Column)
        before = exp.cast(exp.Length(this=value.copy()), "text") if is_text else value
        after = exp.Literal.string(":" if is_text else ";")
        short = _joined([exp.Literal.string(","), before, after])
        parts.append(exp.Coalesce(this=short, expressions=[exp.Literal.string(",null")]))
        if is_text:
            parts.append(exp.Coalesce(this=value, expressions=[exp.Literal.string("")]))
    # None is null. Together, because one after the other each would copy the long text that is there already.
    return _joined(
        [exp.func("concat", *parts[at : at + _TOGETHER], dialect="duckdb") for at in range(0, len(parts), _TOGETHER)]
    )


def listed_kinds(kinds: Iterable[str]) -> exp.Expr:
    """The JSON object of the identifiers of a group of rows `kind, listed`, for the kinds a destination accepts."""
    parts: list[exp.Expr] = []
    for kind in sorted(kinds):
        listed = exp.Max(
            this=exp.Case().when(exp.column("kind").eq(exp.Literal.string(kind)), exp.column("listed"), copy=False)
        )
        named = _joined([exp.Literal.string(f',"{kind}":['), listed, exp.Literal.string("]")])
        parts.append(exp.Coalesce(this=named, expressions=[exp.Literal.string("")]))
    inner = exp.func("substring", _joined(parts), exp.Literal.number(2), dialect="duckdb")
    return _joined([exp.Literal.string("{"), inner, exp.Literal.string("}")])


def field_text(reference: str, column: str, kind: str) -> exp.Expr:
    """A column as text in the one spelling of its type."""
    word = kind.lower().split("(")[0].strip()
    if word in _BROKEN:
        if _MONEY.search(column):
            number = f"cast(cast({reference} as decimal(18, 2)) as text)"
        else:
            number = f"rtrim(rtrim(cast(cast({reference} as decimal(24, 6)) as text), '0'), '.')"
        # Not a number and infinity are no value a merge field could show.
        text = f"case when {reference} between -{_LARGEST} and {_LARGEST} then {number} end"
    elif word in _WHOLE:
        text = f"cast({reference} as text)"
    elif word.startswith("timestamp"):
        text = f"strftime({reference}, '%Y-%m-%d') || 'T' || strftime({reference}, '%H:%M:%S') || 'Z'"
    elif word in ("boolean", "bool"):
        text = f"case when {reference} then 'true' when not {reference} then 'false' end"
    elif word == "date":
        text = f"strftime({reference}, '%Y-%m-%d')"
    elif word in ("text", "varchar", "string", "character varying"):
        text = reference
    else:
        raise ConfigurationError(f"the column {column} has the type {kind}, which cannot be sent as a merge field")
    return sqlglot.parse_one(text, read="duckdb")


def _character(code: int) -> exp.Expr:
    return exp.Chr(expressions=[exp.Literal.number(code)])


def _joined(parts: list[exp.Expr]) -> exp.Expr:
    whole = parts[0]
    for part in parts[1:]:
        whole = exp.DPipe(this=whole, expression=part, safe=True)
    return exp.Paren(this=whole)
