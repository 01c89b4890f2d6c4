"""Cuts, compaction and installs as one server sees them (rules C3, C4, C5, P4)."""

from __future__ import annotations

import pytest

from balsadb.kv.batch import decode_batch, encode_batch
from balsadb.kv.cut import decode_bookkeeping
from balsadb.kv.machine import StateMachine
from balsadb.kv.memory import MemoryBase
from balsadb.kv.reply import Refusal
from balsadb.raft.entry import Entry, encode_entry
from balsadb.raft.messages import (
    AppendResponse,
    StateRequest,
    VoteRequest,
    VoteResponse,
)
from balsadb.raft.node import Role
from balsadb.raft.types import EntryKind
from balsadb.replica.replica import NOT_APPLIED, UNKNOWN
from balsadb.replica.request import Lane, Request, RequestKind
from kv.delta_model import write as write_cut
from replica.rig import BOOT, WALL_MS, Rig


def entry(index: int, term: int = 1, payload: bytes = b"", kind: EntryKind = EntryKind.NOOP) -> Entry:
    return encode_entry(term, index, WALL_MS, kind, payload)


def commands(index: int, payload: bytes, term: int = 1) -> Entry:
    return entry(index, term, payload, EntryKind.COMMANDS)


def state_of(*payloads: bytes, term: int = 1, noops: int = 10):
    """A state that applied these payloads in its first entries; returns base, bookkeeping."""
    base = MemoryBase()
    machine = StateMachine((1, 2, 3), base)
    for index, payload in enumerate(payloads, 1):
        assert machine.apply_commands(index, 1, WALL_MS, payload).ran
    for _ in range(noops):
        machine.apply_empty(machine.applied_index + 1, term, WALL_MS)
    cut = machine.freeze()
    while machine.store.count(cut):
        pass
    write_cut(base, cut)
    return base, decode_bookkeeping(base.data)


@pytest.fixture
def follower():
    made = Rig(2, (1, 2, 3))
    made.follow()
    return made


# ------------------------------------------------------------------------------------ cuts


def test_a_cut_comes_before_the_entry_that_would_make_it_too_large():
    rig = Rig(1, (1,), cut_keys_max=2)
    rig.lead()
    rig.submit("a", "b")
    assert rig.cuts == []
    before = rig.machine.applied_index
    rig.submit("c")
    assert [cut.index for cut in rig.cuts] == [before]
    assert sorted(rig.cuts[0].changes) == [b"a", b"b"]
    assert not rig.cuts[0].release


def test_bytes_count_too():
    rig = Rig(1, (1,), cut_bytes_max=10)
    rig.lead()
    rig.submit("key", "key", "key")
    rig.submit("key")
    assert len(rig.cuts) == 1


def test_a_cut_waits_for_the_own_disk():
    """Rule C3: entries may be applied before the own disk has them; the state is never ahead of the log."""
    rig = Rig(2, (1, 2, 3), cut_keys_max=1)
    rig.follow()
    (request,) = rig.submit("mine")
    ((_, payload),) = rig.proposed()
    rig.prompt = False
    rig.append(commands(1, payload), entry(2), entry(3), commit=3)
    assert rig.node.durable_index == 0
    assert rig.machine.applied_index == 1, "the first fits, the next must wait for a cut"
    assert rig.cuts == []
    assert request.replies == [1]
    rig.persist()
    rig.turn()
    assert [cut.index for cut in rig.cuts] == [1]
    assert rig.machine.applied_index == 3
    assert rig.cuts[0].index <= rig.node.durable_index


def test_a_full_queue_of_cuts_stops_applying_and_goes_on_later():
    """The disk is behind: memory stays bounded and nothing is lost (rule C1)."""
    rig = Rig(1, (1,), cut_keys_max=1, cuts_max=2)
    rig.lead()
    requests = rig.submit("a", "b", "c", "d", "e", "f")
    assert len(rig.machine.store.cuts) == len(rig.cuts) == 2
    assert [request.replies for request in requests] == [[1], [1], [1], None, None, None]
    assert rig.node.commit_index > rig.machine.applied_index
    rig.write(count=1)
    rig.turn()
    assert [request.replies for request in requests] == [[1]] * 4 + [None, None]
    while rig.write(count=1):
        rig.turn()
    assert [request.replies for request in requests] == [[1]] * 6
    assert rig.node.commit_index == rig.machine.applied_index


def test_a_read_still_sees_what_waits_in_cuts():
    rig = Rig(1, (1,), cut_keys_max=1, cuts_max=4)
    rig.lead()
    rig.submit("a", "b", "a")
    read = Request(Lane(), RequestKind.READ, [[b"GET", b"a"]], [], 1, 1)
    rig.replica.submit(read)
    rig.turn()
    assert read.replies == [b"vv"]


# ------------------------------------------------------------------------- letting the log go


def test_after_enough_log_a_cut_is_made_that_lets_it_go():
    rig = Rig(1, (1,), release_bytes=300)
    rig.lead()
    rig.submit(*"abcdefghij")
    released = [cut for cut in rig.cuts if cut.release]
    assert released
    assert rig.node.first_index == 1, "nothing goes before the cut is durable"
    assert rig.replica.snapshot_index == 0
    rig.write()
    assert rig.node.first_index == released[-1].index + 1
    assert rig.replica.snapshot_index == released[-1].index


def test_a_cut_that_is_not_durable_lets_nothing_go():
    rig = Rig(1, (1,), cut_keys_max=1)
    rig.lead()
    rig.submit("a", "b", "c")
    assert rig.cuts
    assert not any(cut.release for cut in rig.cuts)
    rig.write()
    assert (rig.node.first_index, rig.replica.snapshot_index) == (1, 0)


def test_a_snapshot_can_be_asked_for():
    rig = Rig(1, (1,))
    rig.lead()
    rig.submit("a", "b")
    rig.replica.take_snapshot()
    rig.turn()
    (cut,) = rig.cuts
    assert (cut.index, cut.release) == (rig.machine.applied_index, True)
    rig.write()
    rig.turn()
    assert rig.node.first_index == cut.index + 1
    assert rig.cuts == [], "one is enough"


def test_the_tail_for_slow_followers_is_kept():
    rig = Rig(1, (1,))
    rig.lead()
    rig.submit(*"abcdef")
    rig.replica.take_snapshot()
    rig.turn()
    rig.write(tail_first=4)
    assert (rig.node.first_index, rig.replica.snapshot_index) == (4, rig.machine.applied_index)


def test_what_a_follower_is_being_sent_keeps_the_log_behind_it():
    """Rule C5: otherwise a follower fetches snapshots for ever."""
    rig = Rig(1, (1,))
    rig.lead()
    rig.submit(*"abcd")
    rig.replica.take_snapshot()
    rig.turn()
    rig.write()
    copy = rig.replica.snapshot_index
    rig.replica.sending(2, copy, 10**9)
    rig.replica.sending(3, copy + 2, 10**9)
    rig.submit(*"efghij")
    for gone in (None, 2, 3):
        if gone:
            rig.replica.snapshot_ended(gone, copy)
        rig.replica.take_snapshot()
        rig.turn()
        rig.write()
        kept = {None: copy, 2: copy + 2, 3: rig.replica.snapshot_index}[gone]
        assert rig.node.first_index == kept + 1


def test_a_follower_that_needs_a_newer_state_than_there_is_waits_for_the_next_cut():
    """A node that lost its state says where its log begins."""
    rig = Rig(1, (1, 2, 3))
    leading(rig)
    rig.replica.step(StateRequest(2, 1, rig.node.term, 3))
    rig.turn()
    assert rig.snapshots == []
    (cut,) = rig.cuts
    assert cut.release
    rig.write()
    rig.replica.step(StateRequest(2, 1, rig.node.term, cut.index))
    rig.turn()
    assert rig.snapshots == [(2, cut.index)]


def leading(rig: Rig) -> None:
    """Let node 1 of three lead, with node 3's help."""
    for _ in range(100):
        rig.tick()
        for message in rig.sent:
            if isinstance(message, VoteRequest) and message.target == 3:
                rig.replica.step(VoteResponse(3, 1, message.term, True, message.pre))
        rig.sent.clear()
        rig.turn()
        if rig.node.role is Role.LEADER:
            break
    for _ in range(2):
        acknowledged = AppendResponse(3, 1, rig.node.term, rig.node.last_index, False)
        rig.replica.step(acknowledged)
        rig.turn()
    assert rig.machine.applied_index == rig.node.last_index


# ------------------------------------------------------------------------------- installing


def test_the_state_of_another_node_takes_the_place_of_this_ones(follower):
    """Rule C4: pending delta and log are gone."""
    follower.append(entry(1), entry(2), commit=1)
    base, state = state_of(noops=30, term=1)
    assert follower.replica.begin_install(state.index)
    assert follower.replica.install(base, state)
    follower.turn()
    machine = follower.machine
    assert (machine.applied_index, follower.replica.snapshot_index) == (30, 30)
    assert machine.digest() == StateMachine((), base, state).digest()
    assert (follower.node.first_index, follower.node.last_index) == (31, 30)
    follower.append(entry(31), commit=31)
    assert machine.applied_index == 31
    acks = [m.match for m in follower.sent if isinstance(m, AppendResponse) and not m.rejected]
    assert acks[-1] == 31


def test_nothing_is_applied_and_no_cut_is_made_until_the_state_is_in_place():
    rig = Rig(2, (1, 2, 3), cut_keys_max=1)
    rig.follow()
    rig.append(*(entry(index) for index in range(1, 20)), commit=2)
    assert rig.replica.begin_install(10)
    rig.follow(commit=19)
    rig.replica.take_snapshot()
    rig.turn()
    assert (rig.machine.applied_index, rig.cuts) == (2, [])
    base, state = state_of(noops=10)
    assert rig.replica.install(base, state)
    rig.turn()
    assert rig.machine.applied_index == 19
    assert rig.cuts[0].index >= 10


def test_an_entry_in_hand_is_not_applied_on_top_of_the_state_that_includes_it():
    rig = Rig(2, (1, 2, 3), cut_keys_max=1)
    rig.follow()
    requests = rig.submit("a", "b")
    payloads = [payload for _, payload in rig.proposed()]
    rig.prompt = False
    # Handed out, and held back behind a cut that waits for the disk:
    rig.append(*(commands(i, p) for i, p in enumerate(payloads, 1)), commit=2)
    assert rig.machine.applied_index == 1
    base, state = state_of(*payloads, noops=0)
    assert rig.replica.begin_install(2)
    assert rig.replica.install(base, state)
    rig.turn()
    assert rig.machine.applied_index == 2
    assert rig.machine.read([b"GET", b"b"]) == b"v"
    assert [request.replies for request in requests] == [[1], [UNKNOWN]]


def test_an_install_waits_for_cuts_that_are_not_written():
    rig = Rig(2, (1, 2, 3), cut_keys_max=1)
    rig.follow()
    rig.submit("a", "b")
    rig.append(*(commands(i, p) for i, (_, p) in enumerate(rig.proposed(), 1)), commit=2)
    assert rig.cuts
    assert not rig.replica.begin_install(50)
    rig.write()
    assert rig.replica.begin_install(50)
    assert not rig.replica.begin_install(60), "one at a time"


def test_a_state_that_is_not_newer_is_not_wanted(follower):
    follower.append(entry(1), entry(2), commit=2)
    assert not follower.replica.begin_install(1)
    assert not follower.replica.begin_install(2)
    assert follower.replica.begin_install(3)


def test_a_leader_wants_no_state():
    rig = Rig(1, (1,))
    rig.lead()
    assert not rig.replica.begin_install(1_000)


# ---------------------------------------------------------------------- own payloads (rule P4)


def test_a_payload_that_ran_in_the_installed_state_is_answered_unknown_and_later_ones_stay_pending(follower):
    """Rule P4: they ran elsewhere, and the replies are lost."""
    ran, waiting = follower.submit("a", "b")
    (_, first), (_, second) = follower.proposed()
    base, state = state_of(first)
    assert follower.replica.begin_install(state.index)
    assert follower.replica.install(base, state)
    follower.turn()
    assert (ran.replies, waiting.replies) == ([UNKNOWN], None)
    assert isinstance(UNKNOWN, Refusal)
    assert UNKNOWN.text.startswith(b"UNKNOWN ")
    follower.append(commands(state.index + 1, second), commit=state.index + 1)
    assert waiting.replies == [1]
    assert follower.machine.read([b"GET", b"a"]) == b"v", "it ran once"


def test_payloads_go_on_with_the_next_number_after_an_install(follower):
    follower.submit("a", "b")
    base, state = state_of(*(payload for _, payload in follower.proposed()))
    assert follower.replica.begin_install(state.index)
    assert follower.replica.install(base, state)
    follower.follow(term=1)
    follower.sent.clear()
    (third,) = follower.submit("c")
    ((_, payload),) = follower.proposed()
    assert decode_batch(payload).sequence == 3
    follower.append(commands(state.index + 1, payload), commit=state.index + 1)
    assert third.replies == [1]


def test_a_payload_of_an_older_term_that_the_state_lacks_is_dead_and_proposed_again(follower):
    """Rules P1, P4: the state ends in a later term without it, so it never ran and never will."""
    ran, dead = follower.submit("a", "b")
    (_, first), _ = follower.proposed()
    base, state = state_of(first, term=3)
    assert follower.replica.begin_install(state.index)
    assert follower.replica.install(base, state)
    follower.sent.clear()
    follower.follow(term=3)
    assert (ran.replies, dead.replies) == ([UNKNOWN], None)
    ((term, payload),) = follower.proposed()
    batch = decode_batch(payload)
    assert (term, batch.sequence, batch.commands) == (3, 2, [[b"APPEND", b"b", b"v"]])
    follower.append(commands(state.index + 1, payload, 3), commit=state.index + 1)
    assert dead.replies == [1]


def test_what_an_earlier_process_of_this_node_had_run_says_nothing_about_this_ones_payloads(follower):
    """Rule P2: sequences count within a boot."""
    (mine,) = follower.submit("a")
    earlier = encode_batch(2, BOOT - 1, 1, [[b"SET", b"old", b"1"]])
    base, state = state_of(earlier)
    assert follower.replica.begin_install(state.index)
    assert follower.replica.install(base, state)
    follower.turn()
    assert mine.replies is None
    ((_, payload),) = follower.proposed()
    follower.append(commands(state.index + 1, payload), commit=state.index + 1)
    assert mine.replies == [1]


def test_a_deadline_that_passes_after_an_install_is_answered_by_what_is_certain(follower):
    open_, waiting = follower.submit("a", "b")
    base, state = state_of(noops=5)
    assert follower.replica.begin_install(state.index)
    assert follower.replica.install(base, state)
    follower.node.peer_lost(1)
    follower.now_ms += 10_000
    follower.tick()
    assert open_.replies == waiting.replies == [UNKNOWN], "both are on their way, and their fate is open"
    assert NOT_APPLIED not in [*open_.replies, *waiting.replies]


def test_a_start_from_a_state_is_not_loading_what_the_state_includes(follower):
    base, state = state_of(noops=8)
    assert follower.replica.begin_install(state.index)
    assert follower.replica.install(base, state)
    assert not follower.replica.loading
    read = Request(Lane(), RequestKind.STALE_READ, [[b"PING"]], [], 1, 1)
    follower.replica.submit(read)
    follower.turn()
    assert read.replies is not None


def test_a_follower_that_takes_the_state_too_slowly_does_not_keep_the_log_for_ever():
    """Rule C5: the log may grow to four times what it is let go at, or by as much as the state is large."""
    rig = Rig(1, (1,), release_bytes=2_000)
    rig.lead()
    rig.submit("a")
    rig.replica.take_snapshot()
    rig.turn()
    rig.write()
    copy = rig.replica.snapshot_index
    rig.replica.sending(2, copy, 0)
    held = 0
    while rig.node.first_index == copy + 1:
        rig.submit("b")
        held += 1
        assert held < 1_000, "the log is kept for ever"
        rig.replica.take_snapshot()
        rig.turn()
        rig.write()
    assert rig.replica._logged_bytes > 8 * 2_000


def test_the_log_does_not_grow_faster_than_cuts_become_durable():
    """A second cut that is to let the log go waits for the first, and so do the clients."""
    rig = Rig(1, (1,), release_bytes=2_000)
    rig.lead()
    while not rig.cuts:
        rig.submit("a")
    assert rig.cuts[0].release
    waiting = None
    for _ in range(200):
        (waiting,) = rig.submit("b")
        if waiting.replies is None:
            break
    assert waiting is not None
    assert waiting.replies is None, "nobody ever waits"
    assert len(rig.cuts) == 1
    rig.write()
    rig.turn()
    assert waiting.replies is not None
    assert rig.cuts[0].release
