"""Erase a person: file a request and honour it at once.

python -m include.privacy erase --email ana@example.com
python -m include.privacy erase --phone +4915112345678 --later
python -m include.privacy status
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from include.privacy.honour import honour_requests
from include.privacy.requests import request_erasure
from include.shell import Url, err, new_app, out, run, warehouse_at
from include.warehouse.engine import Warehouse

app = new_app(__doc__)


@app.command()
def erase(
    email: Annotated[str, typer.Option("--email")] = "",
    phone: Annotated[str, typer.Option("--phone", help="with its country, like +49...")] = "",
    user_id: Annotated[str, typer.Option("--user-id", help="the login of the shop")] = "",
    visitor_id: Annotated[str, typer.Option("--visitor-id", help="a browser")] = "",
    contact_id: Annotated[str, typer.Option("--contact-id", help="<source>:<id>")] = "",
    later: Annotated[bool, typer.Option("--later", help="leave it to the next run of honour_privacy")] = False,
    url: Url = None,
) -> None:
    """File a request by one identifier, and honour every open request."""
    given = {
        kind: value
        for kind, value in {
            "email": email, "phone": phone, "user_id": user_id, "visitor_id": visitor_id, "contact_id": contact_id,
        }.items()
        if value.strip()
    }  # fmt: skip
    if len(given) != 1:
        raise typer.BadParameter("name the person by one identifier: EMAIL, PHONE, USER_ID, VISITOR_ID or CONTACT_ID")
    warehouse = warehouse_at(url)
    request_id = request_erasure(warehouse, *next(iter(given.items())))
    err.print(f"request {request_id}")
    if later:
        return
    honoured = honour_requests(warehouse)
    for reason in honoured.reasons:
        err.print(f"open: {reason}", markup=False, highlight=False, soft_wrap=True)
    out.print(_receipts(warehouse, request_id))


@app.command()
def status(url: Url = None) -> None:
    """Every request and how far it is."""
    warehouse = warehouse_at(url)
    warehouse.ensure_tables()
    out.print(_receipts(warehouse, None))


def _receipts(warehouse: Warehouse, request_id: str | None) -> Table:
    rows = warehouse.read(
        """
        select request_id, system, outcome, lists, rows, is_verified, detail, recorded_at
        from sync.erasure_receipts
        where cast(:request_id as text) is null or request_id = :request_id
        qualify row_number() over (partition by request_id, system order by recorded_at desc) = 1
        order by recorded_at, request_id, system
        """,
        request_id=request_id,
    )
    table = Table("request", "system", "outcome", "lists", "rows", "looked up", "what is missing", "at (UTC)")
    for row in rows:
        seen = {True: "yes", False: "no"}.get(row["is_verified"], "")
        at = f"{row['recorded_at']:%Y-%m-%d %H:%M:%S}"
        counts = (str(row["lists"] or ""), str(row["rows"] or ""))
        table.add_row(row["request_id"][:8], row["system"], row["outcome"], *counts, seen, row["detail"] or "", at)
    return table


if __name__ == "__main__":
    run(app)
