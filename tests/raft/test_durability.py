"""Writes and promises: what is durable, and what waits for it (rule W1)."""

import pytest
from raft_cluster import entries_of

from balsadb.errors import InvariantError
from balsadb.raft.durability import Durability
from balsadb.raft.log import Log
from balsadb.raft.messages import VoteResponse
from balsadb.raft.options import Recovered
from balsadb.raft.types import HardState

VOTE = VoteResponse(1, 2, 1, True)


@pytest.fixture
def log():
    return Log(Recovered(), 0, 1 << 30)


def test_one_write_takes_everything_dirty_and_only_one_is_in_flight(log):
    disk = Durability(log, HardState())
    for entry in entries_of([1, 1]):
        log.append(entry)
    write = disk.next_write(1, 2)
    assert write is not None
    assert (write.number, len(write.entries), write.hard_state) == (1, 2, HardState(1, 2, 0))
    assert disk.next_write(2, 0) is None
    assert log.durable_index == 0
    disk.persisted(1)
    assert (log.durable_index, disk.term, disk.vote) == (2, 1, 2)


def test_an_overwritten_entry_is_durable_only_by_the_last_write_that_touched_it(log):
    disk = Durability(log, HardState(1, 0, 0))
    a, b = entries_of([1])[0], entries_of([2])[0]
    log.append(a)
    disk.next_write(1, 0)
    for entry in (b, entries_of([3])[0]):  # replaced twice while the write runs
        log.truncate(1)
        disk.truncated()
        log.append(entry)
    disk.persisted(1)
    assert log.durable_index == 0
    disk.next_write(3, 0)
    disk.persisted(2)
    assert log.durable_index == 1


def test_a_commit_index_alone_is_never_written_but_goes_along(log):
    disk = Durability(log, HardState())
    for entry in entries_of([1, 1]):
        log.append(entry)
    disk.next_write(1, 0)
    disk.persisted(1)
    log.commit_index = 1
    assert not disk.dirty(1, 0)
    log.append(entries_of([1, 1, 1])[2])
    write = disk.next_write(1, 0)
    assert write is not None
    assert write.hard_state == HardState(1, 0, 1)


def test_a_promise_waits_for_the_write_that_covers_it(log):
    disk = Durability(log, HardState())
    assert not disk.hold(VOTE, 0, 0)  # nothing is open: it may go
    assert disk.hold(VOTE, 1, 2)
    disk.next_write(1, 2)
    assert disk.persisted(1) == [VOTE]


def test_a_promise_made_during_a_write_waits_for_the_next_one_if_it_stands_on_more(log):
    disk = Durability(log, HardState())
    disk.next_write(1, 0)
    assert disk.hold(VOTE, 1, 2)
    assert disk.persisted(1) == []
    disk.next_write(1, 2)
    assert disk.persisted(2) == [VOTE]


def test_a_promise_that_the_running_write_covers_waits_for_that(log):
    disk = Durability(log, HardState())
    disk.next_write(1, 2)
    assert disk.hold(VOTE, 1, 2)
    assert disk.persisted(1) == [VOTE]


def test_the_end_of_a_write_that_is_not_in_flight_stops_the_node(log):
    with pytest.raises(InvariantError, match="write 3"):
        Durability(log, HardState()).persisted(3)
