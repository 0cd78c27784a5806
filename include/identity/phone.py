"""Phone numbers: E.164, or nothing where the country cannot be told."""

from __future__ import annotations

from typing import NewType

Phone = NewType("Phone", str)


def to_e164(raw: str | None, country: str | None = None) -> Phone | None:
    """`+4930123456` for a number as people write it; `country` (ISO 3166 alpha-2) reads national numbers.

    None when it is no valid number, or a national one without a country.
    """
    if raw is None or not raw.strip():
        return None
    import phonenumbers

    text = raw.strip()
    region = country.strip().upper() if country and country.strip() else None
    if region is None and text.startswith("00"):
        text = f"+{text[2:]}"
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return Phone(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
