"""What clients see while servers die and cables are pulled."""

from __future__ import annotations

import random
import socket
import threading
import time

import pytest

from balsadb.address import parse_address
from balsadb.sim.checkers.linearizability import Verdict, check
from balsadb.testing import LocalCluster
from e2e.link_proxy import cluster_behind_proxies
from e2e.load import Connection, expected, read_everywhere, start_appenders, wait_until


def term(cluster, node_id: int) -> int:
    connection = Connection(cluster.nodes[node_id].client_address)
    try:
        info = connection.call(b"INFO", b"raft").decode()
    finally:
        connection.close()
    return int(dict(line.split(":", 1) for line in info.splitlines() if ":" in line)["raft_term"])


def judge(appenders, cluster, *, exact: bool) -> None:
    """Check that every acknowledged append is there, once and in order, and that the reads were right.

    `exact`: no client had an error, so nothing else may be there either. Otherwise one append per client
    has an open outcome.
    """
    for appender in appenders:
        (value,) = set(read_everywhere(cluster.servers, appender.key))
        acknowledged = expected(appender.acknowledged)
        allowed = {acknowledged} if exact else {acknowledged, expected(appender.acknowledged + 1)}
        assert (value or b"") in allowed, f"{appender.key!r}: {appender.acknowledged} were acknowledged"
    finding = check(operation for appender in appenders for operation in appender.history)
    assert finding.verdict is Verdict.LINEARIZABLE, str(finding)


def test_clients_of_other_nodes_see_only_a_pause_when_the_leader_is_killed(cluster):
    leader = cluster.wait_leader()
    others = [node.client_address for node in cluster.nodes.values() if node.id != leader]
    stop = threading.Event()
    appenders = start_appenders(others, 4, stop)
    wait_until(lambda: all(a.acknowledged > 20 for a in appenders), 20, "the load did not start")
    cluster.kill(leader)
    at_kill = [appender.acknowledged for appender in appenders]
    wait_until(
        lambda: all(a.acknowledged > n + 20 for a, n in zip(appenders, at_kill, strict=True)),
        20,
        "writes did not go on",
    )
    stop.set()
    for appender in appenders:
        appender.join(20)
    assert [error for appender in appenders for error in appender.errors] == []
    assert max(appender.longest_gap for appender in appenders) < 5
    cluster.start(leader)
    cluster.wait_ready()
    judge(appenders, cluster, exact=True)


@pytest.mark.parametrize("round_number", range(3))
def test_nothing_acknowledged_is_lost_when_all_nodes_are_killed_at_once(cluster, round_number):
    stop = threading.Event()
    appenders = start_appenders(cluster.servers, 3, stop)
    wait_until(lambda: all(a.acknowledged > 20 for a in appenders), 20, "the load did not start")
    terms = {node_id: term(cluster, node_id) for node_id in cluster.nodes}
    for node in cluster.nodes.values():
        node.process.kill()
    cluster.kill()
    stop.set()
    for appender in appenders:
        appender.join(20)
    order = random.Random(round_number).sample(sorted(cluster.nodes), len(cluster.nodes))
    for node_id in order:
        cluster.start(node_id)
    cluster.wait_ready()
    assert all(term(cluster, node_id) >= terms[node_id] for node_id in cluster.nodes)
    judge(appenders, cluster, exact=False)


@pytest.fixture
def cuttable():
    """Three nodes whose six one-way links can be cut, and the links."""
    with cluster_behind_proxies(3) as both:
        yield both


def test_a_leader_without_a_majority_acknowledges_and_reads_nothing(cuttable):
    cluster, links = cuttable
    leader = cluster.wait_leader()
    survivors = [node_id for node_id in cluster.nodes if node_id != leader]
    minority = Connection(cluster.nodes[leader].client_address)
    assert minority.call(b"SET", b"k", b"before") in (b"OK", "OK")
    for (a, b), link in links.items():
        if leader in (a, b):
            link.cut()
    # The old leader may still believe in itself: neither a write nor a read may be answered by it.
    answers = {}

    def ask(name: bytes, *argv: bytes) -> None:
        connection = Connection(cluster.nodes[leader].client_address)
        answers[name] = connection.call(*argv)
        connection.close()

    threads = [
        threading.Thread(target=ask, args=(b"write", b"APPEND", b"k", b"-minority")),
        threading.Thread(target=ask, args=(b"read", b"GET", b"k")),
    ]
    for thread in threads:
        thread.start()
    majority = Connection(cluster.nodes[survivors[0]].client_address)
    deadline = time.monotonic() + 15
    while (reply := majority.call(b"SET", b"k", b"after")) not in (b"OK", "OK"):
        assert time.monotonic() < deadline, reply
    for thread in threads:
        thread.join(15)
    assert str(answers[b"write"]).split()[0] in {"UNKNOWN", "CLUSTERDOWN", "TRYAGAIN"}
    assert str(answers[b"read"]).split()[0] in {"CLUSTERDOWN", "TRYAGAIN"}
    for link in links.values():
        link.heal()
    wait_until(
        lambda: minority.call(b"GET", b"k") == b"after", 15, "the old leader did not return to the cluster"
    )
    for connection in (minority, majority):
        connection.close()


def test_a_single_cut_link_disturbs_nobody(cuttable):
    cluster, links = cuttable
    leader = cluster.wait_leader()
    before = term(cluster, leader)
    first, second = (node_id for node_id in cluster.nodes if node_id != leader)
    stop = threading.Event()
    appenders = start_appenders(cluster.servers, 1, stop)
    for link in ((first, second), (second, first)):
        links[link].cut()
    wait_until(lambda: all(a.acknowledged > 200 for a in appenders), 30, "writes did not go on")
    stop.set()
    for appender in appenders:
        appender.join(10)
    assert [error for appender in appenders for error in appender.errors] == []
    assert cluster.leader() == leader
    assert term(cluster, leader) == before
    judge(appenders, cluster, exact=True)


def test_what_came_during_a_pause_of_the_process_has_its_time_after_it():
    """The clock of the last turn is that of before the pause; by it the request would be overdue at once."""
    with (
        LocalCluster(nodes=1, settings={"request-timeout-ms": 500}) as cluster,
        socket.create_connection(parse_address(cluster.servers[0]), 10) as connection,
    ):
        for _ in range(3):
            cluster.pause(1)
            connection.sendall(b"SET k 1\r\n")
            time.sleep(1)  # this is the pause, longer than the time-out
            cluster.resume(1)
            assert connection.recv(1000) == b"+OK\r\n"
