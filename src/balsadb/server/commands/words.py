"""Texts and small parsers that all command families share, in Redis' own words."""

from __future__ import annotations

from typing import Final

from balsadb.kv.reply import Status

PONG: Final = Status(b"PONG")

SHOWN_BYTES_MAX: Final = 128
"""How much of a client's own words an error text repeats, as in Redis."""
WORD_BYTES_MAX: Final = 64
"""No option, subcommand or section is longer; longer arguments are not worth a change of case."""
_PRINTABLE: Final = bytes(byte if 32 <= byte < 127 else ord(".") for byte in range(256))


def shown(text: bytes) -> bytes:
    """Return a client's own words so that they can stand in an error line: cut, and without control bytes."""
    return text[:SHOWN_BYTES_MAX].translate(_PRINTABLE)


def word(argument: bytes) -> bytes:
    """Return an option's name in upper case. What is too long to be one comes back as it is, cut."""
    if len(argument) > WORD_BYTES_MAX:
        return argument[: WORD_BYTES_MAX + 1]
    return argument.upper()


def is_plain(text: bytes) -> bool:
    """Tell whether `text` has only visible ASCII: what names in CLIENT LIST, a line format, may hold."""
    return not text or (text.isascii() and min(text) > 32 and max(text) < 127)
