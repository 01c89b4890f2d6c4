"""Digests of all replicated state, for comparing replicas (rule S8)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from balsadb.kv.limits import DIGESTS_KEPT
from balsadb.kv.reply import Reply

_ENCODER: Final = msgspec.msgpack.Encoder()
_CHUNK_BYTES: Final = 64 * 1024
"""Records collect up to this size before they are hashed: one call for many of them."""


def hash_state(header: tuple[object, ...], items: Iterable[tuple[bytes, object]]) -> bytes:
    """Return the hex digest of a state: its header, then every key and every session, in their orders."""
    digest = hashlib.blake2b(_ENCODER.encode(header), digest_size=32)
    chunk = bytearray()
    for item in items:
        _ENCODER.encode_into(item, chunk, len(chunk))
        if len(chunk) >= _CHUNK_BYTES:
            digest.update(chunk)
            chunk.clear()
    digest.update(chunk)
    return digest.hexdigest().encode("ascii")


class Digests:
    """The newest digests by log index, and the replies that wait for one.

    A digest covers its whole entry, commands after RAFT.DIGEST in the same batch among them, so its reply
    gets the digest only when the entry is done.
    """

    __slots__ = ("_waiting", "kept")

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}
        """Hex digest by log index, ascending. Replicated state: a digest covers those before it."""
        self._waiting: list[list[Reply]] = []

    def request(self, index: int) -> Reply:
        """Return the reply `[index, digest]`, whose digest follows when the entry is done."""
        reply: list[Reply] = [index, None]
        self._waiting.append(reply)
        return reply

    @property
    def wanted(self) -> bool:
        """Tell whether a reply waits for the digest of the entry under way."""
        return bool(self._waiting)

    def fulfil(self, index: int, digest: bytes) -> None:
        """Complete the waiting replies and keep the digest, dropping the oldest."""
        for reply in self._waiting:
            reply[1] = digest
        self._waiting.clear()
        self.kept[index] = digest
        while len(self.kept) > DIGESTS_KEPT:
            del self.kept[next(iter(self.kept))]
