"""READONLY reads of real processes, and how old they may be as INFO says."""

from __future__ import annotations

import time

from balsadb.testing import _raft_facts
from e2e.load import Connection


def staleness(address: str) -> tuple[int, int]:
    """Return how old a server says that its state may be, and from when on it refuses."""
    facts = _raft_facts(address)
    return int(facts["readonly_staleness_ms"]), int(facts["readonly_staleness_limit_ms"])


def wait_until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the time is over"
        time.sleep(0.05)


def test_a_node_cut_off_reports_a_growing_bound_then_refuses_and_comes_back(cluster):
    leader = cluster.wait_leader()
    follower, other = (node for node in cluster.nodes if node != leader)
    address = cluster.nodes[follower].client_address
    connection = Connection(address)
    try:
        for node in cluster.nodes.values():
            wait_until(lambda node=node: 0 < staleness(node.client_address)[0] < 1_500, 10)
        assert connection.call(b"SET", b"k", b"v") == b"OK"
        assert connection.call(b"READONLY") == b"OK"
        assert connection.call(b"GET", b"k") == b"v"
        cluster.pause(leader)
        cluster.pause(other)
        paused = time.monotonic()
        before, limit = staleness(address)
        wait_until(lambda: staleness(address)[0] > 2_000, 10)
        assert staleness(address)[0] >= before
        assert connection.call(b"GET", b"k") == b"v", "still answered from its own state"
        wait_until(lambda: staleness(address)[0] > limit, 15)
        assert time.monotonic() - paused > 0.9 * (limit - before) / 1_000
        assert str(connection.call(b"GET", b"k")).startswith("CLUSTERDOWN this node's data may be too old")
        cluster.resume(leader)
        cluster.resume(other)
        wait_until(lambda: 0 < staleness(address)[0] < 1_500, 20)
        assert connection.call(b"GET", b"k") == b"v"
    finally:
        connection.close()
