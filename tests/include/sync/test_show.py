"""A stored plan as a person reads it: counts by step and ids, in the log of a dry run and on the command line."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from include.settings import ROOT
from include.sync.plan import plan_target
from include.sync.show import plan_text
from include.warehouse.engine import Warehouse
from tests.include.sync.target_world import World, world

__all__ = ["world"]


def counts(text: str) -> dict[str, str]:
    """The table's lines: what, and how many."""
    found = re.findall(r"^ +(.*?\S) {2,}([\d,]+)(?: |$)", text, re.MULTILINE)
    return dict(found)


def test_a_dry_run_logs_the_counts_of_every_step(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.person("p-ana", email="ana@x.com")
    world.person("p-bob", email="bob@x.com")
    world.sync()
    world.execute("delete from segments.carts where profile_id = 'p-bob'")
    world.person("p-cyd", email="cyd@x.com")
    world.person("p-dan", email="dan@x.com", consent=None)
    world.person("p-eve")

    plan = plan_target(world.warehouse, "carts", "mailchimp", world.as_of, "run", dry_run=True)

    shown = counts(caplog.text)
    assert {name: shown[name] for name in shown if shown[name] != "0"} == {
        "matched the segment": "4",
        "left out: reachable": "1",
        "left out: consent": "1",
        "members": "2",
        "to remove": "1",
        "to add": "1",
        "unchanged": "1",
    }
    assert plan.plan_id in caplog.text
    assert "p-cyd" in caplog.text
    assert "@x.com" not in caplog.text


def test_a_plan_can_be_read_and_sent_from_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"duckdb:///{tmp_path}/test.duckdb"
    monkeypatch.setenv("REKINDLE_AUDIENCES_DIR", str(tmp_path))
    warehouse = Warehouse(url)
    warehouse.ensure_tables()
    small = World(tmp_path, warehouse)
    small.person("p-ana", email="ana@x.com")
    plan = small.plan()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "include.sync", *arguments, "--url", url]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert "p-ana" in run("show-plan", plan.plan_id).stdout
    small.sync()
    refused = run("push-plan", plan.plan_id)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: plan {plan.plan_id} (carts at mailchimp): the ledger moved: 1 answers")
    assert plan_text(warehouse, plan.plan_id)
