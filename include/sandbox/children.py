"""Child processes of the demo: started in groups of their own, ended with everything they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from include.errors import ConfigurationError
from include.settings import ROOT


def start(command: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a child in a process group of its own, its output in `log`."""
    with log.open("wb") as file:
        return subprocess.Popen(  # noqa: S603 (our own commands)
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=dict(environment), start_new_session=True
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child and everything it started, also what moved to a session of its own, as Airflow's scheduler does."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for member in family:
            with suppress(psutil.NoSuchProcess):
                end(member)
        _, family = psutil.wait_procs(family, timeout=15)
    process.wait()


def free_port(variable: str, default: int) -> int:
    """The port that the environment names, else the default; ConfigurationError when something listens there."""
    wanted = os.environ.get(variable) or str(default)
    if not wanted.isdecimal() or not 0 < int(wanted) < 65536:
        raise ConfigurationError(f"{variable}={wanted} is no port: a number from 1 to 65535")
    port = int(wanted)
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
    """Ctrl-C and a polite `kill` both end the demo, also where it runs in the background."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
