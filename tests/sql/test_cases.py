"""Every case under tests/sql, one test each, and the rules for the cases themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from include.errors import ConfigurationError
from include.settings import ROOT
from include.warehouse.engine import Warehouse
from tests.sql.conftest import CaseError, Template, check_case, durations, load_case, make_template

CASES = Path(__file__).resolve().parent
MODELS = sorted(path for folder in ("core", "segments") for path in (ROOT / "sql" / folder).glob("*.sql"))


def test_case(case_path: Path, run_case: Callable[[Path], None]) -> None:
    run_case(case_path)


def test_every_core_table_and_segment_has_a_case() -> None:
    without = [
        f"tests/sql/{path.parent.name}/{path.stem}/<what_happens>.yaml"
        for path in MODELS
        if not list((CASES / path.parent.name / path.stem).glob("*.yaml"))
    ]
    assert not without


def test_every_case_belongs_to_a_model() -> None:
    known = {f"{path.parent.name}/{path.stem}" for path in (ROOT / "sql").glob("*/*.sql")}
    strays = {f"{path.parts[-3]}/{path.parts[-2]}" for path in CASES.glob("*/*/*.yaml")} - known
    assert not strays


# The runner itself, over two small models of its own.


@pytest.fixture
def small(tmp_path: Path) -> Template:
    for name, sql in {
        "staging/contacts": "select contact_id, email, created_at, is_deleted from raw.contacts where not is_deleted",
        "core/identifiers": "select 'email' as identifier_kind, email as identifier_value, "
        "case when contact_id <> 'q' then 'p' || contact_id end as profile_id from staging.contacts",
        "core/profiles": "select 'p' || contact_id as profile_id, count(*) as contacts, sum(1.5) as score, "
        "min(created_at) as first_seen_at from staging.contacts where created_at < :as_of "
        "and email not in (:company_domains) group by contact_id",
        "core/broken": "select nothing from staging.contacts",
    }.items():
        path = tmp_path / f"{name}.sql"
        path.parent.mkdir(exist_ok=True)
        path.write_text(sql)
    return make_template(tmp_path, Warehouse("duckdb://"))


EXPECT = "expect: {core.profiles: "
ANA = "{contact_id: '1', email: ana@x.example, created_at: 2026-03-01 10:00, is_deleted: false}"
BEN = "{contact_id: '2', email: ben@x.example, created_at: 2026-03-02, is_deleted: false}"


def check(small: Template, tmp_path: Path, text: str) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(f"about: a trial\nas_of: 2026-03-10 12:00\n{text}")
    check_case(load_case(path), small)


@pytest.mark.parametrize(
    "text",
    [
        f"given: {{raw.contacts: [{ANA}, {BEN}]}}\nexpect: {{core.profiles: [{{profile_id: p2}}, {{profile_id: p1}}]}}",
        f"given: {{raw.contacts: [{ANA}]}}\nexpect: {{core.profiles: [{{first_seen_at: 2026-03-01T10:00:00}}]}}",
        f"given: {{raw.contacts: [{ANA}]}}\nexpect: {{core.profiles: [{{contacts: 1, score: 1.5}}]}}",
        f"given: {{staging.contacts: [{ANA}]}}\nexpect: {{core.profiles: [{{profile_of: {{email: ana@x.example}}}}]}}",
        f"given: {{raw.contacts: [{ANA}, {BEN}]}}\n"
        "expect: {core.profiles: [{not_profile_of: {email: ana@x.example}}, {profile_id: p1}]}",
        f"settings: {{company_domains: [ana@x.example]}}\ngiven: {{raw.contacts: [{ANA}]}}\n{EXPECT}[]}}",
        "given: {}\nexpect: {core.profiles: [], core.identifiers: []}",
        "given: {raw.contacts: [{contact_id: q, email: q@x.example, is_deleted: false}]}\n"
        "expect: {core.identifiers: [{profile_id: null}]}",
    ],
)
def test_a_case_that_holds_passes(small: Template, tmp_path: Path, text: str) -> None:
    check(small, tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"given: {{raw.contacts: [{ANA}]}}\nexpect: {{core.profiles: []}}", "expected 0 rows, found 1"),
        ("given: {}\nexpect: {core.profiles: [{profile_id: p1}]}", "expected 1 rows, found 0"),
        (f"given: {{raw.contacts: [{ANA}]}}\nexpect: {{core.profiles: [{{contacts: 2}}]}}", r"- expected +2"),
        (f"given: {{raw.contacts: [{ANA}]}}\nexpect: {{core.profiles: [{{contacts: null}}]}}", r"\+ found +1"),
        (
            f"given: {{raw.contacts: [{ANA}, {BEN}]}}\n{EXPECT}[{{contacts: 1}}, {{profile_id: p3}}]}}",
            r"- expected +p3",
        ),
        (
            f"given: {{raw.contacts: [{ANA}]}}\n{EXPECT}[{{not_profile_of: {{email: ana@x.example}}}}]}}",
            "not p1",
        ),
        ("given: {}\nexpect: {core.profiles: [{profile_of: {email: z@x.example}}]}", "does not know email z@x.example"),
        ("given: {}\nexpect: {core.profiles: [{profil: x}]}", r"core\.profiles has no column profil"),
        ("given: {raw.contacts: [{e_mail: x}]}\nexpect: {core.profiles: []}", r"raw\.contacts has no column e_mail"),
        ("given: {raw.contact: []}\nexpect: {core.profiles: []}", r"there is no table raw\.contact"),
        ("given: {}\nexpect: {core.profile: []}", r"there is no table core\.profile: no file"),
        ("given: {core.profiles: []}\nexpect: {core.profiles: []}", "given and expected"),
        ("given: {raw.contacts: [{email: No}]}\nexpect: {core.profiles: []}", "put it in quotes"),
        ("given: {raw.contacts: [{is_deleted: 1}]}\nexpect: {core.profiles: []}", "not true or false"),
        ("given: {raw.contacts: [{created_at: soon}]}\nexpect: {core.profiles: []}", "'soon' is not a time"),
        ("settings: {companies: [x]}\ngiven: {}\nexpect: {core.profiles: []}", "there is no companies"),
        ("given: {}\nexpect: {}", "it expects nothing"),
        ("given: {}", "it has no expect"),
        ("given: {}\nexpected: {}\nexpect: {core.profiles: []}", "unknown key expected"),
    ],
)
def test_a_case_that_does_not_hold_fails_with_a_reason(small: Template, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CaseError, match=said):
        check(small, tmp_path, text)


def test_a_broken_model_fails_the_cases_that_need_it(small: Template, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing"):
        check(small, tmp_path, f"given: {{raw.contacts: [{ANA}]}}\nexpect: {{core.broken: []}}")


def test_durations_are_read() -> None:
    assert durations({"a": "30m", "b": "7d", "c": 3, "d": "soon"}) == {
        "a": timedelta(minutes=30),
        "b": timedelta(days=7),
        "c": 3,
        "d": "soon",
    }
