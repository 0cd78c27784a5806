"""Child processes of the demo: started in groups of their own, ended with everything they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from include.errors import ConfigurationError
from include.settings import ROOT


def start(command: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a child in a process group of its own, its output in `log`."""
    with log.open("wb") as file:
        return subprocess.Popen(  # noqa: S603 (our own commands)
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=dict(environment), start_new_session=True
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child and all it started."""
    for kill, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, kill)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def free_port(variable: str, default: int) -> int:
    """The port that the environment names, else the default; ConfigurationError when something listens there."""
    port = int(os.environ.get(variable, default))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} is taken: stop what listens there, or choose another: {variable}={port + 1} make demo"
            ) from error
    return port


@contextmanager
def interruptible() -> Iterator[None]:
    """A polite `kill` ends the demo like Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
