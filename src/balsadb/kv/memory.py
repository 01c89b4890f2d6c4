"""A base in memory: what cuts are written to in tests and behind the simulator's disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import nsmallest

from balsadb.kv.cut import decode_record
from balsadb.kv.store import Record, deadline_of


class MemoryBatch:
    """An atomic write that is being put together."""

    __slots__ = ("changes", "cleared", "data", "hint_changes", "sessions")

    def __init__(self) -> None:
        self.changes: list[tuple[bytes, bytes | None]] = []
        self.hint_changes: list[tuple[bytes, bool]] = []
        self.sessions: list[tuple[bytes, bytes | None]] = []
        self.cleared = False
        self.data = b""

    def put(self, key: bytes, record: bytes) -> None:
        """Set a key to an encoded record."""
        self.changes.append((key, record))

    def remove(self, key: bytes) -> None:
        """Take a key away, present or not."""
        self.changes.append((key, None))

    def hint(self, hint: bytes, present: bool) -> None:
        """Set a hint at when a key is due, or take it away, present or not."""
        self.hint_changes.append((hint, present))

    def clear(self) -> None:
        """Take all keys and hints away that are there. Comes first."""
        self.cleared = True

    def put_session(self, id: bytes, data: bytes) -> None:
        """Set a session."""
        self.sessions.append((id, data))

    def remove_session(self, id: bytes) -> None:
        """Take a session away, present or not."""
        self.sessions.append((id, None))

    def bookkeeping(self, data: bytes) -> None:
        """Replace the bookkeeping."""
        self.data = data


class MemoryBase:
    """Encoded records in a dict."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.hint_set: set[bytes] = set()
        self.stored_sessions: dict[bytes, bytes] = {}
        self.data = b""
        """The newest bookkeeping, encoded; empty before the first cut."""

    def get(self, key: bytes, /) -> Record | None:
        """Return the record of a key, or None."""
        found = self.records.get(key)
        return None if found is None else decode_record(found)

    def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return the records of keys, in their order."""
        return [self.get(key) for key in keys]

    def count_present(self, keys: Sequence[bytes]) -> int:
        """Return how many of the keys are there."""
        return sum(key in self.records for key in keys)

    def sorted_items(self) -> Iterator[tuple[bytes, Record]]:
        """Yield all records in the order of their keys' bytes."""
        return ((key, decode_record(self.records[key])) for key in sorted(self.records))

    def slice(self, start: bytes, count: int) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """Return up to `count` keys from `start` on, each with its deadline or 0, and where to go on."""
        keys = nsmallest(count + 1, (key for key in self.records if key >= start))
        found = [(key, deadline_of(decode_record(self.records[key]))) for key in keys[:count]]
        return found, keys[count] if len(keys) > count else None

    def last_key(self) -> bytes | None:
        """Return the greatest key, or None."""
        return max(self.records, default=None)

    def hints(self, start: bytes, count: int) -> list[bytes]:
        """Return up to `count` hints from `start` on, in their order."""
        return nsmallest(count, (hint for hint in self.hint_set if hint >= start))

    def sessions(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all sessions, encoded, by their ids."""
        return iter(sorted(self.stored_sessions.items()))

    def batch(self) -> MemoryBatch:
        """Begin a write."""
        return MemoryBatch()

    def write(self, batch: MemoryBatch) -> None:
        """Let a batch happen."""
        if batch.cleared:
            self.records.clear()
            self.hint_set.clear()
        for table, changes in ((self.records, batch.changes), (self.stored_sessions, batch.sessions)):
            for key, data in changes:
                if data is None:
                    table.pop(key, None)
                else:
                    table[key] = data
        for hint, present in batch.hint_changes:
            if present:
                self.hint_set.add(hint)
            else:
                self.hint_set.discard(hint)
        self.data = batch.data

    def copy(self) -> MemoryBase:
        """Return a base with the same content that changes apart from this one."""
        copy = MemoryBase()
        copy.records, copy.hint_set, copy.data = dict(self.records), set(self.hint_set), self.data
        copy.stored_sessions = dict(self.stored_sessions)
        return copy
