"""One test per claim of the Raft paper, continued: safety (5.4.3), timing (5.6), members (6), clients (8).

The five properties of Figure 3 are checked after every step of every test by the `Oracle` of
`raft_cluster.py`. Section 7, log compaction, does not apply yet.
"""

import pytest
from raft_cluster import FAST, Cluster, Oracle, entries_of

from balsadb.raft.configuration import encode_configuration
from balsadb.raft.messages import Append, Message, ReadIndexResponse, VoteRequest, VoteResponse
from balsadb.raft.node import Node, Role
from balsadb.raft.types import Configuration, EntryKind


def change(leader: Node, configuration: Configuration) -> None:
    assert leader.propose_entry(EntryKind.MEMBERSHIP, encode_configuration(configuration)) is not None


# ----------------------------------------------------------- Figure 3, its five properties


def test_figure_3_election_safety_a_second_leader_of_a_term_is_noticed():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.oracle.leaders[1] = 2
    with pytest.raises(AssertionError, match="nodes 2 and 1 both led term 1"):
        cluster.oracle.observe(cluster.servers[1])


def test_figure_3_log_matching_logs_that_differ_below_an_agreement_are_noticed():
    cluster = Cluster(2, logs={1: [1, 1], 2: [1, 1]})
    cluster.oracle.log_matching(cluster.servers.values())
    cluster.node(1).log.entries[0] = entries_of([1], "another")[0]
    with pytest.raises(AssertionError, match="logs agree at 2 and differ at 1"):
        cluster.oracle.log_matching(cluster.servers.values())


def test_figure_3_leader_completeness_a_leader_without_a_committed_entry_is_noticed():
    cluster = Cluster(3)
    cluster.elect(1)
    oracle = Oracle()
    oracle.committed = entries_of([0, 0, 0])
    with pytest.raises(AssertionError, match="leader 1 of term 1 lacks committed entry 3"):
        oracle.observe(cluster.servers[1])


def test_figure_3_state_machine_safety_another_entry_at_an_applied_index_is_noticed():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.servers[2].applied.clear()
    with pytest.raises(AssertionError):
        cluster.oracle.applied(cluster.servers[2], entries_of([1], "another"))


# ------------------------------------------------------------------- 5.4.3 Safety argument


@pytest.mark.parametrize("candidate", [2, 3, 4, 5])
def test_5_4_3_only_who_has_every_committed_entry_is_elected(candidate):
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.lose = lambda m: isinstance(m, Append) and m.target in (4, 5)
    cluster.propose(1, b"kept")
    cluster.settle()
    assert cluster.node(1).commit_index == 2, "by 1, 2 and 3"
    cluster.lose = lambda m: False
    cluster.crash(1)
    cluster.peers_lost(1)
    cluster.tick(4 * FAST.election_ticks, only=[candidate])
    assert (cluster.node(candidate).role is Role.LEADER) is (candidate in (2, 3))
    leader = cluster.await_leader()
    assert [entry.payload for entry in cluster.servers[leader.id].log()][:2] == [b"", b"kept"]


# -------------------------------------------------------------- 5.6 Timing and availability


class Slow:
    """A network on which every message takes some ticks."""

    def __init__(self, cluster: Cluster, ticks: int) -> None:
        self.cluster, self.ticks = cluster, ticks
        self.under_way: list[tuple[int, Message]] = []
        self.now = 0

    def tick(self) -> None:
        cluster = self.cluster
        self.now += 1
        for server in cluster.running():
            server.up.tick(cluster.wall_ms)
            cluster.check(server)
            cluster.pump(server)
        self.under_way += [(self.now, message) for message in cluster.network]
        cluster.network.clear()
        while self.under_way and self.under_way[0][0] + self.ticks <= self.now:
            _, message = self.under_way.pop(0)
            cluster.deliver(message)
            cluster.pump(cluster.servers[message.target])


@pytest.mark.parametrize("seed", range(5))
def test_5_6_safety_does_not_depend_on_timing_and_availability_does(seed):
    cluster = Cluster(3, seed=seed)
    network = Slow(cluster, 3 * FAST.election_ticks)
    for _ in range(60 * FAST.election_ticks):
        network.tick()
        for server in cluster.running():
            cluster.propose(server.id)
    # A round trip takes longer than an election timeout: all are busy with elections, and nothing was harmed.
    assert len([m for m in cluster.sent if isinstance(m, VoteRequest)]) > 60
    assert max(cluster.commits().values()) == 0
    network.ticks = 1
    for _ in range(20 * FAST.election_ticks):
        network.tick()
    assert min(cluster.commits().values()) > 0


def test_5_6_a_server_whose_clock_runs_ten_times_too_fast_harms_nobody():
    cluster = Cluster(3)
    cluster.elect(1)
    for _ in range(10 * FAST.election_ticks):
        cluster.tick(10, only=[3])
        cluster.tick()
    leader = cluster.leader()
    assert leader.term == 1, "the others hear the leader and refuse its pre-votes"
    cluster.propose(leader.id)
    cluster.settle()
    assert leader.commit_index == 2


# ---------------------------------------------------------------------- 6 Membership changes


JOINT = Configuration(voters=(3, 4, 5), outgoing=(1, 2, 3))


def joint() -> tuple[Cluster, Node]:
    """A cluster that is changing from 1, 2 and 3 to 3, 4 and 5."""
    cluster = Cluster(5, learners=(4, 5))
    leader = cluster.elect(1)
    change(leader, JOINT)
    cluster.settle()
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    assert set(cluster.commits().values()) == {2}
    return cluster, leader


@pytest.mark.parametrize(
    ("cut_off", "commits"),
    [((), True), ((2,), True), ((2, 5), True), ((2, 3), False), ((4, 5), False), ((3,), True)],
)
def test_6_agreement_needs_majorities_of_both_configurations(cut_off, commits):
    cluster, leader = joint()
    for node in cut_off:
        cluster.isolate(node)
    cluster.propose(1, b"a")
    cluster.settle()
    assert (leader.commit_index == 3) is commits


@pytest.mark.parametrize("candidate", [2, 3, 4, 5])
def test_6_a_server_of_either_configuration_may_lead(candidate):
    cluster, _ = joint()
    cluster.crash(1)
    cluster.peers_lost(1)
    assert cluster.elect(candidate).term == 2


def test_6_without_a_majority_of_the_new_configuration_nobody_is_elected():
    cluster, _ = joint()
    for node in (1, 4, 5):
        cluster.crash(node)
        cluster.peers_lost(node)
    cluster.tick(10 * FAST.election_ticks)
    assert cluster.leaders() == []


def test_6_a_leader_outside_of_the_new_configuration_does_not_count_itself():
    cluster, leader = joint()
    cluster.isolate(5)
    cluster.isolate(4)
    change(leader, Configuration(voters=(3, 4, 5), removed=(1, 2)))
    cluster.settle()
    assert (leader.role, leader.commit_index) == (Role.LEADER, 2), "3 is one of three; 1 is none"


def test_6_a_server_that_hears_a_leader_lets_nobody_depose_it():
    cluster = Cluster(3)
    cluster.elect(1)
    for pre in (True, False):
        cluster.node(2).step(VoteRequest(3, 2, 9, 99, 8, pre), cluster.wall_ms)
    cluster.settle()
    assert [m.granted for m in cluster.sent if isinstance(m, VoteResponse) and m.target == 3] == [False] * 2
    assert cluster.node(2).term == 1, "not even its term is taken"


# ----------------------------------------------------------------------- 8 Client interaction


def test_8_a_new_leader_commits_a_no_op_and_with_it_what_it_found():
    cluster = Cluster(3, logs={n: [1, 1] for n in (1, 2, 3)})
    leader = cluster.elect(1)
    cluster.settle()
    assert leader.commit_index == 3
    assert cluster.servers[1].log()[2].kind is EntryKind.NOOP


def test_8_a_request_to_a_follower_reaches_the_leader():
    cluster = Cluster(3)
    leader = cluster.elect(1)
    assert cluster.propose(2, b"a")
    context = cluster.read(3)
    cluster.settle()
    assert leader.commit_index == 2
    assert cluster.read_result(3, context) is not None
    assert [m.target for m in cluster.sent if isinstance(m, ReadIndexResponse)] == [3]


def test_8_a_read_is_not_served_by_a_leader_that_was_replaced():
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.isolate(1)
    cluster.peers_lost(1)
    new = cluster.elect(2)
    cluster.propose(2, b"newer")
    cluster.settle()
    assert new.commit_index > old.commit_index
    assert old.role is Role.LEADER, "it does not know"
    context = cluster.read(1)
    cluster.settle()
    assert cluster.read_result(1, context) is None
