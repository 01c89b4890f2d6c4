"""Changes of the members and the leader are counted once each, however many servers show them."""

from __future__ import annotations

from balsadb.sim.faults import FaultPlan
from balsadb.sim.members import MemberCounts
from balsadb.sim.runs import run_seed
from sim.lab.cluster import LabCluster
from sim.lab.members import ask, leave, put_up, replica, settled, until_voters, words_for


def test_each_change_counts_once_when_it_has_ended():
    with LabCluster(3) as cluster:
        leader = settled(cluster)
        assert cluster.members.counts == MemberCounts()
        first, second = (node for node in (1, 2, 3) if node != leader)
        put_up(cluster, 4, leader)
        ask(cluster, first, "ADD", *words_for(4))
        until_voters(cluster, leader, {1, 2, 3, 4})
        assert cluster.members.counts == MemberCounts(begun=1, added=1)
        put_up(cluster, 5, leader)
        ask(cluster, leader, "REPLACE", first, *words_for(5))
        leave(cluster, first)
        until_voters(cluster, leader, {1, 2, 3, 4, 5} - {first})
        assert cluster.members.counts == MemberCounts(begun=2, added=1, replaced=1)
        ask(cluster, leader, "REMOVE", second)
        leave(cluster, second)
        until_voters(cluster, leader, {leader, 4, 5})
        assert cluster.members.counts == MemberCounts(begun=3, added=1, replaced=1, removed=1)
        assert replica(cluster, leader).transfer(4) == 4
        cluster.servers[leader].wake()
        assert cluster.wait(lambda: cluster.leads(4), 1_000)
        cluster.run(10)
        assert cluster.members.counts == MemberCounts(begun=3, added=1, replaced=1, removed=1, handed_over=1)
        assert cluster.members.counts.completed == 4


def test_a_newcomer_that_is_given_up_counts_as_begun_and_removed():
    with LabCluster(3) as cluster:
        leader = settled(cluster)
        put_up(cluster, 4, leader, start=False)
        ask(cluster, leader, "ADD", *words_for(4))
        ask(cluster, leader, "REMOVE", 4)
        until_voters(cluster, leader, {1, 2, 3})
        assert cluster.members.counts == MemberCounts(begun=1, removed=1)


def test_a_leader_that_was_elected_without_an_order_is_no_hand_over():
    with LabCluster(3) as cluster:
        leader = settled(cluster)
        cluster.crash(leader)
        assert cluster.wait(lambda: cluster.leader() not in (None, leader), 3_000)
        assert cluster.members.counts == MemberCounts()
        cluster.restart(leader)


def test_counts_of_runs_add_up_and_are_told():
    total = MemberCounts(3, 2, 1) + MemberCounts(4, 3, 1, 1, 1, 5)
    assert total == MemberCounts(7, 5, 2, 1, 1, 5)
    assert str(total) == (
        "7 changes of the members and the leader asked for, 5 of the members begun; "
        "completed 9: 2 additions, 1 removals, 1 replacements, 5 hand-overs"
    )


def test_a_run_tells_what_it_has_seen():
    outcome, _ = run_seed(1, FaultPlan(nodes=3, changes=120.0, transfers=60.0))
    assert outcome.members.asked > 0
    assert outcome.members.begun > 0
    assert outcome.members.completed > 0
