"""How a new server finds its cluster through one client address."""

from __future__ import annotations

import asyncio

import pytest

from balsadb.errors import UsageError
from balsadb.kv.reply import Mapping, Refusal
from balsadb.raft.types import Configuration
from balsadb.resp.encode import encode_reply
from balsadb.resp.parser import CommandParser
from balsadb.server import joining

STATUS = {
    b"voters": [1, 2],
    b"outgoing_voters": [],
    b"learners": [3],
    b"removed": [9],
    b"cluster_id": b"ab" * 16,
}
MEMBERS = [
    Mapping([(b"id", node), (b"peer_address", b"h:800%d" % node), (b"client_address", b"h:700%d" % node)])
    for node in (1, 2, 3)
]


class FakeServer:
    """Answers RAFT commands with what the test says."""

    def __init__(self, status=STATUS, members=MEMBERS, add=()) -> None:
        self.answers = {b"STATUS": Mapping(list(status.items())), b"MEMBERS": members}
        self.add = list(add)
        self.asked: list[list[bytes]] = []
        self.asked_often = asyncio.Event()

    def connection(self) -> asyncio.Protocol:
        return FakeConnection(self)


class FakeConnection(asyncio.Protocol):
    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.parser = CommandParser()

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        server = self.server
        for words in self.parser.feed(data):
            server.asked.append(words)
            if len(server.asked) >= 4:
                server.asked_often.set()
            reply = server.add.pop(0) if words[1] == b"ADD" else server.answers[words[1]]
            self.transport.write(encode_reply(reply, False))


def run(server: FakeServer, action):
    async def scenario():
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(server.connection, "127.0.0.1", 0)
        async with listening:
            found = await action(f"127.0.0.1:{listening.sockets[0].getsockname()[1]}")
            await asyncio.sleep(0)
            return found

    return asyncio.run(scenario())


def test_what_is_found_is_the_present_members_and_all_who_ever_were():
    found = run(FakeServer(), lambda address: joining.find(address, 4))
    assert found.configuration.voters == (1, 2)
    assert found.configuration.cluster_id == bytes.fromhex("ab" * 16)
    assert [member.peer_address for member in found.configuration.members] == ["h:8001", "h:8002", "h:8003"]
    assert found.ever == (1, 2, 3, 9)
    assert found.servers == ("h:7001", "h:7002", "h:7003")
    assert not found.known


def test_a_node_that_is_a_member_already_is_not_part_of_what_it_acts_by():
    found = run(FakeServer(), lambda address: joining.find(address, 2))
    assert found.known
    assert found.configuration.voters == (1,)
    assert [member.id for member in found.configuration.members] == [1, 3]


def test_an_id_that_was_removed_is_refused_at_once():
    with pytest.raises(UsageError, match="node 9 was removed from this cluster, and an id never comes back"):
        run(FakeServer(), lambda address: joining.find(address, 9))


@pytest.mark.parametrize(
    "server",
    [
        FakeServer({**STATUS, b"cluster_id": b""}),
        FakeServer(members=Refusal(b"ERR no such thing")),
        FakeServer({**STATUS, b"voters": [4]}),
    ],
)
def test_where_no_cluster_is_found_the_start_ends_with_a_sentence(server, monkeypatch):
    monkeypatch.setattr(joining, "FIND_SECONDS_MAX", 0.0)
    with pytest.raises(UsageError, match=r"--join 127\.0\.0\.1:[0-9]+: no cluster is found there"):
        run(server, lambda address: joining.find(address, 4))


class Joining:
    """What of a replica is looked at while it waits to be added."""

    def __init__(self) -> None:
        self.node = type("Node", (), {"id": 4})()
        self.configuration = Configuration(voters=(1, 2))
        self.removed = False


def test_it_asks_until_it_finds_itself_among_the_members(monkeypatch, capsys):
    monkeypatch.setattr(joining, "PAUSE_SECONDS", 0.01)
    replica = Joining()
    refusal = Refusal(b"TRYAGAIN another change is being committed; nothing was done")
    server = FakeServer(add=[refusal, refusal, Refusal(b"ERR something else")] + [b"OK"] * 1_000)

    async def ask_in(address: str) -> None:
        task = asyncio.ensure_future(joining.ask_in(replica, [address], "h:8004", "h:7004"))
        await asyncio.wait_for(server.asked_often.wait(), 5)
        replica.configuration = Configuration(voters=(1, 2), learners=(4,))
        await asyncio.wait_for(task, 5)

    run(server, ask_in)
    assert server.asked[0] == [b"RAFT", b"ADD", b"4", b"h:8004", b"h:7004"]
    said = capsys.readouterr().err
    assert said.count("another change is being committed") == 1, "the same is said only once"
    assert "something else" in said
