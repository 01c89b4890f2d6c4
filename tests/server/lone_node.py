"""A cluster of one inside the test's own event loop, with its HTTP port."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import msgspec

from balsadb.server.config import ServeConfig
from balsadb.server.node import Node
from balsadb.testing import _choose_ports


def _free_addresses() -> list[str]:
    """Return addresses for clients, peers and HTTP, at ports that no outgoing connection is given."""
    (ports,) = _choose_ports(1, None, "127.0.0.1")
    return [f"127.0.0.1:{port}" for port in ports]


@contextlib.asynccontextmanager
async def lone_node(path, **settings) -> AsyncIterator[Node]:
    """Run a node until it leads and is ready; settings are fields of its configuration."""
    client, peer, http = _free_addresses()
    config = ServeConfig(
        id=1,
        data_dir=str(path),
        listen=client,
        peer_listen=peer,
        http_listen=http,
        cluster={1: peer},
        advertise=client,
        election_timeout_ms=50,  # there is nobody else, so nothing is gained by waiting
        heartbeat_ms=10,
    )
    async with Node(msgspec.structs.replace(config, **settings)) as node:
        async with asyncio.timeout(10):
            while node.unready() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        yield node
    gc.unfreeze()  # a process of its own keeps what a start has made; this one goes on


async def redis(node: Node, *commands: bytes) -> list[bytes]:
    """Send inline commands over one connection; returns the first line of each reply that is one line."""
    host, port = node.config.listen.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        replies = []
        for command in commands:
            writer.write(command + b"\r\n")
            replies.append((await asyncio.wait_for(reader.readline(), 10)).rstrip())
        return replies
    finally:
        writer.close()
        await writer.wait_closed()


async def get(node: Node, path: str) -> tuple[int, dict[str, str], bytes]:
    """Ask the HTTP port; returns status, headers in lower case, body."""
    host, port = str(node.config.http_listen).split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), headers, body
