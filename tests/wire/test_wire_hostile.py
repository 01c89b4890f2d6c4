"""Bad input on the peer port: a `ProtocolError`, which closes one connection, and nothing else."""

from __future__ import annotations

import contextlib
import random
import struct

import google_crc32c
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.errors import ProtocolError
from balsadb.raft.messages import Append, Heartbeat, Propose
from balsadb.raft.types import NUMBER_MAX
from balsadb.wire.frame import (
    FRAME_BYTES_MAX,
    GREETING_BYTES_MAX,
    PROTOCOL_VERSION,
    FrameDecoder,
    Hello,
    encode_handshake,
    encode_messages,
)

HELLO = Hello(PROTOCOL_VERSION, b"c" * 16, b"d" * 32, 1, 2, b"s" * 16, 7, "10.0.0.1:7001", True)
MESSAGES = 1
GREETING = 2


def framed(body: object, frame_type: int = MESSAGES, group: int = 0) -> bytes:
    """A frame with a right checksum around any body."""
    raw = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
    rest = struct.pack("<HB", group, frame_type) + raw
    return struct.pack("<II", len(rest), google_crc32c.value(rest)) + rest


def hello_with(**changes: object) -> bytes:
    fields = {name: getattr(HELLO, name) for name in HELLO.__struct_fields__}
    assert changes.keys() <= fields.keys()
    return framed(list({**fields, **changes}.values()), GREETING)


def flipped(stream: bytes, bit: int) -> bytes:
    changed = bytearray(stream)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


HEARTBEAT = [5, 1, 2, 7, 9, 3]
"""Tag, source, target, term, commit, round."""
APPEND = [3, 1, 2, 7, 9, 6, 8, 3, [b"entry"]]
"""Tag, source, target, term, prev_index, prev_term, commit, round, entries."""

BEFORE_HELLO: dict[str, bytes] = {
    "39: RESP": b"*1\r\n$4\r\nPING\r\n",
    "39: HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "39: a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "39: zeroes": bytes(64),
    "39: ones": b"\xff" * 64,
    "39: a length one too large": struct.pack("<II", GREETING_BYTES_MAX + 1, 0),
    "39: a frame of a length that is fine later": struct.pack("<II", 1024 * 1024, 0),
    "39: an empty body": framed(b"", GREETING),
    "39: a wrong checksum": encode_handshake(HELLO)[:-1] + b"\1",
    "39: messages instead of a hello": encode_messages([Heartbeat(1, 2, 7, 9, 3)]),
    "39: an unknown frame type": framed(list(range(9)), 77),
    "39: another group": framed([1, 2], GREETING, group=1),
    "39: not MessagePack": framed(b"\xc1", GREETING),
    "39: deep nesting": framed(b"\x91" * 4000, GREETING),
    "39: deep nesting behind all fields": framed(
        b"\x9b" + msgspec.msgpack.encode(HELLO)[1:] + b"\x91" * 3500, GREETING
    ),
    "39: a version that is no number": hello_with(protocol_version="1"),
    "40: node 0": hello_with(node_id=0),
    "40: a negative node": hello_with(node_id=-1),
    "41: a huge node": hello_with(node_id=NUMBER_MAX + 1),
    "41: a huge boot": hello_with(boot=2**64 - 1),
    "a long identity": hello_with(store_id=b"x" * 65),
    "a long address": hello_with(client_address="x" * 513),
    "an address that is not UTF-8": framed(
        msgspec.msgpack.encode(HELLO).replace(b"10.0.0.1", b"\xff\xfe.0.0.1"), GREETING
    ),
    "a number as truth": hello_with(admitted=1),
}

AFTER_HELLO: dict[str, bytes] = {
    "39: a length one too large": struct.pack("<II", FRAME_BYTES_MAX + 1, 0),
    "39: no body": struct.pack("<II", 3, 0) + bytes(3),
    "39: a wrong checksum": encode_messages([Heartbeat(1, 2, 7, 9, 3)])[:-1] + b"\7",
    "39: a second hello": encode_handshake(HELLO),
    "39: another group": encode_messages([Heartbeat(1, 2, 7, 9, 3)], group=9),
    "39: an unknown message": framed([[99, 1, 2, 7]]),
    "39: a message without its tag": framed([[]]),
    "39: a message that ends early": framed([HEARTBEAT[:4]]),
    "39: a map": framed({"a": 1}),
    "39: bytes behind the messages": framed(msgspec.msgpack.encode([HEARTBEAT]) + b"\0"),
    "39: too many messages": framed([HEARTBEAT] * 65_537),
    "39: a count without the messages": framed(b"\xdd\xff\xff\xff\xff"),
    "39: a length without the bytes": framed(
        b"\x91\x99\x03\x01\x02\x07\x09\x06\x08\x03\x91\xc6\xff\xff\xff\xff"
    ),
    "41: an infinite term": framed([[*HEARTBEAT[:3], 2**63 - 1, *HEARTBEAT[4:]]]),
    "41: a term just too large": framed([[*HEARTBEAT[:3], NUMBER_MAX + 1, *HEARTBEAT[4:]]]),
    "41: a term beyond 64 bits": framed(b"\x91\x96\x05\x01\x02\xcb" + struct.pack(">d", 1e300) + b"\x09\x03"),
    "41: a negative term": framed([[*HEARTBEAT[:3], -1, *HEARTBEAT[4:]]]),
    "41: a negative index": framed([[*APPEND[:4], -1, *APPEND[5:]]]),
    "41: a huge commit": framed([[*HEARTBEAT[:4], 2**64 - 1, HEARTBEAT[5]]]),
    "41: a number as text": framed([[*HEARTBEAT[:3], "7", *HEARTBEAT[4:]]]),
    "41: a fraction": framed([[*HEARTBEAT[:3], 7.5, *HEARTBEAT[4:]]]),
    "41: nothing": framed([[*HEARTBEAT[:3], None, *HEARTBEAT[4:]]]),
    "an entry that is no bytes": framed([[*APPEND[:8], [7]]]),
    "an entry that is text": framed([[*APPEND[:8], ["entry"]]]),
    "no list of entries": framed([[*APPEND[:8], b"entry"]]),
}

SIZES = [10**9, 64, 1]


def feed(decoder: FrameDecoder, stream: bytes, size: int) -> list[object]:
    return [said for at in range(0, len(stream), size) for said in decoder.feed(stream[at : at + size])]


def connected() -> FrameDecoder:
    decoder = FrameDecoder(handshake=False)
    decoder.expect(source=1, target=2)
    return decoder


def test_the_bodies_that_the_bad_ones_are_made_from_are_good():
    assert feed(FrameDecoder(), hello_with(), 10**9) == [HELLO]
    expected = (Heartbeat(1, 2, 7, 9, 3), Append(1, 2, 7, 9, 6, 8, 3, (b"entry",)))
    assert feed(connected(), framed([HEARTBEAT, APPEND]), 10**9) == [expected]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stream", BEFORE_HELLO.values(), ids=BEFORE_HELLO.keys())
def test_refused_before_the_hello(stream, size):
    with pytest.raises(ProtocolError):
        feed(FrameDecoder(), stream, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stream", AFTER_HELLO.values(), ids=AFTER_HELLO.keys())
def test_refused_after_the_hello(stream, size):
    if size < len(stream) // 10_000:
        size = 1_000
    with pytest.raises(ProtocolError):
        feed(connected(), stream, size)


def test_a_truncated_frame_waits():
    """39: the connection's end is the transport's matter."""
    stream = encode_messages([Propose(1, 2, 7, (b"payload",))])
    for length in range(len(stream)):
        decoder = connected()
        assert decoder.feed(stream[:length]) == []
        assert decoder.buffered_bytes == length


@pytest.mark.parametrize("bit", range(8 * 11 + 40))
def test_a_flipped_bit_is_noticed(bit):
    """Either the length is refused, or the frame waits for bytes that never come, or the checksum fails."""
    stream = flipped(encode_messages([Append(1, 2, 7, 9, 6, 8, 3, (b"entry" * 20,))]), bit)
    decoder = connected()
    try:
        assert decoder.feed(stream) == []
    except ProtocolError:
        return
    assert decoder.buffered_bytes == len(stream)


@given(st.binary(max_size=300), st.integers(1, 300))
def test_random_bodies_raise_nothing_but_protocol_errors(body, size):
    for decoder, frame_type in (
        (connected(), MESSAGES),
        *((FrameDecoder(), kind) for kind in (1, 2, 3, 4, 5)),
    ):
        with contextlib.suppress(ProtocolError):
            feed(decoder, framed(body, frame_type), size)


def test_random_values_in_well_formed_messages_raise_nothing_but_protocol_errors():
    numbers = random.Random(41)
    values = [
        0,
        1,
        2,
        -1,
        2**62,
        2**62 + 1,
        2**64 - 1,
        None,
        True,
        "x",
        b"x",
        1.5,
        [],
        [b"x"],
        [[]],
        {},
        "\0" * 50,
    ]
    accepted = 0
    for _ in range(20_000):
        fields = [numbers.randrange(12), 1, 2, 7, *numbers.choices(values, k=numbers.randrange(7))]
        with contextlib.suppress(ProtocolError):
            accepted += len(connected().feed(framed([fields])))
    assert accepted > 100


def test_random_bytes_raise_nothing_but_protocol_errors():
    numbers = random.Random(39)
    for _ in range(2_000):
        for decoder in (FrameDecoder(), connected()):
            try:
                for _ in range(5):
                    decoder.feed(numbers.randbytes(numbers.randrange(40)))
            except ProtocolError:
                pass
