"""Flow control, back-up, proposals and their bounds, entries from disk, and commits for origins."""

import msgspec
import pytest
from raft_cluster import FAST, Cluster

from balsadb.errors import EntriesLost, InvariantError, ProtocolError
from balsadb.raft.configuration import encode_configuration
from balsadb.raft.entry import PAYLOAD_BYTES_MAX, encode_entry
from balsadb.raft.messages import (
    Append,
    AppendResponse,
    CommitAdvance,
    Heartbeat,
    Propose,
    ProposeRejected,
    RoundAck,
)
from balsadb.raft.progress import Pace
from balsadb.raft.types import Configuration, EntryKind, HardState


def appends_to(cluster, target):
    return [m for m in cluster.sent if isinstance(m, Append) and m.target == target]


def led(size=3, **options):
    cluster = Cluster(size, options=msgspec.structs.replace(FAST, **options))
    cluster.elect(1)
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    cluster.sent.clear()
    return cluster


def test_all_proposals_of_a_turn_go_out_in_one_append_and_one_write():
    cluster = led()
    for _ in range(5):
        cluster.propose(1)
    ready = cluster.node(1).ready(True)
    assert [len(m.entries) for m in ready.messages] == [5, 5]
    assert ready.write is not None
    assert len(ready.write.entries) == 5


def test_entries_are_pipelined_before_the_first_is_acknowledged():
    cluster = led()
    node = cluster.node(1)
    for _ in range(3):
        cluster.propose(1)
        cluster.pump(cluster.servers[1])
    assert [m.prev_index for m in appends_to(cluster, 2)] == [1, 2, 3]
    assert len(node.core.state.progress[2].inflight) == 3


def test_the_window_is_bounded_by_count_and_heartbeats_pass_it():
    cluster = led(inflight_messages_max=2)
    cluster.slow_disks = {2}
    for _ in range(6):
        cluster.propose(1)
        cluster.settle()
    assert len(appends_to(cluster, 2)) == 2
    assert len(appends_to(cluster, 3)) == 6, "a slow follower slows nobody else"
    cluster.read(1)
    cluster.settle()
    assert [m for m in cluster.sent if isinstance(m, Heartbeat) and m.target == 2]
    cluster.finish_disks()
    assert cluster.node(2).last_index == 7


def test_the_window_is_bounded_by_bytes_and_admits_one_append():
    cluster = led(inflight_bytes_max=100)
    cluster.slow_disks = {2}
    for _ in range(3):
        cluster.propose(1, bytes(500))
        cluster.settle()
    assert len(appends_to(cluster, 2)) == 1
    cluster.finish_disks()
    assert cluster.node(2).last_index == 4


def test_appends_are_bounded_by_bytes():
    cluster = led(append_bytes_max=300)
    for _ in range(10):
        cluster.propose(1, bytes(100))
    cluster.settle()
    assert [len(m.entries) for m in appends_to(cluster, 2)] == [2] * 5


def test_a_gap_after_a_lost_append_is_refused_and_filled_under_load():
    cluster = led()
    cluster.lose = lambda m: isinstance(m, Append) and m.target == 3 and m.prev_index == 1
    cluster.propose(1)
    cluster.settle()
    cluster.lose = lambda m: False
    cluster.propose(1)
    cluster.settle()
    assert cluster.node(3).last_index == 3
    assert cluster.node(1).core.state.progress[3].pace is Pace.REPLICATE


def test_a_follower_that_restarts_empty_handed_in_memory_is_probed_again():
    cluster = led()
    cluster.slow_disks = {3}
    for _ in range(3):
        cluster.propose(1)
        cluster.settle()
    cluster.crash(3)  # what it had received was not on its disk
    cluster.slow_disks.clear()
    cluster.start(3)
    cluster.node(1).peer_lost(3)
    cluster.node(1).peer_up(3)
    cluster.settle()
    assert cluster.node(3).last_index == 4


def test_a_lagging_follower_is_served_from_disk_when_the_cache_has_moved_on():
    cluster = led(cache_bytes_max=2_000, append_bytes_max=500)
    cluster.isolate(3)
    for _ in range(60):
        cluster.propose(1, bytes(40))
        cluster.settle()
    assert cluster.node(1).log.cache_first > 40
    cluster.heal()
    cluster.tick(3 * FAST.heartbeat_ticks, only=[1])
    assert cluster.node(3).commit_index == 61
    assert [entry.index for entry in cluster.servers[3].applied] == list(range(1, 62))


def test_after_a_restart_committed_entries_are_applied_from_disk():
    cluster = led()
    for _ in range(9):
        cluster.propose(1)
        cluster.settle()
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    cluster.tail = 2
    cluster.restart(3)
    cluster.tick(2 * FAST.heartbeat_ticks, only=[1])
    assert len(cluster.servers[3].applied) == 10


def test_what_a_wal_gives_back_wrongly_stops_the_node():
    cluster = led()
    cluster.propose(1)
    cluster.settle()
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    cluster.tail = 0
    cluster.restart(3)
    node = cluster.node(3)
    node.step(Append(1, 3, 1, 2, 1, 2, 0), cluster.wall_ms)
    (fetch,) = node.ready(True).fetches
    assert (fetch.reader, fetch.first, fetch.last) == (3, 1, 2)
    assert not node.has_ready(False)
    with pytest.raises(InvariantError, match="the WAL gave entry"):
        node.fetched(fetch, (cluster.servers[3].disk.entries[1],))


def test_rule_p7_the_origin_hears_of_the_commit_at_once_and_the_others_later():
    cluster = led()
    cluster.propose(2, b"from 2")
    cluster.settle()
    assert cluster.commits() == {1: 2, 2: 2, 3: 1}
    assert [m.target for m in cluster.sent if isinstance(m, CommitAdvance)] == [2]
    assert not [m for m in cluster.sent if isinstance(m, Heartbeat)]


def test_rule_p7_a_commit_rides_on_an_append_that_leaves_anyway():
    cluster = led()
    cluster.propose(2, b"one")
    for server in cluster.running():
        cluster.pump(server)
    while not [m for m in cluster.network if isinstance(m, AppendResponse)]:
        cluster.deliver(cluster.network.popleft())
        for server in cluster.running():
            cluster.pump(server)
    cluster.propose(1, b"two")
    while cluster.network:
        cluster.deliver(cluster.network.popleft())
    cluster.pump(cluster.servers[1])
    assert [m.commit for m in appends_to(cluster, 2)][-1] == 2
    assert not [m for m in cluster.sent if isinstance(m, CommitAdvance)]


def test_rule_p7_a_commit_causes_no_write():
    cluster = led()
    cluster.propose(1)
    cluster.settle()
    writes = cluster.node(2).core.disk._number
    cluster.tick(2 * FAST.heartbeat_ticks, only=[1])
    assert cluster.node(2).commit_index == 2
    assert cluster.node(2).core.disk._number == writes


def test_rule_p1_a_proposal_is_appended_only_in_exactly_its_term():
    cluster = led()
    assert not cluster.node(1).propose(b"x", 0)
    assert not cluster.node(1).propose(b"x", 2)
    assert not cluster.node(2).propose(b"x", 2)
    cluster.deliver(Propose(2, 1, 0, (b"late",)))
    cluster.deliver(Propose(2, 3, 1, (b"misled",)))
    cluster.settle()
    refusals = [m for m in cluster.sent if isinstance(m, ProposeRejected)]
    assert [(m.source, m.busy, m.term) for m in refusals] == [(1, False, 1), (3, False, 1)]
    assert cluster.node(1).last_index == 1


def test_a_node_without_a_leader_hands_nothing_on():
    cluster = Cluster(3)
    assert not cluster.node(1).propose(b"x", 0)
    assert cluster.read(1) is None
    assert cluster.node(1).propose_entry(EntryKind.CLOCK, b"") is None


def test_rule_b1_a_remote_proposal_past_the_bound_is_refused_as_busy():
    cluster = led(uncommitted_bytes_max=300)
    cluster.slow_disks = {2, 3}
    for _ in range(4):
        cluster.propose(2, bytes(200))
    cluster.settle()
    assert [m.busy for m in cluster.sent if isinstance(m, ProposeRejected)] == [True] * 3
    assert cluster.node(1).propose_entry(EntryKind.CLOCK, b"") is not None, "exempt from the bound"


def test_rule_b1_what_is_committed_but_not_on_the_own_disk_still_counts():
    cluster = led(uncommitted_bytes_max=300)
    cluster.slow_disks = {1}
    cluster.propose(1, bytes(200))
    cluster.settle()
    assert cluster.node(1).commit_index == 2
    assert cluster.node(1).durable_index == 1
    assert not cluster.propose(1, bytes(200))
    cluster.finish_disks()
    assert cluster.propose(1, bytes(200))


def test_a_commit_needs_no_leader_disk_when_the_others_are_a_majority():
    cluster = led()
    cluster.slow_disks = {1}
    cluster.propose(1)
    cluster.settle()
    assert cluster.node(1).commit_index == 2
    cluster.cut(1, 2)
    cluster.propose(1)
    cluster.settle()
    assert cluster.node(1).commit_index == 2, "it does not count itself before its sync is done"


def test_rule_m2_one_configuration_change_at_a_time_after_the_first_own_commit():
    cluster = Cluster(3)
    cluster.lose = lambda m: isinstance(m, Append)
    leader = cluster.elect(1)
    named = encode_configuration(Configuration(voters=(1, 2, 3), cluster_id=b"c" * 16))
    assert leader.propose_entry(EntryKind.MEMBERSHIP, named) is None
    cluster.lose = lambda m: False
    cluster.tick(2 * FAST.heartbeat_ticks, only=[1])
    assert leader.propose_entry(EntryKind.MEMBERSHIP, named) is not None
    assert leader.propose_entry(EntryKind.MEMBERSHIP, named) is None
    cluster.settle()
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    assert {server.up.configuration.cluster_id for server in cluster.running()} == {b"c" * 16}
    cluster.restart(3)
    assert cluster.node(3).configuration.cluster_id == b"c" * 16


def test_a_change_that_could_split_the_quorum_stops_the_one_who_asks_for_it():
    cluster = led()
    bad = encode_configuration(Configuration(voters=(1, 4, 5)))
    with pytest.raises(InvariantError, match="in one step"):
        cluster.node(1).propose_entry(EntryKind.MEMBERSHIP, bad)


@pytest.mark.parametrize(
    "message",
    [
        Append(1, 2, 1, 1, 1, 0, 0, (b"garbage",)),
        Append(1, 2, 1, 1, 1, 0, 0, (encode_entry(1, 9, 0, EntryKind.COMMANDS, b"").encoded,)),
        Append(1, 2, 1, 1, 1, 0, 0, (encode_entry(5, 2, 0, EntryKind.COMMANDS, b"").encoded,)),
        Append(1, 2, 1, 1, 1, 0, 0, (encode_entry(1, 2, 0, EntryKind.MEMBERSHIP, b"").encoded,)),
        Append(1, 3, 1, 1, 1, 0, 0),
    ],
    ids=["not an entry", "another index", "a term to come", "no configuration", "for somebody else"],
)
def test_a_malformed_append_is_refused_and_leaves_no_trace(message):
    cluster = led()
    with pytest.raises(ProtocolError):
        cluster.node(2).step(message, cluster.wall_ms)
    assert cluster.node(2).last_index == 1
    assert not cluster.node(2).has_ready(True)


@pytest.mark.parametrize(
    "message", [AppendResponse(2, 1, 1, 99), RoundAck(2, 1, 1, 7), RoundAck(2, 1, 1, 0, 99)], ids=repr
)
def test_an_acknowledgement_of_what_was_never_sent_is_refused(message):
    cluster = led()
    with pytest.raises(ProtocolError):
        cluster.node(1).step(message, cluster.wall_ms)


def test_a_payload_that_no_entry_can_hold_is_the_senders_fault():
    cluster = led()
    with pytest.raises(ProtocolError):
        cluster.node(1).step(Propose(2, 1, 1, (bytes(PAYLOAD_BYTES_MAX + 1),)), cluster.wall_ms)


def test_a_stale_refusal_moves_nothing_back():
    cluster = led()
    for _ in range(3):
        cluster.propose(1)
        cluster.settle()
    progress = cluster.node(1).core.state.progress[2]
    cluster.deliver(AppendResponse(2, 1, 1, 0, True, 1, 0, 0))
    assert (progress.pace, progress.next) == (Pace.REPLICATE, 5)


def test_a_follower_that_lost_what_it_acknowledged_finds_out_by_the_next_heartbeat():
    cluster = led()
    cluster.propose(1)
    cluster.settle()
    cluster.crash(2)
    cluster.servers[2].disk.entries.pop()  # a disk that lied about its syncs
    cluster.start(2)
    with pytest.raises(EntriesLost, match="had acknowledged entry 2 to node 1, and its log ends at entry 1"):
        cluster.tick(4 * FAST.heartbeat_ticks, only=[1])
    assert cluster.node(1).core.state.progress[2].match == 2, "what was committed by it is not counted back"


def test_a_follower_that_lost_its_log_and_its_term_finds_out_by_the_next_heartbeat():
    cluster = led()
    cluster.propose(1)
    cluster.settle()
    cluster.crash(2)
    cluster.servers[2].disk.entries.clear()
    cluster.servers[2].disk.hard_state = HardState()
    cluster.start(2)
    with pytest.raises(EntriesLost):
        cluster.tick(4 * FAST.heartbeat_ticks, only=[1])


def test_a_refusal_of_what_was_acknowledged_is_answered_with_no_probe():
    cluster = led()
    cluster.propose(1)
    cluster.settle()
    cluster.sent.clear()
    for _ in range(5):
        cluster.deliver(AppendResponse(2, 1, 1, 0, True, 1, 0, 0))
        cluster.settle()
    assert appends_to(cluster, 2) == [], "answering each refusal with a probe would never end"
