"""Audience files: what is read from a good one, and what is said about a bad one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from include.audiences.load import Loaded, check_columns, known_destinations, load_audiences
from include.errors import AudienceFileError, ConfigurationError
from include.settings import ROOT, get_settings

HOW = "write a whole number and s, m, h, d or w, such as 30m, 1h or 7d. "

GOOD = """\
label: Big carts
description: Left more than 100 in the cart.
owner: lifecycle@example.com
segment: cart_abandoners
params: {idle_for: 2h, window: 3d, min_cart_value: 100}
stages: {offer: 2d, reminder: 2h}
channels: {email: {consent: email, unknown: allow}, ads: {consent: ads}}
suppress: [opted_out, press_list, {recent_purchasers: 30d}]
frequency_cap: {touches: 2, per: 1w}
holdout: 7.5%
exclusive: lifecycle
priority: 10
guard: {max_add: 200%, max_remove: 10%, min_size: 0}
destinations:
  - {to: mailchimp, audience: Newsletter, fields: {CART_URL: cart_url}, connection: mailchimp_shop}
  - to: google_ads
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "definitions"
    path.mkdir()
    return path


@pytest.fixture
def own_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A sql/ folder of the test's own."""
    (tmp_path / "sql" / "segments").mkdir(parents=True)
    (tmp_path / "sql" / "core").symlink_to(ROOT / "sql" / "core")
    (tmp_path / "sql" / "staging").symlink_to(ROOT / "sql" / "staging")
    monkeypatch.setenv("REKINDLE_SQL_DIR", str(tmp_path / "sql"))
    get_settings.cache_clear()
    yield tmp_path / "sql" / "segments"
    get_settings.cache_clear()


def load(folder: Path, text: str, name: str = "big_carts") -> Loaded:
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return load_audiences(folder)


def said(loaded: Loaded) -> list[tuple[int | None, str]]:
    return [(error.line, str(error).split(": ", 1)[1]) for error in loaded.errors]


def test_a_good_file_is_read_whole(folder: Path) -> None:
    loaded = load(folder, GOOD)
    assert loaded.errors == []
    audience = loaded.audiences["big_carts"]
    assert (audience.name, audience.label, audience.segment) == ("big_carts", "Big carts", "cart_abandoners")
    assert audience.params == {"idle_for": timedelta(hours=2), "window": timedelta(days=3), "min_cart_value": 100}
    assert list(audience.stages.items()) == [("reminder", timedelta(hours=2)), ("offer", timedelta(days=2))]
    assert (audience.channels["email"].consent, audience.channels["email"].unknown) == ("email", "allow")
    assert (audience.channels["ads"].consent, audience.channels["ads"].unknown) == ("ads", "deny")
    assert audience.suppress == {"opted_out": None, "press_list": None, "recent_purchasers": timedelta(days=30)}
    assert audience.frequency_cap is not None
    assert (audience.frequency_cap.touches, audience.frequency_cap.per) == (2, timedelta(days=7))
    assert audience.holdout == 0.075
    assert (audience.exclusive, audience.priority) == ("lifecycle", 10)
    assert (audience.guard.max_add, audience.guard.max_remove, audience.guard.min_size) == (2.0, 0.1, 0)
    mailchimp = audience.target("mailchimp")
    assert mailchimp.fields == {"CART_URL": "cart_url"}
    assert mailchimp.options == {"audience": "Newsletter", "connection": "mailchimp_shop"}
    assert (audience.target("google_ads").options, audience.target("google_ads").anonymous) == ({}, False)
    assert audience.path.endswith("big_carts.yaml")
    assert (audience.line("params", "window"), audience.line("destinations", 1, "to")) == (5, 16)


def test_what_is_left_out_has_a_safe_default(folder: Path) -> None:
    text = "label: L\ndescription: D\nowner: o\nsegment: lapsed_subscribers\n"
    text += "params: {ended_at_least: 7d, ended_within: 365d, inactive_for: 90d}\ndestinations: [{to: google_ads}]\n"
    audience = load(folder, text).audience("big_carts")
    assert {name: (channel.consent, channel.unknown) for name, channel in audience.channels.items()} == {
        "email": ("email", "deny"),
        "ads": ("ads", "deny"),
    }
    assert (audience.holdout, audience.frequency_cap, audience.exclusive, audience.priority) == (0.0, None, None, 0)
    assert (audience.guard.max_add, audience.guard.max_remove, audience.guard.min_size) == (0.5, 0.3, 1)
    assert (audience.stages, audience.suppress) == ({}, {})


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        # keys
        ("owner:", "ownr:", 3, "there is no key 'ownr'. Did you mean 'owner'?"),
        ("unknown: allow", "unkown: allow", 7, "there is no key 'channels.email.unkown'. Did you mean 'unknown'?"),
        ("touches: 2", "touchs: 2", 9, "there is no key 'frequency_cap.touchs'. Did you mean 'touches'?"),
        ("max_add:", "max_adds:", 13, "there is no key 'guard.max_adds'. Did you mean 'max_add'?"),
        ("priority: 10", "name: x", 12, "an audience has no key 'name': its name is the name of the file"),
        ("priority: 10", "label: Twice", 12, "'label' stands here twice, first in line 1; keep one"),
        # values
        ("label: Big carts", "label: ''", 1, "label: is empty"),
        ("label: Big carts", "label: 5", 1, "label: 5 is no text; put it in quotes"),
        ("label: Big carts", 'label: "Big\\ncarts"', 1, "label: must be one line of text"),
        (
            "per: 1w",
            "per: 7 days",
            9,
            "frequency_cap.per: '7 days' is no length of time; " + HOW + "Did you mean '7d'?",
        ),
        ("per: 1w", "per: 0d", 9, "frequency_cap.per: must be longer than nothing"),
        ("touches: 2", "touches: 0", 9, "frequency_cap.touches: 0 is less than 1"),
        ("touches: 2", "touches: two", 9, "frequency_cap.touches: 'two' is no whole number"),
        (
            "holdout: 7.5%",
            "holdout: 5",
            10,
            "holdout: 5 is no percentage; write it with its sign, such as 5%. Did you mean '5%'?",
        ),
        ("holdout: 7.5%", "holdout: 101%", 10, "holdout: is more than 100%"),
        (
            "email: {consent: email",
            "email: {consent: mail",
            7,
            "channels.email.consent: 'mail' is not one of email, ads. Did you mean 'email'?",
        ),
        (
            "ads: {consent: ads}",
            "add: {consent: ads}",
            7,
            "channels.add: 'add' is not one of email, ads. Did you mean 'ads'?",
        ),
        ("channels: {email", "channels: [email", 7, None),
        (
            "stages: {offer: 2d, reminder: 2h}",
            "stages: {offer: 2d, reminder: 48h}",
            6,
            "stages: two stages begin at the same time; one of them would stay empty",
        ),
        ("stages: {offer: 2d", "stages: {offer: 2days", 6, None),
        (
            "stages: {offer: 2d, reminder: 2h}",
            "stages: [offer]",
            6,
            "stages: must be names with values, such as {reminder: 1h, nudge: 24h}",
        ),
        # suppression
        ("opted_out,", "opted_outt,", 8, "suppress: does not know 'opted_outt'. Did you mean 'opted_out'?"),
        (
            "{recent_purchasers: 30d}",
            "recent_purchasers",
            8,
            "suppress: 'recent_purchasers' needs its days, such as {recent_purchasers: 30d}",
        ),
        (
            "{recent_purchasers: 30d}",
            "{recent_purchaser: 30d}",
            8,
            "suppress: 'recent_purchaser' takes no length of time; only recent_purchasers does. "
            "Did you mean 'recent_purchasers'?",
        ),
        ("press_list", "opted_out", 8, "suppress: 'opted_out' is named twice"),
        # segment and params
        (
            "segment: cart_abandoners",
            "segment: cart_abandoner",
            4,
            "segment: there is no sql/segments/cart_abandoner.sql. Did you mean 'cart_abandoners'?",
        ),
        (
            "segment: cart_abandoners",
            "segment: ../core/carts",
            4,
            "segment: '../core/carts' is no name: small letters, digits and underscores, "
            "a letter first, at most 50 of them",
        ),
        (
            "idle_for: 2h",
            "idel_for: 2h",
            5,
            "params.idel_for: cart_abandoners.sql has no parameter ':idel_for'. Did you mean 'idle_for'?",
        ),
        (
            ", min_cart_value: 100",
            "",
            5,
            "params lack 'min_cart_value', which cart_abandoners.sql asks for as ':min_cart_value'",
        ),
        ("idle_for: 2h", "idle_for: 2", 5, "params.idle_for: 2 is no length of time; write it like 30m, 1h or 7d"),
        (
            "idle_for: 2h",
            "idle_for: 2 hours",
            5,
            "params.idle_for: '2 hours' is no length of time; " + HOW + "Did you mean '2h'?",
        ),
        (
            "min_cart_value: 100",
            "min_cart_value: [100]",
            5,
            "params.min_cart_value: cart_abandoners.sql wants one value, not a list",
        ),
        ("min_cart_value: 100", "min_cart_value:", 5, "params.min_cart_value: has no value"),
        (
            "min_cart_value: 100}",
            "min_cart_value: 100, as_of: 1}",
            5,
            "params.as_of is a project setting and cannot be set for one audience",
        ),
        (
            "window: 3d",
            "window: 8d",
            5,
            "params.window: 8d is longer than a cart lives (cart_lifetime is 7d): "
            "the older carts have expired and would never be found",
        ),
        # destinations
        ("to: google_ads", "to: google_adds", 16, "there is no destination 'google_adds'. Did you mean 'google_ads'?"),
        ("to: google_ads", "to: base", 16, None),
        ("- to: google_ads", "- google_ads", 16, "destinations: write it as {to: google_ads}"),
        (
            "- to: google_ads",
            "- {to: mailchimp, audience: Other}",
            16,
            "mailchimp stands here twice; an audience has one list per destination",
        ),
        (
            "audience: Newsletter",
            "audince: Newsletter",
            15,
            "Mailchimp has no option 'audince'. Did you mean 'audience'?",
        ),
        (
            "to: google_ads",
            "{to: google_ads, fields: {A: cart_url}}",
            16,
            "Google Ads has no merge fields; leave out `fields`",
        ),
        (
            "CART_URL: cart_url",
            "CART_URL: cart_link",
            15,
            "fields.CART_URL: the segment has no column 'cart_link'. Did you mean 'cart_url'?",
        ),
        ("fields: {CART_URL: cart_url}", "anonymous: true", 15, "Mailchimp cannot reach visitors nobody knows by name"),
        (
            "fields: {CART_URL: cart_url}",
            "anonymous: perhaps",
            15,
            "destinations.anonymous: 'perhaps' is neither true nor false",
        ),
        ("connection: mailchimp_shop", "connection: 5", 15, "connection: 5 is not the name of an Airflow connection"),
        (
            ", ads: {consent: ads}}",
            "}",
            16,
            "google_ads is on the channel 'ads', which `channels` does not name; add ads: {consent: ads}",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_was_meant(
    folder: Path, old: str, new: str, line: int, message: str | None
) -> None:
    assert GOOD.count(old) == 1
    loaded = load(folder, GOOD.replace(old, new))
    assert loaded.audiences == {}
    assert all(error.path.endswith("big_carts.yaml") for error in loaded.errors)
    if message is None:
        assert [error.line for error in loaded.errors][:1] == [line]
    else:
        assert (line, message) in said(loaded)


def test_a_missing_key_says_what_it_is_for(folder: Path) -> None:
    loaded = load(folder, GOOD.replace("owner: lifecycle@example.com\n", "").replace("audience: Newsletter, ", ""))
    assert said(loaded) == [
        (1, "'owner' is missing: who answers for it"),
        (14, "Mailchimp needs 'audience': the list in Mailchimp that gets the tag, by its exact name"),
    ]


def test_all_problems_of_all_files_are_told_at_once_and_stop_nobody_else(folder: Path) -> None:
    (folder / "a_broken.yaml").write_text("label: [\n", encoding="utf-8")
    wrong = GOOD.replace("owner:", "ownr:").replace("7.5%", "7.5").replace("google_ads", "googel_ads")
    (folder / "b_wrong.yaml").write_text(wrong.replace("CART_URL: cart_url", "CART_URL: card_url"), encoding="utf-8")
    loaded = load(folder, GOOD, "c_good")
    assert list(loaded.audiences) == ["c_good"]
    assert [(Path(error.path).name, error.line) for error in loaded.errors] == [
        ("a_broken.yaml", 2),
        ("b_wrong.yaml", 1),
        ("b_wrong.yaml", 3),
        ("b_wrong.yaml", 10),
        ("b_wrong.yaml", 15),
        ("b_wrong.yaml", 16),
    ]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"label: a\n\tsegment: b\n", 2, "this is not valid YAML: "),
        (b"label: a\nlabel b\nsegment: c\n", 3, "this is not valid YAML: "),
        (b"a: 1\n---\nb: 2\n", 2, "this is not valid YAML: "),
        (b"label: \x07\n", 1, "this is not valid YAML: it holds a character that YAML does not allow"),
        (b"a: &a [*a]\n", None, "this is not valid YAML: it is nested too deeply, or refers to itself"),
        (b"label: \xff\xfe\n", None, "the file is not UTF-8 text"),
        (b"", 1, "the file is empty; see docs/audiences.md for a complete one"),
        (b"# later\n", 1, "the file is empty; see docs/audiences.md for a complete one"),
        (b"- a\n- b\n", 1, "the file does not hold keys with values; see docs/audiences.md for a complete one"),
        (b"params: {d: 2026-13-45}\n", None, "this is not valid YAML: month must be in 1..12"),
    ],
)
def test_an_unreadable_file_is_told_with_its_line(folder: Path, content: bytes, line: int | None, message: str) -> None:
    (folder / "odd.yaml").write_bytes(content)
    loaded = load_audiences(folder)
    assert loaded.audiences == {}
    assert [(found, text[: len(message)]) for found, text in said(loaded)] == [(line, message)]


def test_a_file_name_that_cannot_be_a_table_is_refused(folder: Path) -> None:
    loaded = load(folder, GOOD, "Big-Carts")
    assert said(loaded) == [
        (
            1,
            "the file name 'Big-Carts' becomes a table and a DAG: small letters, digits and underscores, "
            "a letter first, at most 50 of them",
        )
    ]


def test_two_audiences_with_one_label_would_share_a_list(folder: Path) -> None:
    (folder / "a.yaml").write_text(GOOD, encoding="utf-8")
    loaded = load(folder, GOOD.replace("Big carts", "BIG CARTS"), "b")
    assert list(loaded.audiences) == ["a"]
    assert said(loaded) == [(1, "label: 'BIG CARTS' is the label of the audience 'a' too; they would share one list")]


def test_two_files_for_one_audience_are_refused(folder: Path) -> None:
    (folder / "big_carts.yml").write_text(GOOD.replace("Big carts", "Other"), encoding="utf-8")
    loaded = load(folder, GOOD)
    assert loaded.audiences["big_carts"].label == "Big carts"
    assert [Path(error.path).name for error in loaded.errors] == ["big_carts.yml"]


def test_merge_keys_and_anchors_are_welcome(folder: Path) -> None:
    text = GOOD.replace("guard: {max_add: 200%", "guard: {<<: {min_size: 5}, max_add: 200%").replace(
        ", min_size: 0", ""
    )
    assert load(folder, text).audience("big_carts").guard.min_size == 5


def test_asking_for_a_broken_or_unknown_audience_says_why(folder: Path) -> None:
    loaded = load(folder, GOOD.replace("owner:", "ownr:"), "broken")
    with pytest.raises(ConfigurationError, match=r"broken.yaml:3: there is no key 'ownr'"):
        loaded.audience("broken")
    loaded = load(folder, GOOD, "big_carts")
    with pytest.raises(ConfigurationError, match=r"there is no audience 'big_cart'\. Did you mean 'big_carts'"):
        loaded.audience("big_cart")


def test_a_target_that_does_not_exist_is_told(folder: Path) -> None:
    audience = load(folder, GOOD).audience("big_carts")
    with pytest.raises(ConfigurationError, match=r"no destination 'mailchim'\. Did you mean 'mailchimp'"):
        audience.target("mailchim")


def test_a_values_place_in_the_file_is_kept_for_later_checks(folder: Path) -> None:
    audience = load(folder, GOOD).audience("big_carts")
    check_columns(audience, ["profile_id", "entered_at", "cart_url"])
    with pytest.raises(AudienceFileError) as caught:
        check_columns(audience, ["profile_id", "entered_at", "cart_uri"])
    assert caught.value.line == 15
    assert str(caught.value).endswith("fields.CART_URL: the segment has no column 'cart_url'. Did you mean 'cart_uri'?")


MINIMAL = """\
label: L
description: D
owner: o
segment: own
destinations: [{to: mailchimp, audience: N, fields: {A: city}}]
"""


def test_columns_are_followed_through_a_star(own_sql: Path, folder: Path) -> None:
    (own_sql / "own.sql").write_text(
        "with people as (select profile_id, last_seen_at as entered_at, country as town from core.profiles)\n"
        "select * from people\n"
    )
    assert said(load(folder, MINIMAL)) == [
        (5, "fields.A: the segment has no column 'city'; known are profile_id, entered_at, town")
    ]


def test_columns_the_text_does_not_tell_wait_for_the_build(own_sql: Path, folder: Path) -> None:
    (own_sql / "own.sql").write_text("select * from core.profiles\n")
    assert list(load(folder, MINIMAL).audiences) == ["big_carts"]


def test_a_broken_segment_stops_its_audience_alone(own_sql: Path, folder: Path) -> None:
    (own_sql / "own.sql").write_text("select profile_id, entered_at\nfrom where\n")
    (own_sql / "fine.sql").write_text("select profile_id, entered_at, city from core.profiles\n")
    (folder / "fine.yaml").write_text(MINIMAL.replace("label: L", "label: M").replace("own\n", "fine\n"))
    loaded = load(folder, MINIMAL)
    assert list(loaded.audiences) == ["fine"]
    assert [(error.line, "own.sql:2" in str(error)) for error in loaded.errors] == [(4, True)]


def test_a_segment_without_entered_at_is_refused(own_sql: Path, folder: Path) -> None:
    (own_sql / "own.sql").write_text("select profile_id, city from core.profiles\n")
    assert [text.rsplit(": ", 1)[1] for _, text in said(load(folder, MINIMAL))] == ["a segment must select entered_at"]


def test_stages_need_sql_that_knows_them(own_sql: Path, folder: Path) -> None:
    (own_sql / "own.sql").write_text("select profile_id, entered_at, city from core.profiles\n")
    assert said(load(folder, MINIMAL + "stages: {first: 1h}\n")) == [
        (6, "stages: own.sql has no stages; it would have to call stage_of(<time>)")
    ]


def test_a_list_parameter_must_be_a_list(own_sql: Path, folder: Path) -> None:
    (own_sql / "own.sql").write_text(
        "select profile_id, entered_at, city from core.profiles where country in (:countries) and name <> :name\n"
    )
    loaded = load(folder, MINIMAL + "params: {countries: CH, name: 5th Avenue}\n")
    assert said(loaded) == [(6, "params.countries: own.sql wants a list; write it as [CH]")]
    loaded = load(folder, MINIMAL + "params: {countries: [CH, DE], name: 5th Avenue}\n")
    assert loaded.audience("big_carts").params == {"countries": ["CH", "DE"], "name": "5th Avenue"}


def test_a_window_may_be_long_where_no_cart_is_read(own_sql: Path, folder: Path) -> None:
    sql = "select profile_id, entered_at, city from core.{} where entered_at >= :as_of - :window\n"
    (own_sql / "own.sql").write_text(sql.format("profiles"))
    assert said(load(folder, MINIMAL + "params: {window: 60d}\n")) == []
    (own_sql / "own.sql").write_text(sql.format("carts"))
    assert [line for line, _ in said(load(folder, MINIMAL + "params: {window: 60d}\n"))] == [6]


def test_the_window_follows_the_lifetime_of_carts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKINDLE_CART_LIFETIME", "P14D")
    get_settings.cache_clear()
    try:
        assert said(load(folder, GOOD.replace("window: 3d", "window: 14d"))) == []
        assert [line for line, _ in said(load(folder, GOOD.replace("window: 3d", "window: 15d")))] == [5]
    finally:
        get_settings.cache_clear()


def test_the_shipped_audiences_are_without_fault() -> None:
    loaded = load_audiences()
    assert [str(error) for error in loaded.errors] == []
    assert {name: [target.to for target in audience.destinations] for name, audience in loaded.audiences.items()} == {
        "cart_abandoners": ["mailchimp", "google_ads"],
        "lapsed_subscribers": ["mailchimp", "google_ads"],
        "non_converting_visitors": ["google_ads"],
    }
    assert {audience.exclusive for audience in loaded.audiences.values()} == {None}
    assert {audience.holdout for audience in loaded.audiences.values()} == {0.05}


def test_shared_modules_beside_the_destinations_are_none() -> None:
    found = known_destinations()
    assert {"mailchimp", "google_ads"} <= set(found)
    assert not {"base", "http", "__init__"} & set(found)


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from include.audiences.load import load_audiences\n"
        "assert load_audiences().audiences\n"
        "heavy = {'duckdb', 'pandas', 'pyarrow', 'dlt', 'great_expectations', 'google.ads', 'airflow'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
