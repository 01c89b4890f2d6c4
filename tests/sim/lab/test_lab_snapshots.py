"""The course's scenarios of snapshots (Raft, part D), with their numbers, in simulated time.

The testers' service takes a snapshot every ten entries and watches what Raft saves; here a server does that
by itself, as the log grows (`LOG_BYTES_MAX`), and what is watched are the files on its disk. Commands are
long enough for ten of them to fill about a log, so that here, too, each round brings about one snapshot.
"""

from sim.lab.cluster import AGREEMENT_MS, ELECTION_MS, LabCluster

ITERATIONS = 30
INTERVAL = 10
"""Entries after which the testers take a snapshot."""
SIZE = 700
"""Bytes of a command, which takes two sectors with what belongs to it. Writes of three would leave so much of
each small segment empty that this would be measured, and not the log."""
WRITTEN_MS = 100
"""Within this all cuts are written and old segments removed: a burst brings a whole log faster than that."""


def burst(lab: LabCluster) -> int:
    """Draw how many commands a round has: 5 to 14."""
    return INTERVAL // 2 + lab.rng.randrange(INTERVAL)


def test_snapshot_basic_nobody_who_keeps_up_is_sent_a_state(seed):
    """SnapshotBasic: 30 times 5 to 14 commands and one; the log is let go and no state travels."""
    with LabCluster(3, snapshots=True, seed=seed) as lab:
        lab.one(3, size=SIZE)
        for _ in range(ITERATIONS):
            leader = lab.check_one_leader()
            calls = lab.start_many(leader, burst(lab), SIZE)
            assert lab.all_applied(calls, 3, AGREEMENT_MS)
            lab.one(3, size=SIZE)
            lab.check_log_bytes()
        assert all(server.state.bookkeeping is not None for server in lab.servers.values())
        assert (lab.states_sent, lab.installs) == (0, 0)


def run_snapshots(seed: int, *, unreliable: bool = False, crash: bool = False) -> None:
    """Let servers miss commands, whose log may be gone when they return.

    In every third round it is the leader who is away, else a follower. Not every round is long enough for the
    log to be gone; that a server did need the state is demanded of a third of all rounds.
    """
    with LabCluster(3, unreliable=unreliable, snapshots=True, seed=seed) as lab:
        lab.one(3, size=SIZE)
        leader = lab.check_one_leader()
        for round_ in range(ITERATIONS):
            victim, sender = lab.neighbour(leader, 1), leader
            if round_ % 3 == 1:
                victim, sender = sender, victim
            if crash:
                lab.crash(victim)
            else:
                lab.cut(victim)
            lab.one(2, size=SIZE)
            lab.start_many(sender, burst(lab), SIZE)
            lab.one(2, size=SIZE)
            lab.run(WRITTEN_MS)
            lab.check_log_bytes()
            if crash:
                lab.restart(victim)
            else:
                lab.connect(victim)
            lab.one(3, size=SIZE)
            leader = lab.check_one_leader()
        lab.check_log_bytes()
        assert lab.installs >= ITERATIONS // 3


def test_snapshot_install_by_who_was_cut_off(seed):
    """SnapshotInstall."""
    run_snapshots(seed)


def test_snapshot_install_unreliable(seed):
    """SnapshotInstallUnreliable."""
    run_snapshots(seed, unreliable=True)


def test_snapshot_install_crash(seed):
    """SnapshotInstallCrash."""
    run_snapshots(seed, crash=True)


def test_snapshot_install_crash_unreliable(seed):
    """SnapshotInstallUnCrash."""
    run_snapshots(seed, crash=True, unreliable=True)


def test_snapshot_all_crash(seed):
    """SnapshotAllCrash: 5 rounds of 5 to 14 commands and a crash of all; indexes never go back."""
    with LabCluster(3, snapshots=True, seed=seed) as lab:
        lab.one(3, size=SIZE)
        for _ in range(5):
            for _ in range(burst(lab)):
                lab.one(3, size=SIZE)
            before = lab.one(3, size=SIZE)
            lab.crash(*lab.servers)
            lab.restart(*lab.servers)
            assert lab.one(3, size=SIZE) >= before + 1
            lab.check_log_bytes()
        assert all(server.state.bookkeeping is not None for server in lab.servers.values())


def test_snapshot_init_a_state_outlives_two_restarts(seed):
    """SnapshotInit: 11 commands, a restart of all, one command, another restart: nothing is lost."""
    with LabCluster(3, snapshots=True, seed=seed) as lab:
        for _ in range(INTERVAL + 1):
            lab.one(3, size=SIZE)
        lab.run(ELECTION_MS)
        indexes = []
        for _ in range(2):
            lab.crash(*lab.servers)
            lab.restart(*lab.servers)
            states = [server.state.bookkeeping for server in lab.servers.values()]
            assert all(states)
            indexes.append([state.index for state in states])
            lab.one(3, size=SIZE)
        assert all(second >= first > 0 for first, second in zip(*indexes, strict=True))
