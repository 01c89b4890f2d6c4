"""What the node says on standard error about things that strangers can make happen.

A stranger must neither fill the disk with our log nor write into it what he likes (bad inputs 31, 44). So
there are so many lines in a time, and then the number of those that were left out; and a line has nothing in
it that a terminal obeys.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic

LINES_MAX = 20
"""Lines that are written in a row."""
PERIOD_SECONDS = 60.0
"""After this from the first of them, others may be written."""
LINE_CHARACTERS_MAX = 500
"""The rest of a longer sentence is left out."""


def _write(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def printable(text: str) -> str:
    """Return a text as one line of printable characters: a dot stands for any other one."""
    return "".join([letter if letter.isprintable() else "." for letter in text[:LINE_CHARACTERS_MAX]])


class Voice:
    """Says sentences, and not too many."""

    def __init__(self, write: Callable[[str], None] = _write, clock: Callable[[], float] = monotonic) -> None:
        self._write = write
        self._clock = clock
        self._began = 0.0
        self._lines = 0
        """Lines since `_began`, written or not."""

    def say(self, sentence: str) -> None:
        """Write a line, or count it when there were too many."""
        now = self._clock()
        if not self._lines or now - self._began >= PERIOD_SECONDS:
            if self._lines > LINES_MAX:
                self._write(f"balsadb: {self._lines - LINES_MAX} more lines like these were left out")
            self._began, self._lines = now, 0
        self._lines += 1
        if self._lines <= LINES_MAX:
            self._write(f"balsadb: {printable(sentence)}")
