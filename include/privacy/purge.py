"""Deleting rows: every table of the warehouse, by what its columns are called, for all open requests at once.

A column has one meaning wherever it stands (`email`, `visitor_id`, `profile_id`, `node`, ...), so a table that is added
later is covered by its column names. What an erasure must not touch is said by name. On engines that cannot delete,
the tables that hold rows of hers are written anew without them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from include.errors import TransientError
from include.privacy.person import as_text, run
from include.settings import get_settings
from include.sync.leave import as_json
from include.warehouse.models import load_models

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from include.warehouse.engine import Warehouse

logger = logging.getLogger(__name__)

# The memory of the sync engine is needed until every destination has let her go.
LEDGER = ("sync.ledger", "sync.exclusions", "sync.opt_outs")
_OURS = ("sync.erasure_keys", "sync.erasure_requests", "sync.erasure_receipts", "sync.erased_hashes")
_SHORTEST_IN_TEXT = 6  # a shorter value inside a text says nothing

# Which kind of key a column is compared with, and how that is spelt.
_PLAIN = {
    "email": "email",
    "phone": "phone",
    "user_id": "user_id",
    "visitor_id": "visitor_id",
    "event_key": "event",
    "session_key": "session",
    "node": "node",
    "node_a": "node",
    "node_b": "node",
    "component": "node",
    "profile_id": "profile",
    "into_profile_id": "profile",
    "member_key": "sent",
}
_OF_SOURCE = {"contact_id": "contact", "order_id": "order", "cart_id": "cart"}
_KINDS = ("email", "phone", "user_id", "visitor_id")
_SPELLINGS = {"email": "lower({0})"}
_LOGINS = ("user_id", "email", "contact_id", "phone")
_TEXTS = ("raw_row", "location")
_IN_TEXTS = "'email', 'phone', 'user_id', 'visitor_id'"


def delete_rows(warehouse: Warehouse, session: Connection, request_ids: Sequence[str], *, ledger: bool) -> int:
    """Delete what belongs to the people of these requests, from the ledger or from everything else; rows deleted."""
    deleted = 0
    keys = _Keys(request_ids)
    views = _views(warehouse, session)
    for table, columns in sorted(warehouse._all_columns(session).items()):
        if table in views or table in _OURS or (table in LEDGER) is not ledger or table.startswith("raw._dlt"):
            continue
        condition = keys.condition_of(table, columns)
        if condition is None:
            continue
        if not session.exec_driver_sql(f"select 1 from {table} limit 1").fetchall():
            continue
        if count := _count(warehouse, session, table, condition):
            _delete(warehouse, session, table, condition)
            deleted += count
            if left := _count(warehouse, session, table, condition):
                raise TransientError(f"{left} rows of {table} were not deleted; the next run tries again")
    if not ledger:
        _name_islands(warehouse, session, keys)
    return deleted


def strike_out(warehouse: Warehouse, session: Connection, request_ids: Sequence[str]) -> None:
    """Take identifiers of hers out of what the ledger says of others, who were sent with them for a time."""
    keys = _Keys(request_ids)
    hers = {
        str(row["value"])
        for row in warehouse.read(
            f"select distinct value from sync.erasure_keys where kind = 'sent' and {keys.requests}", connection=session
        )
    }
    mended = []
    for row in warehouse.read(f"select * from sync.ledger where {keys.in_identifiers}", connection=session):
        sent = json.loads(row["identifiers"])
        left = {kind: [value for value in values if value not in hers] for kind, values in sent.items()}
        if left != sent:
            kept = {kind: values for kind, values in left.items() if values}
            mended.append({**row, "identifiers": as_json(kept)})
    if not mended:
        return
    warehouse.insert("sync.ledger", mended, connection=session)  # first: where there are no transactions, none is lost
    numbers = ", ".join(str(row["sequence"]) for row in mended)
    _delete(warehouse, session, "sync.ledger", f"sequence in ({numbers}) and {keys.in_identifiers}")


def keep_opt_outs(warehouse: Warehouse, session: Connection, request_ids: Sequence[str]) -> None:
    """Leave a hash of what she refused: an opt-out outlives an erasure, until the tool that told it says otherwise."""
    keys = _Keys(request_ids)
    spelt = "case when kind = 'email' then lower(trim(value)) else value end"
    run(
        warehouse,
        session,
        f"""
        insert into sync.opt_outs (
            destination, list_name, kind, value, channel, reason, is_active, occurred_at, read_at
        )
        select
            destination, list_name, 'hashed' as kind,
            sha256(:salt || case when kind = 'email' then '3:' else '4:' end || {spelt}) as value,
            channel, reason, true as is_active, occurred_at, read_at
        from (
            select
                destination, list_name, kind, value, channel, reason, is_active, occurred_at, read_at,
                row_number() over (
                    partition by destination, list_name, kind, value, channel
                    order by read_at desc, case when is_active then 0 else 1 end
                ) as recency
            from sync.opt_outs
            where kind in ('email', 'phone')
        ) as told
        where recency = 1 and is_active
            and (
                (kind = 'email' and {keys.among(spelt, "email")}) or (kind = 'phone' and {keys.among("value", "phone")})
            )
        """,
        salt=get_settings().erasure_salt,
    )


class _Keys:
    """The keys of some requests, and which rows of a table they mean."""

    def __init__(self, request_ids: Sequence[str]) -> None:
        listed = ", ".join(f"'{request_id}'" for request_id in request_ids)  # ids of our own making
        self.requests = f"request_id in ({listed})"

    def condition_of(self, table: str, columns: Mapping[str, str]) -> str | None:
        """Which rows of a table are hers, as a condition that is never null; None where no column could tell."""
        texts = {name for name, kind in columns.items() if kind == "text"}
        schema = table.split(".")[0]
        # What sources sent is spelt in many ways; from core on there is one.
        tidy = "tidy({0})" if schema in ("raw", "staging") else "{0}"

        def written(kind: str, name: str) -> str:
            return self.among(_SPELLINGS.get(kind, "{0}").format(tidy.format(name)), kind)

        def of_source(kind: str, name: str) -> str:
            return self.among(f"{tidy.format('source')} || ':' || {tidy.format(name)}", kind)

        tests = [written(kind, name) for name, kind in _PLAIN.items() if name in texts]
        if "source" in texts:
            tests += [of_source(kind, name) for name, kind in _OF_SOURCE.items() if name in texts]
        for kind_column, value_column in (("kind", "value"), ("identifier_kind", "identifier_value")):
            if {kind_column, value_column} <= texts:
                tests += [f"({kind_column} = '{kind}' and {written(kind, value_column)})" for kind in _KINDS]
                tests.append(f"({kind_column} = 'contact_id' and {self.among(value_column, 'contact')})")
                if "source" in texts:
                    ids = f"{kind_column} in ('contact_id', 'merged_contact_id')"
                    tests.append(f"({ids} and {of_source('contact', value_column)})")
        if "identifiers" in texts and table not in LEDGER:
            tests.append(self.in_identifiers)
        tests += [self.mentions(name, "'%' || lower(keys.value) || '%'") for name in _TEXTS if name in texts]
        if "session_key" in texts and "visitor_id" not in texts:
            tests.append(self.mentions("session_key", "lower(keys.value) || '.%'", "'visitor_id'", 1))
        if "visitor_id" in texts:
            others = [f"{tidy.format(name)} is null" for name in _LOGINS if name in texts]
            if others:
                shared = self.among(tidy.format("visitor_id"), "shared_visitor")
                tests.append(f"({shared} and {' and '.join(others)})")
        if "profile_id" in texts and schema in ("core", "segments"):
            tests.append(self.among("profile_id", "shared_profile"))
        return " or ".join(tests) if tests else None

    @property
    def in_identifiers(self) -> str:
        """Whether several identifiers of somebody are or were sent and one is hers; at times a little more."""
        mentions = self.mentions("identifiers", "'%\"' || lower(keys.value) || '\"%'", "'sent'", 1)
        return f"(coalesce(identifiers, '') like '%,\"%' and {mentions})"

    def among(self, value: str, kind: str) -> str:
        return (
            f"coalesce({value}, '') in (select value from sync.erasure_keys where kind = '{kind}' and {self.requests})"
        )

    def mentions(self, column: str, pattern: str, kinds: str = _IN_TEXTS, shortest: int = _SHORTEST_IN_TEXT) -> str:
        return (
            f"exists (select 1 as one from sync.erasure_keys as keys where keys.kind in ({kinds}) "
            f"and keys.{self.requests} and length(keys.value) >= {shortest} "
            f"and lower({column}) like {pattern})"
        )


def _count(warehouse: Warehouse, session: Connection, table: str, condition: str) -> int:
    """Rows for which the condition holds."""
    text = as_text(f"select count(*) as rows_found from {table} where {condition}", warehouse.dialect)
    found = session.exec_driver_sql(text.replace("%", "%%") if session.dialect.paramstyle == "pyformat" else text)
    return int(found.scalar_one())


def _delete(warehouse: Warehouse, session: Connection, table: str, condition: str) -> None:
    if warehouse.deletes_rows:
        run(warehouse, session, f"delete from {table} where {condition}")
        return
    fresh = warehouse.beside(table)
    run(warehouse, session, f"create table {fresh} as select * from {table} where not ({condition})")
    _put_in_place(session, table, fresh)


def _put_in_place(session: Connection, table: str, fresh: str) -> None:
    session.exec_driver_sql(f"drop table {table}")
    session.exec_driver_sql(f"alter table {fresh} rename to {table}")


def _name_islands(warehouse: Warehouse, session: Connection, keys: _Keys) -> None:
    """An island is named after one of its identifiers; those that bore a name of hers get another."""
    if "island" not in warehouse._all_columns(session).get("core.islands", {}):
        return
    hers = keys.among("island", "node")
    if not _count(warehouse, session, "core.islands", hers):
        return
    named = "core.islands__named" if warehouse.deletes_rows else warehouse.beside("core.islands")
    run(warehouse, session, f"drop table if exists {named}")
    others = "" if warehouse.deletes_rows else f" union all select node, island from core.islands where not {hers}"
    run(
        warehouse,
        session,
        f"create table {named} as select node, min(node) over (partition by island) as island "
        f"from core.islands where {hers}{others}",
    )
    if not warehouse.deletes_rows:
        _put_in_place(session, "core.islands", named)
        return
    run(warehouse, session, f"delete from core.islands where {hers}")
    run(warehouse, session, f"insert into core.islands (node, island) select node, island from {named}")
    run(warehouse, session, f"drop table {named}")


def _views(warehouse: Warehouse, session: Connection) -> set[str]:
    ours = {name for name, model in load_models().items() if model.materialized == "view"}
    if warehouse.dialect == "spark":
        return ours
    rows = session.exec_driver_sql(
        "select table_schema, table_name from information_schema.tables where table_type = 'VIEW'"
    )
    return ours | {f"{schema}.{table}" for schema, table in rows}
