"""Who is let in: hellos between nodes of old, new and restored clusters (rules W5, M4)."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import msgspec
import pytest

from balsadb.raft.types import Configuration, Member
from balsadb.server.admission import Admission
from balsadb.storage.meta import Meta
from balsadb.wire.frame import Refused, Welcome

TEXT = "1=a:1,2=b:2,3=c:3"
FRESH = Configuration(voters=(1, 2, 3), members=(Member(1, "a:1"), Member(2, "b:2"), Member(3, "c:3")))


class Server:
    """Just what an `Admission` sees of a node."""

    def __init__(self, node: int, store: bytes, *, cluster_id: bytes = b"", restored: bytes = b"") -> None:
        meta = Meta(node, store, TEXT, cluster_id=cluster_id, boot=1, restored=restored)
        self.directory = SimpleNamespace(meta=meta)
        self.directory.update_meta = lambda new: setattr(self.directory, "meta", new)
        configuration = msgspec.structs.replace(FRESH, cluster_id=cluster_id)
        self.replica = SimpleNamespace(
            node=SimpleNamespace(id=node, configuration=configuration, eligible=False),
            configuration=configuration,
            identities={node: (store, f"client:{node}")},
        )
        digest = hashlib.sha256(TEXT.encode() + restored).digest()
        self.admission = Admission(self.replica, self.directory, digest)

    @property
    def met(self):
        return self.directory.meta.met

    def dial(self, other: Server) -> Welcome | Refused:
        """Say hello to another node and take its answer."""
        answer = other.admission.answer(self.admission.hello(other.replica.node.id))
        if isinstance(answer, Welcome):
            assert self.admission.welcomed(other.replica.node.id, answer) is None
        return answer


def test_nodes_restored_from_the_same_backup_take_each_other_in_and_may_vote_when_all_have_met():
    nodes = [Server(number, bytes([number]) * 16, restored=b"monday") for number in (1, 2, 3)]
    for node in nodes:
        assert not node.replica.node.eligible
        for other in nodes:
            if other is not node:
                assert isinstance(node.dial(other), Welcome)
    assert all(node.replica.node.eligible for node in nodes)


@pytest.mark.parametrize("other", [b"", b"tuesday"], ids=["an empty node", "a node with another backup"])
def test_a_restored_node_and_one_with_another_beginning_refuse_each_other(other):
    restored = Server(1, b"1" * 16, restored=b"monday")
    stranger = Server(2, b"2" * 16, restored=other)
    for one, two in ((restored, stranger), (stranger, restored)):
        answer = one.dial(two)
        assert isinstance(answer, Refused)
        assert "the backups that they were restored from" in answer.reason
    assert not restored.met
    assert not stranger.met


def test_a_node_of_the_old_cluster_at_an_address_of_the_restored_one_is_not_even_noted():
    """If it were, the node that belongs there would come with "another data directory" and be refused."""
    old = Server(1, b"1" * 16, cluster_id=b"old")
    restored = Server(2, b"2" * 16, restored=b"monday")
    assert isinstance(old.dial(restored), Refused)
    assert isinstance(restored.dial(old), Refused)
    assert not restored.met
    assert not old.met
    assert isinstance(Server(1, b"new" * 5 + b"1", restored=b"monday").dial(restored), Welcome)


def test_once_both_have_a_cluster_id_only_that_counts():
    old = Server(1, b"1" * 16, cluster_id=b"old")
    named = Server(2, b"2" * 16, cluster_id=b"new", restored=b"monday")
    for one, two in ((old, named), (named, old)):
        answer = one.dial(two)
        assert isinstance(answer, Refused)
        assert "different clusters" in answer.reason
    same = Server(3, b"3" * 16, cluster_id=b"new")
    assert isinstance(same.dial(named), Welcome)


def test_a_node_that_was_away_when_the_cluster_got_its_id_is_taken_in():
    late = Server(3, b"3" * 16)
    assert isinstance(late.dial(Server(1, b"1" * 16, cluster_id=b"new")), Welcome)
