"""The quality gate: what a segment must be before anyone plans from it. These run the real Great Expectations."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta

import pytest

from include.errors import ConfigurationError, QualityGateFailed
from include.quality.gate import check_segment
from tests.include.sync.target_world import AS_OF, World, world

__all__ = ["world"]


def results(world: World) -> list[tuple[bool, int, str]]:
    rows = world.warehouse.read("select is_passed, matched, failures from sync.gate_results order by checked_at")
    return [(row["is_passed"], row["matched"], row["failures"]) for row in rows]


def failures(world: World) -> str:
    with pytest.raises(QualityGateFailed) as stopped:
        check_segment(world.warehouse, "carts", AS_OF, "build-1")
    passed, _, text = results(world)[-1]
    assert not passed
    assert all(sentence in str(stopped.value) for sentence in text.splitlines())
    return text


@pytest.mark.on_spark
def test_a_sound_segment_passes_and_says_its_size(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.person("bob", email="bob@x.com", entered_at=AS_OF)  # since this very moment

    assert check_segment(world.warehouse, "carts", AS_OF, "build-1") == 2
    assert results(world) == [(True, 2, "")]


def test_an_empty_segment_passes_while_it_never_held_anybody(world: World) -> None:
    assert check_segment(world.warehouse, "carts", AS_OF, "build-1") == 0


def test_a_profile_twice_fails(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.match("ana")

    assert failures(world) == "2 rows share their profile_id"


def test_pyspark_is_not_imported_for_a_check(world: World) -> None:
    world.person("ana", email="ana@x.com")
    check_segment(world.warehouse, "carts", AS_OF, "build-1")
    assert not [name for name in sys.modules if name.split(".")[0] == "pyspark"]


def test_a_row_without_profile_fails(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.execute("insert into segments.carts (entered_at) values (timestamp '2026-03-10 10:00')")

    assert failures(world) == "1 rows have no profile_id"


def test_a_row_without_time_fails(world: World) -> None:
    world.person("ana", email="ana@x.com", entered_at=None)

    assert failures(world) == "1 rows have no time (entered_at)"


def test_a_time_after_the_run_fails(world: World) -> None:
    world.person("ana", email="ana@x.com", entered_at=AS_OF + timedelta(seconds=1))

    assert failures(world) == "1 rows match only after the time of the run (entered_at)"


def test_a_profile_that_nobody_knows_fails(world: World) -> None:
    world.match("ghost")

    assert failures(world) == "1 profiles are not in core.profiles"


def test_a_suppression_nobody_can_read_fails(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.insert("core.suppressions", {"profile_id": "ana", "channel": "email", "reason": None})

    assert "1 suppressions of people in it name no reason or no channel" in failures(world)


def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    world.match("ghost", entered_at=None)

    assert failures(world).splitlines() == [
        "1 rows have no time (entered_at)",
        "1 profiles are not in core.profiles",
    ]


def test_a_segment_that_emptied_fails_until_it_may_be_empty(world: World) -> None:
    world.person("ana", email="ana@x.com")
    check_segment(world.warehouse, "carts", AS_OF, "build-1")
    world.execute("delete from segments.carts")
    for _ in range(2):  # a failed build is no new yardstick
        assert "the segment is empty and had 1 rows at its last good build" in failures(world)

    world.policy("guard: {min_size: 0}")
    assert check_segment(world.warehouse, "carts", AS_OF, "build-2") == 0


def test_a_segment_that_is_not_built_is_an_error_in_words(world: World) -> None:
    world.execute("drop table segments.carts")

    with pytest.raises(ConfigurationError, match=r"segments\.carts is not built yet"):
        check_segment(world.warehouse, "carts", AS_OF, "build-1")


def test_the_log_has_no_progress_bar_and_no_person(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    world.match("ghost")
    failures(world)

    assert "1 of its checks failed" in caplog.text
    assert "ghost" not in caplog.text
    assert "Calculating Metrics" not in capfd.readouterr().err


def test_a_check_that_cannot_run_is_no_pass(world: World) -> None:
    world.person("ana", email="ana@x.com")
    world.execute("drop table core.suppressions")

    with pytest.raises(ConfigurationError, match="a check of the quality gate could not be run"):
        check_segment(world.warehouse, "carts", AS_OF, "build-1")
    assert results(world) == []
