"""Requests to be erased: by any identifier, from a command or from a source.

A request holds a salted hash of what it names. The identifier itself is in `sync.erasure_keys`, and only until the
request is done.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from include.errors import ConfigurationError
from include.identity import normalise_email, salted_sha256, to_e164
from include.settings import get_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from include.warehouse.engine import Warehouse

# How a kind of identifier is written as a node (sql/core/identifier_links.sql).
PREFIXES = {"contact_id": "1:", "user_id": "2:", "email": "3:", "phone": "4:", "visitor_id": "5:"}

# The newest statement of each source holds; who is kept out by her hash already needs no second request.
_TOLD_BY_SOURCES = """
    select source, kind, value, erased_at
    from (
        select
            source,
            kind,
            value,
            is_active,
            coalesce(changed_at, loaded_at) as erased_at,
            row_number() over (
                partition by source, kind, value, channel
                order by changed_at desc nulls last, loaded_at desc nulls last
            ) as recency
        from staging.suppressions
        where reason = 'erased' and kind in ('email', 'phone', 'contact_id')
    ) as told
    where recency = 1 and is_active and coalesce(erased_at < :now, true)
"""


def node_of(kind: str, value: str) -> str:
    """An identifier as identity writes it; ConfigurationError (without the value) where it is none."""
    if kind not in PREFIXES:
        raise ConfigurationError(f"'{kind}' is no kind of identifier; known are {', '.join(sorted(PREFIXES))}")
    written: str | None = value.strip()
    if kind == "email":
        written = normalise_email(value)
    elif kind == "phone":
        written = to_e164(value)
    elif kind == "contact_id" and ":" not in value:
        written = None
    if not written:
        hint = {
            "phone": "; write it with its country, like +49...",
            "contact_id": "; write it as <source>:<id>, like hubspot:17",
        }.get(kind, "")
        raise ConfigurationError(f"the {kind} of the request is not a valid one{hint}")
    return PREFIXES[kind] + written


def hash_of(node: str) -> str:
    """The salted hash by which an identifier is known after it is gone; `core.erased_identifiers` has the SQL twin."""
    return salted_sha256(get_settings().erasure_salt, node)


def request_erasure(warehouse: Warehouse, kind: str, value: str, via: str = "command") -> str:
    """File a request; returns its id. Filing it twice while it is open is one request."""
    warehouse.ensure_tables()
    with warehouse.session() as session:
        return _file(warehouse, session, node_of(kind, value), via, _now())


def collect_requests(warehouse: Warehouse) -> int:
    """File what sources tell (suppressions with the reason `erased`); returns how many requests are new."""
    if warehouse.columns("staging.suppressions") is None:
        return 0
    with warehouse.session() as session:
        before = _count(warehouse, session)
        built = warehouse.scalar("select max(as_of) as as_of from sync.builds", connection=session)
        now = max(_now(), built) if built else _now()  # what a build has seen is a request
        for row in warehouse.read(_TOLD_BY_SOURCES, connection=session, now=now):
            value = str(row["value"])
            if row["kind"] == "contact_id":
                value = f"{row['source']}:{value}"
            node = PREFIXES[row["kind"]] + value
            known = warehouse.scalar(
                "select max(erased_at) as erased_at from sync.erased_hashes where identifier_hash = :hash",
                connection=session,
                hash=hash_of(node),
            )
            if known is None or (row["erased_at"] is not None and known < row["erased_at"]):
                _file(warehouse, session, node, str(row["source"]), row["erased_at"] or _now())
        return _count(warehouse, session) - before


def open_requests(warehouse: Warehouse, connection: Connection | None = None) -> list[dict[str, Any]]:
    """Requests that are not done, oldest first."""
    return warehouse.read(
        """
        select requests.request_id, requests.request_hash, requests.kind, requests.requested_at
        from sync.erasure_requests as requests
        left join (
            select distinct request_id
            from sync.erasure_receipts
            where system = 'request' and outcome in ('done', 'ambiguous')
        ) as closed on requests.request_id = closed.request_id
        where closed.request_id is null
        order by requests.requested_at, requests.request_id
        """,
        connection=connection,
    )


def _file(warehouse: Warehouse, session: Connection, node: str, via: str, at: datetime) -> str:
    wanted = hash_of(node)
    for request in open_requests(warehouse, session):
        if request["request_hash"] == wanted:
            return str(request["request_id"])
    request_id = uuid.uuid4().hex
    kind = next(kind for kind, prefix in PREFIXES.items() if node.startswith(prefix))
    # The key first: where there are no transactions, a request without one could never be honoured.
    warehouse.insert(
        "sync.erasure_keys", [{"request_id": request_id, "kind": "named", "value": node}], connection=session
    )
    warehouse.insert(
        "sync.erasure_requests",
        [{"request_id": request_id, "request_hash": wanted, "kind": kind, "via": via, "requested_at": at}],
        connection=session,
    )
    return request_id


def _count(warehouse: Warehouse, session: Connection) -> int:
    return int(warehouse.scalar("select count(*) as requests from sync.erasure_requests", connection=session))


def _now() -> datetime:
    from include.warehouse.build import utc_now

    return utc_now()
