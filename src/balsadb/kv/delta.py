"""Keys in memory in front of keys on disk.

    changes     of entries applied since the newest cut          -> freeze -> a cut
    cuts        frozen, being written, oldest first              -> written -> cached
    cached      what the newest written cuts changed, and what was read, as long as memory allows
    base        everything as of the newest written cut, on disk

A key is looked up in one dict that holds all of the first three; only a key that is not there is read from
the base, once. So the keys in use are answered without leaving Python, however many others there are.

A key that is set needs no look at the base, but the number of keys does: was it there? Of the keys that left
memory `presence` remembers the most. The others are counted when they are cut (`Cut.blind`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import islice
from typing import Final

import msgspec

from balsadb.errors import InvariantError
from balsadb.kv.cut import SLICE_KEYS, Base, Bookkeeping, Cut
from balsadb.kv.deadlines import Deadlines
from balsadb.kv.presence import Presence
from balsadb.kv.store import Record, deadline_of

READ_GENERATION_BYTES: Final = 1 << 16
"""Records that were read from the base are forgotten in groups of about this size, below `SLICE_KEYS`."""
PRESENCE_SHARE: Final = 1 / 2
"""Memory for knowing that keys are on disk, beside that for their records."""
RECORD_MEMORY_BYTES: Final = 200
"""What a record in memory takes besides the bytes of key and value."""


class _Resident(dict[bytes, Record | None]):
    """Records in memory; a missing one is fetched. None stands for a key that is not there."""

    __slots__ = ("fetch",)

    fetch: Callable[[bytes], Record | None]

    def __missing__(self, key: bytes) -> Record | None:
        return self.fetch(key)


class DeltaStore:
    """All keys, with what changed since the newest written cut in memory."""

    def __init__(self, base: Base, keys: int, cache_bytes_max: int) -> None:
        """Begin with `keys` keys on disk. `cache_bytes_max` bounds what is kept in memory without need."""
        self._cache_bytes_max = cache_bytes_max
        self._present = Presence(int(cache_bytes_max * PRESENCE_SHARE))
        """Keys that have left memory and are in the base. Says nothing about those in memory."""
        self._resident = _Resident()
        # The dict's own method, because a Python method around it would cost as much as all the rest.
        self.get: Callable[[bytes], Record | None] = self._resident.__getitem__
        self.deadlines = Deadlines(base)
        """Hints at when keys are due."""
        self._begin(base, keys)

    def restore(self, base: Base, keys: int) -> None:
        """Begin anew on another base; what was not written to the old one is gone (rule C4)."""
        self.deadlines.restore(base)
        self._begin(base, keys)

    def _begin(self, base: Base, keys: int) -> None:
        self.base = base
        self._count = keys
        self.complete = keys == 0
        """True while every key is in memory: then one that is not there does not exist."""
        self.forgotten = 0
        """Grows whenever what was in memory may have been forgotten that was written lately."""
        self._resident.clear()
        self._present.clear()
        self._resident.fetch = self._fetch
        self._changes: dict[bytes, Record | None] = {}
        self._blind: set[bytes] = set()
        self.changed_bytes = 0
        """Bytes of keys and values written since the newest cut."""
        self.cuts: deque[Cut] = deque()
        """Frozen and not yet written, oldest first."""
        self._cached: deque[tuple[dict[bytes, Record | None], int]] = deque()
        """Groups of records that are also in the base, with their bytes; the oldest goes first."""
        self._cached_bytes = 0
        self._leaving: dict[bytes, Record | None] = {}
        """What is left of the group that is being forgotten."""
        self._read: dict[bytes, Record | None] = {}
        self._read_bytes = 0
        self.cleared = False
        """True when all keys were taken away since the newest cut."""
        self._clears = 0
        """How often that has happened since the newest written cut. Meanwhile no look at the base is of use:
        memory is complete, and stays so."""
        self._graves: list[dict[bytes, Record | None]] = []
        """Groups of records that nobody finds any more; what they take is given back in slices."""

    # ---------------------------------------------------------------- records

    def put(self, key: bytes, record: Record) -> None:
        """Set the record of a key."""
        resident = self._resident
        if key not in resident:
            if self.complete:
                self._count += 1
            elif key not in self._present:
                # No look at the disk for what is overwritten anyway: the cut will count.
                self._blind.add(key)
                self._count += 1
        elif resident[key] is None:
            self._count += 1
        resident[key] = self._changes[key] = record
        self.changed_bytes += len(key) + len(record[0])

    def remove(self, key: bytes) -> None:
        """Take a key away that is present."""
        self._resident[key] = self._changes[key] = None
        self._count -= 1
        self.changed_bytes += len(key)

    def hint(self, hint: bytes, present: bool) -> None:
        """Set or drop a hint at when a key is due."""
        if present:
            self.deadlines.set(hint)
        else:
            self.deadlines.drop(hint)
        self.changed_bytes += len(hint)

    def clear(self) -> None:
        """Take all keys away: a mark, and a range deletion in the next cut (rule S5)."""
        self.deadlines.clear()
        self._graves += [self._changes, self._leaving, self._read, *(group for group, _ in self._cached)]
        self._resident.clear()
        self._present.clear()
        self._changes, self._blind, self._leaving, self._read = {}, set(), {}, {}
        self._cached.clear()
        self._cached_bytes = self._read_bytes = self._count = 0
        self.forgotten += 1  # what is being read was there before
        self._clears += not self.cleared
        self.cleared = self.complete = True

    @property
    def changed_keys(self) -> int:
        """Number of keys changed since the newest cut."""
        return len(self._changes)

    @property
    def keys_about(self) -> int:
        """Number of keys, where those that were set blindly and not counted yet count as new."""
        return self._count

    def __len__(self) -> int:
        """Return the number of keys. Looks at the disk for keys that were set blindly."""
        for cut in self.cuts:
            while self.count(cut):
                pass
        if self._blind:
            self._count -= self.base.count_present(sorted(self._blind))
            self._blind.clear()
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        """Yield all keys in their order."""
        return (key for key, _ in self.sorted_items())

    def sorted_items(self) -> Iterator[tuple[bytes, Record]]:
        """Yield all records in the order of their keys' bytes. Nothing may change meanwhile."""
        changed: dict[bytes, Record | None] = {}
        for layer in self._layers():
            changed.update(layer)
        base = iter(()) if self._clears else self.base.sorted_items()
        return _merged(base, iter(sorted(changed.items())))

    def _layers(self) -> list[dict[bytes, Record | None]]:
        """Return what is not in the base, oldest first; without what was cleared away."""
        layers: list[dict[bytes, Record | None]] = []
        for cut in self.cuts:
            if cut.cleared:
                layers.clear()
            layers.append(cut.changes)
        return [self._changes] if self.cleared else [*layers, self._changes]

    def slice(self, start: bytes, count: int) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """Return up to `count` keys from `start` on, each with its deadline or 0, and where to go on.

        None for the latter when there are no more. Fewer than `count` keys don't mean that there are no more.
        """
        found, upper = ([], None) if self._clears else self.base.slice(start, count)
        keys = dict(found)
        for layer in self._layers():
            for key, record in layer.items():
                if key >= start and (upper is None or key < upper):
                    if record is None:
                        keys.pop(key, None)
                    else:
                        keys[key] = deadline_of(record)
        some = nsmallest(count + 1, keys) if len(keys) > 4 * count else sorted(keys)
        if len(some) > count:
            return [(key, keys[key]) for key in some[:count]], some[count]
        return [(key, keys[key]) for key in some], upper

    def last_key(self) -> bytes | None:
        """Return the greatest key, or None; one that was removed since the newest cut may stand in."""
        greatest = [key for layer in self._layers() if (key := max(layer, default=None)) is not None]
        base = None if self._clears else self.base.last_key()
        return max(greatest if base is None else [*greatest, base], default=None)

    # ------------------------------------------------------------ from the base

    def is_resident(self, key: bytes) -> bool:
        """Tell whether the record of a key, or that it is absent, is known without a look at the base."""
        return self.complete or key in self._resident

    def warm(self, keys: Sequence[bytes], records: Sequence[Record | None], forgotten: int) -> None:
        """Take records that were read from the base (rule R5), when `forgotten` was what is given.

        A key may have got a new record, been written and forgotten since; then what was read is too old. So
        it is when all keys were taken away and the base does not know it yet.
        """
        if forgotten != self.forgotten or self.complete:
            return
        resident = self._resident
        # Found before any of them is taken, which may make others leave memory that were changed meanwhile.
        missing = [found for found in zip(keys, records, strict=True) if found[0] not in resident]
        for key, record in missing:
            self._remember(key, record)

    def _fetch(self, key: bytes) -> Record | None:
        if self._clears:
            return None  # nothing is forgotten for now, so a key that is asked for must not stay
        record = None if self.complete else self.base.get(key)
        self._remember(key, record)
        return record

    def _remember(self, key: bytes, record: Record | None) -> None:
        self._resident[key] = self._read[key] = record
        self._read_bytes += len(key) + (0 if record is None else len(record[0])) + RECORD_MEMORY_BYTES
        # After every single record: a group that had more of them than `trim` forgets would let memory grow.
        if self._read_bytes >= READ_GENERATION_BYTES:
            group, size = self._read, self._read_bytes
            self._read, self._read_bytes = {}, 0
            self._keep(group, size)

    # ------------------------------------------------------------------- cuts

    def freeze(self, bookkeeping: Bookkeeping) -> Cut:
        """Take all changes since the newest cut into a new one."""
        cut = Cut(
            msgspec.structs.replace(bookkeeping, keys=self._count),
            self._changes,
            self._blind,
            self.changed_bytes,
            self.deadlines.freeze(),
            self.cleared,
        )
        self._changes, self._blind, self.changed_bytes, self.cleared = {}, set(), 0, False
        self.cuts.append(cut)
        return cut

    def count(self, cut: Cut) -> bool:
        """Count some keys of a cut that were set blindly; tell whether there are more.

        Every cut before it must be counted, and none of its own may be written: the base has to be older.
        """
        some = self.uncounted(cut)
        if some:
            self.counted(cut, some, self.base.count_present(some))
        return bool(cut.blind)

    def uncounted(self, cut: Cut) -> list[bytes]:
        """Return some keys of a cut that were set blindly and are not counted, for `counted`."""
        return sorted(islice(cut.blind, SLICE_KEYS))

    def counted(self, cut: Cut, keys: Sequence[bytes], present: int) -> None:
        """Note how many of the keys are in the base, which may have been found out in a worker thread."""
        if keys[0] not in cut.blind:
            return  # somebody could not wait for the exact number and has counted all of them meanwhile
        cut.blind.difference_update(keys)
        later = False
        for other in self.cuts:
            if later and other.cleared:
                return  # from here on nothing counts that was there before
            later = later or other is cut
            if later:
                left = other.bookkeeping.keys - present
                other.bookkeeping = msgspec.structs.replace(other.bookkeeping, keys=left)
        if not self.cleared:
            self._count -= present

    def written(self, cut: Cut) -> None:
        """Note that the base has the oldest cut."""
        if not self.cuts or self.cuts[0] is not cut:
            raise InvariantError(f"the cut at {cut.index} is written and is not the oldest")
        self.cuts.popleft()
        self.deadlines.written()
        self._clears -= cut.cleared
        if self._clears:
            self._graves.append(cut.changes)  # everything in it was cleared away since
        else:
            self._keep(cut.changes, cut.size + len(cut.changes) * RECORD_MEMORY_BYTES)

    def _keep(self, group: dict[bytes, Record | None], size: int) -> None:
        """Keep a group that is also in the base in memory."""
        self._cached.append((group, size))
        self._cached_bytes += size
        self.trim()

    def trim(self) -> bool:
        """Forget some of the oldest records that memory has no room for; tell whether there are more.

        A slice at a time: to forget all of a large cut takes several milliseconds.
        """
        left = SLICE_KEYS
        while self._graves and left:
            grave = self._graves[-1]
            count = min(left, len(grave))
            left -= count
            for _ in range(count):
                grave.popitem()
            if not grave:
                self._graves.pop()
        if self._clears:
            return bool(self._graves)
        resident, present = self._resident, self._present
        needed = [self._changes, *(cut.changes for cut in self.cuts)]
        while left:
            if not self._leaving:
                if self._cached_bytes <= self._cache_bytes_max:
                    return False
                self._leaving, size = self._cached.popleft()
                self._cached_bytes -= size
                self.complete = False
                self.forgotten += 1
            group = self._leaving
            count = min(left, len(group))
            left -= count
            lately = False
            for _ in range(count):
                key, record = group.popitem()
                # A newer record stays: its own group will take it away.
                if resident.get(key, _MISSING) is record:
                    for layer in needed:
                        if key in layer:
                            break
                    else:
                        del resident[key]
                        if record is None:
                            # Perhaps it was there until lately, since one None is like another.
                            lately = True
                            present.discard(key)
                        else:
                            present.add(key)
            self.forgotten += lately
        return bool(self._graves or self._leaving) or self._cached_bytes > self._cache_bytes_max


_MISSING: Final = object()


def _merged(
    base: Iterable[tuple[bytes, Record]], changed: Iterator[tuple[bytes, Record | None]]
) -> Iterator[tuple[bytes, Record]]:
    """Merge changes into records, both in the order of keys."""
    change = next(changed, None)
    for key, record in base:
        while change is not None and change[0] < key:
            if change[1] is not None:
                yield change[0], change[1]
            change = next(changed, None)
        if change is not None and change[0] == key:
            if change[1] is not None:
                yield key, change[1]
            change = next(changed, None)
        else:
            yield key, record
    while change is not None:
        if change[1] is not None:
            yield change[0], change[1]
        change = next(changed, None)
