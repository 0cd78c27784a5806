"""One spelling per address, and what is no address."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.identity import normalise_email
from include.identity.email import gmail_folded, without_whitespace
from include.settings import ROOT

DATA = Path(os.environ.get("REKINDLE_SHARED_DATA", ROOT.parent / "shared" / "data"))
# Letters outside ASCII, and `.test` for demos and tests.
WE_TAKE_MORE = {"test_email_invalid_character_smtputf8_off", "test_email_invalid_reserved_domain"}
CASES = DATA / "email-validation" / "email_cases.jsonl"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("ana@shop.example", "ana@shop.example"),
        ("  Ana@Shop.EXAMPLE\t\n", "ana@shop.example"),
        ("a.n.a+sale@gmail.com", "a.n.a+sale@gmail.com"),
        ("Zoë@shop.example", "zoë@shop.example"),
        ("用户@例子.公司", "用户@例子.公司"),
        ("ana@mail.test", "ana@mail.test"),
        ("o'brien@shop.example", "o'brien@shop.example"),
    ],
)
def test_an_address_has_one_spelling(raw: str, expected: str) -> None:
    assert normalise_email(raw) == expected


def test_composed_and_decomposed_letters_are_the_same_address() -> None:
    decomposed = unicodedata.normalize("NFD", "Zoë@shop.example")
    assert decomposed != "Zoë@shop.example"
    assert normalise_email(decomposed) == normalise_email("Zoë@shop.example") == "zoë@shop.example"


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "",
        "   ",
        "ana",
        "@shop.example",
        "ana@",
        "ana@@shop.example",
        "ana@shop@example.com",
        "ana@shop",
        "an a@shop.example",
        "ana@shop..example",
        ".ana@shop.example",
        "ana@-shop.example",
        "Ana <ana@shop.example>",
        "ana@shop.example, ben@shop.example",
        "n/a",
        "a" * 65 + "@shop.example",
        "a@" + "b." * 200 + "example",
        "ana@[127.0.0.1]",
        '"an a"@shop.example',
        "ana\x00@shop.example",
    ],
)
def test_what_is_malformed_is_no_address(raw: str | None) -> None:
    assert normalise_email(raw) is None


@given(st.text(max_size=40))
def test_any_text_is_answered_and_the_answer_stays_the_same(raw: str) -> None:
    once = normalise_email(f"{raw}@shop.example")
    assert once is None or normalise_email(once) == once


@pytest.mark.parametrize(
    ("address", "folded"),
    [
        ("cloudy.sanfrancisco+shopping@gmail.com", "cloudysanfrancisco@gmail.com"),
        ("Cloudy.San.Francisco@GoogleMail.com", "cloudysanfrancisco@googlemail.com"),
        ("user.name+NYC@Example.com", "user.name+nyc@example.com"),
        ("a+b+c@gmail.com", "a@gmail.com"),
        ("a.b@gmail.com.example", "a.b@gmail.com.example"),
    ],
)
def test_only_gmail_is_folded(address: str, folded: str) -> None:
    assert gmail_folded(address) == folded


def test_every_blank_goes() -> None:
    assert without_whitespace(" An a@ Shop.example\n") == "ana@shop.example"


def shared_cases() -> list[dict[str, Any]]:
    if not CASES.is_file():
        pytest.skip(f"the shared e-mail cases are not at {CASES}")
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]


def test_the_suites_never_crash_it_and_invalid_ones_are_refused() -> None:
    accepted = [
        case["id"]
        for case in shared_cases()
        if normalise_email(case["address"]) is not None
        and case["expect_valid_addr_spec"] is False
        and case["category"] not in WE_TAKE_MORE
        # Trimming and NFC make an address of some that are none as they stand.
        and case["address"] == unicodedata.normalize("NFC", case["address"].strip())
    ]
    assert accepted == []


def test_the_suites_valid_addresses_outside_ascii_are_accepted() -> None:
    cases = [
        case
        for case in shared_cases()
        if case["category"] == "test_email_valid_intl_local_part" and "<" not in case["address"]
    ]
    assert cases
    assert [case["id"] for case in cases if normalise_email(case["address"]) is None] == []
