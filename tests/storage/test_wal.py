"""Plan, execute, complete, read: what one write does, and what may happen beside it."""

import threading
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_files import MemoryFiles
from wal_kit import SMALL, STORE, WAL, Log, entries, entry, recover

from balsadb.errors import DataError, InvariantError, StorageError
from balsadb.raft.ready import WriteBatch
from balsadb.raft.types import HardState
from balsadb.storage.files import OsFiles
from balsadb.storage.wal import Wal, WalOptions

BIG = WalOptions(segment_bytes=1 << 20)


@pytest.fixture
def log():
    return Log()


# ----------------------------------------------------------------------------------- one write


def test_a_batch_costs_one_write_and_one_sync(log):
    before = len(log.memory.operations)
    log.write(*entries(1, 20), state=HardState(1, 1, 0))
    assert [op.split()[0] for op in log.memory.operations[before:]] == ["write", "sync"]


def test_entries_lie_on_disk_in_the_bytes_they_came_in(log):
    one = entry(1, size=777)
    log.write(one)
    assert one.encoded in bytes(log.memory.content(log.segment()))


def test_a_batch_begins_and_ends_on_a_sector(log):
    for size in (0, 1, 400, 449, 450, 512, 5000):
        write = log.write(entry(len(log.entries) + 1, size=size))
        assert write.offset % 512 == write.length % 512 == 0


def test_a_write_without_entries_keeps_the_log(log):
    log.write(*entries(1, 3))
    log.write(state=HardState(4, 2, 1))
    recovered, found = recover(log.memory)
    assert (recovered.hard_state, found) == (HardState(4, 2, 1), log.entries)


def test_the_number_is_that_of_the_batch_it_came_from(log):
    assert log.wal.plan(WriteBatch(17, (entry(1),), None)).number == 17


def test_only_one_write_is_under_way(log):
    log.plan(entry(1))
    with pytest.raises(InvariantError, match="under way"):
        log.plan(entry(2))


def test_a_write_that_was_not_planned_last_is_not_completed(log):
    write = log.write(entry(1))
    with pytest.raises(InvariantError, match="was not under way"):
        log.wal.complete(write)


def test_a_gap_is_refused(log):
    with pytest.raises(InvariantError, match="begins at entry 2"):
        log.plan(entry(2))


def test_an_entry_is_found_only_once_its_write_is_complete(log):
    write = log.plan(entry(1))
    log.wal.execute(write)
    assert log.wal.read(1, 1, 100) == []
    log.wal.complete(write)
    assert log.wal.read(1, 1, 100) == [entry(1)]


def test_a_batch_of_more_records_than_one_system_call_takes(tmp_path):
    log = Log(OsFiles(), BIG, str(tmp_path))
    log.write(*entries(1, 3000, size=5))
    assert log.read_all() == log.entries
    log.wal.close()


# ----------------------------------------------------------------------------------- segments


def test_a_full_segment_is_followed_by_one_that_repeats_what_is_in_force(log):
    log.write(entry(1), state=HardState(3, 2, 1))
    log.write(*entries(2, 30, term=3, size=300))
    assert len(log.segments) == 2
    # Rule W2: with the older segment gone the vote is still known, from the newer one's header.
    path = log.segment()
    from balsadb.storage.records import decode_segment_header

    header = decode_segment_header(bytes(log.memory.content(path)))
    assert header is not None
    assert header.hard_state == HardState(3, 2, 1)
    assert header.first_index == 2


def test_a_batch_larger_than_a_segment_gets_one_of_its_own_size(log):
    log.write(entry(1))
    log.write(entry(2, size=50_000))
    log.write(entry(3))
    assert log.read_all() == log.entries
    recovered, found = recover(log.memory)
    assert (recovered.last_index, found) == (3, log.entries)
    sizes = [len(log.memory.content(path)) for path in log.segments]
    assert sizes[0] == 8192
    assert 50_000 < sizes[1] < 52_000
    assert sizes[2] == 8192


def test_every_segment_is_filled_and_synced_before_it_gets_its_name(log):
    before = len(log.memory.operations)
    log.write(*entries(1, 30, size=300))
    assert [op.split()[0] for op in log.memory.operations[before:]] == [
        *("create", "write", "sync"),  # zeros
        *("write", "sync"),  # header
        *("rename", "sync-directory"),
        *("write", "sync"),  # the end of the log is noted
        *("write", "sync"),  # batch
    ]


def test_a_prepared_segment_is_used_and_saves_the_filling(log):
    log.write(*entries(1, 20, size=300))
    assert log.wal.prepare_due
    log.wal.prepare()
    assert not log.wal.prepare_due
    before = len(log.memory.operations)
    log.write(*entries(21, 40, size=300))
    assert "create" not in " ".join(log.memory.operations[before:])
    log.wal.prepare()
    assert log.memory.list(WAL) == [
        "0000000001-00000000000000000001.wal",
        "0000000002-00000000000000000021.wal",
        "END",
        "spare.tmp",
    ]
    assert log.reopen().last_index == 40


def test_a_prepared_segment_too_small_for_a_batch_is_kept_for_the_next(log):
    log.write(*entries(1, 20, size=300))
    log.wal.prepare()
    log.write(entry(21, size=20_000))
    assert "spare.tmp" in log.memory.list(WAL)
    log.write(*entries(22, 40, size=300))
    assert "spare.tmp" not in log.memory.list(WAL)
    assert recover(log.memory)[1] == log.entries


def test_nothing_is_prepared_while_the_segment_is_mostly_empty(log):
    log.write(entry(1))
    assert not log.wal.prepare_due


def test_segments_grow_to_their_full_size():
    log = Log(options=WalOptions(segment_bytes=4 << 20))
    for n in range(1, 18):
        log.write(entry(n, size=500_000))
    sizes = [len(log.memory.content(path)) for path in log.segments]
    assert sizes == [1 << 20, 4 << 20, 4 << 20]


# ----------------------------------------------------------------------------------- overwriting


def test_an_overwritten_suffix_is_gone_across_segments(log):
    log.write(*entries(1, 20, size=300))
    log.write(*entries(21, 40, size=300))
    log.write(*entries(41, 60, size=300))
    assert len(log.segments) == 3
    log.write(*entries(15, 16, term=2, size=300))
    assert log.read_all() == log.entries
    assert log.wal.read(17, 17, 1000) == []
    log.write(*entries(17, 60, term=2, size=50))
    assert log.read_all() == log.entries
    assert recover(log.memory)[1] == log.entries


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 12), st.integers(0, 900), st.booleans()), max_size=12
    ),
    reopen=st.sets(st.integers(0, 11)),
)
def test_any_sequence_of_writes_and_overwrites_is_read_back_and_recovered(steps, reopen):
    log, term = Log(), 1
    for number, (back, count, size, prepare) in enumerate(steps):
        last = len(log.entries)
        first = max(1, last + 1 - back)
        term += first <= last
        log.write(*entries(first, first + count - 1, term, size), state=HardState(term, 1, first - 1 and 0))
        if prepare and log.wal.prepare_due:
            log.wal.prepare()
        assert log.read_all() == log.entries
        if number in reopen:
            log.reopen()
    recovered, found = recover(log.memory)
    assert (found, recovered.hard_state) == (log.entries, log.hard_state)
    runs = [(e.index, e.term) for e in log.entries]
    assert recovered.terms == tuple(r for n, r in enumerate(runs) if n == 0 or runs[n - 1][1] != r[1])
    log.wal.close()
    assert log.memory.open_files == 0


# ----------------------------------------------------------------------------------- reading


def test_reading_keeps_to_the_bytes_asked_for_and_gives_at_least_one(log):
    log.write(*entries(1, 20, size=100))
    one = len(entry(1).encoded)
    assert [e.index for e in log.wal.read(3, 20, 1)] == [3]
    assert len(log.wal.read(3, 20, one * 4)) in (3, 4)
    assert [e.index for e in log.wal.read(3, 5, 1 << 20)] == [3, 4, 5]


@pytest.mark.parametrize("place", [0, 4, 8, 20, 60])
def test_bytes_that_went_bad_are_never_returned(log, place):
    log.write(entry(1), entry(2), entry(3))
    content = log.memory.content(log.segment())
    offset = bytes(content).index(entry(2).encoded)
    content[offset + place] ^= 1
    with pytest.raises(DataError) as caught:
        log.wal.read(1, 3, 1 << 20)
    assert caught.value.offset == offset
    assert caught.value.path == log.segment()


def test_an_entry_in_another_ones_place_is_never_returned(log):
    log.write(entry(1), entry(2))
    content = log.memory.content(log.segment())
    offset = bytes(content).index(entry(2).encoded)
    content[offset : offset + len(entry(3).encoded)] = entry(3).encoded
    with pytest.raises(DataError, match="entry 3 stands where 2 was written"):
        log.wal.read(2, 2, 1000)


@pytest.mark.slow
def test_reading_beside_writing_sees_whole_entries_or_none(tmp_path):
    """Reader and preparer threads run while the log is written, overwritten and changes segments."""
    log = Log(OsFiles(), WalOptions(segment_bytes=64 * 1024), str(tmp_path))
    log.write(*entries(1, 50, size=200))
    failures, stop = [], threading.Event()
    reads = 0

    def reader():
        nonlocal reads
        try:
            while not stop.is_set():
                for first in (1, 20, 51, 70):
                    found = log.wal.read(first, first + 40, 10_000)
                    assert [e.index for e in found] == list(range(first, first + len(found)))
                    assert first > 50 or found[0] == entry(first, size=200)
                    reads += 1
        except BaseException as error:
            failures.append(error)

    def preparer():
        try:
            while not stop.is_set():
                if log.wal.prepare_due:
                    log.wal.prepare()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=target) for target in (reader, reader, preparer)]
    for thread in threads:
        thread.start()
    for term in range(2, 150):
        log.write(*entries(51, 80, term, size=150))
        log.write(*entries(70, 90, term, size=150))
    stop.set()
    for thread in threads:
        thread.join(timeout=10)
    assert not failures
    assert reads > 100
    assert log.reopen().last_index == 90
    assert log.read_all() == log.entries
    log.wal.close()


# ----------------------------------------------------------------------------------- failing


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_after_a_failure_everything_is_refused(log, operation):
    """A second sync would succeed without having written anything (rule W4)."""
    log.write(entry(1))
    log.memory.fail = lambda text: text.startswith(operation)
    write = log.plan(entry(2))
    with pytest.raises(StorageError, match=f"could not {operation}"):
        log.wal.execute(write)
    log.memory.fail = lambda text: False
    for attempt in (
        lambda: log.wal.execute(write),
        lambda: log.wal.complete(write),
        lambda: log.plan(entry(2)),
        lambda: log.wal.read(1, 1, 100),
        log.wal.prepare,
    ):
        with pytest.raises(StorageError, match="nothing more"):
            attempt()
    assert not log.wal.prepare_due


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "sync-directory"])
def test_a_segment_that_cannot_be_made_ends_the_log(operation):
    log = Log()
    log.write(*entries(1, 20, size=300))
    log.memory.fail = lambda text: text.startswith(operation)
    with pytest.raises(StorageError):
        log.wal.execute(log.plan(*entries(21, 40, size=300)))
    with pytest.raises(StorageError, match="nothing more"):
        log.plan()
    log.memory.fail = lambda text: False
    log.wal.close()
    recovered, found = recover(log.memory)
    assert found == log.entries[: recovered.last_index]
    assert recovered.last_index == 20


def test_a_failed_preparation_ends_the_log(log):
    log.memory.fail = lambda text: "spare" in text
    with pytest.raises(StorageError):
        log.wal.prepare()
    with pytest.raises(StorageError, match="nothing more"):
        log.plan(entry(1))


def test_a_short_write_is_a_failed_one(tmp_path, monkeypatch):
    import os

    log = Log(OsFiles(), BIG, str(tmp_path))
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, at: real(fd, [b"".join(buffers)[:-1]], at))
    with pytest.raises(StorageError, match=r"wrote \d+ of \d+ bytes"):
        log.wal.execute(log.plan(entry(1)))
    log.wal.close()


def test_a_closed_log_refuses_and_closing_twice_is_fine(log):
    log.wal.close()
    log.wal.close()
    with pytest.raises(StorageError, match="the log is closed"):
        log.plan(entry(1))


def test_a_refused_start_leaves_no_file_open(log):
    log.write(entry(1), entry(2))
    log.wal.close()
    log.memory.content(log.segment())[700] ^= 1
    log.memory.content(log.segment())[-1] ^= 1
    with pytest.raises(DataError):
        recover(log.memory)
    assert log.memory.open_files == 0


# ----------------------------------------------------------------------------------- costs


def test_an_entry_costs_the_index_at_most_sixteen_bytes():
    files = MemoryFiles()
    log = Log(files, WalOptions(segment_bytes=16 << 20))
    count = 20_000
    write = log.plan(*entries(1, count, size=10))
    log.wal.execute(write)
    del log.number
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    log.wal.complete(write)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown <= 16 * count


def test_options_that_make_no_sense_are_refused():
    for segment_bytes in (0, 512, 1 << 32):
        with pytest.raises(ValueError, match="segment_bytes"):
            Wal.open(MemoryFiles(), WAL, STORE, WalOptions(segment_bytes=segment_bytes))
    assert SMALL.segment_bytes == 8192
