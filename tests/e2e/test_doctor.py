"""balsadb doctor on a real cluster, from health to the loss of a majority."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def doctor(cluster, *arguments: str) -> tuple[int, dict]:
    command = [sys.executable, "-m", "balsadb", "doctor", "--json", "--servers", ",".join(cluster.servers)]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=30, env={**os.environ}, check=False
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def until(cluster, status: int, part: str) -> dict:
    """Ask until the verdict is the expected one; returns the finding with `part` in it."""
    deadline = time.monotonic() + 20
    while True:
        got, answer = doctor(cluster)
        found = [finding for finding in answer["findings"] if part in finding["problem"]]
        if got == status and found:
            return found[0]
        assert time.monotonic() < deadline, f"status {got}: {answer['findings']}"


def test_doctor_tells_health_a_dead_node_and_a_lost_majority_apart(cluster):
    leader = cluster.wait_leader()
    followers = [node for node in cluster.nodes if node != leader]
    deadline = time.monotonic() + 20
    # A machine that is busy with other tests may be slow, which doctor then says.
    while (answer := doctor(cluster))[0] != 0:
        slow = ("takes", "held up", "disk is nearly full")
        wrong = [
            f["problem"] for f in answer[1]["findings"] if not any(word in f["problem"] for word in slow)
        ]
        if not wrong:
            break
        assert time.monotonic() < deadline, wrong
    assert {server["id"] for server in answer[1]["servers"]} == {1, 2, 3}
    dead = followers[0]
    cluster.kill(dead)
    finding = until(cluster, 1, f"node {dead} at {cluster.nodes[dead].client_address} does not answer")
    assert finding["problem"].endswith("with one more loss the cluster stops")
    cluster.kill(followers[1])
    finding = until(cluster, 3, "nobody leads")
    assert finding["problem"] == "nobody leads: 1 of 3 voters answers, and 2 are needed"
