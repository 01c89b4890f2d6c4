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
        self.told: list[tuple[str, dict]] = []
        self.why = ""
        self.leadership = Leadership(
            self.core,
            lambda: self.connected,
            lambda: 1_000,
            lambda: self.why,
            lambda event, **fields: self.told.append((event, fields)),
        )

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
    def roles(self) -> list[tuple[str, str, str]]:
        """Return (from, to, reason) of every change of the role that was told."""
        roles = [fields for event, fields in self.told if event == "role"]
        return [(fields["previous"], fields["role"], fields["reason"]) for fields in roles]

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


# ------------------------------------------------------------------------ what the journal is told


def test_every_step_of_an_election_is_told_with_its_reason(node):
    node.follow(2, 4)
    node.connected = {3}
    become_pre_candidate(node.core, 0)
    node.leadership.look()
    node.campaign()
    node.core.state.votes |= {1: True, 2: False, 3: True}
    node.leadership.look()
    become_leader(node.core)
    node.leadership.look()
    assert node.roles == [
        ("follower", "pre-candidate", "the connection to node 2 is gone"),
        ("pre-candidate", "candidate", "a majority would vote for this node"),
        ("candidate", "leader", "this node was elected in term 5"),
    ]
    event, fields = node.told[-1]
    assert (event, fields["term"], fields["leader"], fields["votes"]) == ("role", 5, 1, [1, 3])


def test_another_leader_without_another_role_is_one_line_too(node):
    node.follow(2, 4)
    node.follow(3, 5)
    assert [(event, fields["previous"], fields["leader"]) for event, fields in node.told] == [
        ("leader", NOBODY, 2),
        ("leader", 2, 3),
    ]


def test_the_same_again_is_not_told(node):
    become_pre_candidate(node.core, 0)
    node.leadership.look()
    become_pre_candidate(node.core, 0)  # it asks once more, as it does while it is alone
    node.leadership.look()
    assert node.roles == [("follower", "pre-candidate", "no leader was heard for an election timeout")]


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("", "this node handed over to node 3"),
        ("it stops", "this node handed over to node 3; it stops"),
        ("its disk is slow", "this node handed over to node 3; its disk is slow"),
    ],
)
def test_a_handover_is_told_with_what_the_driver_knows_of_its_cause(node, why, reason):
    node.win()
    node.core.state.transfer_to, node.why = 3, why
    node.follow(NOBODY, 2)
    assert node.roles[-1] == ("leader", "follower", reason)


def test_a_leader_that_is_to_leave_says_so_whatever_else_is_the_matter(node):
    node.win()
    node.core.state.transfer_to, node.core.state.handovers, node.why = 3, 1, "its disk is slow"
    node.follow(NOBODY, 2)
    assert node.last[2] == "this node handed over to node 3; it leaves the cluster"


def test_a_leader_that_steps_down_because_it_was_removed_says_so(node):
    node.win()
    node.core.configuration = Configuration(voters=(2, 3), removed=(1,))
    node.follow(NOBODY, 1)
    assert node.last[2] == "this node led and is no voter any more"


def test_a_candidate_says_why_it_gives_up(node):
    def give_up(vote: int, term: int) -> str:
        node.campaign()
        node.leadership.look()
        become_follower(node.core, node.core.term + term, NOBODY)
        node.core.vote = vote or node.core.vote
        node.leadership.look()
        become_pre_candidate(node.core, 0)
        node.leadership.look()
        return node.roles[-2][2]

    become_pre_candidate(node.core, 0)
    node.leadership.look()
    assert give_up(3, 1) == "this node voted for node 3 in term 2"
    assert give_up(NOBODY, 2) == "somebody was in a later term: 5"
    node.campaign()
    node.leadership.look()
    become_pre_candidate(node.core, 0)
    node.leadership.look()
    assert node.roles[-1][2] == "no majority voted for this node in time"
    node.core.told_removed = True
    become_follower(node.core, node.core.term, NOBODY)
    node.leadership.look()
    assert node.roles[-1][2] == "this node was removed from the cluster"


def test_a_pre_candidate_that_steps_back_for_a_better_one_says_so(node):
    become_pre_candidate(node.core, 0)
    node.leadership.look()
    become_follower(node.core, node.core.term, NOBODY)
    node.leadership.look()
    assert node.roles[-1][2] == "another node has the better claim to lead"
