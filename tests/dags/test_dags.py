"""The DAG files: they load, say what they are, import nothing heavy, and are chained by assets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.destinations.base import destination_class

ROOT = Path(__file__).resolve().parents[2]
DAG_FILES = sorted(path.name for path in (ROOT / "dags").glob("*.py"))
HEAVY = ["pandas", "dlt", "great_expectations", "duckdb", "google.ads", "facebook_business", "pyarrow"]


@pytest.fixture(scope="session")
def dags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every DAG of the project by id, parsed as Airflow does."""
    os.environ["AIRFLOW_HOME"] = str(tmp_path_factory.mktemp("airflow"))
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(ROOT / "dags"))
    assert bag.import_errors == {}
    return dict(bag.dags)


def test_the_stages_are_there(dags: dict[str, Any]) -> None:
    assert set(dags) == {
        "ingest_ga4_export",
        "ingest_hubspot",
        "ingest_files",
        "build_audiences",
        "approve_plans",
        "compact_ledger",
        "confirm_requests",
        "honour_privacy",
        "sync_cart_abandoners",
        "sync_lapsed_subscribers",
        "sync_non_converting_visitors",
    }


def test_every_dag_says_what_it_is_and_who_owns_it(dags: dict[str, Any]) -> None:
    for dag_id, dag in dags.items():
        assert len(dag.doc_md or "") > 200, dag_id
        assert "If it fails" in dag.doc_md, dag_id
        assert {tag.split("/")[0] for tag in dag.tags} == {"stage", "impact"}, dag_id
        is_started_by_another = dag_id == "approve_plans"
        assert (type(dag.timetable).__name__ == "NullTimetable") is is_started_by_another, dag_id
        assert not dag.catchup, dag_id
        assert (dag.max_active_runs == 1) is not is_started_by_another, dag_id
        for task in dag.tasks:
            assert task.owner != "airflow", f"{dag_id}.{task.task_id}"
            assert task.retries >= 1, f"{dag_id}.{task.task_id}"


def test_a_final_error_is_not_retried_and_a_wait_is_kept() -> None:
    from include.errors import AuthenticationError, TransientError
    from include.scheduling import RekindleRetryPolicy

    policy = RekindleRetryPolicy()
    refused = policy.evaluate(AuthenticationError("the key is wrong"), 1, 3)
    told_to_wait = policy.evaluate(TransientError("busy", retry_after=42), 1, 3)
    unknown = policy.evaluate(ValueError("a bug"), 1, 3)
    assert (refused.action.value, refused.reason) == ("fail", "the key is wrong")
    assert told_to_wait.action.value == "retry"
    assert told_to_wait.retry_delay is not None
    assert told_to_wait.retry_delay.total_seconds() == 42
    assert unknown.action.value == "default"


def test_a_used_up_quota_is_waited_for_until_it_is_given_back() -> None:
    from include.errors import QuotaExhausted
    from include.scheduling import RekindleRetryPolicy

    resets_at = datetime.now(UTC) + timedelta(hours=3)
    decision = RekindleRetryPolicy().evaluate(QuotaExhausted("used up", resets_at=resets_at), 1, 3)
    assert decision.action.value == "retry"
    assert decision.retry_delay is not None
    assert timedelta(hours=3) <= decision.retry_delay <= timedelta(hours=3, minutes=1)


def test_tasks_run_in_the_order_the_sql_asks_for(dags: dict[str, Any]) -> None:
    from include.warehouse.models import load_models

    build = dags["build_audiences"]
    models = load_models()
    for name, model in models.items():
        schema, table = name.split(".")
        if schema not in {"staging", "core"}:
            continue
        upstream = build.get_task(f"{schema}.{table}").upstream_task_ids
        for needed in model.depends_on:
            if needed in models and needed.split(".")[0] in {"staging", "core"}:  # the build itself writes the others
                assert needed in upstream, f"{name} reads {needed}"


def test_an_audience_is_synced_only_behind_its_own_gate(dags: dict[str, Any]) -> None:
    build = dags["build_audiences"]
    for audience in ("cart_abandoners", "lapsed_subscribers", "non_converting_visitors"):
        gate = build.get_task(f"{audience}.gate")
        assert gate.upstream_task_ids == {f"{audience}.segment_rows"}
        assert [asset.name for asset in gate.outlets] == [f"audience.{audience}"]
        failed = build.get_task(f"{audience}.failed_gate")
        assert (failed.upstream_task_ids, failed.trigger_rule) == ({f"{audience}.gate"}, "all_failed")
        assert [asset.name for asset in failed.outlets] == [f"audience.{audience}"]
        assert f"{audience}.gate" in build.get_task("gates_passed").upstream_task_ids
        condition = dags[f"sync_{audience}"].timetable.asset_condition
        assert [asset.name for asset in condition.objects] == [f"audience.{audience}"]


def test_the_build_waits_for_every_source(dags: dict[str, Any]) -> None:
    condition = dags["build_audiences"].timetable.asset_condition
    waited_for = {asset.name for asset in condition.objects}
    announced = {
        asset.name
        for dag_id, dag in dags.items()
        if dag_id.startswith("ingest_")
        for task in dag.tasks
        for asset in task.outlets
    }
    assert waited_for == announced == {"source.ga4_export", "source.hubspot", "source.files"}


def test_each_destination_is_a_branch_of_its_own(dags: dict[str, Any]) -> None:
    sync = dags["sync_cart_abandoners"]
    assert {task.task_id for task in sync.tasks} == {
        "mailchimp.opt_outs",
        "mailchimp.plan",
        "mailchimp.ask",
        "mailchimp.push",
        "mailchimp.confirm",
        "mailchimp.audit",
        "google_ads.plan",
        "google_ads.ask",
        "google_ads.push",
        "google_ads.confirm",
        "google_ads.audit",
    }
    assert sync.get_task("mailchimp.push").upstream_task_ids == {"mailchimp.plan"}
    assert sync.get_task("mailchimp.push").pool == "mailchimp"
    assert sync.get_task("mailchimp.push").pool_slots == destination_class("mailchimp").connections


def test_a_question_ends_by_itself(dags: dict[str, Any]) -> None:
    question = dags["approve_plans"].get_task("question")
    assert question.response_timeout.total_seconds() == 24 * 3600
    answer = question.execute_complete({}, {"error": "no answer", "error_type": "timeout"})
    assert answer["chosen_options"] == []


def test_no_erasure_waits_for_a_tool_that_cannot_be_read(dags: dict[str, Any]) -> None:
    honour = dags["honour_privacy"]
    assert {task.task_id: task.upstream_task_ids for task in honour.tasks} == {
        "opt_outs.mailchimp": set(),
        "erasures": set(),
        "leftover_lists": set(),
    }


def test_who_answers_later_is_asked_by_a_dag_that_no_audience_waits_for(dags: dict[str, Any]) -> None:
    confirm = dags["sync_cart_abandoners"].get_task("google_ads.confirm")
    assert confirm.timeout <= 3600
    assert [task.task_id for task in dags["confirm_requests"].tasks] == ["google_ads"]


@pytest.mark.parametrize("file", DAG_FILES)
def test_reading_a_dag_file_imports_nothing_heavy(file: str, tmp_path: Path) -> None:
    code = (
        "import json, runpy, sys\n"
        f"runpy.run_path({str(ROOT / 'dags' / file)!r})\n"
        f"print('loaded', json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    last = [line for line in done.stdout.splitlines() if line.startswith("loaded ")][-1]
    assert json.loads(last.removeprefix("loaded ")) == []


def test_a_broken_audience_file_leaves_the_others_alone(tmp_path: Path) -> None:
    shipped = ROOT / "include" / "audiences" / "definitions"
    for path in shipped.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    broken = (shipped / "cart_abandoners.yaml").read_text().replace("idle_for", "idel_for")
    (tmp_path / "cart_abandoners.yaml").write_text(broken)
    code = (
        "import runpy\n"
        "from airflow.sdk.definitions.dag import DAG\n"
        f"runpy.run_path({str(ROOT / 'dags' / 'sync_audiences.py')!r})\n"
        "from include.audiences.load import load_audiences\n"
        "loaded = load_audiences()\n"
        "print('ok', sorted(loaded.audiences), [str(error) for error in loaded.errors])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "REKINDLE_AUDIENCES_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "['lapsed_subscribers', 'non_converting_visitors']" in done.stdout
    assert "cart_abandoners.yaml:" in done.stdout
    assert "idle_for" in done.stdout
