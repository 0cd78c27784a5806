"""One destination on its platform's sandbox, with a warehouse to plan and push from: what the contract is tried on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from include.destinations.base import Destination, Member, destination_class
from include.settings import get_settings
from include.sync.plan import PlanSummary, plan_target
from include.sync.push import PushSummary, confirm_plan, push_plan
from include.warehouse.engine import Warehouse
from tests.include.destinations.running_sandbox import RunningSandbox
from tests.include.destinations.sides import LABEL, side_of
from tests.include.sync.target_world import World

BATCH = 4  # rows in a batch, whatever the platform would take
AUDIENCE = """
label: {label}
description: Left something in the cart.
owner: lifecycle@example.com
segment: cart_abandoners
params: {{idle_for: 1h, window: 7d, min_cart_value: 0}}
destinations:
  - {target}
"""


class Target:
    """`side` is the platform, `destination` the code under test (or a broken form of it)."""

    def __init__(
        self, name: str, sandbox: RunningSandbox, folder: Path, broken: type[Destination] | None = None
    ) -> None:
        self.name = name
        self.cls = broken or destination_class(name)
        sandbox.reset()
        self.side = side_of(name, sandbox)
        self.folder = folder
        self.warehouse = Warehouse("duckdb://")
        self.warehouse.ensure_tables()
        self.plans = 0

    def write_audience(self) -> None:
        options = json.dumps({"to": self.name, **self.side.options})
        (self.folder / "carts.yaml").write_text(AUDIENCE.format(label=LABEL, target=options))

    def connect(self, name: str = "", options: Mapping[str, object] | None = None) -> Destination:
        """The destination as a push gets it, with small batches."""
        small = type(self.cls.__name__, (self.cls,), {"max_batch_rows": BATCH})
        settings = self.cls.Settings.model_validate(dict(self.side.options if options is None else options))
        made: Destination = small(self.side.connection(), settings)
        return made

    def list_id(self) -> str:
        """The list of the audience, made where it is not there."""
        return self.connect().ensure_audience(LABEL, "Left something in the cart.", [])

    def push(self, action: str, members: Sequence[Member]) -> PushSummary:
        """Plan these rows, push them, and ask after what comes later."""
        return self.send(self.plan(action, members))

    def send(self, plan_id: str) -> PushSummary:
        summary = push_plan(self.warehouse, plan_id, self.connect)
        for _ in range(5):
            if confirm_plan(self.warehouse, plan_id, self.connect):
                return summary
        pytest.fail(f"{self.name} still has requests without an answer after five questions")

    def plan(self, action: str, members: Sequence[Member]) -> str:
        """A plan of literal rows."""
        self.plans += 1
        plan_id = f"plan-{self.plans}"
        self.warehouse.insert(
            "sync.plans",
            [{"plan_id": plan_id, "audience": "carts", "destination": self.name, "list_name": LABEL}],
        )
        self.warehouse.insert(
            "sync.plan_rows",
            [
                {
                    "plan_id": plan_id, "row_number": number, "action": action, "profile_id": f"p{number}",
                    "member_key": member.member_key,
                    "identifiers": json.dumps({kind: list(values) for kind, values in member.identifiers.items()}),
                    "fields": None if action == "remove" else json.dumps(dict(member.fields)),
                    "payload_hash": f"h{number}",
                }
                for number, member in enumerate(members)
            ],
        )  # fmt: skip
        return plan_id

    def plan_people(self, people: Sequence[tuple[str, str, str]]) -> PlanSummary:
        """The real plan of one run: everyone of (profile, e-mail, phone) is in the segment and has said yes."""
        world = World(self.folder, self.warehouse)
        self.write_audience()
        for profile_id, email, phone in people:
            world.person(profile_id, email=email, phone=phone)
        return plan_target(self.warehouse, "carts", self.name, datetime(2026, 3, 10, 12), "run-1")

    def ledger(self, plan_id: str = "plan-1") -> dict[str, str]:
        """The newest answer by member key."""
        rows = self.warehouse.read(
            "select member_key, status from sync.ledger where plan_id = :plan order by sequence", plan=plan_id
        )
        return {row["member_key"]: row["status"] for row in rows}

    def reasons(self) -> list[str]:
        """Everything the ledger holds in words."""
        rows = self.warehouse.read("select reason from sync.ledger where reason is not null")
        rows += self.warehouse.read("select detail as reason from sync.requests where detail is not null")
        return [str(row["reason"]) for row in rows]


@contextmanager
def contract_target(
    name: str, sandbox: RunningSandbox, folder: Path, broken: type[Destination] | None = None
) -> Iterator[Target]:
    """A target with its audience file in place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REKINDLE_AUDIENCES_DIR", str(folder))
        get_settings.cache_clear()
        target = Target(name, sandbox, folder, broken)
        target.write_audience()
        yield target
        target.warehouse.close()
    get_settings.cache_clear()
