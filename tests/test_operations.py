"""docs/operations.md quotes the logs: every quoted sentence must be one that the code can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from include import errors

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text()
# Where a target can be stopped; errors of the builds and the sources are told by their own pages.
PLACES = [
    *(ROOT / "include" / name for name in ("sync", "privacy", "destinations", "quality")),
    *(ROOT / "include" / name for name in ("connections.py", "pacing.py", "audiences/eligibility.py")),
]
# A platform without a feature, and a batch that is split, stop nothing.
STOPPING = {
    name
    for name, found in vars(errors).items()
    if isinstance(found, type)
    and issubclass(found, errors.RekindleError)
    and found not in (errors.NotSupported, errors.BatchRefused)
}
AIRFLOW_SAYS = {"Dag approve_plans is paused"}  # providers.standard, TriggerDagRunOperator


def quotes() -> list[str]:
    """Quoted lines, headings in quotes and sentences in backticks, cut where a name or number stands."""
    found = re.findall(r"^> (.+)$", PAGE, re.M)
    found += re.findall(r'"([^"]+)"', "\n".join(re.findall(r"^### .*$", PAGE, re.M)))
    found += [text for text in re.findall(r"`([^`]+)`", PAGE) if " " in text and re.match(r"[A-Za-z(]+ [a-z]", text)]
    texts = (piece.strip(" .;:") for quote in found for piece in quote.split("..."))
    return sorted({text for text in texts if " " in text and not text.startswith(("select ", "make ", "guard:"))})


@cache
def sayings() -> str:
    """Every text of the code, with `{}` and `%s` cut out, one a line."""
    texts = []
    for path in (ROOT / "include").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(str(one.value) if isinstance(one, ast.Constant) else "\0" for one in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


@pytest.mark.parametrize("quote", quotes())
def test_the_code_can_say(quote: str) -> None:
    assert quote in AIRFLOW_SAYS or quote in sayings()


def stops() -> list[tuple[str, str]]:
    """Every error of ours that can stop a target: where it is made, and its texts with `{}` cut out."""
    found = []
    paths = [path for place in PLACES for path in ([place] if place.suffix else sorted(place.rglob("*.py")))]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in STOPPING:
                texts = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
                said = "\0".join(text for text in texts if isinstance(text, str))
                if any(piece.count(" ") >= 2 for piece in said.split("\0")):  # else it is another error's words
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno} {node.func.id}", said))
    return found


def is_quoted(said: str, chapters: Sequence[str]) -> bool:
    """Whether a quote names this text and no other: three words of it at least."""
    return any(quote in said for quote in chapters if quote.count(" ") >= 2)


def test_each_way_to_stop_has_its_chapter() -> None:
    """A new error in these places fails here until docs/operations.md quotes it and says what to do."""
    chapters = quotes()
    assert [f"{where}: {said}" for where, said in stops() if not is_quoted(said, chapters)] == []


def test_an_error_without_a_chapter_is_found() -> None:
    assert len(stops()) > 40
    assert {"AudienceRejected", "AuthenticationError", "QuotaExhausted", "PlanOutdated"} <= STOPPING
    assert not is_quoted("the moon is in the way of \0", quotes())


def test_the_quotes_are_found_at_all() -> None:
    assert len(quotes()) > 25
