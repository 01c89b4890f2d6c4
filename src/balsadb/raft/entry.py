"""A log entry and its one encoded form.

An entry is encoded once, by the leader that appends it. The same bytes go into the leader's WAL, to the
followers, and into their WALs, so the checksum made at the source guards it everywhere (rule W4).

    offset  size  field
    0       4     length of what follows the checksum, little endian
    4       4     CRC-32C of what follows
    8       1     record kind, RECORD_ENTRY
    9       8     term
    17      8     index
    25      8     time_ms, log time
    33      1     EntryKind
    34      ...   payload
"""

from __future__ import annotations

import struct

import google_crc32c
import msgspec

from balsadb.errors import ProtocolError
from balsadb.raft.types import NUMBER_MAX, EntryKind, Index, Millis, Term

RECORD_ENTRY = 1
"""Record kind of an entry inside the WAL; the other kinds belong to `storage`."""

PAYLOAD_BYTES_MAX = 64 * 1024 * 1024
"""No entry's payload may be larger; far above any batch that a node makes."""

_FRAME = struct.Struct("<II")
_BODY = struct.Struct("<BQQQB")
ENTRY_OVERHEAD_BYTES = _FRAME.size + _BODY.size
"""Bytes of an encoded entry besides its payload."""

_KINDS = {int(kind): kind for kind in EntryKind}


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of the replicated log."""

    term: Term
    index: Index
    time_ms: Millis
    """Log time, stamped by the leader; never decreases along the log (rule S6)."""
    kind: EntryKind
    encoded: bytes
    """The whole encoded form, header and payload."""

    @property
    def payload(self) -> bytes:
        """The opaque content, copied out of the encoded form."""
        return self.encoded[ENTRY_OVERHEAD_BYTES:]


def encode_entry(term: Term, index: Index, time_ms: Millis, kind: EntryKind, payload: bytes) -> Entry:
    """Make an entry with its encoded form. Raises ValueError when the payload is too large."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"payload of {len(payload)} bytes exceeds {PAYLOAD_BYTES_MAX}")
    body = _BODY.pack(RECORD_ENTRY, term, index, time_ms, kind)
    checksum = google_crc32c.extend(google_crc32c.value(body), payload)
    frame = _FRAME.pack(len(body) + len(payload), checksum)
    return Entry(term, index, time_ms, kind, b"".join((frame, body, payload)))


def decode_entry(encoded: bytes) -> Entry:
    """Check an encoded entry and return it. Raises ProtocolError on any doubt about its bytes."""
    if len(encoded) < ENTRY_OVERHEAD_BYTES:
        raise ProtocolError(f"entry of {len(encoded)} bytes is shorter than its header")
    length, checksum = _FRAME.unpack_from(encoded)
    if length != len(encoded) - _FRAME.size or length > PAYLOAD_BYTES_MAX + _BODY.size:
        raise ProtocolError(f"entry says {length} bytes and has {len(encoded) - _FRAME.size}")
    if google_crc32c.value(encoded[_FRAME.size :]) != checksum:
        raise ProtocolError("entry fails its checksum")
    record, term, index, time_ms, kind = _BODY.unpack_from(encoded, _FRAME.size)
    if record != RECORD_ENTRY or kind not in _KINDS:
        raise ProtocolError(f"record kind {record} and entry kind {kind} are not an entry")
    if not 0 < index <= NUMBER_MAX or term > NUMBER_MAX or time_ms > NUMBER_MAX:
        raise ProtocolError(f"entry has impossible numbers: term {term}, index {index}, time {time_ms}")
    return Entry(term, index, time_ms, _KINDS[kind], encoded)
