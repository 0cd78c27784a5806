"""Identity in SQL against the same rules written down a second time, as plain Python over sets, on random records."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from include.settings import Settings
from include.warehouse.build import run_model, setting_params
from include.warehouse.engine import Warehouse
from include.warehouse.models import Model, build_order, load_models
from include.warehouse.tables import recorded_columns
from tests.conftest import SPARK
from tests.spark import SparkServer
from tests.sql.side_by_side import KEY, Values, build_side_by_side

AS_OF = datetime(2026, 3, 10, 12)
LIMIT = 2
STRONG = ("contact_id", "user_id", "email")
KINDS = (*STRONG, "phone", "visitor_id")
Node = tuple[str, str]


def records(seed: int) -> list[dict[str, str]]:
    """Orders of a small town: few people, so that everybody meets somebody."""
    rng = random.Random(seed)
    town = rng.choice([6, 12, 25, 40])
    made = []
    for number in range(rng.choice([15, 40, 80])):
        row = {"source": "shop", "order_id": f"o{number}"}
        for kind in rng.sample(KINDS, rng.choice([1, 1, 2, 2, 3])):
            value = str(1 + rng.randrange(town))  # a login of 0 is none
            row[kind] = {"email": f"m{value}@x.com", "phone": f"+4312345{value}"}.get(kind, value)
        made.append(row)
    return made


def groups(nodes: Iterable[Node], links: Iterable[tuple[Node, Node]]) -> dict[Node, frozenset[Node]]:
    """Every node with the set of all it hangs together with."""
    sets = {node: {node} for node in nodes}
    for one, other in links:
        if sets[one] is not sets[other]:
            sets[one] |= sets[other]
            for node in sets[one]:
                sets[node] = sets[one]
    return {node: frozenset(members) for node, members in sets.items()}


def expected(rows: list[dict[str, str]]) -> dict[Node, tuple[str, object]]:
    """State and profile of every identifier; a profile is here whatever compares equal for its members."""
    seen = [
        [(kind, f"shop:{row[kind]}" if kind == "contact_id" else row[kind]) for kind in KINDS if kind in row]
        for row in rows
    ]
    nodes = {node for record in seen for node in record}
    links = {(one, other) for record in seen for one in record for other in record if one != other}
    met: dict[Node, set[Node]] = defaultdict(set)
    for one, other in links:
        met[one].add(other)

    accounts = {node for node in nodes if node[0] in ("contact_id", "user_id")}
    people = groups(accounts, [link for link in links if accounts.issuperset(link)])
    quarantined = set()
    for node in (node for node in nodes if node[0] == "email"):
        joins = {people[other] for other in met[node] & accounts}
        browsers = {other for other in met[node] if other[0] == "visitor_id" and not met[other] & accounts}
        if len(joins) + len(browsers) > LIMIT:
            quarantined.add(node)
    strong = {node for node in nodes if node[0] in STRONG} - quarantined
    profiles = groups(strong, [link for link in links if strong.issuperset(link)])

    answer: dict[Node, tuple[str, object]] = {node: ("joined", profiles[node]) for node in strong}
    answer |= dict.fromkeys(quarantined, ("quarantined", None))
    weak = nodes - strong - quarantined
    owners = {node: {profiles[other] for other in met[node] & strong} for node in weak}
    alone = set()
    for node in weak:
        strangers = {other for other in met[node] & weak if not owners[other]}
        if len(owners[node]) + len(strangers) > LIMIT:
            answer[node] = ("quarantined", None)
        elif len(owners[node]) > 1:
            answer[node] = ("shared", node)
        elif owners[node]:
            answer[node] = ("joined", next(iter(owners[node])))
        else:
            alone.add(node)
    for members in set(groups(alone, [link for link in links if alone.issuperset(link)]).values()):
        touched = {
            answer[other][1] for node in members for other in met[node] & weak - alone if answer[other][0] == "joined"
        }
        own: tuple[str, object] = ("joined", next(iter(touched))) if len(touched) == 1 else ("alone", members)
        answer |= dict.fromkeys(members, own)
    return answer


def found(warehouse: Warehouse, rows: list[dict[str, str]]) -> dict[Node, tuple[str, object]]:
    """The same from the SQL models."""
    models = needed_models()
    with warehouse.session() as session:
        warehouse.insert("raw.orders", dated(rows), connection=session)
        for name in build_order(models):
            run_model(warehouse, session, models[name], params())
    return by_node(warehouse.read("select identifier_kind, identifier_value, state, profile_id from core.identifiers"))


def dated(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    began = datetime(2026, 1, 1)
    return [{**row, "ordered_at": began + timedelta(minutes=number)} for number, row in enumerate(rows)]


def needed_models() -> dict[str, Model]:
    models = load_models()
    needed = {"core.identifiers"}
    while more := {name for model in needed for name in models[model].depends_on if name in models} - needed:
        needed |= more
    return {name: models[name] for name in needed}


def params() -> dict[str, Any]:
    return {**setting_params(Settings(quarantine_above=LIMIT)), "as_of": AS_OF}


def by_node(identifiers: Iterable[Mapping[str, Any]]) -> dict[Node, tuple[str, object]]:
    return {(row["identifier_kind"], row["identifier_value"]): (row["state"], row["profile_id"]) for row in identifiers}


def as_sets(answer: dict[Node, tuple[str, object]]) -> set[frozenset[Node]]:
    """Who is with whom, whatever the profile is called."""
    members = defaultdict(set)
    for node, (_, profile) in answer.items():
        if profile is not None:
            members[profile].add(node)
    return {frozenset(nodes) for nodes in members.values()}


@pytest.mark.parametrize("seed", range(12))
def test_identity_is_what_the_rules_say(empty_warehouse: Warehouse, seed: int) -> None:
    rows = records(seed)
    wanted, got = expected(rows), found(empty_warehouse, rows)
    assert {node: state for node, (state, _) in got.items()} == {node: state for node, (state, _) in wanted.items()}
    assert as_sets(got) == as_sets(wanted)


@SPARK
@pytest.mark.on_spark
def test_identity_on_spark_is_what_the_rules_say_in_all_towns_at_once(spark_server: SparkServer) -> None:
    warehouse = spark_server.empty(with_tables=False)
    towns = {seed: records(seed) for seed in range(12)}
    build_side_by_side(
        warehouse,
        needed_models(),
        recorded_columns(),
        {"raw.orders": {seed: dated(rows) for seed, rows in towns.items()}},
        lambda _: {seed: Values(params(), None) for seed in towns},
    )
    identifiers = warehouse.read("select * from core.identifiers")
    warehouse.close()
    for seed, rows in towns.items():
        wanted, got = expected(rows), by_node(row for row in identifiers if row[KEY] == seed)
        assert {node: state for node, (state, _) in got.items()} == {node: state for node, (state, _) in wanted.items()}
        assert as_sets(got) == as_sets(wanted)


def test_the_random_towns_have_every_state() -> None:
    states = [state for seed in range(12) for state, _ in expected(records(seed)).values()]
    assert min(states.count(state) for state in ("joined", "shared", "alone", "quarantined")) >= 10
