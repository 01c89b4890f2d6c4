"""Segments of the write-ahead log, as a start finds them.

The first byte chooses between two kinds of input: edits of a sound log, and bodies that become records,
batches and a segment with right checksums, whatever they hold.
"""

from __future__ import annotations

from itertools import pairwise

import google_crc32c

from balsadb.errors import DataError
from balsadb.raft.entry import encode_entry
from balsadb.raft.types import EntryKind, HardState
from balsadb.storage.index import LogIndex
from balsadb.storage.records import (
    BATCH_HEADER_BYTES,
    FILLS,
    FRAME,
    RECORD_ENTRY,
    SECTOR_BYTES,
    Codec,
    CompactionMark,
    SegmentHeader,
)
from balsadb.storage.recovery import Replay
from balsadb.storage.segments import SegmentName
from balsadb.storage.wal import check_header
from fuzz.kit import SEPARATOR, Target, edited

STORE = bytes(range(16))
CODEC = Codec(STORE)
SEGMENT_BYTES = 8 * SECTOR_BYTES


def segment(header: SegmentHeader, batches: list[bytes]) -> bytes:
    """Return the file of a segment."""
    data = header.encode() + b"".join(batches)
    return data + bytes(max(0, header.length - len(data)))


def _batch(number: int, *records: bytes) -> bytes:
    return b"".join(CODEC.batch(number, list(records))[0])


def _entry(index: int, term: int, size: int, kind: EntryKind = EntryKind.COMMANDS) -> bytes:
    payload = b"%d/%d " % (term, index) * size if index % 3 else bytes(size * 40)
    return encode_entry(term, index, 1000 + index, kind, payload).encoded


def _sound_log() -> list[tuple[SegmentName, bytes, list[int]]]:
    """Two segments: name, content, and where each batch ends."""
    first = [
        _batch(1, _entry(1, 1, 3), CODEC.hard_state(HardState(1, 2, 0))),
        _batch(2, _entry(2, 1, 90), _entry(3, 1, 20)),
        _batch(3, CODEC.hard_state(HardState(2, 3, 2))),
    ]
    second = [
        _batch(4, _entry(4, 2, 1), CODEC.compaction(CompactionMark(1, 1), keep=True)),
        _batch(5, _entry(5, 2, 30), _entry(6, 2, 40), CODEC.hard_state(HardState(3, 0, 4))),
    ]
    headers = (
        SegmentHeader(STORE, 1, 1, SEGMENT_BYTES, 0, HardState(), CompactionMark()),
        SegmentHeader(STORE, 2, 4, SEGMENT_BYTES, 3, HardState(2, 3, 2), CompactionMark()),
    )
    found = []
    for header, batches in zip(headers, (first, second), strict=True):
        ends, end = [], SECTOR_BYTES
        for batch in batches:
            end += len(batch)
            ends.append(end)
        found.append((SegmentName(header.sequence, header.first_index), segment(header, batches), ends))
    return found


LOG = _sound_log()


def replay(files: list[tuple[SegmentName, bytes]]) -> Replay:
    """Read files as a start does. Raises DataError."""
    reading = Replay(STORE, LogIndex())
    for name, data in files:
        header = check_header(str(name), name, STORE, data)
        reading.feed(str(name), header, data, newest=name == files[-1][0])
    reading.finish()
    return reading


def _damaged(edits: bytes) -> str:
    """Damage a sound log: what is believed of it is what was written, up to the end of some batch."""
    which = edits[:1] == b"\1"
    files = [(name, data) for name, data, _ in LOG]
    name, data = files[which]
    files[which] = name, edited(data, edits[1:])
    try:
        found = replay(files)
    except DataError:
        return "damage noticed"
    for number, (segment_name, original, ends) in enumerate(LOG):
        newest = number == len(LOG) - 1
        end = found.end if newest else ends[-1]
        assert not newest or end in (SECTOR_BYTES, *ends)
        assert files[number] == (segment_name, files[number][1])
        assert files[number][1][:end] == original[:end], "something was believed that was never written"
        if not found.torn or not newest:
            assert not any(files[number][1][end:])
    whole = found.end == LOG[-1][2][-1]
    return "whole" if whole else "torn" if found.torn else "shorter"


def _made(data: bytes) -> str:
    """Make a segment of any records with right checksums."""
    batches = []
    for number, content in enumerate(data.split(SEPARATOR * 2), 1):
        records = []
        for body in content.split(SEPARATOR):
            if body:
                start = 0 if body[0] == RECORD_ENTRY else google_crc32c.value(STORE)
                records.append(FRAME.pack(len(body), google_crc32c.extend(start, body)) + body)
        batches.append(_batch(number, *records))
    length = SECTOR_BYTES + sum(map(len, batches)) + SECTOR_BYTES
    header = SegmentHeader(STORE, 1, 1, length, 0, HardState(), CompactionMark())
    try:
        found = replay([(SegmentName(1, 1), segment(header, batches))])
    except DataError as error:
        return "refused: " + " ".join(word for word in error.problem.split() if word.isalpha())[:40]
    assert not found.torn
    assert found.batch == len(batches)
    terms = found.terms
    assert all(a < b for a, b in pairwise(terms))
    assert found.hard_state.commit <= found.index.last_index
    assert found.index.first_index <= found.mark.index + 1
    return "taken"


def target(data: bytes) -> str:
    """Recover a log."""
    return _damaged(data[1:]) if data[:1] < b"\x80" else _made(data[1:])


def _body(record: bytes) -> bytes:
    return record[FRAME.size :]


_BODIES = (
    _body(_entry(1, 1, 2)),
    _body(_entry(2, 1, 1, EntryKind.MEMBERSHIP)),
    _body(CODEC.hard_state(HardState(1, 2, 1))),
    _body(CODEC.compaction(CompactionMark(1, 1), keep=True)),
    _body(CODEC.compaction(CompactionMark(9, 1), keep=False)),
)
SEEDS = (
    b"",
    *[b"\0\1" + bytes([kind, 0, high, 9, 7, 3]) for kind in range(8) for high in (0, 3, 7)],
    *[b"\0\0" + bytes([kind, 0, high, 9, 7, 3]) for kind in range(8) for high in (1, 5)],
    *[b"\xff" + body for body in _BODIES],
    b"\xff" + SEPARATOR.join(_BODIES[:3]) + SEPARATOR * 2 + _BODIES[3],
    b"\xff" + (SEPARATOR * 2).join(_BODIES),
)
TOKENS = (SEPARATOR, SEPARATOR * 2, *_BODIES, FILLS[9], bytes(BATCH_HEADER_BYTES), bytes(8), b"\xff" * 8)

TARGET = Target("log_segments", target, SEEDS, TOKENS)
