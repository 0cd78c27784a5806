"""A small HTTP server in a thread that the real clients talk to: keeps a journal and can be told to misbehave."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    text: str


@dataclass(frozen=True)
class Reply:
    """What goes back; a body that is no text is sent as JSON."""

    status: int
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()


class LocalServer:
    """Base of the stand-ins: subclasses answer in `handle`; `faults` are sent before it is asked."""

    def __init__(self) -> None:
        self.journal: list[Request] = []
        self.faults: deque[Reply] = deque()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *arguments: object) -> None:
                pass

            def _answer(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                parts = urlsplit(self.path)
                try:
                    body = json.loads(text) if text else None
                except ValueError:
                    body = None
                request = Request(
                    self.command,
                    parts.path,
                    {key: values[0] for key, values in parse_qs(parts.query).items()},
                    {key.lower(): value for key, value in self.headers.items()},
                    body,
                    text,
                )
                with outer._lock:
                    outer.journal.append(request)
                    fault = outer.faults and outer.is_api(request)
                    reply = outer.faults.popleft() if fault else outer.handle(request)
                is_text = isinstance(reply.body, str)
                raw = (reply.body if is_text else json.dumps(reply.body)).encode() if reply.body is not None else b""
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(raw)))
                if raw:
                    self.send_header("Content-Type", "text/html" if is_text else "application/json")
                for name, value in reply.headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def is_api(self, request: Request) -> bool:
        """Whether a fault may hit this request."""
        return True

    def handle(self, request: Request) -> Reply:
        raise NotImplementedError
