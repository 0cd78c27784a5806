"""Plans from a shell: read one, send one that was reviewed.

python -m include.sync show-plan 0f3c...
python -m include.sync push-plan 0f3c...
python -m include.sync forget-list cart_abandoners mailchimp
python -m include.sync retire cart_abandoners mailchimp
"""

from __future__ import annotations

from typing import Annotated

import typer

from include.shell import Url, new_app, out, run, warehouse_at
from include.sync.run import push_reviewed
from include.sync.show import plan_table

app = new_app(__doc__)

PlanId = Annotated[str, typer.Argument(help="the id that the log of the plan names")]


@app.command()
def show_plan(plan_id: PlanId, url: Url = None) -> None:
    """Show a stored plan: counts, and some profile ids of each kind of row."""
    out.print(plan_table(warehouse_at(url), plan_id))


@app.command()
def push_plan(plan_id: PlanId, url: Url = None) -> None:
    """Send exactly the rows of a stored plan; refused where the ledger moved or somebody in it has said no since."""
    push_reviewed(warehouse_at(url), plan_id)


@app.command()
def forget_list(
    audience: Annotated[str, typer.Argument(help="name of the audience file")],
    destination: Annotated[str, typer.Argument(help="for example mailchimp")],
    url: Url = None,
) -> None:
    """Write down that nobody is on a list any more, because it was deleted or emptied; the next plan adds everybody."""
    from include.sync.lists import forget_list

    forget_list(warehouse_at(url), audience, destination)


@app.command()
def retire(
    audience: Annotated[str, typer.Argument(help="name of the audience file that was")],
    destination: Annotated[str, typer.Argument(help="for example mailchimp")],
    url: Url = None,
) -> None:
    """Take everybody off a list whose destination was taken out of the audience file; the list itself stays."""
    from include.sync.leftovers import retire

    retire(warehouse_at(url), audience, destination)


if __name__ == "__main__":
    run(app)
