"""The course's key-value scenarios without snapshots, with their numbers, in simulated time.

In the general ones (`generic.py`) as much must be answered as in the course's own sample run, or ten
operations a second on the lossy network.
"""

from __future__ import annotations

import pytest

from balsadb.sim.history import Action
from sim.lab.calls import Call, Fate
from sim.lab.clerks import Clerk
from sim.lab.cluster import ELECTION_MS, LabCluster
from sim.lab.generic import LOSSY, run_generic

SPEED_MS = 1_000 * 100 / 3
"""1,000 operations, three per heartbeat of 100 ms."""


def test_basic_one_client(seed):
    """Basic."""
    run_generic(seed, 1, 5, 903)


def test_speed_a_thousand_appends_in_a_row(seed):
    """Speed: at most 33.3 ms for an append, one after the other; all in order.

    Simulated time passes only where the protocol waits: this finds an operation that waits for a heartbeat.
    """
    with LabCluster(3, seed=seed) as lab:
        lab.check_one_leader()
        clerk, expected = Clerk(lab), b""
        began = lab.now_ms
        for number in range(1_000):
            value = b"%04d," % number
            expected += value
            assert clerk.do(Action.APPEND, b"speed", value).reply == len(expected)
        assert lab.now_ms - began <= SPEED_MS
        assert clerk.do(Action.GET, b"speed").reply == expected


@pytest.mark.slow
def test_concurrent_many_clients(seed):
    """Concurrent."""
    run_generic(seed, 5, 5, 1_160)


def test_unreliable_many_clients_on_a_lossy_network(seed):
    """Unreliable."""
    run_generic(seed, 5, 5, LOSSY, unreliable=True)


def test_unreliable_one_key_that_all_clients_append_to(seed):
    """UnreliableOneKey: 10 acknowledged appends of each of 5 clients, each once, in the client's order."""
    key = b"one"
    with LabCluster(3, unreliable=True, seed=seed) as lab:
        lab.check_one_leader()
        acknowledged: dict[int, list[bytes]] = {number: [] for number in range(5)}

        def append(client: int, clerk: Clerk) -> None:
            def ended(call: Call) -> None:
                if call.fate is Fate.DONE:
                    acknowledged[client].append(call.argument)
                if len(acknowledged[client]) < 10:
                    append(client, clerk)

            clerk.ask(Action.APPEND, key, lab.new_value(), ended)

        for client in acknowledged:
            append(client, Clerk(lab))
        assert lab.wait(lambda: all(len(values) == 10 for values in acknowledged.values()), 30_000)
        value = Clerk(lab).do(Action.GET, key).reply
        assert isinstance(value, bytes)
        for values in acknowledged.values():
            places = [value.index(piece) for piece in values]
            assert places == sorted(places)
            assert all(value.count(piece) == 1 for piece in values)


def test_one_partition_only_the_majority_serves(seed):
    """OnePartition: asked for 1 s, the leader's minority neither puts nor answers a read, on either server.

    One second after the partition ends, both finish within 3 s. (In the original a read that never finishes
    passes.)
    """
    key = b"1"
    with LabCluster(5, seed=seed) as lab:
        leader = lab.check_one_leader()
        ring = [lab.neighbour(leader, steps) for steps in range(5)]
        minority, majority = ring[:2], ring[2:]
        Clerk(lab).do(Action.PUT, key, b"13")

        lab.partition(majority, minority)
        # Asked at once, while the old leader still believes to lead; the original asks after the next put.
        reads = [Clerk(lab, [node]).start(Action.GET, key) for node in minority]
        rest = Clerk(lab, majority)
        assert rest.do(Action.PUT, key, b"14").fate is Fate.DONE
        put = Clerk(lab, minority, repeats_puts=True).start(Action.PUT, key, b"15")
        lab.run(1_000)
        assert not put
        assert not any(reads)
        assert rest.do(Action.GET, key).reply == b"14"
        assert rest.do(Action.PUT, key, b"16").fate is Fate.DONE
        assert rest.do(Action.GET, key).reply == b"16"

        lab.heal()
        lab.run(ELECTION_MS)
        assert lab.wait(lambda: bool(put) and all(reads), 3_000)
        assert put[0].fate is Fate.DONE
        assert {got[0].reply for got in reads} <= {b"15", b"16"}
        assert Clerk(lab).do(Action.GET, key).reply == b"15"


@pytest.mark.slow
def test_many_partitions_one_client(seed):
    """ManyPartitionsOneClient."""
    run_generic(seed, 1, 5, 765, partitions=True)


@pytest.mark.slow
def test_many_partitions_many_clients(seed):
    """ManyPartitionsManyClients."""
    run_generic(seed, 5, 5, 974, partitions=True)


@pytest.mark.slow
def test_persist_one_client(seed):
    """PersistOneClient."""
    run_generic(seed, 1, 5, 908, crash=True)


@pytest.mark.slow
def test_persist_concurrent(seed):
    """PersistConcurrent."""
    run_generic(seed, 5, 5, 1_033, crash=True)


@pytest.mark.slow
def test_persist_concurrent_unreliable(seed):
    """PersistConcurrentUnreliable."""
    run_generic(seed, 5, 5, LOSSY, crash=True, unreliable=True)


@pytest.mark.slow
def test_persist_partition(seed):
    """PersistPartition."""
    run_generic(seed, 5, 5, 1_060, crash=True, partitions=True)


@pytest.mark.slow
def test_persist_partition_unreliable(seed):
    """PersistPartitionUnreliable."""
    run_generic(seed, 5, 5, LOSSY, crash=True, partitions=True, unreliable=True)


@pytest.mark.slow
def test_persist_partition_unreliable_linearizable(seed):
    """PersistPartitionUnreliableLinearizable: 15 clients on 15 shared keys, 7 servers."""
    run_generic(seed, 15, 7, LOSSY, crash=True, partitions=True, unreliable=True, shared_keys=True)
