"""The bytes of records, batches and segment headers."""

import pytest
from google_crc32c import value
from hypothesis import given
from hypothesis import strategies as st
from wal_kit import STORE, entry

from balsadb.raft.entry import encode_entry
from balsadb.raft.types import EntryKind, HardState
from balsadb.storage import records
from balsadb.storage.records import (
    BATCH_HEADER_BYTES,
    SECTOR_BYTES,
    BatchHeader,
    Codec,
    CompactionMark,
    SegmentHeader,
)

HEADER = SegmentHeader(STORE, 3, 41, 8192, 17, HardState(5, 2, 40), CompactionMark(7, 1))
NUMBERS = st.integers(0, 2**62)


def test_a_segment_header_is_one_sector_and_comes_back():
    data = HEADER.encode()
    assert len(data) == SECTOR_BYTES
    assert data[9:17] == b"BALSAWAL"
    assert records.decode_segment_header(data) == HEADER


def test_any_flipped_bit_of_a_segment_header_is_found():
    data = HEADER.encode()
    for place in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        assert records.decode_segment_header(bytes(damaged)) is None
    assert records.decode_segment_header(data[:-1]) is None


@given(NUMBERS, NUMBERS, NUMBERS)
def test_hard_states_and_marks_come_back(a, b, c):
    codec = Codec(STORE)
    state, mark = HardState(a, b, c), CompactionMark(a, b)
    assert records.decode_hard_state(codec.hard_state(state)[8:]) == state
    for keep in (False, True):
        record = codec.compaction(mark, keep=keep)
        assert records.decode_compaction(record[8:]) == (mark, keep)
        assert records.decode_hard_state(record[8:]) is None
    assert records.decode_compaction(codec.hard_state(state)[8:]) is None


def test_an_entrys_checksum_is_the_entrys_own_and_other_records_are_sealed_with_the_store():
    codec, other = Codec(STORE), Codec(bytes(16))
    encoded = entry(1).encoded
    assert codec.sound(encoded[8:], value(encoded[8:]))
    assert other.sound(encoded[8:], value(encoded[8:]))
    record = codec.hard_state(HardState(1, 1, 1))
    checksum = int.from_bytes(record[4:8], "little")
    assert codec.sound(record[8:], checksum)
    assert not other.sound(record[8:], checksum)


@pytest.mark.parametrize("size", [0, 1, 440, 448, 449, 450, 511, 512, 5000])
def test_a_batch_is_header_records_and_fill_up_to_a_sector(size):
    record = entry(1, size=size).encoded
    buffers, length = Codec(STORE).batch(9, [record])
    data = b"".join(buffers)
    assert len(data) == length
    assert length % SECTOR_BYTES == 0
    assert data[BATCH_HEADER_BYTES : BATCH_HEADER_BYTES + len(record)] == record
    fill = data[BATCH_HEADER_BYTES + len(record) :]
    assert 1 <= len(fill) <= SECTOR_BYTES
    assert set(fill) == {0xFF}
    assert Codec(STORE).decode_batch_header(b"x" + data, 1) == BatchHeader(9, length, 1, 0)
    assert Codec(bytes(16)).decode_batch_header(data, 0) is None


def test_a_batch_header_cut_short_is_none():
    data = b"".join(Codec(STORE).batch(1, [b"abc"])[0])
    for length in range(BATCH_HEADER_BYTES):
        assert Codec(STORE).decode_batch_header(data[:length], 0) is None


@given(st.lists(st.tuples(st.integers(0, 2500), st.booleans()), min_size=1, max_size=8))
def test_the_header_counts_the_sectors_that_are_zeros_by_content(pieces):
    new = [
        encode_entry(1, n + 1, 0, EntryKind.COMMANDS, bytes(size) if zeros else b"\1" * size).encoded
        for n, (size, zeros) in enumerate(pieces)
    ]
    codec = Codec(STORE)
    data = b"".join(codec.batch(1, new)[0])
    header = codec.decode_batch_header(data, 0)
    assert header is not None
    assert header.zero_sectors == records.count_zero_sectors(data)


@given(st.integers(0, 3 << 20), st.integers(0, 3 << 20))
def test_is_zero_sees_one_byte_anywhere(place, start):
    data = bytearray(3 << 20)
    assert records.is_zero(bytes(data), start)
    if place < len(data):
        data[place] = 1
        assert records.is_zero(bytes(data), start) == (place < start)
