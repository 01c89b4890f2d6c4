"""Compaction and installed states: who needs one, what becomes of the log, what is promised (rules C2-C5)."""

from __future__ import annotations

from random import Random

import pytest
from msgspec import structs
from raft_cluster import FAST, WALL_MS, entries_of
from raft_snapshots import SnapshotCluster, SnapshotServer
from test_safety import TINY, Chaos

from balsadb.errors import InvariantError
from balsadb.raft.configuration import encode_configuration
from balsadb.raft.entry import Entry, encode_entry
from balsadb.raft.log import Log
from balsadb.raft.messages import Append, AppendResponse, Heartbeat, RoundAck, VoteRequest, VoteResponse
from balsadb.raft.node import Node, Role
from balsadb.raft.options import Recovered
from balsadb.raft.progress import Pace
from balsadb.raft.ready import Fetch, LogStart
from balsadb.raft.types import Configuration, EntryKind, HardState

STATE = entries_of([1] * 20)
"""A state that some leader of term 1 sent, as the entries that it includes."""


def pace(cluster, follower: int) -> Pace:
    return cluster.leader().core.state.progress[follower].pace


def restored(cluster, node_id: int = 3, index: int = 20, term: int = 1) -> SnapshotServer:
    """Let a node go on from a state as of an index."""
    server = cluster.servers[node_id]
    state = entries_of([1] * (index - 1) + [term])
    assert cluster.install(node_id, state)
    return server


def behind(compacted: int = 8, entries: int = 10, **options) -> SnapshotCluster:
    """Node 3 was away while node 1 took entries and compacted its log."""
    cluster = SnapshotCluster(3, **options)
    cluster.elect(1)
    cluster.settle()
    cluster.isolate(3)
    for number in range(entries):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    cluster.compact(1, compacted)
    cluster.heal()
    return cluster


def until_wanted(cluster, node_id: int = 1) -> None:
    for _ in range(100):
        if cluster.servers[node_id].wanted:
            return
        cluster.tick()
    raise AssertionError("no state is wanted")


# ------------------------------------------------------------------- who needs a state


def test_a_follower_is_sent_the_state_when_it_refuses_at_the_base_and_not_before():
    cluster = behind(compacted=8)
    base_refused = False
    for _ in range(50):
        cluster.sent.clear()
        cluster.tick()
        refusals = [m.prev_index for m in cluster.sent if isinstance(m, AppendResponse) and m.rejected]
        if cluster.servers[1].wanted:
            base_refused = refusals[-1] == 8
            break
        assert 8 not in refusals
    assert base_refused
    assert cluster.servers[1].wanted == [3]
    assert pace(cluster, 3) is Pace.SNAPSHOT


def test_a_follower_that_has_the_last_compacted_entry_goes_on_without_a_state():
    cluster = SnapshotCluster(3)
    cluster.elect(1)
    for number in range(5):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    cluster.tick(4)
    last = cluster.node(3).last_index
    cluster.isolate(3)
    for number in range(5):
        cluster.propose(1, b"more-%d" % number)
    cluster.settle()
    cluster.compact(1, last)
    cluster.heal()
    cluster.tick(20)
    assert cluster.node(3).applied_index == cluster.node(1).applied_index == last + 5
    assert cluster.servers[1].wanted == []


def test_one_entry_less_and_it_needs_a_state():
    cluster = SnapshotCluster(3)
    cluster.elect(1)
    cluster.settle()
    last = cluster.node(3).last_index
    cluster.isolate(3)
    for number in range(5):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    cluster.compact(1, last + 1)
    cluster.heal()
    until_wanted(cluster)
    assert cluster.servers[1].wanted == [3]


def test_a_follower_with_another_entry_at_the_base_needs_a_state():
    """It has as many entries, and they are another leader's."""
    cluster = SnapshotCluster(3, logs={1: [1, 2, 2, 2], 2: [1, 2, 2, 2], 3: [1, 1, 1, 1, 1]})
    cluster.isolate(3)
    cluster.elect(1)
    cluster.settle()
    cluster.compact(1, 3)
    cluster.heal()
    until_wanted(cluster)
    assert cluster.send_states(1) == [3]
    cluster.tick(10)
    assert cluster.servers[3].log() == cluster.servers[1].log()


def test_a_follower_that_waits_for_a_state_is_sent_heartbeats_and_no_entries():
    cluster = behind()
    until_wanted(cluster)
    cluster.sent.clear()
    for number in range(5):
        cluster.propose(1, b"meanwhile-%d" % number)
        cluster.tick(2)
    to_it = [type(m) for m in cluster.sent if m.source == 1 and m.target == 3]
    assert set(to_it) == {Heartbeat}
    assert cluster.servers[1].wanted == [3]
    assert cluster.node(1).commit_index == cluster.node(1).last_index


@pytest.mark.parametrize("happening", ["its connection breaks", "its connection is back"])
def test_what_happens_to_the_ordinary_connection_does_not_end_the_sending(happening):
    cluster = behind()
    until_wanted(cluster)
    node = cluster.node(1)
    (node.peer_lost if happening == "its connection breaks" else node.peer_up)(3)
    cluster.tick(5)
    assert (pace(cluster, 3), cluster.servers[1].wanted) == (Pace.SNAPSHOT, [3])


def test_a_follower_goes_on_right_behind_the_state_it_was_sent():
    cluster = behind(compacted=8)
    until_wanted(cluster)
    cluster.sent.clear()
    assert cluster.send_states(1) == [3]
    assert pace(cluster, 3) is Pace.REPLICATE
    cluster.tick(5)
    node = cluster.node(3)
    assert (node.first_index, node.last_index) == (9, cluster.node(1).last_index)
    assert node.applied_index == cluster.node(1).applied_index
    appends = [m for m in cluster.sent if isinstance(m, Append) and m.target == 3 and m.entries]
    assert appends
    assert all(m.prev_index >= 8 for m in appends)


def test_entries_that_the_state_includes_are_not_sent_though_the_log_still_has_them():
    cluster = behind(compacted=5)
    cluster.cut_state(1, 9)
    until_wanted(cluster)
    cluster.sent.clear()
    assert cluster.send_states(1) == [3]
    appends = [m for m in cluster.sent if isinstance(m, Append) and m.target == 3]
    assert appends[0].prev_index == 9
    assert cluster.node(3).last_index == cluster.node(1).last_index


def test_a_refusal_right_behind_the_base_is_no_reason_for_a_state():
    """The follower may have the entry at the base, and there the log continues."""
    cluster = SnapshotCluster(3, logs={1: [1, 1, 1, 1], 2: [1, 1, 1, 1], 3: [1, 1, 1]})
    cluster.isolate(3)
    cluster.elect(1)
    cluster.settle()
    cluster.compact(1, 3)
    cluster.heal()
    cluster.sent.clear()
    cluster.tick(10)
    refusals = [m.prev_index for m in cluster.sent if isinstance(m, AppendResponse) and m.rejected]
    assert 4 in refusals
    assert cluster.servers[1].wanted == []
    assert cluster.node(3).last_index == cluster.node(1).last_index


def test_a_sending_that_failed_is_asked_for_again_when_the_follower_refuses_again():
    cluster = behind()
    until_wanted(cluster)
    server = cluster.servers[1]
    server.wanted.clear()
    server.up.snapshot_ended(3, 0)
    cluster.settle()
    assert (pace(cluster, 3), server.wanted) == (Pace.SNAPSHOT, [3])


def test_a_follower_that_was_sent_a_state_older_than_the_log_by_now_is_sent_another_one():
    """Rule C5 is there to keep this from going on for ever; here nobody kept the log."""
    cluster = behind(compacted=8)
    until_wanted(cluster)
    state = list(cluster.servers[1].disk.state)
    server = cluster.servers[1]
    server.wanted.clear()
    cluster.compact(1, 10)
    assert cluster.install(3, state)
    server.up.snapshot_ended(3, 8)
    cluster.settle()
    assert server.wanted == [3]
    assert cluster.send_states(1) == [3]
    assert cluster.node(3).last_index == server.up.last_index


def test_an_acknowledgement_that_comes_before_the_end_of_the_sending_is_enough():
    cluster = behind()
    until_wanted(cluster)
    assert cluster.install(3, cluster.servers[1].disk.state)
    cluster.tick(5)  # its answer to a heartbeat says how far it is
    assert pace(cluster, 3) is Pace.REPLICATE
    cluster.node(1).snapshot_ended(3, 8)
    assert pace(cluster, 3) is Pace.REPLICATE
    assert cluster.node(3).last_index == cluster.node(1).last_index


def test_the_end_of_a_sending_is_nothing_to_a_node_that_leads_no_more():
    cluster = behind()
    until_wanted(cluster)
    cluster.elect(2)
    cluster.node(1).snapshot_ended(3, 8)
    cluster.check(cluster.servers[1])


def test_entries_asked_back_for_a_follower_and_compacted_meanwhile_are_done_without():
    cluster = SnapshotCluster(3, options=structs.replace(FAST, cache_bytes_max=600))
    cluster.elect(1)
    cluster.settle()
    cluster.isolate(3)
    for number in range(30):
        cluster.propose(1, b"%d" % number)
        cluster.settle()
    cluster.heal()
    cluster.slow_disks.add(1)
    for _ in range(60):
        cluster.tick()
        if cluster.servers[1].fetches:
            break
    assert cluster.servers[1].fetches
    cluster.compact(1, 25)
    cluster.finish_disks()
    until_wanted(cluster)
    cluster.send_states(1)
    assert cluster.node(3).last_index == cluster.node(1).last_index


# ------------------------------------------------------------------ what becomes of the log


def test_an_install_keeps_entries_that_continue_the_state():
    """Raft paper, figure 13: the log has the state's last entry, so what is behind it stays."""
    cluster = SnapshotCluster(3, logs={3: [1] * 10})
    node = restored(cluster, index=6).up
    assert (node.first_index, node.last_index, node.applied_index, node.commit_index) == (7, 10, 6, 6)
    assert node.log.entries == entries_of([1] * 10)[6:]


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ([1] * 5, "it ends before the state"),
        ([1] * 5 + [2] * 5, "it has another term there"),
        ([], "it is empty"),
    ],
)
def test_an_install_drops_a_log_that_does_not_lead_to_the_state(log, why):
    cluster = SnapshotCluster(3, logs={3: log})
    node = restored(cluster, index=8, term=3).up
    assert (node.first_index, node.last_index, node.applied_index, node.commit_index) == (9, 8, 8, 8), why
    assert (node.log.entries, node.log.term_at(8)) == ([], 3)


def test_a_state_that_is_not_newer_is_ignored():
    cluster = SnapshotCluster(3)
    cluster.elect(1)
    for number in range(5):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    cluster.tick(5)
    node = cluster.node(3)
    applied = node.applied_index
    for index in (applied - 1, applied):
        assert not node.begin_restore(index)
        assert not node.restore(index, node.log.term_at(index), WALL_MS, cluster.configuration)
    cluster.check(cluster.servers[3])
    assert (node.first_index, node.applied_index) == (1, applied)
    assert node.begin_restore(applied + 1)


def test_a_leader_never_installs():
    cluster = SnapshotCluster(3)
    leader = cluster.elect(1)
    assert not leader.begin_restore(1000)
    assert not leader.restore(1000, leader.term, WALL_MS, cluster.configuration)
    assert leader.applied_index < 1000
    cluster.check(cluster.servers[1])


def test_a_candidate_does_not_begin_an_install():
    cluster = SnapshotCluster(3)
    cluster.isolate(3)
    cluster.tick(40, only=[3])
    assert cluster.node(3).role in (Role.PRE_CANDIDATE, Role.CANDIDATE)
    assert not cluster.node(3).begin_restore(1000)


def test_nobody_campaigns_while_the_state_is_replaced():
    """What it would lead with is not what it will have."""
    cluster = SnapshotCluster(3)
    cluster.isolate(3)
    assert cluster.node(3).begin_restore(20)
    cluster.tick(100, only=[3])
    assert cluster.node(3).role is Role.FOLLOWER
    cluster.switch_and_restore(cluster.servers[3], STATE)
    cluster.tick(40, only=[3])
    assert cluster.node(3).role is not Role.FOLLOWER


def test_log_time_comes_with_the_state():
    """Rule C2: a node that leads after an install stamps no less."""
    cluster = SnapshotCluster(1)
    late = WALL_MS + 10_000_000
    state = [*entries_of([1] * 4), encode_entry(1, 5, late, EntryKind.CLOCK, b"")]
    assert cluster.install(1, state)
    node = cluster.elect(1)
    assert node.log.entries[-1].time_ms >= late


def test_an_entry_that_is_not_on_the_own_disk_is_not_compacted():
    cluster = SnapshotCluster(3, logs={3: [1] * 4})
    cluster.slow_disks.add(3)
    more = [e.encoded for e in entries_of([1] * 9)[4:]]
    cluster.deliver(Append(1, 3, 1, 4, 1, 9, 0, tuple(more)))
    server = cluster.servers[3]
    cluster.pump(server)
    node = server.up
    assert (node.applied_index, node.durable_index) == (9, 4)
    with pytest.raises(InvariantError, match=r"the log can't begin behind 9: .*durable 4"):
        node.compact(9)


def test_a_state_that_ends_within_what_is_not_on_the_own_disk_compacts_nothing_yet():
    cluster = SnapshotCluster(3, logs={3: [1] * 4})
    cluster.slow_disks.add(3)
    more = [e.encoded for e in entries_of([1] * 9)[4:]]
    cluster.deliver(Append(1, 3, 1, 4, 1, 0, 0, tuple(more)))
    server = cluster.servers[3]
    cluster.pump(server)
    restored(cluster, index=7)
    node = server.up
    assert (node.first_index, node.last_index, node.applied_index) == (1, 9, 7)
    cluster.finish_disks()
    assert (node.durable_index, len(server.disk.entries)) == (9, 9)
    cluster.compact(3, 7)
    assert (node.first_index, server.disk.base) == (8, 7)


def test_compacting_to_where_the_log_begins_does_nothing():
    cluster = behind(compacted=8)
    node = cluster.node(1)
    node.compact(8)
    node.compact(3)
    assert node.first_index == 9
    assert not node.has_ready(True)


# --------------------------------------------------------------- configurations (rules C2, M2)


def membership(term: int, index: int, configuration: Configuration) -> Entry:
    return encode_entry(term, index, WALL_MS, EntryKind.MEMBERSHIP, encode_configuration(configuration))


WITH_LEARNER = Configuration(voters=(1, 2, 3), learners=(4,))
WITHOUT_IT = Configuration(voters=(1, 2, 3), removed=(4,))


def test_the_configuration_is_that_of_the_state():
    cluster = SnapshotCluster(3)
    state = [*entries_of([1] * 5), membership(1, 6, WITH_LEARNER)]
    assert cluster.install(3, state)
    assert cluster.node(3).configuration == WITH_LEARNER


def test_a_truncation_behind_the_state_goes_back_to_its_configuration():
    cluster = SnapshotCluster(3)
    state = [*entries_of([1] * 5), membership(1, 6, WITH_LEARNER)]
    assert cluster.install(3, state)
    node = cluster.node(3)
    cluster.deliver(Append(1, 3, 2, 6, 1, 6, 0, (membership(2, 7, WITHOUT_IT).encoded,)))
    assert node.configuration == WITHOUT_IT
    other = encode_entry(3, 7, WALL_MS, EntryKind.NOOP, b"")
    cluster.deliver(Append(2, 3, 3, 6, 1, 6, 0, (other.encoded,)))
    assert (node.configuration, node.last_index, node.log.term_at(7)) == (WITH_LEARNER, 7, 3)
    cluster.pump(cluster.servers[3])


def test_a_configuration_in_a_dropped_log_is_not_in_force():
    """It was never committed: the state goes past it without it."""
    cluster = SnapshotCluster(3)
    cluster.deliver(Append(1, 3, 1, 0, 0, 0, 0, (membership(1, 1, WITH_LEARNER).encoded,)))
    assert cluster.node(3).configuration == WITH_LEARNER
    cluster.pump(cluster.servers[3])
    restored(cluster, index=8, term=2)
    assert cluster.node(3).configuration == cluster.configuration


def test_a_removal_inside_the_state_is_final():
    cluster = SnapshotCluster(3)
    state = [*entries_of([1] * 5), membership(1, 6, WITHOUT_IT)]
    assert cluster.install(3, state)
    node = cluster.node(3)
    node.step(Heartbeat(4, 3, 9, 6, 0, 0), WALL_MS)
    assert node.term < 9


def test_a_configuration_behind_a_state_whose_log_is_kept_stays_in_force():
    cluster = SnapshotCluster(3)
    log = [*entries_of([1] * 6), membership(1, 7, WITH_LEARNER)]
    cluster.deliver(Append(1, 3, 1, 0, 0, 0, 0, tuple(e.encoded for e in log)))
    cluster.pump(cluster.servers[3])
    assert cluster.install(3, entries_of([1] * 5))
    assert (cluster.node(3).configuration, cluster.node(3).first_index) == (WITH_LEARNER, 6)


@pytest.mark.parametrize("behind", [(), (WITHOUT_IT,)])
def test_a_node_that_had_lost_its_state_acts_by_the_configuration_inside_the_one_it_gets(behind):
    """The entry that brought it is compacted, so its log says nothing of it. A node that went on by the
    initial members could be elected, and commit, by voters who were removed long ago."""
    later = tuple(membership(1, index, new) for index, new in enumerate(behind, start=9))
    terms, last = ((6, 1),), 8 + len(later)
    recovered = Recovered(HardState(1, 0, last), 7, last, terms, memberships=later)
    initial = Configuration(voters=(1, 2, 3))
    node = Node(3, initial, recovered, FAST, Random(0), WALL_MS)
    assert node.stateless
    assert node.restore(8, 1, WALL_MS, WITH_LEARNER)
    assert node.configuration == (behind[0] if behind else WITH_LEARNER)
    assert node.gone == WITH_LEARNER.removed


# ----------------------------------------------------------------- disk and promises (rule W1)


def test_the_new_start_is_a_write_of_its_own_before_the_entries_behind_it():
    cluster = SnapshotCluster(3, logs={3: [1] * 2})
    cluster.slow_disks.add(3)
    server = restored(cluster)
    behind_it = entries_of([1] * 22)[20:]
    cluster.deliver(Append(1, 3, 1, 20, 1, 22, 0, tuple(e.encoded for e in behind_it)))
    ready = server.up.ready(True)
    assert ready.write is not None
    assert (ready.write.entries, ready.write.start) == ((), LogStart(20, 1, False))
    # A commit index on disk says that everything up to it is there.
    assert ready.write.hard_state == HardState(1, 0, 20)
    server.disk.write(ready.write)
    server.up.persisted(ready.write.number)
    ready = server.up.ready(True)
    assert ready.write is not None
    assert (list(ready.write.entries), ready.write.start) == (behind_it, None)
    assert ready.write.hard_state == HardState(1, 0, 22)


def test_compaction_names_no_commit_beyond_what_is_written():
    cluster = SnapshotCluster(3, logs={3: [1] * 4})
    node = cluster.node(3)
    cluster.deliver(Append(1, 3, 1, 4, 1, 4, 0, ()))
    cluster.pump(cluster.servers[3])
    cluster.cut_state(3, 4)
    more = [e.encoded for e in entries_of([1] * 9)[4:]]
    cluster.deliver(Append(1, 3, 1, 4, 1, 9, 0, tuple(more)))
    assert node.commit_index == 9
    node.compact(4)
    ready = node.ready(True)
    assert ready.write is not None
    assert (ready.write.start, ready.write.entries) == (LogStart(4, 1, True), ())
    assert ready.write.hard_state == HardState(1, 0, 4)


def test_an_installed_state_is_acknowledged_once_the_log_begins_behind_it_and_its_entries_only_from_disk():
    """A log that begins at 1 and a state that is lost afterwards look like a node that never had anything."""
    cluster = SnapshotCluster(3, logs={3: [1] * 2})
    cluster.slow_disks.add(3)
    server = cluster.servers[3]

    def acknowledged() -> list[int]:
        cluster.pump(server)
        return [
            m.match
            for m in cluster.sent
            if isinstance(m, AppendResponse | RoundAck) and (m.match or isinstance(m, RoundAck))
        ]

    cluster.deliver(Heartbeat(1, 3, 1, 0, 0, 0))
    assert acknowledged() == [0]
    restored(cluster)
    more = tuple(e.encoded for e in entries_of([1] * 22)[20:])
    cluster.deliver(Append(1, 3, 1, 20, 1, 22, 0, more))
    server.disk.entries = list(STATE)  # the state is durable, and stands for the entries
    assert acknowledged() == [0], "the log's new beginning is on its way to the disk"
    cluster.complete_write(server)
    assert set(acknowledged()[1:]) == {20}
    cluster.complete_write(server)
    assert acknowledged()[-1] == 22


def test_a_write_that_was_under_way_at_the_install_proves_nothing_of_the_new_log():
    """Rule W1: entry 21 of the old log was being written; entry 21 of the new one is another."""
    cluster = SnapshotCluster(3)
    cluster.slow_disks.add(3)
    server = cluster.servers[3]
    old = entries_of([1] * 22)
    cluster.deliver(Append(1, 3, 1, 0, 0, 0, 0, tuple(e.encoded for e in old)))
    cluster.pump(server)
    assert server.writing is not None
    restored(cluster, index=20, term=2)
    new = entries_of([1] * 19 + [2, 2])[20]
    cluster.deliver(Append(2, 3, 2, 20, 2, 20, 0, (new.encoded,)))
    cluster.complete_write(server)
    node = server.up
    assert (node.durable_index, node.last_index) == (20, 21)
    cluster.pump(server)
    assert server.writing.start == LogStart(20, 2, False)
    cluster.complete_write(server)
    assert node.durable_index == 20
    cluster.pump(server)
    cluster.complete_write(server)
    assert (node.durable_index, server.disk.entries[20:]) == (21, [new])


def test_a_vote_given_while_the_log_gets_a_new_start_waits_for_the_disk_as_ever():
    cluster = SnapshotCluster(3)
    cluster.slow_disks.add(3)
    restored(cluster)
    node = cluster.node(3)
    node.step(VoteRequest(1, 3, 5, 30, 2, False, True), WALL_MS)
    ready = node.ready(True)
    assert not [m for m in ready.messages if isinstance(m, VoteResponse)]
    assert ready.write is not None
    assert ready.write.hard_state == HardState(5, 1, 20)
    node.persisted(ready.write.number)
    assert [m.granted for m in node.ready(True).messages if isinstance(m, VoteResponse)] == [True]


def test_a_process_that_ends_between_the_switch_and_the_new_start_of_the_log_goes_on_from_the_state():
    cluster = SnapshotCluster(3, logs={3: [1] * 5})
    cluster.slow_disks.add(3)
    restored(cluster)
    cluster.restart(3)
    node = cluster.node(3)
    assert (node.first_index, node.last_index, node.applied_index) == (21, 20, 20)


# ------------------------------------------------------------------ what is under way


def test_entries_asked_back_to_be_applied_come_after_the_install_and_are_not_needed():
    """A start replays from disk while the leader already sends a state; the disk answers late."""
    cluster = SnapshotCluster(3, logs={3: [1] * 10}, hard_states={3: HardState(1, 0, 10)}, tail=0)
    cluster.slow_disks.add(3)
    server = cluster.servers[3]
    cluster.pump(server)
    asked = server.fetches.popleft()
    assert asked == Fetch(3, 1, 10)
    restored(cluster, index=6)
    cluster.pump(server)
    server.up.fetched(asked, tuple(entries_of([1] * 10)))
    cluster.finish_disks()
    assert [e.index for e in server.applied] == list(range(1, 11))
    assert server.up.applied_index == 10


def test_a_node_that_forgot_the_term_in_which_it_refused_enters_the_states():
    """A refusal promises nothing, so it does not wait for the disk; and then the process ended."""
    cluster = SnapshotCluster(3, logs={3: [1] * 2})
    server = restored(cluster, index=20, term=7)
    assert (server.up.term, server.up.role) == (7, Role.FOLLOWER)
    cluster.pump(server)
    assert server.disk.hard_state.term == 7
    cluster.restart(3)
    assert server.up.term == 7


@pytest.mark.parametrize("index", [6, 10, 20])
def test_the_same_entries_may_have_been_asked_back_twice(index):
    cluster = SnapshotCluster(3, logs={3: [1] * 10}, hard_states={3: HardState(1, 0, 10)}, tail=0)
    cluster.slow_disks.add(3)
    server = cluster.servers[3]
    cluster.pump(server)
    asked = server.fetches.popleft()
    restored(cluster, index=index)
    cluster.pump(server)
    cluster.finish_disks()
    before = server.up.applied_index
    server.up.fetched(asked, tuple(entries_of([1] * 10)))
    cluster.finish_disks()
    assert server.up.applied_index == before == max(10, index)


# --------------------------------------------------------------- all of it, at random


class SnapshotChaos(Chaos):
    """Random runs in which nodes also cut, compact, and install what others send, late or never."""

    def __init__(self, seed: int, options) -> None:
        super().__init__(seed, options)
        self.cluster = SnapshotCluster(
            len(self.cluster.servers),
            seed=seed,
            options=options,
            configuration=self.cluster.configuration,
            tail=self.cluster.tail,
        )
        self.flying: list[tuple[int, int, list[Entry]]] = []
        """Sender, receiver, state of each sending that is under way."""
        self.weights |= {
            self.propose: 10,
            self.split: self.random.choice([0.5, 1]),
            self.cut_and_compact: self.random.choice([5, 10, 20]),
            self.leave_behind: 2,
            self.send: 10,
            self.arrive: self.random.choice([2, 10]),
        }

    def cut_and_compact(self, server: SnapshotServer | None = None) -> None:
        server = server or self.any()
        if server is None:
            return
        node, draw = server.up, self.random
        index = self.cluster.cut_state(server.id)
        if index > node.first_index:
            node.compact(draw.randint(node.first_index, index) if draw.random() < 0.5 else index)
            self.cluster.check(server)

    def leave_behind(self) -> None:
        """Cut somebody off while the others go on, and let the leader compact what it has not heard of."""
        if not self.cluster.leaders() or len(self.cluster.servers) == 1:
            return
        leader = self.cluster.leader()
        self.cluster.isolate(self.random.choice([node for node in self.cluster.servers if node != leader.id]))
        for _ in range(self.random.randint(1, 30)):
            self.cluster.propose(leader.id, self.random.randbytes(9))
            for action in (self.deliver, self.disk, self.deliver):
                action()
            if (server := self.any()) is not None:
                self.cluster.pump(server)
        if leader.id not in self.paused:
            self.cut_and_compact(self.cluster.servers[leader.id])

    def send(self) -> None:
        for server in self.cluster.running():
            if server.id in self.paused:
                continue
            while server.wanted:
                self.flying.append((server.id, server.wanted.pop(), list(server.disk.state)))

    def arrive(self) -> None:
        if not self.flying:
            return
        cluster, draw = self.cluster, self.random
        sender, receiver, state = self.flying.pop(draw.randrange(len(self.flying)))
        index, target = 0, cluster.servers[receiver]
        cut = (sender, receiver) in cluster.cuts
        if target.node is not None and target.id not in self.paused and not cut and draw.random() < 0.8:
            if cluster.install(receiver, state):
                index = len(state)
            elif target.node.applied_index >= len(state):
                index = target.node.applied_index
        source = cluster.servers[sender]
        if source.node is not None:
            if draw.random() < 0.2:
                index = 0
            source.up.snapshot_ended(receiver, index)
            cluster.check(source)

    def recover(self) -> None:
        """Every sending under way fails; from now on states arrive at once."""
        self.paused.clear()
        self.flying.clear()
        self.cluster.prompt = True
        for server in self.cluster.running():
            for node in self.cluster.servers:
                server.up.snapshot_ended(node, 0)
            self.cluster.check(server)
        super().recover()


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_random_runs_with_snapshots_violate_nothing_and_the_cluster_recovers(block):
    installs = 0
    for seed in range(block * 20, block * 20 + 20):
        chaos = SnapshotChaos(seed, TINY if seed % 2 else FAST)
        try:
            chaos.run(2500)
            chaos.recover()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        installs += chaos.cluster.installs
    assert installs >= 5


def test_a_start_from_a_state_needs_a_log_that_leads_to_it():
    """`storage/opening.py` sees to it."""
    recovered = Recovered(HardState(2, 0, 20), 21, 20, ((20, 1),))
    assert Log(recovered, 20, 1 << 20).commit_index == 20
    with pytest.raises(InvariantError, match="outside of the log"):
        Log(recovered, 21, 1 << 20)


def test_a_state_that_contradicts_the_leader_of_this_term_ends_the_term():
    """It was committed in a later one. The leader counts as durable here what the install takes away."""
    cluster = SnapshotCluster(3, logs={3: [1] * 4})
    cluster.deliver(Append(2, 3, 2, 4, 1, 0, 0, tuple(e.encoded for e in entries_of([1] * 4 + [2] * 6)[4:])))
    cluster.pump(cluster.servers[3])
    node = restored(cluster, index=8, term=1).up
    assert (node.term, node.last_index) == (3, 8)
    cluster.deliver(Heartbeat(2, 3, 2, 0, 0, 10, 10))  # of the old term: no loss


def test_a_deposed_leader_may_hear_of_an_index_that_it_has_not_got():
    cluster = SnapshotCluster(3, logs={n: [1] * 6 for n in (1, 2, 3)})
    cluster.elect(1)
    cluster.settle()
    leader = cluster.node(1)
    leader.core.state.progress[3].become_snapshot()
    leader.snapshot_ended(3, 1_000)
    assert leader.core.state.progress[3].next == leader.last_index + 1
    cluster.settle()
