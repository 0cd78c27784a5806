"""`make demo`: the whole line in a real Airflow against the sandbox, and a table of what came out.

The demo only prepares and watches. It starts the sandbox and `airflow standalone`, creates connections and pools, turns
the DAGs on and starts the ingest DAGs; from there Airflow's scheduler runs the line by its assets. Everything lives
under `build/demo/<dataset>`, so a second demo finds the warehouse and the lists as the first one left them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from include.audiences.load import load_audiences
from include.errors import ConfigurationError, RekindleError
from include.sandbox.children import free_port, interruptible, start, stop
from include.sandbox.datasets import Dataset, connections, published_dataset, shop_dataset, warehouse_url
from include.sandbox.standalone import Airflow, environment
from include.settings import get_settings
from include.sources import load_sources
from include.warehouse.engine import Warehouse

console = Console(highlight=False, soft_wrap=True)

LINE_TIMEOUT = 900.0
APPROVAL_DAG = "approve_plans"  # on, so that a stopped plan can ask
POOLS = {"warehouse": 4, "mailchimp": 6, "google_ads": 4}


def run(*, people: int, data: Path | None, wait: bool, home: Path) -> int:
    """Run the demo under `home`; returns the exit code (0 when every DAG ended well)."""
    begun = time.monotonic()
    sandbox_port, airflow_port = free_port("SANDBOX_PORT", 8010), free_port("AIRFLOW_PORT", 8080)
    if not data:
        console.print(f"A shop of {people:,} people (drawn once, then kept) ...")
    dataset = published_dataset(home, data) if data else shop_dataset(home, people)
    dataset.folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(dataset.environment)
    get_settings.cache_clear()
    with interruptible(), _both_up(dataset, sandbox_port, airflow_port) as (sandbox, airflow):
        before = _last_request(sandbox)
        airflow.login()
        airflow.prepare(connections(dataset, str(sandbox.base_url).rstrip("/")), POOLS)
        airflow.start([*ingest_dags(), "build_audiences", *sync_dags(), APPROVAL_DAG], ingest_dags())
        is_good, seconds = _watch(airflow)
        if "build_audiences" not in airflow.runs:
            console.print("The line stopped before anything was built.")
            _stay(airflow, wait)
            return 1
        result = {
            **_results(dataset, sandbox, before),
            "is_good": is_good,
            "dag_seconds": round(seconds, 1),
            "total_seconds": round(time.monotonic() - begun, 1),
            "airflow": airflow.url,
            "login": {"user": "admin", "password": airflow.password},
        }
        (home.parent / "demo.json").write_text(json.dumps(result, indent=2, default=str) + "\n")
        _show(result)
        console.print(f"Numbers        {home.parent / 'demo.json'}")
        _stay(airflow, wait)
    return 0 if is_good else 1


def _stay(airflow: Airflow, wait: bool) -> None:
    """Stay up until Ctrl-C, where that is wanted."""
    if wait:
        console.print(f"\n{airflow.url} and the sandbox stay up until Ctrl-C.")
        try:
            airflow.process.wait()
        except KeyboardInterrupt:
            console.print("Stopping ...")


@contextmanager
def _both_up(dataset: Dataset, sandbox_port: int, airflow_port: int) -> Iterator[tuple[httpx.Client, Airflow]]:
    """The sandbox and Airflow, both answering; ended on the way out, whatever happened."""
    console.print(f"Starting the sandbox on port {sandbox_port} and Airflow on port {airflow_port} ...")
    folder, log = dataset.folder, dataset.folder / "sandbox.log"
    serve = [sys.executable, "-m", "include.sandbox", "serve", "--port", str(sandbox_port)]
    serve += ["--state", str(folder / "sandbox.db")]
    if (folder / "data").exists():
        serve += ["--seed-dir", str(folder / "data")]
    standalone = [str(Path(sys.executable).parent / "airflow"), "standalone"]
    extra = {
        "REKINDLE_AS_OF": dataset.as_of.isoformat(),
        "REKINDLE_STATE_DIR": str(folder / "state"),
        "REKINDLE_BUILD_AT_LATEST": "",  # one build, when every source has landed
        **dataset.environment,
    }
    processes = []
    try:
        processes.append(start(serve, log, os.environ))
        processes.append(
            start(standalone, folder / "airflow.log", environment(folder / "airflow", airflow_port, extra))
        )
        airflow = Airflow(processes[1], folder / "airflow", f"http://127.0.0.1:{airflow_port}", folder / "airflow.log")
        with httpx.Client(base_url=f"http://127.0.0.1:{sandbox_port}", timeout=30) as sandbox:
            _wait_for_sandbox(sandbox, processes[0].poll, log)
            airflow.wait_until_up()
            yield sandbox, airflow
    finally:
        for process in reversed(processes):
            stop(process)


def _wait_for_sandbox(sandbox: httpx.Client, has_ended: Any, log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and has_ended() is None:
        try:
            if sandbox.get("/_sandbox/health").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.3)
    raise ConfigurationError(f"the sandbox did not come up; its log is {log}")


# --- the line ---------------------------------------------------------------------------------------------------


def ingest_dags() -> list[str]:
    """The DAGs of the configured sources."""
    return [f"ingest_{name}" for name in load_sources()]


def sync_dags() -> dict[str, str]:
    """The DAG of every audience whose file is right, with the audience's name."""
    return {f"sync_{name}": name for name in load_audiences().audiences}


def _watch(airflow: Airflow) -> tuple[bool, float]:
    """Follow the line until it has ended, saying what happens; whether all went well, and its seconds."""
    console.print("\nThe scheduler runs the line:")
    waiting = [*ingest_dags(), "build_audiences", *sync_dags()]
    ended: dict[str, dict[str, Any]] = {}
    said: dict[str, str] = {}
    end = time.monotonic() + LINE_TIMEOUT
    while waiting and time.monotonic() < end:
        for dag_id in list(waiting):
            dag_run = airflow.find_run(dag_id)
            if dag_run is None:
                if _will_not_come(airflow, dag_id, ended):
                    waiting.remove(dag_id)
                continue
            tasks = airflow.tasks(dag_id)
            done = sum(task["state"] in {"success", "skipped", "failed", "upstream_failed"} for task in tasks)
            line = f"{dag_run['state']:<8} {done:>3} of {len(tasks)} tasks"
            if said.get(dag_id) != line and (done == len(tasks) or done % 5 == 0):
                console.print(f"  {dag_id:<32} {line}")
                said[dag_id] = line
            if dag_run["state"] in {"success", "failed"}:
                ended[dag_id] = dag_run
                waiting.remove(dag_id)
                for task in (task for task in tasks if task["state"] == "failed"):
                    name = f"{dag_id}.{task['task_id']}"
                    console.print(f"  {name} failed: {airflow.why(dag_id, task)}", style="red", markup=False)
        time.sleep(2)  # an answer about all tasks costs Airflow as much as a small task
    for dag_id in waiting:
        console.print(f"  [red]{dag_id} did not end within {LINE_TIMEOUT:.0f} s[/red]")
    times = [datetime.fromisoformat(dag_run[key]) for dag_run in ended.values() for key in ("start_date", "end_date")]
    seconds = (max(times) - min(times)).total_seconds() if times else 0.0
    everything = len(ended) == len(ingest_dags()) + 1 + len(sync_dags())
    return everything and all(run["state"] == "success" for run in ended.values()), seconds


def _will_not_come(airflow: Airflow, dag_id: str, ended: Mapping[str, dict[str, Any]]) -> bool:
    """Whether what would start this DAG has failed for good."""
    has_lost_source = any(name.startswith("ingest_") and run["state"] == "failed" for name, run in ended.items())
    if "build_audiences" not in ended:
        return has_lost_source and not dag_id.startswith("ingest_")
    gate = f"{sync_dags()[dag_id]}.gate"
    return {task["task_id"]: task["state"] for task in airflow.tasks("build_audiences")}.get(gate) != "success"


# --- what came out -----------------------------------------------------------------------------------------------

RESULTS = "select * from reports.audience_results order by audience, destination"


def _last_request(sandbox: httpx.Client) -> int:
    return int(sandbox.get("/_sandbox/journal", params={"limit": 0}).json()["last_id"])


def _results(dataset: Dataset, sandbox: httpx.Client, before: int) -> dict[str, Any]:
    warehouse = Warehouse(warehouse_url(dataset.folder))
    writes = sandbox.get("/_sandbox/journal", params={"since": before, "writes": "true", "limit": 0}).json()["total"]
    return {
        "dataset": dataset.name,
        "as_of": dataset.as_of.isoformat(),
        "audiences": warehouse.read(RESULTS),
        "rejected_rows": warehouse.read(
            "select source, table_name, reason, count(*) as row_count from staging.rejected_rows "
            "group by source, table_name, reason order by source, table_name, reason"
        ),
        "rows": {
            table: warehouse.scalar(f"select count(*) as n from {table}")
            for table in ("raw.events", "raw.contacts", "core.profiles", "core.orders", "core.carts")
        },
        "lists": _compare_lists(warehouse, sandbox),
        "write_calls": writes,
        "sandbox": str(sandbox.base_url),
        "warehouse": warehouse_url(dataset.folder),
    }


PLATFORMS = {"mailchimp": "mailchimp", "google_ads": "datamanager"}

MEMBER_IDENTIFIERS = """
select memberships.audience, memberships.destination, sends.identifiers
from sync.memberships as memberships
inner join sync.sends as sends
    on memberships.audience = sends.audience
    and memberships.destination = sends.destination
    and memberships.member_key = sends.member_key
    and memberships.last_sent_at = sends.sent_at
    and sends.action <> 'remove'
"""


def _compare_lists(warehouse: Warehouse, sandbox: httpx.Client) -> list[dict[str, Any]]:
    """Per target: how many identifiers list and warehouse have in common, and how many only one of them has."""
    held = {
        (entry["platform"], entry["audience"]): set(entry["members"]) for entry in sandbox.get("/_sandbox/lists").json()
    }
    expected: dict[tuple[str, str], set[str]] = {}
    for row in warehouse.read(MEMBER_IDENTIFIERS):
        values = expected.setdefault((row["audience"], row["destination"]), set())
        values.update(value for kind in json.loads(row["identifiers"]).values() for value in kind)
    result = []
    for name, audience in load_audiences().audiences.items():
        for target in audience.destinations:
            if target.to not in PLATFORMS:
                continue
            theirs = held.get((PLATFORMS[target.to], audience.label), set())
            ours = expected.get((name, target.to), set())
            counts = {"in_both": ours & theirs, "only_in_list": theirs - ours, "only_in_warehouse": ours - theirs}
            result.append(
                {"audience": name, "destination": target.to, **{key: len(who) for key, who in counts.items()}}
            )
    return result


_COLUMNS = {
    "audience": "audience",
    "destination": "destination",
    "matched": "matched",
    "not_reachable": "no address",
    "no_consent": "no consent",
    "suppressed": "suppressed",
    "capped": "capped",
    "lost_priority": "priority",
    "held_out": "held out",
    "other_excluded": "other",
    "members": "members",
    "sent": "sent",
    "accepted": "accepted",
    "rejected": "rejected",
    "pending": "pending",
    "at_destination": "on the list",
}


def _show(result: Mapping[str, Any]) -> None:
    table = Table(title=f"\n{result['dataset']}, as of {result['as_of']} UTC", title_justify="left")
    for name, label in _COLUMNS.items():
        table.add_column(label, justify="left" if name in {"audience", "destination"} else "right")
    for row in result["audiences"]:
        cells = (row.get(name) for name in _COLUMNS)
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell or 0) for cell in cells))
    Console(highlight=False, width=console.width if console.is_terminal else 200).print(table)
    rejected = sum(row["row_count"] for row in result["rejected_rows"])
    console.print(f"Rows set aside with a reason (staging.rejected_rows): {rejected:,}")
    differing = [row for row in result["lists"] if row["only_in_list"] or row["only_in_warehouse"]]
    for row in differing:
        console.print(
            f"[red]{row['audience']} at {row['destination']}: the list differs from the warehouse: {row}[/red]"
        )
    if not differing:
        console.print("The lists at the destinations hold exactly the members that the warehouse says.")
    writes = result["write_calls"]
    console.print(
        f"Write calls to destinations in this run: {writes:,}"
        + (" (nothing changed, so nothing was sent)" if writes == 0 and result["is_good"] else "")
    )
    console.print(f"The DAG runs took {result['dag_seconds']} s, all together {result['total_seconds']} s.")
    login = result["login"]
    console.print(f"\nAirflow        {result['airflow']}   user {login['user']}   password {login['password']}")
    console.print(f"Sandbox lists  {result['sandbox']}")


def ask(query: str, home: Path) -> int:
    """Print a query's answer from the warehouse of the demo that ran last under `home`."""
    last = home.parent / "demo.json"
    if not last.exists():
        raise ConfigurationError("no demo has run here yet: make demo")
    rows = Warehouse(json.loads(last.read_text())["warehouse"]).read(query)
    if not rows:
        console.print("no rows")
        return 0
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row.values()))
    console.print(table)
    return 0


def guarded(work: Callable[[], int]) -> int:
    """Run `work`; an error a person can mend is one line and exit code 2, Ctrl-C is exit code 130."""
    try:
        return work()
    except RekindleError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
