"""Which keys are on disk, of those that were in memory before.

A key that is set without being in memory makes the number of keys uncertain until the disk has told whether
it was there, and that look is the dearest part of writing it. But most such keys were in memory before and
had to make room. This remembers of each, in 16 bytes, that it is there.

It is a cache and may forget anything: what it does not know, the disk tells. What it knows must be true,
since every replica has to come to the same number. So a key is remembered by a hash that nobody can make two
keys share: BLAKE2, of 128 bits.
"""

from __future__ import annotations

from hashlib import blake2s
from mmap import mmap
from typing import Final

MARK_BYTES: Final = 16
BUCKET_BYTES: Final = 8 * MARK_BYTES
"""A key may stand in one of eight places; when all are taken, the one who came first is forgotten."""


class Presence:
    """A set of keys of bounded size, which forgets some when it is full."""

    __slots__ = ("_buckets", "_table")

    def __init__(self, bytes_max: int) -> None:
        """Take up to `bytes_max` bytes of memory, and never less than a bucket."""
        self._buckets = max(1, bytes_max // BUCKET_BYTES)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        # Not a bytearray: here the system gives memory only where something is written.
        self._table = mmap(-1, self._buckets * BUCKET_BYTES)

    def __contains__(self, key: bytes) -> bool:
        """Tell whether a key is known to be there; False says nothing."""
        mark = _mark(key)
        return self._find(mark, self._bucket(mark)) >= 0

    def add(self, key: bytes) -> None:
        """Note that a key is there."""
        mark = _mark(key)
        bucket = self._bucket(mark)
        if self._find(mark, bucket) < 0:
            end = bucket + BUCKET_BYTES
            self._table[bucket:end] = mark + self._table[bucket : end - MARK_BYTES]

    def discard(self, key: bytes) -> None:
        """Note that a key is not there any more."""
        mark = _mark(key)
        place = self._find(mark, self._bucket(mark))
        if place >= 0:
            self._table[place : place + MARK_BYTES] = bytes(MARK_BYTES)

    def _bucket(self, mark: bytes) -> int:
        """Return where a mark's bucket begins."""
        return int.from_bytes(mark[:8], "little") % self._buckets * BUCKET_BYTES

    def _find(self, mark: bytes, bucket: int) -> int:
        """Return where in its bucket a mark stands, or -1."""
        table, end = self._table, bucket + BUCKET_BYTES
        place = table.find(mark, bucket, end)
        while place % MARK_BYTES and place > 0:
            # What begins in the middle of a mark is a coincidence, which must not hide the right one: that
            # would stay when its key goes.
            place = table.find(mark, place + 1, end)
        return place


def _mark(key: bytes) -> bytes:
    return blake2s(key, digest_size=MARK_BYTES).digest()
