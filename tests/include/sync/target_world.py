"""A small warehouse to plan in: people as literal rows in the core tables, one audience file, and a destination that
answers as the test says."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.settings import get_settings
from include.sync.audit import LOST
from include.sync.plan import PlanSummary, plan_target
from include.warehouse.engine import Warehouse
from tests.rewrite import change

AS_OF = datetime(2026, 3, 10, 12)

CORE = """
    create table core.profiles (profile_id text, email text, phone text, is_bot boolean, is_staff boolean);
    create table core.identifiers (
        identifier_kind text, identifier_value text, profile_id text, strength text, state text
    );
    create table core.consents (profile_id text, channel text, status text);
    create table core.suppressions (profile_id text, channel text, reason text);
    create table core.engagement (profile_id text, channel text, type text, occurred_at timestamp);
    create table core.profile_merges (profile_id text, into_profile_id text, merged_at timestamp);
    create table core.profile_activity (profile_id text, last_order_at timestamp);
    create table staging.contact_identifiers (source text, contact_id text, kind text, value text, is_current boolean)
"""
SEGMENT = """
    (profile_id text, entered_at timestamp, stage text, cart_url text, cart_items text, cart_value double,
     item_count bigint, abandoned_at timestamp, allowed_channels text)
"""
AUDIENCE = """
label: {label}
description: Left something in the cart.
owner: lifecycle@example.com
segment: cart_abandoners
params: {{idle_for: 1h, window: 7d, min_cart_value: 0}}
{policy}
destinations:
  - {{to: mailchimp, audience: Newsletter, fields: {{CART_URL: cart_url, CART_TOTAL: cart_value}}}}
  - {{to: google_ads}}
"""


class World:
    """People, an audience called `carts`, and what its destinations answered so far."""

    def __init__(self, folder: Path, warehouse: Warehouse) -> None:
        self.folder = folder
        self._warehouse = warehouse
        self._told: dict[str, list[dict[str, Any]]] = {}
        for statement in CORE.split(";"):
            self.warehouse.execute(statement)
        self.sequence = 0
        self.runs = 0
        self.as_of = AS_OF
        self.audience("carts")

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse with all that was told so far."""
        told, self._told = self._told, {}
        for table, rows in told.items():
            self._warehouse.insert(table, rows)
        return self._warehouse

    def audience(self, name: str, policy: str = "") -> None:
        """Write an audience file, and make its segment's table if there is none."""
        (self.folder / f"{name}.yaml").write_text(AUDIENCE.format(label=name.capitalize(), policy=policy))
        if self.warehouse.columns(f"segments.{name}") is None:
            self.warehouse.execute(f"create table segments.{name} {SEGMENT}")

    def policy(self, policy: str) -> None:
        """What the file of `carts` says besides the usual."""
        self.audience("carts", policy)

    def person(
        self,
        profile_id: str,
        *,
        email: str | None = None,
        phone: str | None = None,
        emails: tuple[str, ...] = (),
        consent: str | None = "granted",
        ads_consent: str | None = "granted",
        is_bot: bool = False,
        is_staff: bool = False,
        in_segment: bool = True,
        **segment: Any,
    ) -> None:
        """A profile with its identifiers and consents, in the segment of `carts` unless told otherwise."""
        self.insert(
            "core.profiles",
            {"profile_id": profile_id, "email": email, "phone": phone, "is_bot": is_bot, "is_staff": is_staff},
        )
        for kind, value in [("email", email), ("phone", phone), *(("email", other) for other in emails)]:
            if value:
                self.identifier(profile_id, kind, value)
        for channel, status in (("email", consent), ("ads", ads_consent)):
            if status:
                self.insert("core.consents", {"profile_id": profile_id, "channel": channel, "status": status})
        if in_segment:
            self.match(profile_id, **segment)

    def match(self, profile_id: str, audience: str = "carts", **columns: Any) -> None:
        """A row of the segment."""
        row = {"profile_id": profile_id, "entered_at": self.as_of - timedelta(hours=2), "cart_url": "https://s.x/c"}
        self.insert(f"segments.{audience}", {**row, **columns})

    def identifier(self, profile_id: str | None, kind: str, value: str, state: str = "joined") -> None:
        self.insert(
            "core.identifiers",
            {
                "identifier_kind": kind,
                "identifier_value": value,
                "profile_id": profile_id,
                "strength": "weak" if kind in ("phone", "visitor_id") else "strong",
                "state": state,
            },
        )

    def gave_up(self, profile_id: str, email: str) -> None:
        """An address that her contact in the CRM held before: no identifier of hers any more."""
        contact = {"source": "crm", "contact_id": f"c-{profile_id}"}
        self.identifier(profile_id, "contact_id", f"crm:c-{profile_id}")
        self.insert("staging.contact_identifiers", {**contact, "kind": "email", "value": email, "is_current": False})

    def insert(self, table: str, *rows: dict[str, Any]) -> None:
        """Rows, at once; on Spark, where a statement takes tenths of a second, when `warehouse` is next asked for."""
        if self._warehouse.dialect == "spark":
            self._told.setdefault(table, []).extend(rows)
        else:
            self._warehouse.insert(table, rows)

    def execute(self, sql: str, **params: Any) -> None:
        change(self.warehouse, sql, **params)

    def opt_out(
        self,
        value: str,
        *,
        is_active: bool = True,
        channel: str = "email",
        list_name: str | None = None,
        read_at: datetime = AS_OF,
    ) -> None:
        """What a tool told us after the last build."""
        self.insert(
            "sync.opt_outs",
            {
                "destination": "mailchimp",
                "list_name": list_name,
                "kind": "email",
                "value": value,
                "channel": channel,
                "reason": "opted_out",
                "is_active": is_active,
                "read_at": read_at,
            },
        )

    def plan(self, destination: str = "mailchimp", audience: str = "carts") -> PlanSummary:
        self.runs += 1
        return plan_target(self.warehouse, audience, destination, self.as_of, f"run-{self.runs}")

    def answer(
        self,
        plan: PlanSummary,
        status: str = "accepted",
        *,
        at: datetime | None = None,
        only: str = "",
        reason: str | None = None,
    ) -> None:
        """Let the destination answer every row of a plan (or `only` one member key) in the plan's order."""
        target = self.warehouse.read("select audience, destination from sync.plans where plan_id = :p", p=plan.plan_id)
        for row in self.rows(plan):
            if only and row["member_key"] != only:
                continue
            self.sequence += 1
            self.insert(
                "sync.ledger",
                {
                    **{name: row[name] for name in ("action", "profile_id", "member_key", "identifiers")},
                    "payload_hash": row["payload_hash"],
                    **target[0],
                    "sequence": self.sequence,
                    "list_id": "list-1",
                    "plan_id": plan.plan_id,
                    "status": status,
                    "reason": reason,
                    "acknowledged_at": at or self.as_of,
                },
            )

    def lost(self, member_key: str) -> None:
        """What an audit writes down of a member whom the list does not hold any more."""
        self.sequence += 1
        row = {"sequence": self.sequence, "audience": "carts", "destination": "mailchimp", "list_id": "list-1"}
        told = {"plan_id": "audit-1", "action": "remove", "member_key": member_key, "status": "accepted"}
        self.insert("sync.ledger", row | told | {"reason": LOST, "acknowledged_at": self.as_of})

    def sync(self, destination: str = "mailchimp", *, at: datetime | None = None) -> PlanSummary:
        """Plan and have everything accepted."""
        plan = self.plan(destination)
        self.answer(plan, at=at)
        return plan

    def rows(self, plan: PlanSummary) -> list[dict[str, Any]]:
        return self.warehouse.read(
            "select action, profile_id, member_key, identifiers, fields, payload_hash from sync.plan_rows "
            "where plan_id = :plan_id order by row_number",
            plan_id=plan.plan_id,
        )

    def sent(self, plan: PlanSummary) -> list[tuple[str, str]]:
        """The plan as (action, member key), in the order of sending."""
        return [(row["action"], row["member_key"]) for row in self.rows(plan)]

    def excluded(self, plan: PlanSummary) -> list[tuple[str, str, str]]:
        rows = self.warehouse.read(
            "select profile_id, step, reason from sync.exclusions where plan_id = :plan_id order by profile_id",
            plan_id=plan.plan_id,
        )
        return [(row["profile_id"], row["step"], row["reason"]) for row in rows]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_warehouse: Warehouse) -> World:
    monkeypatch.setenv("REKINDLE_AUDIENCES_DIR", str(tmp_path))
    get_settings.cache_clear()
    return World(tmp_path, empty_warehouse)
