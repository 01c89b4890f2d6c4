"""Keys that are not in memory are read before what needs them runs; nothing overtakes it (rules R5, P6)."""

from __future__ import annotations

import pytest

from balsadb.replica.request import Lane, Request, RequestKind
from replica.rig import Rig, write_of


def read_of(*keys: str, lane: Lane | None = None) -> Request:
    commands = [[b"GET", key.encode()] for key in keys]
    return Request(lane or Lane(), RequestKind.READ, commands, [], len(keys), 1)


@pytest.fixture
def rig():
    """A lone leader that has a, b and c on disk, and nothing in memory."""
    made = Rig(1, (1,))
    made.machine.store._cache_bytes_max = 0
    made.lead()
    made.submit("a", "b", "c")
    made.replica.take_snapshot()
    made.turn()
    made.write()
    while made.machine.store.trim():
        pass
    made.finished.clear()
    made.prompt_reads = False
    return made


def answer(rig: Rig) -> list[bytes]:
    """Read what is wanted and go on; returns which keys that was."""
    keys = rig.read()
    rig.turn()
    return keys


def test_a_read_of_a_cold_key_waits_for_it(rig):
    read = read_of("a")
    rig.replica.submit(read)
    rig.turn()
    assert rig.finished == []
    assert answer(rig) == [b"a"]
    assert read.replies == [b"v"]


def test_reads_keep_their_order_however_cold_they_are(rig):
    lane = Lane()
    cold, other = read_of("a", lane=lane), read_of("b", lane=lane)
    rig.replica.submit(cold)
    rig.turn()
    rig.replica.submit(other)
    rig.turn()
    assert rig.finished == []
    answer(rig)
    while rig.warm:
        answer(rig)
    assert rig.finished == [cold, other]


def test_a_read_of_what_is_in_memory_does_not_overtake_a_cold_one(rig):
    rig.submit_blindly("warm")
    cold, warm = read_of("a"), read_of("warm")
    rig.finished.clear()
    for request in (cold, warm):
        rig.replica.submit(request)
    rig.turn()
    assert rig.finished == []
    answer(rig)
    assert rig.finished == [cold, warm]


def test_an_entry_waits_for_the_keys_that_it_looks_at_and_those_behind_it_wait_too(rig):
    first, second = write_of("a"), write_of("fresh")
    rig.replica.submit(first)
    rig.turn()
    rig.replica.submit(second)
    rig.turn()
    assert rig.finished == []
    while rig.warm:
        answer(rig)
    assert [request.replies for request in (first, second)] == [[2], [1]]


def test_what_is_overwritten_without_a_look_is_not_read_first(rig):
    rig.submit_blindly("a")
    assert rig.warm == []
    assert len(rig.finished) == 1


def test_keys_of_another_state_are_not_taken(rig):
    """The state was replaced while they were read."""
    rig.replica.submit(read_of("a"))
    rig.turn()
    warm = rig.warm.pop()
    rig.replica._warming = None
    rig.replica.warmed(warm, [(b"of another state", 1, 0)])
    assert rig.machine.store.get(b"a")[0] == b"v"
