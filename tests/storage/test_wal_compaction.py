"""The log gets a new start and lets its old files go; no crash leaves a gap (rules C4, W2, W3)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_files import MemoryFiles, Stopped
from wal_kit import SMALL, STORE, WAL, Log, entries, entry, read_all, recover

from balsadb.errors import DataError, InvariantError, StorageError
from balsadb.raft.ready import LogStart, WriteBatch
from balsadb.raft.types import EntryKind, HardState
from balsadb.storage.wal import Wal


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def long_log():
    """A log of several files."""
    made = Log()
    for first in range(1, 120, 10):
        made.write(*entries(first, first + 9, size=250))
    assert len(made.segments) > 4
    return made


def files_of(log: Log) -> list[str]:
    return [name for name in log.memory.list(WAL) if name.endswith(".wal")]


# ------------------------------------------------------------------------------- a new start


def test_a_new_start_is_one_write_and_one_sync_as_any_other_batch(log):
    log.write(*entries(1, 9))
    before = len(log.memory.operations)
    log.write(state=HardState(1, 1, 9), start=LogStart(5, 1, True))
    assert [op.split()[0] for op in log.memory.operations[before:]] == ["write", "sync"]


def test_behind_a_new_start_the_log_goes_on(log):
    log.write(*entries(1, 9))
    log.write(start=LogStart(5, 1, True))
    log.write(*entries(10, 12))
    recovered, found = recover(log.memory)
    assert (recovered.first_index, recovered.last_index, recovered.terms) == (6, 12, ((5, 1),))
    assert found == list(entries(6, 12))


def test_a_replaced_log_is_empty_and_goes_on_behind_the_state(log):
    """Rule C4."""
    log.write(*entries(1, 9))
    log.write(state=HardState(4, 2, 50), start=LogStart(50, 3, False))
    assert log.wal.read(3, 9, 1000) == []
    log.write(*entries(51, 53, term=4))
    recovered, found = recover(log.memory)
    assert (recovered.first_index, recovered.last_index) == (51, 53)
    assert recovered.terms == ((50, 3), (51, 4))
    assert recovered.hard_state == HardState(4, 2, 50)
    assert found == list(entries(51, 53, term=4))


def test_a_replaced_log_may_go_on_below_where_it_had_been(log):
    """What it had there was another leader's and never committed."""
    log.write(*entries(1, 30))
    log.write(start=LogStart(20, 2, False))
    log.write(*entries(21, 22, term=2))
    recovered, found = recover(log.memory)
    assert (recovered.first_index, recovered.last_index, found) == (21, 22, list(entries(21, 22, term=2)))


def test_a_start_comes_alone(log):
    log.write(*entries(1, 9))
    with pytest.raises(InvariantError, match="has entries"):
        log.plan(entry(10), start=LogStart(5, 1, True))


def test_a_start_does_not_go_back(log):
    log.write(*entries(1, 9))
    log.write(start=LogStart(5, 1, True))
    with pytest.raises(InvariantError, match="moves"):
        log.plan(start=LogStart(4, 1, True))


def test_an_entry_below_the_start_is_not_written(log):
    log.write(*entries(1, 9))
    log.write(start=LogStart(5, 1, True))
    with pytest.raises(InvariantError, match="begins at entry 5"):
        log.plan(entry(5))


def test_entries_that_are_compacted_are_not_read_any_more(long_log):
    long_log.write(start=LogStart(60, 1, True))
    long_log.wal.collect()
    assert long_log.wal.read(10, 20, 1000) == []
    assert read_all(long_log.wal, 61, 120) == long_log.entries[60:]


class ReadingLate(MemoryFiles):
    """Something happens between a look-up and the opening of the file that was found."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile = lambda: None

    def open(self, path, *, create=False):
        if not create:
            meanwhile, self.meanwhile = self.meanwhile, lambda: None
            meanwhile()
        return super().open(path, create=create)


def test_a_file_that_goes_while_it_is_about_to_be_read_gives_nothing():
    """A reader for a slow follower is held up; the log is compacted and the file removed meanwhile."""
    log = Log(ReadingLate())
    for first in range(1, 120, 10):
        log.write(*entries(first, first + 9, size=250))

    def compact():
        log.write(start=LogStart(100, 1, True))
        log.wal.collect()

    log.files.meanwhile = compact
    assert log.wal.read(5, 9, 1000) == []
    assert log.wal.read(101, 101, 1000) == [log.entries[100]]


def test_a_file_that_can_not_be_opened_is_a_failure_when_it_should_be_there(long_log):
    del long_log.memory.names[long_log.segment(0)]
    with pytest.raises(StorageError):
        long_log.wal.read(1, 3, 1000)


# ------------------------------------------------------------------------------- old files


def test_files_go_oldest_first_each_durably(long_log):
    long_log.write(start=LogStart(100, 1, True))
    assert long_log.wal.collect_due
    before, names = len(long_log.memory.operations), files_of(long_log)
    long_log.wal.collect()
    gone = [name for name in names if name not in files_of(long_log)]
    assert gone == names[: len(gone)]
    expected = [step for name in gone for step in (f"remove {name}", "sync-directory wal")]
    assert long_log.memory.operations[before:] == expected
    assert not long_log.wal.collect_due
    assert len(gone) > 2


def test_only_files_that_end_before_the_start_go(long_log):
    for index in range(1, 121):
        files = long_log.memory.copy()
        again = Log(files)
        again.write(start=LogStart(index, 1, True))
        again.wal.collect()
        recovered, found = recover(files)
        assert (recovered.first_index, recovered.last_index) == (index + 1, 120)
        assert found == long_log.entries[index:]
        again.wal.close()


def test_the_newest_file_always_stays(long_log):
    newest = files_of(long_log)[-1]
    long_log.write(start=LogStart(120, 1, True))
    long_log.wal.collect()
    assert files_of(long_log)[-1] >= newest
    assert len(files_of(long_log)) == 1
    recovered, found = recover(long_log.memory)
    assert (recovered.first_index, recovered.last_index, found) == (121, 120, [])


def test_term_and_vote_survive_the_file_in_which_they_were_written():
    """Rule W2: otherwise the node votes twice."""
    log = Log()
    log.write(*entries(1, 3, term=2), state=HardState(2, 3, 1))
    for first in range(4, 100, 8):
        log.write(*entries(first, first + 7, term=2, size=300))
    log.write(start=LogStart(90, 2, True))
    log.wal.collect()
    assert not files_of(log)[0].startswith("0000000001")
    assert recover(log.memory)[0].hard_state == HardState(2, 3, 1)


def test_a_failed_removal_is_a_storage_error_and_loses_nothing(long_log):
    long_log.write(start=LogStart(100, 1, True))
    long_log.memory.fail = lambda operation: operation.startswith("remove")
    with pytest.raises(StorageError):
        long_log.wal.collect()
    long_log.memory.fail = lambda operation: False
    assert recover(long_log.memory)[1] == long_log.entries[100:]


def test_a_start_finds_the_files_that_may_go(long_log):
    long_log.write(start=LogStart(100, 1, True))
    long_log.reopen()
    assert long_log.wal.collect_due
    long_log.wal.collect()
    assert len(files_of(long_log)) <= 3
    assert recover(long_log.memory)[1] == long_log.entries[100:]


def test_an_endless_log_that_is_compacted_stays_small(log):
    for first in range(1, 3000, 10):
        log.write(*entries(first, first + 9, size=250))
        log.write(start=LogStart(log.wal.first_within(10_000) - 1, 1, True))
        if log.wal.collect_due:
            log.wal.collect()
        assert sum(len(log.memory.content(path)) for path in log.segments) <= 8 * 8192
    assert log.wal.bytes <= 3 * 8192


@pytest.mark.parametrize("size", [0, 1, 300, 700, 5_000, 1_000_000])
def test_the_part_within_some_bytes_is_the_longest_that_fits(long_log, size):
    first = long_log.wal.first_within(size)
    taken = [len(e.encoded) for e in long_log.entries[first - 1 :]]
    assert sum(taken) <= size
    assert first == 1 or size < sum(taken) + 3 * 512 + len(long_log.entries[0].encoded) * 2


def test_what_a_start_begun_anew_finds(log):
    log.write(*entries(1, 9), state=HardState(2, 1, 4))
    recovered = log.wal.restart(50, 3)
    assert (recovered.first_index, recovered.last_index) == (51, 50)
    assert (recovered.terms, recovered.hard_state) == (((50, 3),), HardState(3, 0, 50))
    again, _ = recover(log.memory.power_loss(lambda sector: False))
    assert (again.first_index, again.last_index, again.terms) == (51, 50, ((50, 3),))
    assert again.hard_state == HardState(3, 0, 50)


# ------------------------------------------------------------------- a crash at every operation


class Compacting:
    """A log that is compacted, replaced and collected, beside what it should hold after each write."""

    def __init__(self, files: MemoryFiles) -> None:
        self.base = 0
        self.kept: list = []
        self.allowed: list[tuple[int, list]] = [(0, [])]
        """What was acknowledged, and what was being written: (base, entries behind it)."""
        self.wal, _ = Wal.open(files, WAL, STORE, SMALL)
        self.number = 0

    def write(self, *new, state=None, start=None) -> None:
        base, kept = self.base, list(self.kept)
        if new:
            kept[new[0].index - 1 - base :] = new
        if start is not None:
            kept = kept[start.index - base :] if start.keep else []
            base = start.index
        self.allowed = [(self.base, self.kept), (base, kept)]
        self.number += 1
        write = self.wal.plan(WriteBatch(self.number, new, state, start))
        self.wal.execute(write)
        self.wal.complete(write)
        self.base, self.kept = base, kept
        self.allowed = [(base, kept)]

    def run(self) -> None:
        self.write(*entries(1, 4), state=HardState(1, 1, 0))
        self.write(*entries(5, 40, size=300))
        self.write(start=LogStart(20, 1, True))
        self.wal.collect()
        self.wal.prepare()
        self.write(*entries(38, 60, term=2, size=300), state=HardState(2, 2, 30))
        self.write(*entries(61, 75, term=2, size=900))
        self.write(start=LogStart(70, 2, True), state=HardState(2, 2, 70))
        self.wal.collect()
        self.write(start=LogStart(200, 5, False), state=HardState(5, 0, 200))
        self.wal.collect()
        self.write(*entries(201, 230, term=5, size=300))
        self.write(start=LogStart(230, 5, True))
        self.wal.collect()
        self.write(*entries(231, 233, term=6), state=HardState(6, 3, 231))


def points():
    """Every operation before which the process may end: (files, what may be found)."""
    finished, operation = False, 0
    while not finished:
        files = MemoryFiles()
        files.stop_at = operation
        model = None
        try:
            model = Compacting(files)
            model.run()
            finished = True
        except Stopped:
            pass
        files.stop_at = None
        yield files, model.allowed if model else [(0, [])]
        operation += 1


def check(files: MemoryFiles, allowed: list[tuple[int, list]]) -> None:
    recovered, found = recover(files)
    assert (recovered.first_index - 1, found) in allowed
    # What a start has returned is durable, and it goes on from there.
    again, found_again = recover(files.power_loss(lambda sector: False))
    assert (again, found_again) == (recovered, found)
    log = Log(files)
    log.wal.collect()
    following = entry(recovered.last_index + 1, term=9)
    log.wal.complete(_executed(log, following))
    log.wal.close()
    assert recover(files)[1] == [*found, following]


def _executed(log, new):
    write = log.plan(new)
    log.wal.execute(write)
    return write


def test_a_process_that_ends_at_any_operation_of_a_compaction_finds_all_of_its_log():
    count = 0
    for files, allowed in points():
        check(files, allowed)
        count += 1
    assert count > 60


@pytest.mark.parametrize("keep_names", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_power_loss_at_any_operation_of_a_compaction_leaves_no_gap(share, keep_names):
    draw = random.Random(share)
    for files, allowed in points():
        check(files.power_loss(lambda sector: draw.random() < share, keep_names=keep_names), allowed)


def test_a_start_on_a_replaced_log_can_be_stopped_at_any_operation():
    """`restart` runs at a start, when the process ended between the switch of the state and this."""
    first = Log()
    first.write(*entries(1, 40, size=300), state=HardState(2, 1, 4))
    first.wal.close()
    for stop in range(40):
        files = first.memory.copy()
        files.stop_at = stop
        try:
            wal, _ = Wal.open(files, WAL, STORE, SMALL)
            wal.restart(100, 3)
            finished = True
        except Stopped:
            finished = False
        for share in (0, 1):
            left = files.power_loss(lambda sector, share=share: bool(share))
            recovered, found = recover(left)
            if recovered.first_index == 101:
                assert (found, recovered.hard_state) == ([], HardState(3, 0, 100))
            else:
                assert not finished
                assert found == first.entries
                assert recovered.hard_state == HardState(2, 1, 4)
        if finished:
            return
    pytest.fail("the start never finished")


# -------------------------------------------------------------------------- any history


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "overwrite", "compact", "replace", "collect", "reopen"]),
            st.integers(1, 20),
            st.integers(0, 900),
        ),
        max_size=25,
    )
)
def test_any_history_of_writes_and_new_starts_is_recovered(steps):
    files = MemoryFiles()
    model = Compacting(files)
    term = 1
    for kind, count, size in steps:
        last = model.base + len(model.kept)
        if kind == "append":
            model.write(*entries(last + 1, last + count, term, size))
        elif kind == "overwrite" and model.kept:
            term += 1
            first = max(model.base + 1, last + 1 - count)
            model.write(*entries(first, first + count // 2, term, size))
        elif kind == "compact" and model.kept:
            at = model.kept[min(count, len(model.kept)) - 1]
            model.write(start=LogStart(at.index, at.term, True))
        elif kind == "replace":
            term += 1
            model.write(start=LogStart(last + count, term, False))
        elif kind == "collect":
            model.wal.collect()
        elif kind == "reopen":
            model.wal.close()
            model.wal, recovered = Wal.open(files, WAL, STORE, SMALL)
            assert recovered.first_index - 1 == model.base
        last = model.base + len(model.kept)
        assert read_all(model.wal, model.base + 1, last) == model.kept
    recovered, found = recover(files)
    assert (recovered.first_index - 1, found) == (model.base, model.kept)


# ------------------------------------------------------------------------------- what is damage


def test_a_file_that_is_missing_behind_the_start_is_a_gap(long_log):
    long_log.write(start=LogStart(20, 1, True))
    long_log.wal.collect()
    long_log.wal.close()
    del long_log.memory.names[long_log.segment(0)]
    with pytest.raises(DataError, match="are missing"):
        recover(long_log.memory)


def test_memberships_at_or_below_the_start_belong_to_the_state():
    log = Log()
    log.write(*(entry(index, kind=EntryKind.MEMBERSHIP) for index in range(1, 6)))
    log.write(start=LogStart(3, 1, True))
    assert [e.index for e in recover(log.memory)[0].memberships] == [4, 5]
    log.write(start=LogStart(9, 2, False))
    assert recover(log.memory)[0].memberships == ()
