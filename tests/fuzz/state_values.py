"""What stands in the state on disk: bookkeeping, records and sessions."""

from __future__ import annotations

import msgspec

from balsadb.errors import LocalFault
from balsadb.kv.cut import (
    STATE_VERSION,
    Bookkeeping,
    decode_bookkeeping,
    decode_record,
    encode_bookkeeping,
    encode_record,
)
from balsadb.kv.reply import OK, Mapping, NullArray, Refusal
from balsadb.kv.sessions import NOT_KEPT, Session, decode_session
from fuzz.kit import UNREPAIRED, Target


def _bookkeeping(data: bytes) -> str:
    try:
        found = decode_bookkeeping(data)
    except (LocalFault, *UNREPAIRED):
        return "bookkeeping refused"
    assert found.version == STATE_VERSION
    assert decode_bookkeeping(encode_bookkeeping(found)) == found
    return "bookkeeping taken"


def _record(data: bytes) -> str:
    try:
        record = decode_record(data)
    except LocalFault:
        return "record refused"
    assert encode_record(record) == data
    return "record taken"


def _session(data: bytes) -> str:
    try:
        session = decode_session(b"id", data)
    except (LocalFault, *UNREPAIRED):
        return "session refused"
    assert session.bytes >= 0
    assert len(session.done) <= len(data)
    return "session taken"


_KINDS = (_bookkeeping, _record, _session)


def target(data: bytes) -> str:
    """Read one of them; the first byte says which."""
    return _KINDS[data[0] % len(_KINDS)](data[1:]) if data else "nothing"


def _some_session() -> Session:
    session = Session(b"id", b"nonce", 60_000)
    session.heard_ms, session.heard = 5, (7, 1)
    for number, reply in enumerate(
        (OK, 5, None, b"x", [b"a", 1.5], Refusal(b"ERR x"), NullArray(), NOT_KEPT), 1
    ):
        session.done[number] = b"c" * 8, reply, 0
    session.done[99] = b"c" * 8, Mapping([(b"a", [1])]), 0
    return session


SEEDS = (
    b"\0"
    + encode_bookkeeping(
        Bookkeeping(
            STATE_VERSION, 9, 2, 10**12, (1, 2, 3), b"conf", ((1, 1, 5), (2, 3, 4)), ((4, b"ab"),), 7, 10**12
        )
    ),
    b"\1" + encode_record((b"value", 9, 3)),
    b"\1" + encode_record((b"value", 9, 3, 10**12)),
    b"\2" + _some_session().encode(),
)
TOKENS = (
    *[
        msgspec.msgpack.encode(v)
        for v in (0, 1, 2, 3, -1, 2**63, 2**64 - 1, None, True, 1.5, "x", b"", b"x", [], {})
    ],
    *[
        msgspec.msgpack.encode(v)
        for v in ([0, [0, [0]]], [1, b"x"], [3], [4, 1, 2], [9], [4, 1], [[]], [b"x"])
    ],
    *[
        b"\x91" * 1_500,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc1",
        b"\xa2\xff\xfe",
        b"\x80\0\0\0",
    ],
)

TARGET = Target("state_values", target, SEEDS, TOKENS)
