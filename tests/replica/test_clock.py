"""CLOCK entries: log time goes on in an idle cluster when something is due, and only then (rule S6)."""

from __future__ import annotations

import pytest

from balsadb.kv.limits import EXPIRED_PER_ENTRY_MAX
from balsadb.raft.types import EntryKind
from kv.test_expiry import Deadlines
from replica.rig import WALL_MS, Rig


class Lone(Rig):
    """The only voter, with deadlines in its state."""

    def __init__(self, *deadlines: int) -> None:
        super().__init__(1, (1,))
        self.part = Deadlines(*deadlines)
        self.machine._expiring = (self.part,)
        self.lead()
        self.turn()

    def kinds(self, first: int) -> list[EntryKind]:
        log = self.node.log
        return [entry.kind for entry in log.cached(first, log.last_index, 1 << 30)]


def test_an_idle_leader_appends_a_clock_entry_for_what_is_due():
    rig = Lone(WALL_MS + 1_000)
    assert rig.part.left  # the wall clock of the rig stands almost still
    last = rig.node.last_index
    rig.part.left = [WALL_MS]
    rig.tick(2)
    assert rig.kinds(last + 1) == [EntryKind.CLOCK]
    assert rig.part.removed == [(last + 1, WALL_MS)]


@pytest.mark.parametrize("deadlines", [(), (WALL_MS + 1_000,)])
def test_without_anything_due_the_log_stands_still(deadlines):
    rig = Lone(*deadlines)
    last = rig.node.last_index
    rig.tick(50)
    assert rig.node.last_index == last


def test_clock_entries_follow_until_nothing_is_due():
    rig = Lone()
    last = rig.node.last_index
    rig.part.left = [WALL_MS] * (2 * EXPIRED_PER_ENTRY_MAX + 1)
    rig.tick(10)
    assert rig.kinds(last + 1) == [EntryKind.CLOCK] * 3
    assert not rig.part.left


def test_at_most_one_clock_entry_is_under_way():
    rig = Lone()
    last = rig.node.last_index
    rig.prompt = False  # nothing becomes durable, so nothing commits
    rig.part.left = [WALL_MS]
    rig.tick(20)
    assert rig.kinds(last + 1) == [EntryKind.CLOCK]
    assert rig.part.left
    rig.persist()
    rig.turn()
    assert not rig.part.left


def test_an_entry_under_way_makes_a_clock_entry_needless():
    rig = Lone()
    last = rig.node.last_index
    rig.prompt = False
    rig.submit("k")
    rig.part.left = [WALL_MS]
    rig.tick(5)
    assert rig.kinds(last + 1) == [EntryKind.COMMANDS]
    rig.persist()
    rig.turn()
    assert rig.part.removed == [(last + 1, WALL_MS)]


def test_a_follower_appends_nothing():
    rig = Rig(2, (1, 2, 3))
    rig.machine._expiring = (Deadlines(1),)
    rig.follow()
    last = rig.node.last_index
    rig.tick(3)
    assert rig.node.last_index == last
