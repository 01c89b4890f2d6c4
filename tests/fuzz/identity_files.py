"""The small files of a data directory: META, END, CURRENT, and the header of a segment."""

from __future__ import annotations

import struct

import google_crc32c
import msgspec

from balsadb.errors import DataError
from balsadb.raft.types import HardState
from balsadb.storage.log_end import FILE_BYTES, LogEnd, decode_end, encode_end
from balsadb.storage.meta import FORMAT_VERSION, MAGIC, Meta, decode_meta, encode_meta
from balsadb.storage.records import CompactionMark, SegmentHeader, UnknownVersion, decode_segment_header
from balsadb.storage.state import read_pointer
from fuzz.kit import UNREPAIRED, Target, edited

STORE = bytes(range(16))
META = Meta(1, STORE, "1=h:8001,2=h:8002", b"c" * 16, 4, True, {2: b"o" * 16}, b"r" * 32)
HEADER = SegmentHeader(STORE, 3, 99, 65_536, 12, HardState(5, 2, 98), CompactionMark(50, 4))
_END = encode_end(STORE, 8, LogEnd(3, 40)) + encode_end(STORE, 9, LogEnd(3, 41))


def _meta(data: bytes) -> str:
    try:
        meta = decode_meta("META", data)
    except (DataError, *UNREPAIRED):
        return "META refused"
    assert decode_meta("META", encode_meta(meta)) == meta
    return "META taken"


def _meta_content(content: bytes) -> str:
    """Any content with a right checksum: what a bug of ours, or of a later version, might leave."""
    return _meta(
        struct.pack("<8sIII", MAGIC, FORMAT_VERSION, len(content), google_crc32c.value(content)) + content
    )


def _damaged_meta(edits: bytes) -> str:
    original = encode_meta(META)
    data = edited(original, edits)
    said = _meta(data)
    assert data == original or said == "META refused"
    return said


def _end(edits: bytes) -> str:
    data = edited(_END, edits)
    try:
        number, end = decode_end("END", data, STORE)
    except DataError:
        return "END refused"
    # One sound sector is enough, and it must be one that was written.
    assert len(data) == FILE_BYTES
    assert (number, end) in ((8, LogEnd(3, 40)), (9, LogEnd(3, 41)))
    return "END taken"


def _pointer(data: bytes) -> str:
    try:
        current = read_pointer("/data/group-0/state/CURRENT", data)
    except DataError:
        return "CURRENT refused"
    directory, _, name = current.path.rpartition("/")
    assert directory == "/data/group-0/state"
    assert name.isdigit()  # so never out of the directory
    assert current.installed >= 0
    return "CURRENT taken"


def _header(edits: bytes) -> str:
    original = HEADER.encode()
    data = edited(original, edits)
    try:
        found = decode_segment_header(data)
    except UnknownVersion:
        return "segment of another version"
    assert (found == HEADER) if data[:512] == original else found is None
    return "segment taken" if found else "segment refused"


_KINDS = (_meta, _meta_content, _damaged_meta, _end, _pointer, _header)


def target(data: bytes) -> str:
    """Read one of the files; the first byte says which."""
    return _KINDS[data[0] % len(_KINDS)](data[1:]) if data else "nothing"


_CONTENT = encode_meta(META)[20:]
SEEDS = (
    b"\0" + encode_meta(META),
    b"\1" + _CONTENT,
    *[bytes([kind, op, 0, at, 3, 7, 1]) for kind in (2, 3, 5) for op in range(8) for at in (0, 20, 200)],
    b"\2",
    b"\3",
    b"\5",
    b"\x041 0\n",
    b"\x0412 99\n",
)
TOKENS = (
    *[
        msgspec.msgpack.encode(value)
        for value in (0, -1, 2**62, 2**64 - 1, None, "", b"", "x" * 40, {}, {1: b""}, [])
    ],
    *[
        b"node_id",
        b"store_id",
        b"met",
        b"\xa2\xff\xfe",
        b"\x91" * 1_500,
        b"\xdf\xff\xff\xff\xff",
        b"\xc1",
        b"\x80",
    ],
    *[b"../x 1", b"0", b" ", b"\n", b"\xd9\xa3", b"-1"],
)

TARGET = Target("identity_files", target, SEEDS, TOKENS)
