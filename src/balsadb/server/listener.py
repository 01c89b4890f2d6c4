"""The client port: all client connections of a node, their limits, and their share in a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from balsadb.replica.replica import Replica
from balsadb.replica.request import Request
from balsadb.server import sockets
from balsadb.server.certificates import Certificates
from balsadb.server.clock import Clock
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.view import NodeView
from balsadb.server.complaints import Complaints
from balsadb.server.connection import ClientConnection
from balsadb.server.driver import Driver
from balsadb.server.entrance import Entrance
from balsadb.server.login_connection import LoginConnection, Strangers
from balsadb.server.logins import Logins
from balsadb.server.telemetry import CommandCounts

STUCK_MS_MAX = 30_000
"""A client with an incomplete command, or one that does not read its replies, is closed after this."""
SWEEP_SECONDS = 1.0
"""How often stuck clients are looked for."""
HELD_BYTES_HIGH = 32 * 1024 * 1024
"""Past this many bytes of unanswered requests on this node no client is read; half of the refusing bound."""
BACKLOG = 1024
"""Connections waiting to be accepted. asyncio's default costs a second in a connection storm."""
BUFFERED_BYTES_MAX = 512 * 1024 * 1024
"""Memory for the unfinished commands, open MULTIs and unread replies of all clients. Past it the greatest of
these clients is closed: each is within its own bounds, but there may be thousands of them."""


class Listener:
    """Accepts clients and brings their requests to the driver."""

    def __init__(
        self, driver: Driver, view: NodeView, clock: Clock, clients_max: int, logins: Logins | None = None
    ) -> None:
        """`clients_max` clients at once; one more is told so and closed, as Redis does.

        Without `logins` everybody may do everything.
        """
        self.view = view
        self.logins = logins
        self.strangers = Strangers(clients_max)
        self._clients_max = clients_max
        self.connections_received = 0
        self.commands_processed = 0
        self.counts = CommandCounts()
        self._driver = driver
        self._replica: Replica = driver.replica
        self._clock = clock
        self._connections: dict[int, ClientConnection] = {}
        self.buffered_bytes = 0
        """As `BUFFERED_BYTES_MAX` bounds it."""
        self._marked: list[ClientConnection] = []
        self._throttled: dict[ClientConnection, None] = {}
        """Clients that are read again when the node holds less; a dict, so that each is in it once."""
        self.certificates: Certificates | None = None
        """Set before the start when the port is to speak TLS."""
        self.tls_failures = 0
        """Connections that did not get through a TLS handshake."""
        self._complaints = Complaints()
        self._server: asyncio.Server | Entrance | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        driver.on_finished = self.finished
        driver.on_turn_end = self.flush

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError when the address is taken."""
        loop = asyncio.get_running_loop()
        if self.certificates is None:
            self._server = await loop.create_server(
                self.protocol, host, port, backlog=BACKLOG, reuse_address=True
            )
        else:
            self._server = Entrance(
                self.certificates,
                self.protocol,
                # On their way in they take up open files as clients do, so they count as such.
                lambda: self._clients_max - len(self._connections),
                self._kept_out,
            )
            await self._server.start(host, port, BACKLOG)
        for listening in self._server.sockets:
            sockets.keep_alive(listening)
        self._sweep()

    def _kept_out(self, why: str) -> None:
        self.tls_failures += 1
        self._complaints.say(f"closed a connection to the client port from {why}")

    def stop_accepting(self) -> None:
        """Take no new clients."""
        if self._server is not None:
            self._server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def close(self) -> None:
        """Close every client after writing what is ready."""
        self.stop_accepting()
        for connection in list(self._connections.values()):
            connection.flush()
            if connection.transport is not None:
                connection.transport.close()
        self.strangers.close()

    def protocol(self) -> ClientConnection | LoginConnection:
        """Return what a new connection begins as."""
        if self.logins is None or self.logins.accounts.open:
            return ClientConnection(self)
        return LoginConnection(self, self.logins)

    # ---------------------------------------------------- for the connections

    @property
    def now_ms(self) -> int:
        """Monotonic time of the current turn."""
        return self._replica.now_ms

    @property
    def wall_ms(self) -> int:
        """Wall clock of the current turn."""
        return self._replica.wall_ms

    @property
    def overloaded(self) -> bool:
        """Tell whether the node holds so many requests that clients are not read (rule B1)."""
        return self._replica.held_bytes > HELD_BYTES_HIGH

    @property
    def has_room(self) -> bool:
        """Tell whether there may be one more connection."""
        return len(self._connections) + len(self.strangers) < self._clients_max

    def users_changed(self) -> None:
        """Look again at what every client may do."""
        for connection in self._connections.values():
            connection.user_changed()

    def opened(self, connection: ClientConnection) -> bool:
        """Register a new client; False when there are too many and it was closed."""
        transport = connection.transport
        assert transport is not None
        if not self.has_room:
            transport.write(b"-ERR max number of clients reached\r\n")
            transport.close()
            return False
        self.connections_received += 1
        connection.state = ClientState(
            self.connections_received,
            _address(transport.get_extra_info("peername")),
            local_address=_address(transport.get_extra_info("sockname")),
            created_ms=self._clock.wall_ms(),
        )
        self._connections[self.connections_received] = connection
        return True

    def closed(self, connection: ClientConnection) -> None:
        """Forget a client."""
        self.buffered_bytes -= connection.buffered_bytes
        connection.buffered_bytes = 0
        self._connections.pop(connection.state.id, None)

    def weigh(self, connection: ClientConnection, size: int) -> None:
        """Note how much memory a client takes, and close the greatest when all take too much."""
        self.buffered_bytes += size - connection.buffered_bytes
        connection.buffered_bytes = size
        while self.buffered_bytes > BUFFERED_BYTES_MAX:
            greatest = max(self._connections.values(), key=lambda client: client.buffered_bytes, default=None)
            if greatest is None or not greatest.buffered_bytes:
                return
            self.buffered_bytes -= greatest.buffered_bytes
            greatest.buffered_bytes = 0
            greatest.drop()

    def submit(self, request: Request) -> None:
        """Bring a request to the replica, in the turn that follows."""
        self._replica.submit(request, self._clock.monotonic_ms())
        if self._replica.held_bytes > HELD_BYTES_HIGH:
            connection: ClientConnection = request.lane.owner
            connection.throttle()
            self.resume_later(connection)
        self._driver.wake()

    def resume_later(self, connection: ClientConnection) -> None:
        """Flush a connection, which may read again then, once the node is not overloaded any more."""
        self._throttled[connection] = None

    def mark(self, connection: ClientConnection) -> None:
        """Flush a connection at the end of the turn."""
        self._marked.append(connection)
        self._driver.wake()

    def clients(self) -> Sequence[ClientState]:
        """Return the open client connections, oldest first."""
        return [connection.state for connection in self._connections.values()]

    # --------------------------------------------------------- for the driver

    def finished(self, requests: Sequence[Request]) -> None:
        """Take the answered requests of a turn."""
        marked = self._marked
        for request in requests:
            connection: ClientConnection = request.lane.owner
            if not connection.marked:
                connection.marked = True
                marked.append(connection)

    def flush(self) -> None:
        """Write every reply that is ready: one write per connection and turn."""
        if self._throttled and not self.overloaded:
            for connection in self._throttled:
                if not connection.marked:
                    connection.marked = True
                    self._marked.append(connection)
            self._throttled.clear()
        marked, self._marked = self._marked, []
        for connection in marked:
            connection.flush()

    def _sweep(self) -> None:
        """Close clients that are stuck: slow senders and slow readers hold memory and a place."""
        late = self.now_ms - STUCK_MS_MAX
        for connection in list(self._connections.values()):
            if 0 < connection.stuck_since_ms < late and connection.transport is not None:
                connection.transport.abort()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)


def _address(name: object) -> str:
    if isinstance(name, tuple) and len(name) >= 2:
        return f"{name[0]}:{name[1]}"
    return ""
