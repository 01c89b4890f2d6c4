"""What the targets share: what one is, how streams are cut, and how bytes become edits of a sound file.

A target takes any bytes and raises `AssertionError` when a property of its decoder does not hold; any other
exception that leaves it is one that the decoder does not document, and just as much a find. It says with a
word or two what the input came to, so that a run can tell how deep it got, and it is a pure function: the
same bytes always come to the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
"""`corpus/<target>/`: inputs that once broke something, one a file. Every test run begins with them."""

UNREPAIRED = (UnicodeDecodeError, RecursionError)
"""What some decoders let through that they should turn into their own error: texts that are not UTF-8, and
deep nesting where a field is skipped. `test_found.py` has each of them, and fails when one is repaired, so
that this is not forgotten here."""

SEPARATOR = b"\xfe|\xfe"
"""Between the parts of an input that is made of several."""


@dataclass(frozen=True)
class Target:
    """One decoder under test."""

    name: str
    run: Callable[[bytes], str]
    """Takes an input and says what it came to."""
    seeds: tuple[bytes, ...] = field(repr=False)
    """Inputs that get far, from which others are made."""
    tokens: tuple[bytes, ...] = field(default=(), repr=False)
    """Words of the format, to be put anywhere."""

    def corpus(self) -> list[bytes]:
        """Return the inputs that once broke something."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).glob("*"))]


def cuttings(data: bytes) -> list[list[bytes]]:
    """Return some ways to cut a stream into pieces. Which ones follows from the bytes alone."""
    length, number = len(data), zlib.crc32(data)
    first, second = sorted((number % (length + 1), (number >> 16) % (length + 1)))
    found = [[data[:first], data[first:second], data[second:]]]
    if length <= 48:
        found.append([data[at : at + 1] for at in range(length)])
    elif number & 7 == 0:
        size = 1 + (number >> 3) % 13
        found.append([data[at : at + size] for at in range(0, length, size)])
    return found


def edited(original: bytes, edits: bytes) -> bytes:
    """Damage a file as `edits` says, six bytes a step: what is done, where, how much, and with which byte."""
    data = bytearray(original)
    for at in range(0, len(edits) - 5, 6):
        kind, high, low, count, value, more = edits[at : at + 6]
        if not data:
            break
        place = (high << 16 | low << 8 | more) % len(data)
        match kind % 8:
            case 0:
                data[place] ^= 1 << value % 8
            case 1:
                data[place] = value
            case 2:
                data[place : place + count] = bytes([value]) * len(data[place : place + count])
            case 3:  # a sector as if it had never been written
                start = place // 512 * 512
                data[start : start + 512] = bytes(len(data[start : start + 512]))
            case 4:  # a sector of another place
                start, source = place // 512 * 512, value * 512 % len(data) // 512 * 512
                data[start : start + 512] = data[source : source + 512]
            case 5:  # everything behind here as if it had never been written
                data[place:] = bytes(len(data) - place)
            case 6:
                del data[place : place + count]
            case 7:
                del data[place:]
    return bytes(data)
