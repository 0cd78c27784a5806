"""docs/operations.md quotes the logs: every quoted sentence must be one that the code can say."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text()
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


def test_each_way_to_stop_has_its_chapter() -> None:
    wanted = [
        "quality gate failed", "segment is empty", "would come in", "would be removed", "ledger moved", "credential",
        "quota", "Rate limits", "is down", "Rejected rows", "pending for too long", "Nobody answered",
        "unfinished push", "erasure is not verified", "Locked", "audience file is wrong",
    ]  # fmt: skip
    headings = "\n".join(re.findall(r"^### .*$", PAGE, re.M))
    assert [word for word in wanted if word not in headings] == []


def test_the_quotes_are_found_at_all() -> None:
    assert len(quotes()) > 25
