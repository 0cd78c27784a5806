"""Lengths of time and shares in YAML."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.audiences.durations import format_duration, looks_like_duration, parse_duration, parse_share


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("1h", timedelta(hours=1)),
        ("7d", timedelta(days=7)),
        ("365d", timedelta(days=365)),
        ("2w", timedelta(days=14)),
        (" 0h ", timedelta(0)),
    ],
)
def test_a_length_of_time_is_read(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    ("value", "meant"),
    [("7 days", "Did you mean '7d'?"), ("1hr", "Did you mean '1h'?"), ("30 Min", "Did you mean '30m'?")],
)
def test_a_length_of_time_in_other_words_is_told_how_to_be_written(value: str, meant: str) -> None:
    with pytest.raises(ValueError, match="no length of time") as caught:
        parse_duration(value)
    assert str(caught.value).endswith(meant)


@pytest.mark.parametrize("value", [7, "7", "-7d", "1.5h", "soon", "", None, True, ["7d"], "1h30m", "7D"])
def test_anything_else_is_no_length_of_time(value: object) -> None:
    with pytest.raises(ValueError, match="write a whole number and s, m, h, d or w"):
        parse_duration(value)


@pytest.mark.parametrize("value", ["36501d", "999999999w"])
def test_a_length_beyond_a_century_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="longer than 100 years"):
        parse_duration(value)


def test_texts_meant_as_lengths_are_told_from_others() -> None:
    assert [
        text for text in ("7d", "7 days", "1.5h", "purchase", "v2", "30", "3 apples") if looks_like_duration(text)
    ] == [
        "7d",
        "7 days",
        "1.5h",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(604800, "7d"), (129600, "36h"), (1800, "30m"), (90, "90s"), (0, "0s")])
def test_a_length_is_written_in_its_largest_whole_unit(seconds: int, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0%", 0.0), ("100%", 1.0), ("2.5 %", 0.025), ("7%", 0.07)])
def test_a_share_is_read(text: str, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize(
    ("value", "meant"),
    [(5, "Did you mean '5%'?"), (0.05, "Did you mean '5%'?"), ("five", "such as 5%"), (True, "such as 5%")],
)
def test_a_share_without_its_sign_is_refused(value: object, meant: str) -> None:
    with pytest.raises(ValueError, match="no percentage") as caught:
        parse_share(value)
    assert str(caught.value).endswith(meant)
