"""Where each entry of the log lies: eight bytes of memory per entry.

Per segment two arrays of 32-bit numbers hold offset and length of the entries that count. An entry that was
overwritten (rule W2) is forgotten here and stays in its file. An overwrite always drops a whole suffix, so
each segment holds at most one run of consecutive indexes, and the runs follow one another without a gap.

The event loop changes the index while worker threads look entries up; a lock, held for no I/O, guards both.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import msgspec

from balsadb.raft.types import Index


class Extent(msgspec.Struct, frozen=True):
    """Consecutive entries in one file."""

    path: str
    first_index: Index
    offsets: list[int]
    lengths: list[int]


class _Run:
    """The entries of one segment that count."""

    __slots__ = ("first", "lengths", "offsets", "path")

    def __init__(self, path: str, first: Index) -> None:
        self.path = path
        self.first = first
        self.offsets = array("I")
        self.lengths = array("I")


class LogIndex:
    """Finds entries by index."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: list[_Run] = []
        """Of every segment, the empty ones too, in the order of the files."""
        self._next: Index = 1

    @property
    def last_index(self) -> Index:
        """Index of the last entry."""
        return self._next - 1

    @property
    def first_index(self) -> Index:
        """Index of the first entry whose place is known; one more than the last when there is none."""
        return next((run.first for run in self._runs if run.offsets), self._next)

    def places(self) -> list[tuple[str, Index, Index]]:
        """Return path, first and last index of every segment, oldest first; the last one is one less than
        the first where no entry counts."""
        with self._lock:
            return [(run.path, run.first, run.first + len(run.offsets) - 1) for run in self._runs]

    def reset(self, next_index: Index) -> None:
        """Forget all entries; the next one will have `next_index`."""
        with self._lock:
            for run in self._runs:
                del run.offsets[:], run.lengths[:]
            self._next = next_index

    def add_segment(self, path: str) -> None:
        """Note that entries go to a new segment from now on."""
        with self._lock:
            self._runs.append(_Run(path, self._next))

    def extend(self, first: Index, offsets: Iterable[int], lengths: Iterable[int]) -> None:
        """Note entries in the newest segment, from index `first` on; what was there is dropped."""
        with self._lock:
            if first != self._next:
                self._truncate(first)
            run = self._runs[-1]
            if not run.offsets:
                run.first = first
            run.offsets.extend(offsets)
            run.lengths.extend(lengths)
            self._next = run.first + len(run.offsets)

    def _truncate(self, next_index: Index) -> None:
        assert next_index < self._next, f"entry {next_index} would leave a gap after {self._next - 1}"
        for run in reversed(self._runs):
            keep = max(0, next_index - run.first)
            del run.offsets[keep:], run.lengths[keep:]
            if run.offsets:
                break
        self._next = next_index

    def locate(self, first: Index, last: Index, bytes_max: int) -> Extent | None:
        """Find entries from `first` on, at most to `last`, that lie in one file within `bytes_max` bytes.

        One entry is always found. None when `first` is not in the log (it was overwritten, or is no more).
        """
        with self._lock:
            for run in reversed(self._runs):
                if run.offsets and run.first <= first:
                    break
            else:
                return None
            offsets, lengths = run.offsets, run.lengths
            low = first - run.first
            high = min(len(offsets), last + 1 - run.first)
            if low >= high:
                return None
            fits = bisect_right(offsets, offsets[low] + bytes_max, low + 1, high)
            while fits > low + 1 and offsets[fits - 1] + lengths[fits - 1] > offsets[low] + bytes_max:
                fits -= 1
            return Extent(run.path, first, offsets[low:fits].tolist(), lengths[low:fits].tolist())

    def tail_first(self, bytes_max: int) -> Index:
        """Return the first index of the longest suffix that takes at most `bytes_max` bytes in its files."""
        with self._lock:
            for run in reversed(self._runs):
                if not run.offsets:
                    continue
                end = run.offsets[-1] + run.lengths[-1]
                if end - run.offsets[0] > bytes_max:
                    return run.first + bisect_left(run.offsets, end - bytes_max)
                bytes_max -= end - run.offsets[0]
            return self.first_index

    @property
    def bytes(self) -> int:
        """Bytes from the first to the last entry of each file, together."""
        with self._lock:
            return sum(
                run.offsets[-1] + run.lengths[-1] - run.offsets[0] for run in self._runs if run.offsets
            )

    def drop_before(self, first: Index) -> list[str]:
        """Forget the oldest segments, which end before `first`; returns their files, oldest first."""
        with self._lock:
            runs = self._runs
            count = 0
            while count < len(runs) - 1 and runs[count].first + len(runs[count].offsets) <= first:
                count += 1
            gone = [run.path for run in runs[:count]]
            del runs[:count]
            return gone
