"""House functions for staging: what a text means once blanks are gone, and whether it has the shape of an address.

They are written as `tidy(x)`, `is_tidy(x)`, `known(x)`, `dialled(x)` and `is_email(x)` in the models and spelt out for
the engine when the model is rendered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import sqlglot
from sqlglot import exp

# Unicode's white space, and what is as wide as nothing: zero width space, word joiner, byte order mark. By number,
# because DuckDB reads a wide blank in a statement as a plain one.
BLANK_NUMBERS = (*range(9, 14), 32, 133, 160, 5760, *range(8192, 8204), 8232, 8233, 8239, 8287, 8288, 12288, 65279)
BLANKS = " || ".join(f"chr({blank})" for blank in BLANK_NUMBERS)
# Stands for them in a syntax tree, which would be ten times as large otherwise; `to_sql` writes them out.
BLANKS_MARK = "REKINDLE_BLANKS"
# Blanks are spelt out: what \s means beyond ASCII differs from engine to engine.
EMAIL_SHAPE = r"""^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$""".replace(r"\s", r" \t\n\r\f")
# What programs write where they have no login and no order number: people who share it have nothing in common.
PLACEHOLDERS = (
    "(not set)", "(none)", "(other)", "<other>", "(not provided)", "(data deleted)", "undefined", "null", "none", "nil",
    "nan", "n/a", "unknown", "0", "-",
)  # fmt: skip
# What sorts from '!' to '~' begins with a plain character: a comparison is cheaper than cutting one off.
_IS_PLAIN = "argument between '!' and '~' and right(argument, 1) between '!' and '~'"


def _tidy(argument: exp.Expr) -> exp.Expr:
    """The text without blanks around it, null when nothing is left.

    Nearly every text begins and ends with a plain character, and looking at these two costs a tenth of trimming.
    """
    return _written(f"case when {_IS_PLAIN} then argument else nullif(trim(argument, {BLANKS_MARK}), '') end", argument)


def _is_tidy(argument: exp.Expr) -> exp.Expr:
    """Whether `tidy` leaves it as it is; null is."""
    return _written(
        f"case when {_IS_PLAIN} then true "
        f"else coalesce(nullif(trim(argument, {BLANKS_MARK}), '') = argument, argument is null) end",
        argument,
    )


def _known(argument: exp.Expr) -> exp.Expr:
    """The text, null where it is a placeholder."""
    listed = ", ".join(f"'{text}'" for text in PLACEHOLDERS)
    return _written(f"case when lower(argument) in ({listed}) then null else argument end", argument)


def _dialled(argument: exp.Expr) -> exp.Expr:
    """A phone number with its country as it is dialled, without what people write between its digits; others as is."""
    return _written("case when argument like '+%' then translate(argument, ' -()./', '') else argument end", argument)


def _is_email(argument: exp.Expr) -> exp.Expr:
    """Whether a text has the shape of an address; null for null. Mailboxes are not asked."""
    return _written(f"regexp_matches(argument, '{EMAIL_SHAPE}')", argument)


@lru_cache
def _parsed(template: str) -> exp.Expr:
    return sqlglot.parse_one(template, dialect="duckdb")


def _written(template: str, argument: exp.Expr) -> exp.Expr:
    tree = _parsed(template).copy()
    for column in list(tree.find_all(exp.Column)):
        column.replace(exp.Var(this=BLANKS_MARK) if column.name == BLANKS_MARK else argument.copy())
    return tree


STAGING_FUNCTIONS: dict[str, Callable[[exp.Expr], exp.Expr]] = {
    "tidy": _tidy,
    "is_tidy": _is_tidy,
    "known": _known,
    "dialled": _dialled,
    "is_email": _is_email,
}
