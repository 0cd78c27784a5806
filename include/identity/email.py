"""E-mail addresses: one spelling per address for identity, and the spellings that ad platforms hash.

For identity an address is trimmed, lower-cased and put in Unicode's NFC, nothing more: dots and `+suffix` make
different people (rule 4). Each platform folds in its own way before it hashes; those rules are here as well.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NewType

Email = NewType("Email", str)

_WHITESPACE = re.compile(r"[ \t\n\r\f\v]")
_GMAIL = ("gmail.com", "googlemail.com")
_LONGEST = 254  # RFC 5321; the check of anything longer is not worth its time


def normalise_email(raw: str | None) -> Email | None:
    """The address as identity knows it; None when it is no address. Letters outside ASCII are fine."""
    if raw is None:
        return None
    address = unicodedata.normalize("NFC", lower(unicodedata.normalize("NFC", raw.strip())))
    if not address or len(address) > _LONGEST or address.count("@") != 1:
        return None
    from email_validator import EmailNotValidError, validate_email

    try:
        validate_email(address, check_deliverability=False, test_environment=True, strict=True)
    except EmailNotValidError:
        return None
    return Email(address)


def lower(text: str) -> str:
    """Lower case letter by letter, as the SQL engines do it; Python's own looks at a letter's neighbours."""
    return text.lower() if text.isascii() else "".join("i" if letter == "İ" else letter.lower() for letter in text)


def without_whitespace(address: str) -> str:
    """Lower-cased, every blank removed wherever it stands (LinkedIn, Display & Video 360)."""
    return _WHITESPACE.sub("", lower(address))


def gmail_folded(address: str) -> str:
    """As Google and UID2 want it: for Gmail addresses without dots and `+suffix` before the @; the domain stays.

    https://developers.google.com/data-manager/api/devguides/concepts/formatting (2026)
    """
    plain = without_whitespace(address)
    name, _, domain = plain.partition("@")
    if domain not in _GMAIL:
        return plain
    return f"{name.split('+', 1)[0].replace('.', '')}@{domain}"
