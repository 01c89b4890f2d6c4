"""The course's scenarios of a replicated state machine (rsm), with their numbers, in simulated time.

Its counter is a value here that every operation makes longer by one record; the answer says how long it is,
so an operation that is lost, doubled or confused with another one shows. `Submit` is a request at the server
that leads.
"""

from balsadb.raft.types import NodeId
from balsadb.sim.history import Action
from sim.lab.calls import Call, Fate
from sim.lab.cluster import KEY, LabCluster

RECORD_BYTES = 7
"""Length of each record."""


def count(call: Call) -> int:
    """Return what the counter was right after an operation."""
    assert isinstance(call.reply, int), call.reply
    assert call.reply % RECORD_BYTES == 0
    return call.reply // RECORD_BYTES


def finish(lab: LabCluster, calls: list[Call], milliseconds: float = 2_000) -> list[int]:
    """Wait until all calls are answered, and return their counts."""
    assert lab.wait(lambda: all(call.over for call in calls), milliseconds)
    assert {call.fate for call in calls} == {Fate.DONE}
    return [count(call) for call in calls]


def read_everywhere(lab: LabCluster) -> int:
    """Ask every server for the counter; all must say the same."""
    calls = [lab.calls.start(node, Action.GET, KEY) for node in lab.servers]
    assert lab.wait(lambda: all(call.over for call in calls), 2_000)
    values = {call.reply for call in calls}
    assert len(values) == 1, f"servers hold {values}"
    value = values.pop()
    assert isinstance(value, bytes)
    return len(value) // RECORD_BYTES


def restart_all(lab: LabCluster) -> NodeId:
    """Crash everybody, wait 1 s, start everybody; return who leads then."""
    lab.crash(*lab.servers)
    lab.run(1_000)
    lab.restart(*lab.servers)
    return lab.check_one_leader()


def test_basic_ten_increments(seed):
    """Basic: each is applied on all servers, with the right result."""
    with LabCluster(3, seed=seed) as lab:
        leader = lab.check_one_leader()
        for number in range(1, 11):
            call = lab.start(leader)
            assert finish(lab, [call]) == [number]
            assert lab.all_applied([call], 3, 1_000)
        assert read_everywhere(lab) == 10


def test_concurrent_fifty_submissions(seed):
    """Concurrent: 50 at once, each with a count of its own."""
    with LabCluster(3, seed=seed) as lab:
        leader = lab.check_one_leader()
        calls = [lab.start(leader) for _ in range(50)]
        assert sorted(finish(lab, calls)) == list(range(1, 51))
        assert lab.all_applied(calls, 3, 1_000)
        assert read_everywhere(lab) == 50


def test_leader_failure_it_catches_up_on_return(seed):
    """LeaderFailure: one operation before, one while the leader is cut off, one after."""
    with LabCluster(3, seed=seed) as lab:
        first = lab.check_one_leader()
        assert finish(lab, [lab.start(first)]) == [1]
        lab.cut(first)
        second = lab.check_one_leader()
        assert second != first
        call = lab.start(second)
        assert finish(lab, [call]) == [2]
        lab.connect(first)
        assert lab.all_applied([call], 3, 1_000)
        assert finish(lab, [lab.start(lab.check_one_leader())]) == [3]
        assert read_everywhere(lab) == 3


def test_leader_partition_a_hundred_submissions_get_nowhere(seed):
    """LeaderPartition: 100 at a cut off leader neither commit nor return for 1 s; in the next, all return.

    There they return an error. Here the server still has 1.5 s to bring them into the log of the new leader,
    so all of them are done, each once.
    """
    with LabCluster(3, seed=seed) as lab:
        old = lab.check_one_leader()
        assert finish(lab, [lab.start(old)]) == [1]
        lab.cut(old)
        before = lab.last_index(old)
        calls = [lab.start(old) for _ in range(100)]
        lab.run(1_000)
        assert lab.last_index(old) > before
        assert not any(call.over for call in calls)
        assert [lab.appliers_of(call) for call in calls] == [0] * 100

        assert finish(lab, [lab.start(lab.check_one_leader())]) == [2]
        lab.connect(old)
        assert lab.wait(lambda: all(call.over for call in calls), 1_000)
        assert sorted(finish(lab, calls)) == list(range(3, 103))
        assert read_everywhere(lab) == 102


def test_restart_replay_of_a_hundred_operations(seed):
    """RestartReplay: after a full restart operation 101 counts 101; the servers are down for 1 s."""
    with LabCluster(3, seed=seed) as lab:
        leader = lab.check_one_leader()
        for number in range(1, 101):
            assert finish(lab, [lab.start(leader)]) == [number]
        leader = restart_all(lab)
        assert finish(lab, [lab.start(leader)]) == [101]
        assert read_everywhere(lab) == 101


def test_shutdown_answers_a_hundred_pending_submissions(seed):
    """Shutdown: all return. There within 11 s; here a server that leaves answers everything at once."""
    with LabCluster(3, seed=seed) as lab:
        leader = lab.check_one_leader()
        calls = [lab.start(leader) for _ in range(100)]
        lab.run(0.3)
        assert not all(call.over for call in calls)
        lab.shut_down(*lab.servers)
        assert all(call.over for call in calls)
        assert all(call.fate is Fate.DONE or call.reply is not None for call in calls)


def test_restart_submit_keeps_old_and_new_operations_apart(seed):
    """RestartSubmit: 100 operations, a restart, 100 more that a shutdown interrupts, another restart."""
    with LabCluster(3, seed=seed) as lab:
        leader = lab.check_one_leader()
        for number in range(1, 101):
            assert finish(lab, [lab.start(leader)]) == [number]
        leader = restart_all(lab)
        assert finish(lab, [lab.start(leader)]) == [101]

        pending = [lab.start(leader) for _ in range(100)]
        lab.run(lab.rng.random() * 3)
        lab.shut_down(*lab.servers)
        assert all(call.over for call in pending)
        done = [count(call) for call in pending if call.fate is Fate.DONE]
        assert all(102 <= number <= 201 for number in done)

        lab.run(1_000)
        lab.restart(*lab.servers)
        (number,) = finish(lab, [lab.start(lab.check_one_leader())])
        # All or none of those whose outcome is open may have happened: nothing else may be counted.
        assert 102 + len(done) <= number <= 202
        assert read_everywhere(lab) == number


def test_snapshot_4c_a_restart_from_the_state(seed):
    """Snapshot4C: after 100 operations the log is short, and a full restart begins with the state."""
    with LabCluster(3, snapshots=True, seed=seed) as lab:
        leader = lab.check_one_leader()
        for number in range(1, 101):
            assert finish(lab, [lab.start(leader)]) == [number]
        lab.check_log_bytes()
        leader = restart_all(lab)
        assert all(server.state.bookkeeping is not None for server in lab.servers.values())
        assert finish(lab, [lab.start(leader)]) == [101]
        assert read_everywhere(lab) == 101
        lab.check_log_bytes()
