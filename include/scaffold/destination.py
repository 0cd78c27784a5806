"""A new destination as files to fill in: the module, its sandbox side, its tests, and its part of the docs.

What is written imports and passes the linters, and the contract suite fails at each place that is still to be filled
in, with the name of the place. Nothing that is there already is ever overwritten.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from include.errors import ConfigurationError

TO_FILL_IN = "to fill in"
LONGEST_NAME = 24
TEMPLATES = Path(__file__).parent / "templates"
FILES = {
    "destination.py.txt": "include/destinations/{name}.py",
    "sandbox.py.txt": "include/sandbox/{name}.py",
    "side.py.txt": "tests/include/destinations/sides/{name}.py",
    "test.py.txt": "tests/include/destinations/test_{name}.py",
}
DOCS = "docs/destinations.md"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LAST_ROW = re.compile(r"(\| `[a-z0-9_]+` \|[^\n]*\n)(?!\| `)")
_NEXT_SECTION = "## What happens to an answer"


@dataclass(frozen=True)
class Written:
    """What was written; `places` are `file:line: text` of all that is to be filled in."""

    files: list[str]
    places: list[str]


def new_destination(name: str, root: Path) -> Written:
    """Write a destination's files into the checkout at `root`; ConfigurationError where the name cannot be used."""
    check_name(name, root)
    words = {"name": name, "cls": "".join(part.capitalize() for part in name.split("_")), "label": _label(name)}
    docs = root / DOCS
    pages = docs.read_text(encoding="utf-8")
    if _NEXT_SECTION not in pages or not _LAST_ROW.search(pages):
        raise ConfigurationError(f"{DOCS} has no table of destinations or no section '{_NEXT_SECTION}' to write before")
    texts = {path.format(name=name): _filled(template, words) for template, path in FILES.items()}
    for path, text in texts.items():
        (root / path).write_text(text, encoding="utf-8")
    row = f"| `{name}` | {TO_FILL_IN} | {TO_FILL_IN} | {TO_FILL_IN} | {TO_FILL_IN} | {TO_FILL_IN} |\n"
    pages = _LAST_ROW.sub(lambda found: found[1] + row, pages, count=1)
    docs.write_text(
        pages.replace(_NEXT_SECTION, f"{_filled('docs.md.txt', words)}\n{_NEXT_SECTION}", 1), encoding="utf-8"
    )
    files = [*texts, DOCS]
    return Written(files, [place for path in files for place in _places(root, path)])


def check_name(name: str, root: Path) -> None:
    """Refuse a name that cannot be a module, a pool and a connection, or that is taken."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"'{name}' cannot be the name of a destination: small letters and digits, words parted by one "
            "underscore, a letter first, at most 24, like acme_mail"
        )
    paths = [path.format(name=name) for path in FILES.values()]
    taken = [path for path in paths if (root / path).exists()]
    if taken or name in ("base", "http"):
        raise ConfigurationError(f"'{name}' is taken: {', '.join(taken) or 'it is a part of the project'}")


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _filled(template: str, words: dict[str, str]) -> str:
    return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(words)


def _places(root: Path, path: str) -> list[str]:
    lines = (root / path).read_text(encoding="utf-8").splitlines()
    return [f"{path}:{number}: {line.strip()}" for number, line in enumerate(lines, start=1) if TO_FILL_IN in line]
