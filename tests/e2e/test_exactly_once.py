"""Clerks against real nodes whose leader is killed and whose answers are cut off: every write happens once.

`benchmarks/exactly_once.py` does the work; a run of a million operations is for a person who asks for it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "exactly_once.py"


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_while_leaders_fall_and_answers_are_cut_off(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, str(BENCHMARK), "--operations", "60000", "--every", "1.5", "--workers", "16"]
    done = subprocess.run(
        [*command, "--directory", str(tmp_path), "--json", str(report)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["operations"] == 60000
    assert found["answers_cut"] >= 0.1 * (found["answers_cut"] + found["answers_passed"])
    assert found["retries"] > 1000
    assert found["kills"] + found["pauses"] >= 1
    assert found["snapshot_index"] > 0  # the sessions went through snapshots, too
    # The same network doubles what is sent again without a session, so there was something to go wrong.
    assert found["plain_doubled"] > 0
