"""A hundred thousand sessions on real nodes: memory that is bounded, and the same table everywhere."""

from __future__ import annotations

import time
from pathlib import Path

import redis

from balsadb.address import parse_address
from balsadb.testing import LocalCluster, LocalNode

SESSIONS = 100_000
AT_A_TIME = 5_000
GROWTH_MIB_MAX = 400
WAIT_SECONDS = 60.0


def client(node: LocalNode) -> redis.Redis:
    host, port = parse_address(node.client_address)
    return redis.Redis(host, port, protocol=2, socket_timeout=WAIT_SECONDS)


def resident_mib(node: LocalNode) -> float:
    status = Path(f"/proc/{node.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_a_hundred_thousand_sessions_are_the_same_on_all_nodes_and_cost_bounded_memory():
    with LocalCluster(nodes=3) as cluster:
        leader = cluster.wait_leader()
        before = {node.id: resident_mib(node) for node in cluster.running}
        with client(cluster.nodes[leader]) as server:
            for first in range(0, SESSIONS, AT_A_TIME):
                pipeline = server.pipeline(transaction=False)
                for number in range(first, first + AT_A_TIME):
                    pipeline.execute_command("SESSION", "OPEN", f"{number:032x}", 3_600_000)
                ids = pipeline.execute()
                assert len(set(ids)) == AT_A_TIME
            assert server.execute_command("ONCE", ids[0], 1, 1, "INCR", "k") == 1
            assert server.execute_command("ONCE", ids[0], 1, 1, "INCR", "k") == 1
            index, digest = server.execute_command("RAFT", "DIGEST")
        for node in cluster.running:
            with client(node) as other:
                assert digest_at(other, index) == digest, f"node {node.id} has another table"
            grown = resident_mib(node) - before[node.id]
            print(f"node {node.id}: {SESSIONS:,} sessions, {grown:.0f} MiB more")
            assert grown < GROWTH_MIB_MAX


def digest_at(server: redis.Redis, index: int) -> bytes:
    """Ask until the node has applied the entry."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return server.execute_command("RAFT", "DIGEST", index)[1]
        except redis.ResponseError:
            assert time.monotonic() < deadline, f"entry {index} is never applied"
            time.sleep(0.05)
