"""Records of keys, as commands see them, and the changes of a transaction in front of them."""

from __future__ import annotations

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


class OverlayStore:
    """The changes of one transaction in front of a store, to be merged into it or dropped as a whole."""

    def __init__(self, base: Records) -> None:
        self._base = base
        self._changes: dict[bytes, Record | None] = {}
        """What the transaction wrote; None for a key that it removed."""
        self._grown = 0
        """Keys that the transaction added, less those it removed."""

    def get(self, key: bytes) -> Record | None:
        """Return the record of a key, or None."""
        if key in self._changes:
            return self._changes[key]
        return self._base.get(key)

    def put(self, key: bytes, record: Record) -> None:
        """Set the record of a key."""
        self._grown += self.get(key) is None
        self._changes[key] = record

    def remove(self, key: bytes) -> None:
        """Take a key away that is present."""
        self._grown -= 1
        self._changes[key] = None

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._base) + self._grown

    def merge(self) -> None:
        """Make the changes in the store behind."""
        base = self._base
        for key, record in self._changes.items():
            if record is not None:
                base.put(key, record)
            elif base.get(key) is not None:
                base.remove(key)
