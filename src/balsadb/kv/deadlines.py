"""When keys are due: an ordered index on disk, of which memory holds the beginning.

An entry of the index is a *hint*: a deadline, 8 bytes big endian, and a key behind it, so that hints sort by
deadline. Hints only say where to look. A command that knows a key's former record takes back its hint; one
that overwrites blindly leaves it, and it is dropped when it is due and the record says otherwise (rule C1).
Which hints there are depends on the log alone, so all replicas remove the same keys at the same entries.

    near      the smallest hints, sorted, at most NEAR_MAX          -> due -> looked at and dropped
    changes   hints set and dropped since the newest cut            -> freeze -> a cut
    frozen    those of cuts that are not written yet
    base      all hints as of the newest written cut, on disk

All hints below the *horizon* are in `near`; those from there on are read from the base when the time comes.
So a million keys that expire take no more memory than a few thousand.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

NEAR_MAX: Final = 16_384
"""Hints in memory besides those that changed lately. Of more, the latest quarter is read from the disk again;
what is left must be more than an entry removes."""
REFILL_HINTS: Final = 512
"""Hints that are read from the disk at a time: about a millisecond."""
DEADLINE_MAX: Final = 2**63 - 1
"""No deadline is later."""

_DEADLINE: Final = struct.Struct(">Q")
DEADLINE_BYTES: Final = _DEADLINE.size
_END: Final = b"\xff" * (DEADLINE_BYTES + 1)
"""Behind every hint."""


def make_hint(deadline_ms: int, key: bytes) -> bytes:
    """Return the hint of a key."""
    return _DEADLINE.pack(deadline_ms) + key


def split_hint(hint: bytes) -> tuple[int, bytes]:
    """Return deadline and key of a hint."""
    return _DEADLINE.unpack_from(hint)[0], hint[DEADLINE_BYTES:]


class HintBase(Protocol):
    """Where written hints are."""

    def hints(self, start: bytes, count: int) -> list[bytes]:
        """Return up to `count` hints from `start` on, in their order."""


class Deadlines:
    """All hints, with what changed since the newest written cut in memory."""

    def __init__(self, base: HintBase) -> None:
        self.restore(base)

    def restore(self, base: HintBase) -> None:
        """Begin anew on another base."""
        self._base = base
        self._near: list[bytes] = []
        self._horizon = b""
        self._changes: dict[bytes, bool] = {}
        self._cleared = False
        """True when all hints before `_changes` were cleared away."""
        self._frozen: deque[tuple[bool, dict[bytes, bool]]] = deque()
        """The same two of each cut that is not written, oldest first."""
        self.refill()

    # ------------------------------------------------------------------ changes

    def set(self, hint: bytes) -> None:
        """Add a hint, present or not."""
        self._changes[hint] = True
        if hint < self._horizon:
            near = self._near
            at = bisect_left(near, hint)
            if at == len(near) or near[at] != hint:
                near.insert(at, hint)
                self._shrink()

    def drop(self, hint: bytes) -> None:
        """Take a hint away, present or not."""
        self._changes[hint] = False
        if hint < self._horizon:
            at = bisect_left(self._near, hint)
            if at < len(self._near) and self._near[at] == hint:
                del self._near[at]

    def clear(self) -> None:
        """Take all hints away, those in the base among them."""
        self._changes, self._cleared = {}, True
        self._near, self._horizon = [], _END

    def _shrink(self) -> None:
        if len(self._near) > NEAR_MAX:
            # By a quarter, so that the next hints don't each push out another one.
            keep = NEAR_MAX * 3 // 4
            self._horizon = self._near[keep]
            del self._near[keep:]

    # ---------------------------------------------------------------------- due

    @property
    def next_ms(self) -> int | None:
        """The smallest deadline, or an earlier moment while that is not known; None when there is none."""
        if self._near:
            first = self._near[0]
        elif self._horizon == _END:
            return None
        else:
            first = self._horizon.ljust(DEADLINE_BYTES, b"\0")
        deadline: int = _DEADLINE.unpack_from(first)[0]
        return deadline

    def unknown(self, now_ms: int, limit: int) -> bytes | None:
        """Return from where on the base must be read to know `limit` due hints; None: they are known."""
        if len(self._near) >= limit or self._horizon == _END or self._horizon >= _DEADLINE.pack(now_ms + 1):
            return None
        return self._horizon

    def due(self, now_ms: int, limit: int) -> list[bytes]:
        """Return up to `limit` of the hints whose deadline is not after `now_ms`, the earliest first."""
        while self.unknown(now_ms, limit) is not None:
            self.refill()
        return self._near[: min(limit, bisect_left(self._near, _DEADLINE.pack(now_ms + 1)))]

    def known_due(self, now_ms: int, limit: int) -> list[bytes]:
        """Return those of `due` that are in memory."""
        return self._near[: min(limit, bisect_left(self._near, _DEADLINE.pack(now_ms + 1)))]

    def refill(self) -> None:
        """Read the next hints from the base."""
        start, overlay, hidden = self._horizon, *self._overlay()
        found = [] if hidden else self._base.hints(start, REFILL_HINTS)
        end = found[-1] + b"\0" if len(found) == REFILL_HINTS else _END
        known = {hint for hint in found if overlay.get(hint, True)}
        known.update(hint for hint, present in overlay.items() if present and start <= hint < end)
        self._near += sorted(known)
        self._horizon = end
        self._shrink()

    def _overlay(self) -> tuple[dict[bytes, bool], bool]:
        """Return what is not in the base yet, and whether everything in the base is cleared away."""
        overlay: dict[bytes, bool] = {}
        hidden = False
        for cleared, changes in [*self._frozen, (self._cleared, self._changes)]:
            if cleared:
                overlay.clear()
                hidden = True
            overlay.update(changes)
        return overlay, hidden

    def __iter__(self) -> Iterator[bytes]:
        """Yield all hints in their order. Nothing may change meanwhile."""
        overlay, hidden = self._overlay()
        start = b""
        while not hidden:
            found = self._base.hints(start, REFILL_HINTS)
            end = found[-1] + b"\0" if len(found) == REFILL_HINTS else _END
            known = {hint for hint in found if overlay.get(hint, True)}
            known.update(hint for hint, present in overlay.items() if present and start <= hint < end)
            yield from sorted(known)
            if end == _END:
                return
            start = end
        yield from sorted(hint for hint, present in overlay.items() if present)

    # --------------------------------------------------------------------- cuts

    def freeze(self) -> dict[bytes, bool]:
        """Take the changes since the newest cut for a new one."""
        changes = self._changes
        self._frozen.append((self._cleared, changes))
        self._changes, self._cleared = {}, False
        return changes

    def written(self) -> None:
        """Note that the base has the oldest cut."""
        self._frozen.popleft()
