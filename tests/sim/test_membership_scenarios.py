"""Members that come and go while servers fail, one test for each way in which that may go wrong.

Each plays on whole servers in the simulated world. When a test ends, everything is healed, all members have
to serve and to hold the same, a change that began must have ended, and the checkers judge what clients saw.
"""

from __future__ import annotations

import pytest

from balsadb.raft.messages import Append, AppendResponse, Message, RoundAck, VoteResponse
from sim.lab.calls import Call, Fate
from sim.lab.cluster import LabCluster
from sim.lab.members import (
    CHANGE_MS,
    Asked,
    ask,
    known,
    leave,
    put_up,
    replica,
    settled,
    until_voters,
    voters,
    words_for,
)


@pytest.fixture(params=(1, 2, 3))
def seed(request) -> int:
    """Every scenario runs with several seeds: other delays, other election timeouts."""
    return request.param


def new_leader(cluster: LabCluster, former: int) -> int:
    assert cluster.wait(lambda: cluster.leader() not in (None, former), 3_000)
    leader = cluster.leader()
    assert leader is not None
    return leader


def done(cluster: LabCluster, calls: list[Call]) -> bool:
    return cluster.wait(lambda: all(call.over for call in calls), 5_000) and all(
        call.fate is Fate.DONE for call in calls
    )


# --------------------------------------------------------------------------------- one change after the other


def test_a_leader_changes_nothing_before_it_has_committed_an_entry_of_its_own_term(seed):
    """Else two leaders in a row could each begin a change on the same old configuration."""
    with LabCluster(3, seed=seed) as cluster:
        former = settled(cluster)
        put_up(cluster, 4, former)
        cluster.cut(former)
        cluster.network.drops = lambda message: isinstance(message, Append)
        leader = new_leader(cluster, former)
        asked = Asked(cluster, leader, "ADD", *words_for(4))
        cluster.run(300)
        assert cluster.leads(leader)
        assert known(cluster, leader).learners == (), "its first entry is not committed"
        cluster.network.drops = None
        until_voters(cluster, leader, {1, 2, 3, 4})
        assert asked.over
        cluster.connect(former)


def test_changes_of_two_leaders_in_a_row_never_decide_apart(seed):
    """One adds two, the other removes the first: three of five, and two of two, would both be majorities."""
    with LabCluster(3, seed=seed) as cluster:
        former = settled(cluster)
        rest = {1, 2, 3} - {former}
        for node in (4, 5):
            put_up(cluster, node, former)
        cluster.partition({former, 4, 5}, rest)
        Asked(cluster, former, "ADD", *words_for(4, 5))
        assert cluster.wait(lambda: 4 in known(cluster, former).everyone(), 300), "begun"
        calls = cluster.start_many(former, 5)
        cluster.connected = rest
        new_leader(cluster, former)
        cluster.one(2)
        ask(cluster, min(rest), "REMOVE", former)
        until_voters(cluster, min(rest), rest)
        cluster.one(2)
        cluster.run(3_000)
        assert not [call for call in calls if call.fate is Fate.DONE]
        cluster.connected = {1, 2, 3, 4, 5}
        cluster.heal()
        leave(cluster, former, 4, 5)
        assert cluster.wait(lambda: replica(cluster, former).removed, CHANGE_MS)
        assert not {4, 5} & set(known(cluster, min(rest)).everyone()), "what was never committed is gone"
        for node in (4, 5):
            cluster.servers[node].end(power_loss=False)


def test_a_second_change_is_refused_while_one_is_under_way(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        put_up(cluster, 4, leader, start=False)
        assert ask(cluster, leader, "ADD", *words_for(4)).over
        assert known(cluster, leader).learners == (4,), "it waits for a server that is down"
        second = ask(cluster, leader, "ADD", *words_for(5))
        assert b"one change at a time" in second.refusal
        assert 5 not in known(cluster, leader).everyone()
        ask(cluster, leader, "REMOVE", 4)
        until_voters(cluster, leader, {1, 2, 3})


# --------------------------------------------------------------------------------------- servers that leave


def test_a_leader_that_is_removed_hands_over_under_load_and_serves_nobody_any_more(seed):
    with LabCluster(4, seed=seed) as cluster:
        leader = settled(cluster)
        staying = [node for node in cluster.servers if node != leader]
        calls = [cluster.start(node) for node in staying for _ in range(3)]
        asked = Asked(cluster, staying[0], "REMOVE", leader)
        calls += [call for node in staying for call in cluster.start_many(node, 5)]
        assert cluster.wait(lambda: asked.over, CHANGE_MS)
        leave(cluster, leader)
        heir = new_leader(cluster, leader)
        until_voters(cluster, heir, set(staying))
        assert done(cluster, calls)
        assert cluster.wait(lambda: replica(cluster, leader).removed, CHANGE_MS)
        refused = cluster.start(leader)
        assert cluster.wait(lambda: refused.over, 1_000)
        assert refused.fate is Fate.REFUSED
        cluster.one(3)


def test_the_vote_of_a_leader_that_leaves_does_not_count(seed):
    """It and one of the two that stay are a majority of the old members, and none of the new ones."""
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        stays, cut_off = cluster.neighbour(leader, 1), cluster.neighbour(leader, 2)
        cluster.cut(cut_off)
        Asked(cluster, leader, "REMOVE", leader)
        call = cluster.start(leader)
        assert cluster.wait(lambda: known(cluster, stays).outgoing == (1, 2, 3), 300), (
            "the joint step is there"
        )
        call = cluster.start(stays)
        cluster.run(4_000)
        assert replica(cluster, stays).configuration.voters == (1, 2, 3), "and is not committed"
        assert call.fate is not Fate.DONE
        assert not replica(cluster, leader).removed
        cluster.connect(cut_off)
        leave(cluster, leader)
        until_voters(cluster, stays, {stays, cut_off})
        cluster.one(2)


def test_a_server_that_was_removed_while_it_was_cut_off_disturbs_nobody_on_its_return(seed):
    with LabCluster(4, seed=seed) as cluster:
        leader = settled(cluster)
        gone = cluster.neighbour(leader, 1)
        cluster.cut(gone)
        ask(cluster, leader, "REMOVE", gone)
        until_voters(cluster, leader, {1, 2, 3, 4} - {gone})
        cluster.run(5_000)  # it asks for pre-votes all the time
        term = cluster.term(leader)
        cluster.connect(gone)
        leave(cluster, gone)
        assert cluster.wait(lambda: replica(cluster, gone).removed, CHANGE_MS), "it is told"
        cluster.run(3_000)
        assert cluster.leads(leader)
        assert cluster.check_terms() == term
        read = cluster.start(gone)
        assert cluster.wait(lambda: read.over, 1_000)
        assert read.fate is Fate.REFUSED


def test_a_member_is_replaced_under_load_and_nothing_is_lost(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        old = cluster.neighbour(leader, 1)
        staying = [node for node in cluster.servers if node != old]
        cluster.crash(old)
        put_up(cluster, 4, leader)
        asked = Asked(cluster, leader, "REPLACE", old, *words_for(4))
        calls: list[Call] = []
        while not asked.over or set(voters(cluster, leader)) != {*staying, 4}:
            calls += [cluster.start(node) for node in staying]
            cluster.run(50)
            assert len(calls) < 400, "the change takes too long"
        calls += cluster.start_many(4, 3)
        assert done(cluster, calls)
        cluster.one(3)


def test_adding_a_server_that_is_down_costs_no_majority_and_can_be_given_up(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        put_up(cluster, 4, leader, start=False)
        ask(cluster, leader, "ADD", *words_for(4))
        assert known(cluster, leader).voters == (1, 2, 3), "it decides nothing before it has caught up"
        other = cluster.neighbour(leader, 1)
        cluster.crash(other)
        cluster.one(2)
        cluster.restart(other)
        ask(cluster, cluster.check_one_leader(), "REMOVE", 4)
        until_voters(cluster, leader, {1, 2, 3})


def test_a_change_after_which_no_quorum_would_be_alive_is_refused(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        dead = cluster.neighbour(leader, 1)
        alive = cluster.neighbour(leader, 2)
        cluster.crash(dead)
        cluster.run(1_000)
        refused = ask(cluster, leader, "REMOVE", alive)
        assert b"node %d can't be heard" % dead in refused.refusal
        assert set(voters(cluster, leader)) == {1, 2, 3}
        cluster.one(2)
        cluster.restart(dead)


# ----------------------------------------------------------------------------------------- servers that come


def test_a_newcomer_is_a_learner_until_it_has_caught_up(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        for _ in range(20):
            cluster.one(3, size=500)
        put_up(cluster, 4, leader)
        cluster.network.drops = lambda message: message.target == 4 and isinstance(message, Append)
        Asked(cluster, leader, "ADD", *words_for(4))
        assert cluster.wait(lambda: known(cluster, leader).learners == (4,), CHANGE_MS)
        cluster.run(3_000)
        assert known(cluster, leader).learners == (4,), "it has nothing yet"
        assert known(cluster, leader).voters == (1, 2, 3)
        cluster.network.drops = None
        until_voters(cluster, leader, {1, 2, 3, 4})
        assert replica(cluster, 4).machine.applied_index > 20
        cluster.one(4)


def test_a_voter_that_does_not_know_yet_that_it_is_one_gives_its_vote(seed):
    """Two of four are no majority: without the vote of the one that lags nobody could be elected."""
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        heirs = [node for node in cluster.servers if node != leader]
        put_up(cluster, 4, leader)
        granted: list[int] = []

        def watch(message: Message) -> bool:
            if isinstance(message, VoteResponse) and message.granted and not message.pre:
                granted.append(message.source)
            # Whatever makes a voter of the newcomer never gets there.
            promoted = any(4 in known(cluster, node).voters for node in cluster.connected - {4})
            return promoted and message.target == 4 and isinstance(message, Append)

        cluster.network.drops = watch
        Asked(cluster, leader, "ADD", *words_for(4))
        for heir in heirs:
            until_voters(cluster, heir, {1, 2, 3, 4})
        granted.clear()
        cluster.crash(leader)
        new_leader(cluster, leader)
        assert known(cluster, 4).learners == (4,), "as far as it knows it has no vote"
        assert 4 in granted
        cluster.network.drops = None
        cluster.one(3)
        cluster.restart(leader)


def test_a_restart_of_all_in_the_middle_of_a_change_goes_on_with_it(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        old = cluster.neighbour(leader, 1)
        put_up(cluster, 4, leader)
        Asked(cluster, leader, "REPLACE", old, *words_for(4))
        staying = {1, 2, 3, 4} - {old}

        def held(message: Message) -> bool:
            """Keep the leader from learning that the joint step is on disks, and so from the last one."""
            joint = bool(known(cluster, leader).outgoing) if cluster.is_up(leader) else False
            return joint and message.target == leader and isinstance(message, AppendResponse | RoundAck)

        cluster.network.drops = held
        assert cluster.wait(lambda: all(known(cluster, node).outgoing for node in staying), CHANGE_MS)
        cluster.run(20)
        cluster.crash(*cluster.servers)
        cluster.network.drops = None
        for node, server in cluster.servers.items():
            server.start()
            cluster.connected.add(node)
        cluster.heal()
        cluster.connected = staying
        assert cluster.wait(lambda: cluster.leader() is not None, 5_000)
        until_voters(cluster, next(iter(staying)), staying)
        cluster.one(3)


def test_a_server_that_gets_a_state_gets_the_configuration_with_it(seed):
    with LabCluster(4, snapshots=True, seed=seed) as cluster:
        leader = settled(cluster)
        away = cluster.neighbour(leader, 1)
        gone = cluster.neighbour(leader, 2)
        cluster.cut(away)
        ask(cluster, leader, "REMOVE", gone)
        cluster.connected -= {gone}
        until_voters(cluster, leader, {1, 2, 3, 4} - {gone})
        installs = cluster.servers[away].installs
        while replica(cluster, leader).node.first_index <= cluster.last_index(away) + 1:
            cluster.one(2, size=800)
        assert gone in known(cluster, away).voters
        cluster.connect(away)
        cluster.connected -= {gone}
        until_voters(cluster, away, {1, 2, 3, 4} - {gone})
        assert cluster.servers[away].installs > installs, "the entry of the change is not in any log"
        cluster.one(3)


def test_the_id_of_a_removed_member_is_refused_for_ever(seed):
    with LabCluster(4, seed=seed) as cluster:
        leader = settled(cluster)
        gone = cluster.neighbour(leader, 1)
        ask(cluster, leader, "REMOVE", gone)
        until_voters(cluster, leader, {1, 2, 3, 4} - {gone})
        leave(cluster, gone)
        cluster.restart(*(node for node in cluster.servers if node != gone))
        leave(cluster, gone)
        leader = cluster.check_one_leader()
        refused = ask(cluster, leader, "ADD", *words_for(gone))
        assert b"removed" in refused.refusal
        assert gone not in known(cluster, leader).everyone()
