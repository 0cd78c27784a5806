"""The hashes of each platform: known vectors, and the SQL twins say the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlglot import exp

from include import identity
from include.identity import normalise_email, to_e164
from include.identity.sql import DESTINATION_KINDS, SQL_FUNCTIONS
from include.settings import ROOT
from include.warehouse.engine import Warehouse
from tests.conftest import ENGINES

DATA = Path(os.environ.get("REKINDLE_SHARED_DATA", ROOT.parent / "shared" / "data"))
pytestmark = pytest.mark.on_spark
NAMES = sorted(SQL_FUNCTIONS)
Hashes = Callable[[str, list[str]], list[str | None]]
EMAILS = [
    "mary@example.com",
    "Mary@Example.com",
    " mary@example.com ",
    "cloudy.sanfrancisco+shopping@gmail.com",
    "c.l.oudy@googlemail.com",
    "user.name+nyc@example.com",
    "o'brien+1@shop.example",
    "zoë@bücher.example",
    "用户@例子.公司",
    "a b@gmail.com",
    "+tag@gmail.com",
    "no-at-sign",
]
PHONES = ["+15559876543", "+4930123456", "+390612345678", "15559876543", "(800)555-0100"]


def python_twin(name: str) -> Callable[[str], str]:
    return getattr(identity, name)  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """A warehouse without tables, on one engine."""
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    name = server.create() if server else ""
    if request.param == "spark":
        warehouse = request.getfixturevalue("spark_server").empty(with_tables=False)
    else:
        warehouse = Warehouse(server.url_of(name) if server else "duckdb://")
    yield warehouse
    warehouse.close()
    if server:
        server.drop(name)


@pytest.fixture(scope="module")
def sql_hashes(engine: Warehouse) -> Hashes:
    """Hashes of values as an engine works them out."""

    def hashes(function: str, values: list[str]) -> list[str | None]:
        listed = ", ".join(f"({i}, cast(:v{i} as text))" for i in range(len(values)))
        rows = engine.read(
            f"select {SQL_FUNCTIONS[function](exp.column('value')).sql('duckdb')} as h "
            f"from (values {listed}) as given(position, value) order by position",
            **{f"v{i}": value for i, value in enumerate(values)},
        )
        return [row["h"] for row in rows]

    return hashes


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("meta_phone_sha256", "+15559876543", "1ef970831d7963307784fa8688e8fce101a15685d62aa765fed23f3a2c576a4e"),
        ("meta_phone_sha256", "0015559876543", "1ef970831d7963307784fa8688e8fce101a15685d62aa765fed23f3a2c576a4e"),
        ("meta_email_sha256", "mary@example.com", "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79"),
        ("google_email_sha256", "Mary@Example.com", "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79"),
        (
            "linkedin_email_sha256",
            "ma ry@example.com",
            "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79",
        ),
        (
            "google_phone_sha256",
            "+1 (800) 555-0100",
            "fb4f73a6ec5fdb7077d564cdd22c3554b43ce49168550c3b12c547b78c517b30",
        ),
        ("email_md5", "Urist.McVankab@freddiesjokes.com", "62eeb292278cc15f5817cb78f7790b08"),
        ("uid2_email_hash", "mary@example.com", "8ZBM8anXOlX6XeCsgjxEA97XGv1MMkjQC9zQhmVSu3k="),
    ],
)
def test_known_vectors(sql_hashes: Hashes, name: str, value: str, expected: str) -> None:
    assert python_twin(name)(value) == expected
    assert sql_hashes(name, [value]) == [expected]


def test_google_folds_gmail_and_meta_does_not() -> None:
    assert identity.google_email_sha256("m.ary+x@gmail.com") == identity.google_email_sha256("mary@gmail.com")
    assert identity.meta_email_sha256("m.ary+x@gmail.com") != identity.meta_email_sha256("mary@gmail.com")
    assert identity.google_email_sha256("m.ary@example.com") != identity.google_email_sha256("mary@example.com")


def test_phone_hashes_differ_by_the_plus() -> None:
    assert identity.google_phone_sha256("+15559876543") == identity.google_phone_sha256("15559876543")
    assert identity.google_phone_sha256("+15559876543") != identity.meta_phone_sha256("+15559876543")


@pytest.mark.parametrize("name", NAMES)
def test_sql_and_python_say_the_same(sql_hashes: Hashes, name: str) -> None:
    values = PHONES if "phone" in name else EMAILS
    assert sql_hashes(name, values) == [python_twin(name)(value) for value in values]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_empty_is_hashed(sql_hashes: Hashes, name: str) -> None:
    with pytest.raises(ValueError, match="nothing to hash"):
        python_twin(name)("")
    assert sql_hashes(name, [""]) == [None]


@pytest.mark.parametrize("name", [name for name in NAMES if "phone" not in name])
def test_sql_and_python_say_the_same_on_the_suites(sql_hashes: Hashes, name: str) -> None:
    path = DATA / "email-validation" / "email_cases.jsonl"
    if not path.is_file():
        pytest.skip(f"the shared e-mail cases are not at {path}")
    addresses = [json.loads(line)["address"] for line in path.read_text(encoding="utf-8").splitlines()]
    valid = [email for email in map(normalise_email, addresses) if email is not None]
    assert len(valid) > 20
    assert sql_hashes(name, list(valid)) == [python_twin(name)(email) for email in valid]


@pytest.mark.parametrize("name", [name for name in NAMES if "phone" in name])
def test_sql_and_python_say_the_same_on_numbers_of_every_region(sql_hashes: Hashes, name: str) -> None:
    path = DATA / "phone-validation" / "libphonenumber_examples.jsonl"
    if not path.is_file():
        pytest.skip(f"the shared phone numbers are not at {path}")
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    phones = [str(to_e164(case["e164"])) for case in cases if case["valid"]]
    assert sql_hashes(name, phones) == [python_twin(name)(phone) for phone in phones]


@pytest.mark.parametrize("kind", sorted(DESTINATION_KINDS))
def test_every_kind_is_made_from_an_identifier_we_hold(engine: Warehouse, kind: str) -> None:
    made = DESTINATION_KINDS[kind]
    value = "+15559876543" if made.source_kind == "phone" else "mary@example.com"
    found = engine.scalar(f"select {made.sql('value')} from (select '{value}' as value) as given")
    assert made.source_kind in {"email", "phone", "visitor_id"}
    assert found == (value if kind == made.source_kind else python_twin(kind)(value))
