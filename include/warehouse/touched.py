"""What a build has to work out anew: the sets of keys that new loads touched, and how a model asks for them.

A model that is built incrementally says `touched_profile(profile_id)` and the like where it reads. In a full build that
is always true; in an incremental one it is membership in the table of this build's keys (`core.touched_profiles`).
"""

from __future__ import annotations

from collections.abc import Callable

import sqlglot
from sqlglot import exp

# name of the function: (table of keys, its column, how the argument becomes a key)
UNITS: dict[str, tuple[str, str, str]] = {
    "touched_event": ("core.touched_events", "event_key", "argument"),
    "touched_day": ("core.touched_days", "day", "cast(argument as date)"),
    "touched_visit": ("core.touched_visits", "session_key", "argument"),
    "touched_walker": ("core.touched_walkers", "visitor_id", "argument"),
    "touched_node": ("core.touched_nodes", "node", "argument"),
    "touched_visitor": ("core.touched_visitors", "visitor_id", "argument"),
    "touched_profile": ("core.touched_profiles", "profile_id", "argument"),
}


def always(argument: exp.Expr) -> exp.Expr:
    """Everything is touched: a full build."""
    return exp.true()


def membership(name: str) -> Callable[[exp.Expr], exp.Expr]:
    """The test whether an argument is among the keys of this build."""
    table, column, key = UNITS[name]

    def written(argument: exp.Expr) -> exp.Expr:
        tree = sqlglot.parse_one(f"{key} in (select {column} from {table})", dialect="duckdb")
        for found in list(tree.find_all(exp.Column)):
            if found.name == "argument":
                found.replace(argument.copy())
        return tree

    return written


TOUCHED_IN_FULL: dict[str, Callable[[exp.Expr], exp.Expr]] = dict.fromkeys(UNITS, always)
TOUCHED_NOW: dict[str, Callable[[exp.Expr], exp.Expr]] = {name: membership(name) for name in UNITS}
