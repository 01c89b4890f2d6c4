"""Leader changes as one node sees them, told from the real roles of a Raft node."""

from __future__ import annotations

import random

import pytest

from balsadb.raft.node import Node, Options, Recovered
from balsadb.raft.transitions import become_candidate, become_follower, become_leader, become_pre_candidate
from balsadb.raft.types import NOBODY, Configuration
from balsadb.server.leadership import CHANGES_MAX, Leadership


class Watched:
    """Node 1 of three and what is noted of it."""

    def __init__(self) -> None:
        self.connected = {2, 3}
        configuration = Configuration(voters=(1, 2, 3))
        node = Node(1, configuration, Recovered(), Options(), random.Random(1), 0)
        self.core = node.core
        self.leadership = Leadership(self.core, lambda: self.connected, lambda: 1_000)

    def follow(self, leader: int, term: int) -> None:
        become_follower(self.core, term, leader)
        self.leadership.look()

    def campaign(self) -> None:
        become_candidate(self.core, 0)
        self.core.disk.term = self.core.term

    def win(self) -> None:
        become_pre_candidate(self.core, 0)
        self.leadership.look()
        self.campaign()
        self.leadership.look()
        become_leader(self.core)
        self.leadership.look()

    @property
    def last(self) -> tuple[int, int, str]:
        change = self.leadership.changes[-1]
        return change.previous, change.leader, change.reason


@pytest.fixture
def node() -> Watched:
    return Watched()


def test_the_first_leader_makes_itself_known(node):
    node.follow(2, 4)
    assert node.last == (NOBODY, 2, "node 2 made itself known as the leader of term 4")
    assert node.leadership.leader_changes == 1


def test_a_leader_whose_process_ended_lost_its_connection(node):
    node.follow(2, 4)
    node.connected = {3}
    become_pre_candidate(node.core, 0)
    node.leadership.look()
    assert node.last == (2, NOBODY, "the connection to node 2 is gone")


def test_the_loss_of_a_leader_shows_before_the_own_connection_to_it_ends(node):
    node.follow(2, 4)
    become_follower(node.core, 4, NOBODY, hurry_until=50)  # what rule M3 does
    node.leadership.look()
    assert node.last == (2, NOBODY, "the connection to node 2 is gone")


def test_a_leader_that_hangs_was_silent(node):
    node.follow(2, 4)
    become_pre_candidate(node.core, 0)
    node.leadership.look()
    assert node.last == (2, NOBODY, "node 2 was silent for an election timeout")


def test_a_leader_that_hands_over_says_so_to_its_successor(node):
    node.follow(2, 4)
    become_pre_candidate(node.core, 0)
    node.campaign()
    node.leadership.look()
    assert node.last == (2, NOBODY, "node 2 told this node to take over")


def test_somebody_elses_election_is_told_as_such(node):
    node.follow(2, 4)
    node.follow(NOBODY, 5)
    assert node.last == (2, NOBODY, "somebody asked for votes in term 5")
    node.follow(3, 5)
    assert node.last == (NOBODY, 3, "node 3 made itself known as the leader of term 5")


def test_a_new_leader_may_be_the_first_sign_of_an_election(node):
    node.follow(2, 4)
    node.follow(3, 5)
    assert node.last == (2, 3, "node 3 was elected in term 5 instead of node 2")
    assert node.leadership.leader_changes == 2


def test_being_elected_counts(node):
    node.win()
    assert node.last == (NOBODY, 1, "this node was elected in term 1")
    assert (node.leadership.elections, node.leadership.wins) == (1, 1)


def test_a_leader_that_hands_over_knows_to_whom(node):
    node.win()
    node.core.state.transfer_to = 3
    node.follow(NOBODY, 2)
    assert node.last == (1, NOBODY, "this node handed over to node 3")


def test_a_leader_that_hears_too_few_steps_down(node):
    node.win()
    node.core.now += node.core.options.election_ticks + 1
    node.follow(NOBODY, 1)
    assert node.last[2] == "this node had not heard a majority for an election timeout and stepped down"


def test_a_leader_that_is_told_of_another_term_says_which(node):
    node.win()
    node.follow(NOBODY, 7)
    assert node.last == (1, NOBODY, "this node led and was told of term 7")


def test_the_same_leader_after_an_election_is_no_leader_change(node):
    node.follow(2, 4)
    node.follow(NOBODY, 5)
    node.follow(2, 5)
    assert node.leadership.leader_changes == 1


def test_only_the_newest_changes_are_remembered(node):
    for term in range(1, 2 * CHANGES_MAX):
        node.follow(2 + term % 2, term)
    assert len(node.leadership.changes) == CHANGES_MAX
    assert node.leadership.changes[-1].term == 2 * CHANGES_MAX - 1
