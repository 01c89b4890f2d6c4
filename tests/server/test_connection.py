"""One client connection: replies in order, and bounds on what one client can make the node do or hold."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from balsadb.kv.reply import NullArray, Refusal
from balsadb.replica.request import RequestKind
from balsadb.resp.parser import CommandParser
from balsadb.server import intake, listener
from balsadb.server.clock import Clock
from balsadb.server.connection import OUTPUT_BYTES_HIGH, UNANSWERED_BYTES_MAX, ClientConnection
from balsadb.server.listener import HELD_BYTES_HIGH, Listener


class Transport:
    """A socket whose other end reads nothing until it is told to."""

    def __init__(self) -> None:
        self.protocol: ClientConnection
        self.sent = bytearray()
        self.unread = 0
        self.reading = True
        self.closed = False

    def set_write_buffer_limits(self, high: int) -> None:
        self._high = high

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return "127.0.0.1", 5

    def write(self, data: bytes) -> None:
        self.sent += data
        self.unread += len(data)
        if self.unread > self._high:
            self.protocol.pause_writing()

    def read_all(self) -> None:
        self.unread = 0
        self.protocol.resume_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return self.unread


class Server:
    """A listener over a replica that only keeps what it is asked for."""

    def __init__(self) -> None:
        self.requests = []
        replica = SimpleNamespace(submit=self.submit, held_bytes=0, now_ms=1, wall_ms=1)
        self.replica = replica
        self.listener = Listener(SimpleNamespace(replica=replica, wake=lambda: None), self, Clock(), 10)

    def submit(self, request, now_ms) -> None:
        request.lane.held_bytes += request.size
        self.requests.append(request)

    def connect(self) -> tuple[ClientConnection, Transport]:
        connection, transport = ClientConnection(self.listener), Transport()
        transport.protocol = connection
        connection.connection_made(transport)
        return connection, transport

    def answer(self, reply) -> None:
        """Give every open request this reply to each of its commands, and end the turn."""
        answered, self.requests = self.requests, []
        for request in answered:
            request.replies = [reply] * request.answers
            request.lane.held_bytes -= request.size
        self.listener.finished(answered)
        self.listener.flush()

    def status(self):
        configuration = SimpleNamespace(member=lambda node: None)
        return SimpleNamespace(id=1, leader=1, last_leader=1, configuration=configuration)


@pytest.fixture(autouse=True)
def time_enough(monkeypatch):
    """Bounds in time are for a node; here they would make a busy machine decide what happens."""
    monkeypatch.setattr(listener, "TURN_INPUT_SECONDS_MAX", 60.0)


@pytest.fixture
def server():
    return Server()


def test_replies_that_the_client_does_not_read_are_not_encoded(server):
    """Each is a reference to a value in the database; encoded they would be copies, one for every command."""
    connection, transport = server.connect()
    for _ in range(50):
        connection.data_received(b"GET big\r\n")
    big = bytes(OUTPUT_BYTES_HIGH // 2)
    server.answer(big)
    assert len(transport.sent) < 3 * OUTPUT_BYTES_HIGH
    for _ in range(50):
        transport.read_all()
        server.listener.flush()
    assert transport.sent == b"$%d\r\n%b\r\n" % (len(big), big) * 50


def test_a_client_that_had_to_wait_is_read_again_although_the_node_was_overloaded_when_it_was_answered(
    server,
):
    connection, transport = server.connect()
    for key in (b"a", b"b"):
        connection.data_received(b"*3\r\n$3\r\nSET\r\n$1\r\n%b\r\n$%d\r\n" % (key, UNANSWERED_BYTES_MAX))
        connection.data_received(bytes(UNANSWERED_BYTES_MAX) + b"\r\n")
    assert not transport.reading
    server.replica.held_bytes = HELD_BYTES_HIGH + 1  # others fill the node
    server.answer(1)
    assert not transport.reading
    server.replica.held_bytes = 0
    server.listener.flush()
    server.answer(1)  # the second one came while the client was not read, and has waited until now
    server.listener.flush()
    assert transport.reading


def test_many_commands_that_the_node_answers_by_itself_take_many_turns(server, monkeypatch):
    """Else one piece of input keeps everybody else waiting for as long as it can ask for."""
    monkeypatch.setattr(intake, "LOCAL_NS_MAX", 0)
    connection, transport = server.connect()
    connection.data_received(b"".join(b"ECHO %d\r\n" % number for number in range(20)))
    assert not transport.reading
    turns = 0
    while not transport.reading:
        turns += 1
        server.listener.flush()
    assert turns >= 10
    assert transport.sent == b"".join(b"$%d\r\n%d\r\n" % (len(str(n)), n) for n in range(20))


def test_what_follows_in_line_waits_for_the_answers_before_it(server, monkeypatch):
    monkeypatch.setattr(intake, "LOCAL_NS_MAX", 0)
    connection, transport = server.connect()
    connection.data_received(b"PING\r\nGET a\r\nPING\r\nGET b\r\nPING\r\nPING\r\n*1\r\n$-5\r\n")
    connection.eof_received()
    for _ in range(10):
        server.listener.flush()
    assert len(server.requests) == 1
    while server.requests:
        server.answer(None)
        for _ in range(10):
            server.listener.flush()
    nil, pong, error = b"$-1\r\n", b"+PONG\r\n", b"-ERR Protocol error: invalid bulk length\r\n"
    assert transport.sent == pong + nil + pong + nil + pong + pong + error
    assert transport.closed


def test_the_end_of_input_closes_only_after_all_that_was_read(server, monkeypatch):
    monkeypatch.setattr(intake, "LOCAL_NS_MAX", 0)
    connection, transport = server.connect()
    connection.data_received(b"PING\r\n" * 6)
    connection.eof_received()
    while not transport.closed:
        server.listener.flush()
    assert transport.sent == b"+PONG\r\n" * 6


def test_a_command_is_answered_in_the_protocol_that_was_spoken_when_it_was_sent(server):
    connection, transport = server.connect()
    connection.data_received(b"GET a\r\nHELLO 3\r\nGET b\r\nHELLO 2\r\nGET c\r\n")
    while server.requests:
        server.answer(None)
        server.listener.flush()
    assert transport.sent.startswith(b"$-1\r\n%7\r\n")
    assert b"\r\n_\r\n*14\r\n" in transport.sent
    assert transport.sent.endswith(b"\r\n$-1\r\n")


def test_readonly_says_nothing_about_what_was_sent_before_it(server):
    connection, transport = server.connect()
    connection.data_received(b"GET a\r\nREADONLY\r\nGET b\r\nREADWRITE\r\nGET c\r\n")
    kinds = []
    while server.requests:
        kinds += [request.kind for request in server.requests]
        server.answer(b"1")
        server.listener.flush()
    assert kinds == [RequestKind.READ, RequestKind.STALE_READ, RequestKind.READ]
    assert transport.sent == b"$1\r\n1\r\n+OK\r\n$1\r\n1\r\n+OK\r\n$1\r\n1\r\n"


def test_an_unfinished_command_is_not_measured_with_every_byte_of_it(server, monkeypatch):
    measured = []
    real = CommandParser.buffered_bytes.fget

    def measure(parser):
        measured.append(parser)
        return real(parser)

    monkeypatch.setattr(CommandParser, "buffered_bytes", property(measure))
    connection, _ = server.connect()
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n":
        connection.data_received(bytes([byte]))
    assert connection.stuck_since_ms
    assert len(measured) <= 2


def test_one_client_too_many_is_told_so_and_closed(server):
    for _ in range(10):
        server.connect()
    _, transport = server.connect()
    assert transport.sent == b"-ERR max number of clients reached\r\n"
    assert transport.closed


VALUE = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200000\r\n%b\r\n" % bytes(200_000)


@pytest.mark.parametrize(
    ("data", "room"),
    [(VALUE[:150_000], 700_000), (b"MULTI\r\n" + VALUE, 900_000)],
    ids=["unfinished", "MULTI"],
)
def test_clients_together_buffer_no_more_than_the_node_has_room_for(server, monkeypatch, data, room):
    """Each stays within its own bounds, but there may be thousands of them."""
    monkeypatch.setattr(listener, "BUFFERED_BYTES_MAX", room)
    clients = [server.connect() for _ in range(3)]
    for connection, _ in clients:
        connection.data_received(data)
    greedy, transport = server.connect()
    greedy.data_received(b"MULTI\r\n" + VALUE)
    greedy.data_received(VALUE[:190_000])
    assert transport.closed
    assert not any(other.closed for _, other in clients)
    greedy.connection_lost(None)
    for connection, _ in clients:
        connection.connection_lost(None)
    assert server.listener.buffered_bytes == 0


def test_replies_that_are_not_read_count_as_buffered(server, monkeypatch):
    monkeypatch.setattr(listener, "BUFFERED_BYTES_MAX", 5 * OUTPUT_BYTES_HIGH)
    readers = [server.connect() for _ in range(4)]
    for connection, _ in readers:
        connection.data_received(b"GET k\r\n")
    server.answer(bytes(2 * OUTPUT_BYTES_HIGH))
    closed = [transport.closed for _, transport in readers]
    assert sum(closed) == 2
    for _, transport in readers:
        if not transport.closed:
            transport.read_all()
    assert server.listener.buffered_bytes == 0


def test_a_closed_client_keeps_no_buffer_until_the_next_collection_of_garbage(server):
    connection, _ = server.connect()
    connection.data_received(VALUE[:150_000])
    connection.connection_lost(None)
    assert connection._parser.buffered_bytes == 0


def test_what_follows_a_watch_waits_for_its_versions_whether_it_comes_with_it_or_later(server):
    """Rule S7: an EXEC must not leave without the conditions of a WATCH before it."""
    for together in (True, False):
        connection, transport = server.connect()
        pieces = [b"WATCH k\r\n", b"MULTI\r\nSET k 1\r\nEXEC\r\n"]
        for piece in [b"".join(pieces)] if together else pieces:
            connection.data_received(piece)
        [request] = server.requests
        assert request.commands == [[b"RAFT.VERSIONS", b"k"]]
        server.answer([b"5:1"])
        [request] = server.requests
        assert request.commands == [[b"EXEC", b"1", b"k", b"5:1"], [b"SET", b"k", b"1"]]
        server.answer(NullArray())
        assert bytes(transport.sent) == b"+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n"
        assert transport.reading


def test_a_watch_among_other_commands_is_answered_in_its_place(server):
    connection, transport = server.connect()
    connection.data_received(b"GET a\r\nPING\r\nWATCH k\r\nPING\r\nUNWATCH\r\n")
    server.answer([b"5:1"])
    server.listener.flush()
    assert bytes(transport.sent) == b"*1\r\n$3\r\n5:1\r\n+PONG\r\n+OK\r\n+PONG\r\n+OK\r\n"


def test_errors_count_under_the_command_that_they_answer(server):
    connection, transport = server.connect()
    connection.data_received(b"SET a 1\r\nGET a\r\nMULTI\r\nINCR b\r\nEXEC\r\nNONSENSE\r\n")
    server.answer(Refusal(b"CLUSTERDOWN no leader"))
    connection.data_received(b"GET a\r\n")
    server.answer(Refusal(b"TRYAGAIN later"))
    connection.data_received(b"GET a\r\n")
    server.answer(b"value")
    assert server.listener.counts.failed == {
        (b"SET", b"CLUSTERDOWN"): 1,
        (b"GET", b"CLUSTERDOWN"): 1,
        (b"EXEC", b"CLUSTERDOWN"): 1,
        (b"GET", b"TRYAGAIN"): 1,
        (b"unknown", b"ERR"): 1,
    }
    assert transport.sent.count(b"-CLUSTERDOWN") == 3
