"""Keys that are not in memory are read before what needs them runs; nothing overtakes it (rules R5, P6)."""

from __future__ import annotations

import pytest

from balsadb.kv import deadlines, expiry, machine
from balsadb.kv.memory import MemoryBase
from balsadb.raft.entry import encode_entry
from balsadb.raft.types import EntryKind
from balsadb.replica.request import Lane, Request, RequestKind
from replica.rig import WALL_MS, Rig, write_of


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


def test_what_collected_at_a_follower_leaves_in_the_turn_in_which_a_payload_on_cold_keys_has_run():
    """Nothing else may come that would wake it before the next tick."""
    rig = Rig(2, (1, 2, 3), collect_commands_min=4)
    rig.machine.store.complete = False
    rig.follow()
    rig.prompt_reads = False
    first, second = rig.submit("a", "b")
    ((term, payload),) = rig.proposed()
    rig.append(encode_entry(term, 1, WALL_MS, EntryKind.COMMANDS, payload), commit=1)
    assert (answer(rig), first.replies) == ([b"a"], [1])
    assert (second.replies, len(rig.proposed())) == (None, 2)


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


# --------------------------------------------------------------- deadlines and scans


@pytest.fixture
def few_hints(monkeypatch):
    """So few hints in memory that most are on the disk."""
    monkeypatch.setattr(deadlines, "NEAR_MAX", 4)
    monkeypatch.setattr(deadlines, "REFILL_HINTS", 2)
    for module in (expiry, machine):
        monkeypatch.setattr(module, "EXPIRED_PER_ENTRY_MAX", 3)


def command(*words: bytes, kind: RequestKind = RequestKind.WRITE) -> Request:
    return Request(Lane(), kind, [list(words)], [], 1, 1)


def settle(rig: Rig) -> None:
    """Have everything read that is wanted."""
    while rig.warm:
        answer(rig)


def expiring(rig: Rig, count: int, ttl_ms: int = 50) -> None:
    """Let keys expire that are on disk alone, and forget when."""
    for number in range(count):
        rig.replica.submit(command(b"SET", b"k%d" % number, b"v", b"PX", b"%d" % (ttl_ms + number)))
        rig.turn()
        settle(rig)
    rig.replica.take_snapshot()
    rig.turn()
    rig.write()
    while rig.machine.store.trim():
        pass
    rig.machine.store.deadlines.restore(rig.base)
    rig.finished.clear()


@pytest.mark.usefixtures("few_hints")
def test_what_is_due_is_read_from_the_disk_before_the_entry_that_removes_it_runs(rig, monkeypatch):
    """Rule R5: hints and keys both; applying itself looks at the disk for nothing."""
    expiring(rig, 9)
    rig.wall_ms += 1_000
    rig.prompt_reads = False
    rig.tick(2)
    looks: list[bytes] = []
    monkeypatch.setattr(rig.base, "get_many", lambda keys: [MemoryBase.get(rig.base, key) for key in keys])
    monkeypatch.setattr(rig.base, "get", lambda key: looks.append(key) or MemoryBase.get(rig.base, key))
    for _ in range(20):
        settle(rig)
        rig.tick()  # an entry removes three keys, and the next one follows
    assert looks == []
    assert rig.machine.next_deadline_ms is None
    assert rig.machine.read([b"DBSIZE"]) == 3


def test_an_idle_leader_appends_one_clock_entry_when_a_key_is_due_and_no_more(rig):
    """Rule S6."""
    rig.prompt_reads = True
    rig.replica.submit(command(b"SET", b"k", b"v", b"PX", b"50"))
    rig.turn()
    last = rig.node.last_index
    rig.tick(20)
    assert rig.node.last_index == last
    rig.wall_ms += 50
    rig.tick(20)
    assert rig.node.last_index == last + 1
    assert rig.machine.read([b"EXISTS", b"k"]) == 0


def test_ttl_counts_down_while_nothing_is_written(rig):
    """Rule S6: it subtracts the clock of the leader, which came with the read index."""
    rig.prompt_reads = True
    rig.replica.submit(command(b"SET", b"k", b"v", b"PX", b"5000"))
    rig.turn()
    last = rig.node.last_index
    rig.wall_ms += 1_200
    rig.tick()
    read = command(b"PTTL", b"k", kind=RequestKind.READ)
    rig.replica.submit(read)
    rig.turn()
    assert read.replies == [3_800]
    assert rig.node.last_index == last


def test_a_scan_has_its_keys_brought_closer_and_then_merges_what_is_newer(rig):
    rig.submit_blindly("bb")
    scan = command(b"SCAN", b"0", b"COUNT", b"100", kind=RequestKind.READ)
    rig.replica.submit(scan)
    rig.turn()
    assert scan.replies is None
    assert rig.warm[0].slices == ((b"", 512),)
    answer(rig)
    assert scan.replies == [[b"0", [b"a", b"b", b"bb", b"c"]]]


def test_a_cut_is_made_soon_after_all_keys_were_removed(rig):
    """Until it is written nothing is forgotten from memory."""
    rig.replica.submit(command(b"FLUSHALL"))
    rig.turn()
    rig.submit_blindly("next")
    assert [cut.cleared for cut in rig.cuts] == [True]
    rig.write()
    assert list(rig.base.records) == []
    assert rig.machine.read([b"DBSIZE"]) == 1


def test_a_key_that_was_read_before_all_were_removed_does_not_come_back(rig):
    read = read_of("a")
    rig.replica.submit(read)
    rig.turn()
    rig.replica.submit(command(b"FLUSHALL"))
    rig.turn()
    settle(rig)
    late = read_of("a")
    rig.replica.submit(late)
    rig.turn()
    settle(rig)
    assert late.replies == [None]
