"""Who may vote after joining a cluster that was there, and how a lagging log does no harm (rules W5, M1)."""

from __future__ import annotations

import random

import msgspec
import pytest

from balsadb.kv.machine import StateMachine
from balsadb.raft.configuration import encode_configuration
from balsadb.raft.entry import encode_entry
from balsadb.raft.messages import Append
from balsadb.raft.node import Node, Options, Recovered
from balsadb.raft.types import Configuration, EntryKind, Member
from balsadb.replica import Replica, ReplicaOptions
from balsadb.server.admission import Admission
from balsadb.sim.disk import Disk
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.wal import Wal, WalOptions
from balsadb.wire.frame import Refused
from server.test_admission import CLUSTER_ID, INITIAL, VOTERS

NAMED = msgspec.structs.replace(INITIAL, cluster_id=CLUSTER_ID)


class Joiner:
    """A server that was no initial member."""

    def __init__(self, node: int, configuration: Configuration = NAMED, disk: Disk | None = None) -> None:
        self.disk = disk or Disk(random.Random(node))
        self.directory = DataDirectory.open("data", self.disk, node, "")
        Wal.open(self.disk, self.directory.wal_path, self.directory.meta.store_id, WalOptions(1024))
        self.node = Node(node, configuration, Recovered(), Options(), random.Random(node), 0)
        self.store_id = self.directory.meta.store_id
        self.replica = Replica(self.node, StateMachine(VOTERS), 1, ReplicaOptions(), store_id=self.store_id)
        self.admission = Admission(self.replica, self.directory, b"digest", f"peer:{node}")
        self.admission.configuration_changed()

    def learn(self, configuration: Configuration) -> None:
        entry = encode_entry(
            1, self.node.last_index + 1, 0, EntryKind.MEMBERSHIP, encode_configuration(configuration)
        )
        last, term = self.node.last_index, self.node.log.last_term
        self.node.step(Append(1, self.node.id, 1, last, term, 0, 0, (entry.encoded,)), 0)
        self.admission.configuration_changed()


def with_member(node: int, store_id: bytes) -> Configuration:
    members = (*NAMED.members, Member(node, f"peer:{node}", "", store_id))
    return msgspec.structs.replace(NAMED, learners=(node,), promote=(node,), members=members)


def test_a_node_that_joins_votes_once_the_log_has_bound_its_directory():
    four = Joiner(4)
    assert not four.node.eligible
    four.learn(with_member(4, b""))
    assert not four.node.eligible
    four.learn(with_member(4, four.store_id))
    assert four.node.eligible


def test_it_does_not_vote_on_another_directory_than_the_log_knows():
    four = Joiner(4)
    four.learn(with_member(4, b"another one's id"))
    assert not four.node.eligible


def test_it_votes_after_every_later_start():
    four = Joiner(4)
    four.learn(with_member(4, four.store_id))
    four.disk.process_ended()
    assert Joiner(4, disk=four.disk).node.eligible


def test_the_cluster_that_it_found_is_noted_at_once():
    assert Joiner(4).directory.meta.cluster_id == CLUSTER_ID


def test_rule_m1_a_member_that_a_lagging_log_does_not_know_is_heard_and_leaves_no_trace():
    behind, four = Joiner(1), Joiner(4)
    before = behind.disk.operations
    answer = behind.admission.answer(four.admission.hello(1))
    assert not isinstance(answer, Refused)
    assert behind.disk.operations == before
    assert four.admission.hello(1).peer_address == "peer:4"


def test_a_stranger_of_another_cluster_is_not():
    other = Joiner(4, msgspec.structs.replace(NAMED, cluster_id=b"another cluster"))
    answer = Joiner(1).admission.answer(other.admission.hello(1))
    assert isinstance(answer, Refused)
    assert "different clusters" in answer.reason


@pytest.mark.parametrize(("cluster_id", "silent"), [(CLUSTER_ID, True), (b"another cluster", False)])
def test_rule_m1_a_removed_node_falls_silent_when_its_own_cluster_says_so(cluster_id, silent):
    four = Joiner(4)
    reason = four.admission.refused(Refused("node 4 was removed from this cluster", cluster_id))
    assert reason == "node 4 was removed from this cluster"
    assert four.node.removed is silent


def test_a_refusal_names_the_cluster_only_to_the_removed():
    gone = msgspec.structs.replace(NAMED, removed=(4,))
    one, four = Joiner(1, gone), Joiner(4)
    assert one.admission.answer(four.admission.hello(1)).removed_from == CLUSTER_ID
    exchanged = Joiner(1, with_member(4, b"another one's id"))
    assert exchanged.admission.answer(four.admission.hello(1)).removed_from == b""
