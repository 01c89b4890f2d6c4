"""A listener without sockets and without a replica, for tests of what clients may make a node hold."""

from __future__ import annotations

from types import SimpleNamespace

from balsadb.server.clock import Clock
from balsadb.server.connection import ClientConnection
from balsadb.server.listener import Listener


class Transport:
    """A socket whose other end reads nothing until it is told to, beyond what the kernel takes."""

    def __init__(self, address: str, kernel_bytes: int) -> None:
        self.protocol: ClientConnection
        self.sent = bytearray()
        self.unread = 0
        self.reading = True
        self.closed = False
        self._address = address
        self._kernel_bytes = kernel_bytes

    def set_write_buffer_limits(self, high: int) -> None:
        self._high = high

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return self._address, 5

    def write(self, data: bytes) -> None:
        self.sent += data
        self.unread += len(data)
        if self.get_write_buffer_size() > self._high:
            self.protocol.pause_writing()

    def read_all(self) -> None:
        self.unread = 0
        self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return max(0, self.unread - self._kernel_bytes)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    abort = close


class Rig:
    """A listener over a replica that only keeps what it is asked for."""

    def __init__(self, clients_max: int = 10_000, **bounds: int) -> None:
        self.requests: list = []
        self.replica = SimpleNamespace(submit=self._submit, held_bytes=0, now_ms=1, wall_ms=1)
        self.wakes = 0
        driver = SimpleNamespace(replica=self.replica, wake=self._wake)
        self.listener = Listener(driver, self, Clock(), clients_max, **bounds)

    def _submit(self, request, now_ms) -> None:
        request.lane.held_bytes += request.size
        self.requests.append(request)

    def _wake(self) -> None:
        self.wakes += 1

    def connect(
        self, address: str = "127.0.0.1", kernel_bytes: int = 0
    ) -> tuple[ClientConnection, Transport]:
        connection, transport = ClientConnection(self.listener), Transport(address, kernel_bytes)
        transport.protocol = connection
        connection.connection_made(transport)
        return connection, transport

    def answer(self, reply) -> None:
        """Give every open request this reply to each of its commands, and end the turn."""
        answered, self.requests = self.requests, []
        for request in answered:
            request.replies = [reply() if callable(reply) else reply for _ in range(request.answers)]
            request.lane.held_bytes -= request.size
        self.listener.finished(answered)
        self.listener.flush()

    def pass_time(self, milliseconds: int) -> None:
        """Let time pass, and the listener look for who is stuck or idle."""
        self.replica.now_ms += milliseconds
        self.listener.sweep(list(self.listener._connections.values()))
