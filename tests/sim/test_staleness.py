"""How old a node says that its own state may be, against how old it is, on whole servers (rule R4)."""

from __future__ import annotations

import bisect

import pytest

from balsadb.kv.reply import Refusal, Reply
from balsadb.replica.limits import ReplicaOptions
from balsadb.replica.replica import TOO_OLD
from balsadb.replica.request import Lane, Request, RequestKind
from balsadb.sim.world import World
from sim.lab.cluster import LabCluster

LIMIT_MS = ReplicaOptions().stale_read_ms


class Watching(World):
    """A random world that compares every server's bound with the truth after each of its turns."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, None)
        self.acknowledged_ms: list[float] = []
        self.acknowledged: list[int] = []
        """Newest index that any client was told is done, by then."""
        self.compared = 0
        self.behind = 0
        """Comparisons in which the server lacked something that was acknowledged."""

    def finished(self, server, request) -> None:
        assert server.replica is not None
        done = not any(isinstance(reply, Refusal) for reply in request.replies or ())
        if request.kind is RequestKind.WRITE and done:
            newest = self.acknowledged[-1] if self.acknowledged else 0
            self.acknowledged_ms.append(self.scheduler.now_us / 1_000)
            self.acknowledged.append(max(newest, server.replica.machine.applied_index))
        super().finished(server, request)

    def turned(self, server) -> None:
        super().turned(server)
        self.compare()

    def compare(self) -> None:
        now_ms = self.scheduler.now_us / 1_000
        for server in self.servers.values():
            replica = server.replica
            if replica is None or not self.acknowledged:
                continue
            self.behind += replica.machine.applied_index < self.acknowledged[-1]
            stale_ms = replica.stale_ms(self.scheduler.now_ms)
            if stale_ms is None:
                continue
            self.compared += 1
            # What was acknowledged before that moment must be in the state.
            count = bisect.bisect_left(self.acknowledged_ms, now_ms - stale_ms)
            missed = count and self.acknowledged[count - 1] > replica.machine.applied_index
            assert not missed, f"server {server.id} says {stale_ms} ms and lacks what is older"


def watch(seed: int) -> Watching:
    world = Watching(seed)
    world.run()
    return world


def test_the_bound_is_never_smaller_than_the_truth():
    worlds = [watch(seed) for seed in (1, 2, 3)]
    assert sum(world.compared for world in worlds) > 1_000
    assert sum(world.behind for world in worlds) > 100, "else nothing was tried"


@pytest.mark.slow
def test_the_bound_is_never_smaller_than_the_truth_in_many_worlds():
    for seed in range(100, 140):
        watch(seed)


# ----------------------------------------------------------------------------------- in words, on one cluster


def read(cluster: LabCluster, node: int) -> Reply:
    """Read as a READONLY connection does: answered or refused at once."""
    server = cluster.servers[node]
    assert server.replica is not None
    request = Request(Lane(cluster.calls), RequestKind.STALE_READ, [[b"GET", b"log"]], [], 1, 1)
    replies: list[Reply] = []

    class Owner:
        def answered(self, request: Request) -> None:
            replies.extend(request.replies or ())

    request.lane.owner = Owner()
    server.replica.submit(request, cluster.scheduler.now_ms)
    server.wake()
    assert cluster.wait(lambda: bool(replies), 20)
    return replies[0]


def stale_ms(cluster: LabCluster, node: int) -> int:
    replica = cluster.servers[node].replica
    assert replica is not None
    bound = replica.stale_ms(cluster.scheduler.now_ms)
    assert bound is not None
    return bound


def test_a_follower_cut_off_from_the_leader_reports_a_growing_bound_and_then_refuses():
    with LabCluster(3) as cluster:
        leader = cluster.check_one_leader()
        cluster.one(3)
        follower = cluster.neighbour(leader, 1)
        cluster.run(500)
        assert stale_ms(cluster, follower) <= ReplicaOptions().idle_probe_ms + 50
        for _ in range(20):
            old = read(cluster, follower)
            cluster.run(50)
        assert stale_ms(cluster, follower) <= ReplicaOptions().probe_ms + 50
        cluster.cut(follower)
        before = cluster.now_ms
        cluster.one(2)
        for waited in (1_000, 2_000, 4_000):
            cluster.run(waited - (cluster.now_ms - before))
            assert stale_ms(cluster, follower) >= waited
            assert read(cluster, follower) == old, "still answered, from before the cut"
        cluster.run(LIMIT_MS - (cluster.now_ms - before) + 1)
        assert stale_ms(cluster, follower) > LIMIT_MS
        assert read(cluster, follower) is TOO_OLD
        cluster.connect(follower)
        assert cluster.wait(lambda: stale_ms(cluster, follower) < 1_100, 3_000)
        assert read(cluster, follower) not in (TOO_OLD, old)


def test_a_leader_that_was_deposed_unheard_counts_its_age_from_before_that():
    """Its own claim to lead is worth nothing: only a round of a majority is."""
    with LabCluster(3) as cluster:
        leader = cluster.check_one_leader()
        cluster.one(3)
        cluster.run(500)
        cluster.cut(leader)
        cut_ms = cluster.now_ms
        cluster.wait(lambda: cluster.leader() not in (None, leader), 5_000)
        cluster.one(2)
        assert stale_ms(cluster, leader) >= cluster.now_ms - cut_ms
        cluster.run(LIMIT_MS)
        assert read(cluster, leader) is TOO_OLD


def test_a_follower_that_hears_its_leader_but_does_not_get_the_entries_grows_old_too():
    """Heartbeats say that a leader lives, and nothing about what this node has."""
    with LabCluster(3) as cluster:
        leader = cluster.check_one_leader()
        cluster.one(3)
        follower = cluster.neighbour(leader, 1)
        cluster.run(300)
        replica = cluster.servers[follower].replica
        assert replica is not None
        step = replica.step
        replica.step = lambda message: None if type(message).__name__ == "Append" else step(message)
        began_ms = cluster.now_ms
        cluster.one(2)
        cluster.run(2_000)
        assert replica.node.leader == leader, "it was heard all the time"
        assert stale_ms(cluster, follower) >= cluster.now_ms - began_ms - 50
        replica.step = step


def test_after_a_start_nothing_is_read_before_a_leader_has_confirmed_the_state():
    with LabCluster(3) as cluster:
        leader = cluster.check_one_leader()
        cluster.one(3)
        follower = cluster.neighbour(leader, 1)
        cluster.restart(follower)
        cluster.cut(follower)
        replica = cluster.servers[follower].replica
        assert replica is not None
        cluster.run(1_000)
        assert replica.stale_ms(cluster.scheduler.now_ms) is None
        refused = read(cluster, follower)
        assert isinstance(refused, Refusal)
        assert refused.text.startswith((b"CLUSTERDOWN", b"LOADING"))
        cluster.connect(follower)
        assert cluster.wait(lambda: replica.stale_ms(cluster.scheduler.now_ms) is not None, 3_000)
