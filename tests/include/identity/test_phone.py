"""Phone numbers as people write them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from include.identity import to_e164
from include.settings import ROOT

DATA = Path(os.environ.get("REKINDLE_SHARED_DATA", ROOT.parent / "shared" / "data"))
CASES = DATA / "phone-validation" / "libphonenumber_examples.jsonl"


@pytest.mark.parametrize(
    ("raw", "country", "expected"),
    [
        ("+1 650-253-0000", None, "+16502530000"),
        ("(650) 253-0000", "US", "+16502530000"),
        ("650 253 0000", "us", "+16502530000"),
        ("0049 30 123456", None, "+4930123456"),
        ("030 123456", "DE", "+4930123456"),
        ("+49 (0)30 123456", "US", "+4930123456"),
        ("tel:+49-30-123456", None, "+4930123456"),
        ("030 123456 ext. 7", "DE", "+4930123456"),
        ("030 123456", None, None),
        ("030 123456", "", None),
        ("030 123456", "Germany", None),
        ("123", "DE", None),
        ("+999 123456", None, None),
        ("call me", "DE", None),
        ("", "DE", None),
        ("  ", None, None),
        (None, "DE", None),
    ],
)
def test_a_number_is_read_or_refused(raw: str | None, country: str | None, expected: str | None) -> None:
    assert to_e164(raw, country) == expected


def shared_cases() -> list[dict[str, Any]]:
    if not CASES.is_file():
        pytest.skip(f"the shared phone numbers are not at {CASES}")
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]


def test_example_numbers_of_every_region_are_read_in_their_national_form() -> None:
    cases = [case for case in shared_cases() if case["valid"]]
    wrong = [
        (case["region"], case["type"]) for case in cases if to_e164(case["national"], case["region"]) != case["e164"]
    ]
    assert len(cases) > 1000
    assert wrong == []


def test_numbers_too_short_are_refused() -> None:
    cases = [case for case in shared_cases() if not case["valid"]]
    assert cases
    assert [case["region"] for case in cases if to_e164(case["national"], case["region"]) is not None] == []
