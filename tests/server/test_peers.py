"""Connections between servers, at the moments when they break."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import uvloop

from balsadb.raft.messages import Heartbeat
from balsadb.server.addresses import AddressBook
from balsadb.server.peers import STRANGERS_MAX, Peers
from balsadb.wire.frame import PROTOCOL_VERSION, Hello, Welcome, encode_handshake, encode_messages

HEARTBEAT = Heartbeat(1, 2, 1, 0, 0)


@pytest.mark.parametrize("make_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_messages_to_a_peer_whose_connection_just_broke_are_dropped(make_loop):
    """The turn that sends them must go on: it also has replies for clients and reads from the disk."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        broken = loop.create_future()

        class Link(asyncio.Protocol):
            def connection_lost(self, error: Exception | None) -> None:
                loop.call_soon(broken.set_result, None)

        transport, _ = await loop.create_connection(Link, "127.0.0.1", port)
        peers = Peers(SimpleNamespace(), SimpleNamespace(), AddressBook(1, {}), SimpleNamespace())
        peers._links[2] = transport
        try:
            peers.send(2, [HEARTBEAT])
            assert peers.dropped_messages == 0
            transport.abort()
            peers.send(2, [HEARTBEAT])
            await asyncio.wait_for(broken, 5)
            peers.send(2, [HEARTBEAT, HEARTBEAT])
            assert peers.dropped_messages == 3
        finally:
            transport.abort()
            server.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario())


def test_connections_without_a_hello_keep_no_member_out():
    async def scenario() -> None:
        peers = Peers(SimpleNamespace(), SimpleNamespace(), AddressBook(1, {}), SimpleNamespace())
        await peers.start("127.0.0.1", 0)
        try:
            port = peers._server.sockets[0].getsockname()[1]
            strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(STRANGERS_MAX + 5)]
            for reader, _ in strangers[:5]:
                assert not await asyncio.wait_for(_read(reader), 5)
            assert len(peers.inbound) == STRANGERS_MAX
            for _, writer in strangers:
                writer.close()
        finally:
            await peers.stop()

    asyncio.run(scenario())


def test_a_peer_that_dials_again_replaces_its_former_connection():
    """The end of that one may never be heard of; and its loss is not the loss of the peer (rule M3)."""

    async def scenario() -> None:
        lost: list[int] = []
        received: list[object] = []
        gone = asyncio.Event()

        def peer_lost(node: int) -> None:
            lost.append(node)
            gone.set()

        replica = SimpleNamespace(peer_lost=peer_lost)
        driver = SimpleNamespace(replica=replica, receive=received.append, wake=lambda: None)
        admission = SimpleNamespace(answer=lambda hello: Welcome(1, b"1" * 16, b"", "", True))
        peers = Peers(driver, admission, AddressBook(1, {}), SimpleNamespace())
        await peers.start("127.0.0.1", 0)
        try:
            port = peers._server.sockets[0].getsockname()[1]
            links = []
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(
                    encode_handshake(Hello(PROTOCOL_VERSION, b"", b"", 2, 1, b"2" * 16, 1, "", True))
                )
                await asyncio.wait_for(reader.read(1000), 5)
                links.append((reader, writer))
            for reader, writer in links[:2]:
                assert not await asyncio.wait_for(_read(reader), 5)
                writer.close()
            assert len(peers.inbound) == 1
            assert not lost
            links[2][1].write(encode_messages([Heartbeat(2, 1, 1, 0, 0)]))
            links[2][1].close()
            await asyncio.wait_for(gone.wait(), 5)
            assert lost == [2]
            assert received == [(Heartbeat(2, 1, 1, 0, 0),)]
        finally:
            await peers.stop()

    asyncio.run(scenario())


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
