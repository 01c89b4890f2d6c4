"""Connections between servers, at the moments when they break."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import uvloop

from balsadb.raft.messages import Heartbeat
from balsadb.server.peers import Peers

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
        peers = Peers(SimpleNamespace(), SimpleNamespace(), {})
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
