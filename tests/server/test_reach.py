"""For how long others have not been known to be there."""

from __future__ import annotations

import random

from balsadb.raft.node import Node, Options, Recovered
from balsadb.raft.transitions import become_candidate, become_follower, become_leader, become_pre_candidate
from balsadb.raft.types import Configuration
from balsadb.server.reach import Reach

TICK_MS = 10


class Watching:
    """Node 1 of three."""

    def __init__(self) -> None:
        self.connected = {2, 3}
        node = Node(1, Configuration(voters=(1, 2, 3)), Recovered(), Options(), random.Random(1), 0)
        self.core = node.core
        self.reach = Reach(self.core, lambda: self.connected, TICK_MS)

    def lead(self) -> None:
        become_pre_candidate(self.core, 0)
        become_candidate(self.core, 0)
        self.core.disk.term = self.core.term
        become_leader(self.core)


def test_a_follower_counts_from_the_loss_of_a_connection():
    node = Watching()
    become_follower(node.core, 1, 2)
    node.reach.look(1_000)
    node.connected = {2}
    assert node.reach.silent_ms(13_000) == {2: 0, 3: 12_000}


def test_a_follower_counts_from_the_last_word_of_its_leader():
    node = Watching()
    become_follower(node.core, 1, 2)
    node.core.state.elapsed = 30
    assert node.reach.silent_ms(5_000) == {2: 300, 3: 0}


def test_a_leader_counts_from_the_last_word_of_each_though_the_connection_stands():
    node = Watching()
    node.lead()
    node.core.now += 150
    node.core.state.progress[3].heard = node.core.now
    assert node.reach.silent_ms(9_000) == {2: 1_500, 3: 0}


def test_a_new_leader_does_not_take_a_dead_node_for_one_that_answers():
    node = Watching()
    become_follower(node.core, 1, 2)
    node.reach.look(1_000)
    node.connected = {3}
    node.lead()  # Raft gives everybody an election timeout from here
    assert node.reach.silent_ms(2_500) == {2: 1_500, 3: 0}


def test_what_was_known_later_is_not_forgotten_for_something_older():
    node = Watching()
    node.reach.look(1_000)
    node.lead()
    node.core.state.progress[3].heard = node.core.now - 50
    assert node.reach.silent_ms(1_200) == {2: 0, 3: 200}


def test_a_node_that_was_never_there_has_no_age():
    node = Watching()
    node.connected = set()
    assert node.reach.silent_ms(60_000) == {2: None, 3: None}


def test_who_is_no_member_any_more_is_forgotten():
    node = Watching()
    node.reach.look(1_000)
    node.core.configuration = Configuration(voters=(1, 2), removed=(3,))
    assert node.reach.silent_ms(2_000) == {2: 0}
