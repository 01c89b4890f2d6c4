"""`BlockingClerk`: the front of the Clerk for programs without asyncio.

Like the asyncio front it decides nothing: it carries out the core's actions with plain sockets, and waits for
events no longer than the core says. Of the threads that wait for an answer one does that work for all; the
others sleep until their answer is in, or until it is their turn to work. So the calls of many threads share
one connection, and no thread of our own is needed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from balsadb.client import operations
from balsadb.client.batch import Batch, as_transaction
from balsadb.client.call import Address, Call, ClerkOptions, Close, Connect, Send
from balsadb.client.core import ClerkCore
from balsadb.client.credentials import make_credentials
from balsadb.client.operations import Operation
from balsadb.client.servers import Turns, describe_failure, server_addresses
from balsadb.client.tls import TlsClient, TlsSetting, client_context
from balsadb.client.words import Word
from balsadb.errors import ReplyLost

T = TypeVar("T")

RECEIVE_BYTES = 256 * 1024
DEFAULT_TIMEOUT = 10.0
"""Seconds that a call may take in all, unless the Clerk says otherwise."""


class _Connection:
    """One connection, or the attempt to make it."""

    def __init__(self, number: int, targets: list[Any], tls: TlsClient | None) -> None:
        self.number = number
        self.tls = tls
        """What goes between the socket and us, with TLS."""
        self.targets = targets
        """Addresses of the server's name that were not tried yet, as `getaddrinfo` gives them."""
        self.socket = socket.socket()
        self.is_open = False
        self.out = bytearray()
        """What is to be sent as soon as there is room."""


class BlockingClerk:
    """A client of a BalsaDB cluster, for ordinary blocking code.

        with BlockingClerk(["db1:7001", "db2:7001", "db3:7001"]) as clerk:
            clerk.put("k", "v")
            assert clerk.get("k") == b"v"

    Writes run in a session: exactly once, however often they must be sent again. Without `servers` it takes
    BALSADB_SERVERS, else 127.0.0.1:7001-7003; other members are found by itself. Threads may share it,
    each with a call of its own under way.
    With `tls` (see `Tls`), or as BALSADB_TLS_CA and its like say, servers must show a certificate.
    Keys and values are `str` (sent as UTF-8), `bytes` or `int`; answers are `bytes`. It connects when first
    used.

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
        self._lock = threading.Condition(threading.Lock())
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, _Connection] = {}
        self._turns = Turns()
        self._working = False
        """True while a thread does the work of all."""
        self._waker: tuple[socket.socket, socket.socket] | None = None
        """Wakes the thread that works when another one has a call for it."""

    @property
    def retries(self) -> int:
        """How many times something was sent again so far."""
        return self._core.retries

    @property
    def moves(self) -> int:
        """How many times new calls changed to another connection so far."""
        return self._core.moves

    # ------------------------------------------------------------------ operations

    def put(self, key: Word, value: Word) -> None:
        """Set a key to a value."""
        self._run(operations.put(key, value))

    def append(self, key: Word, value: Word) -> int:
        """Append to a key's value, which is empty at first; return the new length."""
        return self._run(operations.append(key, value))

    def get(self, key: Word) -> bytes | None:
        """Return a key's value, or None when there is no such key."""
        return self._run(operations.get(key))

    def delete(self, *keys: Word) -> int:
        """Delete keys; return how many of them there were."""
        return self._run(operations.delete(*keys)) if keys else 0

    def exists(self, *keys: Word) -> int:
        """Return how many of the keys exist; one that is named twice counts twice."""
        return self._run(operations.exists(*keys)) if keys else 0

    def increment(self, key: Word, by: int = 1) -> int:
        """Add to the whole number that a key holds, 0 at first; return the new number."""
        return self._run(operations.increment(key, by))

    def compare_and_set(self, key: Word, old: Word | None, new: Word) -> bool:
        """Set a key if its value is `old` (None: if there is no such key); return whether it was set."""
        return self._run(operations.compare_and_set(key, old, new))

    def mget(self, *keys: Word) -> list[bytes | None]:
        """Return the values of several keys, all as of one moment."""
        return self._run(operations.mget(*keys)) if keys else []

    def mput(self, items: Mapping[Any, Word]) -> None:
        """Set several keys, all at one moment."""
        if items:
            self._run(operations.mput(items))

    def scan(self, match: Word | None = None, count: int = 100) -> Iterator[bytes]:
        """Go through all keys, or those that fit a pattern such as `user:*`, about `count` at a time.

        Keys that exist all the while are given; others may or may not be, and some may be given twice.
        """
        cursor = b"0"
        while True:
            cursor, keys = self._run(operations.scan(cursor, match, count))
            yield from keys
            if cursor == b"0":
                return

    def execute(self, *command: Word) -> Any:
        """Run any command, such as `execute("INCRBY", "counter", 5)`, and return its answer.

        Commands that change the state of a connection (MULTI, SUBSCRIBE, ...) are refused.
        """
        return self._run(operations.execute(*command))

    def pipeline(self) -> Batch[list[Any]]:
        """Return a batch whose operations are sent in one go and run one by one, each for itself.

        While nothing fails they run in their order; one that must be tried again may come after later ones.
        """
        return Batch(self._run_all, atomic=False)

    def transaction(self) -> Batch[list[Any]]:
        """Return a batch whose operations run all at one moment, exactly once."""
        return Batch(self._run_transaction, atomic=True)

    def close(self) -> None:
        """End what is under way, have the session closed, and close the connections. May be called twice."""
        with self._lock:
            if not self._working and not self._core.closed:
                closing = self._core.end_session(time.monotonic())
                if closing is not None:
                    self._work([closing])
            self._core.close()
            self._wake()
            while self._working:
                self._lock.wait()
            for number in list(self._connections):
                self._disconnect(number)
            self._selector.close()
            for end in self._waker or ():
                end.close()
            self._waker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ calls

    def _run(self, operation: Operation[T]) -> T:
        (call,) = self._call([operation])
        if call.error is None or (operation.says_nothing and isinstance(call.error, ReplyLost)):
            return operation.read(call.reply)
        raise call.error

    def _run_all(self, parts: list[Operation[Any]]) -> list[Any]:
        return [
            part.read(call.reply)
            if call.error is None or (part.says_nothing and isinstance(call.error, ReplyLost))
            else call.error
            for part, call in zip(parts, self._call(parts), strict=True)
        ]

    def _run_transaction(self, parts: list[Operation[Any]]) -> list[Any]:
        return self._run(as_transaction(parts)) if parts else []

    def _call(self, parts: list[Operation[Any]]) -> list[Call]:
        """Have these done, and return their calls with what became of them."""
        deadline = time.monotonic() + self.timeout
        calls: list[Call] = []
        with self._lock:
            # A server that went away while nothing was asked is noticed now, before anything is sent to it:
            # a write sent into a dead connection would have an open outcome for nothing.
            if self._connections and not self._working:
                self._receive(0)
            try:
                ordered = len(parts) > 1
                calls.extend(self._core.submit(part.command, deadline, None, ordered) for part in parts)
                self._wake()
                while any(not call.done for call in calls):
                    if self._working:
                        self._lock.wait()
                    else:
                        self._work(calls)
            except BaseException:
                for call in calls:
                    self._core.abandon(call)
                raise
        return calls

    def _work(self, calls: list[Call]) -> None:
        """Do the work of all threads until these calls are done."""
        self._working = True
        core = self._core
        try:
            if self._waker is None:
                self._waker = socket.socketpair()
                for end in self._waker:
                    end.setblocking(False)
                self._selector.register(self._waker[0], selectors.EVENT_READ)
            left = len(calls)
            while True:
                now = time.monotonic()
                core.tick(now)
                self._act(core.actions(now))
                if core.finished():
                    self._lock.notify_all()
                while left and calls[left - 1].done:
                    left -= 1
                if not left:
                    return
                wake = core.wake_at()
                self._receive(None if wake is None else max(0.0, wake - time.monotonic()))
        except BaseException:
            # Ctrl-C may have struck in the middle of a write; such a connection can't be used again.
            for number in list(self._connections):
                self._lose(number, "interrupted")
            raise
        finally:
            self._working = False
            self._lock.notify_all()

    def _wake(self) -> None:
        if self._working and self._waker is not None:
            with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
                self._waker[1].send(b"!")

    # ------------------------------------------------------------------ events and actions

    def _act(self, actions: Iterable[Connect | Send | Close]) -> None:
        for action in actions:
            match action:
                case Send(number, data):
                    self._send(number, data)
                case Connect(number, address):
                    self._connect(number, address)
                case Close(number):
                    self._disconnect(number)

    def _connect(self, number: int, address: Address) -> None:
        try:
            found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        except OSError as error:
            self._core.connect_failed(number, describe_failure(error), time.monotonic())
            return
        targets = self._turns.order(address, found)
        tls = None if self._tls is None else TlsClient(self._tls, address[0])
        connection = self._connections[number] = _Connection(number, targets, tls)
        self._try_next(connection, OSError("no address"))

    def _try_next(self, connection: _Connection, error: OSError) -> None:
        """Try the next address of a server's name; `error` is why the one before could not be reached."""
        while connection.targets:
            connection.socket.close()
            if connection.tls is not None:
                connection.tls, connection.out = connection.tls.anew(), bytearray()
            family, kind, protocol, _, where = connection.targets.pop(0)
            try:
                connection.socket = socket.socket(family, kind, protocol)
                connection.socket.setblocking(False)
                result = connection.socket.connect_ex(where)
            except OSError as failure:
                error = failure
                continue
            if result in (0, errno.EINPROGRESS):
                self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)
                return
            error = OSError(result, _describe(result))
        del self._connections[connection.number]
        connection.socket.close()
        self._core.connect_failed(connection.number, describe_failure(error), time.monotonic())

    def _connected(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        result = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            self._try_next(connection, OSError(result, _describe(result)))
            return
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        if connection.tls is not None:
            connection.out += connection.tls.begin()
            self._flush(connection)
        else:
            self._opened(connection)

    def _opened(self, connection: _Connection) -> None:
        connection.is_open = True
        self._core.connected(connection.number, time.monotonic())

    def _send(self, number: int, data: bytes) -> None:
        connection = self._connections.get(number)
        if connection is not None:
            waits = bool(connection.out)
            connection.out += data if connection.tls is None else connection.tls.send(data)
            if not waits:
                self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        """Send what there is room for, and be told when there is more."""
        out = connection.out
        try:
            while out:
                del out[: connection.socket.send(out)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(connection.number, describe_failure(error))
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if out else 0)
        if self._selector.get_key(connection.socket).events != events:
            self._selector.modify(connection.socket, events, connection)

    def _receive(self, seconds: float | None) -> None:
        """Take in what has come, or comes within this time. Other threads may submit calls meanwhile."""
        self._lock.release()
        try:
            ready = self._selector.select(seconds)
        finally:
            self._lock.acquire()
        for key, events in ready:
            connection: _Connection | None = key.data
            if connection is None:
                with contextlib.suppress(BlockingIOError):
                    cast(socket.socket, key.fileobj).recv(RECEIVE_BYTES)
            elif self._connections.get(connection.number) is not connection:
                pass  # closed a moment ago
            elif not connection.is_open and (connection.tls is None or not connection.tls.begun):
                self._connected(connection)
            else:
                if events & selectors.EVENT_READ:
                    self._read(connection)
                if events & selectors.EVENT_WRITE and connection.number in self._connections:
                    self._flush(connection)

    def _read(self, connection: _Connection) -> None:
        number = connection.number
        try:
            data = connection.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(number, describe_failure(error))
            return
        received: bytes | None = data
        if data and connection.tls is not None:
            received = self._decrypt(connection, data)
        if received is None or self._connections.get(number) is not connection:
            return
        if received:
            self._core.received(number, received, time.monotonic())
        else:
            self._lose(number, "the server closed the connection")

    def _decrypt(self, connection: _Connection, data: bytes) -> bytes | None:
        """Return what was sent to us in these bytes; b"" at its end, None when there is nothing in them."""
        tls = connection.tls
        assert tls is not None
        try:
            plain, answer = tls.receive(data)
        except OSError as error:
            if connection.is_open:
                self._lose(connection.number, describe_failure(error))
            else:
                self._selector.unregister(connection.socket)
                self._try_next(connection, error)
            return None
        if answer:
            connection.out += answer
            self._flush(connection)
        if tls.done and not connection.is_open and connection.number in self._connections:
            self._opened(connection)
        return b"" if tls.ended and not plain else plain or None

    def _lose(self, number: int, reason: str) -> None:
        connection = self._connections.get(number)
        shaking_hands = connection is not None and connection.tls is not None and not connection.is_open
        self._disconnect(number)
        report = self._core.connect_failed if shaking_hands else self._core.lost
        report(number, reason, time.monotonic())

    def _disconnect(self, number: int) -> None:
        connection = self._connections.pop(number, None)
        if connection is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(connection.socket)
            connection.socket.close()


def _describe(number: int) -> str:
    return os.strerror(number)
