"""Writes and promises: what is durable, and what waits for it (rule W1)."""

import pytest
from raft_cluster import entries_of

from balsadb.errors import InvariantError
from balsadb.raft.durability import Durability
from balsadb.raft.log import Log
from balsadb.raft.messages import VoteResponse
from balsadb.raft.options import Recovered
from balsadb.raft.ready import LogStart
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


def test_a_new_start_of_the_log_is_a_write_even_when_nothing_else_is(log):
    disk = Durability(log, HardState())
    assert not disk.has_write(0, 0)
    disk.start_at(LogStart(3, 1, True))
    assert disk.has_write(0, 0)
    assert not disk.dirty(0, 0), "nothing waits for it"
    write = disk.next_write(0, 0)
    assert write is not None
    assert (write.start, write.entries) == (LogStart(3, 1, True), ())
    assert not disk.has_write(0, 0)


def test_of_two_new_starts_that_no_write_has_taken_the_later_counts(log):
    disk = Durability(log, HardState())
    disk.start_at(LogStart(3, 1, True))
    disk.start_at(LogStart(5, 1, True))
    disk.start_at(LogStart(9, 2, False))
    write = disk.next_write(0, 0)
    assert write is not None
    assert write.start == LogStart(9, 2, False)


def test_entries_are_not_kept_behind_a_start_that_is_not_on_disk_yet(log):
    """What is on disk does not lead to it: the record would contradict the log."""
    disk = Durability(log, HardState())
    disk.start_at(LogStart(9, 2, False))
    with pytest.raises(InvariantError, match="is wished for before"):
        disk.start_at(LogStart(10, 2, True))


def test_a_promise_about_entries_waits_for_their_own_write_behind_the_new_start(log):
    disk = Durability(log, HardState())
    log.restart(9, 1, 0)
    disk.start_at(LogStart(9, 1, False))
    log.append(entries_of([1] * 10)[9])
    assert disk.hold(VOTE, 1, 2)
    first = disk.next_write(1, 2)
    assert first is not None
    assert first.start is not None
    assert disk.persisted(1) == []
    assert log.durable_index == 9
    second = disk.next_write(1, 2)
    assert second is not None
    assert [entry.index for entry in second.entries] == [10]
    assert disk.persisted(2) == [VOTE]
    assert log.durable_index == 10


def test_a_promise_about_the_vote_alone_goes_with_the_new_start(log):
    disk = Durability(log, HardState())
    disk.start_at(LogStart(9, 1, True))
    assert disk.hold(VOTE, 1, 2)
    write = disk.next_write(1, 2)
    assert write is not None
    assert write.hard_state == HardState(1, 2, 0)
    assert disk.persisted(1) == [VOTE]
