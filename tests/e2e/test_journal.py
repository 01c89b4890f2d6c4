"""What real servers write on standard error: a line for each event, none for a request, and no flood."""

from __future__ import annotations

import contextlib
import json
import socket
import time

from balsadb import BlockingClerk
from balsadb.address import parse_address
from balsadb.server.journal import BURST, LINES_PER_SECOND
from balsadb.testing import LocalCluster
from e2e.load import wait_until

STRANGERS = 300
SECRET = "a value that nobody else may read"


def lines_of(node) -> list[dict]:
    return [json.loads(line) for line in node.log_path.read_text().splitlines()]


def events(node, event: str) -> list[dict]:
    return [line for line in lines_of(node) if line["event"] == event]


def reasons(node) -> list[str]:
    return [line["reason"] for line in lines_of(node) if line["event"] in ("role", "leader")]


def said(node, event: str, **fields) -> bool:
    return any(fields.items() <= line.items() for line in events(node, event))


def test_the_life_of_a_cluster_stands_in_the_journals_of_its_nodes_and_its_data_do_not():
    with LocalCluster(nodes=3, settings={"log-format": "json"}) as cluster:
        first = cluster.wait_leader()
        with BlockingClerk(cluster.servers) as clerk:
            clerk.put("k", SECRET)
            before = sum(len(lines_of(node)) for node in cluster.nodes.values())
            for number in range(300):
                clerk.put(f"key-{number}", SECRET)
            after = sum(len(lines_of(node)) for node in cluster.nodes.values())
            assert after - before < 30, "a line for each request would be 300"
            second = next(node for node in cluster.nodes if node != first)
            clerk.execute("RAFT", "TRANSFER", str(second))
            wait_until(lambda: said(cluster.nodes[second], "role", role="leader"), 20, "no transfer")
        old, new = cluster.nodes[first], cluster.nodes[second]
        wait_until(lambda: f"this node handed over to node {second}" in reasons(old), 20, "no hand-over")
        assert f"node {first} told this node to take over" in reasons(new)
        elected = next(line for line in events(new, "role") if line["role"] == "leader")
        assert second in elected["votes"]
        assert elected["reason"] == f"this node was elected in term {elected['term']}"

        cluster.stop(second)
        assert any(reason.endswith("; it stops") for reason in reasons(new))
        assert [line["event"] for line in lines_of(new)][-1] == "stopped"
        third = cluster.wait_leader(other_than=second)
        other = next(node for node in cluster.running if node.id != third)
        wait_until(lambda: said(other, "peer-lost", peer=second), 20, "nobody misses it")
        cluster.kill(third)
        wait_until(
            lambda: f"the connection to node {third} is gone" in reasons(other),
            20,
            "nobody misses the leader",
        )
        cluster.start(second)
        cluster.start(third)
        cluster.wait_ready()
        for node in cluster.nodes.values():
            assert SECRET not in node.log_path.read_text()
            assert {line["node"] for line in lines_of(node)} == {node.id}
            assert said(node, "started", boot=1, listen=node.client_address)
            assert said(node, "members", voters=[1, 2, 3])


def test_a_leader_that_hears_nobody_says_so(cluster):
    leader = cluster.wait_leader()
    others = [node for node in cluster.nodes if node != leader]
    for node in others:
        cluster.pause(node)
    node = cluster.nodes[leader]
    words = "this node had not heard a majority for an election timeout and stepped down"
    wait_until(lambda: words in node.log_path.read_text(), 20, "it goes on to lead")
    assert "event=role role=follower previous=leader" in node.log_path.read_text()


def test_strangers_at_the_port_of_the_peers_can_not_flood_the_journal():
    with LocalCluster(nodes=1, settings={"log-format": "json"}) as cluster:
        (node,) = cluster.nodes.values()
        began = time.monotonic()
        for _ in range(STRANGERS):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(parse_address(node.peer_address), 5) as stranger,
            ):
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\nlevel=error\n" * 4)
                stranger.settimeout(5)
                stranger.recv(100)
        with BlockingClerk(cluster.servers) as clerk:
            clerk.put("k", "v")
        closed = events(node, "peer-closed")
        allowed = BURST + (time.monotonic() - began) * LINES_PER_SECOND + 1
        assert BURST <= len(closed) <= allowed
        assert all(line["remote"].startswith("127.0.0.1:") for line in closed)
        assert {line["level"] for line in closed} == {"warning"}
