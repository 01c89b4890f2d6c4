"""The fate of a node's writes becomes certain (rules P1-P3)."""

from __future__ import annotations

import pytest

from balsadb.errors import InvariantError
from balsadb.kv.batch import decode_batch
from balsadb.replica.limits import ReplicaOptions
from balsadb.replica.proposals import Proposals
from balsadb.replica.request import Lane, Request, RequestKind

BOOT = 3


class FakeNode:
    """A Raft node that takes down what it is given, and refuses when told to."""

    def __init__(self, leader: int = 2, term: int = 5) -> None:
        self.id = 1
        self.leader = leader
        self.term = term
        self.accepts = True
        self.proposed: list[tuple[bytes, int]] = []

    def propose(self, payload: bytes, term: int) -> bool:
        if not self.accepts or term != self.term or not self.leader:
            return False
        self.proposed.append((payload, term))
        return True

    def propose_again(self, payloads: list[bytes], term: int) -> None:
        self.proposed += [(payload, term) for payload in payloads]


def write(*keys: str, deadline: int = 1000, reads: list[tuple[int, list[bytes]]] | None = None) -> Request:
    commands = [[b"SET", key.encode(), b"v"] for key in keys]
    local = reads or []
    request = Request(Lane(), RequestKind.WRITE, commands, local, len(commands) + len(local), 10)
    request.deadline_ms = deadline
    return request


def sequences(node: FakeNode) -> list[int]:
    return [decode_batch(payload).sequence for payload, _ in node.proposed]


@pytest.fixture
def node():
    return FakeNode()


@pytest.fixture
def proposals(node):
    return Proposals(node, BOOT, ReplicaOptions(resend_ms=100, collect_commands_min=4))


def test_requests_of_one_turn_share_one_payload(node, proposals):
    proposals.add(write("a"))
    proposals.add(write("b", "c"))
    proposals.flush(0, disk_idle=True)
    ((payload, term),) = node.proposed
    batch = decode_batch(payload)
    assert (batch.node, batch.boot, batch.sequence, term) == (1, BOOT, 1, 5)
    assert [command[1] for command in batch.commands] == [b"a", b"b", b"c"]


def test_while_the_disk_works_few_commands_collect_and_many_do_not(node, proposals):
    node.leader = node.id
    proposals.add(write("a"))
    proposals.flush(0, disk_idle=True)
    proposals.add(write("b"))
    proposals.flush(1, disk_idle=False)
    assert sequences(node) == [1]
    proposals.add(write("c", "d", "e"))
    proposals.flush(2, disk_idle=False)
    assert sequences(node) == [1, 2]
    proposals.add(write("f"))
    proposals.flush(3, disk_idle=True)
    assert sequences(node) == [1, 2, 3]


def test_while_another_leader_works_on_a_payload_few_commands_collect_and_many_do_not(node, proposals):
    """Each payload costs every node a turn, so a follower must not send small ones early."""
    assert node.leader != node.id
    proposals.add(write("a"))
    proposals.flush(0, disk_idle=True)
    proposals.add(write("b"))
    proposals.flush(1, disk_idle=True)
    assert sequences(node) == [1]
    proposals.add(write("c", "d", "e"))
    proposals.flush(2, disk_idle=True)
    assert sequences(node) == [1, 2]


def test_what_collected_leaves_when_the_payload_before_has_run(node, proposals):
    proposals.add(write("a"))
    proposals.flush(0, disk_idle=True)
    proposals.add(write("b"))
    list(proposals.ran(1, [b"OK"], 1))
    proposals.flush(1, disk_idle=True)
    assert sequences(node) == [1, 2]


def test_a_refused_payload_keeps_its_place_and_its_number(node, proposals):
    node.accepts = False
    first, second = write("a"), write("b")
    proposals.add(first)
    proposals.flush(0, disk_idle=True)
    proposals.add(second)
    node.accepts = True
    proposals.flush(1, disk_idle=True)
    assert sequences(node) == [1]
    assert not node.proposed[1:]
    assert [command[1] for command in decode_batch(node.proposed[0][0]).commands] == [b"a", b"b"]


def test_a_payload_for_a_new_term_waits_until_the_fate_of_the_old_one_is_certain(node, proposals):
    proposals.add(write("a"))
    proposals.flush(0, disk_idle=True)
    node.term = 6
    proposals.add(write("b"))
    proposals.flush(1, disk_idle=True)
    assert sequences(node) == [1]


def test_an_entry_of_a_later_term_proves_death_and_the_requests_go_first_again(node, proposals):
    proposals.add(write("a"))
    proposals.flush(0, disk_idle=True)
    node.term = 6
    proposals.add(write("b"))
    assert proposals.bury(6)
    proposals.flush(1, disk_idle=True)
    payload, term = node.proposed[-1]
    batch = decode_batch(payload)
    assert (batch.sequence, term) == (1, 6)
    assert [command[1] for command in batch.commands] == [b"a", b"b"]


def test_an_entry_of_the_same_term_proves_nothing(node, proposals):
    proposals.add(write("a"))
    proposals.flush(0, disk_idle=True)
    assert not proposals.bury(5)
    proposals.flush(1, disk_idle=True)
    assert len(node.proposed) == 1


def test_what_ran_before_the_term_ended_is_not_proposed_again(node, proposals):
    proposals.add(write("a"))
    proposals.flush(0, disk_idle=True)
    proposals.add(write("b"))
    proposals.flush(1, disk_idle=True)
    assert [request.commands[0][1] for request, _ in proposals.ran(1, ["ok"], 2)] == [b"a"]
    node.term = 6
    proposals.bury(6)
    proposals.flush(3, disk_idle=True)
    batch = decode_batch(node.proposed[-1][0])
    assert batch.sequence == 2
    assert [command[1] for command in batch.commands] == [b"b"]


def test_an_answered_request_of_a_dead_payload_is_not_proposed_again(node, proposals):
    late, open_ = write("late", deadline=10), write("open")
    proposals.add(late)
    proposals.add(open_)
    proposals.flush(0, disk_idle=True)
    flying, waiting = proposals.tick(20)
    assert (flying, waiting) == ([late], [])
    late.replies = ["unknown"]
    node.term = 6
    proposals.bury(6)
    proposals.flush(21, disk_idle=True)
    batch = decode_batch(node.proposed[-1][0])
    assert [command[1] for command in batch.commands] == [b"open"]


def test_replies_are_shared_out_in_the_order_of_the_requests(proposals):
    first, second = write("a"), write("b", "c")
    proposals.add(first)
    proposals.add(second)
    proposals.flush(0, disk_idle=True)
    assert list(proposals.ran(1, [1, 2, 3], 1)) == [(first, [1]), (second, [2, 3])]


def test_a_wrong_number_of_replies_stops_the_node(proposals):
    proposals.add(write("a"))
    proposals.flush(0, disk_idle=True)
    with pytest.raises(InvariantError):
        list(proposals.ran(1, [1, 2], 1))


def test_a_payload_that_runs_out_of_order_stops_the_node(proposals):
    proposals.add(write("a"))
    proposals.flush(0, disk_idle=True)
    with pytest.raises(InvariantError):
        list(proposals.ran(2, [1], 1))


def test_payloads_without_progress_are_sent_again_in_order_byte_for_byte(node, proposals):
    for key in "ab":
        proposals.add(write(*4 * key))  # enough not to wait for the payload before
        proposals.flush(0, disk_idle=True)
    before = list(node.proposed)
    assert len(before) == 2
    proposals.tick(50)
    assert node.proposed == before
    proposals.tick(150)
    assert node.proposed == before + before


def test_a_leader_does_not_send_to_itself_again(node, proposals):
    node.leader = node.id
    proposals.add(write("a"))
    proposals.flush(0, disk_idle=True)
    proposals.tick(1000)
    assert len(node.proposed) == 1


def test_local_slots_stand_at_their_place_in_the_whole_batch(node, proposals):
    proposals.add(write("a", "b"))
    proposals.add(write("c", reads=[(0, [b"GET", b"x"]), (1, [b"GET", b"y"])]))
    proposals.flush(0, disk_idle=True)
    payload = node.proposed[0][0]
    assert proposals.local_slots(payload) == [(2, [b"GET", b"x"]), (3, [b"GET", b"y"])]
    assert proposals.local_slots(payload + b"x") == []
