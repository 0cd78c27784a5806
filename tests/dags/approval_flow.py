"""The approval of stopped plans in a real Airflow: run by test_approvals_in_airflow.py in a process of its own.

Airflow's metadata is a fresh SQLite file, the platforms are the sandbox, and a thread answers the questions through the
function behind Airflow's own REST route. What came of each step is printed as JSON.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.api_fastapi.app import init_auth_manager
from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from fastapi import HTTPException
from sqlalchemy import select

from include.warehouse.engine import get_warehouse
from tests.include.sync.target_world import World

FOLDER = Path(os.environ["FLOW_FOLDER"])
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class User:
    """A user of Airflow."""

    name: str

    def get_id(self) -> str:
        return self.name

    def get_name(self) -> str:
        return self.name


REFUSED: list[int] = []


def answer(option: str, bounds: dict[str, float | None]) -> None:
    """Wait for the open question and answer it as a user of Airflow does; who is not named in the file may not."""
    while True:
        with create_session() as session:
            detail = session.scalar(select(HITLDetail).where(HITLDetail.responded_at.is_(None)))
            if detail is not None and str(detail.task_instance.state) == "awaiting_input":
                task = detail.task_instance
                payload = UpdateHITLDetailPayload(chosen_options=[option], params_input=bounds)
                question = (task.dag_id, task.run_id, task.task_id, payload)
                try:
                    update_hitl_detail(*question, User("bob"), session, task.map_index)
                except HTTPException as error:
                    REFUSED.append(error.status_code)
                update_hitl_detail(*question, User("ines"), session, task.map_index)
                return
        time.sleep(0.3)


class Flow:
    """An audience with two targets, and the two DAGs."""

    def __init__(self) -> None:
        initdb()
        init_auth_manager()
        dags = FOLDER / "dags"
        dags.mkdir()
        for name in ("sync_audiences.py", "approve_plans.py"):
            (dags / name).symlink_to(ROOT / "dags" / name)
        warehouse = get_warehouse()
        warehouse.ensure_tables()
        self.world = World(Path(os.environ["REKINDLE_AUDIENCES_DIR"]), warehouse)
        self.world.policy("guard: {small_change: 0, approvers: [ines]}")
        self.world.insert(
            "sync.gate_results", {"audience": "carts", "is_passed": True, "as_of": self.world.as_of, "matched": 1}
        )
        self.people = 0
        self.join(3)
        self.folder = dags

    def join(self, people: int) -> None:
        for _ in range(people):
            self.people += 1
            self.world.person(f"p{self.people}", email=f"p{self.people}@example.com", ads_consent=None)

    def run(self, dag_id: str, **conf: Any) -> dict[str, str]:
        """Run a DAG; the states of its tasks. It is read anew, because a run leaves its parameters in it."""
        finished = DagBag(dag_folder=str(self.folder)).dags[dag_id].test(run_conf=conf)
        with create_session() as session:
            tasks = session.get(DagRun, finished.id).get_task_instances(session=session)
            return {task.task_id: str(task.state) for task in tasks}

    def approve(self, plan_id: str, option: str, **bounds: float | None) -> dict[str, str]:
        """Run the DAG that asks, while somebody answers."""
        given = {"max_add": None, "max_remove": None, **bounds}
        human = threading.Thread(target=answer, args=(option, given), daemon=True)
        human.start()
        return self.run("approve_plans", plan_id=plan_id)

    def waiting(self, dag_id: str) -> list[dict[str, Any]]:
        """The parameters of the runs that a DAG was asked for and that a scheduler would start now."""
        with create_session() as session:
            runs = session.scalars(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.state == "queued"))
            return [dict(run.conf) for run in runs]

    def newest_plan(self) -> str:
        return str(
            self.world.warehouse.scalar(
                "select plan_id from sync.plans where destination = 'mailchimp' and urgent_of is null "
                "order by created_at desc limit 1"
            )
        )

    def on_the_list(self, destination: str = "mailchimp") -> int:
        count = "select count(*) from sync.memberships where destination = :destination"
        return int(self.world.warehouse.scalar(count, destination=destination))

    def decisions(self) -> list[str]:
        rows = self.world.warehouse.read("select decision from sync.approvals order by decided_at")
        return [str(row["decision"]) for row in rows]


def main() -> None:
    """Three people are on the list; six more are too many for it, and so are twenty."""
    flow, seen = Flow(), {}
    flow.run("sync_carts")
    seen["first load"] = {"on the list": flow.on_the_list(), "asked": flow.waiting("approve_plans")}

    flow.join(6)
    flow.world.person("ads", email="ads@example.com", consent=None)  # for the other target alone
    tasks = flow.run("sync_carts")
    stopped = flow.newest_plan()
    asked = [conf["plan_id"] == stopped for conf in flow.waiting("approve_plans")]
    seen["stopped"] = {
        "tasks": tasks,
        "on the list": flow.on_the_list(),
        "elsewhere": flow.on_the_list("google_ads"),
        "asked": asked,
    }

    asking = flow.approve(stopped, "Approve")
    (conf,) = flow.waiting("sync_carts")
    tasks = flow.run("sync_carts", **conf)
    seen["approved"] = {"asking": asking, "tasks": tasks, "on the list": flow.on_the_list()}

    flow.join(20)
    flow.run("sync_carts", dry_run=True)
    beyond = flow.newest_plan()
    seen["dry run"] = {"on the list": flow.on_the_list()}
    asking = flow.approve(beyond, "Reject")
    tasks = flow.run("sync_carts")
    seen["rejected"] = {"asking": asking, "tasks": tasks, "on the list": flow.on_the_list()}

    asking = flow.approve(beyond, "Approve once with a new bound", max_add=100)
    flow.world.execute("delete from segments.carts where profile_id in ('p10', 'p11') or profile_id like 'p2%'")
    flow.world.match("p2")
    tasks = flow.run("sync_carts", plan_id=beyond, plan_anew=True)
    seen["new bound"] = {"asking": asking, "tasks": tasks, "on the list": flow.on_the_list()}
    seen["decisions"] = flow.decisions()
    seen["refused"] = REFUSED
    print("seen " + json.dumps(seen))


if __name__ == "__main__":
    main()
