"""Entries of the log and the configurations in them."""

from __future__ import annotations

import struct

import google_crc32c
import msgspec

from balsadb.errors import ProtocolError
from balsadb.raft.configuration import (
    change_fault,
    decode_configuration,
    encode_configuration,
    fingerprint,
)
from balsadb.raft.entry import decode_entry, encode_entry
from balsadb.raft.types import NUMBER_MAX, Configuration, EntryKind, Member
from fuzz.kit import SEPARATOR, UNREPAIRED, Target


def _entry(encoded: bytes) -> str:
    try:
        entry = decode_entry(encoded)
    except ProtocolError:
        return "entry refused"
    assert 0 < entry.index <= NUMBER_MAX
    assert max(entry.term, entry.time_ms) <= NUMBER_MAX
    again = encode_entry(entry.term, entry.index, entry.time_ms, entry.kind, entry.payload)
    assert again == entry
    assert again.encoded == encoded  # there is one encoded form (rule W4)
    return "entry taken"


def _framed(body: bytes) -> str:
    return _entry(struct.pack("<II", len(body), google_crc32c.value(body)) + body)


def _configurations(data: bytes) -> str:
    found = []
    for payload in data.split(SEPARATOR)[:2]:
        try:
            configuration = decode_configuration(payload)
        except (ProtocolError, *UNREPAIRED):
            return "configuration refused"
        assert decode_configuration(encode_configuration(configuration)) == configuration
        assert 0 <= fingerprint(configuration) < 2**32
        found.append(configuration)
    old, new = found[0], found[-1]
    if change_fault(old, new) is not None:
        return "change refused"
    # Any majority of the old voters and any of the new ones must meet (thesis 4.3).
    if set(old.voters) != set(new.voters):
        assert new.outgoing == old.voters or not old.voters
    assert set(old.removed) <= set(new.removed)
    return "change taken"


_KINDS = (_entry, _framed, _configurations)


def target(data: bytes) -> str:
    """Decode an entry, an entry with a right checksum, or two configurations."""
    return _KINDS[data[0] % len(_KINDS)](data[1:]) if data else "nothing"


_MEMBERS = (Member(1, "h:8001", "h:7001", b"s" * 16), Member(2, "h:8002"))
_OLD = Configuration((1, 2), (), (3,), (9,), _MEMBERS, b"c" * 16)
_JOINT = Configuration((1, 2, 3), (1, 2), (), (9,), _MEMBERS, b"c" * 16)
_PROMOTING = Configuration((1, 2), (), (3,), (9,), _MEMBERS, b"c" * 16, (3,), (1,))
_BODY = encode_entry(3, 7, 10**12, EntryKind.COMMANDS, b"payload").encoded
SEEDS = (
    b"\0" + _BODY,
    b"\1" + _BODY[8:],
    b"\1" + encode_entry(3, 7, 10**12, EntryKind.NOOP, b"").encoded[8:],
    *[
        b"\2" + encode_configuration(old) + SEPARATOR + encode_configuration(new)
        for old in (_OLD, _JOINT, _PROMOTING)
        for new in (_OLD, _JOINT, _PROMOTING)
    ],
)
TOKENS = (
    *[
        msgspec.msgpack.encode(v)
        for v in (0, 1, 2, 3, 9, -1, 2**63, 2**64 - 1, None, "x", b"x", [], [1], [1, 2], [3], {})
    ],
    *[b"\x91" * 1_500, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc1", b"\xa2\xff\xfe", SEPARATOR],
    *[struct.pack("<Q", n) for n in (0, 1, NUMBER_MAX, NUMBER_MAX + 1, 2**64 - 1)],
)

TARGET = Target("log_entries", target, SEEDS, TOKENS)
