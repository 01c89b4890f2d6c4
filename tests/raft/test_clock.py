"""Log time: no single clock moves it (rule S6)."""

from raft_cluster import WALL_MS, Cluster

from balsadb.raft.clock import median_offset, stamp

YEAR_2100_MS = 4_102_444_800_000


def test_the_median_counts_the_leader_and_the_clocks_it_knows():
    assert median_offset(True, []) == 0
    assert median_offset(True, [None, 500]) == 0
    assert median_offset(True, [-500, 500]) == 0
    assert median_offset(True, [400, 500]) == 400
    assert median_offset(False, [500]) == 500


def test_a_stamp_never_goes_back():
    assert stamp(100, 50, 10) == 100
    assert stamp(100, 150, -10) == 140


def test_a_leader_with_a_wrong_clock_stamps_what_the_others_say():
    cluster = Cluster(3)
    cluster.skew_ms[1] = YEAR_2100_MS - WALL_MS
    cluster.elect(1)
    cluster.tick(3)
    cluster.propose(1)
    cluster.settle()
    assert abs(cluster.servers[1].log()[-1].time_ms - cluster.wall_ms) < 1_000


def test_a_follower_with_a_wrong_clock_changes_nothing():
    cluster = Cluster(3)
    cluster.skew_ms[2] = YEAR_2100_MS - WALL_MS
    cluster.elect(1)
    cluster.tick(3)
    cluster.propose(1)
    cluster.settle()
    assert abs(cluster.servers[1].log()[-1].time_ms - cluster.wall_ms) < 1_000


def test_time_never_goes_back_along_the_log_when_clocks_do():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1)
    cluster.settle()
    cluster.wall_ms -= 3_600_000
    cluster.crash(1)
    cluster.elect(2)
    cluster.propose(2)
    cluster.settle()
    times = [entry.time_ms for entry in cluster.servers[2].log()]
    assert times == sorted(times)


def test_a_clock_that_jumps_while_its_node_leads_moves_nothing_not_even_at_once():
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.tick(3)
    for jump in (3_600_000, -3_600_000, YEAR_2100_MS - WALL_MS, 0):
        cluster.skew_ms[1] = jump
        for _ in range(10):
            cluster.tick()
            cluster.propose(1)
            cluster.settle()
            assert abs(cluster.servers[1].log()[-1].time_ms - cluster.wall_ms) < 1_000
