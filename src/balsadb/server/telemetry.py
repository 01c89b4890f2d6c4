"""What a node measures about itself while it works, cheaply enough to be always on.

Times are taken once per turn, write or cut, and never per command; commands are counted in runs. Whoever
wants to know reads these objects, at the time of the question (`insight.py`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Final

from balsadb.kv.reply import Refusal
from balsadb.kv.table import COMMANDS, Command
from balsadb.raft.log import Log
from balsadb.raft.types import Index

SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0
)  # fmt: skip
"""Upper bounds of the buckets of all histograms: from a sync into memory to a disk that is about to die."""
PENDING_MAX: Final = 4_096
"""Batches whose commit is awaited and timed; past it the oldest ones are not timed."""
UNKNOWN_COMMAND: Final = b"unknown"
"""Stands for everything that is no command, so that clients can't make up labels."""
OTHER_OUTCOME: Final = b"other"
OUTCOMES: Final = frozenset(
    (
        b"ERR", b"WRONGTYPE", b"EXECABORT", b"CLUSTERDOWN", b"TRYAGAIN", b"UNKNOWN", b"SESSIONEXPIRED",
        b"LOADING", b"NOAUTH", b"WRONGPASS", b"NOPERM", b"NOPROTO",
    )
)  # fmt: skip
"""First words of error replies. Another one would be counted as `other`."""

_ASKED_AS: Final = {
    b"RAFT.DIGEST": b"RAFT",
    b"RAFT.DIGESTAT": b"RAFT",
    b"RAFT.RANDOMKEY": b"RANDOMKEY",
    b"RAFT.VERSIONS": b"WATCH",
    b"ONCE.EXEC": b"ONCE",
}
"""What clients sent, by the internal command that was made of it."""


class Histogram:
    """Counts of durations by their size."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        """By bucket, not cumulated; the last one is for everything longer."""
        self.sum = 0.0
        """All durations together, in seconds."""

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Estimate below which duration a share of the counted ones lies; None when there are none.

    Within a bucket the durations count as evenly spread. Beyond the last bound nothing better than that is
    known.
    """
    total = sum(counts)
    if not total:
        return None
    rank = share * total
    below = 0
    for number, bound in enumerate(SECONDS):
        if counts[number] and below + counts[number] >= rank:
            lower = SECONDS[number - 1] if number else 0.0
            return lower + (bound - lower) * (rank - below) / counts[number]
        below += counts[number]
    return SECONDS[-1]


class CommandCounts:
    """Commands received from clients by name, and error replies by name and code."""

    __slots__ = ("codes", "failed", "received")

    def __init__(self) -> None:
        self.received: dict[bytes, int] = dict.fromkeys((*COMMANDS, UNKNOWN_COMMAND), 0)
        self.failed: dict[tuple[bytes, bytes], int] = {}
        self.codes: dict[bytes, int] = dict.fromkeys((*sorted(OUTCOMES), OTHER_OUTCOME), 0)
        """The same by code alone: there from the start, so that the first error of a kind is a change."""

    def add(self, command: Command | None, number: int) -> None:
        """Count commands of one name that came one after another."""
        self.received[UNKNOWN_COMMAND if command is None else command.name] += number

    def refused(self, command: Command | None, refusal: Refusal) -> None:
        """Count an error reply to a command."""
        name = UNKNOWN_COMMAND if command is None else _ASKED_AS.get(command.name, command.name)
        code = refusal.text.partition(b" ")[0]
        if code not in OUTCOMES:
            code = OTHER_OUTCOME
        self.codes[code] += 1
        self.failed[name, code] = self.failed.get((name, code), 0) + 1


class Stages:
    """How long the steps on the way of a write take, as seen by one node."""

    __slots__ = ("_appended", "_committed", "_last", "apply", "commit", "sync", "turn")

    def __init__(self, last: Index = 0) -> None:
        """`last` is the last index of the log now: what is in it already came at a time that nobody knows."""
        self.turn = Histogram()
        """A turn of the drive loop, from its begin to the last reply written."""
        self.sync = Histogram()
        """A write to the log with its sync, until the loop heard of its end."""
        self.commit = Histogram()
        """From the turn in which a batch came into this node's log to the one that saw it committed."""
        self.apply = Histogram()
        """From there to the turn in which it was applied; mostly the same one."""
        self._last = last
        self._appended: deque[tuple[Index, float]] = deque(maxlen=PENDING_MAX)
        self._committed: deque[tuple[Index, float]] = deque(maxlen=PENDING_MAX)

    def turn_ended(self, began: float, log: Log) -> None:
        """Take the times of a turn that began at `began` by `perf_counter`."""
        now = perf_counter()
        self.turn.add(now - began)
        last = log.last_index
        if last != self._last:
            if last < self._last:
                self._appended.clear()  # a suffix was replaced
            self._appended.append((last, now))
            self._last = last
        appended, committed = self._appended, self._committed
        while appended and appended[0][0] <= log.commit_index:
            index, at = appended.popleft()
            self.commit.add(now - at)
            committed.append((index, now))
        while committed and committed[0][0] <= log.applied_index:
            self.apply.add(now - committed.popleft()[1])
