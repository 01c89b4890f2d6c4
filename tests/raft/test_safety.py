"""Random runs: whatever the network, the disks and the processes do, nothing safe is ever violated.

One seed is one run. The cluster checks all invariants after every step; see `raft_cluster.py`.
"""

from random import Random

import pytest
from msgspec import structs
from raft_cluster import FAST, Cluster, Server

from balsadb.raft.configuration import encode_configuration
from balsadb.raft.node import Options
from balsadb.raft.types import EntryKind

TINY = structs.replace(
    FAST,
    append_bytes_max=200,
    inflight_messages_max=3,
    inflight_bytes_max=500,
    cache_bytes_max=1_500,
    apply_bytes_max=300,
    uncommitted_bytes_max=4_000,
    origins_max=4,
)


class Chaos:
    """One random run: actions drawn from a mix that is itself drawn (swarm testing)."""

    def __init__(self, seed: int, options: Options) -> None:
        self.random = random = Random(seed)
        size = random.choice([1, 2, 3, 3, 3, 4, 5, 5])
        learners = (size,) if size > 2 and random.random() < 0.2 else ()
        self.cluster = Cluster(
            size, seed=seed, options=options, learners=learners, tail=random.choice([0, 3, 1_000])
        )
        self.paused: set[int] = set()
        """Processes that are stopped and know nothing of it (scenario 17)."""
        self.loss = random.choice([0, 0, 0.1, 0.3])
        self.duplicate = random.choice([0, 0, 0.2, 0.5])
        self.reorder = random.choice([0, 0, 0.3, 1])
        self.weights = {
            self.deliver: random.choice([40, 80, 120]),
            self.tick: random.choice([10, 20, 40]),
            self.disk: random.choice([4, 20, 60]),
            self.propose: random.choice([2, 10]),
            self.read: random.choice([1, 8]),
            self.crash: random.choice([0, 0.5, 1]),
            self.restart: 3,
            self.split: random.choice([0, 0.5, 1]),
            self.heal: random.choice([1, 2]),
            self.connection: random.choice([0, 1]),
            self.pause: random.choice([0, 0.5, 1]),
            self.resume: 1,
            self.member: random.choice([0, 1, 4]),
        }

    def any(self) -> Server | None:
        running = [server for server in self.cluster.running() if server.id not in self.paused]
        return self.random.choice(running) if running else None

    def deliver(self) -> None:
        network, random = self.cluster.network, self.random
        for _ in range(min(len(network), random.randint(1, 4))):
            position = random.randrange(len(network)) if random.random() < self.reorder else 0
            message = network[position]
            if message.target in self.paused:
                continue
            if random.random() >= self.duplicate:
                del network[position]
            if random.random() >= self.loss:
                self.cluster.deliver(message)

    def tick(self) -> None:
        self.cluster.wall_ms += 10
        for server in self.cluster.running():
            if (
                server.id not in self.paused and self.random.random() < 0.8
            ):  # nobody's clock runs like another's
                server.up.tick(self.cluster.wall(server.id))
                self.cluster.check(server)

    def disk(self) -> None:
        server = self.any()
        if server is not None and server.writing is not None:
            self.cluster.complete_write(server)
        if server is not None and server.fetches:
            self.cluster.complete_fetch(server)

    def propose(self) -> None:
        server = self.any()
        if server is not None:
            for _ in range(self.random.randint(1, 3)):
                self.cluster.propose(server.id, self.random.randbytes(self.random.randint(0, 90)))

    def read(self) -> None:
        server = self.any()
        if server is not None:
            self.cluster.read(server.id)

    def crash(self) -> None:
        server = self.any()
        if server is None:
            return
        self.cluster.crash(server.id, write_survives=self.random.random() < 0.5)
        for other in self.cluster.running():
            if self.random.random() < 0.7:  # its kernel closed its connections
                other.up.peer_lost(server.id)
                self.cluster.check(other)

    def restart(self) -> None:
        down = [server.id for server in self.cluster.servers.values() if server.node is None]
        if down:
            self.cluster.start(self.random.choice(down))

    def split(self) -> None:
        nodes = list(self.cluster.servers)
        kind = self.random.random()
        if kind < 0.3:
            self.cluster.isolate(self.random.choice(nodes))
        elif kind < 0.6 and self.cluster.leaders():
            leader = self.cluster.leader()
            self.cluster.isolate(leader.id)
            for _ in range(self.random.randint(0, 3)):
                self.cluster.propose(leader.id, b"from a leader that does not know yet")
        else:
            for one in nodes:
                for other in nodes:
                    if one != other and self.random.random() < 0.4:
                        self.cluster.cut(one, other, both=False)

    def heal(self) -> None:
        self.cluster.heal()

    def connection(self) -> None:
        server, other = self.any(), self.any()
        if server is None or other is None or server is other:
            return
        if self.random.random() < 0.5:
            server.up.peer_lost(other.id)
        else:
            server.up.peer_up(other.id)
        self.cluster.check(server)

    def pause(self) -> None:
        leaders = self.cluster.leaders()
        if leaders and len(self.paused) < 2:
            self.paused.add(self.random.choice(leaders).id)

    def resume(self) -> None:
        for node_id in sorted(self.paused):
            if self.cluster.servers[node_id].node is not None:
                self.cluster.read(node_id)  # before it has heard anything
                self.cluster.pump(self.cluster.servers[node_id])
        self.paused.clear()

    def member(self) -> None:
        """Let voters become learners and the other way round, several at once, through a joint step."""
        for leader in self.cluster.leaders():
            now = leader.configuration
            if now.outgoing:
                new = structs.replace(now, outgoing=())
            else:
                everyone = now.everyone()
                some = self.random.sample(everyone, self.random.randint(1, len(everyone)))
                voters = set(now.voters) ^ set(some)
                if not voters:
                    continue
                listening = tuple(sorted(set(now.everyone()) - voters))
                still = tuple(node for node in listening if node not in now.voters)
                new = structs.replace(now, voters=tuple(sorted(voters)), outgoing=now.voters, learners=still)
            if not new.outgoing:
                new = structs.replace(new, learners=tuple(sorted(set(now.everyone()) - set(new.voters))))
            leader.propose_entry(EntryKind.MEMBERSHIP, encode_configuration(new))
            self.cluster.check(self.cluster.servers[leader.id])

    def run(self, steps: int) -> None:
        cluster, random = self.cluster, self.random
        cluster.slow_disks = set(cluster.servers)
        actions, weights = list(self.weights), list(self.weights.values())
        if random.random() < 0.8:
            cluster.slow_disks.clear()
            cluster.await_leader()
            cluster.slow_disks = set(cluster.servers)
        for action in random.choices(actions, weights, k=steps):
            action()
            server = self.any()
            if server is not None and random.random() < 0.9:
                cluster.pump(server)
        cluster.oracle.log_matching(cluster.running())

    def await_equality(self) -> None:
        cluster = self.cluster
        for _ in range(6 * cluster.options.election_ticks):
            cluster.tick()
            if cluster.leaders() and set(cluster.commits().values()) == {cluster.leader().last_index}:
                return
        raise AssertionError(f"the cluster stays unequal: {cluster.commits()}")

    def recover(self) -> None:
        """Liveness: with everybody up and a kind network, a proposal and a read succeed everywhere."""
        cluster = self.cluster
        cluster.heal()
        cluster.slow_disks.clear()
        for server in cluster.servers.values():
            if server.node is None:
                cluster.start(server.id)
            if server.writing is not None:
                cluster.complete_write(server)
            while server.fetches:
                cluster.complete_fetch(server)
        leader = cluster.await_leader()
        before = len(cluster.oracle.committed)
        cluster.tick(2 * cluster.options.election_ticks)
        # Also without a new proposal, everybody comes to know everything (scenario 22).
        self.await_equality()
        for node_id in cluster.servers:
            while not cluster.propose(node_id, b"last"):
                cluster.tick()
        contexts = {node_id: cluster.read(node_id) for node_id in cluster.servers}
        cluster.tick(6 * cluster.options.heartbeat_ticks)
        assert len(cluster.oracle.committed) >= before + len(cluster.servers)
        self.await_equality()
        for node_id, context in contexts.items():
            assert context is not None
            assert cluster.read_result(node_id, context) is not None, f"read at {node_id} of {leader.id}"
        cluster.oracle.log_matching(cluster.running())


@pytest.mark.parametrize("block", range(15))
def test_nothing_unsafe_happens_and_the_cluster_recovers(block):
    for seed in range(block * 20, block * 20 + 20):
        chaos = Chaos(seed, TINY if seed % 2 else FAST)
        try:
            chaos.run(1000)
            chaos.recover()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
