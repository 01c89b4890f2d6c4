"""An upgrade as an operator does it: one node after the other is stopped and started, and no client notices.

`benchmarks/restarts.py` does the work.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "restarts.py"
PAUSE_MS_MAX = 3_000
"""Far more than it takes: this test says that nobody hangs, and the benchmark how short it is."""


@pytest.mark.timeout(200)
def test_a_rolling_restart_under_load_gives_no_client_an_error(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, str(BENCHMARK), "--rounds", "1", "--directory", str(tmp_path)]
    done = subprocess.run(
        [*command, "--json", str(report)], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert [one["node"] for one in found["restarts"]] == [1, 2, 3]
    assert any(one["led"] for one in found["restarts"]), "leadership is handed over, not lost"
    assert not any(one["errors"] for one in found["restarts"])
    for one in found["restarts"]:
        assert max(one["gap_ms"], one["clerk_gap_ms"], one["plain_gap_ms"]) < PAUSE_MS_MAX
