"""Where sqlglot's own translation is not enough: house dialects for engines that lack what our SQL uses.

Models are written once, in DuckDB's dialect. Everything that turns a syntax tree into text for an engine calls
`to_sql`, so that a gap is closed here once and no model ever asks which engine it runs on.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlglot import exp, parse_one
from sqlglot.dialects.dialect import Dialect
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.dialects.postgres import Postgres
from sqlglot.dialects.spark import Spark
from sqlglot.generators.duckdb import DuckDBGenerator
from sqlglot.generators.postgres import PostgresGenerator
from sqlglot.generators.spark import SparkGenerator

from include.warehouse.house import BLANK_NUMBERS, BLANKS, BLANKS_MARK


class HouseDuckDBGenerator(DuckDBGenerator):
    """DuckDB, with a last character that it looks up once for a text that comes often (2.0 does not for `right`)."""

    TRANSFORMS = {
        **DuckDBGenerator.TRANSFORMS,
        exp.Right: lambda self, node: (
            f"SUBSTRING({self.sql(node, 'this')}, -1)"
            if node.expression == exp.Literal.number(1)
            else self.function_fallback_sql(node)
        ),
    }


class HouseDuckDB(DuckDB):
    """DuckDB as the house writes it."""

    Generator = HouseDuckDBGenerator


class HousePostgresGenerator(PostgresGenerator):
    """PostgreSQL, with text hashed over its UTF-8 bytes, base64, and arg_max."""

    TRANSFORMS = {
        **PostgresGenerator.TRANSFORMS,
        exp.SHA2: lambda self, node: (
            f"ENCODE(SHA{node.args['length'].name if node.args.get('length') else 256}"
            f"(CONVERT_TO({self.sql(node, 'this')}, 'UTF8')), 'hex')"
        ),
        exp.Unhex: lambda self, node: f"DECODE({self.sql(node, 'this')}, 'hex')",
        # PostgreSQL breaks base64 into lines.
        exp.ToBase64: lambda self, node: f"REPLACE(ENCODE({self.sql(node, 'this')}, 'base64'), CHR(10), '')",
        exp.ArgMax: lambda self, node: _first_by(self, node, "DESC"),
        exp.ArgMin: lambda self, node: _first_by(self, node, "ASC"),
    }


class HousePostgres(Postgres):
    """PostgreSQL as the house writes it."""

    Generator = HousePostgresGenerator


def _to_the_very_end(generator: Any, node: exp.RegexpLike) -> str:
    """The pattern; Java's `$` also fits before a last line break."""
    pattern = node.expression
    if isinstance(pattern, exp.Literal) and pattern.this.endswith("$") and not pattern.this.endswith("\\$"):
        pattern = exp.Literal.string(pattern.this[:-1] + "\\z")
    return str(generator.sql(pattern))


_NUMBERS = (exp.RowNumber, exp.Rank, exp.DenseRank, exp.Ntile)


class HouseSparkGenerator(SparkGenerator):
    """Spark SQL, whose lengths and row numbers are ints where ours are bigints, and whose letters are Java's."""

    TRANSFORMS = {
        **SparkGenerator.TRANSFORMS,
        exp.Length: lambda self, node: f"CAST(LENGTH({self.sql(node, 'this')}) AS BIGINT)",
        # Java knows two small letters that no other engine of ours does: a dotted i and a sigma at the end of a word.
        exp.Lower: lambda self, node: f"LOWER(TRANSLATE({self.sql(node, 'this')}, 'İΣ', 'iσ'))",  # noqa: RUF001
        exp.RegexpLike: lambda self, node: f"{self.sql(node, 'this')} RLIKE {_to_the_very_end(self, node)}",
        exp.TimeToUnix: lambda self, node: (
            f"(UNIX_MICROS(CAST({self.sql(node, 'this')} AS TIMESTAMP_LTZ)) / CAST(1000000 AS DOUBLE))"
        ),
    }

    def window_sql(self, expression: exp.Window) -> str:
        text = super().window_sql(expression)
        return f"CAST({text} AS BIGINT)" if isinstance(expression.this, _NUMBERS) else text


class HouseSpark(Spark):
    """Spark SQL as the house writes it."""

    Generator = HouseSparkGenerator


def _first_by(generator: Any, node: exp.Expr, order: str) -> str:
    value, by = generator.sql(node, "this"), generator.sql(node, "expression")
    return f"(ARRAY_AGG({value} ORDER BY {by} {order}) FILTER(WHERE NOT {value} IS NULL AND NOT {by} IS NULL))[1]"


_HOUSE: dict[str, type[Dialect]] = {"duckdb": HouseDuckDB, "postgres": HousePostgres, "spark": HouseSpark}


# A 64-bit hash of a text, each engine's own: it finds keys quickly within one warehouse and means nothing elsewhere.
_KEY_HASH = {
    "duckdb": "CAST(HASH({0}) >> 1 AS BIGINT)",
    "postgres": "HASHTEXTEXTENDED({0}, 0)",
    "spark": "XXHASH64({0})",
    "databricks": "XXHASH64({0})",
    "bigquery": "FARM_FINGERPRINT({0})",
    "snowflake": "HASH({0})",
    "redshift": "FARMFINGERPRINT64({0})",
}


def to_sql(tree: exp.Expr, dialect: str, *, copy: bool = True) -> str:
    """The text of a statement in an engine's dialect; with `copy=False` the tree may be changed."""
    house = _HOUSE.get(dialect, dialect)
    if copy:
        tree = tree.copy()
    for call in reversed(list(tree.find_all(exp.Anonymous))):
        if str(call.this).lower() == "key_hash":
            text = _KEY_HASH.get(dialect, "HASH({0})").format(call.expressions[0].sql(dialect=house))
            call.replace(exp.Var(this=text))
    for cte in tree.find_all(exp.CTE):
        if dialect not in ("duckdb", "postgres"):  # the others do not know the words
            cte.set("materialized", None)
        elif _only_renames(cte.this):
            cte.set("materialized", False)
    text = tree.sql(dialect=house, copy=False)
    return text.replace(BLANKS_MARK, _blanks(dialect)) if BLANKS_MARK in text else text


@lru_cache
def _blanks(dialect: str) -> str:
    if dialect in ("spark", "databricks"):  # chr() knows 256 characters there
        return "'" + "".join(f"\\u{number:04x}" for number in BLANK_NUMBERS) + "'"
    if dialect == "duckdb":  # one text, where joining all of them again at each place was most of planning
        text = "".join(f"\\x{byte:02X}" for byte in "".join(map(chr, BLANK_NUMBERS)).encode())
        return f"DECODE(CAST('{text}' AS BLOB))"
    return parse_one(BLANKS, dialect="duckdb").sql(dialect=_HOUSE.get(dialect, dialect))


def _only_renames(query: exp.Expr) -> bool:
    """Whether a CTE computes nothing that would be dear twice: it is read in place, never written down whole."""
    return (
        isinstance(query, exp.Select)
        and not any(
            query.args.get(part) for part in ("joins", "group", "distinct", "having", "qualify", "limit", "with_")
        )
        and query.find(exp.Window, exp.AggFunc, exp.Subquery, exp.In) is None
    )
