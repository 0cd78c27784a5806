"""Placeholders become typed literals, house functions are written out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlglot

from include.errors import ConfigurationError
from include.warehouse.engine import Warehouse
from include.warehouse.render import FUNCTIONS, PutInLast, parse, put_in, render, render_tree

AS_OF = datetime(2026, 3, 10, 12)
STAGES = {"reminder": timedelta(hours=1), "nudge": timedelta(hours=24), "offer": timedelta(hours=72)}


def rows_of(sql: str) -> list[tuple[Any, ...]]:
    import duckdb

    with duckdb.connect() as connection:
        return list(connection.execute(sql).fetchall())


def value_of(expression: str, **params: Any) -> Any:
    return rows_of(render(f"select {expression} as x", "duckdb", params))[0][0]


@pytest.mark.parametrize(
    "value",
    [
        "O'Brien",
        "'; drop table x; --",
        "back\\slash",
        "line\nbreak",
        ":as_of",
        "",
        "Zoë 用户",
        True,
        False,
        0,
        -5,
        10**15,
        1.5,
        -0.25,
        1e-7,
        Decimal("12.30"),
        AS_OF,
        datetime(2026, 3, 10, 12, 0, 0, 123_456),
        timedelta(days=7),
        timedelta(seconds=-90),
        timedelta(milliseconds=1500),
    ],
)
def test_a_value_arrives_as_it_was(value: Any) -> None:
    found = value_of(":value", value=value)
    assert float(found) == float(value) if isinstance(value, float | Decimal) else found == value


def test_an_aware_time_becomes_utc() -> None:
    assert value_of(":t", t=AS_OF.replace(tzinfo=UTC)) == AS_OF


def test_nothing_is_null() -> None:
    assert value_of(":x is null", x=None) is True


def test_an_interval_can_be_subtracted() -> None:
    assert value_of(":as_of - :gap", as_of=AS_OF, gap=timedelta(minutes=30)) == datetime(2026, 3, 10, 11, 30)


def test_a_list_stands_in_in() -> None:
    assert value_of("'b' in (:letters)", letters=["a", "b"]) is True
    assert value_of("'b' in ('b', :letters)", letters=["a"]) is True


def test_an_empty_list_holds_nothing() -> None:
    assert value_of("'b' in (:letters)", letters=()) is False
    assert value_of("'b' not in (:letters)", letters=()) is True


def test_text_comments_and_casts_keep_their_colons() -> None:
    sql = "select ':a' as \":b\", '1'::bigint as c -- :d\n/* :e */"
    assert rows_of(render(sql, "duckdb", {})) == [(":a", 1)]


def test_an_unknown_placeholder_is_named_with_its_file() -> None:
    with pytest.raises(ConfigurationError, match=r"segments/x\.sql: there is no value for :idel_for.*:idle_for"):
        render("select :idel_for", "duckdb", {"idle_for": 1}, where="segments/x.sql")


def test_a_list_outside_of_in_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=":letters is a list"):
        render("select :letters", "duckdb", {"letters": ["a"]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"a": 1}])
def test_a_value_without_a_literal_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=":x"):
        render("select :x", "duckdb", {"x": value})


@pytest.mark.parametrize(
    ("touched", "stage"),
    [
        (AS_OF - timedelta(minutes=59), None),
        (AS_OF - timedelta(hours=1), None),
        (AS_OF - timedelta(hours=1, seconds=1), "reminder"),
        (AS_OF - timedelta(hours=24), "reminder"),
        (AS_OF - timedelta(hours=24, seconds=1), "nudge"),
        (AS_OF - timedelta(hours=72), "nudge"),
        (AS_OF - timedelta(days=30), "offer"),
    ],
)
def test_the_stage_is_the_last_one_that_has_begun(touched: datetime, stage: str | None) -> None:
    sql = render("select stage_of(:touched)", "duckdb", {"as_of": AS_OF, "touched": touched}, STAGES)
    assert rows_of(sql) == [(stage,)]


@pytest.mark.parametrize("stages", [None, {}])
def test_there_is_no_stage_without_stages(stages: dict[str, timedelta] | None) -> None:
    sql = render("select stage_of(:as_of) as stage", "duckdb", {"as_of": AS_OF}, stages)
    assert rows_of(sql) == [(None,)]


def test_a_house_function_takes_one_argument() -> None:
    with pytest.raises(ConfigurationError, match=r"stage_of\(\) takes one argument, here it has 2"):
        render("select stage_of(a, b) from x", "duckdb", {"as_of": AS_OF}, STAGES)


def test_a_house_function_may_be_given_an_expression() -> None:
    sql = render("select email_md5(coalesce(null, 'Ana@Shop.example')) as h", "duckdb", {})
    assert rows_of(sql) == rows_of("select md5('ana@shop.example')")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ana", "ana"),
        ("  a b\t", "a b"),
        ("\r\n\u00a0Ana \n", "Ana"),
        ("\u3000小明\u2003\ufeff", "小明"),
        ("می\u200cروم", "می\u200cروم"),  # a joiner within a word is part of it
        ("Ana\u3000", "Ana"),  # plain at one end only
        ("\u00a0Ana", "Ana"),
        ("a", "a"),
        ("", None),
        (" \t\r\n\v\f\u0085\u00a0", None),
        ("\u1680\u2000\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff", None),
        (None, None),
    ],
)
def test_tidy_takes_the_blanks_and_leaves_null_for_nothing(text: str | None, left: str | None) -> None:
    assert value_of("tidy(:text)", text=text) == left
    assert value_of("is_tidy(:text)", text=text) is (text == left)


@pytest.mark.parametrize(
    ("text", "shaped"),
    [
        ("ana@shop.example", True),
        ("o'brien+x@mail.shop.example", True),
        ("zoë@müller.example", True),
        ("ana@shop", False),
        ("ana@", False),
        ("@shop.example", False),
        ("ana@@shop.example", False),
        ("ana@shop..example", False),
        ("ana@shop.e", False),
        ("an a@shop.example", False),
        ("ana@shop.example\nbo@shop.example", False),
        ("ana@shop.example,bo@shop.example", False),
        ("<ana@shop.example>", False),
        ("", False),
        (None, None),
    ],
)
def test_is_email_asks_for_the_shape_of_one_address(text: str | None, shaped: bool | None) -> None:
    assert value_of("is_email(:text)", text=text) is shaped


def test_house_functions_may_be_nested_and_named_in_any_case() -> None:
    assert value_of("IS_EMAIL(lower(Tidy(:a || :b)))", a=" ANA@", b="Shop.example\t") is True


@pytest.mark.parametrize("dialect", ["postgres", "spark"])
def test_every_house_function_has_words_in_other_engines(dialect: str) -> None:
    calls = ", ".join(f"{name}(a.x)" for name in sorted(FUNCTIONS))
    written = render(f"select {calls} from raw.q as a", dialect, {})
    tree = sqlglot.parse_one(written, read=dialect)
    assert not {str(call.this).lower() for call in tree.find_all(sqlglot.exp.Anonymous)} & set(FUNCTIONS)
    assert "regexp_matches" not in written.lower()


@pytest.mark.parametrize("sql", ["select 1; select 2", "delete from x", "", "select from where"])
def test_what_is_not_one_select_is_refused(sql: str) -> None:
    with pytest.raises(ConfigurationError, match="core/x"):
        render(sql, "duckdb", {}, where="core/x")


def test_the_dialect_is_the_engines() -> None:
    sql = "select a from core.x where a < :as_of - :gap"
    assert "INTERVAL '60 SECOND'" in render(sql, "postgres", {"as_of": AS_OF, "gap": timedelta(seconds=60)})


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("ana@shop.example", True),
        ("zoë@bücher.example", True),
        ("a\u00a0b@shop.example", True),  # a blank beyond ASCII is no blank, on any engine
        ("a\u2003b@shop.example", True),
        *((f"a{blank}b@shop.example", False) for blank in " \t\n\r\f"),
        ("ana@shop", False),
        ("ana@@shop.example", False),
        ("ana@shop.example\n", False),
        ("", False),
        (None, None),
    ],
)
def test_every_engine_sees_an_address_in_the_same_texts(
    empty_warehouse: Warehouse, text: str | None, is_one: bool | None
) -> None:
    tree = render_tree(parse("select is_email(email) as is_one, tidy(email) as tidied from raw.contacts"), {})
    empty_warehouse.insert("raw.contacts", [{"email": text}])
    found = empty_warehouse.read(tree.sql(dialect="duckdb"))
    assert found == [{"is_one": is_one, "tidied": (text or "").strip() or None}]


@pytest.mark.parametrize("value", ["plain", "it's", "100 % of :all", datetime(2026, 3, 10, 12)])
def test_what_is_put_in_last_is_as_if_it_had_been_there(value: str | datetime) -> None:
    is_moment = isinstance(value, datetime)
    left_out = render_tree(parse("select :who as who"), {"who": PutInLast("who", is_moment)}).sql("duckdb")
    assert put_in(left_out, {"who": value}) == render_tree(parse("select :who as who"), {"who": value}).sql("duckdb")


@pytest.mark.parametrize("text", ["undefined", "NULL", "(not set)", "<Other>", "0", "-"])
def test_a_placeholder_is_not_known(text: str) -> None:
    assert value_of("known(:text)", text=text) is None


@pytest.mark.parametrize("text", ["ana", "00", "nullarbor", "1", None])
def test_what_is_no_placeholder_stays(text: str | None) -> None:
    assert value_of("known(:text)", text=text) == text


@pytest.mark.parametrize(
    ("text", "dialled"),
    [("+43 (660) 12-34.56/7", "+436601234567"), ("0660 1234", "0660 1234"), ("+1", "+1"), (None, None)],
)
def test_a_number_with_its_country_is_what_is_dialled(text: str | None, dialled: str | None) -> None:
    assert value_of("dialled(:text)", text=text) == dialled
