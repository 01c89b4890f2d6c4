"""A port that speaks TLS: connections are let in when they get through the handshake in time.

Until then a connection belongs to nobody and yet takes an open file, and a stranger can have as many of them
as there is room for. So they have a bound, past which the oldest one goes: an honest handshake takes
milliseconds.

The event loops' own servers would do the handshake by themselves, but tell nobody that one has failed, and
let any number wait. So connections are accepted here and handed over to the loop one by one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from balsadb.address import format_address
from balsadb.server.certificates import Certificates
from balsadb.tls import HANDSHAKE_SECONDS_MAX, SHUTDOWN_SECONDS_MAX, describe

ACCEPT_PAUSE_SECONDS = 0.5
"""Pause after a connection could not be accepted, as when there are no more files to open."""


class Entrance:
    """A listening port with TLS."""

    def __init__(
        self,
        certificates: Certificates,
        make: Callable[[], asyncio.Protocol],
        room: Callable[[], int],
        refused: Callable[[str], None],
    ) -> None:
        """`make` makes the protocol of a connection that is let in. `room` tells how many may be on their way
        in at once; `refused` takes a sentence about each one that is not let in."""
        self.sockets: list[socket.socket] = []
        """Where it listens."""
        self._certificates = certificates
        self._make = make
        self._room = room
        self._refused = refused
        self._accepting: list[asyncio.Task[None]] = []
        self._arriving: dict[asyncio.Task[None], socket.socket] = {}
        """Handshakes under way, the oldest first."""
        self._leaving: dict[asyncio.Task[None], socket.socket] = {}
        """Those that had to make room, until they have."""
        self._ours: set[socket.socket] = set()
        """Connections of them that the event loop does not have yet."""

    async def start(self, host: str, port: int, backlog: int) -> None:
        """Listen. Raises OSError when the address is taken."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, kind, protocol, _, where in dict.fromkeys(found):
                listening = socket.socket(family, kind, protocol)
                self.sockets.append(listening)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.setblocking(False)
                listening.bind(where)
                listening.listen(backlog)
        except OSError:
            self.close()
            raise
        self._accepting = [loop.create_task(self._accept(one), name="accept") for one in self.sockets]

    def close(self) -> None:
        """Let nobody in any more."""
        for task in (*self._accepting, *self._arriving, *self._leaving):
            task.cancel()
        for listening in self.sockets:
            listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            task = loop.create_task(self._let_in(connection), name="tls")
            self._arriving[task] = connection
            self._ours.add(connection)
            task.add_done_callback(self._ended)
            while len(self._arriving) > max(1, self._room()):
                # Forgotten at once: a task takes a while to end, and the next one must not be the same.
                oldest = next(iter(self._arriving))
                self._leaving[oldest] = self._arriving.pop(oldest)
                oldest.cancel()

    async def _let_in(self, connection: socket.socket) -> None:
        where = "a client that has left"
        try:
            where = format_address(*connection.getpeername()[:2])
            context = self._certificates.accepting
            self._ours.discard(connection)
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make,
                connection,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS_MAX,
            )
        except OSError as error:
            self._refused(f"{where}: {describe(error)}")

    def _ended(self, task: asyncio.Task[None]) -> None:
        connection = self._arriving.pop(task, None) or self._leaving.pop(task)
        if connection in self._ours:  # it ended before it had begun
            self._ours.remove(connection)
            connection.close()
