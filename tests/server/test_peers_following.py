"""Who is dialled while members come and go (rule M1)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from balsadb.raft.types import Configuration
from balsadb.server import peers as module
from balsadb.server.addresses import AddressBook
from balsadb.server.peers import Peers
from balsadb.wire.frame import PROTOCOL_VERSION, Hello, Welcome, encode_handshake


class Members:
    """Stand-ins for other servers: each notes who connects to it, and answers nothing."""

    def __init__(self) -> None:
        self.connections: dict[int, list[asyncio.Transport]] = {}
        self.servers: list[asyncio.Server] = []

    async def add(self, node: int) -> tuple[str, int]:
        links = self.connections.setdefault(node, [])

        class Link(asyncio.Protocol):
            def connection_made(self, transport) -> None:
                self.transport = transport
                links.append(transport)

            def data_received(self, data: bytes) -> None:
                self.transport.write(encode_handshake(Welcome(node, bytes([node]) * 16, b"c", "", True)))

            def connection_lost(self, error) -> None:
                links.remove(self.transport)

        server = await asyncio.get_running_loop().create_server(Link, "127.0.0.1", 0)
        self.servers.append(server)
        return server.sockets[0].getsockname()

    async def until(self, condition) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.002)


def make(configuration: Configuration, book: AddressBook, node: int = 1) -> Peers:
    raft = SimpleNamespace(id=node, configuration=configuration)
    replica = SimpleNamespace(node=raft, peer_up=lambda _: None, peer_lost=lambda _: None)
    driver = SimpleNamespace(replica=replica, wake=lambda: None, receive=lambda _: None)
    admission = SimpleNamespace(
        hello=lambda target: Hello(PROTOCOL_VERSION, b"c", b"", node, target, b"1" * 16, 1, "", True),
        welcomed=lambda target, welcome: None,
        answer=lambda hello: Welcome(node, b"1" * 16, b"c", "", True),
    )
    return Peers(driver, admission, book, SimpleNamespace())


async def playing(scenario, configuration: Configuration, node: int = 1) -> None:
    others, book = Members(), AddressBook(node, {})
    peers, addresses = make(configuration, book, node), book.known
    await peers.start("127.0.0.1", 0)
    try:
        await scenario(peers, others, addresses)
    finally:
        await peers.stop()
        for server in others.servers:
            server.close()


TWO = Configuration(voters=(1, 2))


def test_a_new_member_is_dialled_and_a_removed_one_let_go_after_a_moment(monkeypatch):
    monkeypatch.setattr(module, "FAREWELL_SECONDS", 0.05)

    async def scenario(peers: Peers, others: Members, addresses) -> None:
        addresses[2] = await others.add(2)
        peers.follow()
        await others.until(lambda: others.connections[2] and 2 in peers.connected)
        addresses[3] = await others.add(3)
        peers.follow()
        await others.until(lambda: 3 in peers.connected)
        del addresses[2]
        peers.follow()
        assert 2 in peers.connected, "it has to hear that it was removed"
        await others.until(lambda: not others.connections[2])
        assert peers.connected == {3}

    asyncio.run(playing(scenario, TWO))


def test_a_member_that_comes_back_before_it_was_let_go_keeps_its_link(monkeypatch):
    """An uncommitted removal may be truncated."""
    monkeypatch.setattr(module, "FAREWELL_SECONDS", 0.02)

    async def scenario(peers: Peers, others: Members, addresses) -> None:
        address = addresses[2] = await others.add(2)
        peers.follow()
        await others.until(lambda: 2 in peers.connected)
        del addresses[2]
        peers.follow()
        addresses[2] = address
        peers.follow()
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(0.06, done.set)
        await done.wait()
        assert peers.connected == {2}

    asyncio.run(playing(scenario, TWO))


def test_a_removed_node_ends_all_its_links(monkeypatch):
    monkeypatch.setattr(module, "FAREWELL_SECONDS", 0.02)

    async def scenario(peers: Peers, others: Members, addresses) -> None:
        addresses[2] = await others.add(2)
        peers.follow()
        await others.until(lambda: 2 in peers.connected)
        peers.follow(alone=True)
        await others.until(lambda: not others.connections[2])

    asyncio.run(playing(scenario, TWO))


class Caller(asyncio.Protocol):
    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.answered = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        transport.write(encode_handshake(self.hello))

    def data_received(self, data: bytes) -> None:
        self.answered.set_result(data)


async def call(peers: Peers, node: int, target: int, address: str) -> asyncio.Transport:
    """Greet as another member does."""
    _, port = peers._server.sockets[0].getsockname()
    hello = Hello(PROTOCOL_VERSION, b"c", b"", node, target, b"2" * 16, 1, "", True, 0, address)
    loop = asyncio.get_running_loop()
    transport, caller = await loop.create_connection(lambda: Caller(hello), "127.0.0.1", port)
    await asyncio.wait_for(caller.answered, 5)
    return transport


def test_a_node_that_joins_dials_nobody_before_it_is_called():
    async def scenario(peers: Peers, others: Members, addresses) -> None:
        addresses[2] = await others.add(2)
        addresses[3] = await others.add(3)
        peers.follow()
        link = await call(peers, 2, 4, "")
        await others.until(lambda: 2 in peers.connected)
        assert not others.connections[3]
        link.close()

    asyncio.run(playing(scenario, TWO, node=4))


@pytest.mark.parametrize("address", ["", "nonsense"])
def test_a_caller_without_an_address_is_heard_and_not_dialled(address):
    async def scenario(peers: Peers, others: Members, addresses) -> None:
        link = await call(peers, 9, 1, address)
        assert addresses == {}
        link.close()

    asyncio.run(playing(scenario, TWO))


def test_rule_m1_a_caller_that_the_log_does_not_know_yet_is_answered():
    """It may be a voter that needs this node's vote."""

    async def scenario(peers: Peers, others: Members, addresses) -> None:
        host, port = await others.add(9)
        link = await call(peers, 9, 1, f"{host}:{port}")
        await others.until(lambda: 9 in peers.connected)
        assert addresses == {9: (host, port)}
        link.close()

    asyncio.run(playing(scenario, TWO))


@pytest.mark.parametrize("rounds", range(8))
def test_stopping_ends_at_every_moment_after_a_link_broke(rounds):
    """All nodes of a cluster are stopped together: links break just when one gives up dialling."""

    async def scenario() -> None:
        others, book = Members(), AddressBook(1, {})
        peers = make(TWO, book)
        book.known[2] = await others.add(2)
        await peers.start("127.0.0.1", 0)
        await others.until(lambda: peers.connected == {2})
        # Node 2 has called us meanwhile, as every other member does.
        peers._nudges[2].set()
        peers._links[2].abort()
        for _ in range(rounds):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await peers.stop()
        for server in others.servers:
            server.close()

    asyncio.run(scenario())
