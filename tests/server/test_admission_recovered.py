"""Who is let in after a recovery: nobody who missed it, and that one is told so (rule M4)."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from balsadb.raft.types import Configuration, Member
from balsadb.server.admission import Admission
from balsadb.storage.meta import Meta
from balsadb.wire.frame import Refused, Welcome

OLD_ID, NEW_ID, NEWEST_ID = b"\x11" * 16, b"\x22" * 16, b"\x33" * 16
OLD = Configuration(
    voters=(1, 2, 3), members=(Member(1, "a:1"), Member(2, "b:2"), Member(3, "c:3")), cluster_id=OLD_ID
)
NEW = Configuration(
    voters=(1, 4),
    removed=(2, 3),
    members=(Member(1, "a:1", "", b"1" * 16), Member(4, "b:2", "", b"4" * 16)),
    cluster_id=NEW_ID,
    former=(OLD_ID,),
)
NEWEST = msgspec.structs.replace(NEW, cluster_id=NEWEST_ID, former=(OLD_ID, NEW_ID))


class Server:
    """Just what an `Admission` sees of a node."""

    def __init__(self, node: int, configuration: Configuration, *, known: bool = True) -> None:
        cluster_id = configuration.cluster_id if known else b""
        meta = Meta(
            node, b"%d" % node * 16, "1=a:1,2=b:2,3=c:3", cluster_id=cluster_id, boot=1, admitted=True
        )
        self.directory = SimpleNamespace(meta=meta)
        self.directory.update_meta = lambda new: setattr(self.directory, "meta", new)
        self.silent = False
        raft = SimpleNamespace(
            id=node, configuration=configuration, eligible=False, gone=configuration.removed
        )
        raft.note_removed = lambda: setattr(self, "silent", True)
        self.replica = SimpleNamespace(
            node=raft,
            configuration=msgspec.structs.replace(configuration, cluster_id=cluster_id),
            identities={node: (meta.store_id, f"client:{node}")},
        )
        self.admission = Admission(self.replica, self.directory, b"digest")

    def dial(self, other: Server, target: int = 0) -> str | None:
        """Say hello to whoever is at an address, and take the answer; returns why it is refused."""
        answer = other.admission.answer(self.admission.hello(target or other.replica.node.id))
        if isinstance(answer, Refused):
            return self.admission.refused(answer)
        assert isinstance(answer, Welcome)
        return self.admission.welcomed(other.replica.node.id, answer)


@pytest.mark.parametrize("node", [2, 3])
def test_a_node_that_missed_the_recovery_is_refused_with_what_to_do_and_serves_nobody(node):
    """Two of the old three are a majority of the old cluster: they must not go on serving it."""
    old = Server(node, OLD)
    reason = old.dial(Server(1, NEW))
    assert f"node {node} belongs to the cluster as it was before recovery 1" in reason
    assert "empty its directory and let it join under a new id (balsadb serve --join)" in reason
    assert OLD_ID.hex() in reason
    assert NEW_ID.hex() in reason
    assert old.silent


def test_it_is_told_so_also_by_a_new_node_at_an_address_of_the_old_cluster():
    old, new = Server(3, OLD), Server(4, NEW)
    assert "before recovery 1" in old.dial(new, target=2)
    assert old.silent


def test_an_old_copy_of_the_recovered_node_itself_is_refused_by_the_others():
    copy = Server(1, OLD)
    assert "node 1 belongs to the cluster as it was before recovery 1" in copy.dial(Server(4, NEW))
    assert copy.silent


def test_of_several_recoveries_that_is_named_which_was_missed():
    assert "before recovery 2" in Server(4, NEW).dial(Server(1, NEWEST))
    assert "before recovery 1" in Server(2, OLD).dial(Server(1, NEWEST))


def test_a_node_that_never_heard_the_old_id_is_refused_as_a_removed_one():
    old = Server(2, OLD, known=False)
    assert "was removed from this cluster" in old.dial(Server(1, NEW))


def test_a_recovered_node_does_not_take_an_old_one_for_its_own_and_leaves_it_alone():
    recovered, old = Server(1, NEW), Server(2, OLD)
    assert "different clusters" in recovered.dial(old)
    assert not recovered.silent
    assert not old.silent


def test_the_members_of_the_recovered_cluster_take_each_other_in():
    assert Server(4, NEW).dial(Server(1, NEW)) is None
    assert Server(1, NEW).dial(Server(4, NEW)) is None


def test_a_cluster_that_is_a_stranger_altogether_is_only_told_so():
    stranger = Server(2, msgspec.structs.replace(OLD, cluster_id=b"\x77" * 16))
    assert "different clusters" in stranger.dial(Server(1, NEW))
    assert not stranger.silent
