"""A real Airflow for the demo: `airflow standalone` as a child process, and what is needed of its REST API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_exponential_jitter

from include.errors import ConfigurationError
from include.settings import ROOT

START_TIMEOUT = 180.0
BUSY_TIMEOUT = 60.0  # Airflow's SQLite takes one writer at a time, and its API answers 500 to the other


@dataclass
class Airflow:
    """A running `airflow standalone` and its REST API."""

    process: subprocess.Popen[bytes]
    home: Path
    url: str
    log: Path
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))
    runs: dict[str, str] = field(default_factory=dict)
    due: dict[str, str] = field(default_factory=dict)
    started_at: str = ""
    patience: float = BUSY_TIMEOUT

    @property
    def password(self) -> str:
        """The password that `airflow standalone` drew for its user `admin`."""
        passwords = json.loads((self.home / "simple_auth_manager_passwords.json.generated").read_text())
        return str(passwords["admin"])

    def wait_until_up(self) -> None:
        """Until the API, the scheduler and the DAG processor answer; ConfigurationError when they do not."""
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise ConfigurationError(f"airflow standalone ended at once; its last words are in {self.log}")
            try:
                health = self.client.get(f"{self.url}/api/v2/monitor/health").json()
                if all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler")):
                    return
            except (httpx.HTTPError, ValueError, KeyError):
                pass
            time.sleep(0.5)
        raise ConfigurationError(f"Airflow did not come up within {START_TIMEOUT:.0f} s; its log is {self.log}")

    def login(self) -> None:
        """Get a token for the REST API."""
        answer = self.client.post(f"{self.url}/auth/token", json={"username": "admin", "password": self.password})
        answer.raise_for_status()
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, *, fine: int = 0, **kwargs: Any) -> Any:
        """One call of the REST API; its JSON answer.

        A 5xx and a cut connection are tried again, so a call may be carried out twice: `fine` is the status that then
        says it has been.
        """
        patient = Retrying(
            retry=retry_if_exception_type(httpx.TransportError) | retry_if_result(lambda got: got.status_code >= 500),
            wait=wait_exponential_jitter(multiplier=0.2, max=5),
            stop=stop_after_delay(self.patience),
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        answer: httpx.Response = patient(self.client.request, method, f"{self.url}/api/v2{path}", **kwargs)
        if answer.status_code >= 400 and answer.status_code != fine:
            raise ConfigurationError(f"Airflow answers {answer.status_code} to {method} {path}: {answer.text[:300]}")
        return answer.json() if answer.content else None

    def put(self, path: str, key: str, body: Mapping[str, Any]) -> None:
        """Create a connection or pool, or bring it up to date."""
        self.call("POST", path, fine=409, json=body)
        self.call("PATCH", f"{path}/{body[key]}", json=body)

    def prepare(self, connections: Mapping[str, Mapping[str, Any]], pools: Mapping[str, int]) -> None:
        """Create connections and pools, or bring them up to date."""
        for conn_id, connection in connections.items():
            body = {**connection, "connection_id": conn_id}
            if "extra" in body:
                body["extra"] = json.dumps(body["extra"])
            self.put("/connections", "connection_id", body)
        for pool, slots in pools.items():
            self.put("/pools", "name", {"name": pool, "slots": slots, "include_deferred": False})

    def start(self, wanted: list[str], first: list[str]) -> None:
        """Turn the DAGs on, the last stage first so that no announcement is missed, and start the `first` ones.

        One that is due by its schedule starts by itself; started once more, it would have all that follows run twice.
        """
        comes_at = self.wait_for_dags(wanted)
        self.started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        now = datetime.now(UTC)
        self.due = {dag_id: due for dag_id in first if (due := comes_at[dag_id]) and datetime.fromisoformat(due) <= now}
        for dag_id in reversed(wanted):
            self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        for dag_id in first:
            if dag_id in self.due:
                continue
            self.runs[dag_id] = f"demo__{self.started_at}"
            body = {"dag_run_id": self.runs[dag_id], "logical_date": None}
            self.call("POST", f"/dags/{dag_id}/dagRuns", fine=409, json=body)

    def wait_for_dags(self, wanted: list[str]) -> dict[str, str | None]:
        """Until every DAG file has been read; when each DAG comes next by its schedule (ISO, UTC).

        ConfigurationError with the reason where a file cannot be read.
        """
        end = time.monotonic() + START_TIMEOUT
        missing = set(wanted)
        while time.monotonic() < end:
            broken = self.call("GET", "/importErrors")["import_errors"]
            if broken:
                raise ConfigurationError(f"{broken[0]['filename']} cannot be read: {broken[0]['stack_trace'][-600:]}")
            found = {dag["dag_id"]: dag["next_dagrun_run_after"] for dag in self.call("GET", "/dags?limit=200")["dags"]}
            missing = set(wanted) - found.keys()
            if not missing:
                return found
            time.sleep(0.5)
        raise ConfigurationError(f"Airflow has not read these DAGs: {', '.join(sorted(missing))}")

    def find_run(self, dag_id: str) -> dict[str, Any] | None:
        """The run of a DAG that this demo waits for: the one it started, the one that was due, else the first since."""
        if dag_id in self.runs:
            found = self.call("GET", f"/dags/{dag_id}/dagRuns/{self.runs[dag_id]}")
            return dict(found)
        since, kind = (self.due[dag_id], "scheduled") if dag_id in self.due else (self.started_at, "asset_triggered")
        query = f"/dags/{dag_id}/dagRuns?run_after_gte={since}&order_by=run_after&limit=20"
        runs = [run for run in self.call("GET", query)["dag_runs"] if run["run_type"] == kind]
        if not runs:
            return None
        self.runs[dag_id] = runs[0]["dag_run_id"]
        return dict(runs[0])

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        """The task instances of the run this demo waits for."""
        query = f"/dags/{dag_id}/dagRuns/{self.runs[dag_id]}/taskInstances?limit=500"
        return list(self.call("GET", query)["task_instances"])

    def why(self, dag_id: str, task: Mapping[str, Any]) -> str:
        """The sentence a failed task ended with, from its log."""
        path = f"/dags/{dag_id}/dagRuns/{self.runs[dag_id]}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
        for line in reversed(self.call("GET", path, headers={"Accept": "application/json"})["content"]):
            if line.get("error_detail"):
                return str(line["error_detail"][-1]["exc_value"])
        return "its log says more"


def environment(home: Path, port: int, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of an Airflow that reads this checkout; nothing of the caller's own Airflow leaks in."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "REKINDLE"))}
    address = f"http://127.0.0.1:{port}"
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout={BUSY_TIMEOUT:.0f}",
        "AIRFLOW__CORE__EXECUTOR": "include.sandbox.executor.PreparedLocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "6",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_PROXY": "127.0.0.1,localhost",
        **extra,
    }
