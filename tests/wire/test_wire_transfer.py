"""Frames of a transfer: what was sent is what arrives; hostile ones end the connection and nothing else."""

from __future__ import annotations

import struct

import google_crc32c
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.errors import ProtocolError
from balsadb.raft.messages import Heartbeat
from balsadb.raft.types import NUMBER_MAX
from balsadb.wire import transfer
from balsadb.wire.frame import (
    PROTOCOL_VERSION,
    FrameDecoder,
    Hello,
    encode_handshake,
    encode_messages,
    encode_transfer,
)
from balsadb.wire.handshake import STATE
from balsadb.wire.transfer import CHUNK_BYTES_MAX, Chunk, Installed, Offer, Resume, StateFile

NUMBERS = st.integers(0, NUMBER_MAX)
NAMES = st.from_regex(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\Z")
FILES = st.builds(StateFile, NAMES, NUMBERS, NUMBERS)
FRAMES = st.one_of(
    st.builds(Offer, NUMBERS, NUMBERS, st.lists(FILES, max_size=5).map(tuple)),
    st.builds(Resume, NUMBERS, NUMBERS),
    st.builds(Chunk, NUMBERS, NUMBERS, st.binary(max_size=200)),
    st.builds(Installed, NUMBERS),
)
HELLO = Hello(PROTOCOL_VERSION, b"c" * 16, b"d" * 32, 1, 2, b"s" * 16, 7, "10.0.0.1:7001", True, STATE)
TRANSFER = 5


def framed(body: object, frame_type: int = TRANSFER, group: int = 0) -> bytes:
    """A frame with a right checksum around any body."""
    raw = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
    rest = struct.pack("<HB", group, frame_type) + raw
    return struct.pack("<II", len(rest), google_crc32c.value(rest)) + rest


def decoder() -> FrameDecoder:
    """The receiving end of a transfer, right after the hello."""
    made = FrameDecoder()
    assert made.feed(encode_handshake(HELLO)) == [HELLO]
    made.expect_transfer()
    return made


@given(st.lists(FRAMES, min_size=1, max_size=4), st.integers(1, 60))
def test_what_is_sent_arrives_in_whatever_pieces(frames, size):
    stream = b"".join(encode_transfer(frame) for frame in frames)
    receiving, found = decoder(), []
    for start in range(0, len(stream), size):
        found += receiving.feed(stream[start : start + size])
    assert found == frames
    assert receiving.buffered_bytes == 0


def test_the_largest_piece_arrives():
    chunk = Chunk(3, 4, bytes(CHUNK_BYTES_MAX))
    assert decoder().feed(encode_transfer(chunk)) == [chunk]


def test_an_offer_knows_its_length():
    assert Offer(1, 1, ()).length == 0
    assert Offer(1, 1, (StateFile("a", 3, 9), StateFile("b", 4, 9))).length == 7


def offer(*names: object, length: object = 1) -> bytes:
    return framed([1, 5, 1, [[name, length, 1] for name in names]])


HOSTILE: dict[str, bytes] = {
    "a path": offer("a/b"),
    "an absolute path": offer("/etc/passwd"),
    "the directory above": offer(".."),
    "this directory": offer("."),
    "a hidden name": offer(".bashrc"),
    "a path of Windows": offer("a\\b"),
    "a name with a zero byte": offer("a\0b"),
    "a name with a line end": offer("a\n"),
    "a line end and more": offer("a\n/etc/passwd"),
    "an empty name": offer(""),
    "a name that is too long": offer("a" * 101),
    "a name of other letters": offer("ä"),
    "a name that is a number": offer(7),
    "a name in bytes": offer(b"a"),
    "one bad name among good ones": offer("a", "b", "../c"),
    "a negative length": offer("a", length=-1),
    "a length beyond all numbers": offer("a", length=NUMBER_MAX + 1),
    "a file without a checksum": framed([1, 5, 1, [["a", 1]]]),
    "an offer without files": framed([1, 5, 1]),
    "a negative index": framed([1, -5, 1, []]),
    "a place before the beginning": framed([2, -1, 0]),
    "a piece that is too large": framed([3, 0, 0, bytes(CHUNK_BYTES_MAX + 1)]),
    "a piece that is a text": framed([3, 0, 0, "text"]),
    "a piece before the beginning": framed([3, 0, -1, b"x"]),
    "an unknown step": framed([9, 0, 0]),
    "no step at all": framed([]),
    "nothing": framed(b""),
    "a map": framed({"index": 1}),
    "two things": framed(msgspec.msgpack.encode([4, 1]) * 2),
    "deep nesting": framed(b"\x91" * 5_000),
    "Raft messages": encode_messages([Heartbeat(1, 2, 7, 9, 3, 0)]),
    "a hello": encode_handshake(HELLO),
    "a frame of another group": framed([4, 1], group=1),
    "a frame of an unknown type": framed([4, 1], frame_type=77),
}


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_frame_is_refused(frame):
    receiving = decoder()
    with pytest.raises(ProtocolError):
        receiving.feed(frame)


def test_more_files_than_one_state_has_are_refused():
    files = [["a", 1, 1]] * transfer.FILES_MAX
    assert len(decoder().feed(framed([1, 5, 1, files]))[0].files) == transfer.FILES_MAX
    with pytest.raises(ProtocolError):
        decoder().feed(framed([1, 5, 1, [*files, ["a", 1, 1]]]))


@given(st.binary(max_size=60))
def test_any_bytes_in_a_sound_frame_are_a_step_or_refused(body):
    try:
        (frame,) = decoder().feed(framed(body))
    except ProtocolError:
        return
    assert isinstance(frame, Offer | Resume | Chunk | Installed)


@given(FRAMES, st.data())
def test_any_flipped_bit_is_refused_or_waits_for_more(frame, data):
    stream = bytearray(encode_transfer(frame))
    bit = data.draw(st.integers(0, 8 * len(stream) - 1))
    stream[bit // 8] ^= 1 << bit % 8
    receiving = decoder()
    try:
        assert receiving.feed(bytes(stream)) == []
    except ProtocolError:
        return
    assert receiving.buffered_bytes  # the length was hit: it waits for bytes that never come


def test_a_transfer_frame_among_raft_messages_is_refused():
    receiving = FrameDecoder()
    receiving.feed(encode_handshake(HELLO))
    receiving.expect(source=1, target=2)
    with pytest.raises(ProtocolError, match="frame of type 5"):
        receiving.feed(encode_transfer(Installed(1)))


def test_a_transfer_frame_instead_of_a_hello_is_refused():
    with pytest.raises(ProtocolError, match="begins with a frame of type 5"):
        FrameDecoder().feed(encode_transfer(Installed(1)))


@pytest.mark.parametrize("name", ["CURRENT", "000012.sst", "MANIFEST-000005", "OPTIONS-000007", "a" * 100])
def test_the_names_of_a_state_are_names(name):
    (found,) = decoder().feed(encode_transfer(Offer(1, 1, (StateFile(name, 0, 0),))))
    assert found.files[0].name == name
