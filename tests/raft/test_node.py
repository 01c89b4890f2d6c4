"""The public face: `has_ready` tells the truth, inputs are deterministic, reports are checked."""

from random import Random

import pytest
from raft_cluster import FAST, Cluster

from balsadb.errors import InvariantError
from balsadb.raft.node import Node, Options, Recovered, Role
from balsadb.raft.types import Configuration, EntryKind


def is_empty(ready):
    return ready.write is None and not (
        ready.messages or ready.committed or ready.reads or ready.fetches or ready.dropped_reads
    )


def test_a_node_at_rest_has_nothing_ready():
    cluster = Cluster(3)
    cluster.await_leader()
    for server in cluster.running():
        for idle in (True, False):
            assert not server.up.has_ready(idle)
            assert is_empty(server.up.ready(idle))


def test_without_an_idle_disk_work_collects_for_the_next_write():
    cluster = Cluster(3)
    node = cluster.elect(1)
    cluster.propose(1)
    cluster.propose(1)
    assert node.ready(False).write is None
    assert not node.has_ready(False)
    assert node.has_ready(True)
    write = node.ready(True).write
    assert write is not None
    assert len(write.entries) == 2
    cluster.propose(1)
    assert node.ready(True).write is None, "one write is in flight at a time"


def test_the_same_inputs_give_the_same_outputs():
    def run():
        cluster = Cluster(5, seed=7)
        cluster.await_leader()
        for node in (1, 2, 3):
            cluster.propose(node, b"x")
            cluster.read(node)
        cluster.tick(40)
        return cluster.sent

    assert run() == run()


def test_applied_must_be_what_was_handed_out():
    cluster = Cluster(1)
    cluster.await_leader()
    with pytest.raises(InvariantError, match="applied index 9"):
        cluster.node(1).applied(9)


def test_committed_entries_are_handed_out_in_bounded_pieces():
    options = Options(apply_bytes_max=200)
    node = Node(1, Configuration(voters=(1,)), Recovered(), options, Random(1), 0)
    while node.role is not Role.LEADER:
        node.tick(0)
        ready = node.ready(True)
        if ready.write is not None:
            node.persisted(ready.write.number)
    for _ in range(6):
        assert node.propose(bytes(50), node.term)
    pieces = []
    while node.has_ready(True):
        ready = node.ready(True)
        if ready.write is not None:
            node.persisted(ready.write.number)
        if ready.committed:
            pieces.append(len(ready.committed))
            node.applied(ready.committed[-1].index)
    assert sum(pieces) == 7
    assert max(pieces) == 2


def test_only_clock_and_membership_entries_are_proposed_by_kind():
    cluster = Cluster(1)
    node = cluster.await_leader()
    assert node.propose_entry(EntryKind.CLOCK, b"") == 2
    with pytest.raises(InvariantError, match="COMMANDS"):
        node.propose_entry(EntryKind.COMMANDS, b"")


def test_facts_of_a_leader_and_its_followers():
    cluster = Cluster(3)
    leader = cluster.elect(2)
    cluster.tick(FAST.heartbeat_ticks, only=[2])
    assert (leader.role, leader.leader, leader.term, leader.id) == (Role.LEADER, 2, 1, 2)
    assert (leader.first_index, leader.last_index, leader.commit_index, leader.durable_index) == (1, 1, 1, 1)
    assert cluster.node(1).leader == cluster.node(3).leader == 2
    assert Role.PRE_CANDIDATE.value == "pre-candidate"


@pytest.mark.parametrize("options", [Options(heartbeat_ticks=50), Options(reads_max=0)])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=r"_ticks|reads_max"):
        Cluster(1, options=options)
