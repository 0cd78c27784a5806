"""`make explain`: print why one person is in an audience or out of it.

python -m include.audiences.explain_command cart_abandoners --email ana@shop.example [--run PLAN]

Exit code 0 when she was found, 3 when the warehouse knows nobody by that name, 2 for anything else that is wrong.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from include.audiences.explain import AtDestination, Explanation, UnknownPerson, explain
from include.errors import RekindleError
from include.settings import ROOT
from include.shell import Url, out, warehouse_at
from include.warehouse.engine import Warehouse

DEMO = ROOT / "build" / "demo.json"

MARKS = {"passed": "[green]passed[/]", "stopped here": "[red]stopped here[/]", "not reached": "[dim]not reached[/]"}
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    audience: Annotated[str, typer.Argument(help="the name of its file")],
    email: Annotated[str, typer.Option()] = "",
    phone: Annotated[str, typer.Option(help="with its country, as in +421...")] = "",
    user_id: Annotated[str, typer.Option(help="the login of the shop")] = "",
    visitor_id: Annotated[str, typer.Option(help="the browser")] = "",
    profile: Annotated[str, typer.Option(help="a profile id")] = "",
    destination: Annotated[str, typer.Option(help="only this one")] = "",
    run: Annotated[str, typer.Option(help="the id of a past plan")] = "",
    as_of: Annotated[str, typer.Option(help="the last plans up to this time (ISO 8601, UTC)")] = "",
    url: Url = None,
) -> None:
    """Find the person and print every step."""
    asked = {"email": email, "phone": phone, "user_id": user_id, "visitor_id": visitor_id, "profile_id": profile}
    given = {kind: value for kind, value in asked.items() if value}
    if len(given) != 1:
        out.print("name the person by exactly one of EMAIL, PHONE, USER_ID, VISITOR_ID and PROFILE", style="red")
        raise typer.Exit(2)
    ((kind, value),) = given.items()
    try:
        found = explain(
            _warehouse(url),
            audience,
            kind,
            value,
            destination=destination or None,
            as_of=_moment(as_of) if as_of else None,
            plan_id=run or None,
        )
    except UnknownPerson as error:
        out.print(f"Nobody: {error}.", style="yellow", markup=False, soft_wrap=True)
        raise typer.Exit(3) from None
    except RekindleError as error:
        out.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    show(found, out)


def show(found: Explanation, console: Console) -> None:
    """Print an explanation: the person, the rule, then each destination with its steps, plan and answers."""
    person = found.person
    console.rule(f"{found.label} ({found.audience})", align="left")
    known = ", ".join(
        f"{kind} {value}{'' if state == 'joined' else f' ({state})'}" for kind, value, state in person.identifiers
    )
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("profile", person.profile_id)
    if person.merged:
        facts.add_row("took in", ", ".join(person.merged))
    facts.add_row("known by", known or "nothing")
    facts.add_row("rule", ", ".join(f"{name} {value}" for name, value in found.rules.items()))
    built = f" (built for {found.segment_built_for:%Y-%m-%d %H:%M} UTC)" if found.segment_built_for else ""
    facts.add_row("segment", f"{'has her' if found.matches else 'does not have her'}{built}")
    for name, value in found.segment.items():
        facts.add_row(f"  {name}", value)
    console.print(facts, markup=False)
    for note in found.notes:
        console.print(note, style="yellow", markup=False)
    for one in found.destinations:
        _show_destination(one, console)


def _show_destination(one: AtDestination, console: Console) -> None:
    verdict = "a member" if one.is_member else "not a member"
    since = f", on the list since {one.on_list_since:%Y-%m-%d %H:%M}" if one.on_list_since else ", not on the list"
    steps = Table(title=f"{one.label}: {verdict}{since}", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("step", "what became of her", "by"):
        steps.add_column(column, overflow="fold")
    for step in one.steps:
        steps.add_row(step.name, MARKS[step.verdict], step.says)
    console.print(steps)
    if one.planned:
        plan = one.planned
        newest = "newest plan" if plan.is_newest else "plan"
        console.print(
            f"{newest} {plan.plan_id} (as of {plan.as_of:%Y-%m-%d %H:%M}): {plan.action}; {plan.says}",
            markup=False,
            soft_wrap=True,
        )
    for note in one.notes:
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    if one.answers:
        answers = Table(title="what the destination answered, newest first", title_justify="left", box=box.SIMPLE_HEAD)
        for column in ("at (UTC)", "sent", "answer", "reason", "plan"):
            answers.add_column(column, overflow="fold")
        for answer in one.answers:
            answers.add_row(
                f"{answer.at:%Y-%m-%d %H:%M:%S}", answer.action, answer.status, answer.reason, answer.plan_id
            )
        console.print(answers, markup=False)


def _warehouse(url: str | None) -> Warehouse:
    """The one named, else the connection's; where there is no Airflow at all, that of the demo that ran last."""
    if not url and DEMO.exists() and not {"AIRFLOW_CONN_WAREHOUSE", "AIRFLOW_HOME"} & os.environ.keys():
        out.print(f"in the warehouse of the demo ({DEMO.parent.name}/{DEMO.name})", style="dim")
        return Warehouse(json.loads(DEMO.read_text())["warehouse"])
    return warehouse_at(url)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not an ISO 8601 time", param_hint="--as-of") from None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


if __name__ == "__main__":
    app()
