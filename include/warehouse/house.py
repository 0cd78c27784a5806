"""House functions for staging: what a text means once blanks are gone, and whether it has the shape of an address.

They are written as `tidy(x)` and `is_email(x)` in the models and spelt out for the engine when the model is rendered.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlglot
from sqlglot import exp

BLANKS = "' ' || chr(9) || chr(10) || chr(13) || chr(160)"
# Blanks are spelt out: what \s means beyond ASCII differs from engine to engine.
EMAIL_SHAPE = r"""^[^\s@,;<>"]+@[^\s@.,;<>"]+(\.[^\s@.,;<>"]+)*\.[^\s@.,;<>"]{2,}$""".replace(r"\s", r" \t\n\r\f")


def _tidy(argument: exp.Expr) -> exp.Expr:
    """The text without blanks around it, null when nothing is left."""
    return _written(f"nullif(trim(argument, {BLANKS}), '')", argument)


def _is_email(argument: exp.Expr) -> exp.Expr:
    """Whether a text has the shape of an address; null for null. Mailboxes are not asked."""
    return _written(f"regexp_matches(argument, '{EMAIL_SHAPE}')", argument)


def _written(template: str, argument: exp.Expr) -> exp.Expr:
    tree = sqlglot.parse_one(template, dialect="duckdb")
    for column in list(tree.find_all(exp.Column)):
        column.replace(argument.copy())
    return tree


STAGING_FUNCTIONS: dict[str, Callable[[exp.Expr], exp.Expr]] = {"tidy": _tidy, "is_email": _is_email}
