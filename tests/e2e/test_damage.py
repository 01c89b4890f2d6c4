"""Random damage to the files of one of three nodes, over and over: clients only ever get right answers.

Each round kills a node, damages one of its files, and starts it again. It either refuses, with a sentence
that says what to do, which is then done; or it serves, and has what the others have. BALSADB_DAMAGES makes
the run longer, BALSADB_DAMAGE_SEED chooses another one.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from balsadb.sim.checkers.ledger import check_ledger
from balsadb.sim.checkers.linearizability import Verdict, check
from balsadb.sim.history import Action, Operation
from balsadb.storage.inspect import inspect
from balsadb.testing import LocalCluster, LocalNode
from e2e.load import Connection, wait_until
from e2e.shared_load import SharedLoad
from storage.damage import damage

DAMAGES = int(os.environ.get("BALSADB_DAMAGES", "30"))
SEED = int(os.environ.get("BALSADB_DAMAGE_SEED", "1"))
SETTINGS = {
    "election-timeout-ms": 300,
    "heartbeat-ms": 30,
    "request-timeout-ms": 1000,
    "snapshot-log-bytes": "4MiB",
}
CLIENTS = 2
PADDING = 12
"""Values of a megabyte that are written first, so that logs were let go and states have files."""
SECONDS_MAX = 60.0
AGREEMENT_SECONDS = 5.0
"""How long a node may be behind before another index is tried."""


def call(node: LocalNode, *argv: bytes):
    connection = Connection(node.client_address)
    try:
        return connection.call(*argv)
    finally:
        connection.close()


class Run:
    """One cluster and what is done to it."""

    def __init__(self, cluster: LocalCluster, tmp_path: Path, seed: int) -> None:
        self.cluster = cluster
        self.counts: Counter[str] = Counter()
        self._tmp_path = tmp_path
        self._rng = random.Random(f"damage {seed}")
        addresses = {node.id: node.client_address for node in cluster.nodes.values()}
        self.load = SharedLoad(addresses, CLIENTS, f"damage {seed}")

    def prepare(self) -> None:
        """Fill logs and states."""
        self.cluster.wait_leader()
        for number in range(PADDING):
            node = self.cluster.nodes[1 + number % 3]
            assert call(node, b"SET", b"padding-%d" % (number % 4), os.urandom(1 << 20)) in (b"OK", "OK")

    def round(self, number: int) -> None:
        """Damage a node once, and bring it back."""
        node = self._rng.choice(list(self.cluster.nodes.values()))
        if self._rng.random() < 0.5:
            self._write_state(node)
        self.cluster.kill(node.id)
        self._others_agree(node)
        saved, old = self._tmp_path / f"saved-{node.id}", self._tmp_path / f"old-{node.id}"
        if saved.exists():
            shutil.rmtree(old, ignore_errors=True)
            saved.rename(old)
        shutil.copytree(node.data_dir, saved)
        done = damage(self._rng, node.data_dir, old if old.exists() else None)
        print(f"{number}: node {node.id}, {done}", flush=True)
        try:
            self._start(node, saved)
            self._others_agree(None)
            assert not self.load.surprises, self.load.surprises[0]
        except AssertionError as error:
            lines = [f"damage {number} to node {node.id}: {done}: {error}", *map(self._describe, self._nodes)]
            raise AssertionError("\n".join(lines)) from error

    @property
    def _nodes(self) -> list[LocalNode]:
        return list(self.cluster.nodes.values())

    @staticmethod
    def _describe(node: LocalNode) -> str:
        """Say how a node is doing, for the report of a failure."""
        try:
            facts = call(node, b"INFO", b"raft").decode()
        except OSError as error:
            facts = repr(error)
        return f"--- node {node.id}: {node.exit_text}\n{node.log_tail()}\n{facts}"

    def _write_state(self, node: LocalNode) -> None:
        """Let a node make its state durable: sometimes all is in the state, sometimes in the log."""
        call(node, b"RAFT", b"SNAPSHOT")

    def _start(self, node: LocalNode, saved: Path) -> None:
        """Start a damaged node; repair what it says and start again."""
        began = node.log_path.stat().st_size
        self.cluster.start(node.id)
        if self._comes_up(node):
            self.counts["serves"] += 1
            return
        self.cluster.kill(node.id)  # it has left; this closes what it was started with
        said = node.log_path.read_bytes()[began:].decode(errors="replace")
        assert node.process is not None
        assert node.process.returncode in (1, 2, 3), f"status {node.process.returncode}: {said}"
        assert "Traceback" not in said, said
        assert str(node.data_dir) in said or "META" in said, said
        state = node.data_dir / "group-0" / "state"
        if f"Remove the directory {state}" in said:
            self.counts["refuses, and fetches the state"] += 1
            shutil.rmtree(state)
        elif "had acknowledged entry" in said:
            # It lost what it had written right before the kill, and the leader told it.
            self.counts["starts, learns what it has lost, and gets its files back"] += 1
            assert not inspect(str(node.data_dir)).sound, "the next start must be refused"
            shutil.rmtree(node.data_dir / "group-0")
            # `META` stays: the node has run since, and its starts must never be counted twice (rule P2).
            shutil.copytree(saved / "group-0", node.data_dir / "group-0")
        else:
            assert "event=started" not in said, f"it may have acknowledged something: {said}"
            self.counts["refuses, and gets its files back"] += 1
            shutil.rmtree(node.data_dir)
            shutil.copytree(saved, node.data_dir)
        self.cluster.start(node.id)
        assert self._comes_up(node), f"it was repaired and does not serve: {node.log_tail()}"

    def _comes_up(self, node: LocalNode) -> bool:
        """Wait until a node has what the others have (True), or has left."""
        others = [other for other in self.cluster.nodes.values() if other is not node]

        def settled() -> bool:
            return not node.running or self._agrees(others[0], node)

        wait_until(settled, SECONDS_MAX, f"the end or the service of node {node.id}")
        return node.running

    def _others_agree(self, without: LocalNode | None) -> None:
        """Wait until the other nodes serve and have the same state."""
        first, *others = [node for node in self.cluster.nodes.values() if node is not without]

        def agreed() -> bool:
            gone = [node for node in (first, *others) if not node.running]
            assert not gone, f"node {gone[0].id} {gone[0].exit_text} by itself: {gone[0].log_tail()}"
            return all(self._agrees(first, other) for other in others)

        wait_until(agreed, SECONDS_MAX, "agreement of the nodes that are left")

    def _agrees(self, first: LocalNode, other: LocalNode) -> bool:
        """Compare two nodes at an index; False when one of them does not get there within a while."""
        try:
            # Only when both are there. Every digest is an entry of the log, which each start computes anew,
            # and while a node comes up the other one would be asked for dozens of them.
            call(other, b"PING")
            told = call(first, b"RAFT", b"DIGEST")
            if not isinstance(told, list):
                return False
            index, digest = told
            deadline = time.monotonic() + AGREEMENT_SECONDS
            # The same index until the other one is there: it would never have the newest under load.
            while not isinstance(answer := call(other, b"RAFT", b"DIGEST", b"%d" % index), list):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
        except OSError:
            return False
        assert answer == [index, digest], f"nodes {first.id} and {other.id} differ at {index}"
        return True

    def judge(self) -> None:
        """Judge what the clients saw, together with what every node has now."""
        history = self.load.history
        final: dict[bytes, bytes | None] = {}
        for node in self.cluster.nodes.values():
            for key in sorted({operation.key for operation in history}):
                called = time.monotonic()
                value = call(node, b"GET", key)
                assert isinstance(value, bytes | None), value
                number = CLIENTS + node.id
                history.append(Operation(number, Action.GET, key, b"", value, called, time.monotonic()))
                final[key] = value
        finding = check(history)
        assert finding.verdict is Verdict.LINEARIZABLE, str(finding)
        appended = {key: value for key, value in final.items() if key in self.load.appended_only}
        check_ledger(history, appended, overwritten=False)
        check_ledger(history, {k: v for k, v in final.items() if k not in appended}, overwritten=True)


@pytest.mark.timeout(120 + 20 * DAMAGES)
def test_clients_get_only_right_answers_while_a_node_is_damaged_again_and_again(tmp_path):
    print(f"seed {SEED}")
    with LocalCluster(nodes=3, directory=tmp_path / "cluster", settings=SETTINGS) as cluster:
        run = Run(cluster, tmp_path, SEED)
        run.prepare()
        run.load.start()
        try:
            for number in range(DAMAGES):
                run.round(number)
        finally:
            run.load.stop()
        run.judge()
    print(dict(run.counts), f"{len(run.load.history)} operations")
    assert run.counts.total() == DAMAGES
    assert len(run.counts) >= 2, "one verdict only is no test"
