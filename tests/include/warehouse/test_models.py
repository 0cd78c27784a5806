"""What the SQL files read, in which order they are built, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from include.errors import ConfigurationError
from include.warehouse.models import build_order, check_model, load_models

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, sql: str) -> None:
        path = tmp_path / f"{name.replace('.', '/')}.sql"
        path.parent.mkdir(exist_ok=True)
        path.write_text(sql)

    return put


def test_dependencies_are_the_tables_and_not_the_ctes(write: Write, tmp_path: Path) -> None:
    write("staging.contacts", "select source from raw.contacts")
    write(
        "core.profiles",
        "with recursive contacts as (select source from staging.contacts), "
        "steps as (select 1 as n union all select n + 1 from steps where n < 3) "
        "select contacts.source, steps.n, (select max(o.read_at) from sync.opt_outs as o) as t "
        "from contacts cross join steps",
    )
    assert load_models(tmp_path)["core.profiles"].depends_on == {"staging.contacts", "sync.opt_outs"}


def test_a_cte_counts_only_where_it_stands(write: Write, tmp_path: Path) -> None:
    write(
        "core.x", "select a from (with inner_one as (select 1 as a) select a from inner_one) as t cross join inner_one"
    )
    with pytest.raises(ConfigurationError, match=r"core/x\.sql:1: 'inner_one' needs its schema"):
        check_model(tmp_path / "core" / "x.sql")


def test_the_header_is_the_description(write: Write, tmp_path: Path) -> None:
    write("reports.x", "-- One row is a day.\n-- materialized: view\n--\n-- Key: day.\nselect 1 as day -- not this\n")
    model = load_models(tmp_path)["reports.x"]
    assert (model.description, model.materialized) == (
        "One row is a day.\n\n\nKey: day.".replace("\n\n\n", "\n\n"),
        "view",
    )


def test_the_order_follows_what_is_read(write: Write, tmp_path: Path) -> None:
    write("core.a", "select x from core.b")
    write("core.b", "select source as x from staging.orders")
    write("staging.orders", "select source from raw.orders")
    write("segments.s", "select x as profile_id from core.a")
    order = build_order(load_models(tmp_path))
    assert order == ["staging.orders", "core.b", "core.a", "segments.s"]


def test_a_circle_is_named(write: Write, tmp_path: Path) -> None:
    write("core.a", "select x from core.b")
    write("core.b", "select x from core.c")
    write("core.c", "select x from core.a")
    with pytest.raises(ConfigurationError, match=r"core\.a > core\.b > core\.c > core\.a"):
        build_order(load_models(tmp_path))


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("core.x", "raw.orders"),
        ("core.x", "sync.ledger"),
        ("staging.x", "core.y"),
        ("staging.x", "sync.opt_outs"),
        ("segments.x", "staging.y"),
        ("segments.x", "sync.ledger"),
    ],
)
def test_data_moves_left_to_right(write: Write, tmp_path: Path, name: str, reads: str) -> None:
    write("core.y", "select 1 as a")
    write("staging.y", "select 1 as a")
    write(name, f"select a\nfrom\n    {reads}")
    with pytest.raises(ConfigurationError, match=rf"{name.replace('.', '/')}\.sql:3: .*{reads}.* left to right"):
        check_model(tmp_path / f"{name.replace('.', '/')}.sql")


def test_reports_and_sync_views_read_anything(write: Write, tmp_path: Path) -> None:
    write("staging.orders", "select source from raw.orders")
    for name in ("reports.x", "sync.x"):
        write(name, "-- materialized: view\nselect source from raw.orders union all select source from staging.orders")
    assert {"reports.x", "sync.x"} <= set(load_models(tmp_path))


def test_a_misspelt_table_is_an_error_with_the_right_name(write: Write, tmp_path: Path) -> None:
    write("core.profiles", "select 1 as a")
    write("segments.x", "select a\nfrom core.profile")
    with pytest.raises(
        ConfigurationError, match=r"segments/x\.sql:2: there is no table core\.profile; did you mean core\.profiles"
    ):
        check_model(tmp_path / "segments" / "x.sql")


def test_a_misspelt_schema_is_an_error_with_the_right_name(write: Write, tmp_path: Path) -> None:
    write("segments.x", "select a from cor.profiles")
    with pytest.raises(ConfigurationError, match="there is no schema 'cor'; did you mean core"):
        check_model(tmp_path / "segments" / "x.sql")


@pytest.mark.parametrize("sql", ["select a from core.profile", "selec a", "select a from staging.a"])
def test_a_broken_segment_leaves_the_other_models_alone(write: Write, tmp_path: Path, sql: str) -> None:
    write("staging.a", "select 1 as a")
    write("core.profiles", "select a from staging.a")
    write("segments.good", "select a from core.profiles")
    write("segments.bad", sql)
    assert set(load_models(tmp_path)) == {"staging.a", "core.profiles", "segments.good"}


def test_a_segment_may_read_a_table_somebody_else_builds(write: Write, tmp_path: Path) -> None:
    write("segments.x", "select profile_id, entered_at from analytics.churn_scores")
    assert load_models(tmp_path)["segments.x"].depends_on == {"analytics.churn_scores"}


def test_a_model_that_reads_itself_is_refused(write: Write, tmp_path: Path) -> None:
    write("core.x", "select a from core.x")
    with pytest.raises(ConfigurationError, match="reads itself"):
        load_models(tmp_path)


def test_sql_that_cannot_be_read_names_file_and_line(write: Write, tmp_path: Path) -> None:
    write("core.x", "select a,\n\nfrom from core.y")
    with pytest.raises(ConfigurationError, match=r"core/x\.sql:3: "):
        load_models(tmp_path)


@pytest.mark.parametrize(
    ("name", "sql", "said"),
    [
        ("sync.x", "select 1 as a", "materialized: view"),
        ("core.x", "-- materialized: magic\nselect 1 as a", "'magic'"),
        ("core.X-y", "select 1 as a", "file name"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused(write: Write, tmp_path: Path, name: str, sql: str, said: str) -> None:
    write(name, sql)
    with pytest.raises(ConfigurationError, match=said):
        load_models(tmp_path)


def test_a_changed_file_is_read_again(write: Write, tmp_path: Path) -> None:
    write("staging.x", "select source from raw.orders")
    first = load_models(tmp_path)["staging.x"]
    assert load_models(tmp_path)["staging.x"] is first
    write("staging.x", "select source from raw.events")
    os.utime(tmp_path / "staging" / "x.sql", (1, 1))
    assert load_models(tmp_path)["staging.x"].depends_on == {"raw.events"}


def test_reading_a_shipped_file_by_its_tokens_finds_what_reading_it_in_full_finds() -> None:
    for name, model in load_models().items():
        assert check_model(model.path).depends_on == model.depends_on, name


def test_the_shipped_models_can_be_ordered() -> None:
    models = load_models()
    order = build_order(models)
    place = {name: index for index, name in enumerate(order)}
    assert models
    assert all(place[needed] < place[name] for name in order for needed in models[name].depends_on if needed in place)
