"""Plans from a shell: read one, send one that was reviewed.

python -m include.sync show-plan 0f3c...
python -m include.sync push-plan 0f3c...
python -m include.sync forget-list cart_abandoners mailchimp
"""

from __future__ import annotations

import logging
from typing import Annotated

import typer
from rich.console import Console

from include.errors import RekindleError
from include.sync.run import push_reviewed
from include.sync.show import plan_table
from include.warehouse.engine import Warehouse, get_warehouse

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
out = Console()
err = Console(stderr=True)

PlanId = Annotated[str, typer.Argument(help="the id that the log of the plan names")]
Url = Annotated[
    str | None, typer.Option("--url", envvar="REKINDLE_WAREHOUSE_URL", help="instead of the connection `warehouse`")
]


@app.command()
def show_plan(plan_id: PlanId, url: Url = None) -> None:
    """Show a stored plan: counts, and some profile ids of each kind of row."""
    out.print(plan_table(_warehouse(url), plan_id))


@app.command()
def push_plan(plan_id: PlanId, url: Url = None) -> None:
    """Send exactly the rows of a stored plan; refused where the ledger moved or somebody in it has said no since."""
    push_reviewed(_warehouse(url), plan_id)


@app.command()
def forget_list(
    audience: Annotated[str, typer.Argument(help="name of the audience file")],
    destination: Annotated[str, typer.Argument(help="for example mailchimp")],
    url: Url = None,
) -> None:
    """Write down that nobody is on a list any more, because it was deleted or emptied; the next plan adds everybody."""
    from include.sync.lists import forget_list

    forget_list(_warehouse(url), audience, destination)


def _warehouse(url: str | None) -> Warehouse:
    return Warehouse(url) if url else get_warehouse()


def main() -> None:
    """Run a command; an error of ours is one line, not a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        app()
    except RekindleError as error:
        err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
