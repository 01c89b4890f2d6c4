"""Rounds and read indexes (rules R1-R4). The scenarios 23-26 are in `test_scenarios.py`."""

import msgspec
import pytest
from raft_cluster import FAST, Cluster

from balsadb.raft.messages import Append, Heartbeat, ReadIndexRequest, ReadIndexResponse, RoundAck


def led(size=3, **kwargs):
    cluster = Cluster(size, **kwargs)
    cluster.elect(1)
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    cluster.sent.clear()
    return cluster


def test_rule_r2_all_reads_of_a_turn_share_one_round():
    cluster = led()
    contexts = [cluster.read(1) for _ in range(5)]
    cluster.settle()
    assert len([m for m in cluster.sent if isinstance(m, Heartbeat)]) == 2
    assert all(cluster.read_result(1, context) == 1 for context in contexts)


@pytest.mark.parametrize("made", [False, True], ids=["before the next messages", "after the next messages"])
def test_rule_r2_a_round_already_under_way_does_not_confirm_a_later_read(made):
    cluster = led()
    first = cluster.read(1)
    cluster.pump(cluster.servers[1])
    acks = [RoundAck(2, 1, 1, m.round) for m in cluster.network if isinstance(m, Heartbeat) and m.target == 2]
    cluster.network.clear()
    second = cluster.read(1)
    if made:
        cluster.pump(cluster.servers[1])
    cluster.deliver(acks[0])
    cluster.pump(cluster.servers[1])
    assert cluster.read_result(1, first) == 1
    assert cluster.read_result(1, second) is None
    cluster.settle()
    assert cluster.read_result(1, second) == 1


def test_under_load_reads_ride_on_appends_and_cost_no_heartbeat():
    cluster = led()
    cluster.propose(1)
    context = cluster.read(1)
    cluster.settle()
    assert cluster.read_result(1, context) == 1
    assert not [m for m in cluster.sent if isinstance(m, Heartbeat)]
    assert {m.round for m in cluster.sent if isinstance(m, Append)} == {1}


def test_appends_without_reads_are_answered_without_round_acknowledgements():
    cluster = led()
    for _ in range(3):
        cluster.propose(1)
        cluster.settle()
    assert not [m for m in cluster.sent if isinstance(m, RoundAck)]


def test_rule_r4_a_round_is_acknowledged_before_the_disk_is_done():
    cluster = led()
    cluster.slow_disks = {1, 2, 3}
    cluster.propose(1)
    context = cluster.read(1)
    cluster.settle()
    assert cluster.read_result(1, context) == 1
    assert cluster.node(1).commit_index == 1


def test_rule_r4_no_round_is_acknowledged_in_a_term_that_is_not_on_disk():
    cluster = led()
    cluster.slow_disks = {3}
    node = cluster.node(3)
    node.step(Heartbeat(2, 3, 5, 0, 0), cluster.wall_ms)
    cluster.pump(cluster.servers[3])
    assert not cluster.network
    cluster.complete_write(cluster.servers[3])
    cluster.pump(cluster.servers[3])
    assert [m.term for m in cluster.network if isinstance(m, RoundAck)] == [5]


def test_a_read_of_a_follower_among_five_needs_one_acknowledgement_more():
    cluster = led(5)
    cluster.isolate(4)
    cluster.isolate(5)
    context = cluster.read(2)
    cluster.settle()
    assert cluster.read_result(2, context) == 1
    cluster.isolate(3)
    context = cluster.read(2)
    cluster.settle()
    assert cluster.read_result(2, context) is None, "leader and asker are two of five"


def test_a_learners_read_counts_as_no_acknowledgement():
    cluster = led(4, learners=(4,))
    cluster.isolate(2)
    cluster.isolate(3)
    context = cluster.read(4)
    cluster.settle()
    assert cluster.read_result(4, context) is None
    cluster.heal()
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    assert cluster.read_result(4, context) == 1


def test_a_lost_round_is_repeated_with_the_next_heartbeat():
    cluster = led()
    cluster.lose = lambda m: isinstance(m, Heartbeat)
    context = cluster.read(1)
    cluster.settle()
    cluster.lose = lambda m: False
    cluster.tick(FAST.heartbeat_ticks, only=[1])
    assert cluster.read_result(1, context) == 1


def test_a_lost_request_is_repeated_under_a_new_name():
    cluster = led()
    cluster.lose = lambda m: isinstance(m, ReadIndexRequest)
    context = cluster.read(2)
    cluster.settle()
    cluster.lose = lambda m: False
    cluster.tick(FAST.read_retry_ticks)
    assert cluster.read_result(2, context) == 1
    names = [(m.boot, m.counter) for m in cluster.sent if isinstance(m, ReadIndexRequest)]
    assert len(names) == len(set(names)) == 2


def test_all_reads_of_a_followers_turn_share_one_request():
    cluster = led()
    for _ in range(5):
        cluster.read(2)
    cluster.settle()
    assert len([m for m in cluster.sent if isinstance(m, ReadIndexRequest)]) == 1
    assert len(cluster.servers[2].reads) == 5


def test_pending_reads_are_bounded():
    cluster = led(options=msgspec.structs.replace(FAST, reads_max=3))
    cluster.isolate(1)
    for node in (1, 2):
        assert [cluster.read(node) is not None for _ in range(5)] == [True] * 3 + [False] * 2


def test_the_answer_brings_the_leaders_clock():
    cluster = led()
    cluster.skew_ms[1] = 5_000
    cluster.read(2)
    cluster.settle()
    (answer,) = [m for m in cluster.sent if isinstance(m, ReadIndexResponse)]
    assert answer.clock_ms == cluster.wall(1)


def test_losing_the_connection_to_the_leader_drops_a_followers_reads():
    cluster = led()
    cluster.isolate(2)
    context = cluster.read(2)
    cluster.settle()
    cluster.node(2).peer_lost(1)
    cluster.settle()
    assert cluster.servers[2].dropped == [context]
