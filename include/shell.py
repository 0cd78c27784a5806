"""What our commands have in common: a Typer app, the warehouse they work on, errors as one line."""

from __future__ import annotations

import logging
from typing import Annotated

import sqlalchemy
import typer
from rich.console import Console

from include.errors import RekindleError
from include.warehouse.engine import Warehouse, get_warehouse

out = Console()
err = Console(stderr=True)

Url = Annotated[
    str | None, typer.Option("--url", envvar="REKINDLE_WAREHOUSE_URL", help="instead of the connection `warehouse`")
]


def new_app(about: str | None) -> typer.Typer:
    """An app that shows its help when nothing is asked of it."""
    return typer.Typer(
        help=about, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )


def warehouse_at(url: str | None) -> Warehouse:
    """The warehouse named by a URL, else the connection's."""
    return Warehouse(url) if url else get_warehouse()


def run(app: typer.Typer) -> None:
    """Run a command; an error of ours or of the database is one line, not a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        app()
    except (RekindleError, sqlalchemy.exc.DBAPIError) as error:
        said = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
        err.print(f"error: {said}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from error
