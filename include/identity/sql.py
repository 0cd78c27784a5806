"""The SQL twins of the hashes: written into a model that names one, and equal to the Python ones (a test proves it).

`SQL_FUNCTIONS` holds the house functions by name. `DESTINATION_KINDS` says for each kind of identifier a destination
may ask for which identifier of ours it is made from and how. The input is normalised already (staging does that).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import sqlglot
from sqlglot import exp

from include.warehouse.dialects import to_sql

SqlFunction = Callable[[exp.Expr], exp.Expr]

_PLAIN = "nullif(lower(trim(value)), '')"
_ONE_WORD = r"nullif(regexp_replace(lower(value), '[ \t\n\r\f\v]', '', 'g'), '')"
_GMAIL_FOLDED = (
    f"case when split_part({_ONE_WORD}, '@', 2) in ('gmail.com', 'googlemail.com') "
    f"then replace(split_part(split_part({_ONE_WORD}, '@', 1), '+', 1), '.', '') "
    f"|| '@' || split_part({_ONE_WORD}, '@', 2) else {_ONE_WORD} end"
)
_DIGITS = "nullif(regexp_replace(value, '[^0-9]', '', 'g'), '')"

# What is empty becomes null, and so does its hash.
_TEMPLATES = {
    "email_md5": f"md5({_PLAIN})",
    "email_sha256": f"sha256({_PLAIN})",
    "google_email_sha256": f"sha256({_GMAIL_FOLDED})",
    "google_phone_sha256": f"sha256('+' || {_DIGITS})",
    "meta_email_sha256": f"sha256({_PLAIN})",
    "meta_phone_sha256": f"sha256(nullif(ltrim({_DIGITS}, '0'), ''))",
    "linkedin_email_sha256": f"sha256({_ONE_WORD})",
    "dv360_email_sha256": f"sha256({_ONE_WORD})",
    "phone_sha256": "sha256(nullif(value, ''))",
    "uid2_email_hash": f"to_base64(unhex(sha256({_GMAIL_FOLDED})))",
    "uid2_phone_hash": f"to_base64(unhex(sha256('+' || {_DIGITS})))",
}


@lru_cache
def _template(name: str) -> exp.Expr:
    return sqlglot.parse_one(_TEMPLATES[name], read="duckdb")


def _builder(name: str) -> SqlFunction:
    def build(value: exp.Expr) -> exp.Expr:
        argument = value.copy() if isinstance(value, exp.Column | exp.Literal) else exp.Paren(this=value.copy())
        return _template(name).transform(
            lambda node: argument.copy() if isinstance(node, exp.Column) and node.name == "value" else node
        )

    return build


SQL_FUNCTIONS: dict[str, SqlFunction] = {name: _builder(name) for name in _TEMPLATES}


@dataclass(frozen=True)
class DestinationKind:
    """How a destination's identifier is made: from which kind in core.identifiers, by which expression."""

    source_kind: str
    expression: SqlFunction
    is_as_it_is: bool = False  # else two identifiers of ours may be one as they are sent

    def sql(self, column: str, dialect: str = "duckdb") -> str:
        """The expression over a column, as text in a dialect."""
        return to_sql(self.expression(exp.to_column(column)), dialect)


def _as_is(value: exp.Expr) -> exp.Expr:
    return value.copy()


DESTINATION_KINDS: dict[str, DestinationKind] = {
    **{name: DestinationKind(name, _as_is, is_as_it_is=True) for name in ("email", "phone", "visitor_id")},
    **{
        name: DestinationKind("phone" if "phone" in name else "email", function)
        for name, function in SQL_FUNCTIONS.items()
    },
}
