"""What several models of a build read of one table, the rows of touched people, is read once and set aside.

`from staging.orders where touched_node(...)` reads all orders there ever were to find a few. Where a build is one
transaction, those few stay in a temporary table for the next model that says the same; and a table whose touched rows
were just worked out anew is not looked through at all: these are its rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from sqlglot import exp

# The keys that are known, and stay as they are, when the first model asks for them.
LASTING = {"touched_node", "touched_visitor", "touched_profile"}


def slice_name(table: str, function: str, argument: str) -> str:
    """The temporary table that holds the rows of a table with a touched key."""
    what = uuid.uuid5(uuid.NAMESPACE_OID, f"{function}({argument})").hex[:8]
    return f"{table.replace('.', '__')}__{what}"


def in_slices(tree: exp.Expr, keys: Mapping[str, str | None]) -> dict[str, str]:
    """Let a model read slices where it asks for nothing else of a table; their names and queries (DuckDB's dialect).

    The tree is changed. `keys` says which tables may be read so, and by what each is kept: of a table of core only what
    asks for its own key, or for people in `core.identifiers`, comes up again.
    """
    found: dict[str, str] = {}
    for call in [node for node in tree.find_all(exp.Anonymous) if str(node.this).lower() in LASTING]:
        table = _table_of(call)
        if table is None or (name := f"{table.db}.{table.name}".lower()) not in keys:
            continue
        function, argument = str(call.this).lower(), call.expressions[0].copy()
        if name.startswith("core.") and argument.name != keys[name] and name != "core.identifiers":
            continue
        for column in argument.find_all(exp.Column):
            column.set("table", None)
        asked = argument.sql(dialect="duckdb")
        part = slice_name(name, function, asked)
        if (name, function) == ("core.identifiers", "touched_profile"):
            # All identifiers of a touched profile are touched themselves.
            whole, name = name, slice_name(name, "touched_node", "node")
            found[name] = f"select * from {whole} where touched_node(node)"
        found[part] = f"select * from {name} where {function}({asked})"
        table.replace(exp.to_table(part, alias=table.alias or table.name))
        call.replace(exp.true())
    return found


def _table_of(call: exp.Anonymous) -> exp.Table | None:
    """The table whose rows a call is a condition for, where it is one by itself."""
    node: exp.Expr = call
    while isinstance(node.parent, exp.And | exp.Paren):
        node = node.parent
    select = node.parent.parent if isinstance(node.parent, exp.Where) else None
    if not isinstance(select, exp.Select):
        return None
    sources = [select.args["from_"].this, *(join.this for join in select.args.get("joins") or ())]
    names = {column.table for column in call.find_all(exp.Column)}
    fitting = sources if names == {""} else [source for source in sources if {source.alias_or_name} == names]
    if len(fitting) != 1 or (names == {""} and len(sources) > 1):
        return None
    source = fitting[0]
    return source if isinstance(source, exp.Table) and source.db in ("staging", "core") else None
