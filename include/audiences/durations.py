"""Lengths of time and shares as they are written in YAML: `30m`, `1h`, `7d` and `5%`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_WORDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("w", "wk", "week", "weeks"), "w"),
}
_LONGEST = timedelta(days=36500)
_HOW = "write a whole number and s, m, h, d or w, such as 30m, 1h or 7d"


def parse_duration(value: object) -> timedelta:
    """Read `30m`, `1h`, `7d`; ValueError says how to write it, and what was probably meant."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,9})([smhdw])", value.strip())):
        if int(found[1]) > _LONGEST // timedelta(**{_UNITS[found[2]]: 1}):
            raise ValueError(f"'{value}' is longer than 100 years")
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    meant = _meant(value)
    raise ValueError(f"{value!r} is no length of time; {_HOW}" + (f". Did you mean '{meant}'?" if meant else ""))


def looks_like_duration(value: str) -> bool:
    """Whether a text was meant as a length of time, rightly written or not: `7d`, `7 days`, `1hr`."""
    found = re.fullmatch(r"\s*\d+(?:\.\d+)?\s*([a-zA-Z]+)\s*", value)
    return bool(found and found[1].lower() in _WORDS)


def format_duration(value: timedelta) -> str:
    """The shortest way to write a length of time: `7d`, `36h`, `90s`."""
    seconds = round(value.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def parse_share(value: object) -> float:
    """Read `5%` as 0.05; ValueError says how to write it, and what was probably meant."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)\s*%", value.strip())):
        # Divided as text, so that 5% is 0.05 and not 0.05000000000000001.
        return float(f"{found[1]}e-2")
    meant = ""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        meant = f". Did you mean '{value * 100:g}%'?" if 0 < value < 1 else f". Did you mean '{value:g}%'?"
    raise ValueError(f"{value!r} is no percentage; write it with its sign, such as 5%{meant}")


def _meant(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    found = re.fullmatch(r"\s*(\d+)\s*([a-zA-Z]+)\s*", value)
    unit = _WORDS.get(found[2].lower()) if found else None
    return f"{int(found[1])}{unit}" if found and unit else None
