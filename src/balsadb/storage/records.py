"""The bytes of the write-ahead log: records, batches and segment headers.

Every record has the frame of `raft.entry`: length of what follows the checksum, CRC-32C, kind, body. An
entry's record is the entry's own encoded form, byte for byte as the leader made it. The other kinds belong
to this node alone; their checksum starts from the store id, so that a record of another node's log, or one
hidden in a client's value, is never taken for one of ours.

A *batch* is what one write brings (rule W3): a batch header, entries, perhaps a hard state, and a fill of
1 to 512 bytes up to the end of a sector. So

* a batch begins and ends on a sector: no write touches a sector of an older, acknowledged batch;
* its header lies in one sector, so it is there as a whole or not at all;
* its last byte is never zero, so a batch that ends in zeros is incomplete.

docs/disk-format.md describes each field.
"""

from __future__ import annotations

import struct

import google_crc32c
import msgspec

from balsadb.raft.entry import RECORD_ENTRY
from balsadb.raft.types import HardState, Index, Term

__all__ = [
    "BATCH_HEADER_BYTES",
    "RECORD_BATCH",
    "RECORD_COMPACTION",
    "RECORD_ENTRY",
    "RECORD_HARD_STATE",
    "RECORD_SEGMENT",
    "SECTOR_BYTES",
    "BatchHeader",
    "Codec",
    "CompactionMark",
    "SegmentHeader",
]

SECTOR_BYTES = 512
"""What a disk writes as one step, at least: after a power loss a sector has its old or its new bytes."""

FORMAT_VERSION = 1
MAGIC = b"BALSAWAL"

RECORD_BATCH = 2
RECORD_HARD_STATE = 3
RECORD_SEGMENT = 4
RECORD_COMPACTION = 5

FRAME = struct.Struct("<II")
_BATCH = struct.Struct("<BQIII")
_HARD_STATE = struct.Struct("<BQQQ")
_COMPACTION = struct.Struct("<BQQB")
_SEGMENT = struct.Struct("<B8sI16sQQQQQQQQQ")
_SEGMENT_START = struct.Struct("<B8sI")

BATCH_HEADER_BYTES = FRAME.size + _BATCH.size

ZERO_SECTOR = bytes(SECTOR_BYTES)
FILLS = tuple(b"\xff" * length for length in range(SECTOR_BYTES + 1))
"""What stands between the end of the last record and the end of the sector."""

_ZERO_RUN = bytes(SECTOR_BYTES // 2)
"""A batch without such a run has no sector of zeros, wherever its sectors begin."""


class CompactionMark(msgspec.Struct, frozen=True, gc=False):
    """The log up to here is dropped, because a durable state has it (rule C4)."""

    index: Index = 0
    term: Term = 0


class BatchHeader(msgspec.Struct, frozen=True, gc=False):
    """The first record of a batch."""

    number: int
    """1, 2, 3, ... along the whole log, across segments and restarts. A torn batch's number is used again."""
    length: int
    """Bytes of the whole batch, header and fill included."""
    records: int
    """Records after the header."""
    zero_sectors: int
    """Sectors of the batch that hold nothing but zeros because its entries do. More of them on disk mean
    that sectors are missing."""


class SegmentHeader(msgspec.Struct, frozen=True):
    """The first sector of a segment: who wrote it, where it belongs, and what was in force (rule W2)."""

    store_id: bytes
    sequence: int
    first_index: Index
    """Index of the first entry that its maker was about to write to it."""
    length: int
    """Bytes of the file."""
    batch: int
    """Number of the last batch before this segment."""
    hard_state: HardState
    mark: CompactionMark

    def encode(self) -> bytes:
        """Return the whole first sector."""
        state, mark = self.hard_state, self.mark
        body = _SEGMENT.pack(
            RECORD_SEGMENT,
            MAGIC,
            FORMAT_VERSION,
            self.store_id,
            self.sequence,
            self.first_index,
            self.length,
            self.batch,
            state.term,
            state.vote,
            state.commit,
            mark.index,
            mark.term,
        )
        record = FRAME.pack(len(body), google_crc32c.value(body)) + body
        return record + FILLS[SECTOR_BYTES - len(record)]


class UnknownVersion(Exception):
    """A sound segment header of a version that this program does not know."""

    def __init__(self, version: int) -> None:
        self.version = version
        super().__init__(f"format version {version}")


def decode_segment_header(data: bytes) -> SegmentHeader | None:
    """Return the header that a segment begins with; None when it is damaged. Raises UnknownVersion."""
    if len(data) < SECTOR_BYTES:
        return None
    length, checksum = FRAME.unpack_from(data)
    body = data[FRAME.size : FRAME.size + length]
    if length < _SEGMENT_START.size or length > SECTOR_BYTES or google_crc32c.value(body) != checksum:
        return None
    kind, magic, version = _SEGMENT_START.unpack_from(body)
    if kind != RECORD_SEGMENT or magic != MAGIC:
        return None
    if version != FORMAT_VERSION:
        raise UnknownVersion(version)
    end = FRAME.size + length
    if length != _SEGMENT.size or data[end:SECTOR_BYTES] != FILLS[SECTOR_BYTES - end]:
        return None
    _, _, _, store, sequence, first, size, batch, term, vote, commit, index, mark_term = _SEGMENT.unpack(body)
    mark = CompactionMark(index, mark_term)
    return SegmentHeader(store, sequence, first, size, batch, HardState(term, vote, commit), mark)


class Codec:
    """Makes and reads the records that belong to one store."""

    __slots__ = ("_seed",)

    def __init__(self, store_id: bytes) -> None:
        self._seed: int = google_crc32c.value(store_id)
        """Checksum of the store id: what the checksums of this node's own records start from."""

    def hard_state(self, state: HardState) -> bytes:
        """Return the record of a hard state."""
        return self._record(_HARD_STATE.pack(RECORD_HARD_STATE, state.term, state.vote, state.commit))

    def compaction(self, mark: CompactionMark, *, keep: bool) -> bytes:
        """Return the record of a compaction mark. With `keep` the entries behind it continue it (rule C4)."""
        return self._record(_COMPACTION.pack(RECORD_COMPACTION, mark.index, mark.term, keep))

    def batch(self, number: int, records: list[bytes]) -> tuple[list[bytes], int]:
        """Frame records as a batch. Returns the buffers to write, and their bytes, a multiple of a sector."""
        # One copy is cheaper than searching and writing many pieces, and keeps `pwritev` far from its limit.
        content = b"".join(records)
        length = BATCH_HEADER_BYTES + len(content)
        fill = FILLS[SECTOR_BYTES - length % SECTOR_BYTES]
        length += len(fill)
        zero_sectors = 0
        if _ZERO_RUN in content:  # seldom; only then is the exact count worth its time
            header_stand_in = b"\1" * BATCH_HEADER_BYTES
            zero_sectors = count_zero_sectors(b"".join((header_stand_in, content, fill)))
        header = self._record(_BATCH.pack(RECORD_BATCH, number, length, len(records), zero_sectors))
        return [header, content, fill], length

    def decode_batch_header(self, data: bytes, at: int) -> BatchHeader | None:
        """Return the batch header at `at`, or None when there is no sound one."""
        body = data[at + FRAME.size : at + BATCH_HEADER_BYTES]
        if len(body) != _BATCH.size or body[0] != RECORD_BATCH:
            return None
        length, checksum = FRAME.unpack_from(data, at)
        if length != _BATCH.size or google_crc32c.extend(self._seed, body) != checksum:
            return None
        _, number, size, records, zero_sectors = _BATCH.unpack(body)
        return BatchHeader(number, size, records, zero_sectors)

    def sound(self, body: bytes, checksum: int) -> bool:
        """Tell whether a record's body (kind and content, not empty) has this checksum."""
        start = 0 if body[0] == RECORD_ENTRY else self._seed
        return bool(google_crc32c.extend(start, body) == checksum)

    def _record(self, body: bytes) -> bytes:
        return FRAME.pack(len(body), google_crc32c.extend(self._seed, body)) + body


def decode_hard_state(body: bytes) -> HardState | None:
    """Return the hard state in a sound record's body, or None when its length is wrong."""
    if len(body) != _HARD_STATE.size:
        return None
    _, term, vote, commit = _HARD_STATE.unpack(body)
    return HardState(term, vote, commit)


def decode_compaction(body: bytes) -> tuple[CompactionMark, bool] | None:
    """Return the mark in a sound record's body and whether the log goes on behind it; None: wrong length."""
    if len(body) != _COMPACTION.size:
        return None
    _, index, term, keep = _COMPACTION.unpack(body)
    return CompactionMark(index, term), bool(keep)


def count_zero_sectors(data: bytes) -> int:
    """Count the sectors of `data`, which begins on a sector, that hold nothing but zeros."""
    return sum(data[at : at + SECTOR_BYTES] == ZERO_SECTOR for at in range(0, len(data), SECTOR_BYTES))


_BLOCK = bytes(1 << 20)


def is_zero(data: bytes, start: int) -> bool:
    """Tell whether everything from `start` on is zero."""
    for at in range(start, len(data), len(_BLOCK)):
        piece = data[at : at + len(_BLOCK)]
        if piece != _BLOCK[: len(piece)]:
            return False
    return True


def sectors(length: int) -> int:
    """Round a length up to whole sectors."""
    return -(-length // SECTOR_BYTES) * SECTOR_BYTES
