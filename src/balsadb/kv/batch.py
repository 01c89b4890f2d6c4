"""The payload of a COMMANDS entry: one batch of commands of one origin.

    offset  size  field
    0       1     format version
    1       ...   msgpack array: node, boot, sequence, list of argument vectors

A transaction is flat: a header `EXEC <n> [<key> <version> ...]` followed by its n commands, or in a session
`ONCE.EXEC <id> <sequence> <ack> <n> [<key> <version> ...]`. It is discarded when one of the watched keys has
another version by then (rule S7). A batch is decoded once per node, and
by nobody in between: the leader appends a follower's batch as it came.
"""

from __future__ import annotations

from typing import Final

import msgspec

from balsadb.errors import LocalFault

FORMAT_VERSION: Final = 1
"""The only version that this code writes and knows."""
NUMBER_MAX: Final = 2**62
"""No node, boot or sequence may be greater."""
EXEC: Final = b"EXEC"
"""First word of a transaction's header."""
ONCE_EXEC: Final = b"ONCE.EXEC"
"""The same for one that runs exactly once in its session."""


class UnknownFormat(LocalFault):
    """The log holds a batch that this version can't read, so the node stops instead of diverging."""

    def __init__(self, version: int) -> None:
        self.version = version
        super().__init__(
            f"the log holds a command batch of format {version} and this BalsaDB reads format "
            f"{FORMAT_VERSION}. Start a newer BalsaDB on this data directory."
        )


class Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Commands in the order in which their origin took them, with the origin's name for them (rule P2)."""

    node: int
    """The node whose clients sent the commands."""
    boot: int
    """Which start of that node's process made the batch."""
    sequence: int
    """Number of the batch within the boot; the first is 1."""
    commands: list[list[bytes]]
    """Argument vectors, transactions flattened."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Batch)
_VERSION: Final = bytes([FORMAT_VERSION])


def encode_batch(node: int, boot: int, sequence: int, commands: list[list[bytes]]) -> bytes:
    """Return the payload of a batch."""
    return _VERSION + _ENCODER.encode((node, boot, sequence, commands))


def decode_batch(payload: bytes) -> Batch | None:
    """Return the batch of a payload, or None when the payload is malformed (rule S4).

    Raises UnknownFormat when its version is unknown.
    """
    if not payload:
        return None
    if payload[0] != FORMAT_VERSION:
        raise UnknownFormat(payload[0])
    try:
        batch = _DECODER.decode(memoryview(payload)[1:])
    except msgspec.MsgspecError:
        return None
    in_range = (
        0 < batch.node <= NUMBER_MAX and 0 <= batch.boot <= NUMBER_MAX and 0 < batch.sequence <= NUMBER_MAX
    )
    return batch if in_range else None
