"""The log's files: their names, and making one that is whole before it has a name."""

import threading

import pytest
from memory_files import MemoryFiles
from wal_kit import STORE

from balsadb.errors import StorageError
from balsadb.raft.types import HardState
from balsadb.storage import segments
from balsadb.storage.records import CompactionMark, SegmentHeader, decode_segment_header
from balsadb.storage.segments import FILL_BYTES, SegmentMaker, SegmentName, parse_name

HEADER = SegmentHeader(STORE, 2, 10, 0, 5, HardState(), CompactionMark())


@pytest.fixture
def files():
    return MemoryFiles()


@pytest.fixture
def maker(files):
    return SegmentMaker(files, "/w")


def test_names_come_back_and_sort_by_sequence():
    name = SegmentName(12, 345)
    assert str(name) == "0000000012-00000000000000000345.wal"
    assert parse_name(str(name)) == name
    assert SegmentName(2, 9) < SegmentName(10, 1)


@pytest.mark.parametrize("name", ["1-2.wal", "0000000001-00000000000000000001.wal.bak", "x.wal", ""])
def test_other_names_are_not_ours(name):
    assert parse_name(name) is None


def test_a_segment_is_durable_under_its_name_with_its_true_length(maker, files):
    _, path, length = maker.make(HEADER, 2000, 4096)
    assert length == 4096
    left = files.power_loss(lambda sector: False)
    header = decode_segment_header(bytes(left.content(path)))
    assert header is not None
    assert (header.length, len(left.content(path)), header.batch) == (4096, 4096, 5)
    assert not any(left.content(path)[512:])


def test_a_large_file_is_filled_in_steps_that_are_synced(maker, files):
    maker.prepare(2 * FILL_BYTES + 512)
    assert files.operations == ["create spare.tmp", *["write spare.tmp", "sync spare.tmp"] * 3]
    assert len(files.content("/w/spare.tmp")) == 2 * FILL_BYTES + 512
    maker.prepare(512)
    assert len(files.operations) == 7


def test_who_needs_a_segment_waits_for_the_one_being_filled(maker, files):
    filling, go = threading.Event(), threading.Event()

    def slow(text):
        if text == "write spare.tmp":
            filling.set()
            assert go.wait(10)
        return False

    files.fail = slow
    preparing = threading.Thread(target=maker.prepare, args=(4096,))
    preparing.start()
    assert filling.wait(10)
    made = []
    making = threading.Thread(target=lambda: made.append(maker.make(HEADER, 2000, 4096)))
    making.start()
    go.set()
    preparing.join(10)
    making.join(10)
    assert made
    assert "create segment.tmp" not in files.operations


def test_closing_gives_up_the_file_that_is_being_filled(maker, files):
    closer = []

    def close_meanwhile(text):
        if text == "sync spare.tmp" and not closer:
            closer.append(threading.Thread(target=maker.close))
            closer[0].start()
            while not maker._closed:
                pass
        return False

    files.fail = close_meanwhile
    with pytest.raises(StorageError, match="was closed"):
        maker.prepare(3 * FILL_BYTES)
    closer[0].join(10)
    assert files.open_files == 0
    maker.prepare(512)
    assert not maker.has_spare


def test_a_file_that_cannot_be_filled_is_closed(maker, files):
    files.fail = lambda text: text.startswith("sync")
    with pytest.raises(StorageError):
        maker.prepare(4096)
    assert files.open_files == 0
    assert segments.is_temporary("spare.tmp")
