"""Each contender in a process of its own, and the environments and the server they need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from include.settings import ROOT

PEERS = {
    "dlt": ("dlt[duckdb]==1.31.0", "pyarrow==26.0.1", "duckdb==2.0.1"),
    "drt": ("drt-core[duckdb,postgres]==1.2.1", "duckdb==2.0.1"),
}


class Died(Exception):
    """A contender that did not come to its end, or could not be had."""


@dataclass
class Run:
    """One run of one contender: what it took, what it believes, and what the server saw."""

    seconds: float = 0
    cpu_seconds: float = 0
    start_mb: float = 0
    peak_mb: float = 0
    delivered: int = 0
    refused: int = 0
    server: dict[str, Any] = field(default_factory=dict)
    failure: str = ""

    @property
    def above_mb(self) -> float:
        """Memory above what the bare interpreter has."""
        return self.peak_mb - self.start_mb


class Server:
    """The server as the one who started it sees it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + path) as answer:  # 127.0.0.1 only
            return dict(json.load(answer))


@contextmanager
def running() -> Iterator[Server]:
    """A server in a process of its own, until the end."""
    command = [sys.executable, "-m", "tests.benchmarks.sync.server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Server(int(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait()


def environment(name: str, folder: Path) -> str:
    """The interpreter of an environment with one peer in it, made on first use; Died says why there is none."""
    home = folder / name
    python = home / "bin" / "python"
    wanted = "\n".join(PEERS[name])
    stamp = home / "wanted.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if uv is None:
        raise Died("uv is not there to make its environment")
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)],
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *PEERS[name]],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no reason given"]
            raise Died(f"could not be installed: {said[-1][:200]}")
    stamp.write_text(wanted)
    return str(python)


def run(python: str, module: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Run:
    """Run one module of this package to its end and read its last line; Died with the last line of its complaint."""
    command = [python, "-m", f"tests.benchmarks.sync.{module}", *arguments]
    surroundings = {**os.environ, **(environ or {})}
    with TemporaryFile("w+") as log:  # not a pipe: nobody reads it before the end
        done = subprocess.run(
            command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, stderr=log, text=True, check=False
        )
        log.seek(0)
        complaint = [line for line in log.read().splitlines() if line.strip()]
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise Died(f"{complaint[-1][:300] if complaint else f'ended with {done.returncode}'}")
    told = json.loads(lines[-1])
    known = {key: told[key] for key in told if key in Run.__dataclass_fields__}
    return Run(**known)
