"""Bad input on the client port: the stated error, a closed connection, and nobody else notices."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from balsadb.address import parse_address
from balsadb.testing import LocalCluster
from e2e.load import Connection

CASES = {
    "array too long": (b"*1000000000\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    "array beyond 64 bits": (
        b"*99999999999999999999\r\n",
        b"-ERR Protocol error: invalid multibulk length\r\n",
    ),
    "array length with underscore": (b"*1_0\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    "array length with plus": (b"*+5\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    "array length with zero": (b"*05\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    "bulk too long": (b"*1\r\n$2000000000\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    "negative bulk": (b"*1\r\n$-1\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    "bulk length of letters": (b"*1\r\n$blabla\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    "empty bulk length": (b"*1\r\n$\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    "no bulk": (b"*1\r\nfoo\r\n", b"-ERR Protocol error: expected '$', got 'f'\r\n"),
    "integer as argument": (b"*1\r\n:1\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
    "nested array": (b"*1\r\n*1\r\n", b"-ERR Protocol error: expected '$', got '*'\r\n"),
    "unbalanced quotes": (b'SET "a\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    "endless inline": (b"a" * 70_000, b"-ERR Protocol error: too big inline request\r\n"),
    "endless array header": (b"*" + b"1" * 70_000, b"-ERR Protocol error: too big mbulk count string\r\n"),
    "endless bulk header": (
        b"*1\r\n$" + b"1" * 70_000,
        b"-ERR Protocol error: too big bulk count string\r\n",
    ),
    "HTTP": (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
}


def memory_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def receive_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := connection.recv(65_536):
            received += chunk
    except ConnectionResetError:
        pass  # closed with our input unread; what was sent before it was received above
    return received


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_its_error_and_a_closed_connection(shared_cluster, name):
    data, error = CASES[name]
    address = shared_cluster.servers[0]
    bystander = Connection(address)
    before = memory_bytes(shared_cluster.nodes[1].pid)
    with socket.create_connection(parse_address(address), 10) as connection:
        started = time.monotonic()
        connection.sendall(data)
        received = receive_all(connection)
        elapsed = time.monotonic() - started
    assert received == error
    assert elapsed < 2
    assert bystander.call(b"SET", b"bystander", name.encode()) == b"OK"
    bystander.close()
    assert memory_bytes(shared_cluster.nodes[1].pid) - before < 16 * 1024 * 1024


def test_an_absurd_array_is_refused_in_under_50_ms(shared_cluster):
    times = []
    for _ in range(5):
        with socket.create_connection(parse_address(shared_cluster.servers[0]), 10) as connection:
            started = time.monotonic()
            connection.sendall(b"*1000000000\r\n")
            assert receive_all(connection).startswith(b"-ERR Protocol error")
            times.append(time.monotonic() - started)
    assert min(times) < 0.05


def test_what_came_before_bad_input_is_answered(shared_cluster):
    with socket.create_connection(parse_address(shared_cluster.servers[0]), 10) as connection:
        connection.sendall(b"SET before 1\r\nGET before\r\n*1\r\n$-5\r\n")
        assert receive_all(connection) == b"+OK\r\n$1\r\n1\r\n-ERR Protocol error: invalid bulk length\r\n"


def test_a_client_that_closes_its_sending_side_gets_its_replies(shared_cluster):
    with socket.create_connection(parse_address(shared_cluster.servers[1]), 10) as connection:
        connection.sendall(b"SET half 1\r\nGET half\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == b"+OK\r\n$1\r\n1\r\n"


def test_a_client_that_vanishes_in_the_middle_disturbs_nobody(shared_cluster):
    address = parse_address(shared_cluster.servers[0])
    for _ in range(50):
        with socket.create_connection(address, 10) as connection:
            connection.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nv\r\n$100\r\nabc")
    for _ in range(50):
        with socket.create_connection(address, 10) as connection:
            connection.sendall(b"INCR vanished\r\n" * 20)
    connection = Connection(shared_cluster.servers[0])
    assert connection.call(b"PING") == b"PONG"
    connection.close()


def test_a_client_that_never_reads_costs_bounded_memory(shared_cluster):
    """Pipelined GETs of a large value would be gigabytes of replies."""
    writer = Connection(shared_cluster.servers[0])
    writer.call(b"SET", b"big", b"x" * 1024 * 1024)
    pid = shared_cluster.nodes[1].pid
    before = memory_bytes(pid)
    with socket.create_connection(parse_address(shared_cluster.servers[0]), 10) as connection:
        connection.setblocking(False)
        command = b"GET big\r\n" * 1000
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                connection.send(command)
            except BlockingIOError:
                time.sleep(0.05)
        assert writer.call(b"GET", b"big") is not None
        assert memory_bytes(pid) - before < 128 * 1024 * 1024
    writer.call(b"DEL", b"big")
    writer.close()


@pytest.mark.parametrize(
    "data", [b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", b"*1\r\n$4\r\nPING\r\n", b"\xff" * 5000]
)
def test_nonsense_on_the_peer_port_is_closed(shared_cluster, data):
    with socket.create_connection(parse_address(shared_cluster.nodes[2].peer_address), 10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == b""
    connection = Connection(shared_cluster.servers[1])
    assert connection.call(b"PING") == b"PONG"
    connection.close()


FEW_FILES = ("sh", "-c", 'ulimit -n 512; exec "$0" "$@"', sys.executable, "-P", "-m", "balsadb", "serve")


@pytest.mark.parametrize("port", ["client_address", "peer_address", "http_address"])
def test_idle_connections_leave_the_node_enough_open_files(port):
    """A node that can't open the next file of its log has to stop."""
    with LocalCluster(nodes=1, command=FEW_FILES) as cluster:
        node = cluster.nodes[1]
        writer = Connection(node.client_address)
        idle = [socket.create_connection(parse_address(getattr(node, port)), 10) for _ in range(600)]
        for number in range(20):
            assert writer.call(b"SET", b"key", b"%d" % number * 100_000) == b"OK"
        assert node.running
        for connection in idle:
            connection.close()
        writer.close()
