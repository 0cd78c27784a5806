"""The benchmark of the sync at a small size, ours only: nothing is timed, but the list must be what it has to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks.sync.cases import Case, Table
from tests.benchmarks.sync.contenders import PEERS, Died, Run, environment, running
from tests.benchmarks.sync.people import Day, truth
from tests.benchmarks.sync.report import aims, is_true, remarks, show


def test_our_list_is_exact_with_the_fewest_calls(tmp_path: Path) -> None:
    with running() as server:
        table = Table(tmp_path, server, tmp_path / "peers", people=1_200, history=0, with_peers=False)
        first, changed = table.prepare().first_and_changed(None)
    assert [case.runs["ours"].failure for case in (first, changed)] == ["", ""]
    assert is_true(first, "ours")
    assert is_true(changed, "ours")
    assert [aim.is_met for case in (first, changed) for aim in aims(case)] == [True, True]
    assert (first.runs["ours"].delivered, changed.runs["ours"].delivered) == (1_200, 12)


def test_the_days_count_who_changes_and_who_goes() -> None:
    first, later = Day(2_000), Day(2_000, 1)
    assert (first.members, later.members) == (2_000, 1_998)
    assert (later.changed, later.leavers) == (20, 2)
    assert truth(later)["tagged"] == 1_998
    assert truth(first)["digest"] != truth(later)["digest"]


def _case(name: str, calls: int = 200, **runs: tuple[float, int]) -> Case:
    """A case with 200 batches; each run is its seconds and the rows it believes delivered."""
    case = Case(name, 100_000, truth={"tagged": 99_900, "digest": "a"}, fewest_calls=calls)
    told = {"calls": calls + 5, "rows": 100_000, "refused": 100, "tagged": 99_900, "digest": "a"}
    for who, (seconds, delivered) in runs.items():
        case.runs[who] = Run(seconds, seconds, 10, 300, delivered, server=told)
    return case


@pytest.mark.parametrize(("ours", "verdict"), [(2.0, True), (2.4, False)])
def test_a_first_load_is_held_against_dlt(ours: float, verdict: bool) -> None:
    found = aims(_case("first load", ours=(ours, 99_900), dlt=(3.0, 100_000)))
    assert [aim.is_met for aim in found] == [verdict, True]


def test_who_counts_refused_rows_as_delivered_is_named() -> None:
    said = remarks(_case("refused", ours=(1, 99_900), dlt=(1, 100_000)))
    assert said == [
        "refused: of 100 refused rows ours counts none of them as delivered",
        "refused: of 100 refused rows dlt counts 100 as delivered",
    ]


def test_a_list_that_is_wrong_is_said_and_a_peer_that_cannot_be_had_is_a_row() -> None:
    case = _case("first load", ours=(1, 99_900))
    case.runs["ours"].server["digest"] = "b"
    assert not is_true(case, "ours")
    assert "ours's list is NOT what it has to be" in remarks(case)[0]
    case.runs["drt"] = Run(failure="could not be installed")
    console = Console(record=True, quiet=True, width=200)
    show(console, "title", [case])


def test_an_environment_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "dlt", ("dlt==0.0.0.0.1",))
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(Died, match="could not be installed"):
        environment("dlt", tmp_path)
