"""The decision table of recovery, row by row, and that no tear and no flip gets past it (rule W3)."""

import contextlib
import struct

import google_crc32c
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_files import SECTOR, MemoryFiles, Stopped
from wal_kit import STORE, WAL, Log, entries, entry, recover

from balsadb.errors import DataError
from balsadb.raft.entry import encode_entry
from balsadb.raft.types import EntryKind, HardState
from balsadb.storage.records import (
    BATCH_HEADER_BYTES,
    Codec,
    CompactionMark,
    SegmentHeader,
    count_zero_sectors,
    decode_segment_header,
)
from balsadb.storage.segments import SegmentName
from balsadb.storage.wal import WalOptions

STATE = HardState(1, 2, 0)


@pytest.fixture
def log():
    """Three batches in one segment: entries 1, 2..4 and 5..8; the last one takes three sectors."""
    log = Log()
    log.write(entry(1), state=STATE)
    log.write(*entries(2, 4))
    log.write(*entries(5, 8, size=250), state=HardState(1, 2, 4))
    return log


def batches(log):
    """Start and stop of every batch in the newest segment."""
    data, at, found = log.memory.content(log.segment()), SECTOR, []
    while header := Codec(STORE).decode_batch_header(bytes(data), at):
        found.append((at, at + header.length))
        at += header.length
    return found


def zero(log, start, stop):
    log.memory.content(log.segment())[start:stop] = bytes(stop - start)


def flip(log, offset, path=None):
    log.memory.content(path or log.segment())[offset] ^= 0x10


def recovered_indexes(log):
    recovered, found = recover(log.memory)
    assert [e.index for e in found] == list(range(1, recovered.last_index + 1))
    return recovered.last_index


def damage(log):
    """Start the log, which must be refused without a change on disk, and return the error."""
    before = {path: bytes(inode.seen) for path, inode in log.memory.names.items()}
    with pytest.raises(DataError) as caught:
        recover(log.memory)
    assert {path: bytes(inode.seen) for path, inode in log.memory.names.items()} == before
    assert caught.value.path in str(caught.value)
    assert caught.value.remedy
    return caught.value


# ------------------------------------------------------------------------------ rows: END and TAKE


def test_zeros_up_to_the_end_are_the_end_of_the_log(log):
    recovered, found = recover(log.memory)
    assert found == log.entries
    assert recovered.hard_state == HardState(1, 2, 4)


def test_an_empty_directory_becomes_an_empty_log_and_stays_one():
    log = Log()
    assert log.recovered.last_index == 0
    assert log.recovered.first_index == 1
    assert recover(log.memory)[0] == log.recovered


def test_a_segment_without_a_batch_is_normal_and_is_used():
    log = Log(MemoryFiles())
    log.write(*entries(1, 40, size=150))
    before = len(log.segments)
    # Stop after the rename of the next segment, before anything is written to it.
    log.memory.fail = lambda operation: (
        operation.startswith("write") and any("0000000002" in path for path in log.memory.names)
    )
    write = log.plan(*entries(41, 80, size=150))
    with pytest.raises(Exception, match="could not write"):
        log.wal.execute(write)
    assert len(log.segments) == before + 1
    log.memory.fail = lambda operation: False
    again = Log(log.memory.copy())
    assert again.recovered.last_index == 40
    again.write(*entries(41, 42))
    assert recover(again.memory)[0].last_index == 42
    assert len(again.segments) == before + 1


def test_a_segment_without_a_batch_stays_behind_when_the_next_batch_is_too_large_for_it():
    log = Log()
    log.write(*entries(1, 3, size=9000))
    assert len(log.segments) == 2
    assert recover(log.memory)[0].last_index == 3


# ------------------------------------------------------------------------------- rows: older segments


@pytest.fixture
def two_segments():
    log = Log()
    log.write(*entries(1, 4, size=300))
    log.write(*entries(5, 8, size=300), state=STATE)
    log.write(*entries(9, 30, size=300))
    assert len(log.segments) == 2
    return log


@pytest.mark.parametrize("offset", [SECTOR, SECTOR + 9, SECTOR + 40, 2 * SECTOR + 5])
def test_older_segment_a_flipped_bit_is_damage(two_segments, offset):
    flip(two_segments, offset, two_segments.segment(0))
    error = damage(two_segments)
    assert error.path == two_segments.segment(0)
    assert error.offset is not None


def test_older_segment_missing_sectors_are_damage_though_they_look_torn(two_segments):
    path = two_segments.segment(0)
    content = two_segments.memory.content(path)
    last = len(content.rstrip(b"\0"))
    content[last - SECTOR : last] = bytes(SECTOR)
    assert damage(two_segments).path == path


def test_older_segment_a_lost_last_batch_is_missed_by_the_next_segment(two_segments):
    content = two_segments.memory.content(two_segments.segment(0))
    header = Codec(STORE).decode_batch_header(bytes(content), SECTOR)
    assert header is not None
    start = SECTOR + header.length
    content[start:] = bytes(len(content) - start)
    error = damage(two_segments)
    assert error.path == two_segments.segment(1)
    assert "follows batch 2" in str(error)


def test_older_segment_bytes_behind_the_last_batch_are_damage(two_segments):
    two_segments.memory.content(two_segments.segment(0))[-1] = 1
    damage(two_segments)


# ------------------------------------------------------------------- rows: newest segment, sound header


def test_newest_a_batch_with_another_number_is_damage(log):
    start, _ = batches(log)[2]
    content = log.memory.content(log.segment())
    buffers, _ = Codec(STORE).batch(7, [entry(5).encoded])
    content[start : start + BATCH_HEADER_BYTES] = buffers[0]
    assert damage(log).offset == start


def test_newest_a_batch_longer_than_the_segment_is_damage(log):
    start, _ = batches(log)[2]
    content = log.memory.content(log.segment())
    buffers, _ = Codec(STORE).batch(3, [entry(5, size=9000).encoded])
    content[start : start + BATCH_HEADER_BYTES] = buffers[0]
    assert damage(log).offset == start


def test_newest_a_flip_in_a_batch_that_others_follow_is_damage(log):
    start, _ = batches(log)[1]
    flip(log, start + BATCH_HEADER_BYTES + 20)
    error = damage(log)
    assert error.offset == start + BATCH_HEADER_BYTES
    assert f"at offset {error.offset}" in str(error)


def test_newest_missing_sectors_in_a_batch_that_others_follow_are_damage(log):
    log.write(*entries(9, 9))
    start, _ = batches(log)[2]
    zero(log, start + SECTOR, start + 2 * SECTOR)
    damage(log)


def test_newest_batch_with_missing_sectors_is_torn_and_goes_as_a_whole(log):
    start, stop = batches(log)[2]
    zero(log, start + SECTOR, start + 2 * SECTOR)
    recovered, found = recover(log.memory)
    assert found == log.entries[:4]
    assert recovered.hard_state == STATE  # the torn batch's own hard state goes with it
    assert not any(log.memory.content(log.segment())[start:stop])


def test_newest_batch_with_a_flip_and_no_missing_sector_is_damage(log):
    start, _ = batches(log)[2]
    flip(log, start + 700)
    damage(log)


def test_newest_batch_with_a_flipped_fill_is_damage(log):
    _, stop = batches(log)[2]
    flip(log, stop - 1)
    damage(log)


def test_zeros_that_a_client_wrote_do_not_make_damage_look_torn(log):
    """Without the count of zero sectors in the header this flip would cost an acknowledged write."""
    log.write(encode_entry(1, 9, 5, EntryKind.COMMANDS, bytes(3000)))
    start, stop = batches(log)[3]
    assert count_zero_sectors(bytes(log.memory.content(log.segment())[start:stop])) > 3
    flip(log, start + BATCH_HEADER_BYTES + 20)
    damage(log)


def test_a_batch_full_of_a_clients_zeros_is_still_torn_when_a_sector_is_missing(log):
    log.write(encode_entry(1, 9, 5, EntryKind.COMMANDS, bytes(3000)), entry(10, size=700))
    _, stop = batches(log)[3]
    zero(log, stop - 2 * SECTOR, stop - SECTOR)
    assert recovered_indexes(log) == 8


# ------------------------------------------------------------------ rows: newest segment, no sound header


def test_newest_missing_header_sector_with_a_later_batch_behind_is_damage(log):
    start, _ = batches(log)[1]
    zero(log, start, start + SECTOR)
    assert damage(log).offset == start


def test_newest_missing_header_sector_of_the_last_batch_is_torn(log):
    start, stop = batches(log)[2]
    zero(log, start, start + SECTOR)
    assert recovered_indexes(log) == 4
    assert not any(log.memory.content(log.segment())[start:stop])


def test_a_clients_value_that_looks_like_a_later_batch_does_not_stop_a_start():
    """Only a header that is sealed with this store's id counts as one."""
    log = Log()
    log.write(entry(1))
    buffers, _ = Codec(bytes(16)).batch(9, [entry(9).encoded])
    log.write(encode_entry(1, 2, 5, EntryKind.COMMANDS, (buffers[0] + bytes(SECTOR - len(buffers[0]))) * 8))
    start, _ = batches(log)[1]
    zero(log, start, start + SECTOR)
    assert recovered_indexes(log) == 1


def test_a_copy_of_an_older_batch_in_a_clients_value_does_not_stop_a_start():
    """Somebody may keep a copy of this very log in the database. A later batch can't be in a value."""
    log = Log()
    log.write(entry(1))
    start, stop = batches(log)[0]
    older = bytes(log.memory.content(log.segment())[start:stop])
    value = bytes(SECTOR - BATCH_HEADER_BYTES - 34) + older
    log.write(encode_entry(1, 2, 5, EntryKind.COMMANDS, value))
    start, _ = batches(log)[1]
    assert bytes(log.memory.content(log.segment())[start + SECTOR :]).startswith(older)
    zero(log, start, start + SECTOR)
    assert recovered_indexes(log) == 1


@pytest.mark.parametrize("kept", [1, 8, BATCH_HEADER_BYTES - 1])
def test_newest_header_cut_short_with_nothing_behind_is_torn(log, kept):
    start, stop = batches(log)[2]
    zero(log, start + kept, stop)
    assert recovered_indexes(log) == 4


def test_newest_header_with_a_flip_is_damage(log):
    start, _ = batches(log)[2]
    flip(log, start + 10)
    assert damage(log).offset == start


def test_newest_batch_cut_at_any_byte_is_torn(log):
    start, stop = batches(log)[2]
    for cut in range(start, stop):
        copy = Log.__new__(Log)
        copy.files, copy.directory = log.memory.copy(), WAL
        zero(copy, cut, stop)
        assert recovered_indexes(copy) == 4, cut


# ------------------------------------------------------------------------------- rows: the whole log


def test_a_cut_below_the_recorded_commit_is_damage():
    """Here by a lost batch that a hard state, still there, says was committed."""
    log = Log()
    log.write(*entries(1, 3), state=STATE)
    log.write(state=HardState(1, 2, 3))
    path = log.segment()
    content = log.memory.content(path)
    # Batch 1 loses its entries but not its numbers: what only a bug or a broken disk can do.
    buffers, length = Codec(STORE).batch(1, [entry(1).encoded, Codec(STORE).hard_state(STATE)])
    record = b"".join(buffers)
    start, stop = batches(log)[0]
    following = bytes(content[stop : stop + SECTOR])
    content[start:] = bytes(len(content) - start)
    content[start : start + length] = record
    content[start + length : start + length + SECTOR] = following
    error = damage(log)
    assert "entry 3 was committed and the log ends at 1" in str(error)


def test_a_missing_segment_in_the_middle_is_named(two_segments):
    two_segments.write(*entries(31, 55, size=300))
    del two_segments.memory.names[two_segments.segment(1)]
    assert "segment 2 is missing" in str(damage(two_segments))


def test_a_missing_oldest_segment_is_a_gap(two_segments):
    del two_segments.memory.names[two_segments.segment(0)]
    assert "entries 1..8 are missing" in str(damage(two_segments))


def test_a_damaged_header_of_a_named_segment_is_damage(two_segments):
    for offset in (0, 5, 9, 30, 90, 500):
        flip(two_segments, offset)
        assert damage(two_segments).offset == 0
        flip(two_segments, offset)


def test_another_stores_segment_is_refused_by_name(log):
    path = log.segment()
    header = SegmentHeader(bytes(16), 1, 1, 8192, 0, HardState(), CompactionMark())
    log.memory.content(path)[:SECTOR] = header.encode()
    assert "belongs to store 0000" in str(damage(log))


def test_a_later_format_is_named(log):
    content = log.memory.content(log.segment())
    body = struct.pack("<B8sI", 4, b"BALSAWAL", 2) + b"something new"
    content[: 8 + len(body)] = struct.pack("<II", len(body), google_crc32c.value(body)) + body
    assert "format version 2" in str(damage(log))


def test_a_truncated_segment_is_damage(log):
    del log.memory.content(log.segment())[4096:]
    error = damage(log)
    assert error.offset == 4096
    assert "was made with 8192" in str(error)


def test_a_segment_under_another_name_is_damage(log):
    log.memory.rename(log.segment(), f"{WAL}/0000000003-00000000000000000001.wal")
    assert "was written as 0000000001-" in str(damage(log))


def test_a_file_with_a_foreign_name_is_damage(log):
    log.memory.put(f"{WAL}/1.wal", b"")
    damage(log)


def test_left_over_temporary_files_are_removed(log):
    log.memory.put(f"{WAL}/spare.tmp", b"x")
    log.memory.put(f"{WAL}/segment.tmp", b"x")
    assert recovered_indexes(log) == 8
    assert not any(name.endswith(".tmp") for name in log.memory.list(WAL))


def test_a_gap_between_entries_is_damage(log):
    start, stop = batches(log)[2]
    content = log.memory.content(log.segment())
    buffers, length = Codec(STORE).batch(3, [entry(6).encoded])
    content[start:stop] = bytes(stop - start)
    content[start : start + length] = b"".join(buffers)
    assert "entry 6 stands where 5 belongs" in str(damage(log))


def test_terms_that_fall_are_damage():
    log = Log()
    log.write(entry(1, term=3))
    log.write(entry(2, term=2))
    damage(log)


def test_an_unknown_record_is_damage(log):
    start, stop = batches(log)[2]
    content = log.memory.content(log.segment())
    codec = Codec(STORE)
    buffers, length = codec.batch(3, [codec._record(b"\x09what")])
    content[start:stop] = bytes(stop - start)
    content[start : start + length] = b"".join(buffers)
    assert "kind 9" in str(damage(log))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"first_index": 31}, "begins at entry 31, the log ends at 8"),
        ({"hard_state": HardState(1, 3, 0)}, "contradicts the hard state before it"),
        ({"hard_state": HardState()}, "contradicts the hard state before it"),
        ({"mark": CompactionMark(1, 1)}, "contradicts the hard state before it"),
        ({"batch": 1}, "follows batch 1, and the one before it ends with 2"),
    ],
)
def test_a_header_that_contradicts_the_segment_before_it_is_damage(two_segments, change, problem):
    path = two_segments.segment(1)
    content = two_segments.memory.content(path)
    header = decode_segment_header(bytes(content))
    assert header is not None
    changed = msgspec.structs.replace(header, **change)
    content[:SECTOR] = changed.encode()
    right_name = f"{WAL}/{SegmentName(changed.sequence, changed.first_index)}"
    two_segments.memory.names[right_name] = two_segments.memory.names.pop(path)
    assert problem in str(damage(two_segments))


@pytest.mark.parametrize("state", [HardState(0, 0, 0), HardState(1, 2, 3)])
def test_a_hard_state_that_goes_back_is_damage(log, state):
    append_batch(log, Codec(STORE).hard_state(state))
    assert "follows HardState(term=1, vote=2, commit=4)" in str(damage(log))


@pytest.mark.parametrize(
    "fields",
    [
        (1, 1, 9, 5, 9),  # a kind that nobody knows
        (1, 2**63, 9, 5, 1),  # a term that nobody reaches
        (1, 1, 9, 2**63, 3),  # a membership at an impossible time
    ],
)
def test_an_entry_that_makes_no_sense_is_damage_though_its_checksum_fits(log, fields):
    body = struct.pack("<BQQQB", *fields)
    append_batch(log, struct.pack("<II", len(body), google_crc32c.value(body)) + body)
    damage(log)


def test_a_compacted_log_may_begin_below_the_index_its_oldest_segment_was_made_for():
    """Its maker was killed before it used the segment, and came back to overwrite a suffix."""
    log = Log()
    header = SegmentHeader(STORE, 4, 101, 8192, 0, HardState(2, 1, 90), CompactionMark(80, 1))
    log.memory.rename(log.segment(), f"{WAL}/{SegmentName(4, 101)}")
    log.memory.content(log.segment())[:SECTOR] = header.encode()
    append_batch(log, entry(91, term=3).encoded)
    append_batch(log, mark(90, 2))
    recovered, found = recover(log.memory)
    assert (recovered.first_index, recovered.last_index) == (91, 91)
    assert recovered.terms == ((90, 2), (91, 3))
    assert found == [entry(91, term=3)]


# ------------------------------------------------------------------------------- what is recovered


def test_what_was_read_from_memory_only_is_on_the_disk_before_the_start_returns():
    """A failed sync leaves bytes that processes see and the disk does not have; a later sync succeeds."""
    log = Log()
    log.write(entry(1), state=STATE)
    log.memory.fail = lambda operation: operation.startswith("sync ")
    write = log.plan(entry(2))
    with pytest.raises(Exception, match="could not sync"):
        log.wal.execute(write)
    log.memory.fail = lambda operation: False
    assert recover(log.memory)[0].last_index == 2
    after = log.memory.power_loss(lambda sector: False)
    assert recover(after)[0].last_index == 2


def test_a_zeroed_tear_is_on_the_disk_even_when_the_first_attempt_failed(log):
    start, stop = batches(log)[2]
    torn = log.memory.copy()
    torn.content(log.segment())[start + SECTOR : stop] = bytes(stop - start - SECTOR)
    torn.names[log.segment()].disk[:] = torn.content(log.segment())
    torn.fail = lambda operation: operation.startswith("sync 0")
    with pytest.raises(Exception, match="could not sync"):
        recover(torn)
    torn.fail = lambda operation: False
    again = Log(torn)
    again.write(entry(5, size=10))
    after = torn.power_loss(lambda sector: False)
    assert recover(after)[0].last_index == 5


def test_the_number_and_place_of_a_torn_batch_are_used_again(log):
    start, stop = batches(log)[2]
    zero(log, start + SECTOR, stop)
    again = Log(log.memory)
    write = again.write(entry(5, term=2), state=HardState(2, 0, 0))
    assert write.offset == start
    recovered, found = recover(log.memory)
    assert recovered.terms == ((1, 1), (5, 2))
    assert found == [*log.entries[:4], entry(5, term=2)]


def test_a_later_term_in_an_entry_empties_the_vote():
    log = Log()
    log.write(entry(1), state=HardState(1, 3, 0))
    log.write(entry(2, term=5))
    assert recover(log.memory)[0].hard_state == HardState(5, 0, 0)
    log.reopen()
    log.write(*entries(3, 60, term=5, size=300))  # a new segment repeats what is in force
    assert recover(log.memory)[0].hard_state == HardState(5, 0, 0)


def test_an_overwritten_suffix_is_forgotten_in_every_respect():
    log = Log()
    log.write(entry(1), entry(2, kind=EntryKind.MEMBERSHIP), state=STATE)
    log.write(*entries(3, 30, term=1, size=300))
    log.write(entry(31, kind=EntryKind.MEMBERSHIP), *entries(32, 60, term=2, size=300))
    assert len(log.segments) > 2
    log.write(entry(3, term=4, size=20), state=HardState(4, 0, 1))
    recovered, found = recover(log.memory)
    assert found == log.entries
    assert recovered.terms == ((1, 1), (3, 4))
    assert [e.index for e in recovered.memberships] == [2]
    assert recovered.last_time_ms == 1003
    assert recovered.tail == tuple(log.entries)


def test_the_tail_is_the_newest_entries_within_its_bound():
    log = Log(options=WalOptions(segment_bytes=8192, tail_bytes_max=5000))
    log.write(*entries(1, 60, size=300))
    log.write(*entries(61, 100, size=300))
    recovered = log.reopen()
    assert recovered.tail == tuple(log.entries[-len(recovered.tail) :])
    assert 4000 < sum(len(e.encoded) for e in recovered.tail) <= 5000


def test_a_log_without_room_for_a_tail_has_none():
    log = Log(options=WalOptions(segment_bytes=8192, tail_bytes_max=10))
    log.write(entry(1))
    assert log.reopen().tail == ()


# ----------------------------------------------------------------------------------- compaction marks


def append_batch(log, *bodies):
    """Append a batch of raw records, as a later version of the writer may make them."""
    content = log.memory.content(log.segment())
    found = batches(log)
    at = found[-1][1] if found else SECTOR
    buffers, length = Codec(STORE).batch(len(found) + 1, list(bodies))
    content[at : at + length] = b"".join(buffers)


def mark(index, term, keep=True):
    return Codec(STORE).compaction(CompactionMark(index, term), keep=keep)


def test_a_mark_within_the_log_keeps_the_suffix(log):
    """Rule C4: the log holds the marked entry, so what follows it is the same log."""
    append_batch(log, mark(5, 1))
    recovered, found = recover(log.memory)
    assert (recovered.first_index, recovered.last_index) == (6, 8)
    assert recovered.terms == ((5, 1),)
    assert found == log.entries[5:]
    assert [e.index for e in recovered.tail] == [6, 7, 8]


def test_a_mark_beyond_the_log_drops_it_and_the_log_goes_on_behind(log):
    append_batch(log, mark(100, 7, keep=False))
    recovered, found = recover(log.memory)
    assert (recovered.first_index, recovered.last_index, recovered.terms) == (101, 100, ((100, 7),))
    assert found == []
    again = Log(log.memory)
    again.wal.complete(again.plan(entry(101, term=7)))


def test_a_mark_that_continues_another_log_drops_what_is_behind_it_too(log):
    append_batch(log, mark(6, 2, keep=False))
    recovered, _ = recover(log.memory)
    assert (recovered.first_index, recovered.last_index, recovered.terms) == (7, 6, ((6, 2),))


@pytest.mark.parametrize("marks", [[(6, 2)], [(9, 1)], [(6, 1), (5, 1)]])
def test_a_mark_that_contradicts_the_log_is_damage(log, marks):
    append_batch(log, *(mark(*numbers) for numbers in marks))
    assert "contradicts the log" in str(damage(log))


def test_memberships_before_a_mark_are_gone(log):
    log.write(entry(9, kind=EntryKind.MEMBERSHIP), entry(10, kind=EntryKind.MEMBERSHIP))
    append_batch(log, mark(9, 1))
    assert [e.index for e in recover(log.memory)[0].memberships] == [10]


def test_older_segments_may_go_once_a_mark_covers_them(two_segments):
    """Rule W2: their hard state is repeated in the next header."""
    content = two_segments.memory.content(two_segments.segment(1))
    header = Codec(STORE).decode_batch_header(bytes(content), SECTOR)
    assert header is not None
    at = SECTOR + header.length
    buffers, length = Codec(STORE).batch(header.number + 1, [mark(8, 1)])
    content.extend(bytes(at + length - len(content)))  # the segment was made for its batch alone
    content[at : at + length] = b"".join(buffers)
    first = SegmentHeader(STORE, 2, 9, len(content), 2, STATE, CompactionMark())
    content[:SECTOR] = first.encode()
    del two_segments.memory.names[two_segments.segment(0)]
    recovered, found = recover(two_segments.memory)
    assert (recovered.first_index, recovered.hard_state) == (9, STATE)
    assert found == two_segments.entries[8:]


# ------------------------------------------------------------------------------- any tear, any flip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=5),
    zeros=st.booleans(),
    state=st.booleans(),
    data=st.data(),
)
def test_any_subset_of_the_newest_batchs_sectors_gives_the_state_before_or_after(sizes, zeros, state, data):
    log = Log()
    log.write(*entries(1, 3), state=STATE)
    new = [
        encode_entry(
            1, 4 + n, 9, EntryKind.COMMANDS, bytes(size) if zeros else entry(4 + n, size=size).payload
        )
        for n, size in enumerate(sizes)
    ]
    after = HardState(2, 0, 3) if state else STATE
    write = log.plan(*new, state=after if state else None)
    log.memory.stop_at = len(log.memory.operations) + (4096 if write.new_segment is not None else 1)
    with contextlib.suppress(Stopped):
        log.wal.execute(write)
    kept = data.draw(
        st.sets(st.integers(write.offset // SECTOR, (write.offset + write.length) // SECTOR - 1))
    )
    left = log.memory.power_loss(lambda sector: sector in kept)
    for _ in range(2):  # a second start finds what the first one left
        recovered, found = recover(left)
        outcome = (found, recovered.hard_state)
        assert outcome in ((log.entries, STATE), (log.entries + new, after))
        left = left.power_loss(lambda sector: False)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_in_an_older_batch_is_found(data):
    log = Log()
    log.write(*entries(1, 3, size=400), state=STATE)
    log.write(*entries(4, 5), state=HardState(1, 2, 3))
    log.write(*entries(6, 7))
    used = batches(log)[1][1]
    offset, bit = data.draw(st.integers(0, used - 1)), data.draw(st.integers(0, 7))
    log.memory.content(log.segment())[offset] ^= 1 << bit
    damage(log)


@settings(max_examples=200, deadline=None)
@given(garbage=st.binary(max_size=3000), at=st.integers(0, 8000))
def test_garbage_over_a_segment_never_does_worse_than_a_refusal(garbage, at):
    log = Log()
    log.write(*entries(1, 8, size=300), state=STATE)
    log.write(*entries(9, 12))
    content = log.memory.content(log.segment())
    length = len(content)
    content[at : at + len(garbage)] = garbage
    del content[length:]
    try:
        _, found = recover(log.memory)
    except DataError:
        return
    assert found in (log.entries, log.entries[:8], [])
