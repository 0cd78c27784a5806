"""What Airflow's processes find imported: packages only, and nothing that a fork would break."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from include.settings import ROOT

LOOK = """
import json, os, sys
from importlib import import_module
from include.sandbox.executor import EVERY_TASK_IMPORTS

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
for name in EVERY_TASK_IMPORTS:
    import_module(name)
ours = sorted(name for name in sys.modules if name.split(".")[0] in ("include", "dags", "plugins"))
print(json.dumps([before, threads(), ours]))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_it_begins_no_threads_and_imports_nothing_that_may_be_edited_meanwhile() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after, ours = json.loads(done.stdout.splitlines()[-1])
    assert after == before
    assert ours == ["include", "include.sandbox", "include.sandbox.executor"]
