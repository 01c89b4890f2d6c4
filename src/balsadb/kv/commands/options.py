"""The options that SET and GETEX share."""

from __future__ import annotations

from typing import Final

import msgspec

from balsadb.kv.commands.numbers import INTEGER_MAX, integer
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.refusals import NOT_AN_INTEGER, SYNTAX_ERROR, invalid_expire_time
from balsadb.kv.reply import Refusal

SECOND_MS: Final = 1_000
_OPTION_BYTES_MAX: Final = 8
_EXPIRING: Final = {
    b"EX": (SECOND_MS, True),
    b"PX": (1, True),
    b"EXAT": (SECOND_MS, False),
    b"PXAT": (1, False),
}
"""Milliseconds of the unit, and whether the time counts from now on."""


class Options(msgspec.Struct):
    """What was chosen."""

    absent: bool = False
    """NX."""
    present: bool = False
    """XX."""
    old: bool = False
    """GET."""
    keep: bool = False
    """KEEPTTL."""
    persist: bool = False
    """PERSIST."""
    equal: bytes | None = None
    """IFEQ: the value that the key must have."""
    unit_ms: int = 0
    relative: bool = False
    time: bytes | None = None
    """When the key is to expire, as it was given."""

    def deadline(self, space: Keyspace, command: bytes) -> int | Refusal:
        """Return when the key is to expire, 0 for never."""
        if self.time is None:
            return 0
        return positive_deadline(space, self.time, self.unit_ms, self.relative, command)


def parse_options(words: list[bytes], *, setting: bool) -> Options | Refusal:
    """Return the options of SET, or those of GETEX. One may stand twice; the later one counts then."""
    options = Options()
    expiring = b""
    position = 0
    while position < len(words):
        word = words[position][:_OPTION_BYTES_MAX].upper()
        more = position + 1 < len(words)
        if word in _EXPIRING:
            if options.keep or options.persist or expiring not in (b"", word) or not more:
                return SYNTAX_ERROR
            expiring = word
            options.unit_ms, options.relative = _EXPIRING[word]
            position += 1
            options.time = words[position]
        elif setting and word == b"NX" and not options.present and options.equal is None:
            options.absent = True
        elif setting and word == b"XX" and not options.absent and options.equal is None:
            options.present = True
        elif setting and word == b"GET":
            options.old = True
        elif setting and word == b"KEEPTTL" and not expiring:
            options.keep = True
        elif setting and word == b"IFEQ" and more and not (options.absent or options.present):
            position += 1
            options.equal = words[position]
        elif not setting and word == b"PERSIST" and not expiring:
            options.persist = True
        else:
            return SYNTAX_ERROR
        position += 1
    return options


def positive_deadline(
    space: Keyspace, text: bytes, unit_ms: int, relative: bool, command: bytes
) -> int | Refusal:
    """Return the deadline for a time that must be greater than 0, as `SET` and `SETEX` want it."""
    time = integer(text)
    if time is None:
        return NOT_AN_INTEGER
    if time <= 0 or time > INTEGER_MAX // unit_ms:
        return invalid_expire_time(command)
    deadline = time * unit_ms + (space.log_time_ms if relative else 0)
    return deadline if deadline <= INTEGER_MAX else invalid_expire_time(command)
