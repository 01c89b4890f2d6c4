"""A connection that has to log in first, on a node whose clients need a password.

It is a protocol object of its own, with small limits. Once somebody has logged in it makes room for a
`ClientConnection`, which never learns that there was anything before it; so a password costs the commands
that follow nothing. Commands are taken one by one: those behind an AUTH, even in the same segment, may be
anything once its password was right.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from balsadb.kv.reply import Refusal
from balsadb.kv.table import lookup
from balsadb.resp.encode import encode_reply
from balsadb.resp.parser import CommandParser
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.connection import WRONG_PASSWORD, Login, logged_in
from balsadb.server.connection import ClientConnection
from balsadb.server.guards import Lock
from balsadb.server.logins import FAILURES_PER_CONNECTION_MAX, Attempt, Logins
from balsadb.server.passwords import NOBODY

if TYPE_CHECKING:
    from balsadb.server.listener import Listener

LOGIN_SECONDS_MAX: Final = 10.0
"""Who has not logged in by then is closed."""
REFUSED_SECONDS_MAX: Final = 0.5
"""How long one that gets no place may take to go: it has none meanwhile."""
ARGUMENTS_MAX: Final = 10
COMMAND_BYTES_MAX: Final = 16 * 1024
"""Of one command; as in Redis, whose limit is for each argument. Past it the connection is closed."""
INPUT_BYTES_MAX: Final = 1024 * 1024
"""Of everything before a log-in."""
OUTPUT_BYTES_MAX: Final = 64 * 1024
"""Of all replies before a log-in."""
SHARE: Final = 4
"""A quarter of the places is for connections that have not logged in."""
STRANGERS_MIN: Final = 8
"""At least so many may be there at once, on a node with few places."""

_TOO_LONG: Final = {
    # In Redis' words, which say that this is about the missing password.
    b"Protocol error: invalid multibulk length": b"unauthenticated multibulk length",
    b"Protocol error: invalid bulk length": b"unauthenticated bulk length",
}


class Strangers:
    """The connections that have not logged in, the oldest first, within their share of the places."""

    def __init__(self, clients_max: int) -> None:
        self._max = max(STRANGERS_MIN, clients_max // SHARE)
        self._connections: dict[LoginConnection, None] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._connections)

    def add(self, connection: LoginConnection, has_room: bool) -> bool:
        """Take one more, in place of the oldest one that says nothing if need be; False: there is no place.

        `has_room` tells whether all connections together, of clients as well, may be one more.
        Were the oldest one kept, whoever opens connections and leaves them would shut everybody else out.
        """
        if len(self._connections) >= self._max or not has_room:
            idle = next((other for other in self._connections if not other.checking), None)
            if idle is None:
                return False
            idle.drop()
        self._connections[connection] = None
        return True

    def discard(self, connection: LoginConnection) -> None:
        """Forget one that has logged in or gone."""
        self._connections.pop(connection, None)

    def close(self) -> None:
        """Close them all."""
        for connection in list(self._connections):
            connection.drop()


class LoginConnection(asyncio.Protocol):
    """The protocol object of a client until it has logged in."""

    __slots__ = (
        "_at",
        "_attempt",
        "_closing",
        "_data",
        "_eof",
        "_listener",
        "_lock",
        "_logins",
        "_looping",
        "_parser",
        "_received",
        "_sent",
        "_state",
        "_timer",
        "_transport",
        "checking",
    )

    def __init__(self, listener: Listener, logins: Logins) -> None:
        self._listener = listener
        self._logins = logins
        self._state = ClientState(0)
        self._lock = Lock(self._state, listener.counts)
        self._parser = CommandParser(ARGUMENTS_MAX, COMMAND_BYTES_MAX, COMMAND_BYTES_MAX)
        self._data = b""
        """Input of which commands are left; the next one begins at `_at`."""
        self._at = 0
        self._received = self._sent = 0
        """Bytes of all input and of all replies."""
        self._eof = False
        """True when the client has closed its sending side."""
        self._looping = False
        """True while commands are taken: an answer that is there at once must not begin a second loop."""
        self.checking = False
        """True while a password is being checked; nothing is taken from the input meanwhile."""
        self._attempt: Attempt | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        """None when the connection has ended, or is somebody else's."""
        self._closing: asyncio.Transport | None = None
        """What is closed and not gone yet. It keeps its place and its deadline: with TLS the other end is
        waited for."""

    # ------------------------------------------------------- asyncio callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a log-in, if there is a place."""
        self._transport = cast(asyncio.Transport, transport)
        self._state.user = NOBODY
        if not self._listener.strangers.add(self, self._listener.has_room):
            self._transport.write(b"-ERR max number of clients reached\r\n")
            self._transport.close()
            self._closing, self._transport = self._transport, None
            self._timer = asyncio.get_running_loop().call_later(REFUSED_SECONDS_MAX, self.drop)
            return
        self._timer = asyncio.get_running_loop().call_later(LOGIN_SECONDS_MAX, self.drop)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._let_go()

    def drop(self) -> None:
        """Close at once."""
        transport = self._transport or self._closing
        if transport is not None:
            transport.abort()
        self._let_go()

    def _let_go(self) -> None:
        self._transport = self._closing = None
        self._data, self._at = b"", 0
        self._listener.strangers.discard(self)
        if self._attempt is not None:
            self._attempt.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def eof_received(self) -> bool:
        """Answer what has come before closing."""
        self._eof = True
        # With TLS nothing can be half open, and uvloop complains about everybody who wants that.
        transport = self._transport
        return self.checking and transport is not None and transport.get_extra_info("ssl_object") is None

    def data_received(self, data: bytes) -> None:
        """Take a piece of input."""
        self._received += len(data)
        if self._transport is None:
            return
        if self._received > INPUT_BYTES_MAX:
            self.drop()
            return
        self._data, self._at = (self._data[self._at :] + data if self._data else data), 0
        self._go_on()

    # ----------------------------------------------------------------- commands

    def _go_on(self) -> None:
        """Take commands until a password has to be checked, or there is none left."""
        if not self._looping:
            self._looping = True
            self._take_commands()
            self._looping = False

    def _take_commands(self) -> None:
        parser = self._parser
        while self._transport is not None and not self.checking:
            command, self._at = parser.feed_one(self._data, self._at)
            if parser.error is not None:
                self._refuse_input()
            elif command is None:
                self._data, self._at = b"", 0
                if self._eof:
                    self._end()
                return
            elif len(command) > ARGUMENTS_MAX or sum(map(len, command)) > COMMAND_BYTES_MAX:
                self._end(b"-ERR %b\r\n" % b"Protocol error: unauthenticated inline request")
            else:
                self._take(command)

    def _take(self, command: list[bytes]) -> None:
        self._listener.commands_processed += 1
        piece = self._lock.sort([command])
        for _, literal in piece.literals:
            self._write(literal)
        if piece.closing:
            self._end()
        elif piece.login is not None:
            self._check(piece.login)

    def _refuse_input(self) -> None:
        error = self._parser.error
        assert error is not None
        # A client that speaks HTTP gets no word.
        self._end(b"" if self._parser.hostile else b"-ERR %b\r\n" % _in_redis_words(error))

    def _write(self, reply: bytes) -> None:
        if self._transport is None:
            return
        self._sent += len(reply)
        if self._sent > OUTPUT_BYTES_MAX:
            self.drop()
        else:
            self._transport.write(reply)

    def _end(self, last_word: bytes = b"") -> None:
        """Close after what was written. The other end has a moment to take it."""
        if last_word:
            self._write(last_word)
        if self._transport is not None:
            self._transport.close()
            self._closing, self._transport = self._transport, None
            self._data, self._at = b"", 0

    # ------------------------------------------------------------------- log-in

    def _check(self, login: Login) -> None:
        """Have a password checked. What follows waits, most of it in the kernel."""
        transport = self._transport
        if transport is None:
            return
        self.checking = True
        transport.pause_reading()
        host = (transport.get_extra_info("peername") or ("",))[0]
        self._attempt = self._logins.log_in(
            str(host), login.user, login.password, lambda refusal: self._checked(login, refusal)
        )

    def _checked(self, login: Login, refusal: Refusal | None) -> None:
        """Take what came of a check, which may have been very quick."""
        transport = self._transport
        if transport is None:
            return
        if refusal is None:
            self._make_room(transport, login)
            return
        self.checking = False
        self._listener.counts.refused(lookup(login.argv[0]), refusal)
        self._write(encode_reply(refusal, False))
        if refusal is WRONG_PASSWORD:
            self._state.failed_logins += 1
            if self._state.failed_logins >= FAILURES_PER_CONNECTION_MAX:
                self._end()
        if self._transport is not None:
            transport.resume_reading()
            self._go_on()

    def _make_room(self, transport: asyncio.Transport, login: Login) -> None:
        """Hand the connection over, with all input that is left."""
        if transport.is_closing():
            self._let_go()  # a client registered now would never hear that it is gone
            return
        data = self._data[self._at :]
        self._let_go()
        client = ClientConnection(self._listener)
        transport.set_protocol(client)
        client.connection_made(transport)
        if transport.is_closing():
            return
        state = client.state
        reply = logged_in(state, self._listener.view, login)
        transport.write(encode_reply(reply, state.resp3))
        client.user_changed()
        transport.resume_reading()
        if data:
            client.data_received(data)
        if self._eof:
            client.eof_received()


def _in_redis_words(error: bytes) -> bytes:
    """Return a parser's complaint; where only a missing log-in makes it one, so that it says so."""
    words = _TOO_LONG.get(error)
    return error if words is None else b"Protocol error: " + words
