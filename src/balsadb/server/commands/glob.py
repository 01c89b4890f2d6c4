"""Glob patterns as Redis has them (`*`, `?`, `[a-z]`, `[^x]`, `\\`), matched within a known bound.

No regular expression is built from what a client sends. A later `*` never gives back to an earlier one, so
the work is at most len(pattern) * len(text) steps, where recursion would be exponential.
"""

from __future__ import annotations

from typing import Final

PATTERN_BYTES_MAX: Final = 64
"""Longer patterns match nothing: the names they are held against are shorter."""

_STAR, _ANY, _OPEN, _CLOSE, _ESCAPE, _NOT, _RANGE = b"*?[]\\^-"


def is_literal(pattern: bytes) -> bool:
    """Tell whether a pattern has no special character, so that it matches just itself."""
    return not any(special in pattern for special in (b"*", b"?", b"[", b"\\"))


def matches(pattern: bytes, text: bytes) -> bool:
    """Tell whether the whole of `text` matches `pattern`. Case matters."""
    if len(pattern) > PATTERN_BYTES_MAX:
        return False
    at, position = 0, 0
    star, retry = -1, 0  # the latest star, and where in the text to go on if what follows it fails
    while position < len(text):
        if at < len(pattern) and pattern[at] == _STAR:
            star, retry = at, position
            at += 1
            continue
        after = _match_one(pattern, at, text[position]) if at < len(pattern) else 0
        if after:
            at, position = after, position + 1
        elif star >= 0:
            retry += 1
            at, position = star + 1, retry
        else:
            return False
    return all(byte == _STAR for byte in pattern[at:])


def _match_one(pattern: bytes, at: int, byte: int) -> int:
    """Match one byte with the element at `at`; return where the next element starts, or 0 for no match."""
    special = pattern[at]
    if special == _ANY:
        return at + 1
    if special == _OPEN:
        return _match_class(pattern, at + 1, byte)
    if special == _ESCAPE and at + 1 < len(pattern):
        at += 1
    return at + 1 if pattern[at] == byte else 0


def _match_class(pattern: bytes, at: int, byte: int) -> int:
    """Match one byte with a class whose inside starts at `at`. A missing `]` ends it with the pattern."""
    negated = at < len(pattern) and pattern[at] == _NOT
    if negated:
        at += 1
    found = False
    while at < len(pattern) and pattern[at] != _CLOSE:
        if pattern[at] == _ESCAPE and at + 1 < len(pattern):
            found |= pattern[at + 1] == byte
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1] == _RANGE:
            low, high = sorted((pattern[at], pattern[at + 2]))
            found |= low <= byte <= high
            at += 3
        else:
            found |= pattern[at] == byte
            at += 1
    return min(at + 1, len(pattern)) if found is not negated else 0
