"""Saying what was probably meant, in the same words everywhere."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(found: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`. Did you mean 'owner'?`, or nothing where no known word is near."""
    near = difflib.get_close_matches(found.lower(), list(known), 1, cutoff)
    return f". Did you mean '{near[0]}'?" if near else ""


def suggest(found: str, known: Iterable[str]) -> str:
    """What was probably meant, or else what there is."""
    words = list(known)
    if hint := did_you_mean(found, words):
        return hint
    return f"; known are {', '.join(words)}" if words else ""
