"""Limits of an account hold over threads and processes, and a killed process gives its place back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import pytest

from include import pacing
from include.connections import Connection
from include.errors import ConfigurationError, Throttled
from include.pacing import Limits, Pace, pace_of


def use(folder: str, limits: Limits, calls: int, log: str) -> None:
    """Make calls in a process of its own; each notes when it began and ended."""
    pace = Pace("tool", limits, Path(folder))
    for _ in range(calls):
        with pace.turn():
            began = time.monotonic()
            time.sleep(0.01)
            with Path(log).open("a") as file:
                file.write(f"{began} {time.monotonic()}\n")


def hold(folder: str, limits: Limits, ready: Pipe) -> None:
    with Pace("tool", limits, Path(folder)).turn():
        ready.send("in")
        time.sleep(600)


def most_together(log: Path) -> int:
    spans = [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
    return max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)


def test_calls_at_once_are_counted_over_threads_and_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log, limits = tmp_path / "log", Limits(connections=2)
    processes = [
        context.Process(target=use, args=(str(tmp_path / "p"), limits, 5, str(log))) for _ in range(3)
    ]  # fmt: skip
    threads = [threading.Thread(target=use, args=(str(tmp_path / "p"), limits, 5, str(log))) for _ in range(2)]
    for worker in [*processes, *threads]:
        worker.start()
    for worker in [*processes, *threads]:
        worker.join(60)
    assert len(log.read_text().splitlines()) == 25
    assert most_together(log) == 2


def test_calls_in_a_minute_are_counted_over_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(per_minute=7)
    context = multiprocessing.get_context("fork")
    other = context.Process(target=use, args=(str(tmp_path), limits, 5, str(tmp_path / "log")))
    other.start()
    other.join(60)
    monkeypatch.setattr(pacing, "PATIENCE_SECONDS", 0.2)
    pace = Pace("tool", limits, tmp_path)
    for _ in range(2):
        with pace.turn():
            pass
    with pytest.raises(Throttled, match="calls in this minute"), pace.turn():
        pass


def test_a_killed_process_gives_its_place_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "PATIENCE_SECONDS", 0.1)
    limits = Limits(connections=1)
    context = multiprocessing.get_context("fork")
    ready, theirs = context.Pipe(duplex=False)
    holder = context.Process(target=hold, args=(str(tmp_path), limits, theirs))
    holder.start()
    ready.recv()
    pace = Pace("tool", limits, tmp_path)
    with pytest.raises(Throttled, match="calls at once"), pace.turn():
        pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with pace.turn():
        pass


def test_accounts_do_not_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "PATIENCE_SECONDS", 0.1)
    limits = Limits(connections=1)
    with Pace("one", limits, tmp_path).turn(), Pace("two", limits, tmp_path).turn():
        pass


def test_the_connection_may_state_other_limits_and_share_an_account() -> None:
    vendor = Limits(connections=6, per_minute=300)
    assert pace_of("tool", Connection("c"), vendor).limits == vendor
    extra = {"max_connections": "3", "requests_per_minute": 0, "account": "main"}
    pace = pace_of("tool", Connection("c", extra=extra), vendor)
    assert pace.limits == Limits(connections=3, per_minute=None)
    assert pace.account == pace_of("tool", Connection("d", extra=extra), vendor).account
    with pytest.raises(ConfigurationError, match=r"connection c: the extra 'max_connections' is a whole number"):
        pace_of("tool", Connection("c", extra={"max_connections": "many"}), vendor)
