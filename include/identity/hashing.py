"""Hashes as each platform computes them, over values that identity has normalised.

Each has an SQL twin of the same name in `sql.py`. Nothing empty is ever hashed: it would match whoever else did so.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NewType

from include.identity.email import gmail_folded, lower, without_whitespace

HashedEmail = NewType("HashedEmail", str)
HashedPhone = NewType("HashedPhone", str)

_NOT_A_DIGIT = re.compile(r"[^0-9]")


def email_md5(email: str) -> HashedEmail:
    """Mailchimp's id of a member: MD5 of the lower-cased address. No secret, just a name."""
    return HashedEmail(hashlib.md5(_some(lower(email.strip(" "))).encode(), usedforsecurity=False).hexdigest())


def email_sha256(email: str) -> HashedEmail:
    """SHA-256 of the trimmed, lower-cased address, dots and `+suffix` kept."""
    return HashedEmail(_sha256(lower(email.strip(" "))))


def google_email_sha256(email: str) -> HashedEmail:
    """Google Customer Match: Gmail addresses lose dots and `+suffix`."""
    return HashedEmail(_sha256(gmail_folded(email)))


def google_phone_sha256(phone: str) -> HashedPhone:
    """Google Customer Match: E.164 with its plus."""
    return HashedPhone(_sha256("+" + _some(_digits(phone))))


def meta_email_sha256(email: str) -> HashedEmail:
    """Meta: trimmed and lower-cased, no rule for Gmail."""
    return email_sha256(email)


def meta_phone_sha256(phone: str) -> HashedPhone:
    """Meta: country code and digits, without plus or leading zeros."""
    return HashedPhone(_sha256(_digits(phone).lstrip("0")))


def linkedin_email_sha256(email: str) -> HashedEmail:
    """LinkedIn: lower-cased, all blanks removed."""
    return HashedEmail(_sha256(without_whitespace(email)))


def dv360_email_sha256(email: str) -> HashedEmail:
    """Display & Video 360: lower-cased, all blanks removed."""
    return HashedEmail(_sha256(without_whitespace(email)))


def phone_sha256(phone: str) -> HashedPhone:
    """SHA-256 of the number in E.164 as it is."""
    return HashedPhone(_sha256(phone))


def uid2_email_hash(email: str) -> HashedEmail:
    """UID2 (The Trade Desk): Gmail folded, SHA-256 in base64."""
    return HashedEmail(_sha256_base64(gmail_folded(email)))


def uid2_phone_hash(phone: str) -> HashedPhone:
    """UID2 (The Trade Desk): E.164 with its plus, SHA-256 in base64."""
    return HashedPhone(_sha256_base64("+" + _some(_digits(phone))))


def text_sha256(text: str) -> str:
    """A fingerprint of text that is not a person's identifier (a payload, a file), in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def salted_sha256(salt: str, text: str) -> str:
    """A hash that says whether two texts are the same, to whoever knows the salt (`erasure_salt`)."""
    return _sha256(salt + _some(text))


def _digits(phone: str) -> str:
    return _NOT_A_DIGIT.sub("", phone)


def _some(text: str) -> str:
    if not text:
        raise ValueError("there is nothing to hash")
    return text


def _sha256(text: str) -> str:
    return hashlib.sha256(_some(text).encode()).hexdigest()


def _sha256_base64(text: str) -> str:
    return base64.b64encode(hashlib.sha256(_some(text).encode()).digest()).decode()
