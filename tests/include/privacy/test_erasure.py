"""An erasure, from the request to the receipt: Anabel is known by all there is to know her by, and then by nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.destinations.base import Destination, Member, RowResult, destination_class
from include.destinations.mailchimp import Mailchimp
from include.errors import AudienceRejected, ConfigurationError, TransientError
from include.identity import google_email_sha256, google_phone_sha256
from include.privacy import honour
from include.privacy.honour import honour_requests
from include.privacy.person import gather
from include.privacy.requests import node_of, request_erasure
from include.settings import get_settings
from include.sync import leave, requests
from include.sync.one_writer import one_writer
from include.sync.opt_outs import read_opt_outs
from include.sync.plan import plan_target
from include.sync.push import confirm_plan, push_plan
from include.warehouse.build import build_tables, ensure_views
from include.warehouse.engine import Warehouse
from tests.include.destinations import fake_google_ads, fake_mailchimp

AS_OF = datetime(2026, 3, 10, 12)
AUDIENCE = """
label: Carts
description: Everybody we know.
owner: lifecycle@example.com
segment: cart_abandoners
params: {idle_for: 1h, window: 7d, min_cart_value: 0}
destinations:
  - {to: mailchimp, audience: Newsletter}
  - {to: google_ads}
"""
# Every value of hers has `anabel` in it, but for what is made of her address and number.
PHONE = "+4930901820"
HASHES = [
    *(google_email_sha256(address) for address in ("anabel@shop.example", "old.anabel@shop.example")),
    google_phone_sha256(PHONE),
]
# What an erasure writes itself, and counts that had her in them.
OWN = {"sync.requests", "sync.pushes", "reports.audience_results"}
BOOKKEEPING = {"sync.erasure_requests", "sync.erasure_keys", "sync.erasure_receipts", "sync.erased_hashes"}


class Shop:
    """Two people in a warehouse and on two lists."""

    def __init__(self, warehouse: Warehouse, *, is_filled: bool = False) -> None:
        self.warehouse = warehouse
        self.mailchimp = fake_mailchimp.Platform()
        self.google = fake_google_ads.Platform()
        self.down: set[str] = set()
        self.as_of = AS_OF
        if not is_filled:
            self.fill()

    def fill(self) -> None:
        """Load both and build."""
        for name, phone in (("anabel", PHONE), ("bo", "+4930901821")):
            self.load(name, phone)
        self.insert("raw.contact_identifiers", contact_id="c-anabel", kind="email", value="old.anabel@shop.example")
        self.insert(
            "raw.rejected_rows", table_name="contacts", location="contacts.csv:7", reason="no id", raw_row='{"email": '
            '"anabel@shop.example"}',
        )  # fmt: skip
        self.build()

    def close(self) -> None:
        self.mailchimp.close()
        self.google.close()

    def insert(self, table: str, **columns: Any) -> None:
        row = {"source": "hubspot", "loaded_at": self.as_of - timedelta(hours=2), **columns}
        self.warehouse.insert(table, [row])

    def load(self, name: str, phone: str) -> None:
        """Everything a person leaves behind."""
        at = AS_OF - timedelta(days=2)
        who: dict[str, Any] = {"contact_id": f"c-{name}", "email": f"{name}@shop.example"}
        self.insert(
            "raw.contacts", **who, phone=phone, user_id=f"user-{name}", first_name=name.title(), created_at=at,
            updated_at=at,
        )  # fmt: skip
        for channel in ("email", "ads"):
            self.insert("raw.consents", **who, channel=channel, status="granted", changed_at=at)
        order = {"order_id": f"o-{name}", "transaction_id": f"t-{name}"}
        self.insert("raw.orders", **order, **who, phone=phone, status="paid", total_amount=10.0, ordered_at=at)
        self.insert("raw.order_items", order_id=f"o-{name}", line_id="1", sku="mug", quantity=1, price=10.0)
        self.insert(
            "raw.carts", cart_id=f"k-{name}", **who, status="open", created_at=at, updated_at=AS_OF - timedelta(hours=3)
        )
        self.insert("raw.cart_items", cart_id=f"k-{name}", line_id="1", sku="pot", name="Pot", quantity=1, price=5.0)
        self.insert(
            "raw.subscriptions",
            subscription_id=f"s-{name}",
            **who,
            kind="paid",
            plan="box",
            status="active",
            started_at=at,
        )
        self.insert("raw.engagement", engagement_id=f"g-{name}", **who, channel="email", type="open", occurred_at=at)
        for number in (1, 2):
            key = f"e-{name}-{number}"
            self.insert(
                "raw.events", event_key=key, event_name="add_to_cart", visitor_id=f"{name}-{number}",
                user_id=f"user-{name}", session_id="1", occurred_at=at + timedelta(minutes=number), ads_storage="Yes",
            )  # fmt: skip
            self.insert("raw.event_items", event_key=key, item_index=0, sku="pot", quantity=1, price=5.0)

    def build(self) -> None:
        build_tables(self.warehouse, self.as_of)
        ensure_views(self.warehouse)
        with self.warehouse.session() as session:
            session.exec_driver_sql("drop table if exists segments.carts")
            session.exec_driver_sql(
                "create table segments.carts as select profile_id, first_seen_at as entered_at from core.profiles "
                "where is_known"
            )

    def connect(self, name: str, options: Mapping[str, object]) -> Destination:
        if name in self.down:
            raise TransientError(f"{name} gave no answer")
        cls = destination_class(name)
        server = self.mailchimp if name == "mailchimp" else self.google
        return cls(server.connection(), cls.Settings.model_validate(dict(options)))

    def sync(self) -> int:
        """Plan and push both targets; returns how many rows there were to send."""
        rows = 0
        for destination in ("mailchimp", "google_ads"):
            plan = plan_target(self.warehouse, "carts", destination, self.as_of, "run")
            push_plan(self.warehouse, plan.plan_id, self.connect)
            assert confirm_plan(self.warehouse, plan.plan_id, self.connect)
            rows += plan.rows
        return rows

    def honour(self) -> honour.Honoured:
        return honour_requests(self.warehouse, self.connect)

    def rows(self) -> dict[str, Counter[tuple[str, ...]]]:
        """Every row of every table as text."""
        with self.warehouse.session() as session:
            tables = self.warehouse._all_columns(session)
        return {
            table: Counter(
                tuple(str(value) for value in row.values()) for row in self.warehouse.read(f"select * from {table}")
            )
            for table in sorted(tables)
            if table not in BOOKKEEPING
        }

    def tokens(self) -> list[str]:
        """What she can be known by."""
        profiles = self.warehouse.read(
            "select distinct profile_id from core.identifiers where identifier_value like '%anabel%'"
        )
        return ["anabel", PHONE, *HASHES, *(row["profile_id"] for row in profiles)]

    def on_lists(self) -> set[str]:
        tagged = {address for address, member in self.mailchimp.members.items() if member["tags"]}
        return tagged | self.google.on_list()

    def receipts(self) -> list[tuple[str, str, bool | None]]:
        rows = self.warehouse.read(
            "select system, outcome, is_verified from sync.erasure_receipts "
            "qualify row_number() over (partition by request_id, system order by recorded_at desc) = 1 order by system"
        )
        return [(row["system"], row["outcome"], row["is_verified"]) for row in rows]


@pytest.fixture
def audiences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKINDLE_AUDIENCES_DIR", str(tmp_path))
    monkeypatch.setenv("REKINDLE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("REKINDLE_AS_OF", AS_OF.isoformat())
    get_settings.cache_clear()
    (tmp_path / "carts.yaml").write_text(AUDIENCE)
    monkeypatch.setattr(requests, "QUICK_POLLS", ())


@pytest.fixture
def shop(audiences: None, empty_warehouse: Warehouse) -> Iterator[Shop]:
    """The shop on each engine."""
    made = Shop(empty_warehouse)
    yield made
    made.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the shop in it, built once."""
    place = tmp_path_factory.mktemp("shop") / "warehouse.duckdb"
    warehouse = Warehouse(f"duckdb:///{place}")
    warehouse.ensure_tables()
    Shop(warehouse).close()
    return place


@pytest.fixture
def small_shop(audiences: None, filled: Path, tmp_path: Path) -> Iterator[Shop]:
    """The shop on the quickest engine."""
    place = tmp_path / "warehouse.duckdb"
    shutil.copy(filled, place)
    made = Shop(Warehouse(f"duckdb:///{place}"), is_filled=True)
    yield made
    made.close()


def without(rows: dict[str, Counter[tuple[str, ...]]], tokens: list[str]) -> dict[str, Counter[tuple[str, ...]]]:
    """The rows that name none of these."""
    return {
        table: Counter({row: count for row, count in found.items() if not mentions(row, tokens)})
        for table, found in rows.items()
    }


def mentions(row: tuple[str, ...], tokens: list[str]) -> bool:
    return any(token in cell.lower() for cell in row for token in tokens)


DONE = [
    ("google_ads", "removed", None),
    ("mailchimp", "erased", True),
    ("request", "done", None),
    ("warehouse", "erased", True),
]
BY = [
    ("email", "Anabel@shop.example "),
    ("phone", PHONE),
    ("user_id", "user-anabel"),
    ("visitor_id", "anabel-2"),
    ("contact_id", "hubspot:c-anabel"),
]


def test_she_is_gone_everywhere_and_everybody_else_is_as_before(shop: Shop) -> None:
    assert shop.sync() == 4
    before, tokens = shop.rows(), shop.tokens()
    named = {table for table, rows in before.items() if any(mentions(row, tokens) for row in rows)}
    assert {"raw.events", "core.carts", "segments.carts", "sync.ledger", "raw.rejected_rows"} <= named
    request_erasure(shop.warehouse, "email", "Anabel@shop.example ")
    assert shop.honour().done == 1

    after = shop.rows()
    assert {table for table, rows in after.items() if any(mentions(row, tokens) for row in rows)} == set()
    told = {table: rows for table, rows in without(before, tokens).items() if after[table] != rows and table not in OWN}
    assert told == {}
    assert shop.on_lists() == {
        "bo@shop.example",
        google_email_sha256("bo@shop.example"),
        google_phone_sha256("+4930901821"),
    }
    assert "anabel@shop.example" not in shop.mailchimp.members
    assert shop.receipts() == DONE
    kept = [str(row) for table in BOOKKEEPING for row in shop.warehouse.read(f"select * from {table}")]
    assert kept
    assert not any(token in row.lower() for row in kept for token in tokens)

    # Once more: nothing is left to do. And the tables go on without her.
    shop.mailchimp.journal.clear()
    shop.google.journal.clear()
    assert shop.honour() == honour.Honoured()
    assert (shop.mailchimp.journal, shop.google.journal) == ([], [])
    assert shop.sync() == 0

    # She is imported again: on no list, and out of the warehouse with the next run.
    shop.as_of += timedelta(hours=3)
    shop.load("anabel", PHONE)
    shop.build()
    assert shop.warehouse.read("select profile_id from core.identifiers where identifier_value like '%anabel%'") == []
    assert shop.sync() == 0
    assert shop.honour().rows > 0
    assert {table for table, rows in shop.rows().items() if any(mentions(row, tokens) for row in rows)} == set()
    shop.build()
    assert shop.sync() == 0
    assert "anabel@shop.example" not in shop.mailchimp.members


def keys(warehouse: Warehouse, request_id: str) -> set[tuple[str, str]]:
    found = warehouse.read("select kind, value from sync.erasure_keys where request_id = :r", r=request_id)
    return {(row["kind"], row["value"]) for row in found if row["kind"] != "named"}


def test_any_identifier_leads_to_all_of_her(small_shop: Shop) -> None:
    small_shop.sync()
    found = []
    for kind, value in BY:
        request_id = request_erasure(small_shop.warehouse, kind, value)
        with small_shop.warehouse.session() as session:
            assert gather(small_shop.warehouse, session, request_id) == "found"
        found.append(keys(small_shop.warehouse, request_id))
    assert {("email", "old.anabel@shop.example"), ("event", "e-anabel-2"), ("order", "hubspot:o-anabel")} <= found[0]
    assert [len(one ^ found[0]) for one in found] == [0] * len(BY)
    assert not any("bo" in value for _, value in found[0])
    assert request_erasure(small_shop.warehouse, *BY[0]) == request_erasure(
        small_shop.warehouse, "email", "anabel@shop.example"
    )


def test_somebody_once_taken_for_her_is_not_erased(small_shop: Shop) -> None:
    """A contact that had her address for a day went into her profile, and is a person of his own again."""
    small_shop.sync()
    names = small_shop.warehouse.read("select profile_id from core.identifiers where identifier_value = 'hubspot:c-bo'")
    for email in ("anabel@shop.example", "bo@shop.example"):
        small_shop.as_of += timedelta(hours=3)
        small_shop.insert(
            "raw.contacts", contact_id="c-bo", email=email, created_at=AS_OF - timedelta(days=2),
            updated_at=small_shop.as_of - timedelta(hours=2),
        )  # fmt: skip
        small_shop.build()
    assert names == small_shop.warehouse.read(
        "select profile_id from core.identifiers where identifier_value = 'hubspot:c-bo'"
    )
    request_id = request_erasure(small_shop.warehouse, *BY[0])
    with small_shop.warehouse.session() as session:
        assert gather(small_shop.warehouse, session, request_id) == "found"
    found = keys(small_shop.warehouse, request_id)
    assert ("email", "anabel@shop.example") in found
    assert {("profile", names[0]["profile_id"]), ("sent", "bo@shop.example")} & found == set()


def test_killed_at_every_step_the_next_run_goes_on(small_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shop.sync()
    tokens = small_shop.tokens()
    request_erasure(small_shop.warehouse, "phone", PHONE)

    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    # record_answers: the platform has taken her off, and the ledger has not heard of it
    for module, step in (
        (honour, "block"),
        (honour, "delete_rows"),
        (honour, "take_off"),
        (leave, "record_answers"),
        (requests, "record_outcomes"),
        (honour, "_receipt"),
        (honour, "_finish"),
        (honour, "_forget_keys"),
    ):
        with monkeypatch.context() as killed:
            killed.setattr(module, step, die)
            with pytest.raises(KeyboardInterrupt):
                small_shop.honour()
    assert small_shop.honour().still_open == 0
    assert {table for table, rows in small_shop.rows().items() if any(mentions(row, tokens) for row in rows)} == set()
    assert not any("anabel" in member or member in HASHES for member in small_shop.on_lists())
    assert small_shop.receipts() == DONE
    assert small_shop.warehouse.scalar("select count(*) as n from sync.erasure_keys") == 0


def test_a_destination_that_is_down_leaves_the_request_open(small_shop: Shop) -> None:
    small_shop.sync()
    small_shop.down = {"google_ads"}
    request_erasure(small_shop.warehouse, "email", "anabel@shop.example")
    first = small_shop.honour()
    assert (first.done, first.still_open) == (0, 1)
    assert "google_ads gave no answer" in first.reasons[0]
    assert ("google_ads", "open", None) in small_shop.receipts()
    assert ("mailchimp", "erased", True) in small_shop.receipts()
    assert "anabel@shop.example" not in small_shop.mailchimp.members
    assert small_shop.google.on_list() & set(HASHES)
    assert (
        small_shop.warehouse.scalar("select count(*) as n from core.profiles") == 1
    )  # nothing waits for a destination
    small_shop.down = set()
    assert small_shop.honour().done == 1
    assert not small_shop.google.on_list() & set(HASHES)
    assert small_shop.receipts() == DONE


def test_what_somebody_else_was_sent_with_for_a_time_goes_too(shop: Shop) -> None:
    """Bo had her old address once: he was sent with it, and a stored plan would send him with it again."""
    assert shop.sync() == 4
    key, hers = google_email_sha256("bo@shop.example"), HASHES[1]
    row = shop.warehouse.read("select * from sync.ledger where member_key = :k and status = 'accepted'", k=key)[0]
    own = json.loads(row["identifiers"])
    sent = json.dumps({**own, "google_email_sha256": sorted([key, hers])}, separators=(",", ":"))
    shop.warehouse.insert(
        "sync.ledger", [{**row, "sequence": row["sequence"] - 1, "plan_id": "earlier", "identifiers": sent}]
    )
    planned = {name: row[name] for name in ("action", "profile_id", "member_key", "payload_hash")}
    shop.warehouse.insert("sync.plan_rows", [{**planned, "plan_id": "waits", "row_number": 1, "identifiers": sent}])
    request_erasure(shop.warehouse, "email", "anabel@shop.example")
    assert shop.honour().done == 1
    for table in ("sync.ledger", "sync.plan_rows"):
        left = shop.warehouse.read(f"select plan_id, identifiers from {table} where member_key = :k", k=key)
        assert not any(hers in one["identifiers"] for one in left), table
        assert ("earlier" in {one["plan_id"] for one in left}) is (table == "sync.ledger")
    (kept,) = shop.warehouse.read("select * from sync.ledger where plan_id = 'earlier'")
    assert json.loads(kept["identifiers"]) == own
    assert hers not in shop.google.on_list()
    assert key in shop.google.on_list()
    assert shop.sync() == 0


def test_an_address_that_only_somebody_else_was_sent_with_is_taken_off(small_shop: Shop) -> None:
    small_shop.sync()
    new, key = google_email_sha256("new.anabel@shop.example"), google_email_sha256("bo@shop.example")
    small_shop.as_of += timedelta(hours=3)
    small_shop.insert("raw.contact_identifiers", contact_id="c-anabel", kind="email", value="new.anabel@shop.example")
    small_shop.build()
    row = small_shop.warehouse.read("select * from sync.ledger where member_key = :k limit 1", k=key)[0]
    sent = json.dumps({"google_email_sha256": sorted([key, new])}, separators=(",", ":"))
    small_shop.warehouse.insert(
        "sync.ledger", [{**row, "sequence": row["sequence"] - 1, "plan_id": "earlier", "identifiers": sent}]
    )
    next(iter(small_shop.google.members.values())).add(new)
    request_erasure(small_shop.warehouse, "email", "anabel@shop.example")
    assert small_shop.honour().done == 1
    assert new not in small_shop.google.on_list()


def test_a_removal_that_failed_in_part_is_sent_alone_so_that_its_answer_is_hers(small_shop: Shop) -> None:
    small_shop.sync()
    old = small_shop.warehouse.read("select * from sync.ledger where member_key in (:h) limit 1", h=HASHES)[0]
    other = {**old, "sequence": old["sequence"] - 1, "plan_id": "earlier", "member_key": "0" * 64}
    small_shop.warehouse.insert("sync.ledger", [other])  # she has had another key on the list
    request = request_erasure(small_shop.warehouse, "email", "anabel@shop.example")
    tried = {"plan_id": f"erasure-{request}", "action": "remove", "status": "unattributed", "reason": "1 of 2 failed"}
    small_shop.warehouse.insert(
        "sync.ledger",
        [{**row, **tried, "sequence": old["sequence"] + n} for n, row in enumerate((old, other), start=1)],
    )
    small_shop.google.journal.clear()

    assert small_shop.honour().done == 1

    removals = [call for call in small_shop.google.journal if call.path.endswith("audienceMembers:remove")]
    assert [len(json.loads(call.text)["audienceMembers"]) for call in removals] == [1, 1]


def test_a_list_that_is_gone_does_not_hold_an_erasure_up(small_shop: Shop) -> None:
    small_shop.sync()
    small_shop.mailchimp.segments.clear()
    for member in small_shop.mailchimp.members.values():
        member["tags"].clear()
    small_shop.google.lists.clear()
    request_erasure(small_shop.warehouse, "email", "anabel@shop.example")
    assert small_shop.honour().done == 1
    assert "anabel@shop.example" not in small_shop.mailchimp.members
    assert small_shop.receipts() == DONE
    details = small_shop.warehouse.read(
        "select system, detail from sync.erasure_receipts where detail like 'list % was not there any more%'"
    )
    assert {row["system"] for row in details} == {"mailchimp", "google_ads"}


def test_a_list_that_refuses_holds_up_no_other_and_not_that_she_is_forgotten(
    small_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more.yaml").write_text(AUDIENCE.replace("Carts", "More"))
    with small_shop.warehouse.session() as session:
        session.exec_driver_sql("create table segments.more as select * from segments.carts")
    small_shop.sync()
    plan = plan_target(small_shop.warehouse, "more", "mailchimp", AS_OF, "run")
    push_plan(small_shop.warehouse, plan.plan_id, small_shop.connect)
    ids = {name: key for key, name in small_shop.mailchimp.segments.items()}
    remove = Mailchimp.remove

    def refuse(self: Mailchimp, list_id: str, batch: Sequence[Member]) -> list[RowResult]:
        if list_id.endswith(f"/{ids['Carts']}"):
            raise AudienceRejected("sign the terms")
        return remove(self, list_id, batch)

    request_erasure(small_shop.warehouse, "email", "anabel@shop.example")
    with monkeypatch.context() as refusing:
        refusing.setattr(Mailchimp, "remove", refuse)
        first = small_shop.honour()
    assert (first.done, first.reasons) == (0, ("mailchimp: sign the terms",))
    assert "anabel@shop.example" not in small_shop.mailchimp.members
    left = small_shop.warehouse.read(
        "select audience from sync.memberships where destination = 'mailchimp' and member_key = 'anabel@shop.example'"
    )
    assert [row["audience"] for row in left] == ["carts"]
    assert small_shop.honour().done == 1
    assert small_shop.receipts() == DONE


def test_a_push_under_way_is_waited_for(small_shop: Shop) -> None:
    """It may hold her in memory, and would put her on the list again after she was taken off."""
    small_shop.sync()
    request_erasure(small_shop.warehouse, "email", "anabel@shop.example")
    audience = small_shop.warehouse.scalar(
        "select min(audience) as a from sync.ledger where destination = 'google_ads'"
    )
    with one_writer(audience, "google_ads"):
        first = small_shop.honour()
        assert (first.done, first.still_open) == (0, 1)
        assert "another process is pushing to this list" in first.reasons[0]
        assert small_shop.google.on_list() & set(HASHES)
    assert small_shop.honour().done == 1
    assert not small_shop.google.on_list() & set(HASHES)


def test_a_source_may_say_so_and_a_new_consent_is_a_new_beginning(small_shop: Shop) -> None:
    small_shop.sync()
    small_shop.mailchimp.members["anabel@shop.example"]["status"] = "unsubscribed"
    read_opt_outs(small_shop.warehouse, "carts", "mailchimp", small_shop.connect)
    told = {"kind": "contact_id", "value": "c-anabel", "channel": "all", "reason": "erased", "is_active": True}
    small_shop.as_of += timedelta(hours=3)
    small_shop.insert("raw.suppressions", **told, changed_at=AS_OF + timedelta(hours=1))
    small_shop.build()  # identity does not know her any more; the request still finds all of her
    tokens = ["anabel", PHONE, *HASHES]
    assert small_shop.honour().done == 1
    assert {table for table, rows in small_shop.rows().items() if any(mentions(row, tokens) for row in rows)} == set()
    assert not any("anabel" in member or member in HASHES for member in small_shop.on_lists())
    small_shop.as_of += timedelta(hours=3)
    small_shop.insert("raw.suppressions", **told, changed_at=AS_OF + timedelta(hours=1))  # the file is read again
    small_shop.load("anabel", PHONE)
    small_shop.build()
    assert small_shop.honour().done == 0
    assert small_shop.warehouse.scalar("select count(*) as n from raw.suppressions") == 0

    small_shop.as_of += timedelta(hours=3)
    small_shop.load("anabel", PHONE)
    later = {"contact_id": "c-anabel", "email": "anabel@shop.example", "changed_at": AS_OF + timedelta(hours=5)}
    small_shop.insert("raw.consents", **later, channel="email", status="granted")
    small_shop.build()
    assert small_shop.honour() == honour.Honoured()
    profiles = small_shop.warehouse.read(
        "select distinct profile_id from core.identifiers where identifier_value = 'anabel@shop.example'"
    )
    assert len(profiles) == 1
    standing = small_shop.warehouse.read(
        "select channel, reason, source from core.suppressions where profile_id = :p", p=profiles[0]["profile_id"]
    )
    assert standing == [{"channel": "email", "reason": "opted_out", "source": "mailchimp"}]  # her no outlives it
    assert (
        small_shop.warehouse.read(
            "select order_key from core.orders where profile_id = :p", p=profiles[0]["profile_id"]
        )
        == []
    )


def test_what_is_of_several_people_erases_nobody(small_shop: Shop) -> None:
    small_shop.as_of += timedelta(hours=3)
    for name in ("anabel", "bo"):
        small_shop.insert(
            "raw.events", event_key=f"till-{name}", event_name="page_view", visitor_id="till", user_id=f"user-{name}",
            session_id="1", occurred_at=AS_OF - timedelta(hours=5),
        )  # fmt: skip
    small_shop.insert(
        "raw.events", event_key="till-3", event_name="page_view", visitor_id="till", session_id="2",
        occurred_at=AS_OF - timedelta(hours=6),
    )  # fmt: skip
    small_shop.build()
    before = small_shop.rows()
    request_erasure(small_shop.warehouse, "visitor_id", "till")
    assert small_shop.honour() == honour.Honoured(ambiguous=1)
    assert small_shop.rows() == before
    # When she goes herself, what was done there without a login does not become Bo's.
    request_erasure(small_shop.warehouse, "user_id", "user-anabel")
    assert small_shop.honour().done == 1
    build_tables(small_shop.warehouse, small_shop.as_of, full_refresh=True)
    assert small_shop.warehouse.read("select event_key from core.events where visitor_id = 'till'") == [
        {"event_key": "till-bo"}
    ]


@pytest.mark.parametrize(
    ("kind", "value"), [("email", "nobody"), ("phone", "030 901820"), ("contact_id", "4711"), ("name", "A")]
)
def test_what_is_no_identifier_is_refused_without_being_quoted(kind: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        node_of(kind, value)
    assert value not in str(refused.value) or kind == "name"
