"""Hosts that are named: looked up for every attempt, all addresses tried, never in anybody's way."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import uvloop

from balsadb.raft.types import Configuration, Member
from balsadb.server import names
from balsadb.server.addresses import AddressBook
from balsadb.server.peers import Peers
from balsadb.wire.frame import Welcome, encode_handshake

LOOPS = pytest.mark.parametrize("make_loop", [uvloop.new_event_loop, asyncio.new_event_loop])


class Resolver:
    """Stands for the system's: a name has the addresses that the test says at the moment."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.open = threading.Event()
        """Cleared, no name server answers."""
        self.open.set()

    def getaddrinfo(self, host, port, *rest, **options):
        self.asked.append(host)
        assert self.open.wait(20)
        if not (found := self.answers.get(host)):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in found]


@pytest.fixture
def resolver(monkeypatch):
    resolver = Resolver()
    monkeypatch.setattr(names.socket, "getaddrinfo", resolver.getaddrinfo)
    yield resolver
    resolver.open.set()
    # A lookup that is still under way would be joined by whoever asks for the same name in the next test.
    deadline = time.monotonic() + 20
    while names._under_way and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not names._under_way


def run(scenario, make_loop=asyncio.new_event_loop) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(bounded())


async def until(condition) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


class Doors:
    """Listens at some addresses of this machine under one port, and notes where somebody came in."""

    def __init__(self, node: int = 2) -> None:
        self.node = node
        self.port = 0
        self.entered: list[str] = []
        self.servers: dict[str, asyncio.Server] = {}
        self.links: dict[str, asyncio.Transport] = {}

    async def open(self, address: str) -> None:
        doors = self

        class Door(asyncio.Protocol):
            def connection_made(self, transport) -> None:
                self.transport = doors.links[address] = transport

            def data_received(self, data: bytes) -> None:
                doors.entered.append(address)
                self.transport.write(encode_handshake(Welcome(doors.node, b"2" * 16, b"c", "", True)))

        server = await asyncio.get_running_loop().create_server(Door, address, self.port)
        self.port = server.sockets[0].getsockname()[1]
        self.servers[address] = server

    def close(self, address: str) -> None:
        self.servers.pop(address).close()
        if (link := self.links.pop(address, None)) is not None:
            link.abort()


@LOOPS
def test_every_address_of_a_name_is_tried(resolver, make_loop):
    async def scenario() -> None:
        doors = Doors()
        await doors.open("127.0.0.3")
        resolver.answers["two.test"] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        _, writer = await names.connect("two.test", doors.port, 2.0, asyncio.open_connection)
        assert writer.get_extra_info("peername")[0] == "127.0.0.3"
        writer.close()
        doors.close("127.0.0.3")

    run(scenario, make_loop)


def test_an_address_that_never_answers_leaves_time_for_the_others(resolver):
    resolver.answers["two.test"] = ["127.0.0.1", "127.0.0.2"]

    async def attempt(address: str, port: int) -> str:
        if address == "127.0.0.1":
            await asyncio.Event().wait()
        return address

    async def scenario() -> None:
        assert await names.connect("two.test", 1, 0.0, attempt) == "127.0.0.2"

    run(scenario)


def test_the_reason_of_the_last_failure_is_raised(resolver):
    resolver.answers["two.test"] = ["127.0.0.1"]

    async def attempt(address: str, port: int) -> None:
        raise ConnectionRefusedError(f"{address}:{port}")

    async def scenario() -> None:
        with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1:1"):
            await names.connect("two.test", 1, 1.0, attempt)

    run(scenario)


@LOOPS
def test_a_name_server_that_hangs_delays_nothing_but_the_attempt(resolver, make_loop, monkeypatch):
    monkeypatch.setattr(names, "LOOKUP_SECONDS_MAX", 0.05)
    resolver.answers["two.test"] = ["127.0.0.2"]
    resolver.open.clear()

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(socket.gaierror, match="no name server answers in time"):
                await names.find("two.test")
            assert await asyncio.to_thread(lambda: 5) == 5, "the worker threads are free"
        assert resolver.asked == ["two.test"], "attempts join the lookup that is under way"
        monkeypatch.setattr(names, "LOOKUP_SECONDS_MAX", 10)
        joined = [asyncio.ensure_future(names.find("two.test")) for _ in range(3)]
        await asyncio.sleep(0)
        joined[0].cancel()
        resolver.open.set()
        assert await asyncio.gather(*joined[1:]) == [["127.0.0.2"]] * 2
        assert resolver.asked == ["two.test"]

    run(scenario, make_loop)


def test_the_end_of_the_process_does_not_wait_for_a_name_server(resolver, monkeypatch):
    monkeypatch.setattr(names, "LOOKUP_SECONDS_MAX", 0.01)
    resolver.open.clear()

    async def scenario() -> None:
        with pytest.raises(socket.gaierror):
            await names.find("two.test")

    began = time.monotonic()
    run(scenario)
    assert time.monotonic() - began < 5
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "look-up-two.test")


def test_what_a_name_meant_before_is_not_remembered(resolver):
    async def scenario() -> None:
        for address in ("127.0.0.1", "127.0.0.2"):
            resolver.answers["two.test"] = [address]
            assert await names.find("two.test") == [address]

    run(scenario)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo"])
def test_an_address_is_not_looked_up(resolver, host):
    async def scenario() -> None:
        assert await names.find(host) == [host]
        assert not resolver.asked

    run(scenario)


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "a\0b"])
def test_what_can_be_no_name_is_a_name_without_an_address(host):
    async def scenario() -> None:
        with pytest.raises(socket.gaierror):
            await names.find(host)

    run(scenario)


# ------------------------------------------------------------------------------- connections between servers


def make(port: int) -> Peers:
    configuration = Configuration(voters=(1, 2), members=(Member(2, f"two.test:{port}", ""),))
    raft = SimpleNamespace(id=1, configuration=configuration)
    replica = SimpleNamespace(node=raft, peer_up=lambda node: None, peer_lost=lambda node: None)
    driver = SimpleNamespace(replica=replica, wake=lambda: None, receive=lambda messages: None)
    admission = SimpleNamespace(
        hello=lambda target: Welcome(1, b"1" * 16, b"c", "", True),
        welcomed=lambda node, answer: None if answer.node_id == node else f"node {answer.node_id} answers",
    )
    book = AddressBook(1, {})
    book.learn(configuration)
    return Peers(driver, admission, book, SimpleNamespace())


@LOOPS
def test_a_member_that_comes_back_under_another_address_is_found(resolver, make_loop):
    async def scenario() -> None:
        doors = Doors()
        await doors.open("127.0.0.1")
        resolver.answers["two.test"] = ["127.0.0.1"]
        peers = make(doors.port)
        await peers.start("127.0.0.1", 0)
        try:
            await until(lambda: doors.entered == ["127.0.0.1"])
            doors.close("127.0.0.1")
            await doors.open("127.0.0.2")
            resolver.answers["two.test"] = ["127.0.0.2"]
            await until(lambda: doors.entered == ["127.0.0.1", "127.0.0.2"])
            await until(lambda: peers.connected == {2})
        finally:
            await peers.stop()
            doors.close("127.0.0.2")

    run(scenario, make_loop)


@LOOPS
def test_a_name_without_an_address_yet_is_said_once_and_tried_until_it_has_one(resolver, make_loop, capsys):
    async def scenario() -> None:
        doors = Doors()
        await doors.open("127.0.0.1")
        peers = make(doors.port)
        await peers.start("127.0.0.1", 0)
        try:
            await until(lambda: len(resolver.asked) >= 4)
            resolver.answers["two.test"] = ["127.0.0.1"]
            await until(lambda: peers.connected == {2})
        finally:
            await peers.stop()
            doors.close("127.0.0.1")

    run(scenario, make_loop)
    (line,) = capsys.readouterr().err.splitlines()
    assert 'event=peer-unusable peer=2 message="the name in two.test:' in line
    assert "has no address (Name or service not known)" in line


def test_a_name_that_still_means_somebody_else_is_looked_up_again(resolver, monkeypatch):
    """Addresses are given out again: for a moment another member may be at the old one."""
    monkeypatch.setattr("balsadb.server.peers.REFUSED_SECONDS", 0.02)

    async def scenario() -> None:
        doors, other = Doors(), Doors(node=3)
        await doors.open("127.0.0.2")
        other.port = doors.port
        await other.open("127.0.0.3")
        resolver.answers["two.test"] = ["127.0.0.3"]
        peers = make(doors.port)
        await peers.start("127.0.0.1", 0)
        try:
            await until(lambda: len(other.entered) >= 2)
            assert not peers.connected
            resolver.answers["two.test"] = ["127.0.0.2"]
            await until(lambda: peers.connected == {2})
        finally:
            await peers.stop()
            doors.close("127.0.0.2")
            other.close("127.0.0.3")

    run(scenario)
