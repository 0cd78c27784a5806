"""One writer for each list on a machine; over machines the Airflow pool and `max_active_runs=1` are the limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from include.errors import TransientError
from include.settings import get_settings


@contextmanager
def one_writer(audience: str, destination: str) -> Iterator[None]:
    """Hold the list of a target; TransientError where another process of this machine is writing to it.

    A task that was given up may still be sending when its retry begins, and a push may hold somebody in memory whom an
    erasure is just taking off.
    """
    folder = get_settings().state_dir / "pushes"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{audience}.{destination}.lock", is_singleton=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TransientError(
            f"{audience} > {destination}: another process is pushing to this list; nothing was sent by this one",
            retry_after=60,
        ) from None
    try:
        yield
    finally:
        lock.release()
