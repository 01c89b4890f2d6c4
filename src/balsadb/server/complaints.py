"""Lines of the log that strangers can cause: a bound on them, so that nobody can fill a disk with them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic

LINES_MAX = 20
"""Lines in one period; what goes beyond is counted, and the count is said with the next line."""
PERIOD_SECONDS = 60.0


class Complaints:
    """Says sentences on standard error, but not too many."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        """`now` tells seconds of any clock that only goes forward."""
        self._now = now
        self._began = now()
        self._said = 0
        self._kept = 0
        """Sentences of this period that were not said."""

    def say(self, sentence: str) -> None:
        """Say a sentence, or count it."""
        now = self._now()
        if now - self._began >= PERIOD_SECONDS:
            if self._kept:
                sys.stderr.write(f"balsadb: {self._kept} lines like these were left out\n")
            self._began, self._said, self._kept = now, 0, 0
        if self._said >= LINES_MAX:
            self._kept += 1
            return
        self._said += 1
        sys.stderr.write(f"balsadb: {''.join(c if c.isprintable() else '?' for c in sentence)}\n")
