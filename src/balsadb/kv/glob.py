"""Glob patterns of SCAN and KEYS, as Redis has them: `*`, `?`, `[a-z]`, `[^x]`, `\\`.

A pattern is cut at its stars into pieces of a fixed length each, which are looked for one after the other and
never again. So the work is at most len(pattern) * len(key) steps, where backtracking would be exponential.
"""

from __future__ import annotations

import re
from typing import Final

PATTERN_BYTES_MAX: Final = 256
"""Length of a pattern; longer ones are refused."""

_STAR, _ANY, _OPEN, _CLOSE, _ESCAPE, _NOT, _RANGE = b"*?[]\\^-"
_NOTHING: Final = b"(?!)"


class Glob:
    """One pattern."""

    __slots__ = ("_all", "_exact", "_first", "_last", "_middle", "prefix")

    def __init__(self, pattern: bytes) -> None:
        pieces, self.prefix = _pieces(pattern)
        """`prefix` is how every key that matches begins."""
        self._all = pattern == b"*"
        # An expression of a piece has no repetition in it: it takes so many bytes, in one way.
        compiled = [re.compile(piece, re.DOTALL) for piece in pieces]
        self._exact = compiled[0] if len(compiled) == 1 else None
        self._first, self._middle = compiled[0], compiled[1:-1]
        self._last = re.compile(pieces[-1] + rb"\Z", re.DOTALL)

    def matches(self, key: bytes) -> bool:
        """Tell whether the whole key matches. Case matters."""
        if self._all:
            return True
        if self._exact is not None:
            return self._exact.fullmatch(key) is not None
        found = self._first.match(key)
        if found is None:
            return False
        position = found.end()
        for piece in self._middle:
            found = piece.search(key, position)
            if found is None:
                return False
            position = found.end()
        return self._last.search(key, position) is not None


def _pieces(pattern: bytes) -> tuple[list[bytes], bytes]:
    """Return the expressions of the pieces between stars, and the plain text that a pattern begins with."""
    pieces: list[bytes] = [b""]
    prefix, plain = b"", True
    at = 0
    while at < len(pattern):
        special = pattern[at]
        if special == _STAR:
            plain = False
            if pieces[-1] or len(pieces) == 1:
                pieces.append(b"")
            at += 1
            continue
        if special in (_ANY, _OPEN):
            plain = False
            if special == _ANY:
                pieces[-1] += b"."
                at += 1
            else:
                at, expression = _class(pattern, at + 1)
                pieces[-1] += expression
            continue
        if special == _ESCAPE and at + 1 < len(pattern):
            at += 1
        byte = pattern[at : at + 1]
        pieces[-1] += re.escape(byte)
        if plain:
            prefix += byte
        at += 1
    return pieces, prefix


def _class(pattern: bytes, at: int) -> tuple[int, bytes]:
    """Return where a class whose inside starts at `at` ends, and its expression.

    A missing `]` ends it with the pattern.
    """
    negated = at < len(pattern) and pattern[at] == _NOT
    if negated:
        at += 1
    members: set[int] = set()
    while at < len(pattern) and pattern[at] != _CLOSE:
        if pattern[at] == _ESCAPE and at + 1 < len(pattern):
            members.add(pattern[at + 1])
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1] == _RANGE:
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.update(range(low, high + 1))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    if negated:
        members = set(range(256)) - members
    inside = b"".join(b"\\x%02x" % byte for byte in sorted(members))
    return min(at + 1, len(pattern)), b"[" + inside + b"]" if inside else _NOTHING
