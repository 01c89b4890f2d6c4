"""A real node whose resources are attacked: it goes on for others, and comes back by itself."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from pathlib import Path

import pytest

from balsadb.address import parse_address
from balsadb.storage.meta import decode_meta
from balsadb.testing import LocalCluster
from e2e.load import Connection, wait_until

pytestmark = pytest.mark.slow

SLOWEST_SECONDS = 2.0
"""For one command beside a flood; it takes 30 ms on a machine that has nothing else to do."""
SPARE_FILES = 3
REFUSED = b"-ERR max number of clients reached\r\n"
WATCH_SECONDS = 1.0
BUSY_SECONDS_MAX = 0.6
"""Processor time of the node in that second: a loop that tries to accept again and again takes all of it."""


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def knock(address: str) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(parse_address(address))
    return connection


def test_a_node_without_a_free_descriptor_neither_spins_nor_stops_and_accepts_again_later():
    """28: EMFILE. The node's own bounds keep it from this; somebody else on the machine may not."""
    with LocalCluster(nodes=1) as cluster, contextlib.ExitStack() as stack:
        node = cluster.nodes[1]
        client = Connection(node.client_address)
        stack.callback(client.close)
        assert client.call(b"SET", b"k", b"1") == b"OK"
        assert node.pid is not None
        # A new node notes the cluster's id once, in a new file, and is right to stop when it can't.
        meta = node.data_dir / "META"
        wait_until(lambda: decode_meta(str(meta), meta.read_bytes()).cluster_id, 10, "the cluster's id")
        for number in range(100):
            assert client.call(b"SET", b"k%d" % number, b"1") == b"OK"
        soft, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
        # The limit is one of numbers and not of how many there are.
        highest = max(int(name) for name in os.listdir(f"/proc/{node.pid}/fd"))
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (highest + 1 + SPARE_FILES, hard))
        for _ in range(40):
            stack.enter_context(knock(node.client_address))
        until = time.monotonic() + WATCH_SECONDS
        began = cpu_seconds(node.pid)
        calls = 0
        while time.monotonic() < until:
            assert client.call(b"GET", b"k") == b"1"  # others are served as before
            calls += 1
            time.sleep(0.02)
        assert cpu_seconds(node.pid) - began < BUSY_SECONDS_MAX
        assert calls > 10
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (soft, hard))
        later = Connection(node.client_address)
        stack.callback(later.close)
        assert later.call(b"GET", b"k") == b"1"
        assert node.running


def test_the_bounds_of_an_operator_hold():
    settings = {"max-clients": 7, "max-clients-per-address": 5, "client-idle-ms": 1500}
    with LocalCluster(nodes=1, settings=settings) as cluster, contextlib.ExitStack() as stack:

        def connect(source: str) -> socket.socket:
            server = parse_address(cluster.servers[0])
            connection = stack.enter_context(socket.create_connection(server, 10, (source, 0)))
            connection.settimeout(15)
            return connection

        idle = [connect("127.0.0.2") for _ in range(5)]
        assert connect("127.0.0.2").recv(100) == REFUSED  # one too many of its address
        idle += [connect("127.0.0.3") for _ in range(2)]
        assert connect("127.0.0.3").recv(100) == REFUSED  # one too many of all
        for connection in idle:
            assert connection.recv(100) == b""  # idle for too long
        connection = connect("127.0.0.2")
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"


def test_a_flood_of_short_commands_costs_a_leader_neither_its_term_nor_other_clients_their_answers():
    """Rule B1: clients never keep the other servers waiting so long that they look for a new leader."""
    with LocalCluster(nodes=3) as cluster, contextlib.ExitStack() as stack:
        leader = cluster.wait_leader()
        node = cluster.nodes[leader]
        client = Connection(node.client_address)
        stack.callback(client.close)
        term = facts(client)["raft_term"]
        flood = []
        for _ in range(150):
            connection = stack.enter_context(socket.create_connection(parse_address(node.client_address), 10))
            connection.setblocking(False)
            flood.append(connection)
        pings = b"PING\r\n" * 20_000
        until = time.monotonic() + 4
        slowest = 0.0
        while time.monotonic() < until:
            for connection in flood:
                with contextlib.suppress(BlockingIOError):
                    connection.send(pings)
                with contextlib.suppress(BlockingIOError):
                    connection.recv(1 << 18)
            started = time.monotonic()
            assert client.call(b"SET", b"k", b"v") == b"OK"
            slowest = max(slowest, time.monotonic() - started)
        found = facts(client)
        assert (found["raft_term"], found["raft_role"]) == (term, "leader")
        assert slowest < SLOWEST_SECONDS


def facts(client: Connection) -> dict[str, str]:
    text = client.call(b"INFO", b"raft")
    assert isinstance(text, bytes)
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
