"""Records of keys, as commands see them, and the changes of a transaction in front of them."""

from __future__ import annotations

from typing import Protocol, TypeAlias

Record: TypeAlias = tuple[bytes, int, int] | tuple[bytes, int, int, int]
"""A key's value with its revision: log index and position in the entry's batch of its last change.

A fourth number is the deadline: at which log time in milliseconds the key expires. Keys that don't expire do
without it, so that they take no more memory and time than if there were no expiry.
"""


def deadline_of(record: Record) -> int:
    """Return when a record expires by log time; 0 for never."""
    return record[3] if len(record) == 4 else 0


class Records(Protocol):
    """What commands need: records by key."""

    def get(self, key: bytes, /) -> Record | None:
        """Return the record of a key, or None."""

    def put(self, key: bytes, record: Record, /) -> None:
        """Set the record of a key."""

    def remove(self, key: bytes) -> None:
        """Take a key away that is present."""

    def hint(self, hint: bytes, present: bool, /) -> None:
        """Set or drop a hint at when a key is due."""

    def clear(self) -> None:
        """Take all keys away."""

    def __len__(self) -> int:
        """Return the number of keys."""


class OverlayStore:
    """The changes of one transaction in front of a store, to be merged into it or dropped as a whole."""

    def __init__(self, base: Records) -> None:
        self._base = base
        self._changes: dict[bytes, Record | None] = {}
        """What the transaction wrote; None for a key that it removed."""
        self._hints: dict[bytes, bool] = {}
        """Hints that the transaction set or dropped."""
        self._cleared = False
        """True when the transaction took all keys away; the changes are those after that."""
        self._grown = 0
        """Keys that the transaction added, less those it removed."""

    def get(self, key: bytes) -> Record | None:
        """Return the record of a key, or None."""
        if key in self._changes:
            return self._changes[key]
        return None if self._cleared else self._base.get(key)

    def put(self, key: bytes, record: Record) -> None:
        """Set the record of a key."""
        self._grown += self.get(key) is None
        self._changes[key] = record

    def remove(self, key: bytes) -> None:
        """Take a key away that is present."""
        self._grown -= 1
        self._changes[key] = None

    def hint(self, hint: bytes, present: bool) -> None:
        """Set or drop a hint at when a key is due."""
        self._hints[hint] = present

    def clear(self) -> None:
        """Take all keys away."""
        self._changes, self._hints, self._cleared, self._grown = {}, {}, True, 0

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._grown if self._cleared else len(self._base) + self._grown

    def merge(self) -> None:
        """Make the changes in the store behind."""
        base = self._base
        if self._cleared:
            base.clear()
        for key, record in self._changes.items():
            if record is not None:
                base.put(key, record)
            elif base.get(key) is not None:
                base.remove(key)
        for hint, present in self._hints.items():
            base.hint(hint, present)
