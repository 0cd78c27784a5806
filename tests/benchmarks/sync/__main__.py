"""`make bench-sync`: one list in one Mailchimp-like server, kept by us, by a dlt custom destination and by drt.

One table. Every ratio in it is of two measurements of the same run.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from include.settings import ROOT
from tests.benchmarks.sync.cases import Table
from tests.benchmarks.sync.contenders import running
from tests.benchmarks.sync.report import is_true, show

out = Console()
err = Console(stderr=True)
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kKmM]?)")


def _count(text: str) -> int:
    """100000, 100k or 1M."""
    found = _COUNT.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"'{text}' is no number of people; write 100000, 100k or 1M")
    return int(float(found[1]) * {"": 1, "k": 1_000, "m": 1_000_000}[found[2].lower()])


def main(
    people: Annotated[str, typer.Option(help="people of the first load: 100k, ...")] = "100k",
    history: Annotated[str, typer.Option(help="members of whom nothing has changed: 1M, ...")] = "1M",
    peers: Annotated[bool, typer.Option(help="dlt and drt too")] = True,
) -> None:
    """Fill, sync, look at the server, compare."""
    (ROOT / "build").mkdir(exist_ok=True)
    with TemporaryDirectory(dir=ROOT / "build", prefix="bench-") as folder, running() as server:
        table = Table(
            folder=Path(folder),
            server=server,
            environments=ROOT / "build" / "peers",
            people=_count(people),
            history=_count(history),
            with_peers=peers,
            say=lambda text: err.print(f"{text} ...", highlight=False),
        )
        cases = table.measure()
    show(out, f"{table.people:,} people, {table.history:,} members of whom nothing has changed", cases)
    if not all(is_true(case, who) for case in cases for who in case.runs if who.startswith("ours")):
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
