"""Who may vote on which data directory, decided by hellos alone (rule W5)."""

from __future__ import annotations

import random

import msgspec
import pytest

from balsadb.kv.machine import StateMachine
from balsadb.raft.node import Node, Options, Recovered
from balsadb.raft.types import Configuration, Member
from balsadb.replica import Replica, ReplicaOptions
from balsadb.server.admission import Admission
from balsadb.sim.disk import Disk
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.wal import Wal, WalOptions
from balsadb.wire.frame import PROTOCOL_VERSION, Refused, Welcome

VOTERS = (1, 2, 3)
CLUSTER_ID = b"the cluster's id"
INITIAL = Configuration(voters=VOTERS, members=tuple(Member(node, f"peer:{node}") for node in VOTERS))


class Server:
    """What of a server decides on hellos."""

    def __init__(
        self,
        node: int,
        disk: Disk | None = None,
        configuration: Configuration = INITIAL,
        digest: bytes = b"cluster text",
    ) -> None:
        self.disk = disk or Disk(random.Random(node))
        self.directory = DataDirectory.open("data", self.disk, node, "text")
        Wal.open(self.disk, self.directory.wal_path, self.directory.meta.store_id, WalOptions(1024))
        self.node = Node(node, configuration, Recovered(), Options(), random.Random(node), 0)
        store_id = self.directory.meta.store_id
        replica = Replica(self.node, StateMachine(VOTERS), 1, ReplicaOptions(), store_id=store_id)
        self.admission = Admission(replica, self.directory, digest)

    def restarted(self) -> Server:
        self.disk.process_ended()
        self.disk.power_loss()
        return Server(self.node.id, self.disk)

    def dial(self, other: Server) -> str | None:
        """Greet another server; returns why the connection must not be used."""
        answer = other.admission.answer(self.admission.hello(other.node.id))
        if isinstance(answer, Refused):
            return answer.reason
        return self.admission.welcomed(other.node.id, answer)


@pytest.fixture
def servers():
    return {node: Server(node) for node in VOTERS}


def test_an_empty_directory_votes_once_all_other_initial_members_never_met_another(servers):
    one, two, three = servers.values()
    assert not one.node.eligible
    assert one.dial(two) is None
    assert not one.node.eligible, "node 3 might have met another directory"
    assert one.dial(three) is None
    assert one.node.eligible


def test_who_was_admitted_once_votes_after_every_later_start(servers):
    one, two, three = servers.values()
    one.dial(two)
    one.dial(three)
    assert one.restarted().node.eligible


def test_a_replaced_directory_is_refused_by_whoever_met_the_former_one(servers):
    one, two, three = servers.values()
    one.dial(two)
    one.dial(three)
    emptied = Server(1)
    for other in (two, three.restarted()):  # what they met is on their disks
        assert "another data directory before" in emptied.dial(other)
    assert not emptied.node.eligible


def test_a_node_does_not_use_a_peer_that_answers_from_another_directory_than_before(servers):
    one, two, _ = servers.values()
    assert one.dial(two) is None
    assert "another data directory before" in one.dial(Server(2))


def test_what_was_met_is_on_disk_before_the_answer_goes_out(servers):
    one, two, _ = servers.values()
    before = two.disk.operations
    assert isinstance(two.admission.answer(one.admission.hello(2)), Welcome)
    assert two.disk.operations > before
    before = two.disk.operations
    assert isinstance(two.admission.answer(one.admission.hello(2)), Welcome)
    assert two.disk.operations == before, "the second time there is nothing new"


def test_a_directory_that_the_log_does_not_know_is_refused(servers):
    one = servers[1]
    members = tuple(Member(node, f"peer:{node}", "", b"store of %7d" % node) for node in VOTERS)
    two = Server(2, configuration=msgspec.structs.replace(INITIAL, members=members))
    assert "data is not what this cluster knows" in one.dial(two)


def test_a_removed_node_and_a_stranger_are_refused(servers):
    left = Configuration(voters=(2, 3), members=INITIAL.members[1:], removed=(1,))
    assert "was removed" in servers[1].dial(Server(2, configuration=left))
    left = Configuration(voters=(2, 3), members=INITIAL.members[1:])
    assert "is not a member" in servers[1].dial(Server(2, configuration=left))


def test_clusters_and_ids_are_told_apart(servers):
    one, two, three = servers.values()
    one.directory.update_meta(msgspec.structs.replace(one.directory.meta, cluster_id=CLUSTER_ID))
    two.directory.update_meta(msgspec.structs.replace(two.directory.meta, cluster_id=b"another"))
    assert "different clusters" in one.dial(two)
    assert one.dial(three) is None, "one that does not know its cluster yet learns it from the log"
    assert "--cluster texts" in Server(1, digest=b"another text").dial(three)
    hello = three.admission.hello(1)
    for change, words in (
        ({"target_id": 2}, "this is node 1, not node 2"),
        ({"node_id": 1}, "another process already"),
        ({"protocol_version": PROTOCOL_VERSION + 1}, "speaks peer protocol"),
    ):
        answer = one.admission.answer(msgspec.structs.replace(hello, **change))
        assert words in answer.reason
    welcome = two.admission.answer(Server(3, digest=b"cluster text").admission.hello(2))
    assert "answers at the address of node 1" in three.admission.welcomed(1, welcome)
