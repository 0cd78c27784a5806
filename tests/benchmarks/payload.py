"""`make bench-payload`: from contacts as a CRM holds them to the bodies of the requests, beside a plain loop in Python.

Normalised as staging does it, hashed as each platform wants it, written as the bodies that are sent: for Google by the
destination itself, for Meta as its customer file API takes them. Ours does the first two in the warehouse; the loop
does everything person by person with the same rules in Python. Both must write the same people.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import orjson
import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table

from include.connections import Connection
from include.destinations.google_ads import GoogleAds
from include.identity import google_email_sha256, google_phone_sha256, meta_email_sha256, meta_phone_sha256
from include.identity.email import lower
from include.settings import ROOT
from include.sync.ledger import to_members
from include.sync.push import nothing_old_looked_at
from include.warehouse.dialects import to_sql
from include.warehouse.engine import Warehouse
from include.warehouse.house import EMAIL_SHAPE
from include.warehouse.render import parse, render_tree

TARGET = 100_000  # people a second
BATCH = 10_000  # what both platforms take at once
PAGE = 20_000
_SHAPE = re.compile(EMAIL_SHAPE)

# One in ten is at Gmail with dots and a suffix, one in twenty has blanks around, one in fifty is no address.
_CONTACTS = """
    select
        n as contact_id,
        case
            when n % 50 = 0 then 'none'
            when n % 20 = 1 then '  Person.' || n || '@Example.com '
            when n % 10 = 2 then 'Per.son' || n || '+news@gmail.com'
            else 'person.' || n || '@example.org'
        end as email,
        case when n % 3 = 0 then null else '+4930' || (10000000 + n) end as phone
    from range({people}) as numbers (n)
"""
# As in a plan: the identifiers are a table of their own, so that each is hashed once.
_HASHED = """
    with contacts as (
        select
            contact_id,
            lower(tidy(email)) as email,
            phone
        from raw.people
    )

    select
        contact_id,
        case when is_email(email) then {email}(email) end as email,
        {phone}(phone) as phone
    from contacts
"""
_MEMBERS = """
    select
        contact_id,
        cast(contact_id as text) as member_key,
        cast(null as text) as fields,
        '{{' || coalesce('"{email}":["' || email || '"]', '')
        || case when email is not null and phone is not null then ',' else '' end
        || coalesce('"{phone}":["' || phone || '"]', '') || '}}' as identifiers
    from hashed
    where email is not null or phone is not null
"""


@dataclass(frozen=True)
class Platform:
    """How one platform wants people: the kinds of hashes, the same in Python, and a batch of identifiers as a body."""

    name: str
    email: str
    phone: str
    hash_email: Callable[[str], str]
    hash_phone: Callable[[str], str]
    body: Callable[[pa.Table], bytes]
    plain_body: Callable[[list[tuple[str | None, str | None]]], bytes]


def _google(rows: pa.Table) -> bytes:
    return orjson.dumps({"audienceMembers": [message for _, message in _GOOGLE._messages(to_members(rows))]})


def _plain_google(people: list[tuple[str | None, str | None]]) -> bytes:
    members = []
    for email, phone in people:
        identifiers = []
        if email:
            identifiers.append({"emailAddress": email})
        if phone:
            identifiers.append({"phoneNumber": phone})
        members.append({"userData": {"userIdentifiers": identifiers}})
    return orjson.dumps({"audienceMembers": members})


def _meta(rows: pa.Table) -> bytes:
    members = [member.identifiers for member in to_members(rows)]
    data = [[(one.get(kind) or ("",))[0] for kind in ("meta_email_sha256", "meta_phone_sha256")] for one in members]
    return orjson.dumps({"payload": {"schema": ["EMAIL", "PHONE"], "data": data}})


def _plain_meta(people: list[tuple[str | None, str | None]]) -> bytes:
    data = [[email or "", phone or ""] for email, phone in people]
    return orjson.dumps({"payload": {"schema": ["EMAIL", "PHONE"], "data": data}})


_GOOGLE = GoogleAds(Connection("bench", extra={"customer_id": "1234567890"}))
PLATFORMS = (
    Platform(
        "Google", "google_email_sha256", "google_phone_sha256", google_email_sha256, google_phone_sha256, _google,
        _plain_google,
    ),
    Platform(
        "Meta", "meta_email_sha256", "meta_phone_sha256", meta_email_sha256, meta_phone_sha256, _meta, _plain_meta
    ),
)  # fmt: skip


def fill(warehouse: Warehouse, people: int) -> None:
    """So many contacts as a CRM holds them."""
    warehouse.ensure_tables()
    with warehouse.session() as session:
        session.exec_driver_sql(f"create table raw.people as {_CONTACTS.format(people=people)}")


def ours(warehouse: Warehouse, platform: Platform) -> Iterator[bytes]:
    """Normalised and hashed in the warehouse, read in pages, written in batches."""
    kinds = {"email": platform.email, "phone": platform.phone}
    hashed = render_tree(parse(_HASHED.format(**kinds)).copy(), {})
    with warehouse.session() as session:
        session.exec_driver_sql(f"create temp table hashed as {to_sql(hashed, warehouse.dialect)}")
        session.exec_driver_sql(f"create temp table members as {_MEMBERS.format(**kinds)} order by contact_id")
        (contacts,) = warehouse.tuples("select max(contact_id) + 1 from members", connection=session)
        with nothing_old_looked_at():
            for first in range(0, contacts[0], PAGE):
                page = warehouse.read_columns(
                    "select member_key, identifiers, fields from members "
                    "where contact_id >= :first and contact_id < :end order by contact_id",
                    connection=session,
                    first=first,
                    end=first + PAGE,
                )
                for start in range(0, len(page), BATCH):
                    yield platform.body(page.slice(start, BATCH))
        session.exec_driver_sql("drop table members")
        session.exec_driver_sql("drop table hashed")


def plain(warehouse: Warehouse, platform: Platform) -> Iterator[bytes]:
    """Person by person in Python."""
    people: list[tuple[str | None, str | None]] = []
    for _, raw, phone in warehouse.tuples("select contact_id, email, phone from raw.people order by contact_id"):
        email = lower(raw.strip())
        hashed_email = platform.hash_email(email) if _SHAPE.match(email) else None
        hashed_phone = platform.hash_phone(phone) if phone else None
        if hashed_email is None and hashed_phone is None:
            continue
        people.append((hashed_email, hashed_phone))
        if len(people) == BATCH:
            yield platform.plain_body(people)
            people = []
    if people:
        yield platform.plain_body(people)


def _measure(work: Callable[[], Iterator[bytes]]) -> tuple[float, float, list[Any]]:
    began, used = time.perf_counter(), time.process_time()
    bodies = list(work())
    return time.perf_counter() - began, time.process_time() - used, bodies


def same(warehouse: Warehouse, platform: Platform) -> bool:
    """Whether ours and the loop write the same people in the same order."""
    return _people(ours(warehouse, platform)) == _people(plain(warehouse, platform))


def _people(bodies: Iterator[bytes]) -> list[Any]:
    found = [orjson.loads(body) for body in bodies]
    return [one for body in found for one in body.get("audienceMembers") or body["payload"]["data"]]


def main(people: Annotated[int, typer.Option(help="contacts")] = 200_000) -> None:
    """Measure both ways for both platforms."""
    table = Table("platform", "who", title=f"{people:,} contacts to the bodies of requests")
    for name in ("seconds", "CPU s", "people/s", "people/CPU s"):
        table.add_column(name, justify="right")
    table.add_column("ratio, target")
    (ROOT / "build").mkdir(exist_ok=True)
    with TemporaryDirectory(dir=ROOT / "build", prefix="bench-") as folder:
        warehouse = Warehouse(f"duckdb:///{Path(folder) / 'payload.duckdb'}")
        fill(warehouse, people)
        for platform in PLATFORMS:
            seconds, cpu, bodies = _measure(lambda: ours(warehouse, platform))  # noqa: B023
            loop_seconds, loop_cpu, loop_bodies = _measure(lambda: plain(warehouse, platform))  # noqa: B023
            if _people(iter(bodies)) != _people(iter(loop_bodies)):
                raise SystemExit(f"{platform.name}: the two ways do not write the same people")
            rate = people / seconds
            verdict = f">= {TARGET:,} {'met' if rate >= TARGET else 'missed'}"
            ratio = f"{loop_seconds / seconds:.1f} x the loop ({verdict})"
            for who, taken, used, said in (
                ("ours", seconds, cpu, ratio),
                ("plain loop", loop_seconds, loop_cpu, ""),
            ):
                rates = f"{people / taken:,.0f}", f"{people / used:,.0f}"
                table.add_row(platform.name, who, f"{taken:.2f}", f"{used:.2f}", *rates, said)
    Console(width=130).print(table)


if __name__ == "__main__":
    typer.run(main)
