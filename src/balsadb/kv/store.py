"""Where the records of the keys are.

`MemoryStore` holds them in a dict. A store that keeps them on disk behind a bounded dict of recent changes
offers the same operations and takes its place without any command noticing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeAlias

Record: TypeAlias = tuple[bytes, int, int]
"""A key's value with its revision: log index and position in the entry's batch of its last change."""


class Records(Protocol):
    """What commands need: records by key."""

    def get(self, key: bytes, /) -> Record | None:
        """Return the record of a key, or None."""

    def put(self, key: bytes, record: Record, /) -> None:
        """Set the record of a key."""

    def remove(self, key: bytes) -> None:
        """Take a key away that is present."""

    def __len__(self) -> int:
        """Return the number of keys."""


class Store(Records, Protocol):
    """What the state machine needs besides: all of them."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield all keys in no particular order: for nothing that the state depends on."""

    def sorted_items(self) -> Iterable[tuple[bytes, Record]]:
        """Return all records in the order of their keys' bytes."""


class MemoryStore:
    """All records in a dict."""

    def __init__(self) -> None:
        self._records: dict[bytes, Record] = {}
        # The dict's own methods, because a Python method around each would cost as much as all the rest.
        self.get: Callable[[bytes], Record | None] = self._records.get
        self.put: Callable[[bytes, Record], None] = self._records.__setitem__

    def remove(self, key: bytes) -> None:
        """Take a key away that is present."""
        del self._records[key]

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._records)

    def __iter__(self) -> Iterator[bytes]:
        """Yield all keys in no particular order."""
        return iter(self._records)

    def sorted_items(self) -> Iterable[tuple[bytes, Record]]:
        """Return all records in the order of their keys' bytes."""
        records = self._records
        return ((key, records[key]) for key in sorted(records))


class OverlayStore:
    """The changes of one transaction in front of a store, to be merged into it or dropped as a whole."""

    def __init__(self, base: Records) -> None:
        self._base = base
        self._changes: dict[bytes, Record | None] = {}
        """What the transaction wrote; None for a key that it removed."""
        self._size = len(base)

    def get(self, key: bytes) -> Record | None:
        """Return the record of a key, or None."""
        if key in self._changes:
            return self._changes[key]
        return self._base.get(key)

    def put(self, key: bytes, record: Record) -> None:
        """Set the record of a key."""
        self._size += self.get(key) is None
        self._changes[key] = record

    def remove(self, key: bytes) -> None:
        """Take a key away that is present."""
        self._size -= 1
        self._changes[key] = None

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._size

    def merge(self) -> None:
        """Make the changes in the store behind."""
        base = self._base
        for key, record in self._changes.items():
            if record is not None:
                base.put(key, record)
            elif base.get(key) is not None:
                base.remove(key)
