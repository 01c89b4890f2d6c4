"""TCP proxies for the links between servers, which tests can cut like cables.

A server sends over the connection that it dialled and receives over the one that the other dialled, so a
proxy carries one direction of a link: what the dialler sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from balsadb.address import parse_address
from balsadb.testing import LocalCluster

CHUNK_BYTES = 65_536


class LinkProxy:
    """Forwards bytes from a local port to a target; `cut` holds everything back without closing anything."""

    def __init__(self, network: ProxyNetwork, target: tuple[str, int]) -> None:
        self._network = network
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._near: set[asyncio.StreamWriter] = set()
        """Ends of connections towards those who dialled."""
        self._far: set[asyncio.StreamWriter] = set()
        """Ends of connections towards the target."""
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening; on the proxies' loop."""
        if self._server is not None:
            self._server.close()

    def cut(self) -> None:
        """Hold back what is sent from now on, ends of connections too, as a pulled cable does."""
        self._network.call(self._flowing.clear)

    def heal(self) -> None:
        """Let everything through again."""
        self._network.call(self._flowing.set)

    def reset(self) -> None:
        """Break every connection; what was under way is lost, as behind a firewall that restarts."""
        self._network.call(lambda: _abort(self._near | self._far))

    def cut_and_tell_target(self) -> None:
        """Cut the link so that the target sees its connections end, and the dialler sees nothing."""
        self.cut()
        self._network.call(lambda: _abort(self._far))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._near.add(writer)
        there_writer = None
        try:
            await self._flowing.wait()
            there_reader, there_writer = await asyncio.open_connection(*self._target)
            self._far.add(there_writer)
            await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # nobody listens there, or the network closes; asyncio has nothing to add to either
        finally:
            self._near.discard(writer)
            writer.close()
            if there_writer is not None:
                self._far.discard(there_writer)
                there_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
        # That an end has closed travels over the same cable.
        await self._flowing.wait()
        writer.close()


def _abort(writers: set[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()


class ProxyNetwork:
    """Runs proxies on an event loop in a thread of its own."""

    def __init__(self) -> None:
        self._proxies: list[LinkProxy] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def link(self, target: tuple[str, int]) -> LinkProxy:
        """Open a proxy to `target`."""

        async def make() -> LinkProxy:
            proxy = LinkProxy(self, target)
            await proxy.start()
            self._proxies.append(proxy)
            return proxy

        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(10)

    def call(self, function) -> None:
        self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        async def end() -> None:
            for proxy in self._proxies:
                proxy.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextlib.contextmanager
def proxies() -> Iterator[ProxyNetwork]:
    """Give a network of proxies and close it afterwards."""
    network = ProxyNetwork()
    try:
        yield network
    finally:
        network.close()


Links = dict[tuple[int, int], LinkProxy]
"""`links[a, b]` carries what node a sends to node b."""


@contextlib.contextmanager
def cluster_behind_proxies(nodes: int, **options) -> Iterator[tuple[LocalCluster, Links]]:
    """Start a cluster, made with `options`, whose every one-way link runs through a proxy."""
    cluster = LocalCluster(nodes=nodes, **options)
    with proxies() as network:
        links: Links = {}
        for a in cluster.nodes:
            for b, node in cluster.nodes.items():
                if a != b:
                    links[a, b] = network.link(parse_address(node.peer_address))
                    cluster.dial[a][b] = f"127.0.0.1:{links[a, b].port}"
        with cluster:
            yield cluster, links
