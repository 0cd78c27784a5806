"""A human's say about a plan that the guard stopped: what is asked, what was answered, what may be sent because of it.

    sync DAG: plan stopped ▶ `is_to_be_asked` ▶ DAG approve_plans: `ask` ▶ a human ▶ `record_answer` ▶ sync DAG: `push`

`sync.approvals` is append-only: a row `asked` when a question is put, a row for the answer. A target has one open
question at a time, and the same thing is not asked twice: a rejected plan stays rejected while new ones look like it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from include.audiences.load import load_audiences
from include.audiences.schema import Guard
from include.destinations.http import utc_now
from include.errors import ConfigurationError
from include.settings import get_settings
from include.sync.guard import Numbers, is_same, judge, read_reasons
from include.sync.ledger import read_plan

if TYPE_CHECKING:
    from include.warehouse.engine import Warehouse

log = logging.getLogger(__name__)

APPROVE = "Approve"
REJECT = "Reject"
NEW_BOUND = "Approve once with a new bound"
OPTIONS = [APPROVE, REJECT, NEW_BOUND]

SAMPLE_IDS = 5
_LATE = timedelta(hours=1)  # an open question without an answer this long after its end is no question any more

_SAMPLES = """
    select action, profile_id
    from sync.plan_rows
    where plan_id = :plan_id
    qualify row_number() over (partition by action order by row_number) <= :sample_ids
    order by action, row_number
"""


@dataclass(frozen=True)
class Question:
    """What a human is asked, in Markdown: counts, reasons and ids, never a person."""

    subject: str
    body: str
    approvers: tuple[str, ...]  # Airflow user ids; empty: everyone who may answer questions at all


@dataclass(frozen=True)
class Answer:
    """What became of a question. `is_to_send`: the plan, or one within the new bounds, is to be sent now."""

    plan_id: str
    audience: str
    destination: str
    decision: str

    @property
    def is_to_send(self) -> bool:
        return self.decision in ("approved", "new_bound")


def what_may_go(warehouse: Warehouse, plan_id: str) -> str | None:
    """The plan that may be pushed for this one: itself, what of it cannot wait, or none."""
    plan = read_plan(warehouse, plan_id)
    if (plan["verdict"] or "clear") == "clear" or last_decision(warehouse, plan_id) == "approved":
        return plan_id
    urgent = warehouse.scalar("select plan_id from sync.plans where urgent_of = :plan_id limit 1", plan_id=plan_id)
    if urgent is None:
        log.warning("%s: plan %s waits for a human; nothing is sent", _name(plan), plan_id)
        return None
    log.warning(
        "%s: plan %s waits for a human; only the removals that cannot wait are sent, plan %s",
        _name(plan), plan_id, urgent,
    )  # fmt: skip
    return str(urgent)


def is_to_be_asked(warehouse: Warehouse, plan_id: str, *, again: bool = False) -> bool:
    """Whether a human is to be asked about a plan now; the log says why not. `again`: also after a rejection."""
    plan = read_plan(warehouse, plan_id)
    if (plan["verdict"] or "clear") == "clear" or last_decision(warehouse, plan_id) == "approved":
        log.info("%s: plan %s needs no approval", _name(plan), plan_id)
        return False
    last = _last_word(warehouse, plan)
    if last is None:
        return True
    if last["decision"] == "asked" and utc_now() < last["decided_at"] + get_settings().approval_timeout + _LATE:
        log.warning(
            "%s: a human was asked about plan %s at %s UTC and has not answered yet; nothing new is asked. "
            "The question is under Required Actions, DAG approve_plans",
            _name(plan), last["plan_id"], _minute(last["decided_at"]),
        )  # fmt: skip
        return False
    if last["decision"] == "rejected" and not again:
        before = read_plan(warehouse, str(last["plan_id"]))
        small_change = load_audiences().audience(str(plan["audience"])).guard.small_change
        if is_same(read_reasons(plan["reasons"]), read_reasons(before["reasons"]), small_change):
            log.warning(
                "%s: this stays rejected: %s rejected plan %s at %s UTC for the same reasons and about the same size. "
                "To be asked again, run this DAG with the parameter plan_id %s",
                _name(plan), last["decided_by"] or "somebody", last["plan_id"], _minute(last["decided_at"]), plan_id,
            )  # fmt: skip
            return False
    return True


def ask(warehouse: Warehouse, plan_id: str) -> Question:
    """Write down that a question is put, and return it."""
    plan = read_plan(warehouse, plan_id)
    audience = load_audiences().audience(str(plan["audience"]))
    _append(warehouse, plan, "asked")
    reasons = read_reasons(plan["reasons"])
    samples: dict[str, list[str]] = {}
    for row in warehouse.read(_SAMPLES, plan_id=plan_id, sample_ids=SAMPLE_IDS):
        samples.setdefault(str(row["action"]), []).append(f"`{row['profile_id']}`")
    counts = [("add", plan["adds"]), ("update", plan["updates"]), ("remove", plan["removes"])]
    lines = [
        f"The plan for **{audience.label}** at **{plan['destination']}** was stopped before anything was sent:",
        "",
        *(f"- {reason.text}" for reason in reasons),
        "",
        "| | people | profile ids, for example |",
        "|---|---|---|",
        f"| in the segment | {plan['matched']:,} | |",
        f"| members | {plan['members']:,} | |",
        f"| on the list now | {plan['present']:,} | |",
        *(f"| to {action} | {count:,} | {', '.join(samples.get(action, []))} |" for action, count in counts),
        "",
        f"**{APPROVE}**: exactly this plan is sent; if the list or the people have changed since, a new one that is no "
        "more suspicious.",
        "",
        f"**{REJECT}**: nothing is sent; the list stays as it is, and the same is not asked again.",
        "",
        f"**{NEW_BOUND}**: fill in `max_add` and `max_remove`, in percent of the list (one left empty is as in the "
        f"file). If all that this plan adds and removes is within them, or at most {audience.guard.small_change} "
        "people, it is sent, whatever else is named above; if not, a new one is made and judged by them, once.",
        "",
        f"Without an answer within {get_settings().approval_timeout} nothing is sent, and the next plan asks again. "
        f"Owner: {audience.owner}. Plan `{plan_id}`, as of {_minute(plan['as_of'])} UTC; all of it: "
        f"`select * from sync.plan_rows where plan_id = '{plan_id}'`",
    ]
    subject = f"{audience.label} at {plan['destination']}: {'; '.join(reason.text for reason in reasons)}"
    return Question(subject, "\n".join(lines), tuple(audience.guard.approvers))


def record_answer(
    warehouse: Warehouse,
    plan_id: str,
    option: str | None,
    *,
    by: str | None,
    max_add: float | None = None,
    max_remove: float | None = None,
) -> Answer:
    """Write down what a human chose; `option` None is no answer in time. Bounds are shares of the list (0.5 is 50 %).

    ConfigurationError where a new bound was chosen and none was given.
    """
    plan = read_plan(warehouse, plan_id)
    if option == NEW_BOUND:
        if max_add is None and max_remove is None:
            raise ConfigurationError(
                f"plan {plan_id}: '{NEW_BOUND}' was chosen without a number; nothing is sent. Clear the task "
                "`question` to be asked again, and fill in max_add or max_remove"
            )
        guard = load_audiences().audience(str(plan["audience"])).guard
        beyond = _beyond(plan, _with_bounds(guard, max_add, max_remove))
        decision = "new_bound" if beyond else "approved"
    else:
        decision = {APPROVE: "approved", REJECT: "rejected"}.get(option or "", "unanswered")
        max_add = max_remove = None
    _append(warehouse, plan, decision, by=by, max_add=max_add, max_remove=max_remove)
    others = [reason.text for reason in read_reasons(plan["reasons"]) if reason.kind not in ("adds", "removes")]
    if option == NEW_BOUND and decision == "approved" and others:
        log.warning("%s: plan %s: approved with it: %s", _name(plan), plan_id, "; ".join(others))
    said = {
        "approved": f"approved by {by}: it is sent as it is, if it is still valid",
        "new_bound": f"beyond the new bound that {by} approved: the target is planned anew within it",
        "rejected": f"rejected by {by}: nothing is sent, the list stays as it is",
        "unanswered": "nobody answered in time: nothing is sent, the next plan asks again",
    }
    log.warning("%s: plan %s: %s", _name(plan), plan_id, said[decision])
    return Answer(plan_id, str(plan["audience"]), str(plan["destination"]), decision)


def _with_bounds(guard: Guard, max_add: float | None, max_remove: float | None) -> Guard:
    """The guard with the bounds that a human named, wider or tighter."""
    named = {"max_add": max_add, "max_remove": max_remove}
    return guard.model_copy(update={name: share for name, share in named.items() if share is not None})


def _beyond(plan: dict[str, Any], guard: Guard) -> bool:
    """Whether a stored plan adds or removes more people than the guard's shares of its list."""
    of = [reason.of for reason in read_reasons(plan["reasons"]) if reason.kind in ("adds", "removes")]
    numbers = Numbers(
        matched=plan["matched"],
        present=plan["present"],
        adds=plan["adds"],
        removes=plan["removes"],
        waiting=plan["adds"] + plan["removes"],
        members_before=max(of, default=0),
    )
    return bool(judge(numbers, guard.model_copy(update={"min_size": 0})))


def approved_guard(warehouse: Warehouse, plan_id: str, guard: Guard) -> Guard | None:
    """The bounds that hold once for a plan made in the place of an approved one; None where it was not approved."""
    plan = read_plan(warehouse, plan_id)
    last = _last_word(warehouse, plan, of_plan=True)
    if last is None or last["decision"] not in ("approved", "new_bound"):
        return None
    return _with_bounds(guard, last["max_add"], last["max_remove"])


def last_decision(warehouse: Warehouse, plan_id: str) -> str | None:
    """The newest word about one plan: asked, approved, new_bound, rejected, unanswered, or None."""
    last = _last_word(warehouse, read_plan(warehouse, plan_id), of_plan=True)
    return str(last["decision"]) if last else None


def has_newer_plan(warehouse: Warehouse, plan_id: str) -> bool:
    """Whether the target of a plan has been planned again since."""
    plan = read_plan(warehouse, plan_id)
    newest = warehouse.scalar(
        "select max(created_at) as newest from sync.plans "
        "where audience = :audience and destination = :destination and urgent_of is null",
        audience=plan["audience"],
        destination=plan["destination"],
    )
    return bool(newest > plan["created_at"])


def _last_word(warehouse: Warehouse, plan: dict[str, Any], *, of_plan: bool = False) -> dict[str, Any] | None:
    """The newest row about a plan's target, or about the plan alone."""
    keys = ("plan_id",) if of_plan else ("audience", "destination")
    found = warehouse.read(
        f"select * from sync.approvals where {' and '.join(f'{key} = :{key}' for key in keys)} "
        "order by decided_at desc limit 1",
        **{key: plan[key] for key in keys},
    )
    return found[0] if found else None


def _append(warehouse: Warehouse, plan: dict[str, Any], decision: str, **columns: Any) -> None:
    row = {
        "plan_id": plan["plan_id"],
        "audience": plan["audience"],
        "destination": plan["destination"],
        "decision": decision,
        "decided_by": columns.get("by"),
        "max_add": columns.get("max_add"),
        "max_remove": columns.get("max_remove"),
        "decided_at": utc_now(),
    }
    warehouse.insert("sync.approvals", [row])


def _name(plan: dict[str, Any]) -> str:
    return f"{plan['audience']} at {plan['destination']}"


def _minute(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
