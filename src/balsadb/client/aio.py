"""`Clerk`: the asyncio front of the Clerk.

It decides nothing. Calls made in one turn of the event loop go out in one write; answers that come in one
piece wake their callers together; one timer serves all deadlines. No task exists per call.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from balsadb.address import is_ip_address
from balsadb.client import operations
from balsadb.client.batch import Batch, as_transaction
from balsadb.client.call import Address, Call, ClerkOptions, Close, Command, Connect, Send
from balsadb.client.core import ClerkCore
from balsadb.client.credentials import make_credentials
from balsadb.client.operations import Operation
from balsadb.client.servers import Turns, describe_failure, server_addresses
from balsadb.client.tls import TlsSetting, client_context
from balsadb.client.words import Word
from balsadb.errors import ClientError, ReplyLost, UsageError

T = TypeVar("T")

DEFAULT_TIMEOUT = 10.0
"""Seconds that a call may take in all, unless the Clerk says otherwise."""


class Clerk:
    """A client of a BalsaDB cluster, for asyncio.

        async with Clerk(["db1:7001", "db2:7001", "db3:7001"]) as clerk:
            await clerk.put("k", "v")
            assert await clerk.get("k") == b"v"

    Writes run in a session: exactly once, however often they must be sent again. Without `servers` it takes
    BALSADB_SERVERS, else 127.0.0.1:7001-7003; other members are found by itself. Any number of calls
    may be under way at the same time.
    With `tls` (see `Tls`), or as BALSADB_TLS_CA and its like say, servers must show a certificate.
    Keys and values are `str` (sent as UTF-8), `bytes` or `int`; answers are `bytes`. It connects when first
    used, and belongs to the event loop in which that happens.

    Every call raises `NotApplied` when it certainly did not happen (no server was reached in time),
    `OutcomeUnknown` when it may have happened, and `CommandError` when the database refused it;
    `AuthenticationError` is the case in which `password`, or `username` with it, is wrong or missing. The
    table in docs/errors.md has them all.
    """

    def __init__(
        self,
        servers: str | Iterable[str] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        options: ClerkOptions | None = None,
        username: str | None = None,
        password: str | bytes | None = None,
        tls: TlsSetting = None,
    ) -> None:
        self.timeout = timeout
        self._tls = client_context(tls)
        self._core = ClerkCore(
            server_addresses(servers),
            options or ClerkOptions(),
            random.SystemRandom(),
            make_credentials(username, password),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._open: dict[int, _Connection] = {}
        self._turns = Turns()
        self._timer: asyncio.TimerHandle | None = None
        self._turn_is_due = False

    @property
    def retries(self) -> int:
        """How many times something was sent again so far."""
        return self._core.retries

    @property
    def moves(self) -> int:
        """How many times new calls changed to another connection so far."""
        return self._core.moves

    # ------------------------------------------------------------------ operations

    async def put(self, key: Word, value: Word) -> None:
        """Set a key to a value."""
        await self._run(operations.put(key, value))

    async def append(self, key: Word, value: Word) -> int:
        """Append to a key's value, which is empty at first; return the new length."""
        return await self._run(operations.append(key, value))

    async def get(self, key: Word) -> bytes | None:
        """Return a key's value, or None when there is no such key."""
        return await self._run(operations.get(key))

    async def delete(self, *keys: Word) -> int:
        """Delete keys; return how many of them there were."""
        return await self._run(operations.delete(*keys)) if keys else 0

    async def exists(self, *keys: Word) -> int:
        """Return how many of the keys exist; one that is named twice counts twice."""
        return await self._run(operations.exists(*keys)) if keys else 0

    async def increment(self, key: Word, by: int = 1) -> int:
        """Add to the whole number that a key holds, 0 at first; return the new number."""
        return await self._run(operations.increment(key, by))

    async def compare_and_set(self, key: Word, old: Word | None, new: Word) -> bool:
        """Set a key if its value is `old` (None: if there is no such key); return whether it was set."""
        return await self._run(operations.compare_and_set(key, old, new))

    async def mget(self, *keys: Word) -> list[bytes | None]:
        """Return the values of several keys, all as of one moment."""
        return await self._run(operations.mget(*keys)) if keys else []

    async def mput(self, items: Mapping[Any, Word]) -> None:
        """Set several keys, all at one moment."""
        if items:
            await self._run(operations.mput(items))

    async def scan(self, match: Word | None = None, count: int = 100) -> AsyncIterator[bytes]:
        """Go through all keys, or those that fit a pattern such as `user:*`, about `count` at a time.

        Keys that exist all the while are given; others may or may not be, and some may be given twice.
        """
        cursor = b"0"
        while True:
            cursor, keys = await self._run(operations.scan(cursor, match, count))
            for key in keys:
                yield key
            if cursor == b"0":
                return

    async def execute(self, *command: Word) -> Any:
        """Run any command, such as `execute("INCRBY", "counter", 5)`, and return its answer.

        Commands that change the state of a connection (MULTI, SUBSCRIBE, ...) are refused.
        """
        return await self._run(operations.execute(*command))

    def pipeline(self) -> Batch[Awaitable[list[Any]]]:
        """Return a batch whose operations are sent in one go and run one by one, each for itself.

        While nothing fails they run in their order; one that must be tried again may come after later ones.
        """
        return Batch(self._run_all, atomic=False)

    def transaction(self) -> Batch[Awaitable[list[Any]]]:
        """Return a batch whose operations run all at one moment, exactly once."""
        return Batch(self._run_transaction, atomic=True)

    async def close(self) -> None:
        """End what is under way, have the session closed, and close the connections. May be called twice."""
        try:
            await self._end_session()
        finally:
            self._core.close()
            tasks = list(self._opening.values())
            connections = list(self._open.values())
            if self._loop is not None:
                self._turn()
            if self._timer is not None:
                self._timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, *(c.ended for c in connections), return_exceptions=True)

    async def _end_session(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            return
        ended: asyncio.Future[Any] = self._loop.create_future()
        if self._core.end_session(self._loop.time(), ended) is not None:
            self._turn()
            with suppress(ClientError):
                await ended

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ------------------------------------------------------------------ calls

    async def _run(self, operation: Operation[T]) -> T:
        call = self._submit(operation.command, self._here())
        try:
            reply = await call.owner
        except ReplyLost:
            if operation.says_nothing:
                return operation.read(None)
            raise
        except asyncio.CancelledError:
            self._core.abandon(call)
            raise
        return operation.read(reply)

    async def _run_all(self, parts: list[Operation[Any]]) -> list[Any]:
        loop = self._here()
        calls: list[Call] = []
        try:
            calls.extend(self._submit(part.command, loop, ordered=True) for part in parts)
            answers = await asyncio.gather(*(call.owner for call in calls), return_exceptions=True)
        except BaseException:
            for call in calls:
                self._core.abandon(call)
            raise
        return [
            answer
            if isinstance(answer, BaseException) and not (isinstance(answer, ReplyLost) and part.says_nothing)
            else part.read(answer)
            for part, answer in zip(parts, answers, strict=True)
        ]

    async def _run_transaction(self, parts: list[Operation[Any]]) -> list[Any]:
        return await self._run(as_transaction(parts)) if parts else []

    def _here(self) -> asyncio.AbstractEventLoop:
        """Return the loop that runs, which must always be the same."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise UsageError(
                    "a Clerk belongs to the event loop in which it was first used; make another one"
                )
            self._loop = loop
        return loop

    def _submit(self, command: Command, loop: asyncio.AbstractEventLoop, ordered: bool = False) -> Call:
        call = self._core.submit(command, loop.time() + self.timeout, loop.create_future(), ordered)
        if not self._turn_is_due:
            self._turn_is_due = True
            # One more round of the loop, in which it learns of connections that have ended meanwhile: a write
            # that is sent over one of them would have an open outcome for nothing.
            loop.call_soon(loop.call_soon, self._turn)
        return call

    # ------------------------------------------------------------------ events and actions

    def _turn(self) -> None:
        """Carry out what the core wants, wake whose answer is in, and set the timer."""
        assert self._loop is not None
        self._turn_is_due = False
        core = self._core
        now = self._loop.time()
        for action in core.actions(now):
            match action:
                case Send(number, data):
                    self._open[number].transport.write(data)
                case Connect(number, address):
                    self._opening[number] = self._loop.create_task(self._connect(number, address))
                case Close(number):
                    self._disconnect(number)
        for call in core.finished():
            future: asyncio.Future[Any] = call.owner
            if future.done():
                continue  # cancelled in this very turn
            if call.error is None:
                future.set_result(call.reply)
            else:
                future.set_exception(call.error)
        wake = core.wake_at()
        if wake is not None and (self._timer is None or wake < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(wake, self._tick)

    def _tick(self) -> None:
        assert self._loop is not None
        self._timer = None
        self._core.tick(self._loop.time())
        self._turn()

    async def _connect(self, number: int, address: Address) -> None:
        assert self._loop is not None
        try:
            await self._reach(number, address)
        except OSError as error:
            self._core.connect_failed(number, describe_failure(error), self._loop.time())
            self._opening.pop(number, None)
            self._turn()
        self._opening.pop(number, None)

    async def _reach(self, number: int, address: Address) -> None:
        """Connect to a server, at any address that its name has now. Raises OSError."""
        assert self._loop is not None
        host, port = address
        hosts = [host]
        if not is_ip_address(host):
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            hosts = self._turns.order(address, list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        # The certificate must hold the name, whatever address the name has now.
        options: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls, "server_hostname": host}
        failure = OSError("the name has no address")
        for one in hosts:
            try:
                await self._loop.create_connection(lambda: _Connection(self, number), one, port, **options)
                return
            except OSError as error:
                failure = error
        raise failure

    def _disconnect(self, number: int) -> None:
        if (task := self._opening.pop(number, None)) is not None:
            task.cancel()
        if (connection := self._open.pop(number, None)) is not None:
            connection.transport.abort()

    def connection_made(self, connection: _Connection) -> None:
        """A connection is open. (Called by `_Connection`.)"""
        assert self._loop is not None
        self._opening.pop(connection.number, None)
        self._open[connection.number] = connection
        self._core.connected(connection.number, self._loop.time())
        self._turn()

    def data_received(self, number: int, data: bytes) -> None:
        """Bytes arrived. (Called by `_Connection`.)"""
        assert self._loop is not None
        self._core.received(number, data, self._loop.time())
        self._turn()

    def connection_lost(self, number: int, error: Exception | None) -> None:
        """A connection ended. (Called by `_Connection`.)"""
        assert self._loop is not None
        self._open.pop(number, None)
        reason = describe_failure(error) if isinstance(error, OSError) else "the server closed the connection"
        self._core.lost(number, reason, self._loop.time())
        self._turn()


class _Connection(asyncio.Protocol):
    """Passes on what the event loop says about one connection."""

    transport: asyncio.Transport

    def __init__(self, clerk: Clerk, number: int) -> None:
        self._clerk = clerk
        self.number = number
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._clerk.connection_made(self)

    def data_received(self, data: bytes) -> None:
        self._clerk.data_received(self.number, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)
        self._clerk.connection_lost(self.number, error)
