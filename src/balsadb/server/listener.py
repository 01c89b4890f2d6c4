"""The client port: all client connections of a node, their limits, and their share in a turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from time import perf_counter

from balsadb.replica.replica import Replica
from balsadb.replica.request import Request
from balsadb.server import sockets
from balsadb.server.certificates import Certificates
from balsadb.server.clock import Clock
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.view import NodeView
from balsadb.server.connection import ClientConnection
from balsadb.server.driver import Driver
from balsadb.server.entrance import Entrance
from balsadb.server.journal import journal
from balsadb.server.login_connection import LoginConnection, Strangers
from balsadb.server.logins import Logins
from balsadb.server.telemetry import CommandCounts

STUCK_MS_MAX = 30_000
"""A client with an incomplete command, or one that does not read its replies, is closed after this."""
SWEEP_SECONDS = 1.0
"""How often stuck clients are looked for."""
SWEEP_PARTS = 16
"""A sweep is done in so many parts, so that ten thousand clients hold nobody up."""
HELD_BYTES_HIGH = 32 * 1024 * 1024
"""Past this many bytes of unanswered requests on this node no client is read; half of the refusing bound."""
BACKLOG = 1024
"""Connections waiting to be accepted. asyncio's default costs a second in a connection storm."""
HANDSHAKES_MAX = 128
"""Clients at once in a TLS handshake, which takes the node up to 300 microseconds each."""
BUFFERED_BYTES_MAX = 64 * 1024 * 1024
"""Memory for the unfinished commands, open MULTIs and unread replies of all clients. Past it the greatest of
these clients is closed: each is within its own bounds, but there may be thousands of them. Four of the
largest commands or transactions fit in at a time."""
GREAT_BYTES = 64 * 1024
"""The greatest client is sought among those that hold as much, so that seeking it takes no time when there
are thousands of others."""
UNACKNOWLEDGED_MS_MAX = 30_000
"""The kernel closes a client whose machine acknowledges nothing of what was sent to it for so long."""
TURN_COMMANDS_MAX = 8_192
"""Commands that are taken from all clients in one turn; what else has come waits for the next one. So the
messages of the other servers, which come between turns, never wait long behind clients (rule B1). As many
again are taken from clients that send little, so that they don't wait behind those who send much."""
TURN_INPUT_SECONDS_MAX = 0.010
"""Time for input that takes long, about: when it comes, and once more for what had to wait."""
TURN_RESUMES_MAX = 64
"""Clients that had to wait and are read again in one turn: each may have a quarter of a megabyte ready."""


class Listener:
    """Accepts clients and brings their requests to the driver."""

    def __init__(
        self,
        driver: Driver,
        view: NodeView,
        clock: Clock,
        clients_max: int,
        clients_per_address_max: int = 0,
        idle_ms_max: int = 0,
        logins: Logins | None = None,
    ) -> None:
        """`clients_max` clients at once; one more is told so and closed, as Redis does.

        The same for those of one address, unless that bound is 0. Who says nothing for `idle_ms_max` is
        closed; 0: nobody is. Without `logins` everybody may do everything.
        """
        self.view = view
        self.logins = logins
        self.strangers = Strangers(clients_max)
        self._clients_max = clients_max
        self._clients_per_address_max = clients_per_address_max
        self._idle_ms_max = idle_ms_max
        self._by_address: Counter[str] = Counter()
        """Clients of each address; only kept where it matters."""
        self.connections_received = 0
        self.commands_processed = 0
        self.commands_processed_max = TURN_COMMANDS_MAX
        """When `commands_processed` has come so far, whatever else arrives waits for the next turn."""
        self._resumes_left = TURN_RESUMES_MAX
        self.counts = CommandCounts()
        self._driver = driver
        self._replica: Replica = driver.replica
        self._clock = clock
        self._connections: dict[int, ClientConnection] = {}
        self.buffered_bytes = 0
        """As `BUFFERED_BYTES_MAX` bounds it."""
        self._great: dict[ClientConnection, None] = {}
        """Clients that hold so much that the greatest is one of them, if there are any."""
        self._marked: list[ClientConnection] = []
        self._waiting: dict[ClientConnection, None] = {}
        """Clients with more input than they had a turn for, or that are not read; who waits longest is first.
        A dict, so that each is in it once."""
        self._until = 0.0
        """When this turn's time for input is over; 0 when none was spent."""
        self.certificates: Certificates | None = None
        """Set before the start when the port is to speak TLS."""
        self.tls_failures = 0
        """Connections that did not get through a TLS handshake."""
        self._server: asyncio.Server | Entrance | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._to_sweep: list[ClientConnection] = []
        """What is left of the sweep under way."""
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
                # On their way in they take up open files as clients do, so they count as such. And few at a
                # time: all may make the node do its part of the handshake in the same moment.
                lambda: min(HANDSHAKES_MAX, self._clients_max - len(self._connections) - len(self.strangers)),
                self._kept_out,
            )
            await self._server.start(host, port, BACKLOG)
        for listening in self._server.sockets:
            sockets.keep_alive(listening)
            sockets.give_up_after(listening, UNACKNOWLEDGED_MS_MAX)
        self._sweep()

    def _kept_out(self, why: str) -> None:
        self.tls_failures += 1
        journal.say("tls-refused", "warning", port="client", message=why)

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

    @property
    def has_room_for_small(self) -> bool:
        """Tell whether clients that send little may be served although this turn has had its commands."""
        return self.commands_processed < self.commands_processed_max + TURN_COMMANDS_MAX

    def users_changed(self) -> None:
        """Look again at what every client may do."""
        for connection in self._connections.values():
            connection.user_changed()

    def opened(self, connection: ClientConnection) -> bool:
        """Register a new client; False when there are too many and it was closed."""
        transport = connection.transport
        assert transport is not None
        address = _address(transport.get_extra_info("peername"))
        if not self.has_room or not self._admit_address(address):
            transport.write(b"-ERR max number of clients reached\r\n")
            transport.close()
            return False
        self.connections_received += 1
        connection.state = ClientState(
            self.connections_received,
            address,
            local_address=_address(transport.get_extra_info("sockname")),
            created_ms=self._clock.wall_ms(),
        )
        self._connections[self.connections_received] = connection
        return True

    def closed(self, connection: ClientConnection) -> None:
        """Forget a client."""
        self.buffered_bytes -= connection.buffered_bytes
        connection.buffered_bytes = 0
        self._great.pop(connection, None)
        if self._connections.pop(connection.state.id, None) is not None and self._clients_per_address_max:
            host = _host(connection.state.address)
            self._by_address[host] -= 1
            if not self._by_address[host]:
                del self._by_address[host]

    def _admit_address(self, address: str) -> bool:
        """Count one more client of an address, unless it has too many."""
        if not self._clients_per_address_max:
            return True
        host = _host(address)
        if self._by_address[host] >= self._clients_per_address_max:
            return False
        self._by_address[host] += 1
        return True

    def weigh(self, connection: ClientConnection, size: int) -> None:
        """Note how much memory a client takes, and close the greatest when all take too much."""
        self.buffered_bytes += size - connection.buffered_bytes
        connection.buffered_bytes = size
        if size >= GREAT_BYTES:
            self._great[connection] = None
        else:
            self._great.pop(connection, None)
        while self.buffered_bytes > BUFFERED_BYTES_MAX:
            choice = self._great or self._connections.values()
            greatest = max(choice, key=lambda client: client.buffered_bytes, default=None)
            if greatest is None or not greatest.buffered_bytes:
                return
            self.buffered_bytes -= greatest.buffered_bytes
            greatest.buffered_bytes = 0
            self._great.pop(greatest, None)
            greatest.drop()

    def submit(self, request: Request) -> None:
        """Bring a request to the replica, in the turn that follows."""
        self._replica.submit(request, self._clock.monotonic_ms())
        if self._replica.held_bytes > HELD_BYTES_HIGH:
            connection: ClientConnection = request.lane.owner
            connection.throttle()
            self.go_on_later(connection)
        self._driver.wake()

    def go_on_later(self, connection: ClientConnection) -> None:
        """Let a connection go on after all others that wait, and not while the node is overloaded."""
        self._waiting[connection] = None

    def has_time(self) -> bool:
        """Tell whether more input that takes long may be taken in this turn."""
        now = perf_counter()
        if not self._until:
            self._until = now + TURN_INPUT_SECONDS_MAX
        return now < self._until and self.commands_processed < self.commands_processed_max

    def may_resume(self) -> bool:
        """Tell whether one more client may be read again in this turn."""
        self._resumes_left -= 1
        return self._resumes_left >= 0

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
        """Write every reply that is ready: one write per connection and turn. Let those go on who wait."""
        marked, self._marked = self._marked, []
        for connection in marked:
            connection.flush()
        self._resumes_left = TURN_RESUMES_MAX
        self.commands_processed_max = self.commands_processed + TURN_COMMANDS_MAX
        if self._waiting and not self.overloaded:
            self._go_on()

    def _go_on(self) -> None:
        """Let clients that wait take more of their input or read again, one after the other, for a while."""
        self._until = perf_counter() + TURN_INPUT_SECONDS_MAX
        before = -1
        # Round by round: each has its slice before anybody has two, and a few of them use all of the time.
        while self._waiting and self.commands_processed != before:
            before = self.commands_processed
            for connection in list(self._waiting):
                del self._waiting[connection]
                connection.go_on()
                if self.overloaded or not self.has_time():
                    before = self.commands_processed
                    break
        self.commands_processed_max = self.commands_processed + TURN_COMMANDS_MAX
        self._until = 0.0
        if self._waiting and not self.overloaded:
            self._driver.wake()

    def _sweep(self) -> None:
        if not self._to_sweep:
            self._to_sweep = list(self._connections.values())
        part = max(1, -(-len(self._connections) // SWEEP_PARTS))
        self.sweep(self._to_sweep[-part:])
        del self._to_sweep[-part:]
        pause = SWEEP_SECONDS / SWEEP_PARTS
        self._sweeper = asyncio.get_running_loop().call_later(pause, self._sweep)

    def sweep(self, connections: Sequence[ClientConnection]) -> None:
        """Close clients that are stuck or idle: they hold memory and a place."""
        now_ms = self.now_ms
        late = now_ms - STUCK_MS_MAX
        for connection in connections:
            if connection.transport is None:
                continue
            stuck = 0 < connection.stuck_since_ms < late
            if stuck or (self._idle_ms_max and self._is_idle(connection, now_ms)):
                connection.transport.abort()
            elif connection.buffered_bytes or connection.transport.get_write_buffer_size():
                connection.weigh()  # a little that is not read is told by nobody

    def _is_idle(self, connection: ClientConnection, now_ms: int) -> bool:
        """Tell whether a client has said nothing for too long, by the monotonic clock."""
        last_ms = connection.state.last_command_ms
        if last_ms != connection.noticed_ms or connection.awaits_answers:
            connection.noticed_ms, connection.quiet_since_ms = last_ms, now_ms
            return False
        return now_ms - connection.quiet_since_ms >= self._idle_ms_max


def _address(name: object) -> str:
    if isinstance(name, tuple) and len(name) >= 2:
        return f"{name[0]}:{name[1]}"
    return ""


def _host(address: str) -> str:
    return address.rpartition(":")[0]
