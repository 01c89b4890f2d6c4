"""What a node refuses by itself: stale reads when it heard nobody, and more than it can hold."""

from __future__ import annotations

import random

import pytest

from balsadb.errors import DataError
from balsadb.kv.batch import encode_batch
from balsadb.kv.machine import StateMachine
from balsadb.raft.configuration import encode_configuration
from balsadb.raft.entry import encode_entry
from balsadb.raft.messages import Heartbeat, ReadIndexRequest, ReadIndexResponse
from balsadb.raft.node import Node, Options, Recovered
from balsadb.raft.types import Configuration, EntryKind, HardState
from balsadb.replica import Lane, Replica, ReplicaOptions, Request, RequestKind

VOTERS = (1, 2, 3)


@pytest.fixture
def replica():
    node = Node(2, Configuration(voters=VOTERS), Recovered(), Options(), random.Random(0), 0)
    options = ReplicaOptions(stale_read_ms=300, queued_bytes_max=1_000)
    return Replica(node, StateMachine(VOTERS), 1, options, store_id=b"store")


def answer(replica: Replica, request: Request, at_ms: int) -> object:
    replica.submit(request)
    replica.turn(at_ms, 0, disk_idle=True)
    return request.replies[0] if request.replies else None


def stale_read() -> Request:
    return Request(Lane(), RequestKind.STALE_READ, [[b"GET", b"k"]], [], 1, 1)


def write(size: int) -> Request:
    return Request(Lane(), RequestKind.WRITE, [[b"SET", b"k", bytes(size)]], [], 1, size)


def test_rule_r4_a_readonly_read_is_refused_once_the_state_may_be_too_old(replica):
    """It is as old as the newest question whose answer is applied; that a leader is heard says nothing."""
    replica.step(Heartbeat(1, 2, 1, 0, 0))
    replica.tick(100, 0)
    write = replica.turn(100, 0, disk_idle=True).write
    assert write is not None, "the term of the leader"
    replica.persisted(write.number)
    (question,) = [
        message
        for message in replica.turn(110, 0, disk_idle=True).messages
        if isinstance(message, ReadIndexRequest)
    ]
    assert answer(replica, stale_read(), 110).text.startswith(b"CLUSTERDOWN"), "nothing was confirmed yet"
    replica.step(ReadIndexResponse(1, 2, 1, question.boot, question.counter, 0, 0))
    replica.turn(120, 0, disk_idle=True)
    assert answer(replica, stale_read(), 200) is None, "the key is absent"
    assert replica.stale_ms(200) == 101
    replica.step(Heartbeat(1, 2, 1, 0, 0))
    replica.tick(399, 0)
    assert answer(replica, stale_read(), 399) is None
    replica.tick(400, 0)
    assert answer(replica, stale_read(), 400).text.startswith(b"CLUSTERDOWN")


def test_rule_b1_requests_past_the_bound_in_bytes_are_refused_and_one_is_always_admitted(replica):
    first, second = write(5_000), write(1)
    assert answer(replica, first, 0) is None
    assert answer(replica, second, 0).text.startswith(b"TRYAGAIN")
    assert first.replies is None
    replica.tick(10_000, 0)
    assert first.replies is not None
    assert answer(replica, write(1_000), 10_000) is None


def test_rule_p2_an_entry_of_a_later_start_of_this_node_shows_that_meta_is_an_old_copy():
    later = encode_entry(1, 1, 1000, EntryKind.COMMANDS, encode_batch(2, 5, 1, [[b"SET", b"k", b"v"]]))
    recovered = Recovered(HardState(1, 0, 1), 1, 1, terms=((1, 1),), tail=(later,))
    node = Node(2, Configuration(voters=(2,)), recovered, Options(), random.Random(0), 0, boot=4)
    replica = Replica(node, StateMachine((2,)), 4, ReplicaOptions(), store_id=b"store")
    with pytest.raises(DataError, match="start 4 of the node, and data of start 5 is there"):
        replica.turn(0, 0, disk_idle=True)


def test_a_start_takes_no_configuration_that_may_yet_be_truncated():
    """Otherwise a change that never happened would seem to be under way for ever."""
    initial = Configuration(voters=VOTERS)
    changed = Configuration(voters=VOTERS, learners=(7,))
    change = encode_entry(1, 1, 5, EntryKind.MEMBERSHIP, encode_configuration(changed))
    for commit, learners in ((0, ()), (1, (7,))):
        recovered = Recovered(
            HardState(1, 0, commit), 1, 1, ((1, 1),), last_time_ms=5, memberships=(change,), tail=(change,)
        )
        node = Node(2, initial, recovered, Options(), random.Random(0), 0)
        replica = Replica(node, StateMachine(VOTERS), 1, ReplicaOptions(), store_id=b"store")
        assert node.configuration.learners == (7,)
        assert replica.configuration.learners == learners
