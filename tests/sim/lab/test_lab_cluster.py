"""The tools of the scenarios fail when they should."""

import pytest

from balsadb.sim.failures import SafetyViolation
from balsadb.sim.history import Action
from sim.lab.calls import Fate
from sim.lab.clerks import Clerk
from sim.lab.cluster import KEY, LabCluster


def started(servers: int, **options) -> LabCluster:
    """Return a cluster with a leader, whose end nobody judges."""
    lab = LabCluster(servers, **options).__enter__()
    lab.check_one_leader()
    return lab


def test_one_fails_without_a_quorum():
    lab = started(3)
    lab.cut(lab.neighbour(lab.check_one_leader(), 1), lab.neighbour(lab.check_one_leader(), 2))
    with pytest.raises(AssertionError, match="did not agree"):
        lab.one(2)


def test_a_leader_is_missed_when_nobody_is_connected_to_a_quorum():
    lab = started(3)
    lab.partition({1}, {2}, {3})
    lab.run(2_000)
    with pytest.raises(AssertionError, match="leads"):
        lab.check_one_leader()


def test_who_crashes_stays_down_until_restarted():
    lab = started(3)
    lab.crash(2)
    lab.run(5_000)
    assert not lab.is_up(2)
    lab.restart(2)
    assert lab.is_up(2)
    lab.one(3)


def test_a_call_to_a_server_that_crashes_stays_open():
    lab = started(3)
    leader = lab.check_one_leader()
    call = lab.start(leader)
    lab.crash(leader)
    assert call.fate is Fate.OPEN


def test_on_the_unreliable_network_calls_get_lost_and_servers_messages_too():
    lab = started(3, unreliable=True)
    clerk = Clerk(lab)
    fates = {clerk.do(Action.APPEND, KEY, lab.new_value()).fate for _ in range(50)}
    assert fates == {Fate.DONE, Fate.OPEN}
    assert 0.05 < lab.network.lost / lab.network.sent < 0.15


def test_the_end_finds_what_a_client_was_told_and_is_not_there():
    lab = started(3)
    lab.one(3)
    call = lab.start(lab.check_one_leader())
    lab.run(100)
    assert call.fate is Fate.DONE
    told = lab.calls.history[-1]
    lab.calls.history[-1] = type(told)(1, Action.APPEND, KEY, b"999999,", 16, told.called, told.returned)
    with pytest.raises(SafetyViolation):
        lab.finish()


def test_a_log_that_nobody_lets_go_is_too_long():
    lab = started(3)
    for _ in range(60):
        lab.one(3, size=700)
    with pytest.raises(AssertionError, match="the log of server 1 takes"):
        lab.check_log_bytes()


def test_with_snapshots_a_server_that_was_away_counts_as_applier_of_what_came_with_the_state():
    lab = started(3, snapshots=True)
    lab.cut(3)
    call = lab.start(lab.check_one_leader())
    for _ in range(40):
        lab.one(2, size=700)
    assert lab.appliers_of(call) < 3
    lab.connect(3)
    assert lab.wait(lambda: lab.installs == 1, 5_000)
    assert lab.appliers_of(call) == 3
    lab.check_log_bytes()
