"""What idle and hostile clients cost a node and its other clients.

    python benchmarks/attack.py --rounds 3

A cluster of three serves well-behaved clients at a fixed rate. In turns they are alone, and the leader is
also beset by 10,000 idle connections and 1,000 hostile ones (`attackers.py` says what those do). Printed are
the latencies of both, counted from when an operation was due, and the resident memory of the attacked node.
The exit status is 1 when the attack cost more than 256 MB of memory, when it doubled the 99th percentile,
when a well-behaved client saw an error, or when the cluster changed its leader.

The attackers run at a lower priority: usually they bring machines of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attackers import BIG_BYTES, BIG_KEY
from balsadb.testing import LocalCluster
from footprint import resident
from harness import BenchError, Machine, leave_on_signals, raft_fact, resp_call, wait_for

MEMORY_BYTES_MAX = 256 * 1000 * 1000
"""What an attack may cost beside what the node takes without it."""
P99_RATIO_MAX = 2.0
READY_SECONDS = 120.0
SETTLE_SECONDS = 3.0
"""From when all attackers are there until the clients are measured."""
SAMPLE_SECONDS = 0.1
NICE = 10
MARGIN_CLIENTS = 2_000
"""Places on the attacked node beside those of idle clients."""
HERE = Path(__file__).parent


@dataclass
class Phase:
    """One measurement of the well-behaved clients."""

    attacked: bool
    p99_ms: dict[str, float]
    """By command."""
    p50_ms: dict[str, float]
    max_ms: float
    operations: int
    errors: dict[str, int]
    memory_max: int
    """Of the node, in bytes, since the phase began: with attackers, since they began to connect."""
    told: dict[str, Any] = field(default_factory=dict)
    """What the attackers say happened to them."""


class Memory:
    """Watches the resident memory of a process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self.most = resident(pid)
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            with contextlib.suppress(FileNotFoundError):
                self.most = max(self.most, resident(self._pid))


@contextlib.contextmanager
def attackers(address: str, idle: int, hostile: int, told: dict[str, Any]) -> Iterator[None]:
    """Beset a node for as long as the block lasts; afterwards `told` has what happened to the attackers."""
    command = [
        sys.executable,
        str(HERE / "attackers.py"),
        address,
        "--idle",
        str(idle),
        "--hostile",
        str(hostile),
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.nice(NICE),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(READY_SECONDS, process.kill)
    timer.start()
    try:
        if process.stdout.readline().strip() != "ready":
            raise BenchError("the attackers could not all connect")
        timer.cancel()
        yield
        process.stdin.close()
        told.update(json.loads(process.stdout.readline()))
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def load(address: str, clients: int, rate: float, seconds: float) -> dict[str, Any]:
    """Let well-behaved clients work at a node; return what `balsadb bench` says."""
    command = [
        sys.executable,
        "-m",
        "balsadb",
        "bench",
        "--servers",
        address,
        "--operation",
        "mixed",
        "--json",
    ]
    command += ["--clients", str(clients), "--rate", str(rate), "--seconds", str(seconds), "--spread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if not done.stdout:
        raise BenchError(f"the clients could not work: {done.stderr.strip()[-300:]}")
    run: dict[str, Any] = json.loads(done.stdout)["runs"][0]
    return run


class Experiment:
    """A cluster, and phases with and without an attack on its leader."""

    def __init__(self, cluster: LocalCluster, given: argparse.Namespace) -> None:
        self.cluster = cluster
        self.given = given
        self.leader = cluster.wait_leader()
        self.node = cluster.nodes[self.leader]
        self.term = raft_fact(self.node.client_address, "raft_term")
        self.phases: list[Phase] = []

    def run(self) -> None:
        """Measure, in turns."""
        resp_call(self.node.client_address, "SET", BIG_KEY, b"x" * BIG_BYTES)
        load(self.node.client_address, self.given.clients, self.given.rate, 2.0)  # to warm up
        for _ in range(self.given.rounds):
            self._add(self._phase(attacked=False))
            self._add(self._phase(attacked=True))
            self._wait_alone()

    def _add(self, phase: Phase) -> None:
        self.phases.append(phase)
        name = "attacked" if phase.attacked else "alone"
        facts = "  ".join(
            f"{command} p50 {phase.p50_ms[command]:.2f} p99 {phase.p99_ms[command]:.2f}"
            for command in phase.p99_ms
        )
        print(
            f"{name:>9}: {phase.operations:,} operations, ms: {facts}  max {phase.max_ms:.1f}; errors "
            f"{sum(phase.errors.values())}; memory up to {phase.memory_max / 1e6:.0f} MB",
            flush=True,
        )
        for what, count in phase.told.items():
            print(
                f"{'':>11}{what}: {count:,.2f}" if isinstance(count, float) else f"{'':>11}{what}: {count:,}"
            )

    def _phase(self, *, attacked: bool) -> Phase:
        assert self.node.pid is not None
        told: dict[str, Any] = {}
        address, given = self.node.client_address, self.given
        with Memory(self.node.pid) as memory, contextlib.ExitStack() as stack:
            if attacked:
                stack.enter_context(attackers(address, given.idle, given.hostile, told))
                time.sleep(SETTLE_SECONDS)
            found = load(address, given.clients, given.rate, given.seconds)
        commands = found["commands"]
        errors: dict[str, int] = {}
        for command in commands:
            for word, count in command["errors"].items():
                errors[word] = errors.get(word, 0) + count
        return Phase(
            attacked,
            {command["command"]: command["p99_ms"] for command in commands},
            {command["command"]: command["p50_ms"] for command in commands},
            max(command["max_ms"] for command in commands),
            sum(command["operations"] for command in commands),
            errors,
            memory.most,
            told,
        )

    def _wait_alone(self) -> None:
        """Wait until the node has let go of the attackers."""

        def alone() -> bool:
            clients = resp_call(self.node.client_address, "INFO", "clients", seconds=10.0)
            assert isinstance(clients, bytes)
            lines = dict(line.split(":", 1) for line in clients.decode().splitlines() if ":" in line)
            return bool(int(lines["connected_clients"]) <= self.given.clients)

        wait_for(alone, 60.0, "the node to let go of the attackers")

    def verdict(self) -> list[str]:
        """Print what it comes to; return what is not as it should be."""
        alone = [phase for phase in self.phases if not phase.attacked]
        attacked = [phase for phase in self.phases if phase.attacked]
        faults = []
        for command in alone[0].p99_ms:
            before = statistics.median(phase.p99_ms[command] for phase in alone)
            after = statistics.median(phase.p99_ms[command] for phase in attacked)
            print(
                f"{command}: p99 {before:.2f} ms alone, {after:.2f} ms attacked, {after / before:.2f} times"
            )
            if after > P99_RATIO_MAX * before:
                faults.append(f"the p99 of {command} went up to {after / before:.2f} times")
        baseline = alone[0].memory_max
        cost = max(phase.memory_max for phase in attacked) - baseline
        print(f"memory: {baseline / 1e6:.0f} MB before, {cost / 1e6:.0f} MB more under attack at most")
        if cost > MEMORY_BYTES_MAX:
            faults.append(
                f"the attack cost {cost / 1e6:.0f} MB, and {MEMORY_BYTES_MAX / 1e6:.0f} are allowed"
            )
        errors = {word: count for phase in self.phases for word, count in phase.errors.items()}
        if errors:
            faults.append(f"well-behaved clients saw errors: {errors}")
        if (
            self.cluster.leader() != self.leader
            or raft_fact(self.node.client_address, "raft_term") != self.term
        ):
            faults.append("the cluster changed its leader")
        return faults


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measurement (default: 8)")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1_000.0, help="operations a second (default: 1000)")
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--hostile", type=int, default=1_000)
    given = parser.parse_args()
    leave_on_signals()
    with tempfile.TemporaryDirectory(prefix="balsadb-attack-") as directory:
        for line in Machine.inspect(Path(directory)).lines():
            print(line)
        settings = {"max-clients": given.idle + MARGIN_CLIENTS}
        with LocalCluster(nodes=3, directory=Path(directory) / "cluster", settings=settings) as cluster:
            experiment = Experiment(cluster, given)
            experiment.run()
            faults = experiment.verdict()
    for fault in faults:
        print(f"FAULT: {fault}")
    print("held" if not faults else "did not hold")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
