"""Identity: what makes two values the same person's, and how each platform wants them hashed. Nothing else hashes.

Raw values and hashes are different types (`Email`, `HashedEmail`, ...), so that a type checker stops one from being
sent where the other is due.
"""

from __future__ import annotations

from include.identity.email import Email, normalise_email
from include.identity.hashing import (
    HashedEmail,
    HashedPhone,
    dv360_email_sha256,
    email_md5,
    email_sha256,
    google_email_sha256,
    google_phone_sha256,
    linkedin_email_sha256,
    meta_email_sha256,
    meta_phone_sha256,
    phone_sha256,
    salted_sha256,
    text_sha256,
    uid2_email_hash,
    uid2_phone_hash,
)
from include.identity.phone import Phone, to_e164

__all__ = [
    "Email",
    "HashedEmail",
    "HashedPhone",
    "Phone",
    "dv360_email_sha256",
    "email_md5",
    "email_sha256",
    "google_email_sha256",
    "google_phone_sha256",
    "linkedin_email_sha256",
    "meta_email_sha256",
    "meta_phone_sha256",
    "normalise_email",
    "phone_sha256",
    "salted_sha256",
    "text_sha256",
    "to_e164",
    "uid2_email_hash",
    "uid2_phone_hash",
]
