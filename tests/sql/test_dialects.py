"""Every model in the dialects of engines that are not run here: it is written, read back, and nothing is left over.

That is all this says. DuckDB and PostgreSQL run every case; these engines have never run one (docs/engines.md).
"""

from __future__ import annotations

import logging

import pytest
import sqlglot
from sqlglot import exp

from include.identity.sql import DESTINATION_KINDS
from include.warehouse.dialects import to_sql
from include.warehouse.models import Model, load_models
from include.warehouse.render import parse, render_tree
from tests.sql.conftest import EMPTY_AS_OF, params_of, settings_of

DIALECTS = ("bigquery", "snowflake", "redshift", "databricks", "spark", "postgres")
# BigQuery sorts nulls first in aggregates and framed windows and cannot be told otherwise; we sort by keys there.
ACCEPTED = "'NULLS LAST' translation not supported"
MODELS = load_models()


def written(model: Model, dialect: str) -> str:
    params, stages = params_of(model, {"as_of": EMPTY_AS_OF}, settings_of({}))
    return to_sql(render_tree(parse(model.sql, model.where), params, stages, where=model.where), dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_can_be_written_and_read_in_a_dialect(
    name: str, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="sqlglot"):
        text = written(MODELS[name], dialect)
    # sqlglot warns of what a dialect cannot say.
    warned = [record.getMessage() for record in caplog.records]
    assert [said for said in warned if not (dialect == "bigquery" and said.startswith(ACCEPTED))] == []
    tree = sqlglot.parse_one(text, read=dialect)
    original = parse(MODELS[name].sql, MODELS[name].where)
    assert isinstance(tree, exp.Query)
    assert [column.lower() for column in tree.named_selects] == [column.lower() for column in original.named_selects]
    assert not list(tree.find_all(exp.Placeholder))
    assert tables(tree) == MODELS[name].depends_on


def tables(tree: exp.Expr) -> set[str]:
    return {f"{table.db}.{table.name}".lower() for table in tree.find_all(exp.Table) if table.db}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("kind", sorted(DESTINATION_KINDS))
def test_an_identifier_can_be_written_and_read_in_a_dialect(kind: str, dialect: str) -> None:
    text = DESTINATION_KINDS[kind].sql("given.value", dialect)
    assert "value" in text
    sqlglot.parse_one(text, read=dialect)


def test_what_our_sql_uses_and_a_dialect_lacks_is_written_out() -> None:
    tree = sqlglot.parse_one("select sha256(a), to_base64(unhex(b)), arg_max(c, d) from t", read="duckdb")
    text = to_sql(tree, "postgres")
    for lacking in ("UNHEX", "TO_BASE64", "ARG_MAX", "SHA256(a)"):
        assert lacking not in text
