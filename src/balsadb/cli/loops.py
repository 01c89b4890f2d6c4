"""The clients of `balsadb bench`: plain connections, without a task or a future for each request.

A `Load` is one operation, measured once. Who sends next is decided by its pace: in a closed loop each client
sends again as soon as it has an answer; at a fixed rate whoever is free takes what is due.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import repeat
from random import random
from time import perf_counter_ns
from typing import cast

from balsadb.address import format_address, format_addresses
from balsadb.cli.load import OPERATIONS, Commands, ReplyCounter, Schedule, Tally
from balsadb.client.call import Address
from balsadb.client.servers import describe_failure
from balsadb.client.tls import client_context
from balsadb.client.verdicts import Verdict, judge
from balsadb.errors import AuthenticationError, CommandError, NoServer, ProtocolError

CONNECT_SECONDS = 5.0
CONNECT_TOGETHER = 64
"""Connections that are made at a time: more than a server's backlog holds would be slower."""
AGAIN_SECONDS = 0.1
"""A client that found no server waits so long before it tries again."""
DRAIN_SECONDS = 5.0
"""How long the answers to what was sent are awaited at the end."""
TICK_SECONDS = 0.0002
"""At a fixed rate, how late an operation may be sent so that several can be sent at once."""


def check_login(answer: bytes) -> None:
    """Raise what the answer to a log-in means, when it is not the good one."""
    if not answer:
        raise ConnectionResetError("closed at the log-in")
    if not answer.startswith(b"+OK"):
        text = answer.removeprefix(b"-").partition(b"\r\n")[0]
        kind = AuthenticationError if judge(text) is Verdict.NOT_LOGGED_IN else CommandError
        raise kind(text.decode(errors="replace"))


class Client(asyncio.Protocol):
    """One connection and what it waits for."""

    __slots__ = ("_counter", "_load", "_login", "_turn", "sent", "servers", "transport")

    def __init__(self, load: Load, servers: Sequence[Address]) -> None:
        self._load = load
        self.servers = servers
        """Tried in this order when a connection is needed."""
        self._counter = ReplyCounter()
        self._login: asyncio.Future[bytes] | None = None
        """The answer to what was sent first, while that is not there."""
        self.sent: deque[tuple[int, int, int]] = deque()
        """What is not answered: the time it counts from, which tally it belongs to, how many."""
        self.transport: asyncio.Transport | None = None
        self._turn = 0

    async def connect(self) -> None:
        """Connect to the first server that answers. Raises NoServer."""
        failures: dict[str, None] = {}
        for _ in self.servers:
            address = self.servers[self._turn % len(self.servers)]
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await asyncio.get_running_loop().create_connection(
                        lambda: self, *address, ssl=client_context()
                    )
                    await self._log_in()
            except OSError as error:
                failures[describe_failure(error)] = None
                self._turn += 1
            else:
                return
        raise NoServer(f"no server answers at {format_addresses(self.servers)} ({'; '.join(failures)})")

    async def _log_in(self) -> None:
        """Give the password, if there is one. Raises AuthenticationError, and ConnectionError."""
        if self._load.greeting and self.transport is not None:
            self._login = asyncio.get_running_loop().create_future()
            self.transport.write(self._load.greeting)
            try:
                check_login(await self._login)
            finally:
                self._login = None

    @property
    def server(self) -> Address:
        """Where it is connected, or was last."""
        return self.servers[self._turn % len(self.servers)]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._counter = ReplyCounter()
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's classes

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self._login is not None:
            if not self._login.done():
                self._login.set_exception(ConnectionResetError("closed at the log-in"))
            return
        self._load.lost(self)

    def send(self, count: int) -> None:
        """Send that many commands now."""
        sources = self._load.sources
        if len(sources) == 1:
            source = sources[0]
            data = source() if count == 1 else b"".join([source() for _ in range(count)])
            self.sent.append((perf_counter_ns(), 0, count))
        else:
            which = [int(random() * len(sources)) for _ in range(count)]
            data = b"".join([sources[one]() for one in which])
            now = perf_counter_ns()
            self.sent.extend((now, one, 1) for one in which)
        assert self.transport is not None
        self.transport.write(data)

    def send_due(self, due_ns: int) -> None:
        """Send one command that was due at that time."""
        sources = self._load.sources
        which = int(random() * len(sources)) if len(sources) > 1 else 0
        self.sent.append((due_ns, which, 1))
        assert self.transport is not None
        self.transport.write(sources[which]())

    def data_received(self, data: bytes) -> None:
        now = perf_counter_ns()
        if self._login is not None:
            if not self._login.done():
                self._login.set_result(data)
            return
        try:
            replies = self._counter.feed(data)
            if replies:
                self._take(replies, now)
        except ProtocolError as error:
            self._load.broken(self, error)

    def _take(self, replies: int, now: int) -> None:
        """Count replies to what was sent first."""
        if self._counter.refusals:
            self._take_refusals(replies, now)
            return
        load, sent = self._load, self.sent
        load.answered_ns = now
        left = replies
        while left:
            if not sent:
                raise ProtocolError("more replies than there were commands")
            since, which, count = sent[0]
            if count > left:
                sent[0] = since, which, count - left
                count = left
            else:
                sent.popleft()
            load.tallies[which].latest.record(now - since, count)
            left -= count
        load.pace.free(self, replies)

    def _take_refusals(self, replies: int, now: int) -> None:
        """Count replies of which some are errors, one by one."""
        refusals = dict(self._counter.refusals)
        for number in range(replies):
            if not self.sent:
                raise ProtocolError("more replies than there were commands")
            since, which, count = self.sent.popleft()
            if count > 1:
                self.sent.appendleft((since, which, count - 1))
            tally = self._load.tallies[which]
            if number in refusals:
                tally.fail(refusals[number])
            else:
                self._load.answered_ns = now
                tally.latest.record(now - since)
        self._load.pace.free(self, replies)


class ClosedLoop:
    """Every client keeps as many commands under way as it may."""

    unsent = 0

    def __init__(self) -> None:
        self._going = False

    def begin(self) -> None:
        """From now on clients may send."""
        self._going = True

    def stop(self) -> None:
        """From now on nothing is sent."""
        self._going = False

    def free(self, client: Client, count: int) -> None:
        """Note that a client may send that many more."""
        if self._going and client.transport is not None:
            client.send(count)

    def forget(self, client: Client) -> None:
        """Note that a client has lost its connection."""


class FixedRate:
    """Operations become due at a rate, and a client that is free sends the next one."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._schedule: Schedule | None = None
        self._free: deque[Client] = deque()
        """Once for each command that a client may still send."""
        self.unsent = 0
        """How many were due and not sent, because every client had to wait, when it was stopped."""

    def begin(self) -> None:
        """From now on operations become due."""
        # An interval timer is precise to some microseconds; the timers of event loops to a millisecond,
        # which is longer than many an operation takes.
        asyncio.get_running_loop().add_signal_handler(signal.SIGALRM, self._send)
        self._schedule = Schedule(self._rate, perf_counter_ns())
        self._send()

    def stop(self) -> None:
        """From now on nothing is sent."""
        if self._schedule is not None:
            now_ns = perf_counter_ns()
            self._send()  # what became due since the last tick is nobody's fault
            signal.setitimer(signal.ITIMER_REAL, 0)
            asyncio.get_running_loop().remove_signal_handler(signal.SIGALRM)
            self.unsent = self._schedule.overdue(now_ns)
            self._schedule = None

    def free(self, client: Client, count: int) -> None:
        """Note that a client may send that many more."""
        if self._schedule is not None and client.transport is not None:
            self._free.extend(repeat(client, count))
            self._send()

    def forget(self, client: Client) -> None:
        """Note that a client has lost its connection."""
        self._free = deque(one for one in self._free if one is not client)

    def _send(self) -> None:
        """Send all that is due, as far as clients are free, and come back when the next one is."""
        schedule, free = self._schedule, self._free
        if schedule is None:
            return
        while free:
            wait_ns = schedule.next_ns() - perf_counter_ns()
            if wait_ns > 0:
                signal.setitimer(signal.ITIMER_REAL, max(TICK_SECONDS, wait_ns / 1e9))
                return
            free.popleft().send_due(schedule.take())


class Load:
    """One operation: its clients, and what they saw."""

    def __init__(
        self,
        commands: Commands,
        operation: str,
        rings: Sequence[Sequence[Address]],
        pipeline: int,
        rate: float | None,
        greeting: bytes = b"",
    ) -> None:
        """`rings` has the servers of each client, the one that it should use first.

        `greeting` logs a connection in, and is all that is sent before it is answered.
        """
        self.greeting = greeting
        self.operation = operation
        self.sources = [commands.source(kind) for kind in OPERATIONS[operation]]
        self.tallies = [Tally(kind) for kind in OPERATIONS[operation]]
        self.pace: ClosedLoop | FixedRate = ClosedLoop() if rate is None else FixedRate(rate)
        self.answered_ns = 0
        """When the last successful answer came."""
        self.seconds = 0.0
        """How long it was measured, up to the last answer; 0 when it never was."""
        self.measuring = False
        """True from the first command on, until the last answer was awaited."""
        self._pipeline = pipeline
        self._clients = [Client(self, ring) for ring in rings]
        self._ending = False
        self._reconnecting: set[asyncio.Task[None]] = set()
        self._failure: ProtocolError | None = None

    @property
    def placement(self) -> dict[str, int]:
        """How many clients each server has."""
        servers = [format_address(*client.server) for client in self._clients]
        return {server: servers.count(server) for server in dict.fromkeys(servers)}

    async def run(self, seconds: float, interrupted: asyncio.Event, show: Callable[[Load], None]) -> None:
        """Connect, measure, await the last answers, and close. `show` is called every second."""
        try:
            for first in range(0, len(self._clients), CONNECT_TOGETHER):
                some = self._clients[first : first + CONNECT_TOGETHER]
                await asyncio.gather(*(client.connect() for client in some))
            begun_ns = perf_counter_ns()
            self.measuring = True
            self.pace.begin()
            for client in self._clients:
                self.pace.free(client, self._pipeline)
            await self._wait(seconds, interrupted, show)
            self.pace.stop()
            stopped_ns = perf_counter_ns()
            await self._drain()
            self.seconds = (max(stopped_ns, self.answered_ns) - begun_ns) / 1e9
        finally:
            self.measuring = False
            self.pace.stop()
            await self._close()
        if self._failure is not None:
            raise self._failure

    async def _wait(self, seconds: float, interrupted: asyncio.Event, show: Callable[[Load], None]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._failure is None and (left := end - loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(interrupted.wait(), min(1.0, left))
                return
            show(self)

    async def _drain(self) -> None:
        """Wait for the answers to what was sent; what gets none has failed."""
        loop = asyncio.get_running_loop()
        end = loop.time() + DRAIN_SECONDS
        # An event would have to be looked after with every reply.
        while loop.time() < end and any(client.sent for client in self._clients):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        now = perf_counter_ns()
        for client in self._clients:
            for since, which, count in client.sent:
                self.tallies[which].fail(f"unanswered after {(now - since) / 1e9:.1f} s", count)
            client.sent.clear()

    async def _close(self) -> None:
        self._ending = True
        for client in self._clients:
            if client.transport is not None:
                client.transport.abort()
        for task in self._reconnecting:
            task.cancel()
        await asyncio.gather(*self._reconnecting, return_exceptions=True)
        # An aborted connection is lost in the next turn of the loop.
        while any(client.transport is not None for client in self._clients):  # noqa: ASYNC110
            await asyncio.sleep(0)
        for tally in self.tallies:
            tally.turn()

    def broken(self, client: Client, error: ProtocolError) -> None:
        """Note that a server talks nonsense: there is nothing to measure."""
        self._failure = ProtocolError(f"{format_address(*client.server)}: {error}")
        if client.transport is not None:
            client.transport.abort()

    def lost(self, client: Client) -> None:
        """Count what a lost connection has left unanswered, and make a new one."""
        self.pace.forget(client)
        if self._ending or self._failure is not None:
            return
        for _, which, count in client.sent:
            self.tallies[which].fail("disconnected before the answer came", count)
        client.sent.clear()
        task = asyncio.get_running_loop().create_task(self._reconnect(client))
        self._reconnecting.add(task)
        task.add_done_callback(self._reconnecting.discard)

    async def _reconnect(self, client: Client) -> None:
        while not self._ending:
            try:
                await client.connect()
            except (NoServer, CommandError):
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self.pace.free(client, self._pipeline)
                return
