"""Frames: how greetings and Raft messages lie on a connection between two servers.

    offset  size  field
    0       4     length of what follows the checksum, little endian
    4       4     CRC-32C of what follows
    8       2     Raft group
    10      1     frame type
    11      ...   body, MessagePack: a greeting, or an array of Raft messages

A frame carries as many messages as a node has for a peer at the end of a turn, so that header, checksum and
system call are paid once.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import google_crc32c
import msgspec
from msgspec import Meta

from balsadb.errors import InvariantError, ProtocolError
from balsadb.raft.messages import Message
from balsadb.raft.types import NodeId
from balsadb.wire.handshake import PROTOCOL_VERSION, Challenge, Greeting, Hello, Proof, Refused, Welcome
from balsadb.wire.transfer import Transfer

__all__ = [
    "FRAME_BYTES_MAX",
    "GREETING_BYTES_MAX",
    "MESSAGES_MAX",
    "PROTOCOL_VERSION",
    "Challenge",
    "FrameDecoder",
    "Greeting",
    "Hello",
    "Proof",
    "Refused",
    "Welcome",
    "encode_handshake",
    "encode_messages",
    "encode_transfer",
]

GREETING_BYTES_MAX = 4 * 1024
"""Length of a frame before the hello was accepted: a stranger gets no more memory than this."""
FRAME_BYTES_MAX = 72 * 1024 * 1024
"""Length of any frame: one entry of the largest payload (64 MiB) with room to spare."""
MESSAGES_MAX = 65_536
"""Messages in one frame."""

_LENGTH_CHECKSUM = struct.Struct("<II")
_GROUP_TYPE = struct.Struct("<HB")
_BODY_OFFSET = _LENGTH_CHECKSUM.size + _GROUP_TYPE.size
_TYPE_MESSAGES = 1
_TYPE_TRANSFER = 5
_GREETING_TYPES: dict[type[Greeting], int] = {Hello: 2, Welcome: 3, Refused: 4, Challenge: 6, Proof: 7}
_GREETING_DECODERS: dict[int, msgspec.msgpack.Decoder[Greeting]] = {
    number: msgspec.msgpack.Decoder(greeting) for greeting, number in _GREETING_TYPES.items()
}
_TLS_RECORDS = (b"\x16\x03", b"\x15\x03")
"""How a TLS handshake and a TLS alert begin: lengths far beyond those of any greeting."""

_Frame: TypeAlias = Greeting | tuple[Message, ...] | Transfer
"""What a frame says."""

_encode_body = msgspec.msgpack.Encoder().encode
_message_decoder: msgspec.msgpack.Decoder[tuple[Message, ...]] = msgspec.msgpack.Decoder(
    Annotated[tuple[Message, ...], Meta(max_length=MESSAGES_MAX)]
)

_transfer_decoder: msgspec.msgpack.Decoder[Transfer] = msgspec.msgpack.Decoder(Transfer)


def _encode_frame(group: int, frame_type: int, body: bytes) -> bytes:
    head = _GROUP_TYPE.pack(group, frame_type)
    checksum = google_crc32c.extend(google_crc32c.value(head), body)
    return b"".join((_LENGTH_CHECKSUM.pack(len(head) + len(body), checksum), head, body))


def encode_handshake(greeting: Greeting, group: int = 0) -> bytes:
    """Encode a greeting as one frame. Raises ValueError when its texts are too long."""
    if isinstance(greeting, Refused):
        greeting = greeting.cut()
    frame = _encode_frame(group, _GREETING_TYPES[type(greeting)], _encode_body(greeting))
    if len(frame) > GREETING_BYTES_MAX:
        raise ValueError(f"greeting of {len(frame)} bytes exceeds {GREETING_BYTES_MAX}")
    return frame


def encode_messages(messages: Sequence[Message], group: int = 0) -> bytes:
    """Encode messages for one peer, in order: one frame, or several when one would be too large."""
    body = _encode_body(messages)
    if len(body) + _GROUP_TYPE.size <= FRAME_BYTES_MAX and len(messages) <= MESSAGES_MAX:
        return _encode_frame(group, _TYPE_MESSAGES, body)
    if len(messages) == 1:
        raise InvariantError(f"a Raft message of {len(body)} bytes does not fit into any frame")
    half = len(messages) // 2
    return encode_messages(messages[:half], group) + encode_messages(messages[half:], group)


def encode_transfer(frame: Transfer, group: int = 0) -> bytes:
    """Encode a step of a transfer of the state as one frame."""
    return _encode_frame(group, _TYPE_TRANSFER, _encode_body(frame))


class FrameDecoder:
    """The receiving side of one connection.

    With `handshake` it takes one greeting and then waits for `expect`, which says who is at the other end;
    bytes that come before that are kept, within the limit of a greeting. After `expect`, or without
    `handshake`, it takes frames of messages. `feed` raises ProtocolError on anything else; the connection
    must then be closed.
    """

    __slots__ = (
        "_greeted",
        "_group",
        "_handshake",
        "_held",
        "_need",
        "_source",
        "_target",
        "_type",
        "misaddressed",
    )

    def __init__(self, handshake: bool = True, group: int = 0) -> None:
        self._group = group
        self._handshake = handshake
        """True until `expect`: only a greeting may come."""
        self._greeted = False
        """True when the greeting has come."""
        self._type = _TYPE_MESSAGES
        """Type of the frames that are taken after the greeting."""
        self._source: NodeId | None = None
        """Whose messages are taken; None: everybody's (without handshake, until `expect`)."""
        self._target: NodeId | None = None
        self._held = bytearray()
        """The beginning of an unfinished frame."""
        self._need = 0
        """Bytes of the frame that `_held` is the beginning of; 0 while its header is not there."""
        self.misaddressed = 0
        """Messages dropped because they came from or were meant for another node (bad input 40)."""

    def expect(self, source: NodeId, target: NodeId) -> None:
        """Take messages from now on, but only those from `source` to `target`."""
        if source == target:
            raise ProtocolError(f"node {source} has connected to itself")
        self._source, self._target = source, target
        self._handshake = False

    def expect_greeting(self) -> None:
        """Take one more greeting, before messages or a transfer."""
        self._greeted = False

    def expect_transfer(self) -> None:
        """Take the frames of a transfer from now on."""
        self._handshake = False
        self._type = _TYPE_TRANSFER

    @property
    def buffered_bytes(self) -> int:
        """Bytes held of an unfinished frame."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Greeting | tuple[Message, ...] | Transfer]:
        """Take a piece of input; return a greeting, or the messages of each frame that it completes."""
        frames: list[_Frame] = []
        position = 0
        if self._need:
            position = self._continue_frame(data, frames)
        elif self._held:
            data = bytes(self._held) + data  # less than a header, or what came behind a greeting
            self._held = bytearray()
        if not self._need:
            self._take_frames(data, position, frames)
        return frames

    def _continue_frame(self, data: bytes, frames: list[_Frame]) -> int:
        """Add to the unfinished frame what belongs to it; return the position after that.

        The buffer grows in place, so a large frame in many pieces takes linear time, and no more memory than
        what has come, whatever its length field claims.
        """
        held = self._held
        missing = self._need - len(held)
        held += data[:missing]
        if missing <= len(data):
            _, checksum = _LENGTH_CHECKSUM.unpack_from(held)
            with memoryview(held) as view:
                head, body = bytes(view[_LENGTH_CHECKSUM.size : _BODY_OFFSET]), bytes(view[_BODY_OFFSET:])
            self._held = bytearray()
            self._need = 0
            frames.append(self._read_frame(head, body, checksum))
        return missing

    def _take_frames(self, data: bytes, position: int, frames: list[_Frame]) -> None:
        """Decode whole frames from `position` on and hold the rest."""
        end = len(data)
        while end - position >= _LENGTH_CHECKSUM.size and not (self._handshake and self._greeted):
            length, checksum = _LENGTH_CHECKSUM.unpack_from(data, position)
            if not _GROUP_TYPE.size < length <= (GREETING_BYTES_MAX if self._handshake else FRAME_BYTES_MAX):
                if self._handshake and data.startswith(_TLS_RECORDS, position):
                    raise ProtocolError("the other side speaks TLS between servers, and this one does not")
                raise ProtocolError(f"a peer frame claims {length} bytes")
            after = position + _LENGTH_CHECKSUM.size + length
            if after > end:
                self._need = after - position
                break
            head = data[position + _LENGTH_CHECKSUM.size : position + _BODY_OFFSET]
            frames.append(self._read_frame(head, data[position + _BODY_OFFSET : after], checksum))
            position = after
        if position < end:
            self._held += data[position:]
            if self._greeted and self._handshake and len(self._held) > GREETING_BYTES_MAX:
                raise ProtocolError("a peer goes on before its greeting was accepted")

    def _read_frame(self, head: bytes, body: bytes, checksum: int) -> _Frame:
        if google_crc32c.extend(google_crc32c.value(head), body) != checksum:
            raise ProtocolError("a peer frame fails its checksum")
        group, frame_type = _GROUP_TYPE.unpack(head)
        if group != self._group:
            raise ProtocolError(f"a peer frame is for group {group}")
        return self._decode(frame_type, body)

    def _decode(self, frame_type: int, body: bytes) -> _Frame:
        try:
            if self._handshake:
                decoder = _GREETING_DECODERS.get(frame_type)
                if decoder is None:
                    raise ProtocolError(f"a peer begins with a frame of type {frame_type}, not with a hello")
                self._greeted = True
                return decoder.decode(body)
            if frame_type != self._type:
                raise ProtocolError(f"a peer sends a frame of type {frame_type} among its messages")
            if frame_type == _TYPE_TRANSFER:
                return _transfer_decoder.decode(body)
            messages = _message_decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ProtocolError(f"a peer frame can't be decoded: {error}") from None
        source, target = self._source, self._target
        if source is not None:
            for message in messages:
                if message.source != source or message.target != target:
                    return self._drop_misaddressed(messages)
        return messages

    def _drop_misaddressed(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        kept = tuple(m for m in messages if m.source == self._source and m.target == self._target)
        self.misaddressed += len(messages) - len(kept)
        return kept
