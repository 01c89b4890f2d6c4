"""The course's key-value scenarios with snapshots (part B), with their numbers, in simulated time.

In the general ones (`generic.py`) the files of every server's log are measured after each round. Clients wait
between operations as in part A, so what must be answered are the numbers of its sample run; those of part B
were made with clients that never wait.
"""

import pytest

from balsadb.sim.history import Action
from sim.lab.calls import Fate
from sim.lab.clerks import Clerk
from sim.lab.cluster import ELECTION_MS, LabCluster
from sim.lab.generic import LOSSY, run_generic

SPEED_MS = 1_000 * 100 / 3
"""1,000 operations, three per heartbeat of 100 ms."""
STATE_BYTES_MAX = 500
"""The state of one small key."""


def test_snapshot_rpc_a_server_that_was_cut_off_needs_the_state(seed):
    """SnapshotRPC: 51 puts without it; then it serves in a majority of two, with the state it was sent."""
    with LabCluster(3, snapshots=True, seed=seed) as lab:
        lab.check_one_leader()
        assert Clerk(lab).do(Action.PUT, b"a", b"A").fate is Fate.DONE

        lab.partition({1, 2}, {3})
        clerk = Clerk(lab, [1, 2], repeats_puts=True)
        for number in range(50):
            clerk.do(Action.PUT, b"%d" % number, b"%d" % number)
        lab.run(ELECTION_MS)
        clerk.do(Action.PUT, b"b", b"B")
        lab.check_log_bytes()
        assert lab.installs == 0

        lab.partition({1, 3}, {2})
        clerk = Clerk(lab, [1, 3], repeats_puts=True)
        clerk.do(Action.PUT, b"c", b"C")
        clerk.do(Action.PUT, b"d", b"D")
        for key, value in ((b"a", b"A"), (b"b", b"B"), (b"1", b"1"), (b"49", b"49")):
            assert Clerk(lab, [3]).do(Action.GET, key).reply == value
        assert lab.servers[3].installs == 1

        lab.heal()
        Clerk(lab, repeats_puts=True).do(Action.PUT, b"e", b"E")
        for key, value in ((b"c", b"C"), (b"e", b"E"), (b"1", b"1")):
            assert Clerk(lab).do(Action.GET, key).reply == value


def test_snapshot_size_of_one_key_is_small(seed):
    """SnapshotSize: 400 puts and reads of one key leave a short log and a state of at most 500 bytes."""
    with LabCluster(3, snapshots=True, seed=seed) as lab:
        clerk = Clerk(lab)
        for number in range(200):
            for value in (b"%d" % number, b"%d" % (number + 1_000)):
                assert clerk.do(Action.PUT, b"x", value).fate is Fate.DONE
                assert clerk.do(Action.GET, b"x").reply == value
        lab.check_log_bytes()
        assert all(0 < lab.state_bytes(node) <= STATE_BYTES_MAX for node in lab.servers)


def test_speed_a_thousand_appends_in_a_row_with_snapshots(seed):
    """Speed: at most 33.3 ms for an append, one after the other, though the log is let go all the time."""
    with LabCluster(3, snapshots=True, seed=seed) as lab:
        lab.check_one_leader()
        clerk, length = Clerk(lab), 0
        began = lab.now_ms
        for number in range(1_000):
            length += 5
            assert clerk.do(Action.APPEND, b"speed", b"%04d," % number).reply == length
        assert lab.now_ms - began <= SPEED_MS
        lab.check_log_bytes()


@pytest.mark.slow
def test_snapshot_recover_one_client(seed):
    """SnapshotRecover."""
    run_generic(seed, 1, 5, 908, snapshots=True, crash=True)


@pytest.mark.slow
def test_snapshot_recover_many_clients(seed):
    """SnapshotRecoverManyClients."""
    run_generic(seed, 20, 5, 1_033, snapshots=True, crash=True, pace=3)


@pytest.mark.slow
def test_snapshot_unreliable(seed):
    """SnapshotUnreliable."""
    run_generic(seed, 5, 5, LOSSY, snapshots=True, unreliable=True)


@pytest.mark.slow
def test_snapshot_unreliable_recover(seed):
    """SnapshotUnreliableRecover."""
    run_generic(seed, 5, 5, LOSSY, snapshots=True, unreliable=True, crash=True)


@pytest.mark.slow
def test_snapshot_unreliable_recover_concurrent_partition(seed):
    """SnapshotUnreliableRecoverConcurrentPartition.

    A minority misses little here in a second of this network, so nobody has to need a state.
    """
    run_generic(seed, 5, 5, LOSSY, snapshots=True, unreliable=True, crash=True, partitions=True)


@pytest.mark.slow
def test_snapshot_unreliable_recover_concurrent_partition_linearizable(seed):
    """SnapshotUnreliableRecoverConcurrentPartitionLinearizable: 15 clients on 15 shared keys, 7 servers.

    With so many clients a minority falls behind the log, and has to be sent the state.
    """
    lab = run_generic(
        seed,
        15,
        7,
        LOSSY,
        snapshots=True,
        unreliable=True,
        crash=True,
        partitions=True,
        shared_keys=True,
    )
    assert lab.installs > 0
