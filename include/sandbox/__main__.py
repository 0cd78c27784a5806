"""`python -m include.sandbox`: serve the sandbox, draw the shop it is filled with, run the demo, ask its warehouse."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Local stand-ins of HubSpot, Mailchimp and Google Data Manager.", no_args_is_help=True)

PORT_TAKEN = 2


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on")] = 8010,
    state: Annotated[Path, typer.Option(help="SQLite file that holds the state")] = Path("build/sandbox.db"),
    seed_dir: Annotated[
        Path | None, typer.Option(help="folder of seed files; loaded when its dataset.json changed")
    ] = None,
    reset: Annotated[bool, typer.Option(help="begin with an empty state")] = False,
    as_of: Annotated[str, typer.Option(help="let the sandbox's clock begin at this time (ISO 8601, UTC)")] = "",
    hubspot_rate: Annotated[int, typer.Option(help="HubSpot requests per 10 seconds; 0 is no limit")] = 190,
    hubspot_index_lag: Annotated[float, typer.Option(help="seconds until HubSpot's search sees a change")] = 0.0,
    hubspot_missing_scope: Annotated[list[str] | None, typer.Option(help="a scope the HubSpot key lacks")] = None,
    mailchimp_bare_403: Annotated[bool, typer.Option(help="throttle with a bare 403 instead of a 429")] = False,
    google_polls: Annotated[int, typer.Option(help="status calls answered PROCESSING")] = 1,
    google_seconds: Annotated[float, typer.Option(help="a request nobody asks after is processed after this")] = 60.0,
    google_rate: Annotated[int, typer.Option(help="Data Manager requests per minute and kind; 0 is no limit")] = 300,
) -> None:
    """Serve all platforms and the page on one port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        typer.echo(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port", err=True)
        raise typer.Exit(PORT_TAKEN) from None

    import uvicorn

    from include.sandbox.datamanager import DataManagerConfig
    from include.sandbox.hubspot import HubSpotConfig
    from include.sandbox.mailchimp import MailchimpConfig
    from include.sandbox.server import Sandbox, SandboxConfig

    if reset:
        for suffix in ("", "-wal", "-shm"):
            state.with_name(state.name + suffix).unlink(missing_ok=True)
    offset = 0.0
    if as_of:
        try:
            begin = datetime.fromisoformat(as_of)
        except ValueError:
            raise typer.BadParameter(f"'{as_of}' is not an ISO 8601 time", param_hint="--as-of") from None
        offset = (begin if begin.tzinfo else begin.replace(tzinfo=UTC)).timestamp() - time.time()
    config = SandboxConfig(
        state=state,
        seed_dir=seed_dir,
        hubspot=HubSpotConfig(
            requests_per_ten_seconds=hubspot_rate,
            index_lag=hubspot_index_lag,
            missing_scopes=frozenset(hubspot_missing_scope or ()),
        ),
        mailchimp=MailchimpConfig(bare_403=mailchimp_bare_403),
        datamanager=DataManagerConfig(polls=google_polls, seconds=google_seconds, requests_per_minute=google_rate),
    )
    sandbox = Sandbox(config, clock=(lambda: time.time() + offset) if offset else time.time)
    typer.echo(f"sandbox at http://{host}:{port}/ (state {state})")
    server = uvicorn.Server(
        uvicorn.Config(
            sandbox,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=not offset,
        )
    )
    try:
        server.run(sockets=[listener])
    finally:
        sandbox.close()


@app.command()
def shop(
    out: Annotated[Path, typer.Option(help="folder to write the data set into")],
    people: Annotated[int, typer.Option(help="how many people the shop knows")] = 20_000,
    as_of: Annotated[str, typer.Option(help="the moment the data ends at (ISO 8601, UTC)")] = "2026-11-24T10:00",
    seed: Annotated[int, typer.Option(help="another number is another shop")] = 7,
) -> None:
    """Write an invented shop: web analytics, CRM, newsletter and files."""
    from include.sandbox.shop import generate

    generate(out, people, datetime.fromisoformat(as_of), seed)


@app.command()
def demo(
    people: Annotated[int, typer.Option(help="how many people the invented shop has")] = 20_000,
    data: Annotated[Path | None, typer.Option(help="run on published real data below this folder instead")] = None,
    wait: Annotated[bool, typer.Option(help="stay up until Ctrl-C")] = True,
    home: Annotated[Path, typer.Option(help="where the demo keeps its state")] = Path("build/demo"),
) -> None:
    """Run the whole line in a real Airflow against the sandbox."""
    from include.sandbox import demo as line

    raise typer.Exit(line.guarded(lambda: line.run(people=people, data=data, wait=wait, home=home.resolve())))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="a query, as in 'select * from reports.audience_results'")],
    home: Annotated[Path, typer.Option(help="where the demo keeps its state")] = Path("build/demo"),
) -> None:
    """Ask the warehouse of the demo that ran last."""
    from include.sandbox import demo as line

    raise typer.Exit(line.guarded(lambda: line.ask(query, home.resolve())))


if __name__ == "__main__":
    app(prog_name="python -m include.sandbox")
