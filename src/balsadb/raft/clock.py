"""Log time: the stamps of a leader, which no single clock can move (rule S6).

Votes and acknowledgements carry their sender's wall clock. A leader keeps the offset of each voter's clock,
its own among them, to its steady clock, which counts time and knows no date. It stamps entries with its
steady clock plus the lower median of the offsets of the voters it hears. So a clock at the year 2100 on one
node, leader or not, changes nothing while a majority is right, not even at the moment in which it jumps.
"""

from __future__ import annotations

from collections.abc import Iterable

from balsadb.raft.quorum import lower_median
from balsadb.raft.types import Millis


def median_offset(own_votes: bool, offsets: Iterable[int | None], own: int = 0) -> int:
    """Return the offset of log time to the leader's steady clock.

    `offsets` are those of the other live voters; None where no clock was received yet. The leader's own
    clock counts, with offset `own`, when the leader is a voter or knows no other.
    """
    known = [offset for offset in offsets if offset is not None]
    if own_votes or not known:
        known.append(own)
    return lower_median(known)


def stamp(last_ms: Millis, steady_ms: Millis, offset_ms: int) -> Millis:
    """Return the time of a new entry: never less than that of the last one."""
    return max(last_ms, steady_ms + offset_ms)
