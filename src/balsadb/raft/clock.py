"""Log time: the stamps of a leader, which no single clock can move (rule S6).

Votes and acknowledgements carry their sender's wall clock. A leader keeps the offset of each voter's clock
to its own at receipt, and stamps entries with its clock plus the lower median of the offsets of the voters
it hears. So a clock at the year 2100 on one node, leader or not, changes nothing while a majority is right.
"""

from __future__ import annotations

from collections.abc import Iterable

from balsadb.raft.quorum import lower_median
from balsadb.raft.types import Millis


def median_offset(own_votes: bool, offsets: Iterable[int | None]) -> int:
    """Return the offset of log time to the leader's clock.

    `offsets` are those of the other live voters; None where no clock was received yet. The leader's own
    clock counts, with offset 0, when the leader is a voter or knows no other.
    """
    known = [offset for offset in offsets if offset is not None]
    if own_votes or not known:
        known.append(0)
    return lower_median(known)


def stamp(last_ms: Millis, wall_ms: Millis, offset_ms: int) -> Millis:
    """Return the time of a new entry: never less than that of the last one."""
    return max(last_ms, wall_ms + offset_ms)
