"""What one contender took, measured alike for all: only the standard library, for it runs in three environments.

The clock begins after the imports and ends when everything is acknowledged. Memory is the kernel's own high-water mark
of this process (`VmHWM`), beside what the bare interpreter had when the process began.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def memory_mb(key: str) -> float:
    """A line of /proc/self/status (`VmRSS`, `VmHWM`) in MB; 0 where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), 0.0)


START_MB = memory_mb("VmRSS")  # import this module before any other


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Measure what is done inside; the figures are in the dictionary afterwards."""
    figures: dict[str, Any] = {}
    began, used = time.perf_counter(), time.process_time()
    yield figures
    figures["seconds"], figures["cpu_seconds"] = time.perf_counter() - began, time.process_time() - used
    figures["start_mb"], figures["peak_mb"] = START_MB, memory_mb("VmHWM")


def say(figures: dict[str, Any], *, delivered: int, **more: Any) -> None:
    """Print the figures as the last line; `delivered` is how many members the contender believes are on the list."""
    print(json.dumps(figures | {"delivered": delivered} | more), flush=True)
