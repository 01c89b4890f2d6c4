"""A log that lost its newest segment or its newest batches is told from one that ended earlier (rule W5)."""

import pytest
from memory_files import SECTOR, MemoryFiles
from wal_kit import STORE, WAL, Log, entries, entry, recover

from balsadb.errors import DataError, StorageError
from balsadb.raft.types import HardState
from balsadb.storage.log_end import EndFile, LogEnd, decode_end, encode_end
from balsadb.storage.records import BATCH_HEADER_BYTES, Codec

END = f"{WAL}/END"


@pytest.fixture
def log():
    """Two segments, three batches in the newer one."""
    log = Log()
    log.write(*entries(1, 20, size=300))
    log.write(*entries(21, 30, size=300), state=HardState(1, 2, 20))
    log.write(entry(31))
    log.write(entry(32), state=HardState(2, 3, 31))
    assert len(log.segments) == 2
    return log


def refused(files: MemoryFiles) -> DataError:
    """Start, which must be refused without a change on disk."""
    before = {path: bytes(inode.seen) for path, inode in files.names.items()}
    with pytest.raises(DataError) as caught:
        recover(files)
    assert {path: bytes(inode.seen) for path, inode in files.names.items()} == before
    assert len(caught.value.remedy) > 20
    return caught.value


def bound(files: MemoryFiles) -> LogEnd:
    return decode_end(END, bytes(files.content(END)), STORE)[1]


def last_batch(log: Log) -> tuple[int, int]:
    data, at, found = bytes(log.memory.content(log.segment())), SECTOR, (0, 0)
    while header := Codec(STORE).decode_batch_header(data, at):
        found = at, at + header.length
        at += header.length
    return found


def zero_last_batch(log: Log, start: int = 0) -> None:
    at, stop = last_batch(log)
    log.memory.content(log.segment())[at + start : stop] = bytes(stop - at - start)


# ------------------------------------------------------------------------------- what is noticed


def test_a_deleted_newest_segment_is_missed_without_any_further_note(log):
    """Its first batch was written after the bound was raised, so a kill right behind it is no excuse."""
    del log.memory.names[log.segment()]
    error = refused(log.memory)
    assert "segment 2, in which the log went on, is missing" in str(error)
    assert error.path == WAL


def test_all_segments_deleted_is_no_new_log(log):
    for path in log.segments:
        del log.memory.names[path]
    assert "segment 2" in str(refused(log.memory))


@pytest.mark.parametrize("start", [0, SECTOR])
def test_newest_batches_that_read_as_zeros_are_missed_once_the_end_was_noted(start):
    log = Log()
    log.write(*entries(1, 4))
    log.write(*entries(5, 10, size=300))
    log.wal.note_end()
    place = last_batch(log)[0]
    zero_last_batch(log, start)
    error = refused(log.memory)
    assert "the log ends with batch 1, and batch 2 was on disk" in str(error)
    assert (error.path, error.offset) == (log.segment(), place)


def test_a_batch_behind_the_noted_end_may_be_torn(log):
    """The process was killed in the middle of the write: nobody was told that it is there."""
    log.wal.note_end()
    log.write(entry(33, size=2000))
    zero_last_batch(log, BATCH_HEADER_BYTES + 600)
    assert recover(log.memory)[0].last_index == 32


def test_a_missing_note_beside_a_log_is_refused(log):
    del log.memory.names[END]
    assert "END: the file is missing beside a log" in str(refused(log.memory))


def test_a_node_that_is_known_to_have_lost_entries_never_starts_again(log):
    log.wal.note_end(lost=40)
    log.wal.note_end()
    assert "entry 40 was acknowledged by this node, and it has lost it" in str(refused(log.memory))


# --------------------------------------------------------------------------------- when it is noted


def test_the_end_is_due_after_a_write_and_not_before_the_next_one(log):
    assert log.wal.end_due
    log.wal.note_end()
    assert not log.wal.end_due
    assert bound(log.memory) == LogEnd(2, 4)
    write = log.plan(entry(33))
    log.wal.execute(write)
    assert not log.wal.end_due, "it is durable, but nobody has been told"
    log.wal.complete(write)
    assert log.wal.end_due


def test_a_start_finds_the_end_due_when_the_process_before_was_killed(log):
    log.reopen()
    assert log.wal.end_due
    log.wal.note_end()
    assert bound(log.memory) == LogEnd(2, 4)


def test_a_log_whose_end_can_not_be_noted_refuses_everything(log):
    log.memory.fail = lambda operation: operation.startswith("sync END")
    with pytest.raises(StorageError, match="could not sync"):
        log.wal.note_end()
    log.memory.fail = lambda operation: False
    with pytest.raises(StorageError, match="nothing more is written"):
        log.plan(entry(33))


def test_a_stop_before_the_first_segment_has_its_name_leaves_a_new_log():
    files = MemoryFiles()
    files.fail = lambda operation: operation.startswith("rename 0")
    with pytest.raises(StorageError):
        Log(files)
    files.fail = lambda operation: False
    assert Log(files.copy()).recovered.last_index == 0


# ------------------------------------------------------------------------------------ the file itself


def test_the_bound_never_goes_back():
    files = MemoryFiles()
    end = EndFile(files, WAL, STORE)
    end.note(LogEnd(3, 70))
    end.note(LogEnd(2, 90))
    assert bound(files) == LogEnd(3, 90)
    before = len(files.operations)
    end.note(LogEnd(3, 80))
    assert len(files.operations) == before, "there is nothing to write"


@pytest.mark.parametrize("sector", [0, 1])
def test_a_torn_note_leaves_the_one_before_it(sector):
    files = MemoryFiles()
    end = EndFile(files, WAL, STORE)
    for number in range(1, 4 + sector):
        end.note(LogEnd(1, number))
    at = (3 + sector) % 2 * SECTOR
    files.content(END)[at + 20 : at + SECTOR] = bytes(SECTOR - 20)
    assert bound(files) == LogEnd(1, 2 + sector)
    EndFile(files, WAL, STORE).note(LogEnd(1, 9))
    assert bound(files) == LogEnd(1, 9)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: bytes(1024), "neither of its two sectors is sound"),
        (lambda data: data[:1000], "the file has 1000 bytes"),
        (lambda data: data + b"x", "the file has 1025 bytes"),
        (lambda data: encode_end(b"another store id", 9, LogEnd(1, 1)) * 2, "belongs to store"),
    ],
)
def test_a_file_that_can_not_be_trusted_is_refused(log, change, problem):
    data = bytes(log.memory.content(END))
    log.memory.put(END, change(data))
    assert problem in str(refused(log.memory))


def test_a_later_format_is_left_to_the_version_that_wrote_it():
    from balsadb.storage import log_end

    body = log_end._BODY.pack(log_end.MAGIC, 2, STORE, 1, 1, 1, 0)
    sector = (body + log_end._CHECKSUM.pack(log_end.google_crc32c.value(body))).ljust(SECTOR, b"\0")
    with pytest.raises(DataError, match="format version 2"):
        decode_end(END, sector * 2, STORE)
