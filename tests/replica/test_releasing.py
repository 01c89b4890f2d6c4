"""When a replica makes a durable cut, so that the log before it may go."""

from __future__ import annotations

import random

import pytest

from balsadb.kv.machine import StateMachine
from balsadb.raft.node import Node, Options
from balsadb.raft.options import Recovered
from balsadb.raft.types import Configuration, Member
from balsadb.replica import Replica
from balsadb.replica.limits import ReplicaOptions
from balsadb.replica.request import Lane, Request, RequestKind
from balsadb.storage.records import SECTOR_BYTES

RELEASE_BYTES = 200_000


@pytest.fixture
def replica() -> Replica:
    """The only node of a cluster, which leads."""
    initial = Configuration(voters=(1,), members=(Member(1, "127.0.0.1:1"),))
    node = Node(1, initial, Recovered(), Options(), random.Random(1), 0, applied=0, boot=1)
    options = ReplicaOptions(release_bytes=RELEASE_BYTES)
    replica = Replica(node, StateMachine((1,)), 1, options, store_id=b"store", fresh_cluster_id=b"cluster")
    for now in range(10_000):
        replica.tick(now * 10, 0)
        turn(replica)
        if node.leader and replica.machine.applied_term:
            return replica
    raise AssertionError("the only node does not lead")


def turn(replica: Replica) -> tuple[int, bool]:
    """Run turns until nothing is to be done; returns bytes of entries written, and whether the log may go."""
    size, released = 0, False
    while True:
        effects = replica.turn(replica.now_ms, 0, True)
        for cut in effects.cuts:
            released = released or cut.release
            while replica.machine.store.count(cut):
                pass
            replica.cut_written(cut, 1)
        if effects.write is not None:
            size += sum(len(entry.encoded) for entry in effects.write.entries)
            replica.persisted(effects.write.number)
        elif not effects.cuts:
            return size, released


def set_key(replica: Replica, value: bytes) -> tuple[int, bool]:
    command = [b"SET", b"k", value]
    replica.submit(Request(Lane(), RequestKind.WRITE, [command], [], 1, 100))
    return turn(replica)


def test_large_writes_let_the_log_go_when_their_bytes_have_come_to_the_bound(replica):
    total, released = 0, False
    while not released:
        size, released = set_key(replica, b"x" * 10_000)
        total += size
        assert total < RELEASE_BYTES * 1.1
    assert total > RELEASE_BYTES * 0.8


def test_small_writes_let_the_log_go_when_their_sectors_have_come_to_the_bound(replica):
    """A log of one small entry a write would otherwise take many times its bound on the disk."""
    count, released = 0, False
    while not released:
        _, released = set_key(replica, b"x")
        count += 1
        assert count * SECTOR_BYTES < RELEASE_BYTES * 1.1
    assert count * SECTOR_BYTES > RELEASE_BYTES * 0.7
