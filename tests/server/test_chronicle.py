"""What the journal is told of members and connections."""

from __future__ import annotations

import random

import pytest

from balsadb.raft.node import Node, Options, Recovered
from balsadb.raft.types import Configuration, Member
from balsadb.server.chronicle import Chronicle


class Watched:
    """Node 1 of three, nobody of whom is connected at first."""

    def __init__(self) -> None:
        self.connected: frozenset[int] = frozenset()
        self.told: list[tuple[tuple[str, ...], dict]] = []
        node = Node(1, Configuration(voters=(1, 2, 3)), Recovered(), Options(), random.Random(1), 0)
        self.core = node.core
        self.chronicle = Chronicle(
            node.core,
            lambda: self.connected,
            {2: ("db2", 8001), 3: ("db3", 8001)},
            lambda *event, **fields: self.told.append((event, fields)),
        )

    def look(self) -> list[tuple[tuple[str, ...], dict]]:
        self.told.clear()
        self.chronicle.look()
        return list(self.told)


@pytest.fixture
def node() -> Watched:
    return Watched()


def test_nothing_is_told_of_what_was_there_at_the_start(node):
    assert node.look() == []


def test_connections_are_told_when_they_come_and_when_they_go(node):
    node.connected = frozenset({3, 2})
    assert node.look() == [
        (("peer-connected",), {"peer": 2, "host": "db2", "port": 8001}),
        (("peer-connected",), {"peer": 3, "host": "db3", "port": 8001}),
    ]
    assert node.look() == []
    node.connected = frozenset({3})
    assert node.look() == [(("peer-lost", "warning"), {"peer": 2})]


def test_a_change_of_the_members_is_told_once_and_with_all_groups(node):
    node.core.configuration = Configuration(
        voters=(1, 2, 4), outgoing=(1, 2, 3), learners=(5,), removed=(9,), cluster_id=b"\x0a\xff"
    )
    assert node.look() == [
        (
            ("members",),
            {
                "voters": (1, 2, 4),
                "outgoing_voters": (1, 2, 3),
                "learners": (5,),
                "removed": (9,),
                "cluster_id": "0aff",
                "index": 0,
            },
        )
    ]
    assert node.look() == []


def test_another_address_is_no_change_of_the_members(node):
    node.core.configuration = Configuration(voters=(1, 2, 3), members=(Member(2, "db2:8001"),))
    assert node.look() == []
