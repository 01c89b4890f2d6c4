"""Elections: the fast fail-over (rule M3) and who must not take part (rules M1, W5)."""

import pytest
from raft_cluster import FAST, Cluster

from balsadb.raft.configuration import encode_configuration
from balsadb.raft.messages import (
    Append,
    AppendResponse,
    ReadIndexRequest,
    RoundAck,
    VoteRequest,
    VoteResponse,
)
from balsadb.raft.node import Options, Role
from balsadb.raft.types import Configuration, EntryKind, HardState

SERVER = Options()


@pytest.mark.parametrize("size", [3, 5])
def test_a_crashed_leader_is_replaced_in_a_few_ticks(size):
    slow = 0
    for seed in range(60):
        cluster = Cluster(size, seed=seed, options=SERVER)
        cluster.elect(1)
        cluster.tick(SERVER.heartbeat_ticks)
        cluster.crash(1)
        cluster.peers_lost(1)
        cluster.settle()
        cluster.tick(4 * SERVER.lost_ticks_max)
        slow += not cluster.leaders()
    # Two survivors that begin in the same tick do not split the vote; with five, three rarely do.
    assert slow == 0


def test_a_survivor_that_notices_late_only_delays_the_fail_over():
    cluster = Cluster(3, options=SERVER)
    cluster.elect(1)
    cluster.tick(SERVER.heartbeat_ticks)
    cluster.crash(1)
    cluster.node(2).peer_lost(1)
    cluster.tick(10)
    assert cluster.leaders() == [], "node 3 still hears the leader, for all it knows"
    cluster.node(3).peer_lost(1)
    cluster.tick(4 * SERVER.lost_ticks_max)
    assert len(cluster.leaders()) == 1


def test_a_refused_pre_vote_is_repeated_until_the_other_survivor_notices_too():
    """Rule M3. The other one is behind and can't lead itself, so all depends on who was refused."""
    cluster = Cluster(3, options=SERVER)
    cluster.elect(1)
    cluster.tick(SERVER.heartbeat_ticks)
    cluster.lose = lambda m: isinstance(m, Append) and m.target == 3
    cluster.propose(1)
    cluster.settle()
    cluster.crash(1)
    cluster.node(2).peer_lost(1)
    cluster.tick(10)
    assert cluster.leaders() == []
    cluster.node(3).peer_lost(1)
    cluster.tick(4 * SERVER.lost_ticks_max)
    assert [node.id for node in cluster.leaders()] == [2]


def test_the_hurry_ends_after_an_election_timeout():
    cluster = Cluster(3, options=SERVER)
    cluster.elect(1)
    cluster.tick(SERVER.heartbeat_ticks)
    cluster.cut(1, 2)
    cluster.node(2).peer_lost(1)
    cluster.tick(2 * SERVER.election_ticks)
    cluster.sent.clear()
    cluster.tick(SERVER.election_ticks)
    asked = [m for m in cluster.sent if isinstance(m, VoteRequest) and m.target == 3]
    assert len(asked) <= 3
    assert [node.id for node in cluster.leaders()] == [1]


def test_the_loss_of_a_node_that_does_not_lead_means_nothing():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.node(2).peer_lost(3)
    cluster.tick(4)
    assert (cluster.node(2).leader, cluster.node(2).term) == (1, 1)


def test_a_leader_heard_again_ends_the_hurry():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.node(2).peer_lost(1)
    assert cluster.node(2).leader == 0
    cluster.propose(1)
    cluster.settle()
    assert cluster.node(2).leader == 1
    cluster.tick(4 * FAST.election_ticks)
    assert cluster.leader().term == 1


def test_a_pre_vote_is_refused_while_a_leader_is_heard_even_to_a_better_log():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.tick(FAST.heartbeat_ticks)
    cluster.sent.clear()
    for pre in (True, False):
        cluster.node(2).step(VoteRequest(3, 2, 9, 99, 8, pre), cluster.wall_ms)
    cluster.settle()
    assert [(m.granted, m.term) for m in cluster.sent if isinstance(m, VoteResponse)] == [(False, 1)] * 2


def test_a_campaign_ordered_by_the_leader_is_answered_although_it_is_heard():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.tick(FAST.heartbeat_ticks)
    cluster.node(2).step(VoteRequest(3, 2, 2, 1, 1, False, True), cluster.wall_ms)
    cluster.settle()
    assert [m.granted for m in cluster.sent if isinstance(m, VoteResponse) and m.term == 2] == [True]


def test_a_candidate_that_this_node_does_not_know_gets_its_vote():
    cluster = Cluster(3)
    cluster.node(1).step(VoteRequest(9, 1, 1, 0, 0), cluster.wall_ms)
    (answer,) = _after_disk(cluster, 1)
    assert answer.granted, "a vote counts by the candidate's configuration (rule M1)"


def _after_disk(cluster, node_id):
    node = cluster.node(node_id)
    ready = node.ready(True)
    assert ready.messages == ()
    node.persisted(ready.write.number)
    return node.ready(True).messages


def test_a_removed_node_is_not_heard():
    cluster = Cluster(3, learners=(3,))
    leader = cluster.elect(1)
    removed = Configuration(voters=(1, 2), removed=(3,))
    assert leader.propose_entry(EntryKind.MEMBERSHIP, encode_configuration(removed))
    cluster.settle()
    term = leader.term
    leader.step(VoteRequest(3, 1, 50, 99, 50, False, True), cluster.wall_ms)
    assert leader.term == term


def test_a_node_with_amnesia_neither_votes_nor_campaigns_nor_acknowledges():
    cluster = Cluster(3)
    forgetful = cluster.node(3)
    forgetful.eligible = False
    cluster.tick(4 * FAST.election_ticks, only=[3])
    assert (forgetful.role, forgetful.term) == (Role.FOLLOWER, 0)
    cluster.cut(1, 2)
    cluster.tick(4 * FAST.election_ticks)
    assert cluster.leaders() == []
    cluster.heal()
    leader = cluster.elect(1)
    cluster.isolate(2)
    cluster.propose(1)
    context = cluster.read(1)
    cluster.read(3)
    cluster.tick(FAST.heartbeat_ticks)
    said = [m for m in cluster.sent if m.source == 3]
    assert not [m for m in said if isinstance(m, AppendResponse | RoundAck | ReadIndexRequest)]
    assert not [m for m in said if isinstance(m, VoteResponse) and m.granted]
    assert (leader.commit_index, cluster.read_result(1, context)) == (1, None)
    # Once it is known that it forgot nothing, it catches up and counts.
    forgetful.eligible = True
    cluster.tick(3 * FAST.heartbeat_ticks)
    assert leader.commit_index == 2
    assert cluster.read_result(1, context) is not None


def test_a_learner_with_an_empty_disk_acknowledges_what_it_gets():
    cluster = Cluster(3, learners=(3,))
    cluster.node(3).eligible = False
    leader = cluster.elect(1)
    cluster.tick(FAST.heartbeat_ticks)
    assert leader.core.state.progress[3].match == 1


def test_a_lone_voter_leads_once_its_vote_is_on_disk():
    cluster = Cluster(1)
    cluster.slow_disks = {1}
    cluster.tick(2 * FAST.election_ticks)
    assert cluster.node(1).role is Role.CANDIDATE
    cluster.finish_disks()
    assert cluster.node(1).role is Role.LEADER
    assert cluster.node(1).commit_index == 1
    context = cluster.read(1)
    cluster.settle()
    assert cluster.read_result(1, context) == 1


def test_a_pre_candidate_votes_for_a_candidate_of_its_own_term():
    cluster = Cluster(3, hard_states={1: HardState(term=4)})
    cluster.isolate(1)
    cluster.tick(2 * FAST.election_ticks, only=[1])
    assert cluster.node(1).role is Role.PRE_CANDIDATE
    cluster.node(1).step(VoteRequest(2, 1, 4, 0, 0), cluster.wall_ms)
    assert cluster.node(1).core.vote == 2


def test_an_append_of_an_old_leader_is_answered_with_the_newer_term():
    cluster = Cluster(3, hard_states={1: HardState(term=4)})
    cluster.node(1).step(Append(2, 1, 3, 0, 0, 0, 0), cluster.wall_ms)
    (answer,) = cluster.node(1).ready(True).messages
    assert (answer.target, answer.term) == (2, 4)
