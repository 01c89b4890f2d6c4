"""`BlockingClerk`: the front of the Clerk for programs without asyncio.

Like the asyncio front it decides nothing: it carries out the core's actions with plain sockets, and waits for
events no longer than the core says.
"""

from __future__ import annotations

import random
import selectors
import socket
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, cast

from balsadb.client.core import Address, Call, ClerkCore, ClerkOptions, Close, Connect, Send
from balsadb.client.servers import describe_failure, server_addresses
from balsadb.client.words import Word, classify, encode, to_python

RECEIVE_BYTES = 256 * 1024
DEFAULT_TIMEOUT = 10.0
"""Seconds that a call may take in all, unless the Clerk says otherwise."""


class BlockingClerk:
    """A client of a BalsaDB cluster, for ordinary blocking code.

        with BlockingClerk(["db1:7001", "db2:7001", "db3:7001"]) as clerk:
            clerk.put("k", "v")
            assert clerk.get("k") == b"v"

    Without `servers` it takes BALSADB_SERVERS, else 127.0.0.1:7001-7003. Threads may share it; their calls
    run one after the other. Keys and values are `str` (sent as UTF-8) or `bytes`; answers are `bytes`. It
    connects when first used.

    Every call raises `NotApplied` when it certainly did not happen (no server was reached in time),
    `OutcomeUnknown` when it may have happened, and `CommandError` when the database refused it.
    """

    def __init__(
        self,
        servers: str | Iterable[str] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        options: ClerkOptions | None = None,
    ) -> None:
        self.timeout = timeout
        self._options = options or ClerkOptions()
        self._core = ClerkCore(server_addresses(servers), self._options, random.Random().uniform)
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, socket.socket] = {}

    # ------------------------------------------------------------------ operations

    def put(self, key: Word, value: Word) -> None:
        """Set a key to a value."""
        self._call(encode(b"SET", key, value), False)

    def append(self, key: Word, value: Word) -> int:
        """Append to a key's value, which is empty at first; return the new length."""
        return cast(int, self._call(encode(b"APPEND", key, value), False))

    def get(self, key: Word) -> bytes | None:
        """Return a key's value, or None when there is no such key."""
        return cast("bytes | None", self._call(encode(b"GET", key), True))

    def delete(self, *keys: Word) -> int:
        """Delete keys; return how many of them there were."""
        return cast(int, self._call(encode(b"DEL", *keys), False)) if keys else 0

    def execute(self, *command: Word) -> Any:
        """Run any command, such as `execute("INCRBY", "counter", 5)`, and return its answer.

        Commands that change the state of a connection (MULTI, SUBSCRIBE, ...) are refused.
        """
        is_read = classify(command)
        return to_python(self._call(encode(*command), is_read))

    def close(self) -> None:
        """Close the connections. May be called twice."""
        with self._lock:
            self._core.close()
            for number in list(self._open):
                self._disconnect(number)
            self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ one call

    def _call(self, data: bytes, is_read: bool) -> Any:
        deadline = time.monotonic() + self.timeout
        with self._lock:
            # A server that went away while nothing was asked is noticed now, before anything is sent to it:
            # a write sent into a dead connection would have an unknown outcome.
            if self._open:
                self._receive(0)
            call = self._core.submit(data, is_read, deadline)
            try:
                self._run(call)
            except BaseException:
                # Ctrl-C may have struck in the middle of a write; such a connection can't be used again.
                self._core.abandon(call)
                for number in list(self._open):
                    self._lose(number, "interrupted")
                raise
        if call.error is not None:
            raise call.error
        return call.reply

    def _run(self, call: Call) -> None:
        core = self._core
        while not call.done:
            now = time.monotonic()
            core.tick(now)
            actions = core.actions(now)
            for action in actions:
                match action:
                    case Send(number, data):
                        self._send(number, data)
                    case Connect(number, address):
                        self._connect(number, address, call.deadline - now)
                    case Close(number):
                        self._disconnect(number)
            if not actions and not call.done:
                wake = core.wake_at()
                self._receive(None if wake is None else max(0.0, wake - now))
        core.finished()

    # ------------------------------------------------------------------ events and actions

    def _connect(self, number: int, address: Address, seconds: float) -> None:
        try:
            connection = socket.create_connection(
                address, max(0.001, min(seconds, self._options.connect_timeout))
            )
        except OSError as error:
            self._core.connect_failed(number, describe_failure(error), time.monotonic())
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self._options.answer_timeout)
        self._open[number] = connection
        self._selector.register(connection, selectors.EVENT_READ, number)
        self._core.connected(number, time.monotonic())

    def _send(self, number: int, data: bytes) -> None:
        if number not in self._open:
            return
        try:
            self._open[number].sendall(data)
        except OSError as error:
            self._lose(number, describe_failure(error))

    def _receive(self, seconds: float | None) -> None:
        """Take in what has come, or comes within this time."""
        for key, _ in self._selector.select(seconds):
            try:
                data = cast(socket.socket, key.fileobj).recv(RECEIVE_BYTES)
            except OSError as error:
                self._lose(key.data, describe_failure(error))
                continue
            if data:
                self._core.received(key.data, data, time.monotonic())
            else:
                self._lose(key.data, "the server closed the connection")

    def _lose(self, number: int, reason: str) -> None:
        self._disconnect(number)
        self._core.lost(number, reason, time.monotonic())

    def _disconnect(self, number: int) -> None:
        if (connection := self._open.pop(number, None)) is not None:
            self._selector.unregister(connection)
            connection.close()
