"""A whole client connection, from its bytes to its replies, over a replica that answers everything with OK.

This is where the parser, the sorting of commands, MULTI and the commands about the connection meet. Whatever
is sent, each command gets exactly one reply, in its place, and an error of the protocol is the last word.
"""

from __future__ import annotations

from types import SimpleNamespace

import hiredis

from balsadb.kv.reply import OK
from balsadb.raft.types import Configuration
from balsadb.resp.decode import encode_command
from balsadb.resp.parser import CommandParser
from balsadb.server import intake
from balsadb.server.clock import Clock
from balsadb.server.commands.view import NodeStatus
from balsadb.server.connection import ClientConnection
from balsadb.server.listener import Listener
from fuzz.kit import Target, cuttings

TURNS_MAX = 10_000
_UNTOUCHED = (b"INFO", b"COMMAND", b"TIME", b"CLIENT", b"CONFIG", b"CLUSTER", b"RAFT", b"ROLE")
"""Answered by the node about itself; what they say is tested with the commands, and takes a whole node."""


class _Transport:
    """A socket whose other end reads at once."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = False
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None:
        """Do nothing: nothing is ever unsent."""

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 5) if name in ("peername", "sockname") else None

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    abort = close


class _Node:
    """A node as far as a listener and the commands about connections see it."""

    def __init__(self) -> None:
        self.requests: list = []
        self.replica = SimpleNamespace(submit=self._submit, held_bytes=0, now_ms=1, wall_ms=1)
        driver = SimpleNamespace(replica=self.replica, wake=lambda: None)
        self.listener = Listener(driver, self, Clock(), 10)

    def _submit(self, request, now_ms) -> None:
        request.lane.held_bytes += request.size
        self.requests.append(request)

    def status(self) -> NodeStatus:
        members = Configuration(voters=(1,))
        return SimpleNamespace(id=1, role="leader", leader=1, last_leader=1, configuration=members)

    def turn(self) -> bool:
        """Answer everything that was asked, write what is due; tell whether there was anything."""
        answered, self.requests = self.requests, []
        for request in answered:
            assert request.answers > 0
            request.replies = [[b"1:0"] if _is_watch(request, at) else OK for at in range(request.answers)]
            request.lane.held_bytes -= request.size
        self.listener.finished(answered)
        before = self.listener._marked
        self.listener.flush()
        return bool(answered or before)


def _is_watch(request, at: int) -> bool:
    """Tell whether an answer is that of a WATCH of one key, which stands at the end of its piece."""
    last = request.commands[-1] if request.commands else request.reads[-1][1]
    if request.reads and request.reads[-1][1][0] == b"RAFT.VERSIONS":
        last = request.reads[-1][1]
    return at == request.answers - 1 and last[0] == b"RAFT.VERSIONS" and len(last) == 2


def talk(pieces: list[bytes]) -> bytes:
    """Send pieces one after the other and the end of input; return what is answered."""
    node, transport = _Node(), _Transport()
    connection = ClientConnection(node.listener)
    connection.connection_made(transport)
    for piece in pieces:
        waited = 0
        while not transport.reading and not transport.closed:
            node.turn()
            waited += 1
            assert waited < TURNS_MAX, "a connection is never read again"
        if transport.closed:
            break
        connection.data_received(piece)
        node.turn()
    connection.eof_received()
    for _ in range(TURNS_MAX):
        if transport.closed:
            break
        node.turn()
    assert transport.closed, "a connection stays open after the end of its input"
    connection.connection_lost(None)
    assert node.listener.buffered_bytes == 0
    assert not node.requests
    return bytes(transport.sent)


def target(data: bytes) -> str:
    """Count replies, and compare what is said in one piece and in several."""
    parser = CommandParser()
    commands = parser.feed(data)
    names = [argv[0].upper() for argv in commands]
    if any(name in _UNTOUCHED for name in names):
        return "left out"
    if any(name == b"WATCH" and len(argv) != 2 for name, argv in zip(names, commands, strict=True)):
        return "left out"
    intake.LOCAL_NS_MAX, before = 10**12, intake.LOCAL_NS_MAX  # how long something takes is chance
    try:
        said = talk([data])
        for pieces in cuttings(data):
            assert talk(pieces) == said, pieces
    finally:
        intake.LOCAL_NS_MAX = before
    reader = hiredis.Reader(replyError=str)
    reader.feed(said)
    replies = []
    while (reply := reader.gets()) is not False:
        replies.append(reply)
    assert not reader.has_data()
    quits = names.index(b"QUIT") + 1 if b"QUIT" in names else None
    if quits is not None and len(commands[quits - 1]) == 1:
        assert len(replies) <= len(commands)
        return "quit"
    if quits is None:
        failed = parser.error is not None and not parser.hostile
        assert len(replies) == len(commands) + failed
        if failed:
            assert str(replies[-1]).startswith("ERR Protocol error")
    return "error" if parser.error is not None else "answered" if commands else "nothing"


SEEDS = (
    encode_command([b"SET", b"k", b"v"]) + encode_command([b"GET", b"k"]),
    b"MULTI\r\nSET a 1\r\nGET a\r\nEXEC\r\nPING\r\n",
    b"WATCH k\r\nMULTI\r\nINCR k\r\nEXEC\r\nUNWATCH\r\n",
    b"MULTI\r\nNONSENSE\r\nEXEC\r\nDISCARD\r\nMULTI\r\nMULTI\r\nDISCARD\r\n",
    b"GET a\r\nREADONLY\r\nGET b\r\nREADWRITE\r\nRESET\r\nECHO x\r\n",
    b"ONCE id 1 1 SET k v\r\nMULTI\r\nSET k v\r\nONCE id 2 1 EXEC\r\n",
    b"SET k v\r\nQUIT\r\nPING\r\n",
    b"SET k\r\n*1\r\n$-5\r\n",
    b"RANDOMKEY\r\nKEYS *\r\nSCAN 0\r\nDBSIZE\r\n",
    b"HELLO 3\r\nGET k\r\nHELLO 2\r\nHELLO 9\r\nSELECT 1\r\nAUTH x\r\n",
)
TOKENS = (
    *[
        word + b"\r\n"
        for word in (b"MULTI", b"EXEC", b"DISCARD", b"WATCH k", b"UNWATCH", b"PING", b"QUIT", b"RESET")
    ],
    *[
        b"GET k\r\n",
        b"SET k v\r\n",
        b"MGET a b\r\n",
        b"DEL a\r\n",
        b"READONLY\r\n",
        b"READWRITE\r\n",
        b"HELLO 3\r\n",
    ],
    *[
        b"ONCE i 1 1 EXEC\r\n",
        b"ONCE i 1 1 SET a b\r\n",
        b'ECHO "a\\r\\nb"\r\n',
        b"NO\r\n",
        b"SET\r\n",
        b"KEYS *\r\n",
    ],
    *[
        b"*1\r\n$5\r\nMULTI\r\n",
        b"*1\r\n$4\r\nEXEC\r\n",
        b"*0\r\n",
        b"\r\n",
        b"*2\r\n",
        b"$3\r\nGET\r\n",
        b"*1\r\n:1\r\n",
    ],
)

TARGET = Target("client_connections", target, SEEDS, TOKENS)
