"""Where a model may read a slice in the place of a table, and where it may not."""

from __future__ import annotations

import pytest

from include.warehouse.models import load_models
from include.warehouse.render import parse, render_in_slices
from include.warehouse.slices import in_slices, slice_name

KEYS = {
    "staging.orders": None, "core.sessions": "profile_id", "core.visits": "session_key", "core.identifiers": "node"
}  # fmt: skip
OF_PROFILES = slice_name("core.sessions", "touched_profile", "profile_id")


def test_the_rows_of_a_touched_key_are_a_slice() -> None:
    sql = "select a.x from core.sessions as a where a.x > 1 and touched_profile(a.profile_id)"
    tree = parse(sql).copy()
    assert in_slices(tree, KEYS) == {OF_PROFILES: "select * from core.sessions where touched_profile(profile_id)"}
    assert tree.sql(dialect="duckdb") == f"SELECT a.x FROM {OF_PROFILES} AS a WHERE a.x > 1 AND TRUE"


def test_identifiers_of_touched_profiles_are_looked_for_among_the_touched() -> None:
    nodes = slice_name("core.identifiers", "touched_node", "node")
    found = in_slices(parse("select node from core.identifiers where touched_profile(profile_id)").copy(), KEYS)
    assert found == {
        nodes: "select * from core.identifiers where touched_node(node)",
        slice_name(
            "core.identifiers", "touched_profile", "profile_id"
        ): f"select * from {nodes} where touched_profile(profile_id)",
    }


@pytest.mark.parametrize(
    "sql",
    [
        "select x from core.sessions where x = 1 or touched_profile(profile_id)",
        "select x from core.sessions where not touched_profile(profile_id)",
        "select touched_profile(profile_id) as x from core.sessions",
        "select a.x from core.sessions as a inner join staging.orders as b on a.x = b.x where touched_profile(p)",
        # Read once in a build: setting it aside would cost more than it spares.
        "select x from core.visits where touched_visitor(visitor_id)",
        # Filled while models still ask for it.
        "select x from core.visits where touched_visit(session_key)",
        "select x from raw.orders where touched_node(x)",
    ],
)
def test_everything_else_is_read_where_it_stands(sql: str) -> None:
    tree = parse(sql).copy()
    assert in_slices(tree, KEYS) == {}
    assert tree == parse(sql)


def test_what_is_read_in_the_place_of_a_table_is_left_alone() -> None:
    sql = "select x from staging.orders where touched_node(x)"
    text, slices = render_in_slices(sql, "duckdb", {}, keys=KEYS, instead={"staging.orders": "select 1 as x"})
    assert slices == {}
    assert "core.touched_nodes" in text


def test_models_share_slices() -> None:
    """The reading of records and people is the same in most models; one that says it otherwise reads a table again."""
    models = load_models()
    keys = {name: model.key for name, model in models.items() if model.schema in ("staging", "core")}
    asked = [
        (query.split()[3], query)
        for model in models.values()
        if model.schema == "core"
        for query in in_slices(parse(model.sql, model.where).copy(), keys).values()
    ]
    for table in ("orders", "carts", "contacts", "contact_identifiers", "consents", "subscriptions", "engagement"):
        queries = [query for name, query in asked if name == f"staging.{table}"]
        assert (table, len(set(queries))) == (table, 1)
        assert len(queries) > 1, table
