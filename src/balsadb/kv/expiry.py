"""What goes by itself at a moment of log time (rules S5, S6).

No replica removes anything because its own clock says so. Every entry carries log time, and the first entry
at or behind a deadline removes what is due, before anything of the entry itself runs: the same things at
the same entry on every replica, also on one that started from a cut or was sent a state. An entry removes at
most `EXPIRED_PER_ENTRY_MAX`; what is left is due already and is removed by the entries that follow. While no
client writes, the leader appends CLOCK entries until nothing is due any more.

So a part of the state that has deadlines must

    read as absent what is due, whether or not it was removed already
    remove in an order that the replicated state alone determines
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from balsadb.kv.limits import EXPIRED_PER_ENTRY_MAX


class Expiring(Protocol):
    """A part of the state whose parts have deadlines."""

    def next_deadline_ms(self) -> int | None:
        """Return the smallest deadline, or an earlier moment; None when nothing has one.

        Only the leader asks, in order to append a CLOCK entry. An earlier moment costs one entry too many,
        and `expire` at that moment must lead to a later one: otherwise the CLOCK entries would never end.
        """

    def expire(self, index: int, now_ms: int, limit: int) -> int:
        """Remove up to `limit` of what is due when entry `index` makes it `now_ms`; return how many."""


def next_deadline_ms(parts: Iterable[Expiring]) -> int | None:
    """Return the smallest deadline of all parts; None when nothing has one."""
    deadlines = [deadline for part in parts if (deadline := part.next_deadline_ms()) is not None]
    return min(deadlines, default=None)


def expire(parts: Iterable[Expiring], index: int, now_ms: int) -> None:
    """Remove what is due, of one part after the other, and no more than one entry may."""
    left = EXPIRED_PER_ENTRY_MAX
    for part in parts:
        left -= part.expire(index, now_ms, left)
        if left <= 0:
            return
