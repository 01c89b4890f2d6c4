"""Frames between servers: greetings, Raft messages, and the steps of a transfer of the state.

The first byte of an input chooses what the decoder waits for, and whether what follows is a raw stream or
bodies that are put into frames with a right checksum: a fuzzer that had to guess checksums would never get
behind them, and who knows the protocol does not guess.
"""

from __future__ import annotations

import struct

import google_crc32c
import msgspec

from balsadb.errors import ProtocolError
from balsadb.raft.messages import (
    Append,
    AppendResponse,
    ChangeRequest,
    Heartbeat,
    Propose,
    RoundAck,
    VoteRequest,
)
from balsadb.raft.types import NUMBER_MAX, Member
from balsadb.wire.frame import (
    PROTOCOL_VERSION,
    FrameDecoder,
    Hello,
    Refused,
    Welcome,
    encode_handshake,
    encode_messages,
    encode_transfer,
)
from balsadb.wire.transfer import Chunk, Installed, Offer, Resume, StateFile, Transfer
from fuzz.kit import SEPARATOR, Target, cuttings

GREETING, MESSAGES, TRANSFER = range(3)
"""What a decoder waits for."""
_TYPES = (2, 1, 5)
_RAW = 3
"""Set in the first byte when no frames are made."""
HELLO = Hello(PROTOCOL_VERSION, b"c" * 16, b"d" * 32, 1, 2, b"s" * 16, 7, "10.0.0.1:7001", True)


def framed(body: bytes, frame_type: int, group: int = 0) -> bytes:
    """Return a frame with a right checksum around any body."""
    rest = struct.pack("<HB", group, frame_type) + body
    return struct.pack("<II", len(rest), google_crc32c.value(rest)) + rest


def decoder(stage: int) -> FrameDecoder:
    """Return a decoder that has come as far as a stage."""
    if stage == GREETING:
        return FrameDecoder(handshake=True)
    made = FrameDecoder(handshake=False)
    if stage == MESSAGES:
        made.expect(source=1, target=2)
    else:
        made.expect_transfer()
    return made


def receive(stage: int, pieces: list[bytes]) -> tuple[list[object], str | None, int]:
    """Return what the frames said, why the stream was refused, and the bytes kept of an unfinished frame."""
    receiving = decoder(stage)
    said: list[object] = []
    fed = 0
    for piece in pieces:
        fed += len(piece)
        try:
            said += receiving.feed(piece)
        except ProtocolError as error:
            return said, str(error), 0
        assert receiving.buffered_bytes <= fed
    return said, None, receiving.buffered_bytes


def _encode(stage: int, frame: object) -> bytes:
    if isinstance(frame, tuple):
        return encode_messages(frame)
    if isinstance(frame, Transfer):
        return encode_transfer(frame)
    assert isinstance(frame, Hello | Welcome | Refused)
    assert stage == GREETING
    return encode_handshake(frame)


def _check_numbers(value: object) -> None:
    """No number from outside leaves the range that everything behind relies on (bad input 41)."""
    if isinstance(value, int):
        assert 0 <= value <= NUMBER_MAX
    elif isinstance(value, tuple):
        for item in value:
            _check_numbers(item)
    elif isinstance(value, msgspec.Struct) and not isinstance(value, Member):
        _check_numbers(msgspec.structs.astuple(value))


def target(data: bytes) -> str:
    """Decode a stream in one piece and in several; what it said must survive being sent again."""
    mode = data[0] if data else 0
    stage = mode % 3
    stream = data[1:]
    if mode >> 4 & 3 != _RAW:
        frame_type = _TYPES[stage] if mode >> 6 else mode >> 2 & 7
        bodies = stream.split(SEPARATOR)
        stream = b"".join(framed(body, frame_type) for body in bodies)
    said, error, kept = receive(stage, [stream])
    for pieces in cuttings(stream):
        said_too, error_too, kept_too = receive(stage, pieces)
        assert (error_too, kept_too) == (error, kept), (error_too, kept_too, error, kept)
        assert said_too == said or (error is not None and said_too[: len(said)] == said)
    for frame in said:
        _check_numbers(frame)
        again, refusal, _ = receive(stage, [_encode(stage, frame)])
        assert refusal is None
        assert again == [frame]
        if isinstance(frame, tuple):
            assert all((message.source, message.target) == (1, 2) for message in frame)
            assert all(type(raw) is bytes for m in frame if isinstance(m, Append) for raw in m.entries)
    if error is not None:
        words = [word for word in error.split() if not any(letter.isdigit() for letter in word)]
        return "refused: " + " ".join(words[:7])
    return f"{('greeting', 'messages', 'transfer')[stage]}: {len(said) and 'taken'}"


def _bodies(stage: int, *frames: bytes) -> bytes:
    """An input out of frames, which are made anew from their bodies."""
    return bytes([_mode(stage)]) + SEPARATOR.join(frame[11:] for frame in frames)


def _mode(stage: int) -> int:
    """The least first byte that has frames of the right type made for a stage."""
    return next(mode for mode in range(0x40, 0x70) if mode % 3 == stage and mode >> 4 & 3 != _RAW)


def _raw(stage: int, stream: bytes) -> bytes:
    return bytes([next(mode for mode in range(0x30, 0x40) if mode % 3 == stage)]) + stream


_FILES = (StateFile("CURRENT", 16, 5), StateFile("000012.sst", 4096, 6))
_SENT = (
    encode_messages([Append(1, 2, 7, 9, 6, 8, 3, (b"entry", b"")), Heartbeat(1, 2, 7, 9, 3, 11, 4)]),
    encode_messages([VoteRequest(1, 2, 7, 9, 6, True), AppendResponse(1, 2, 7, 4, True, 3, 2, 1, 99)]),
    encode_messages([Propose(1, 2, 7, (b"payload",)), RoundAck(1, 2, 7, 3, 4, 5, 6)]),
    encode_messages([ChangeRequest(1, 2, 7, 5, 6, (Member(4, "h:1", "h:2", b"s" * 16),), (3,), False, 0)]),
)
_STEPS = (
    encode_transfer(Offer(9, 2, _FILES)),
    encode_transfer(Resume(1, 5)),
    encode_transfer(Chunk(0, 0, b"x" * 40)),
    encode_transfer(Installed(9)),
)
SEEDS = (
    *[_bodies(MESSAGES, frame) for frame in _SENT],
    _bodies(MESSAGES, *_SENT),
    *[_bodies(TRANSFER, frame) for frame in _STEPS],
    _bodies(TRANSFER, *_STEPS),
    _bodies(GREETING, encode_handshake(HELLO)),
    _raw(GREETING, encode_handshake(HELLO)),
    _raw(GREETING, encode_handshake(HELLO) + _SENT[0]),
    _raw(MESSAGES, b"".join(_SENT)),
    _raw(TRANSFER, b"".join(_STEPS)),
)
TOKENS = (
    *[
        msgspec.msgpack.encode(n)
        for n in (0, 1, 2, 127, 128, 2**31, 2**62, 2**62 + 1, 2**63, 2**64 - 1, -1, -(2**63))
    ],
    *[
        msgspec.msgpack.encode(v)
        for v in (None, True, 1.5, "", "x", "h:1", b"", b"x", [], [b"x"], {}, {"a": 1})
    ],
    *[
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc1",
    ],
    *[
        b"\x91" * 1_500,
        b"\xa2\xff\xfe",
        SEPARATOR,
        b"\x90",
        b"\x91",
        b"\x99",
        b"\xc4\x05",
        b"../x",
        b"\xd4\x01\x00",
    ],
)

TARGET = Target("peer_frames", target, SEEDS, TOKENS)
