from __future__ import annotations

import subprocess
import sys

import pytest

from include.sources.country import country_code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("DE", "DE"),
        (" de ", "DE"),
        ("Germany", "DE"),
        ("DEUTSCHLAND", "DE"),
        ("Allemagne", "DE"),
        ("United States", "US"),
        ("USA", "US"),
        ("United Kingdom", "GB"),
        ("UK", "GB"),
        ("XX", None),
        ("Mars", None),
        ("", None),
        (None, None),
    ],
)
def test_names_in_any_language_become_codes(text: str | None, code: str | None) -> None:
    assert country_code(text) == code


def test_country_names_do_not_load_the_map_of_every_area_code() -> None:
    script = (
        "import sys; from include.sources.country import country_code; country_code('Germany');"
        "sys.exit('phonenumbers.geodata' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": "."}).returncode == 0
