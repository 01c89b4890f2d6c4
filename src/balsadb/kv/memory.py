"""A base in memory: what cuts are written to in tests and behind the simulator's disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from balsadb.kv.cut import decode_record
from balsadb.kv.store import Record


class MemoryBatch:
    """An atomic write that is being put together."""

    __slots__ = ("changes", "data", "sessions")

    def __init__(self) -> None:
        self.changes: list[tuple[bytes, bytes | None]] = []
        self.sessions: list[tuple[bytes, bytes | None]] = []
        self.data = b""

    def put(self, key: bytes, record: bytes) -> None:
        """Set a key to an encoded record."""
        self.changes.append((key, record))

    def remove(self, key: bytes) -> None:
        """Take a key away, present or not."""
        self.changes.append((key, None))

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

    def sessions(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all sessions, encoded, by their ids."""
        return iter(sorted(self.stored_sessions.items()))

    def batch(self) -> MemoryBatch:
        """Begin a write."""
        return MemoryBatch()

    def write(self, batch: MemoryBatch) -> None:
        """Let a batch happen."""
        for table, changes in ((self.records, batch.changes), (self.stored_sessions, batch.sessions)):
            for key, data in changes:
                if data is None:
                    table.pop(key, None)
                else:
                    table[key] = data
        self.data = batch.data

    def copy(self) -> MemoryBase:
        """Return a base with the same content that changes apart from this one."""
        copy = MemoryBase()
        copy.records, copy.data = dict(self.records), self.data
        copy.stored_sessions = dict(self.stored_sessions)
        return copy
