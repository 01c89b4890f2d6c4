"""Cursors of SCAN: integers for clients, positions in the order of keys for us.

A position is a key, of any length; a cursor has 63 bits, because clients parse it as a number. So a cursor is

    the first 3 bytes of the position, 24 bits | a hash of the position, 39 bits

and every node keeps a bounded table of the cursors that it has given out, with their whole positions. A node
that does not know a cursor (another one gave it out, or it was long ago) goes on at the 3 bytes, which is
never behind the position. So some keys may be returned once more, as Redis may do, and none is left out.
"""

from __future__ import annotations

import hashlib
from typing import Final

CURSORS_MAX: Final = 1_024
"""Cursors whose position a node remembers; of more, those that were used longest ago are forgotten."""
CURSOR_MAX: Final = 2**64 - 1
"""What clients may send at most."""
_PREFIX_BYTES: Final = 3
_HASH_BITS: Final = 39


class Cursors:
    """The cursors that a node has given out. Not part of the state: SCAN is never in the log."""

    __slots__ = ("_positions",)

    def __init__(self) -> None:
        self._positions: dict[int, bytes] = {}
        """By cursor, the one that was used longest ago first."""

    def cursor(self, position: bytes) -> int:
        """Return the cursor for a position; never 0, which begins and ends a scan."""
        prefix = int.from_bytes(position[:_PREFIX_BYTES].ljust(_PREFIX_BYTES, b"\0"), "big")
        hashed = int.from_bytes(hashlib.blake2b(position, digest_size=8).digest(), "big")
        cursor = (prefix << _HASH_BITS | hashed % (1 << _HASH_BITS)) or 1
        # Two positions with one cursor: the smaller one repeats keys, the greater one would leave some out.
        former = self._positions.pop(cursor, position)
        self._positions[cursor] = min(former, position)
        if len(self._positions) > CURSORS_MAX:
            del self._positions[next(iter(self._positions))]
        return cursor

    def position(self, cursor: int) -> bytes:
        """Return where a cursor goes on."""
        position = self._positions.pop(cursor, None)
        if position is not None:
            self._positions[cursor] = position
            return position
        prefix = (cursor >> _HASH_BITS) % (1 << 8 * _PREFIX_BYTES)
        # A position may be shorter than the prefix; then zeros were added, and without them it is not behind.
        return prefix.to_bytes(_PREFIX_BYTES, "big").rstrip(b"\0")
