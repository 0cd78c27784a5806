"""What a build has to work out anew: the sets of keys that new loads touched, and how a model asks for them.

A model that is built incrementally says `touched_profile(profile_id)` and the like where it reads. In a full build that
is always true; in an incremental one it is membership in the table of this build's keys (`core.touched_profiles`).
"""

from __future__ import annotations

from collections.abc import Callable

import sqlglot
from sqlglot import exp

# The table whose building fills a set of keys: what asks for them is built after it.
FILLED_BY = {
    "touched_event": "staging.event_items",
    "touched_event_day": "staging.event_items",
    "touched_day": "core.erased_identifiers",
    "touched_visit": "core.erased_identifiers",
    "touched_walk": "core.erased_identifiers",
    "touched_node": "core.islands",
    "touched_visitor": "core.islands",
    "touched_profile": "core.identifiers",
}
# What must be there besides what is read: changed lines touch the people of their order or cart.
FOLLOWS = {"core.islands": frozenset({"staging.order_items", "staging.cart_items"})}
# name of the function: (table of keys, its column, how the argument becomes a key)
UNITS: dict[str, tuple[str, str, str]] = {
    "touched_event": ("core.touched_events", "event_key", "argument"),
    # The days of touched events are known early; those of touched visits only when it is known who is erased.
    "touched_event_day": ("core.touched_days", "day", "cast(argument as date)"),
    "touched_day": ("core.touched_days", "day", "cast(argument as date)"),
    "touched_visit": ("core.touched_visits", "session_key", "argument"),
    "touched_walk": ("core.touched_walks", "walk", "argument"),
    "touched_node": ("core.touched_nodes", "node", "argument"),
    "touched_visitor": ("core.touched_visitors", "visitor_id", "argument"),
    "touched_profile": ("core.touched_profiles", "profile_id", "argument"),
}


# Asking for days names the first of them by value, so that an engine that knows what lies where skips older pages.
SINCE = {"touched_event_day", "touched_day"}


def always(argument: exp.Expr) -> exp.Expr:
    """Everything is touched: a full build."""
    return exp.true()


def membership(name: str) -> Callable[[exp.Expr], exp.Expr]:
    """The test whether an argument is among the keys of this build."""
    table, column, key = UNITS[name]

    def written(argument: exp.Expr) -> exp.Expr:
        test = f"{key} in (select {column} from {table})"
        if name in SINCE:
            test = f"(argument >= $touched_since and {test})"
        tree = sqlglot.parse_one(test, dialect="duckdb")
        for found in list(tree.find_all(exp.Column)):
            if found.name == "argument":
                found.replace(argument.copy())
        return tree

    return written


TOUCHED_IN_FULL: dict[str, Callable[[exp.Expr], exp.Expr]] = dict.fromkeys(UNITS, always)
TOUCHED_NOW: dict[str, Callable[[exp.Expr], exp.Expr]] = {name: membership(name) for name in UNITS}
