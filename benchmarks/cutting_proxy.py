"""A TCP proxy between clients and a node that cuts connections at the worst moment.

A request goes through; when the node's answers come, some of them are thrown away and the connection is
closed instead. The client can't know whether its commands were run, and they were.
"""

from __future__ import annotations

import asyncio
import random
from typing import cast

from harness import split_address

ANSWER = b":"
"""First byte of the answer to an append or an increment."""


class CuttingProxy:
    """Forwards from a port of its own to one node."""

    def __init__(self, target: str, share: float, seed: int) -> None:
        self.target = split_address(target)
        self.share = share
        """Of the pieces of answers that come from the node, this part is thrown away."""
        self.passed = 0
        """Answers that got through."""
        self.cut = 0
        """Answers that were thrown away."""
        self.connections_cut = 0
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._near: set[_Near] = set()

    async def start(self, port: int) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), "127.0.0.1", port)

    def close(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
        for near in list(self._near):
            near.end()

    def admit(self, data: bytes) -> bool:
        """Say whether a piece of answers may pass, and count it."""
        # Only answers to writes are counted; those about members and sessions are few.
        answers = data.count(ANSWER)
        if answers and self._random.random() < self.share:
            self.cut += answers
            self.connections_cut += 1
            return False
        self.passed += answers
        return True

    def opened(self, near: _Near) -> None:
        """Note a connection. (Called by `_Near`.)"""
        self._near.add(near)

    def ended(self, near: _Near) -> None:
        """Forget a connection. (Called by `_Near`.)"""
        self._near.discard(near)


class _Near(asyncio.Protocol):
    """A client's end of a connection."""

    def __init__(self, proxy: CuttingProxy) -> None:
        self.proxy = proxy
        self.transport: asyncio.Transport | None = None
        self.far: _Far | None = None
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own type is none of asyncio's
        self.proxy.opened(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Far(self), *self.proxy.target)
        except OSError:
            self.end()

    def connected(self, far: _Far) -> None:
        """The node's end is open."""
        self.far = far
        far.transport.write(b"".join(self._early))
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self.far is None:
            self._early.append(data)
        else:
            self.far.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        """Close both ends."""
        self.proxy.ended(self)
        if self._connecting is not None and self.far is None:
            self._connecting.cancel()
        if self.transport is not None:
            self.transport.abort()
        if self.far is not None:
            self.far.transport.abort()


class _Far(asyncio.Protocol):
    """The node's end of a connection."""

    transport: asyncio.Transport

    def __init__(self, near: _Near) -> None:
        self._near = near

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own type is none of asyncio's
        self._near.connected(self)

    def data_received(self, data: bytes) -> None:
        near = self._near
        assert near.transport is not None
        if near.proxy.admit(data):
            near.transport.write(data)
        else:
            near.end()

    def connection_lost(self, error: Exception | None) -> None:
        self._near.end()
