"""Clients that write and read without pause, and remember what they were told."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import hiredis

from balsadb.address import parse_address
from balsadb.sim.history import Action, Operation


class Connection:
    """A blocking RESP connection, as small as it gets; no retries, no cleverness."""

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        import socket

        self._socket = socket.create_connection(parse_address(address), timeout)
        self._reader = hiredis.Reader()

    def call(self, *argv: bytes):
        """Send a command and return its reply; an error reply is returned as `hiredis.ReplyError`."""
        parts = [b"*%d\r\n" % len(argv)]
        parts += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in argv]
        self._socket.sendall(b"".join(parts))
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65_536)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)
        return reply

    def close(self) -> None:
        self._socket.close()


class Appender(threading.Thread):
    """Appends `<n>,` to one key as fast as it is answered, and reads it back now and then.

    `errors` has every error reply and lost connection; after one it stops, because the outcome of its last
    append is not known any more.
    """

    def __init__(self, address: str, key: bytes, stop: threading.Event, client: int = 0) -> None:
        super().__init__(name=f"appender-{key.decode()}", daemon=True)
        self.address = address
        self.key = key
        self.client = client
        self.acknowledged = 0
        self.errors: list[str] = []
        self.longest_gap = 0.0
        self.history: list[Operation] = []
        self._stop_event = stop

    def run(self) -> None:
        connection = Connection(self.address)
        try:
            last = time.monotonic()
            while not self._stop_event.is_set():
                if not self._append(connection):
                    return
                if self.acknowledged % 10 == 0 and not self._read(connection):
                    return
                now = time.monotonic()
                self.longest_gap = max(self.longest_gap, now - last)
                last = now
        finally:
            connection.close()

    def _append(self, connection: Connection) -> bool:
        addition = b"%d," % self.acknowledged
        called = time.monotonic()
        try:
            reply = connection.call(b"APPEND", self.key, addition)
        except OSError as error:
            self.errors.append(repr(error))
            reply = None
        known = isinstance(reply, int)
        returned = time.monotonic() if known else None
        self.history.append(
            Operation(
                self.client, Action.APPEND, self.key, addition, reply if known else None, called, returned
            )
        )
        if known:
            self.acknowledged += 1
        elif reply is not None:
            self.errors.append(str(reply))
        return known

    def _read(self, connection: Connection) -> bool:
        called = time.monotonic()
        try:
            value = connection.call(b"GET", self.key)
        except OSError as error:
            self.errors.append(repr(error))
            return False
        if not isinstance(value, bytes | None):
            self.errors.append(str(value))
            return False
        self.history.append(
            Operation(self.client, Action.GET, self.key, b"", value, called, time.monotonic())
        )
        return True


def start_appenders(addresses: Sequence[str], each: int, stop: threading.Event) -> list[Appender]:
    """Start `each` appenders on every address, each with a key of its own."""
    appenders = [
        Appender(address, b"appends-%d-%d" % (number, i), stop, number * each + i)
        for number, address in enumerate(addresses)
        for i in range(each)
    ]
    for appender in appenders:
        appender.start()
    return appenders


def expected(count: int) -> bytes:
    """Return the value of a key after `count` appends of one appender."""
    return b"".join(b"%d," % number for number in range(count))


def read_everywhere(addresses: Sequence[str], key: bytes) -> list[bytes | None]:
    """Read a key on every server."""
    values = []
    for address in addresses:
        connection = Connection(address)
        values.append(connection.call(b"GET", key))
        connection.close()
    return values


def wait_until(condition, timeout: float, what: str) -> None:
    """Wait for a condition; fail with a sentence when it does not come true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} not within {timeout:g} s"
        time.sleep(0.02)
