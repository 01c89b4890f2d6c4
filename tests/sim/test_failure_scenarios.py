"""Failures that a cluster must survive, one test each: partitions, pauses, hand-overs, and reads meanwhile.

Each plays on whole servers in the simulated world. When a test ends, everything is healed, all servers have
to serve and to hold the same, and the checkers judge what all clients saw: it must be linearizable, nothing
that was acknowledged may be lost, and no term may have had two leaders.
"""

from __future__ import annotations

import pytest

from balsadb.raft.messages import Append, CommitAdvance, Heartbeat, Message, ReadIndexResponse, VoteRequest
from balsadb.raft.node import Node, Role
from balsadb.replica import Replica
from balsadb.sim.faults import FaultPlan
from balsadb.sim.history import Action
from balsadb.sim.runs import Kind, run_seed
from balsadb.sim.server import SMALL
from sim.lab.calls import Call, Fate
from sim.lab.cluster import KEY, LabCluster

ELECTION_MS = 500
"""The election timeout of the simulated servers: a follower campaigns after one to two of it."""
RECOVERY_MS = 3_000
"""An election among servers that can talk is over within this."""


@pytest.fixture(params=(1, 2, 3))
def seed(request) -> int:
    """Every scenario runs with several seeds: other delays, other election timeouts."""
    return request.param


def replica(cluster: LabCluster, node: int) -> Replica:
    found = cluster.servers[node].replica
    assert found is not None
    return found


def raft(cluster: LabCluster, node: int) -> Node:
    return replica(cluster, node).node


def settled(cluster: LabCluster) -> int:
    """Return the leader of a cluster in which everybody has what there is."""
    leader = cluster.check_one_leader()
    cluster.one(len(cluster.servers))
    assert cluster.wait(
        lambda: len({raft(cluster, n).commit_index for n in cluster.servers}) == 1, RECOVERY_MS
    )
    return leader


def get(cluster: LabCluster, node: int) -> Call:
    return cluster.calls.start(node, Action.GET, KEY)


def append(cluster: LabCluster, node: int) -> Call:
    """Append and wait for the answer."""
    call = cluster.start(node)
    assert cluster.wait(lambda: call.over, RECOVERY_MS)
    assert call.fate is Fate.DONE
    return call


def answer(cluster: LabCluster, call: Call, milliseconds: int = RECOVERY_MS) -> bytes:
    assert cluster.wait(lambda: call.over, milliseconds)
    assert call.fate is Fate.DONE, call.reply
    assert isinstance(call.reply, bytes)
    return call.reply


def others(cluster: LabCluster, node: int) -> list[int]:
    return [other for other in cluster.servers if other != node]


def new_leader(cluster: LabCluster, former: int, milliseconds: int = RECOVERY_MS) -> int:
    assert cluster.wait(lambda: cluster.leader() not in (None, former), milliseconds)
    leader = cluster.leader()
    assert leader is not None
    return leader


# ------------------------------------------------------------------------------------------------ partitions


def test_a_leader_in_the_minority_acknowledges_nothing_and_steps_down_while_the_majority_serves(seed):
    with LabCluster(5, seed=seed) as cluster:
        leader = settled(cluster)
        minority = {leader, cluster.neighbour(leader, 1)}
        majority = set(cluster.servers) - minority
        cluster.partition(minority, majority)
        asked = [call for node in sorted(minority) for call in (cluster.start(node), get(cluster, node))]
        cut_ms = cluster.now_ms
        assert cluster.wait(lambda: not cluster.leads(leader), 2 * ELECTION_MS), "it hears no quorum"
        assert cluster.now_ms - cut_ms <= 1.5 * ELECTION_MS
        cluster.connected = majority
        new_leader(cluster, leader)
        cluster.one(3)
        asked += [call for node in sorted(minority) for call in (cluster.start(node), get(cluster, node))]
        cluster.run(4_000)
        assert not [call for call in asked if call.fate is Fate.DONE]


def test_a_leader_that_can_send_and_not_receive_is_replaced_without_a_storm_of_elections(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        term = cluster.term(leader)
        cluster.network.cut((other, leader) for other in others(cluster, leader))
        cluster.connected = set(others(cluster, leader))
        new_leader(cluster, leader)
        cluster.one(2)
        cluster.run(5_000)
        assert max(cluster.term(node) for node in cluster.servers) <= term + 2


def test_a_follower_that_can_receive_and_not_send_disturbs_nobody(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        term, silent = cluster.term(leader), cluster.neighbour(leader, 1)
        cluster.network.cut((silent, other) for other in others(cluster, silent))
        cluster.run(5_000)
        for _ in range(10):
            append(cluster, leader)
            cluster.run(500)
        assert cluster.leads(leader)
        assert cluster.check_terms() == term


def test_two_servers_that_do_not_see_each_other_and_both_see_the_third_go_on(seed):
    """One of the two leads: the other one hears nobody, and may not depose it."""
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        term, cut_off = cluster.term(leader), cluster.neighbour(leader, 1)
        cluster.network.cut([(leader, cut_off), (cut_off, leader)])
        cluster.run(5_000)  # as long as nobody writes its log is as good as any
        for _ in range(10):
            append(cluster, leader)
            cluster.run(500)
        assert cluster.leads(leader)
        assert cluster.term(leader) == term


def test_a_ring_in_which_each_sees_another_majority_makes_progress_without_two_leaders(seed):
    with LabCluster(5, seed=seed) as cluster:
        settled(cluster)
        near = {node: {cluster.neighbour(node, 1), cluster.neighbour(node, 4)} for node in cluster.servers}
        cluster.network.cut((a, b) for a in near for b in near if a != b and b not in near[a])
        term = max(cluster.term(node) for node in cluster.servers)
        cluster.run(5_000)
        for _ in range(5):
            cluster.one(3)
            cluster.run(1_000)
        assert max(cluster.term(node) for node in cluster.servers) == term, (
            "whoever sees the leader protects it"
        )
        # Nobody leads any more, and all have the same log.
        for server in cluster.servers.values():
            server.end(power_loss=True)
        for server in cluster.servers.values():
            server.start()
        assert cluster.wait(lambda: cluster.leader() is not None, 2 * RECOVERY_MS)
        cluster.one(3)
        assert max(cluster.term(node) for node in cluster.servers) <= term + 5


def test_a_server_that_was_isolated_for_long_deposes_nobody_on_its_return(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        term, away = cluster.term(leader), cluster.neighbour(leader, 1)
        cluster.cut(away)
        cluster.run(20_000)
        cluster.one(2)
        cluster.connect(away)
        cluster.run(3_000)
        cluster.one(3)
        assert cluster.leads(leader)
        assert cluster.check_terms() == term


def test_a_long_log_of_an_old_term_and_a_short_one_of_a_new_term_elect_a_leader(seed):
    """Neither may refuse the other for ever: the one that is behind must learn of the later term."""
    with LabCluster(3, seed=seed) as cluster:
        old = settled(cluster)
        cluster.cut(old)
        lost = cluster.start_many(old, 20)
        middle = new_leader(cluster, old)
        cluster.one(2)
        third = next(node for node in others(cluster, old) if node != middle)
        assert cluster.last_index(old) > cluster.last_index(third)
        cluster.crash(middle)
        cluster.connect(old)
        assert new_leader(cluster, middle) == third, "only it has what was acknowledged"
        cluster.one(2)
        cluster.restart(middle)
        assert not any(call.fate is Fate.DONE for call in lost)


def test_a_candidate_whose_log_is_behind_costs_no_election(seed):
    """Nobody leads, and nobody else asks: it must neither win nor move the others to new terms."""
    with LabCluster(5, seed=seed) as cluster:
        leader = settled(cluster)
        behind = cluster.neighbour(leader, 1)
        cluster.cut(behind)
        cluster.one(4)
        term = cluster.term(leader)
        asked: set[bool] = set()

        def others_are_quiet(message: Message) -> bool:
            if isinstance(message, VoteRequest) and message.source == behind:
                asked.add(message.pre)
            return isinstance(message, VoteRequest) and message.source != behind

        cluster.network.drops = others_are_quiet
        cluster.crash(leader)
        cluster.connect(behind)
        cluster.run(10_000)
        assert asked == {True}, "it is told beforehand that it would not win"
        assert {cluster.term(node) for node in cluster.connected} == {term}
        cluster.network.drops = None
        assert new_leader(cluster, leader) != behind
        cluster.one(4)
        cluster.restart(leader)


# --------------------------------------------------------------------------------- pauses, slow disks, clocks


@pytest.mark.parametrize("elections", [2, 10])
def test_a_leader_that_slept_serves_no_stale_read_and_acknowledges_no_write_before_it_learns_of_the_term(
    seed, elections
):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        sleeper = cluster.servers[leader]
        sleeper.pause()
        cluster.connected = set(others(cluster, leader))
        new_leader(cluster, leader)
        cluster.one(2)
        cluster.run(elections * ELECTION_MS)
        # Clients have sent it something meanwhile; what other servers have sent does not come before that.
        cluster.network.cut([(other, leader) for other in others(cluster, leader)])
        sleeper._deferred = [one for one in sleeper._deferred if one[0] != sleeper.receive]
        read, write = get(cluster, leader), cluster.start(leader)
        sleeper.resume()
        assert cluster.leads(leader), "it believes so still"
        cluster.run(100)
        assert Fate.DONE not in (read.fate, write.fate)
        cluster.connected = set(cluster.servers)
        cluster.heal()
        values = answer(cluster, get(cluster, leader))
        if read.fate is Fate.DONE:
            assert values.startswith(read.reply) or read.reply == values


def test_each_server_in_turn_may_be_paused_and_the_others_serve(seed):
    with LabCluster(3, seed=seed) as cluster:
        settled(cluster)
        for node in list(cluster.servers):
            cluster.servers[node].pause()
            cluster.connected = set(others(cluster, node))
            assert cluster.wait(lambda node=node: cluster.leader() not in (None, node), RECOVERY_MS)
            began_ms = cluster.now_ms
            cluster.one(2)
            assert cluster.now_ms - began_ms < RECOVERY_MS
            cluster.servers[node].resume()
            cluster.connected = set(cluster.servers)


def test_a_leader_whose_disk_takes_seconds_for_a_sync_makes_room_for_another(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        slow = cluster.servers[leader]
        slow._sync_us = lambda: 1_500_000
        deadline = cluster.now_ms + 15_000
        while cluster.leads(leader):
            assert cluster.now_ms < deadline, "it leads and everybody waits for its disk"
            append(cluster, leader)
            cluster.run(100)
        cluster.connected = set(others(cluster, leader))
        new_leader(cluster, leader)
        began_ms = cluster.now_ms
        cluster.one(2)
        assert cluster.now_ms - began_ms < 500
        del slow._sync_us
        cluster.connected = set(cluster.servers)


@pytest.mark.parametrize("seed", range(5))
def test_a_network_that_loses_doubles_reorders_and_delays_costs_time_and_nothing_else(seed):
    plan = FaultPlan(
        nodes=3, loss=(0.1, 0.2, 0.3)[seed % 3], duplication=0.5, straggling=0.1, delay_us_max=100_000
    )
    outcome, _ = run_seed(seed, plan)
    assert outcome.kind is Kind.PASSED, outcome.problem
    assert outcome.operations > 20


def test_wall_clocks_that_jump_by_an_hour_change_no_election_and_no_answer(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        term = cluster.term(leader)
        for strobe in range(60):
            for node, server in cluster.servers.items():
                server.wall_offset_ms = (-1, 0, 1)[(strobe + node) % 3] * 3_600_000
            append(cluster, cluster.neighbour(leader, strobe))
            cluster.run(100)
        assert cluster.leads(leader)
        assert cluster.check_terms() == term


# ------------------------------------------------------------------------------------------------- hand-overs


def test_leadership_is_handed_over_under_load_within_an_election_timeout_and_nothing_is_lost(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        for _ in range(4):
            calls = [cluster.start(node) for node in cluster.servers for _ in range(5)]
            taker = cluster.neighbour(leader, 1)
            assert replica(cluster, leader).transfer(taker) == taker
            cluster.servers[leader].wake()
            calls += cluster.start_many(leader, 5) + cluster.start_many(taker, 5)
            assert cluster.wait(lambda taker=taker: cluster.leads(taker), ELECTION_MS)
            read = get(cluster, taker)
            assert cluster.wait(lambda calls=calls: all(call.over for call in calls), RECOVERY_MS)
            assert {call.fate for call in calls} == {Fate.DONE}
            assert answer(cluster, read)
            leader = taker


def test_a_hand_over_to_a_dead_server_is_given_up_within_an_election_timeout(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        dead = cluster.neighbour(leader, 1)
        cluster.crash(dead)
        term = cluster.term(leader)
        assert replica(cluster, leader).transfer(dead) == dead
        cluster.servers[leader].wake()
        call = cluster.start(leader)
        began_ms = cluster.now_ms
        assert cluster.wait(lambda: call.over, RECOVERY_MS)
        assert call.fate is Fate.DONE
        assert cluster.now_ms - began_ms < 2 * ELECTION_MS
        assert cluster.term(leader) == term
        cluster.restart(dead)


# ------------------------------------------------------------------------------------------- bounds, idleness


def test_the_log_of_an_isolated_leader_with_busy_clients_is_bounded(seed):
    with LabCluster(3, one_by_one=True, seed=seed) as cluster:
        leader = settled(cluster)
        cluster.cut(leader)
        before = cluster.last_index(leader)
        calls = cluster.start_many(leader, 200, size=1_000)
        assert cluster.leads(leader), "nobody has told it yet"
        limit = SMALL.uncommitted_bytes_max
        assert 0 < cluster.last_index(leader) - before <= limit // 1_000 + 1
        assert cluster.wait(lambda: all(call.over for call in calls), 10_000)
        assert not [call for call in calls if call.fate is Fate.DONE]
        refused = [call for call in calls if call.fate is Fate.REFUSED]
        assert len(refused) >= 200 - limit // 1_000 - 1, "what never was in the log is refused for certain"


def test_a_follower_that_missed_something_gets_it_in_an_idle_cluster(seed):
    """No new write is needed for it."""
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        follower = cluster.neighbour(leader, 1)
        cluster.network.drops = lambda message: message.target == follower and isinstance(message, Append)
        append(cluster, leader)
        cluster.run(1_000)
        assert cluster.last_index(follower) < cluster.last_index(leader)
        cluster.network.drops = None
        newest = cluster.last_index(leader)
        assert cluster.wait(lambda: replica(cluster, follower).machine.applied_index == newest, 1_000)
        assert cluster.last_index(leader) == newest


# ------------------------------------------------------------------------------------------------------ reads


def test_a_read_on_a_brand_new_leader_waits_for_its_first_entry_and_never_gives_an_older_value(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        # The others get the entry, and are not told that it is committed.
        cluster.network.drops = lambda message: isinstance(message, CommitAdvance | Heartbeat)
        call = append(cluster, leader)
        heirs = others(cluster, leader)
        cluster.wait(
            lambda: all(cluster.last_index(node) == cluster.last_index(leader) for node in heirs), 500
        )
        cluster.crash(leader)
        cluster.network.drops = lambda message: isinstance(message, Append)
        heir = new_leader(cluster, leader)
        read = get(cluster, heir)
        cluster.run(300)
        assert not read.over, "it does not know yet what was acknowledged before it"
        cluster.network.drops = None
        assert answer(cluster, read).endswith(call.argument)
        cluster.restart(leader)


def test_a_read_right_after_a_restart_of_all_gives_no_older_value(seed):
    with LabCluster(3, seed=seed) as cluster:
        settled(cluster)
        call = append(cluster, 1)
        cluster.crash(*cluster.servers)
        cluster.restart(*cluster.servers)
        reads = [get(cluster, node) for node in cluster.servers]
        while cluster.leader() is None:
            cluster.run(5)
            reads += [get(cluster, node) for node in cluster.servers if cluster.is_up(node)]
        reads += [get(cluster, node) for node in cluster.servers]
        assert cluster.wait(lambda: all(read.over for read in reads), RECOVERY_MS)
        values = [read.reply for read in reads if read.fate is Fate.DONE]
        assert values
        assert all(value.endswith(call.argument) for value in values)


def test_a_read_at_a_follower_that_lags_waits_until_it_has_what_was_acknowledged(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        follower = cluster.neighbour(leader, 1)
        cluster.network.drops = lambda message: message.target == follower and isinstance(message, Append)
        call = append(cluster, leader)
        read = get(cluster, follower)
        cluster.run(300)
        assert not read.over
        cluster.network.drops = None
        assert answer(cluster, read).endswith(call.argument)


def test_a_late_answer_to_a_question_of_before_the_change_of_leader_confirms_nothing(seed):
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        follower, heir = cluster.neighbour(leader, 1), cluster.neighbour(leader, 2)
        answers: list[Message] = []

        def hold(message: Message) -> bool:
            if message.target == follower and isinstance(message, ReadIndexResponse):
                answers.append(message)
                return True
            # The follower is not to lead itself, and not to hear what the heir commits.
            stands = message.source == follower and isinstance(message, VoteRequest)
            return stands or (
                message.source == heir and isinstance(message, Append) and bool(message.entries)
            )

        cluster.network.drops = hold
        first = get(cluster, follower)
        assert cluster.wait(lambda: bool(answers), 1_000)
        late = answers.pop()
        cluster.crash(leader)
        assert new_leader(cluster, leader) == heir
        second = get(cluster, follower)
        assert cluster.wait(lambda: bool(answers), 1_000), (
            "it asks the new leader, whose answer does not come"
        )
        cluster.servers[follower].receive(late)
        cluster.run(50)
        assert not second.over
        assert not first.over
        cluster.network.drops = None
        assert answer(cluster, second)
        assert cluster.wait(lambda: first.over, RECOVERY_MS)
        cluster.restart(leader)


def test_a_leader_that_was_acknowledged_a_moment_ago_still_asks_for_every_read(seed):
    """There are no leases, which would rest on clocks that run at the same speed."""
    with LabCluster(3, seed=seed) as cluster:
        leader = settled(cluster)
        heard = raft(cluster, leader)
        answer(cluster, get(cluster, leader))
        cluster.cut(leader)
        read = get(cluster, leader)
        cluster.run(300)
        assert heard.role is Role.LEADER, "an election timeout has not passed"
        assert not read.over
        cluster.connect(leader)
        assert answer(cluster, read)


def test_a_client_that_changes_servers_never_sees_the_state_go_back(seed):
    with LabCluster(5, seed=seed) as cluster:
        leader = settled(cluster)
        slow = [cluster.neighbour(leader, steps) for steps in (1, 2)]
        seen = b""
        for turn in range(30):
            for node in slow:
                link = (leader, node)
                if turn % 3 == 0:
                    cluster.network.clog(link)
                elif turn % 3 == 2:
                    cluster.network.unclog(link)
            writing = cluster.start(cluster.neighbour(leader, turn % 3 + 2))
            reading = get(cluster, cluster.neighbour(leader, turn))
            assert cluster.wait(lambda reading=reading, writing=writing: reading.over and writing.over, 5_000)
            if reading.fate is Fate.DONE:
                assert reading.reply.startswith(seen), "a value that was seen is gone"
                seen = reading.reply
        assert len(seen) > 50
