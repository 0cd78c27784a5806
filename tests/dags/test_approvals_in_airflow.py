"""A stopped plan in a real Airflow: asked about in a DAG of its own, and sent when a human says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from include.sandbox.datasets import Dataset, connections
from tests.include.destinations.running_sandbox import running_sandbox
from tests.include.sync.target_world import AS_OF

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("flow")
    (folder / "audiences").mkdir()
    with running_sandbox() as sandbox:
        sandbox.control("mailchimp", {"lists": [{"id": "a1b2c3d4e5", "name": "Newsletter"}]})
        found = connections(Dataset("flow", folder, AS_OF), sandbox.url)
        done = subprocess.run(
            [sys.executable, "-m", "tests.dags.approval_flow"],
            cwd=ROOT,
            env=os.environ
            | {f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(one) for conn_id, one in found.items()}
            | {
                "FLOW_FOLDER": str(folder),
                "AIRFLOW_HOME": str(folder / "airflow"),
                "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
                "REKINDLE_AUDIENCES_DIR": str(folder / "audiences"),
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return dict(json.loads(next(line for line in done.stdout.splitlines() if line.startswith("seen "))[5:]))


def test_a_first_load_asks_nobody(seen: dict[str, Any]) -> None:
    assert seen["first load"] == {"on the list": 3, "asked": []}


def test_a_stopped_plan_is_asked_about_and_the_other_target_goes_on(seen: dict[str, Any]) -> None:
    stopped = seen["stopped"]
    assert (stopped["on the list"], stopped["asked"], stopped["tasks"]["mailchimp.ask"]) == (3, [True], "success")
    assert (stopped["elsewhere"], stopped["tasks"]["google_ads.ask"]) == (1, "skipped")
    assert set(stopped["tasks"].values()) == {"success", "skipped"}


def test_an_approved_plan_is_sent_to_its_own_target(seen: dict[str, Any]) -> None:
    approved = seen["approved"]
    assert approved["asking"] == {"question": "success", "answer": "success", "send": "success"}
    assert approved["on the list"] == 9
    assert (approved["tasks"]["mailchimp.push"], approved["tasks"]["google_ads.push"]) == ("success", "skipped")


def test_a_dry_run_sends_nothing(seen: dict[str, Any]) -> None:
    assert seen["dry run"]["on the list"] == 9


def test_a_rejected_plan_is_not_sent_and_not_asked_about_again(seen: dict[str, Any]) -> None:
    rejected = seen["rejected"]
    assert rejected["asking"] == {"question": "success", "answer": "success", "send": "skipped"}
    assert (rejected["tasks"]["mailchimp.ask"], rejected["on the list"]) == ("skipped", 9)


def test_a_plan_within_the_new_bound_is_sent_in_the_place_of_one_beyond_it(seen: dict[str, Any]) -> None:
    bound = seen["new bound"]
    assert bound["asking"] == {"question": "success", "answer": "success", "send": "success"}
    assert (bound["tasks"]["mailchimp.push"], bound["on the list"]) == ("success", 17)


def test_every_word_is_kept(seen: dict[str, Any]) -> None:
    assert seen["decisions"] == ["asked", "approved", "asked", "rejected", "asked", "new_bound"]


def test_only_the_approvers_of_the_file_may_answer(seen: dict[str, Any]) -> None:
    assert seen["refused"] == [403, 403, 403]
