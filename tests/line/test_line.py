"""The whole line, small, in a real Airflow: what `make demo` promises, seen from outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.warehouse.engine import Warehouse

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = 1500

pytestmark = [pytest.mark.line, pytest.mark.timeout(900)]


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _demo(home: Path) -> dict[str, Any]:
    environment = os.environ | {"AIRFLOW_PORT": _free_port(), "SANDBOX_PORT": _free_port()}
    command = [sys.executable, "-m", "include.sandbox", "demo", "--people", str(PEOPLE), "--no-wait"]
    done = subprocess.run(
        [*command, "--home", str(home)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return dict(json.loads((home.parent / "demo.json").read_text()))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """A first demo in an empty folder, and a second one on the same data."""
    home = tmp_path_factory.mktemp("line") / "demo"
    return _demo(home), _demo(home)


def test_every_target_delivers_what_it_planned(runs: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, _ = runs
    targets = {(row["audience"], row["destination"]) for row in first["audiences"]}
    assert targets == {
        ("cart_abandoners", "google_ads"),
        ("cart_abandoners", "mailchimp"),
        ("lapsed_subscribers", "google_ads"),
        ("lapsed_subscribers", "mailchimp"),
        ("non_converting_visitors", "google_ads"),
    }
    for row in first["audiences"]:
        assert row["matched"] > row["members"] > 0, row
        assert row["sent"] == row["accepted"] + row["rejected"], row
        assert row["pending"] == 0, row


def test_each_matched_profile_is_a_member_or_has_one_reason_why_not(
    runs: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    reasons = (
        "not_reachable no_consent suppressed capped lost_priority held_out other_excluded".split()  # the waterfall's
    )
    for row in runs[0]["audiences"]:
        assert row["matched"] == row["members"] + sum(row[reason] for reason in reasons), row


def test_the_lists_hold_exactly_the_members_the_warehouse_says(runs: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for result in runs:
        assert result["lists"]
        for target in result["lists"]:
            assert target["only_in_list"] == target["only_in_warehouse"] == 0, target
            assert target["in_both"] > 0, target


def test_a_second_run_on_unchanged_data_writes_to_no_destination(
    runs: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    first, second = runs
    assert first["write_calls"] > 0
    assert second["write_calls"] == 0
    assert [row["members"] for row in second["audiences"]] == [row["members"] for row in first["audiences"]]


def test_broken_rows_are_counted_with_a_reason(runs: tuple[dict[str, Any], dict[str, Any]]) -> None:
    rejected = runs[0]["rejected_rows"]
    assert {"ga4_export", "files"} <= {row["source"] for row in rejected}
    assert all(row["reason"] for row in rejected)


def test_the_numbers_can_be_asked_from_the_warehouse(runs: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, second = runs
    warehouse = Warehouse(second["warehouse"])
    for row in second["audiences"]:
        counted = warehouse.scalar(
            "select count(*) as n from sync.memberships where audience = :audience and destination = :destination",
            audience=row["audience"],
            destination=row["destination"],
        )
        assert counted == row["at_destination"]
