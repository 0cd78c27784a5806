"""Country names to ISO 3166 alpha-2: `Germany`, `Deutschland` and `de` are all `DE`."""

from __future__ import annotations

import importlib.util
import unicodedata
from functools import lru_cache
from pathlib import Path

from include.errors import ConfigurationError


@lru_cache
def country_names() -> dict[str, str]:
    """Lower-case country name in any language phonenumbers ships, to its code; a name of two countries is left out."""
    names: dict[str, str] = {}
    ambiguous: set[str] = set()
    for code, labels in _labels().items():
        for label in labels.values():
            if label.startswith("*"):  # a reference to another language's entry
                continue
            name = _plain(label)
            if names.setdefault(name, code) != code:
                ambiguous.add(name)
    for name in ambiguous:
        del names[name]
    names |= {"usa": "US", "u.s.a.": "US", "uk": "GB", "great britain": "GB", "england": "GB", "eire": "IE"}
    return names


def country_code(text: str | None) -> str | None:
    """The alpha-2 code of a country name or code; None where there is none."""
    if not text or not text.strip():
        return None
    name = _plain(text)
    if len(name) == 2 and name.upper() in _codes():
        return name.upper()
    return country_names().get(name)


@lru_cache
def _codes() -> frozenset[str]:
    return frozenset(_labels())


@lru_cache
def _labels() -> dict[str, dict[str, str]]:
    """Code to {language: name}. Importing phonenumbers.geodata would read every area of every country: seconds."""
    import phonenumbers

    path = Path(phonenumbers.__file__).parent / "geodata" / "locale.py"
    spec = importlib.util.spec_from_file_location("phonenumbers.geodata.locale", path)
    if spec is None or spec.loader is None:
        raise ConfigurationError("the package phonenumbers has no country names; install the locked version")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    labels: dict[str, dict[str, str]] = module.LOCALE_DATA
    return labels


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip().casefold()
