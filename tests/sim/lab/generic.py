"""What most key-value scenarios are: the testers' GenericTest.

Each runs 3 rounds of 5 s. What is demanded: every read of a client's own key equals what the client wrote,
every acknowledged append is there once and in order, the whole history is linearizable (a checker that gives
up has failed), and every client gets something done in every round, all of them as much as the scenario says.
On the lossy network it is ten operations a second: there a command that a follower hands on to the leader
waits half a second when it is lost or overtaken, since between real servers a connection neither loses nor
reorders.
"""

from __future__ import annotations

from sim.lab.clerks import Worker
from sim.lab.cluster import ELECTION_MS, LabCluster

ROUNDS = 3
ROUND_MS = 5_000
LOSSY = ROUNDS * ROUND_MS // 100
"""Operations that are answered at least on the lossy network."""


class Splitter:
    """Splits the servers at random into two parts, anew every 1.0 to 1.2 s."""

    def __init__(self, lab: LabCluster) -> None:
        self._lab = lab
        self.active = False

    def split(self) -> None:
        """Split now, and again later, while active."""
        if not self.active:
            return
        lab = self._lab
        parts: tuple[list[int], list[int]] = ([], [])
        for node in lab.servers:
            lab.rng.choice(parts).append(node)
        lab.partition(*parts)
        lab.scheduler.after(1_000_000 + lab.rng.randrange(200_000), self.split)


def run_generic(
    seed: int,
    clients: int,
    servers: int,
    operations: int,
    *,
    unreliable: bool = False,
    crash: bool = False,
    partitions: bool = False,
    shared_keys: bool = False,
    snapshots: bool = False,
    pace: int = 1,
) -> LabCluster:
    """Run GenericTest; so many operations must be answered. With a `pace` of 3 clients wait thrice as long.

    Harsher than the original: clients go on while the partitions end and while all servers are down.
    """
    with LabCluster(servers, unreliable=unreliable, snapshots=snapshots, seed=seed) as lab:
        keys = [b"key %d" % number for number in range(clients)] if shared_keys else None
        workers = [Worker(lab, number, pace * clients, keys) for number in range(1, clients + 1)]
        lab.check_one_leader()
        for worker in workers:
            worker.go()
        splitter = Splitter(lab)
        for _ in range(ROUNDS):
            before = [worker.done for worker in workers]
            if partitions:
                lab.run(ELECTION_MS)
                splitter.active = True
                splitter.split()
            lab.run(ROUND_MS)
            splitter.active = False
            if partitions:
                lab.heal()
                lab.run(ELECTION_MS)
            if crash:
                lab.crash(*lab.servers)
                lab.run(ELECTION_MS)
                lab.restart(*lab.servers)
                lab.run(ELECTION_MS)
            if snapshots:
                lab.check_log_bytes()
            assert all(worker.done > done for worker, done in zip(workers, before, strict=True))
        assert sum(worker.done for worker in workers) >= operations
    return lab
