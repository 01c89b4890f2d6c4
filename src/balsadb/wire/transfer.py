"""Sending the state to a follower that needs entries which are compacted, over a connection of its own.

    sender                                  receiver
    Hello(purpose=STATE)            ->
                                    <-      Welcome
    Offer: files, lengths, checksums ->
                                    <-      Resume: where to begin, or at the end when nothing is needed
    Chunk, Chunk, Chunk ...         ->
                                    <-      Installed: up to which index it goes on by itself

Every frame has its checksum and every file another one over all of it. A receiver keeps what it has when a
connection breaks, and goes on from there when the same files are offered again.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from balsadb.wire.handshake import Counter

FILES_MAX = 100_000
"""Files of one state."""
CHUNK_BYTES_MAX = 256 * 1024
"""Bytes of a file in one frame."""

FileName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\Z")]
"""Never a path, and never hidden: it becomes a name in the receiver's own directory."""


class StateFile(msgspec.Struct, frozen=True, array_like=True):
    """One file of a state."""

    name: FileName
    length: Counter
    checksum: Counter
    """CRC-32C of all its bytes."""


class Offer(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What the sender has."""

    index: Counter
    """Applied index of the state."""
    term: Counter
    """Term of that entry."""
    files: Annotated[tuple[StateFile, ...], Meta(max_length=FILES_MAX)]

    @property
    def length(self) -> int:
        """Bytes of all files together."""
        return sum(file.length for file in self.files)


class Resume(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Where the receiver wants the sender to begin."""

    file: Counter
    """Position among the offered files; their number when nothing is missing."""
    offset: Counter


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A piece of a file; pieces come in order and without gaps."""

    file: Counter
    offset: Counter
    data: Annotated[bytes, Meta(max_length=CHUNK_BYTES_MAX)]


class Installed(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The receiver goes on from here."""

    index: Counter
    """Its applied index by now; 0 when the state could not be taken."""


Transfer: TypeAlias = Offer | Resume | Chunk | Installed
