"""A new destination in a copy of the project: what is written is sound, and the contract asks for what is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from include.errors import ConfigurationError
from include.scaffold.destination import DOCS, FILES, TO_FILL_IN, Written, new_destination
from include.settings import ROOT
from tests.include.scaffold.filled_in import fill_in

NAME = "acme_mail"
CONTRACT = ROOT / "tests" / "include" / "destinations" / "test_contract.py"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    for part in ("include", "sql", "docs", "tests/include/destinations", "tests/include/sync"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", *(f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py"))):
        shutil.copy2(ROOT / part, root / part)
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", root / ".mypy_cache")
    return root


@pytest.fixture(scope="module")
def written(copy: Path) -> Written:
    return new_destination(NAME, copy)


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=root, capture_output=True, text=True, timeout=280, check=False
    )


def test_the_files_pass_the_linters(copy: Path, written: Written) -> None:
    assert written.files == [*(path.format(name=NAME) for path in FILES.values()), DOCS]
    python = [path for path in written.files if path.endswith(".py")]
    longest = "_".join(["abcdefg"] * 3)
    new_destination(longest, copy)
    python += [path.format(name=longest) for path in FILES.values()]
    for command in (("ruff", "format", "--check", *python), ("ruff", "check", *python)):
        done = run(copy, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run(copy, "mypy", "--no-error-summary", *(path for path in python if path.startswith("include/")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_fails_at_every_promise_and_names_what_is_to_be_filled_in(copy: Path, written: Written) -> None:
    done = run(copy, "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "--tb=short", "-k", NAME,
               "tests/include/destinations")  # fmt: skip
    assert "passed" not in done.stdout.splitlines()[-1]
    failed = set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE))
    assert len(failed) > 20
    named = set(re.findall(r"to fill in: (acme_mail[. ]\w+)", done.stdout))
    assert {"acme_mail.ensure_audience", "acme_mail.check", "acme_mail people", "acme_mail requests"} <= named


def test_what_is_filled_in_keeps_every_promise(copy: Path) -> None:
    new_destination("filled_mail", copy)
    fill_in(copy)
    done = run(copy, "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "--tb=short", "-k", "filled_mail",
               "tests/include/destinations/test_contract.py")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    promises = len(re.findall(r"def test_\w+\(.*?\btarget: Target", CONTRACT.read_text(encoding="utf-8"), re.DOTALL))
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) >= promises > 20
    done = run(copy, "mypy", "--no-error-summary", "include/destinations/filled_mail.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_place_is_listed_and_the_docs_have_a_row_and_a_section(copy: Path, written: Written) -> None:
    text = (copy / DOCS).read_text(encoding="utf-8")
    assert re.search(r"\| `google_ads` [^\n]*\n\| `acme_mail` \| to fill in", text)
    assert text.index("## Acme mail") < text.index("## What happens to an answer")
    for path in written.files:
        count = (copy / path).read_text(encoding="utf-8").count(f"{TO_FILL_IN}")
        assert bool(count) == any(place.startswith(f"{path}:") for place in written.places)
    assert len(written.places) > 25


@pytest.mark.parametrize("name", ["Acme", "1mail", "acme-mail", "acme__mail", "../acme", "class", "", "a" * 25])
def test_a_name_that_cannot_be_one_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name"):
        new_destination(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mailchimp", "base", "hubspot"])
def test_what_is_there_is_not_written_over(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is taken"):
        new_destination(name, ROOT)


def test_the_command_says_how_to_call_it() -> None:
    done = run(ROOT, "include.scaffold")
    assert done.returncode == 2
    assert "make new-destination NAME=" in done.stderr
