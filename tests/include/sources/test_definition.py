from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import AudienceFileError, ConfigurationError
from include.sources import get_source_definition, load_sources, read_sources

ROOT = Path(__file__).resolve().parents[3]
GOOD = "label: Web\nkind: ga4_export\nconnection: exports\nschedule: '0 * * * *'\n"


def test_every_shipped_definition_is_right() -> None:
    for folder in (ROOT / "include/sources/definitions", ROOT / "include/sandbox/published"):
        assert read_sources(folder).errors == []
    assert set(load_sources(ROOT / "include/sources/definitions")) == {"files", "ga4_export", "hubspot"}
    assert set(load_sources(ROOT / "include/sandbox/published")) == {"ga4_export", "online_retail"}


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (GOOD.replace("schedule", "shedule"), 4, "'shedule' is not known; did you mean 'schedule'?"),
        (GOOD + "settings:\n  flies: [a]\n", 6, "'settings.flies' is not known; did you mean 'files'?"),
        (GOOD.replace("ga4_export", "ga5"), 2, "there is no kind of source 'ga5'"),
        (GOOD.replace("ga4_export", "country"), 2, "'country' is not a kind of source"),
        (GOOD + "label: Again\n", 5, "'label' is there twice"),
        (GOOD.replace("'0 * * * *'", "hourly"), 4, "a cron expression has five fields"),
        ("label: [\n", 2, "expected the node content"),
        ("- label\n", None, "a source definition is a mapping"),
        ("kind: ga4_export\nconnection: exports\n", 1, "'label' is missing"),
        (GOOD + "name: web\n", 5, "'name' comes from the file name"),
    ],
)
def test_a_wrong_definition_is_told_with_file_and_line(
    tmp_path: Path, text: str, line: int | None, sentence: str
) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(text)
    with pytest.raises(AudienceFileError) as caught:
        get_source_definition("web", tmp_path)
    assert caught.value.line == line
    assert str(caught.value).startswith(str(path))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("feed", "line", "sentence"),
    [
        (
            "{path: a.csv, table: ordrs, columns: {order_id: a}}",
            6,
            "'ordrs' is not a table of raw; did you mean 'orders'?",
        ),
        ("{path: a.csv, table: contacts, columns: {email: a}}", 6, "contacts needs 'contact_id'"),
        ("{path: a.csv, table: contacts, columns: {contact_id: a, emial: b}}", 6, "did you mean 'email'?"),
        ("{path: a.dat, table: contacts, columns: {contact_id: a}}", 5, "does not tell its format"),
        ("{path: a.csv, table: contacts, columns: {contact_id: {colum: a}}}", 6, "did you mean 'column'?"),
        ("{path: a.csv, table: contacts, columns: {contact_id: {}}}", 6, "give either 'column' or 'const'"),
        (
            "{path: a.csv, timezone: London, table: contacts, columns: {contact_id: a}}",
            6,
            "'London' is not a time zone",
        ),
    ],
)
def test_a_wrong_feed_is_told_with_its_line(tmp_path: Path, feed: str, line: int, sentence: str) -> None:
    (tmp_path / "shop.yaml").write_text(
        f"label: Shop\nkind: files\nconnection: exports\nsettings:\n  feeds:\n    - {feed}\n"
    )
    with pytest.raises(AudienceFileError) as caught:
        get_source_definition("shop", tmp_path)
    assert caught.value.line == line
    assert sentence in str(caught.value)


def test_one_wrong_definition_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(GOOD)
    (tmp_path / "broken.yaml").write_text("label: 1: 2\n")
    loaded = read_sources(tmp_path)
    assert list(loaded.sources) == ["web"]
    assert [Path(error.path).name for error in loaded.errors] == ["broken.yaml"]
    assert list(load_sources(tmp_path)) == ["web"]


def test_an_unknown_source_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "website.yaml").write_text(GOOD)
    with pytest.raises(ConfigurationError, match="there is no source 'websit'; did you mean 'website'"):
        get_source_definition("websit", tmp_path)
