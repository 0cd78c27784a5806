"""The demo's Airflow under load: its API answers 500 while another process writes to its SQLite."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from include.errors import ConfigurationError
from include.sandbox.standalone import Airflow

BUSY = httpx.Response(500, json={"detail": {"reason": "Database error"}})
Answers = Callable[[httpx.Request], httpx.Response]


def airflow(answers: Answers, tmp_path: Path, patience: float = 30) -> Airflow:
    client = httpx.Client(transport=httpx.MockTransport(answers))
    process = subprocess.Popen(["true"])
    process.wait()
    return Airflow(process, tmp_path, "http://airflow", tmp_path / "log", client, patience=patience)


def test_a_run_is_started_once_however_often_the_database_is_busy(tmp_path: Path) -> None:
    calls: list[tuple[str, bytes]] = []
    starts = iter([BUSY, httpx.ReadTimeout("slow"), httpx.Response(409, json={"detail": "it is there"})])

    def answers(request: httpx.Request) -> httpx.Response:
        calls.append((request.method, request.content))
        if request.url.path == "/api/v2/importErrors":
            return httpx.Response(200, json={"import_errors": []})
        if request.url.path == "/api/v2/dags":
            return httpx.Response(200, json={"dags": [{"dag_id": "ingest", "next_dagrun_run_after": None}]})
        if request.method != "POST":
            return httpx.Response(200, json={})
        answer = next(starts)
        if isinstance(answer, Exception):
            raise answer
        return answer

    demo = airflow(answers, tmp_path)
    demo.start(["ingest"], ["ingest"])

    bodies = [body for method, body in calls if method == "POST"]
    assert len(bodies) == 3
    assert set(bodies) == {bodies[0]}
    assert demo.runs["ingest"].encode() in bodies[0]


def test_what_is_due_by_its_schedule_is_waited_for_and_not_started_once_more(tmp_path: Path) -> None:
    due = {"ingest_due": "2026-03-10T11:00:00Z", "ingest_later": "2999-01-01T00:00:00Z", "build": None}
    started: list[str] = []

    def answers(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v2")
        if path == "/importErrors":
            return httpx.Response(200, json={"import_errors": []})
        if path == "/dags":
            dags = [{"dag_id": name, "next_dagrun_run_after": at} for name, at in due.items()]
            return httpx.Response(200, json={"dags": dags})
        if request.method == "POST":
            started.append(path)
        if path == "/dags/ingest_due/dagRuns":
            assert request.url.params["run_after_gte"] == due["ingest_due"]
            runs = [{"dag_run_id": f"{kind}__1", "run_type": kind} for kind in ("manual", "scheduled")]
            return httpx.Response(200, json={"dag_runs": runs})
        return httpx.Response(200, json={})

    demo = airflow(answers, tmp_path)
    demo.start(list(due), ["ingest_due", "ingest_later"])

    assert started == ["/dags/ingest_later/dagRuns"]
    found = demo.find_run("ingest_due")
    assert found is not None
    assert found["dag_run_id"] == "scheduled__1"


def test_an_airflow_that_stays_broken_is_told_with_its_answer(tmp_path: Path) -> None:
    demo = airflow(lambda request: BUSY, tmp_path, patience=0.5)
    with pytest.raises(ConfigurationError, match=r"Airflow answers 500 to GET /dags.*Database error"):
        demo.call("GET", "/dags")


def test_what_is_refused_is_not_tried_again(tmp_path: Path) -> None:
    calls = []

    def answers(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.path)
        return httpx.Response(404, json={"detail": "no such DAG"})

    with pytest.raises(ConfigurationError, match="404"):
        airflow(answers, tmp_path).call("GET", "/dags/none")
    assert len(calls) == 1
