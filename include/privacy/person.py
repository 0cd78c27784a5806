"""Everything that points at the person of a request: gathered once, kept in `sync.erasure_keys` until it is done.

Who she is comes from identity (`core.identifiers`; `core.erased_identifiers` where a build has taken her out already),
what she did from her identifiers, and what was sent from the ledger. A browser that she shares with somebody is not
hers; what was done on it without a login is deleted with her, so that it becomes nobody else's past.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from include.identity import hashing
from include.identity.sql import DESTINATION_KINDS
from include.privacy.requests import hash_of
from include.warehouse.dialects import to_sql
from include.warehouse.render import parse_statement, render_tree

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from include.warehouse.engine import Warehouse

FOREVER = "timestamp '9999-12-31 00:00:00'"
_KIND_OF_NODE = {"1": "contact", "2": "user_id", "3": "email", "4": "phone", "5": "visitor_id"}

_KEYS = "select value from sync.erasure_keys where request_id = :request_id and kind = '{kind}'"
_HERS = (
    "(coalesce(tidy(visitor_id), '') in ({visitor_id}) or coalesce(tidy(user_id), '') in ({user_id}) "
    "or coalesce(lower(tidy(email)), '') in ({email}))"
).format(**{kind: _KEYS.format(kind=kind) for kind in ("visitor_id", "user_id", "email")})
_CONTACT = "coalesce(tidy(source) || ':' || tidy(contact_id), '') in (" + _KEYS.format(kind="contact") + ")"
# What hangs on something of hers without naming her: kind of key, the table that tells, what tells it, whose it is.
_DERIVED = (
    ("event", "raw.events", "tidy(event_key)", _HERS),
    ("order", "raw.orders", "tidy(source) || ':' || tidy(order_id)", f"{_HERS} or {_CONTACT}"),
    ("cart", "raw.carts", "tidy(source) || ':' || tidy(cart_id)", f"{_HERS} or {_CONTACT}"),
    ("node", "raw.events", "'6:' || tidy(transaction_id)", f"event_name = 'purchase' and {_HERS}"),
    ("node", "raw.orders", "'6:' || tidy(transaction_id)", f"{_HERS} or {_CONTACT}"),
    ("session", "core.visits", "session_key", _HERS),
)


def gather(warehouse: Warehouse, session: Connection, request_id: str) -> str:
    """Write down all keys of the person of a request; `found`, or `ambiguous` where it is no one person's."""
    (named,) = (row["value"] for row in _keys(warehouse, session, request_id, "named"))
    if _keys(warehouse, session, request_id, "gathered"):
        return "found"
    present = warehouse._all_columns(session)
    nodes = {named}
    if "node" in present.get("core.identifiers", {}):
        told = warehouse.read(
            "select profile_id, state from core.identifiers where node = :node", connection=session, node=named
        )
        if any(row["state"] in ("shared", "quarantined") for row in told):
            return "ambiguous"
        nodes |= _values(
            warehouse.read(
                "select node as value from core.identifiers where coalesce(state, 'joined') in ('joined', 'alone') "
                "and profile_id in (select profile_id from core.identifiers where node = :node)",
                connection=session,
                node=named,
            )
        )
    if "node" in present.get("core.erased_identifiers", {}) and "node" in present.get("core.islands", {}):
        nodes |= _values(
            warehouse.read(
                "select erased.node as value from core.erased_identifiers as erased "
                "inner join core.islands as islands on erased.node = islands.node "
                "where erased.erased_until = " + FOREVER + " and islands.island in "
                "(select island from core.islands where node = :node) and exists "
                "(select 1 as one from core.erased_identifiers as named where named.node = :node)",
                connection=session,
                node=named,
            )
        )
    if "kind" in present.get("staging.contact_identifiers", {}):
        nodes |= _held_before(warehouse, session, nodes)
    _write(warehouse, session, request_id, nodes, present)
    return "found"


def gather_imported_again(warehouse: Warehouse, session: Connection, request_id: str) -> Any:
    """Write down the keys of everybody who is erased and has been imported again; when they were erased, None: nobody.

    Only a build can tell: it knows whether she has given a new consent since (`core.erased_identifiers`).
    """
    present = warehouse._all_columns(session)
    if not {"core.erased_identifiers", "core.identifiers"} <= present.keys():
        return None
    rows = warehouse.read(
        f"select node, erased_at from core.erased_identifiers where erased_until = {FOREVER}", connection=session
    )
    if not rows:
        return None
    _write(warehouse, session, request_id, {str(row["node"]) for row in rows}, present)
    return max(row["erased_at"] for row in rows)


def _write(
    warehouse: Warehouse, session: Connection, request_id: str, nodes: set[str], present: dict[str, dict[str, str]]
) -> None:
    _add(warehouse, session, request_id, "node", nodes)
    for digit, kind in _KIND_OF_NODE.items():
        _add(warehouse, session, request_id, kind, (node[2:] for node in nodes if node[0] == digit))
    profiles = _profiles(warehouse, session, nodes, present)
    _add(warehouse, session, request_id, "profile", profiles)
    _add_shared_browsers(warehouse, session, request_id, nodes, present)
    for kind, table, what, whose in _DERIVED:
        if table in present:
            run(
                warehouse,
                session,
                f"insert into sync.erasure_keys (request_id, kind, value) select distinct :request_id, '{kind}', found "
                f"from (select {what} as found from {table} where {whose}) as told where found is not null",
                request_id=request_id,
            )
    _add_sent(warehouse, session, request_id, nodes, profiles)
    _add(warehouse, session, request_id, "gathered", ["yes"])


def block(warehouse: Warehouse, session: Connection, request_id: str, erased_at: Any) -> None:
    """Keep the hashes of what was hers, so that an import does not bring her back."""
    nodes = _values(_keys(warehouse, session, request_id, "node"))
    known = _values(
        warehouse.read(
            "select identifier_hash as value from sync.erased_hashes where erased_at >= :erased_at",
            connection=session,
            erased_at=erased_at,
        )
    )
    warehouse.insert(
        "sync.erased_hashes",
        [
            {"identifier_hash": wanted, "request_id": request_id, "erased_at": erased_at}
            for wanted in sorted({hash_of(node) for node in nodes if node[0] in _KIND_OF_NODE} - known)
        ],
        connection=session,
    )


def run(warehouse: Warehouse, session: Connection, sql: str, **params: Any) -> None:
    """A statement in DuckDB's dialect with house functions, on any engine."""
    text = as_text(sql, warehouse.dialect, tuple(params.items()))
    session.exec_driver_sql(text.replace("%", "%%") if session.dialect.paramstyle == "pyformat" else text)


@lru_cache(maxsize=1024)
def as_text(sql: str, dialect: str, params: tuple[tuple[str, Any], ...] = ()) -> str:
    """A statement in an engine's dialect, with house functions and values written out."""
    return to_sql(render_tree(parse_statement(sql), dict(params)), dialect, copy=False)


def _held_before(warehouse: Warehouse, session: Connection, nodes: set[str]) -> set[str]:
    """What her contacts ever held and nobody else's did, and ids that were merged into them."""
    contacts = sorted(node[2:] for node in nodes if node.startswith("1:"))
    if not contacts:
        return set()
    return _values(
        warehouse.read(
            """
            select case held.kind
                when 'merged_contact_id' then '1:' || held.source || ':' || held.value
                when 'user_id' then '2:' || held.value
                when 'email' then '3:' || held.value
                when 'phone' then '4:' || held.value
            end as value
            from staging.contact_identifiers as held
            left join (
                select distinct kind, value
                from staging.contact_identifiers
                where source || ':' || contact_id not in (:contacts)
            ) as others on held.kind = others.kind and held.value = others.value
            where held.source || ':' || held.contact_id in (:contacts)
                and held.kind in ('merged_contact_id', 'user_id', 'email', 'phone')
                and (others.value is null or held.kind = 'merged_contact_id')
            """,
            connection=session,
            contacts=contacts,
        )
    )


def _profiles(
    warehouse: Warehouse, session: Connection, nodes: set[str], present: dict[str, dict[str, str]]
) -> set[str]:
    """Her profile, those that went into it, and the names it could have had: a profile is named after an identifier."""
    listed = sorted(nodes)
    profiles = {
        str(row["value"])
        for row in warehouse.read(
            "select 'p_' || md5(value) as value from sync.erasure_keys "
            "where kind in ('node', 'named') and value in (:listed)",
            connection=session,
            listed=listed,
        )
    }
    if "node" in present.get("core.identifiers", {}):
        profiles |= _values(
            warehouse.read(
                "select profile_id as value from core.identifiers where node in (:listed) "
                "and coalesce(state, 'joined') in ('joined', 'alone')",
                connection=session,
                listed=listed,
            )
        )
        # A name that lives again is somebody else's: she was once taken for her.
        profiles |= _values(
            warehouse.read(
                "select profile_id as value from core.former_names where node in (:listed) "
                "and profile_id not in (select profile_id from core.identifiers where profile_id is not null)",
                connection=session,
                listed=listed,
            )
        )
    return profiles


def _add_shared_browsers(
    warehouse: Warehouse, session: Connection, request_id: str, nodes: set[str], present: dict[str, dict[str, str]]
) -> None:
    if "node_a" not in present.get("core.living_links", {}) or "state" not in present.get("core.identifiers", {}):
        return
    found = warehouse.read(
        "select distinct identifiers.identifier_value as visitor_id, identifiers.profile_id "
        "from core.event_identities as seen inner join core.identifiers as identifiers "
        "on identifiers.node = '5:' || seen.visitor_id "
        "where identifiers.state = 'shared' and ('2:' || seen.user_id in (:nodes) or '3:' || seen.email in (:nodes))",
        connection=session,
        nodes=sorted(nodes),
    )
    _add(warehouse, session, request_id, "shared_visitor", (row["visitor_id"] for row in found))
    _add(warehouse, session, request_id, "shared_profile", (row["profile_id"] for row in found if row["profile_id"]))


def _add_sent(warehouse: Warehouse, session: Connection, request_id: str, nodes: set[str], profiles: set[str]) -> None:
    """Every spelling in which she was or could have been sent, by the ledger and by what destinations take."""
    sent = {
        node[2:] if name == form.source_kind else getattr(hashing, name)(node[2:])
        for node in nodes
        for name, form in DESTINATION_KINDS.items()
        if form.source_kind == _KIND_OF_NODE.get(node[0])
    }
    for table in ("sync.ledger", "sync.plan_rows"):
        for row in warehouse.read(
            f"select distinct member_key, identifiers from {table} "
            "where profile_id in (:profiles) or member_key in (:sent)",
            connection=session,
            profiles=sorted(profiles),
            sent=sorted(sent),
        ):
            sent.add(str(row["member_key"]))
            for listed in json.loads(row["identifiers"] or "{}").values():
                sent |= set(listed)
    _add(warehouse, session, request_id, "sent", sent)


def _add(warehouse: Warehouse, session: Connection, request_id: str, kind: str, values: Iterable[str]) -> None:
    warehouse.insert(
        "sync.erasure_keys",
        [{"request_id": request_id, "kind": kind, "value": value} for value in sorted(set(values))],
        connection=session,
    )


def _keys(warehouse: Warehouse, session: Connection, request_id: str, kind: str) -> list[dict[str, Any]]:
    return warehouse.read(
        "select distinct value from sync.erasure_keys where request_id = :request_id and kind = :kind",
        connection=session,
        request_id=request_id,
        kind=kind,
    )


def _values(rows: list[dict[str, Any]]) -> set[str]:
    return {str(row["value"]) for row in rows if row["value"]}
