"""The failure scenarios that must be survived, as far as they live in the Raft core. Numbers are theirs."""

import msgspec
import pytest
from raft_cluster import FAST, Cluster, entries_of

from balsadb.errors import InvariantError
from balsadb.raft.messages import (
    Append,
    AppendResponse,
    Heartbeat,
    ReadIndexRequest,
    ReadIndexResponse,
    RoundAck,
    VoteRequest,
    VoteResponse,
)
from balsadb.raft.node import Node, Recovered, Role
from balsadb.raft.types import Configuration, HardState


def test_6_a_vote_is_on_disk_before_it_is_given_and_survives_a_restart():
    cluster = Cluster(3)
    cluster.slow_disks = {1}
    cluster.node(1).step(VoteRequest(2, 1, 1, 0, 0), cluster.wall_ms)
    cluster.settle()
    assert not cluster.sent, "the disk still works"
    cluster.crash(1)
    cluster.start(1)
    cluster.node(1).step(VoteRequest(3, 1, 1, 0, 0), cluster.wall_ms)
    cluster.settle()
    cluster.finish_disks()
    assert [(m.target, m.granted) for m in cluster.sent if isinstance(m, VoteResponse)] == [(3, True)]
    cluster.restart(1)
    cluster.node(1).step(VoteRequest(2, 1, 1, 0, 0), cluster.wall_ms)
    cluster.settle()
    assert [m.granted for m in cluster.sent if isinstance(m, VoteResponse)] == [True, False]


def test_6_a_candidate_asks_for_votes_only_when_its_own_is_on_disk():
    cluster = Cluster(5)
    cluster.slow_disks = {1}
    cluster.tick(2 * FAST.election_ticks - 1, only=[1])
    assert cluster.node(1).role is Role.CANDIDATE
    assert not [m for m in cluster.sent if isinstance(m, VoteRequest) and not m.pre]
    cluster.finish_disks()
    assert cluster.node(1).role is Role.LEADER


def test_7_an_append_of_the_leader_does_not_clear_the_vote():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.restart(2)  # it knows no leader now
    cluster.node(2).step(VoteRequest(3, 2, 1, 9, 1), cluster.wall_ms)
    cluster.settle()
    answers = [m for m in cluster.sent if isinstance(m, VoteResponse) and m.target == 3]
    assert [m.granted for m in answers] == [False]


def test_8_a_late_shorter_append_removes_nothing():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    late = [m for m in cluster.sent if isinstance(m, Append) and m.target == 2][-1]
    for _ in range(3):
        cluster.propose(1, b"b")
        cluster.settle()
    before = cluster.servers[2].terms()
    cluster.deliver(late)
    cluster.settle()
    assert cluster.servers[2].terms() == before


def test_9_a_commit_index_is_taken_only_up_to_what_was_verified():
    cluster = Cluster(3, logs={2: [1, 1, 1]})
    node = cluster.node(2)
    node.step(Heartbeat(1, 2, 2, 3, 0), cluster.wall_ms)
    assert node.commit_index == 0, "the follower's entries may be another leader's"
    node.step(Append(1, 2, 2, 2, 1, 3, 0), cluster.wall_ms)
    assert node.commit_index == 2
    node.step(Append(1, 2, 2, 3, 1, 3, 0), cluster.wall_ms)
    assert node.commit_index == 3


def test_10_a_conflict_with_a_committed_entry_stops_the_node():
    cluster = Cluster(3, logs={2: [1, 1, 1]}, hard_states={2: HardState(1, 0, 2)})
    other = entries_of([1, 2])[1]
    error = cluster.fails(2, Append(1, 2, 3, 1, 1, 0, 0, (other.encoded,)))
    assert "entry (2, 2) conflicts with the committed one of term 1 (commit index 2)" in str(error)
    cluster = Cluster(3, logs={2: [1, 1, 1]}, hard_states={2: HardState(1, 0, 2)})
    assert "commit index 2" in str(cluster.fails(2, Append(1, 2, 3, 2, 2, 0, 0)))


def test_10_two_leaders_of_one_term_stop_the_node():
    cluster = Cluster(3)
    cluster.elect(1)
    assert "both lead term 1" in str(cluster.fails(2, Heartbeat(3, 2, 1, 0, 0)))


def test_11_a_leader_in_the_minority_acknowledges_nothing_and_steps_down():
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.isolate(1)
    cluster.propose(1, b"lost")
    context = cluster.read(1)
    cluster.tick(FAST.election_ticks + FAST.heartbeat_ticks)
    assert old.role is not Role.LEADER
    assert old.commit_index == 1
    assert cluster.servers[1].dropped == [context]
    leader = cluster.await_leader()
    cluster.propose(leader.id, b"kept")
    cluster.settle()
    assert leader.commit_index == 3


def test_12_a_leader_that_hears_nobody_is_replaced():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut(2, 1, both=False)
    cluster.cut(3, 1, both=False)
    cluster.tick(5 * FAST.election_ticks)
    assert cluster.leader().id in (2, 3)


def test_12_a_follower_that_nobody_hears_disturbs_nobody():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut(3, 1, both=False)
    cluster.cut(3, 2, both=False)
    cluster.tick(20 * FAST.election_ticks)
    assert (cluster.leader().id, cluster.leader().term) == (1, 1)


def test_12_one_cut_link_causes_no_election():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut(1, 3)
    cluster.node(3).peer_lost(1)
    cluster.tick(20 * FAST.election_ticks)
    assert [node.id for node in cluster.leaders()] == [1]
    assert cluster.leader().term == 1


def test_13_a_ring_of_majorities_makes_progress_without_split_brain():
    cluster = Cluster(5)
    cluster.elect(1)
    for node in range(1, 6):  # everybody hears only its two neighbours
        cluster.cut(node, (node + 1) % 5 + 1)
    cluster.tick(10 * FAST.election_ticks)
    cluster.await_leader()
    leader = cluster.leader()
    cluster.propose(leader.id, b"a")
    cluster.settle()
    assert leader.commit_index == leader.last_index


def test_14_a_returning_node_with_a_higher_term_costs_at_most_one_election():
    cluster = Cluster(3, hard_states={3: HardState(term=40)})
    cluster.isolate(3)
    cluster.elect(1)
    cluster.heal()
    cluster.tick(10 * FAST.election_ticks)
    term = cluster.leader().term
    assert term <= 42
    cluster.tick(10 * FAST.election_ticks)
    assert cluster.leader().term == term


@pytest.mark.parametrize("seed", range(10))
def test_15_a_longer_log_in_a_lower_term_and_a_shorter_log_in_a_higher_term_elect_a_leader(seed):
    cluster = Cluster(
        3,
        seed=seed,
        logs={1: [1, 1, 1, 1], 2: [1, 1], 3: [1, 1]},
        hard_states={1: HardState(term=1), 2: HardState(term=7)},
    )
    cluster.crash(3)
    assert cluster.await_leader(6 * FAST.election_ticks).id == 1


@pytest.mark.parametrize("pre", [False, True])
def test_15_a_refusal_carries_the_voters_own_term(pre):
    cluster = Cluster(3, hard_states={2: HardState(term=9)})
    cluster.node(2).step(VoteRequest(1, 2, 4, 5, 3, pre), cluster.wall_ms)
    (answer,) = cluster.node(2).ready(True).messages
    assert isinstance(answer, VoteResponse)
    assert (answer.granted, answer.pre, answer.term) == (False, pre, 9)


def test_15_an_old_leader_steps_down_when_a_follower_is_in_a_later_term():
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.crash(3)
    cluster.servers[3].disk.hard_state = HardState(term=5)
    cluster.start(3)
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    assert (old.role, old.term) == (Role.FOLLOWER, 5)


def test_16_a_candidate_whose_log_is_behind_gets_no_pre_vote_and_wins_no_term():
    cluster = Cluster(3, logs={1: [1, 1, 1], 2: [1, 1, 1], 3: [1]})
    cluster.tick(20 * FAST.election_ticks, only=[3])
    assert (cluster.node(3).role, cluster.node(3).term) == (Role.PRE_CANDIDATE, 1)


def test_17_a_leader_that_slept_serves_no_stale_read_and_acknowledges_no_write():
    cluster = Cluster(3)
    old = cluster.elect(1)
    awake = [2, 3]
    cluster.isolate(1)  # what it would get waits in its sockets; here it is lost
    cluster.peers_lost(1)
    cluster.tick(6 * FAST.election_ticks, only=awake)
    leader = cluster.leader()
    cluster.propose(leader.id, b"newer")
    cluster.settle()
    assert old.role is Role.LEADER, "it knows nothing yet"
    context = cluster.read(1)
    cluster.propose(1, b"lost")
    cluster.pump(cluster.servers[1])
    cluster.heal()
    cluster.settle()
    assert old.role is Role.FOLLOWER
    assert cluster.read_result(1, context) is None
    assert cluster.servers[1].dropped == [context]
    cluster.tick(3 * FAST.heartbeat_ticks)
    assert b"lost" not in [entry.payload for entry in cluster.servers[1].log()]


def test_21_an_isolated_leaders_log_is_bounded():
    options = msgspec.structs.replace(FAST, uncommitted_bytes_max=1_000)
    cluster = Cluster(3, options=options)
    leader = cluster.elect(1)
    cluster.isolate(1)
    taken = sum(cluster.propose(1, bytes(90)) for _ in range(100))
    assert 5 < taken < 12
    cluster.heal()
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    assert leader.commit_index == taken + 1
    assert cluster.propose(1, bytes(5_000)), "with nothing outstanding one proposal of any size is taken"
    assert not cluster.propose(1)


@pytest.mark.parametrize("lost", [Append, AppendResponse])
def test_22_a_lost_append_or_answer_is_made_good_in_an_idle_cluster(lost):
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.lose = lambda m: isinstance(m, lost) and 3 in (m.source, m.target)
    cluster.propose(1)
    cluster.settle()
    assert leader.core.state.progress[3].match == 1
    cluster.lose = lambda m: False
    cluster.tick(2 * FAST.heartbeat_ticks, only=[1])
    assert leader.core.state.progress[3].match == 2
    assert cluster.node(3).commit_index == 2


def test_22_a_lost_probe_is_repeated_in_an_idle_cluster():
    cluster = Cluster(3)
    cluster.lose = lambda m: isinstance(m, Append) and m.target == 3
    leader = cluster.elect(1)
    assert leader.core.state.progress[3].probe_sent
    cluster.lose = lambda m: False
    cluster.tick(2 * FAST.heartbeat_ticks, only=[1])
    assert cluster.node(3).last_index == 1


def test_22_a_restarted_follower_learns_of_commits_in_an_idle_cluster():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1)
    cluster.settle()
    cluster.restart(3)
    assert cluster.node(3).commit_index == 1
    cluster.tick(2 * FAST.heartbeat_ticks, only=[1])
    assert cluster.node(3).commit_index == 2


def test_22_a_follower_with_a_slow_disk_is_not_sent_everything_again():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.slow_disks = {3}
    cluster.propose(1, bytes(1_000))
    cluster.settle()
    cluster.sent.clear()
    cluster.tick(6 * FAST.heartbeat_ticks, only=[1])
    assert not [m for m in cluster.sent if isinstance(m, Append)]
    assert {m.verified for m in cluster.sent if isinstance(m, RoundAck) and m.source == 3} == {2}
    cluster.finish_disks()
    assert cluster.node(1).core.state.progress[3].match == 2


def test_23_a_read_on_a_brand_new_leader_waits_for_its_own_first_entry():
    cluster = Cluster(3)
    cluster.elect(1)
    for _ in range(4):
        cluster.propose(1)
        cluster.settle()
    # Followers 2 and 3 have the entries but have not heard of their commit.
    cluster.crash(1)
    cluster.lose = lambda m: isinstance(m, Append)
    leader = cluster.elect(2)
    assert leader.commit_index < 5
    context = cluster.read(2)
    cluster.settle()
    assert cluster.read_result(2, context) == 6
    assert cluster.servers[2].up.applied_index < 6


def test_24_after_a_restart_of_all_no_read_is_served_before_the_commit_index_is_known():
    cluster = Cluster(3)
    cluster.elect(1)
    for _ in range(4):
        cluster.propose(1)
        cluster.settle()
    for node in (1, 2, 3):
        cluster.restart(node)
    assert cluster.read(1) is None, "no leader is known"
    leader = cluster.elect(3)
    contexts = {node: cluster.read(node) for node in (1, 2, 3)}
    cluster.settle()
    assert {cluster.read_result(node, context) for node, context in contexts.items()} == {leader.last_index}
    assert leader.last_index == 6


def test_25_a_follower_asks_the_leader_and_answers_in_one_round_trip():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1)
    cluster.settle()
    cluster.sent.clear()
    context = cluster.read(2)
    cluster.settle()
    assert cluster.read_result(2, context) == 2
    assert [type(m) for m in cluster.sent if not isinstance(m, RoundAck)][:1] == [ReadIndexRequest]
    assert not [m for m in cluster.sent if isinstance(m, Heartbeat | Append)], "its request was its own ack"
    assert cluster.node(2).commit_index == 2, "it need not wait for a heartbeat to apply"


def test_26_a_late_answer_to_an_earlier_name_confirms_nothing():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.lose = lambda m: isinstance(m, ReadIndexResponse)
    context = cluster.read(2)
    cluster.settle()
    late = next(m for m in cluster.sent if isinstance(m, ReadIndexResponse))
    for _ in range(FAST.read_retry_ticks):
        cluster.node(2).tick(cluster.wall_ms)
    cluster.lose = lambda m: True
    cluster.settle()
    cluster.lose = lambda m: False
    cluster.deliver(late)
    cluster.pump(cluster.servers[2])
    assert cluster.read_result(2, context) is None
    cluster.tick(FAST.read_retry_ticks)
    assert cluster.read_result(2, context) is not None, "asked again under a new name"


def test_26_an_answer_to_a_former_process_confirms_nothing():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.lose = lambda m: isinstance(m, ReadIndexResponse)
    cluster.read(2)
    cluster.settle()
    late = next(m for m in cluster.sent if isinstance(m, ReadIndexResponse))
    cluster.restart(2)
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    context = cluster.read(2)
    cluster.settle()
    cluster.lose = lambda m: False
    cluster.deliver(late)
    cluster.pump(cluster.servers[2])
    assert cluster.read_result(2, context) is None


def test_26_a_change_of_leader_drops_reads_instead_of_answering_them():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.lose = lambda m: isinstance(m, ReadIndexResponse | RoundAck)
    contexts = {node: cluster.read(node) for node in (1, 2)}
    cluster.settle()
    cluster.isolate(1)
    cluster.elect(3)
    cluster.heal()
    cluster.lose = lambda m: False
    cluster.tick(2 * FAST.heartbeat_ticks, only=[3])
    for node, context in contexts.items():
        assert cluster.servers[node].dropped == [context]


def test_45_an_acknowledgement_never_names_more_than_the_disk_has():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.slow_disks = {2}
    cluster.propose(1, b"a")
    cluster.settle()
    (append,) = [m for m in cluster.sent if isinstance(m, Append) and m.target == 2 and m.prev_index == 1]
    cluster.sent.clear()
    cluster.deliver(append)  # a duplicate of what is still being synced
    cluster.deliver(Append(1, 2, 1, 2, 1, 0, 0))
    cluster.deliver(Heartbeat(1, 2, 1, 0, 0, 2))
    cluster.settle()
    assert {m.match for m in cluster.sent if isinstance(m, AppendResponse | RoundAck)} == {1}
    cluster.finish_disks()
    assert cluster.node(1).core.state.progress[2].match == 2


def test_58_a_log_that_ends_before_the_applied_state_is_refused():
    configuration = Configuration(voters=(1,))
    with pytest.raises(InvariantError, match="outside of the log"):
        Node(1, configuration, Recovered(), FAST, None, 0, 5)  # type: ignore[arg-type]
