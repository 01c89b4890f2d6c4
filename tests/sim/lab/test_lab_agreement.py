"""The course's scenarios of agreement (Raft, part B), with their numbers, in simulated time.

"Nothing commits" is stronger here than there: no server applies the command *and* its client is not told
that it was done.
"""

from sim.lab.calls import Call, Fate
from sim.lab.cluster import ELECTION_MS, LabCluster

QUIET_MS = 2 * ELECTION_MS
"""How long nothing may commit without a quorum."""


def assert_nothing_commits(lab: LabCluster, calls: list[Call]) -> None:
    """Let time pass; commands that no majority can have must get nowhere."""
    lab.run(QUIET_MS)
    assert [lab.appliers_of(call) for call in calls] == [0] * len(calls)
    assert all(call.fate is not Fate.DONE for call in calls)


def test_basic_agree_puts_three_commands_at_consecutive_indexes(seed):
    """BasicAgree: nothing commits before a command is given, and no command needs a second attempt (2 s)."""
    with LabCluster(3, seed=seed) as lab:
        lab.check_one_leader()
        assert not lab.landed
        first = lab.one(3, retry=False)
        assert [lab.one(3, retry=False) for _ in range(2)] == [first + 1, first + 2]


def test_rpc_bytes_each_command_goes_to_each_follower_once(seed):
    """RPCBytes: 10 commands of 5,000 bytes on 3 servers cost at most 200,000 bytes on the network."""
    with LabCluster(3, seed=seed) as lab:
        lab.check_one_leader()
        lab.one(3, retry=False)
        before = lab.network.bytes_sent
        for _ in range(10):
            lab.one(3, retry=False, size=5_000)
        used = lab.network.bytes_sent - before
        assert 2 * 10 * 5_000 < used <= 3 * 10 * 5_000 + 50_000


def test_follower_failure_one_may_be_gone_and_not_both(seed):
    """FollowerFailure: with the second follower gone the next index is used and nothing commits in 2 s."""
    with LabCluster(3, seed=seed) as lab:
        lab.check_one_leader()
        lab.one(3, retry=False)
        lab.cut(lab.neighbour(lab.check_one_leader(), 1))
        lab.one(2, retry=False)
        lab.run(ELECTION_MS)
        newest = lab.one(2, retry=False)

        leader = lab.check_one_leader()
        lab.cut(lab.neighbour(leader, 1), lab.neighbour(leader, 2))
        call = lab.start(leader)
        lab.run(10)
        assert lab.last_index(leader) == newest + 1
        assert_nothing_commits(lab, [call])


def test_leader_failure_a_second_one_leaves_no_quorum(seed):
    """LeaderFailure: whoever is asked then, nothing commits in 2 s."""
    with LabCluster(3, seed=seed) as lab:
        lab.check_one_leader()
        lab.one(3, retry=False)
        lab.cut(lab.check_one_leader())
        lab.one(2)
        lab.run(ELECTION_MS)
        lab.one(2, retry=False)
        lab.cut(lab.check_one_leader())
        assert_nothing_commits(lab, [lab.start(node) for node in lab.servers])


def test_fail_agree_a_follower_that_was_cut_off_catches_up(seed):
    """FailAgree: 7 commands, 4 of them while one follower is away."""
    with LabCluster(3, seed=seed) as lab:
        lab.one(3, retry=False)
        follower = lab.neighbour(lab.check_one_leader(), 1)
        lab.cut(follower)
        lab.one(2, retry=False)
        lab.one(2, retry=False)
        lab.run(ELECTION_MS)
        lab.one(2, retry=False)
        lab.one(2, retry=False)
        lab.connect(follower)
        lab.one(3)
        lab.run(ELECTION_MS)
        lab.one(3)


def test_fail_no_agree_with_three_of_five_cut_off(seed):
    """FailNoAgree: the command that found no quorum is overwritten, or comes after all, but only once.

    The original demands index 2 for it, and 2 or 3 for the next one. Here a new leader adds an entry of its
    own, and the server that was asked proposes a lost command anew as long as its client waits.
    """
    with LabCluster(5, seed=seed) as lab:
        lab.one(5, retry=False)
        leader = lab.check_one_leader()
        lab.cut(*(lab.neighbour(leader, steps) for steps in (1, 2, 3)))
        before = lab.last_index(leader)
        call = lab.start(leader)
        lab.run(10)
        assert lab.last_index(leader) == before + 1
        assert_nothing_commits(lab, [call])

        lab.heal()
        index = lab.one(5)
        assert before + 1 <= index <= before + 4
        assert lab.wait(lambda: call.over, 1_000)
        lab.one(5)


def test_concurrent_starts_in_one_term_all_commit(seed):
    """ConcurrentStarts: 5 at once; nothing fails here, so there is one try and the term must not move."""
    with LabCluster(3, seed=seed) as lab:
        leader = lab.check_one_leader()
        term = lab.check_terms()
        calls = [lab.start(leader) for _ in range(5)]
        assert lab.all_applied(calls, 3, 3_000)
        assert lab.wait(lambda: all(call.fate is Fate.DONE for call in calls), 100)
        assert lab.check_terms() == term


def test_rejoin_of_a_leader_with_entries_that_nobody_has(seed):
    """Rejoin: three entries of a cut off leader give way to the log of the others."""
    with LabCluster(3, seed=seed) as lab:
        lab.one(3)
        first = lab.check_one_leader()
        lab.cut(first)
        lonely = lab.last_index(first)
        lab.start_many(first, 3)
        assert lab.last_index(first) == lonely + 3
        lab.one(2)
        second = lab.check_one_leader()

        lab.cut(second)
        lab.connect(first)
        lab.one(2)
        lab.connect(second)
        lab.one(3)


def test_backup_over_many_wrong_entries_is_fast(seed):
    """Backup: 50 wrong entries twice, 50 right ones twice; agreement after each within the testers' 10 s."""
    with LabCluster(5, seed=seed) as lab:
        lab.one(5)
        first = lab.check_one_leader()
        ring = [lab.neighbour(first, steps) for steps in range(5)]
        lab.cut(*ring[2:])
        before = lab.last_index(first)
        lab.start_many(first, 50)
        lab.run(ELECTION_MS / 2)
        assert [lab.last_index(node) for node in ring[:2]] == [before + 50] * 2

        # The other three go on; 50 entries of theirs are right.
        lab.partition(ring[2:])
        for _ in range(50):
            lab.one(3)
        second = lab.check_one_leader()
        other = next(node for node in ring[2:] if node != second)
        lab.cut(other)
        before = lab.last_index(second)
        lab.start_many(second, 50)
        lab.run(ELECTION_MS / 2)
        assert lab.last_index(second) == before + 50

        # Only the first two and one of the others are left. Its log is the right one.
        lab.partition([*ring[:2], other])
        for _ in range(50):
            lab.one(3)
        lab.heal()
        lab.one(5)


def test_count_messages_of_an_election_of_commands_and_of_idleness(seed):
    """Count: an election costs 1 to 30 calls, 12 commands at most 42, an idle second at most 60."""
    with LabCluster(3, seed=seed) as lab:
        leader = lab.check_one_leader()
        assert 1 <= lab.network.calls <= 30

        lab.one(3, retry=False)
        before = lab.network.calls
        calls = lab.start_many(leader, 12)
        assert lab.all_applied(calls, 3, 2_000)
        used = lab.network.calls - before
        assert 2 <= used <= (10 + 1 + 3) * 3
        assert lab.leader() == leader

        before = lab.network.calls
        lab.run(1_000)
        assert 2 <= lab.network.calls - before <= 3 * 20
