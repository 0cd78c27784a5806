"""Statements that are finished: what an earlier process made of a model's text is read again instead of made again.

Reading and translating all models takes two seconds, which is longer than an hour's new rows take; their texts change
only when somebody edits them. So every finished text is kept in a file of its own, under a name that stands for all it
was made from. The folder can be deleted at any time; where it cannot be written, texts are made anew.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from include.settings import ROOT, get_settings

log = logging.getLogger(__name__)

# What makes finished texts of models, steps and statements: with sqlglot's version these say which are still true.
_MADE_BY = (
    "include/audiences/eligibility.py",
    "include/audiences/workbench.py",
    "include/identity/sql.py",
    "include/sync/payload.py",
    *(
        f"include/warehouse/{name}.py"
        for name in ("dialects", "engine", "finished", "house", "render", "slices", "touched")
    ),
)

_REMEMBERED = 2048
_texts: dict[str, str] = {}


def finished(made_from: tuple[object, ...], make: Callable[[], str]) -> str:
    """The text that `make` makes from these things, and from nothing else; made once."""
    name = uuid.uuid5(uuid.NAMESPACE_OID, repr(made_from)).hex
    if name not in _texts:
        if len(_texts) >= _REMEMBERED:
            _texts.clear()
        _texts[name] = _kept(name, make)
    return _texts[name]


def _kept(name: str, make: Callable[[], str]) -> str:
    path = _folder(get_settings().cache_dir) / f"{name}.sql"
    try:
        return path.read_bytes().decode()
    except OSError:
        text = make()
    try:
        aside = path.with_suffix(f".{uuid.uuid4().hex}")
        aside.write_bytes(text.encode())
        aside.replace(path)
    except OSError as error:
        log.debug("a finished statement was not kept: %s", error)
    return text


@lru_cache
def _folder(root: Path) -> Path:
    """The folder of what this version of the code makes; those of other versions are deleted when it is new."""
    code = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in _MADE_BY)
    folder = root / "statements" / uuid.uuid5(uuid.NAMESPACE_OID, f"{version('sqlglot')}\n{code}").hex
    if not folder.is_dir():
        try:
            for other in folder.parent.glob("*"):
                shutil.rmtree(other, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            os.chmod(folder, 0o700)
        except OSError as error:
            log.debug("finished statements are not kept: %s", error)
    return folder
