"""The sandbox on a real port in a thread, so that the destinations' own clients talk to it; new and empty per test."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from include.sandbox.server import Receive, Sandbox, Scope, Send


@dataclass(frozen=True)
class Entry:
    """One request in the sandbox's journal; `path` is below the platform's prefix."""

    method: str
    path: str
    status: int
    rows: int
    text: str
    is_write: bool


class RunningSandbox:
    """A sandbox at `url`. `reset` puts an empty one in its place."""

    def __init__(self, listener: socket.socket) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.app = Sandbox()
        self.http = httpx.Client(base_url=self.url, timeout=30)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    def reset(self) -> None:
        old, self.app = self.app, Sandbox()
        old.close()

    def control(self, name: str, body: object) -> Any:
        """Steer it: `POST /_sandbox/<name>`."""
        answer = self.http.post(f"/_sandbox/{name}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def get(self, name: str, **params: str) -> Any:
        """Look behind the scenes: `GET /_sandbox/<name>`."""
        return self.http.get(f"/_sandbox/{name}", params=params).raise_for_status().json()

    def journal(self, platform: str, since: int = 0) -> list[Entry]:
        """The requests to one platform, oldest first."""
        prefix = next(one.prefix for one in self.app.platforms if one.name == platform)
        return [
            Entry(
                method=found["method"],
                path=found["path"].removeprefix(prefix),
                status=found["status"],
                rows=found["rows"],
                text=found["body"] if isinstance(found["body"], str) else json.dumps(found["body"] or ""),
                is_write=found["is_write"],
            )
            for found in self.get("journal", platform=platform, since=str(since))["entries"]
        ]

    def last_id(self) -> int:
        """The number of the newest request in the journal."""
        return int(self.get("journal", limit="1")["last_id"])


@contextmanager
def running_sandbox() -> Iterator[RunningSandbox]:
    """Serve a sandbox until the end of the block."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = RunningSandbox(listener)
        server = uvicorn.Server(uvicorn.Config(running, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        try:
            yield running
        finally:
            server.should_exit = True
            thread.join(10)
            running.http.close()
            running.app.close()
