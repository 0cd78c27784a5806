"""The warehouse from a shell: ask it, build it, list its models.

python -m include.warehouse query "select count(*) from core.profiles"
python -m include.warehouse query report.sql --limit 20
python -m include.warehouse build --as-of 2026-11-24T10:00
python -m include.warehouse build core.carts
python -m include.warehouse load raw.contacts /data/contacts
python -m include.warehouse models
python -m include.warehouse create-database --admin-url postgresql://postgres:...@server/postgres
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from include.shell import Url, err, new_app, out, run, warehouse_at
from include.warehouse import postgres
from include.warehouse.build import build_model, build_tables, utc_now
from include.warehouse.engine import Warehouse
from include.warehouse.models import build_order, load_models

app = new_app(__doc__)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="a statement, a .sql file, or - for standard input")],
    url: Url = None,
    limit: Annotated[int, typer.Option(min=1, help="rows to show at most")] = 100,
) -> None:
    """Run a query in DuckDB's dialect and show the rows."""
    if sql == "-":
        text = sys.stdin.read()
    elif sql.endswith(".sql"):
        if not Path(sql).is_file():
            raise typer.BadParameter(f"there is no file {sql}")
        text = Path(sql).read_text(encoding="utf-8")
    else:
        text = sql
    params: dict[str, Any] = {"as_of": utc_now()} if ":as_of" in text else {}
    rows = _first_rows(warehouse_at(url), text, limit + 1, params)
    if not rows:
        out.print("no rows")
        return
    table = Table()
    numeric = {name for name in rows[0] if all(isinstance(row[name], int | float | None) for row in rows)}
    for name in rows[0]:
        table.add_column(name, justify="right" if name in numeric else "left", overflow="fold")
    for row in rows[:limit]:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    # A pipe has no width of its own; give every column the room it needs.
    (out if out.is_terminal else Console(width=10_000)).print(table)
    out.print(f"the first {limit} rows; --limit shows more" if len(rows) > limit else f"{len(rows)} rows")


def _first_rows(warehouse: Warehouse, sql: str, count: int, params: dict[str, Any]) -> list[dict[str, Any]]:
    with warehouse.session() as session:
        result = warehouse._result(session, sql, params)
        return [dict(row) for row in result.mappings().fetchmany(count)] if result.returns_rows else []


@app.command()
def build(
    model: Annotated[str | None, typer.Argument(help="one model, for example core.carts; all of them without")] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help="the time to build for (UTC); now without")] = None,
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="everything anew, whatever arrived")] = False,
    url: Url = None,
) -> None:
    """Build the models of staging, core and reports in order, then the views. Segments are built per audience.

    Only what arrived since the last finished build is worked out, unless there is a reason to build all of it.
    """
    try:
        moment = datetime.fromisoformat(as_of) if as_of else utc_now()
    except ValueError as error:
        raise typer.BadParameter("write the time like 2026-11-24T10:00", param_hint="--as-of") from error
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    warehouse = warehouse_at(url)
    if model is not None:
        rows = build_model(warehouse, model, moment)
        err.print(f"{model}: {rows:,} rows, as of {moment:%Y-%m-%d %H:%M} UTC")
        return
    count = sum(found.schema in ("staging", "core", "reports") for found in load_models().values())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("building", total=count)

        def told(name: str, rows: int, seconds: float) -> None:
            progress.update(task, description=name, advance=1)
            progress.console.print(f"{name:<32} {rows:>12,} rows {seconds:>8.2f} s")

        built = build_tables(warehouse, moment, full_refresh=full_refresh, told=told)
    err.print(f"{len(built)} models, {sum(built.values()):,} rows, as of {moment:%Y-%m-%d %H:%M} UTC")


@app.command()
def load(
    table: Annotated[str, typer.Argument(help="for example raw.contacts")],
    place: Annotated[str, typer.Argument(help="a Parquet file or a directory of such, as the warehouse sees it")],
    url: Url = None,
) -> None:
    """Append Parquet files to a table of raw, by the names of their columns and in the types of the table."""
    warehouse = warehouse_at(url)
    warehouse.ensure_tables()
    if not table.startswith("raw."):
        raise typer.BadParameter("rows are loaded into raw; the rest is built from it")
    rows = warehouse.append_parquet(table, place)
    warehouse.analyze(table)
    err.print(f"{rows:,} rows into {table}")


@app.command()
def models() -> None:
    """List the models in the order they are built, with what they read."""
    found = load_models()
    table = Table("model", "kind", "reads", "what a row is")
    for name in build_order(found):
        model = found[name]
        about = model.description.splitlines()[0] if model.description else ""
        table.add_row(name, model.materialized, ", ".join(sorted(model.depends_on)), about)
    out.print(table)


@app.command()
def create_database(
    admin_url: Annotated[
        str, typer.Option("--admin-url", envvar="REKINDLE_WAREHOUSE_ADMIN_URL", help="the server, as its administrator")
    ],
    url: Url = None,
) -> None:
    """Make login and database of a PostgreSQL warehouse on this server, where they are missing."""
    warehouse = warehouse_at(url)
    if (
        warehouse.dialect != "postgres"
        or sqlalchemy.make_url(warehouse.url).host != sqlalchemy.make_url(admin_url).host
    ):
        err.print("the warehouse is not on this server; nothing to make")
        return
    made = postgres.create_database(admin_url, warehouse.url)
    err.print(f"made {' and '.join(made)}" if made else "login and database are there")


if __name__ == "__main__":
    run(app)
