"""`python -m include.audiences`."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.audiences.__main__ import main
from include.settings import get_settings


def test_it_names_the_audiences_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert "ok  cart_abandoners: Cart abandoners > mailchimp, google_ads\n" in capsys.readouterr().out


def test_it_tells_errors_and_ends_badly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.yaml").write_text("label: [\n")
    monkeypatch.setenv("REKINDLE_AUDIENCES_DIR", str(tmp_path))
    get_settings.cache_clear()
    try:
        assert main() == 1
    finally:
        get_settings.cache_clear()
    assert "odd.yaml:2: this is not valid YAML" in capsys.readouterr().out
