"""The replicated log as the core sees it: terms of every index, and a cache of the newest entries.

    base        first_index           cache_first        applied  commit          durable  written    last
      |------------|----------------------|-----------------|-------|----------------|--------|---------|
      compacted      on disk only: Fetch      in memory

The orders that always hold: applied <= commit <= last, durable <= written <= last, and nothing above
`durable` is ever evicted from memory (rule B2). `commit` may pass `durable`: a majority of *other* nodes
suffices. Terms are kept for every index, as runs, so that consistency checks never wait for the disk.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from balsadb.errors import InvariantError
from balsadb.raft.entry import Entry
from balsadb.raft.options import Recovered
from balsadb.raft.types import Index, Millis, Term

ENTRY_MEMORY_BYTES = 160
"""What the objects of a cached entry take besides its encoded bytes."""

NO_TERM: Term = -1
"""Term of an index that is not in the log (compacted, or past the end): equals no real term."""


class Log:
    """Entries, their terms, and how far they are committed, applied and durable."""

    __slots__ = (
        "_cache_bytes",
        "_cache_bytes_max",
        "_run_firsts",
        "_run_terms",
        "applied_index",
        "base_index",
        "cache_first",
        "commit_index",
        "durable_index",
        "entries",
        "last_index",
        "last_term",
        "last_time_ms",
        "written_index",
    )

    def __init__(self, recovered: Recovered, applied: Index, cache_bytes_max: int) -> None:
        """Begin with what is on disk; everything in it is durable."""
        self.base_index: Index = recovered.first_index - 1
        """Index right before the first one present; its term is known unless the log was never compacted."""
        self.last_index: Index = recovered.last_index
        self._run_firsts: list[Index] = [first for first, _ in recovered.terms]
        self._run_terms: list[Term] = [term for _, term in recovered.terms]
        if not self._run_firsts or self._run_firsts[0] > self.base_index:
            self._run_firsts.insert(0, self.base_index)
            self._run_terms.insert(0, 0 if self.base_index == 0 else NO_TERM)
        self.last_term: Term = self._run_terms[-1]
        self.last_time_ms: Millis = recovered.last_time_ms
        """Log time of the last entry; after a truncation to before the cache, an upper bound of it."""
        self.entries: list[Entry] = list(recovered.tail)
        """Cached entries: `cache_first`..`last_index`."""
        self.cache_first: Index = self.last_index + 1 - len(self.entries)
        self._cache_bytes = sum(len(entry.encoded) + ENTRY_MEMORY_BYTES for entry in self.entries)
        self._cache_bytes_max = cache_bytes_max
        self.durable_index: Index = self.last_index
        """Everything up to here is on this node's disk as it is in this log (rule W1)."""
        self.written_index: Index = self.last_index
        """Everything up to here was handed to the disk."""
        self.commit_index: Index = max(recovered.hard_state.commit, self.base_index, applied)
        self.applied_index: Index = applied
        self._check_start()

    def _check_start(self) -> None:
        if not self.base_index <= self.commit_index <= self.last_index:
            raise InvariantError(
                f"recovered commit or applied index {self.commit_index} lies outside of the log "
                f"({self.base_index + 1}..{self.last_index})"
            )
        if self.entries and (
            self.entries[0].index != self.cache_first or self.cache_first <= self.base_index
        ):
            raise InvariantError(
                f"recovered tail begins at {self.entries[0].index} and should begin at {self.cache_first}"
            )

    @property
    def first_index(self) -> Index:
        """First index present."""
        return self.base_index + 1

    # ------------------------------------------------------------------- terms

    def term_at(self, index: Index) -> Term:
        """Return the term of the entry at `index`; `NO_TERM` when it is not known."""
        firsts = self._run_firsts
        if index >= firsts[-1]:
            return self._run_terms[-1] if index <= self.last_index else NO_TERM
        if index < self.base_index:
            return NO_TERM
        return self._run_terms[bisect_right(firsts, index) - 1]

    def runs(self) -> tuple[tuple[Index, Term], ...]:
        """Return the runs of equal terms: (first index, term), ascending."""
        return tuple(zip(self._run_firsts, self._run_terms, strict=True))

    def up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Tell whether a log that ends so is at least as up to date as this one (Raft paper, 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def agreement_at_most(self, index: Index, term: Term) -> Index:
        """Return the highest index <= `index` whose term here is <= `term`.

        Above it the other log, which has `term` at `index`, can't equal this one: terms never decrease
        along a log. So one answer skips whole terms (Raft paper, end of 5.3).
        """
        index = min(index, self.last_index)
        position = bisect_right(self._run_firsts, index) - 1
        while position > 0 and self._run_terms[position] > term:
            index = self._run_firsts[position] - 1
            position -= 1
        # What is compacted can't be compared any more; it never lies above the base.
        return self.base_index if self._run_terms[position] > term else max(index, self.base_index)

    # ----------------------------------------------------------------- changes

    def append(self, entry: Entry) -> None:
        """Append one entry."""
        index = self.last_index + 1
        if entry.index != index or entry.term < self.last_term:
            raise InvariantError(
                f"entry ({entry.term}, {entry.index}) can't follow ({self.last_term}, {self.last_index})"
            )
        if entry.term != self.last_term:
            self._run_firsts.append(index)
            self._run_terms.append(entry.term)
            self.last_term = entry.term
        self.entries.append(entry)
        self.last_index = index
        self.last_time_ms = entry.time_ms
        self._cache_bytes += len(entry.encoded) + ENTRY_MEMORY_BYTES
        if self._cache_bytes > self._cache_bytes_max:
            self._evict()

    def truncate(self, first: Index) -> None:
        """Remove the entries at `first` and above: they conflict with the leader's (Raft paper, 5.3)."""
        if first <= self.commit_index:
            raise InvariantError(
                f"truncation at {first} would remove committed entries (commit index {self.commit_index})"
            )
        if first > self.last_index:
            raise InvariantError(f"truncation at {first} is past the last index {self.last_index}")
        keep = max(first - self.cache_first, 0)
        self._cache_bytes -= sum(len(entry.encoded) + ENTRY_MEMORY_BYTES for entry in self.entries[keep:])
        del self.entries[keep:]
        self.cache_first = min(self.cache_first, first)
        while self._run_firsts[-1] >= first:
            self._run_firsts.pop()
            self._run_terms.pop()
        self.last_index = first - 1
        self.last_term = self._run_terms[-1]
        if self.entries:
            self.last_time_ms = self.entries[-1].time_ms
        self.written_index = min(self.written_index, self.last_index)
        self.durable_index = min(self.durable_index, self.last_index)

    def compact(self, index: Index) -> None:
        """Forget the entries up to `index`: the state on disk includes them (thesis 5.1)."""
        if not self.base_index < index <= min(self.applied_index, self.durable_index):
            raise InvariantError(
                f"the log can't begin behind {index}: base {self.base_index}, applied {self.applied_index}, "
                f"durable {self.durable_index}"
            )
        run = bisect_right(self._run_firsts, index) - 1
        del self._run_firsts[:run], self._run_terms[:run]
        self._run_firsts[0] = index
        self.base_index = index
        if (gone := index + 1 - self.cache_first) > 0:
            self._cache_bytes -= sum(len(entry.encoded) + ENTRY_MEMORY_BYTES for entry in self.entries[:gone])
            del self.entries[:gone]
            self.cache_first = index + 1

    def restart(self, index: Index, term: Term, time_ms: Millis) -> None:
        """Forget all entries; the log is empty and begins behind `index`, an installed state (rule C4)."""
        self._run_firsts, self._run_terms = [index], [term]
        self.base_index = self.last_index = self.written_index = self.durable_index = index
        self.commit_index = self.applied_index = index
        self.last_term, self.last_time_ms = term, max(time_ms, self.last_time_ms)
        self.entries = []
        self.cache_first, self._cache_bytes = index + 1, 0

    def _evict(self) -> None:
        """Drop the oldest durable entries until three quarters of the cache are used (rule B2)."""
        goal = self._cache_bytes_max * 3 // 4
        size, count = self._cache_bytes, 0
        evictable = self.durable_index - self.cache_first + 1
        while count < evictable and size > goal:
            size -= len(self.entries[count].encoded) + ENTRY_MEMORY_BYTES
            count += 1
        # A list forgets its head in one move; by quarters that is rare enough not to matter.
        if count:
            del self.entries[:count]
            self.cache_first += count
            self._cache_bytes = size

    # ------------------------------------------------------------------- reads

    def cached(self, first: Index, last: Index, bytes_max: int) -> list[Entry]:
        """Return cached entries from `first` up to `last`, at most `bytes_max` bytes but at least one.

        `first` must be in the cache.
        """
        if first < self.cache_first:
            raise InvariantError(f"entry {first} was evicted; the cache begins at {self.cache_first}")
        chunk = self.entries[first - self.cache_first : last + 1 - self.cache_first]
        return chunk if len(chunk) <= 1 else bounded(chunk, bytes_max)


def bounded(entries: Sequence[Entry], bytes_max: int) -> list[Entry]:
    """Return the first entries of at most `bytes_max` bytes, but at least one."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.encoded)
        if size > bytes_max and count:
            return list(entries[:count])
    return list(entries)
