"""`make bench-parse`: what each DAG file costs to parse on top of `import airflow.sdk`, each in a fresh process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNS = 3


def seconds(code: str) -> float:
    """The median wall time of a fresh interpreter running `code`, as it measures itself."""
    timed = f"import time\nbegin = time.perf_counter()\n{code}\nprint(time.perf_counter() - begin)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    times = []
    for _ in range(RUNS):
        done = subprocess.run(
            [sys.executable, "-c", timed], capture_output=True, text=True, env=environment, check=True, cwd=ROOT
        )
        times.append(float(done.stdout.splitlines()[-1]))
    return statistics.median(times)


def main() -> None:
    """Print one line a file."""
    bare = seconds("import airflow.sdk")
    print(f"{'airflow.sdk alone':<24} {bare:5.2f} s")
    for path in sorted((ROOT / "dags").glob("*.py")):
        total = seconds(f"import airflow.sdk, runpy\nrunpy.run_path({str(path)!r})")
        print(f"{path.name:<24} {total:5.2f} s  {total - bare:+5.2f} s over the import, {total / bare:4.2f} times it")


if __name__ == "__main__":
    main()
