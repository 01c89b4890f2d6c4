"""One test per claim of the Raft paper (Ongaro and Ousterhout 2014) and thesis (Ongaro 2014).

Section numbers of the form 5.x are the paper's; 6.4 and 9.6 are the thesis's. Sections 5.4.3 to 8 of the
paper go on in `test_paper_safety.py`.
"""

from collections import Counter

import msgspec
import pytest
from raft_cluster import FAST, Cluster

from balsadb.raft.configuration import encode_configuration
from balsadb.raft.messages import Append, AppendResponse, Heartbeat, VoteRequest, VoteResponse
from balsadb.raft.node import Role
from balsadb.raft.types import Configuration, EntryKind, HardState

ONE_ENTRY = msgspec.structs.replace(FAST, append_bytes_max=1)


# ------------------------------------------------------------- 5.1 Raft basics


@pytest.mark.parametrize("role", list(Role))
def test_5_1_a_server_with_a_smaller_term_updates_it_and_becomes_follower(role):
    cluster = Cluster(3)
    if role is Role.LEADER:
        cluster.elect(1)
    elif role is not Role.FOLLOWER:
        if role is Role.CANDIDATE:
            cluster.lose = lambda m: isinstance(m, VoteResponse) and not m.pre
        else:
            cluster.isolate(1)
        cluster.tick(2 * FAST.election_ticks, only=[1])
    assert cluster.node(1).role is role
    cluster.heal()
    cluster.node(1).step(Heartbeat(2, 1, 9, 0, 0), cluster.wall_ms)
    assert (cluster.node(1).role, cluster.node(1).term, cluster.node(1).leader) == (Role.FOLLOWER, 9, 2)


def test_5_1_a_request_with_a_stale_term_is_rejected():
    cluster = Cluster(3, hard_states={1: HardState(term=5)})
    node = cluster.node(1)
    node.step(Append(2, 1, 4, 0, 0, 0, 0), cluster.wall_ms)
    node.step(VoteRequest(3, 1, 4, 9, 4), cluster.wall_ms)
    append, vote = node.ready(True).messages
    assert isinstance(append, AppendResponse)
    assert append.rejected
    assert isinstance(vote, VoteResponse)
    assert not vote.granted
    assert append.term == vote.term == 5
    assert node.leader == 0


def test_5_1_term_vote_and_log_survive_a_crash():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.restart(2)
    assert (cluster.node(2).term, cluster.node(2).core.vote) == (1, 1)
    assert [entry.payload for entry in cluster.servers[2].log()] == [b"", b"a"]


# --------------------------------------------------------- 5.2 Leader election


def test_5_2_servers_start_as_followers_and_stay_so_while_they_hear_a_leader():
    cluster = Cluster(3)
    assert all(server.up.role is Role.FOLLOWER for server in cluster.running())
    leader = cluster.await_leader()
    term = leader.term
    cluster.tick(20 * FAST.election_ticks)
    assert (cluster.leader().id, cluster.leader().term) == (leader.id, term)


def test_5_2_a_leader_sends_heartbeats_to_all_followers():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.sent.clear()
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    assert sorted(m.target for m in cluster.sent if isinstance(m, Heartbeat)) == [2, 3]


def test_5_2_a_follower_that_hears_nobody_begins_an_election_with_a_vote_for_itself():
    cluster = Cluster(3)
    cluster.lose = lambda m: isinstance(m, VoteResponse) and not m.pre
    cluster.tick(2 * FAST.election_ticks, only=[1])
    node = cluster.node(1)
    assert (node.role, node.term) == (Role.CANDIDATE, 1)
    assert cluster.servers[1].disk.hard_state.vote == 1


def test_5_2_a_candidate_asks_all_others_at_once_with_its_term_and_the_end_of_its_log():
    cluster = Cluster(5, logs={1: [1, 3]})
    cluster.lose = lambda m: isinstance(m, VoteRequest) and not m.pre
    cluster.tick(2 * FAST.election_ticks - 1, only=[1])
    asked = [m for m in cluster.sent if isinstance(m, VoteRequest) and not m.pre]
    assert asked == [VoteRequest(1, target, 4, 2, 3) for target in (2, 3, 4, 5)]


@pytest.mark.parametrize(
    ("size", "voters", "wins"),
    [(1, 1, True), (2, 1, False), (3, 1, False), (3, 2, True), (4, 2, False), (5, 2, False), (5, 3, True)],
)
def test_5_2_a_candidate_wins_with_votes_of_a_majority(size, voters, wins):
    cluster = Cluster(size)
    cluster.partition(range(1, voters + 1), range(voters + 1, size + 1))
    cluster.tick(2 * FAST.election_ticks, only=[1])
    assert (cluster.node(1).role is Role.LEADER) is wins


def test_5_2_each_server_votes_once_a_term_first_come_first_served():
    cluster = Cluster(3)
    node = cluster.node(1)
    node.step(VoteRequest(2, 1, 1, 0, 0), cluster.wall_ms)
    node.step(VoteRequest(3, 1, 1, 0, 0), cluster.wall_ms)
    node.step(VoteRequest(2, 1, 1, 0, 0), cluster.wall_ms)  # the network doubled it
    cluster.settle()
    answers = [(m.target, m.granted) for m in cluster.sent if isinstance(m, VoteResponse)]
    assert Counter(answers) == {(2, True): 2, (3, False): 1}


def test_5_2_a_candidate_returns_to_follower_when_a_leader_of_its_term_appears():
    cluster = Cluster(3)
    cluster.lose = lambda m: isinstance(m, VoteResponse) and not m.pre
    cluster.tick(2 * FAST.election_ticks, only=[1])
    node = cluster.node(1)
    assert node.role is Role.CANDIDATE
    node.step(Append(2, 1, node.term, 0, 0, 0, 0), cluster.wall_ms)
    assert (node.role, node.leader, node.term) == (Role.FOLLOWER, 2, 1)


def test_5_2_a_candidate_ignores_a_leader_of_an_earlier_term():
    cluster = Cluster(3, hard_states={1: HardState(term=4)})
    cluster.lose = lambda m: isinstance(m, VoteResponse) and not m.pre
    cluster.tick(2 * FAST.election_ticks - 1, only=[1])
    node = cluster.node(1)
    node.step(Append(2, 1, 4, 0, 0, 0, 0), cluster.wall_ms)
    assert (node.role, node.term) == (Role.CANDIDATE, 5)
    (answer,) = node.ready(True).messages
    assert (answer.term, answer.rejected) == (5, True)


def test_5_2_a_candidate_that_neither_wins_nor_loses_begins_another_election():
    cluster = Cluster(3)
    cluster.lose = lambda m: isinstance(m, VoteResponse) and not m.pre
    terms = []
    for _ in range(8 * FAST.election_ticks):
        cluster.tick(only=[1])
        if cluster.node(1).role is Role.CANDIDATE and cluster.node(1).term not in terms:
            terms.append(cluster.node(1).term)
    assert terms[:2] == [1, 2]


def test_5_2_a_new_leader_speaks_to_all_others_at_once():
    cluster = Cluster(5)
    cluster.lose = lambda m: isinstance(m, Append)
    cluster.elect(1)
    assert [m.target for m in cluster.sent if isinstance(m, Append)] == [2, 3, 4, 5]


def test_5_2_a_split_vote_is_resolved_by_random_timeouts():
    for seed in range(20):
        cluster = Cluster(4, seed=seed)
        cluster.await_leader()


def test_5_2_election_timeouts_are_random_so_that_votes_rarely_split():
    deadlines = {Cluster(1, seed=seed).node(1).core.state.deadline for seed in range(60)}
    assert deadlines <= set(range(FAST.election_ticks, 2 * FAST.election_ticks))
    assert len(deadlines) > FAST.election_ticks // 2


# --------------------------------------------------------- 5.3 Log replication


def test_5_3_an_entry_is_committed_once_a_majority_has_it_and_followers_learn_of_it():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    cluster.isolate(3)
    cluster.propose(1, b"a")
    cluster.settle()
    assert cluster.node(1).commit_index == 2
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    assert cluster.commits() == {1: 2, 2: 2, 3: 1}
    assert [entry.payload for entry in cluster.servers[2].applied] == [b"", b"a"]


def test_5_3_without_a_majority_nothing_is_committed():
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    cluster.partition([1, 2], [3, 4, 5])
    cluster.propose(1, b"a")
    cluster.settle()
    assert set(cluster.commits().values()) == {1}


def test_5_3_the_leader_retries_until_all_followers_have_all_entries():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    for _ in range(5):
        cluster.propose(1)
        cluster.settle()
    cluster.heal()
    cluster.tick(2 * FAST.heartbeat_ticks, only=[1])
    assert set(cluster.commits().values()) == {6}


def test_5_3_a_leader_commits_all_preceding_entries_of_former_leaders_with_its_own():
    cluster = Cluster(3, logs={1: [1, 2], 2: [1], 3: []})
    cluster.elect(1)
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    assert set(cluster.commits().values()) == {3}
    assert cluster.servers[3].terms() == [1, 2, 3]


def test_5_3_the_consistency_check_refuses_entries_that_do_not_fit():
    cluster = Cluster(3, logs={1: [1, 1, 2]})
    node = cluster.node(1)
    for prev_index, prev_term in ((4, 2), (3, 1), (2, 2)):
        node.step(Append(2, 1, 3, prev_index, prev_term, 3, 0), cluster.wall_ms)
    answers = node.ready(True).messages
    assert all(isinstance(m, AppendResponse) and m.rejected for m in answers)
    assert len(answers) == 3
    assert node.commit_index == 0


def test_5_3_a_new_leader_begins_right_after_its_last_entry():
    cluster = Cluster(3, logs={1: [1, 1, 2]})
    cluster.lose = lambda m: isinstance(m, Append)
    cluster.elect(1)
    probes = [m for m in cluster.sent if isinstance(m, Append)]
    assert {(m.prev_index, m.prev_term, len(m.entries)) for m in probes} == {(3, 2, 1)}


def test_5_3_every_server_applies_the_committed_entries_in_the_order_of_the_log():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    for name in "abc":
        cluster.propose(1, name.encode())
        cluster.settle()
    cluster.heal()
    cluster.tick(2 * FAST.heartbeat_ticks, only=[1])
    for server in cluster.running():
        assert [entry.payload for entry in server.applied] == [b"", b"a", b"b", b"c"]


FIGURE_7_LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("follower", list(FIGURE_7))
def test_5_3_figure_7_the_leader_brings_every_log_to_its_own_by_few_refusals(follower):
    terms = FIGURE_7[follower]
    # The third one has no log and gives the leader its majority.
    cluster = Cluster(
        3, logs={1: FIGURE_7_LEADER, 2: terms}, hard_states={1: HardState(term=7)}, options=ONE_ENTRY
    )
    cluster.isolate(2)
    leader = cluster.elect(1)
    assert leader.term == 8
    cluster.heal()
    cluster.sent.clear()
    cluster.tick(3 * FAST.heartbeat_ticks, only=[1])
    assert cluster.servers[2].terms() == [*FIGURE_7_LEADER, 8]
    refusals = [m for m in cluster.sent if isinstance(m, AppendResponse) and m.rejected and m.source == 2]
    assert len(refusals) <= len(set(terms)), "one refusal skips at least one term"


def test_5_3_figure_7_a_leader_is_elected_by_the_servers_whose_logs_are_not_ahead():
    logs = {1: FIGURE_7_LEADER} | dict(enumerate(FIGURE_7.values(), start=2))
    cluster = Cluster(7, logs=logs, hard_states={n: HardState(term=7) for n in range(1, 8)})
    cluster.elect(1)
    cluster.tick(3 * FAST.heartbeat_ticks, only=[1])
    for server in cluster.running():
        assert server.terms() == [*FIGURE_7_LEADER, 8]
    granted = {m.source for m in cluster.sent if isinstance(m, VoteResponse) and m.granted and not m.pre}
    assert granted == {2, 3, 6, 7}, "a, b, e and f vote; c and d are ahead"


def test_5_3_a_leader_never_overwrites_or_deletes_its_own_entries():
    cluster = Cluster(3, logs={1: [1, 1]})
    cluster.elect(1)
    before = cluster.servers[1].terms()
    cluster.node(1).step(AppendResponse(2, 1, cluster.node(1).term, 0, True, 2, 0, 0), cluster.wall_ms)
    cluster.settle()
    assert cluster.servers[1].terms()[: len(before)] == before


# --------------------------------------------------------------------- 5.4 Safety


@pytest.mark.parametrize(
    ("log", "last_term", "last_index", "granted"),
    [
        ([1], 1, 1, True),
        ([1], 1, 2, True),
        ([1, 1], 1, 1, False),
        ([1], 2, 1, True),
        ([1, 1], 2, 1, True),
        ([2], 1, 2, False),
        ([2], 1, 9, False),
        ([], 0, 0, True),
    ],
)
def test_5_4_1_a_voter_refuses_a_candidate_whose_log_is_less_up_to_date(log, last_term, last_index, granted):
    cluster = Cluster(3, logs={1: log}, hard_states={1: HardState(term=2)})
    for pre in (True, False):
        cluster.node(1).step(VoteRequest(2, 1, 3, last_index, last_term, pre), cluster.wall_ms)
    cluster.settle()
    assert [m.granted for m in cluster.sent if isinstance(m, VoteResponse)] == [granted] * 2


def figure_8():
    """Bring about Figure 8 (c): S1 leads again in term 4, and its entry of term 2 is on a majority."""
    cluster = Cluster(
        5,
        options=ONE_ENTRY,
        logs={1: [1, 2], 2: [1, 2], 3: [1], 4: [1], 5: [1, 3]},
        hard_states={n: HardState(term=3) for n in range(1, 6)},
    )
    cluster.isolate(5)
    # The entry of term 4, at index 3, reaches nobody.
    cluster.lose = lambda m: (
        isinstance(m, Append) and m.prev_index == 2 and len(cluster.servers[m.target].terms()) == 2
    )
    leader = cluster.elect(1)
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    assert leader.term == 4
    assert [cluster.servers[n].terms()[:2] for n in (1, 2, 3, 4)] == [[1, 2]] * 4
    assert sorted(leader.core.state.matches.values())[-3:] == [2, 2, 3], "a majority has the entry of term 2"
    return cluster


def test_5_4_2_figure_8_an_entry_of_a_former_term_is_not_committed_by_counting():
    cluster = figure_8()
    assert cluster.node(1).commit_index == 0
    # (d): S1 crashes, S5 is elected by 2, 3 and 4 and overwrites the entry on all.
    cluster.lose = lambda m: False
    cluster.crash(1)
    cluster.heal()
    cluster.elect(5)
    cluster.start(1)
    cluster.tick(3 * FAST.heartbeat_ticks, only=[5])
    for server in cluster.running():
        assert server.terms() == [1, 3, cluster.node(5).term]


def test_5_4_2_figure_8_an_entry_of_the_own_term_on_a_majority_settles_it():
    cluster = figure_8()
    # (e): the entry of term 4 reaches a majority, so S5 can't win any more.
    cluster.lose = lambda m: False
    cluster.tick(3 * FAST.heartbeat_ticks, only=[1])
    assert cluster.node(1).commit_index == 3
    cluster.crash(1)
    cluster.heal()
    cluster.peers_lost(1)
    cluster.tick(4 * FAST.election_ticks, only=[5])
    assert cluster.node(5).role is not Role.LEADER
    assert cluster.await_leader().id in (2, 3, 4)


# ------------------------------------------- 5.5 Follower and candidate crashes


def test_5_5_repeated_requests_have_no_effect():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    appends = [m for m in cluster.sent if isinstance(m, Append) and m.target == 2]
    before = cluster.servers[2].terms()
    for message in [*appends, *reversed(appends)]:
        cluster.deliver(message)
        cluster.settle()
    assert cluster.servers[2].terms() == before
    assert len(cluster.servers[2].applied) == 2


def test_5_5_a_follower_that_crashed_is_brought_up_again():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.crash(2)
    cluster.propose(1)
    cluster.settle()
    cluster.start(2)
    cluster.tick(2 * FAST.heartbeat_ticks, only=[1])
    assert cluster.node(2).commit_index == 2


# --------------------------------------------------------------- thesis 4: members


def test_4_1_a_configuration_is_in_force_as_soon_as_it_is_appended():
    cluster = Cluster(4, learners=(4,))
    leader = cluster.elect(1)
    joint = Configuration(voters=(1, 2, 3, 4), outgoing=(1, 2, 3))
    cluster.isolate(1)
    index = leader.propose_entry(EntryKind.MEMBERSHIP, encode_configuration(joint))
    assert index == leader.last_index
    assert leader.configuration == joint
    # It never was committed, so another leader's log removes it, and the old one is in force again.
    cluster.settle()
    cluster.peers_lost(1)
    cluster.tick(4 * FAST.election_ticks, only=[2, 3, 4])
    cluster.heal()
    cluster.tick(3 * FAST.heartbeat_ticks)
    assert cluster.node(1).configuration.outgoing == ()
    assert cluster.node(1).configuration.learners == (4,)


def test_4_3_voters_change_through_a_joint_configuration_and_a_removed_leader_steps_down():
    cluster = Cluster(4, learners=(4,))
    leader = cluster.elect(1)
    joint = Configuration(voters=(2, 3, 4), outgoing=(1, 2, 3))
    final = Configuration(voters=(2, 3, 4), removed=(1,))
    assert leader.propose_entry(EntryKind.MEMBERSHIP, encode_configuration(joint)) is not None
    assert leader.propose_entry(EntryKind.MEMBERSHIP, encode_configuration(final)) is None, "one at a time"
    cluster.settle()
    assert leader.propose_entry(EntryKind.MEMBERSHIP, encode_configuration(final)) is not None
    cluster.settle()
    assert leader.role is Role.FOLLOWER
    cluster.tick(10 * FAST.election_ticks)
    assert leader.role is Role.FOLLOWER, "it is no voter and never campaigns"
    assert cluster.await_leader().id in (2, 3, 4)
    assert cluster.node(2).configuration == final


def test_4_2_1_a_learner_gets_the_log_and_neither_votes_nor_campaigns():
    cluster = Cluster(4, learners=(4,))
    cluster.isolate(3)
    cluster.isolate(2)
    cluster.tick(4 * FAST.election_ticks)
    assert cluster.leaders() == []
    assert cluster.node(4).role is Role.FOLLOWER
    cluster.heal()
    leader = cluster.await_leader()
    cluster.propose(leader.id, b"a")
    cluster.settle()
    cluster.tick(FAST.heartbeat_ticks)
    assert cluster.node(4).commit_index == leader.commit_index


# --------------------------------------------------------------- thesis 6.4: reads


def test_6_4_a_read_costs_no_log_entry_and_waits_for_a_quorum():
    cluster = Cluster(3)
    leader = cluster.elect(1)
    last = leader.last_index
    context = cluster.read(1)
    cluster.pump(cluster.servers[1])
    assert cluster.read_result(1, context) is None
    cluster.settle()
    assert cluster.read_result(1, context) == last == leader.last_index


def test_6_4_a_new_leader_serves_reads_only_at_or_after_its_first_entry():
    cluster = Cluster(3, logs={n: [1, 1, 1] for n in (1, 2, 3)})
    cluster.lose = lambda m: isinstance(m, Append)
    leader = cluster.elect(1)
    context = cluster.read(1)
    cluster.settle()
    assert leader.commit_index < 4
    assert cluster.read_result(1, context) == 4, "confirmed, but to be served only after entry 4 is applied"


# ------------------------------------------------------------ thesis 9.6: pre-vote


def test_9_6_an_isolated_server_does_not_raise_its_term_and_disturbs_nobody_on_return():
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(3)
    cluster.tick(20 * FAST.election_ticks)
    assert cluster.node(3).role is Role.PRE_CANDIDATE
    assert cluster.node(3).term == leader.term == 1
    cluster.heal()
    cluster.tick(2 * FAST.election_ticks)
    assert (cluster.leader().id, cluster.leader().term) == (1, 1)
    assert cluster.node(3).leader == 1
