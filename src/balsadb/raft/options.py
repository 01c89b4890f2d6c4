"""The limits and times of a Raft node, and what it is told at its start.

Every bound says its unit and what happens when it is reached. Times are in ticks, whose length the driver
chooses: the core knows no clock.
"""

from __future__ import annotations

import msgspec

from balsadb.raft.entry import Entry
from balsadb.raft.types import HardState, Index, Millis, Term

MIB = 1024 * 1024


class Options(msgspec.Struct, frozen=True):
    """Bounds and times of one node. `validate` checks how they relate."""

    election_ticks: int = 50
    """A follower that hears no leader campaigns after a random time in [election_ticks, 2 * election_ticks).
    A leader that hears no quorum for election_ticks steps down."""
    heartbeat_ticks: int = 5
    """A leader sends a heartbeat to everybody this often."""
    lost_ticks_max: int = 3
    """After the loss of the leader's connection a node campaigns after 1..lost_ticks_max ticks (rule M3)."""
    read_retry_ticks: int = 10
    """A follower asks again, under a new name, for a read index that did not come in this time (rule R3)."""
    change_ticks: int = 1
    """A leader looks this often whether a change of the members can take its next step (rule M2)."""
    append_bytes_max: int = MIB
    """Bytes of entries in one `Append`; one entry is always admitted."""
    inflight_messages_max: int = 256
    """Unacknowledged `Append`s per follower; past it only heartbeats go out to that follower."""
    inflight_bytes_max: int = 8 * MIB
    """Bytes of unacknowledged entries per follower; one `Append` is always admitted."""
    state_retry_ticks: int = 20
    """A node that lost its state asks its leader for another one this often (rule W5)."""
    uncommitted_bytes_max: int = 64 * MIB
    """Bytes of proposals that are not yet committed, durable and applied here; past it a leader refuses
    proposals (rule B1). One proposal is always admitted."""
    cache_bytes_max: int = 32 * MIB
    """Memory for the newest entries of the log; older ones are fetched from the WAL (rule B2). Entries that
    are not durable stay whatever their size."""
    apply_bytes_max: int = 4 * MIB
    """Bytes of committed entries in one `Ready`; one entry is always admitted."""
    reads_max: int = 65_536
    """Reads that wait for a confirmation; past it a read is refused (rule R4)."""
    origins_max: int = 65_536
    """Entries whose origin a leader remembers (rule P7); an older one learns of its commit a little later."""

    def validate(self) -> None:
        """Raise ValueError when the values make no sense together."""
        if not 0 < self.heartbeat_ticks < self.election_ticks:
            raise ValueError(
                f"heartbeat_ticks {self.heartbeat_ticks} is not below election_ticks {self.election_ticks}"
            )
        for name in self.__struct_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)} and must be at least 1")


class Recovered(msgspec.Struct, frozen=True):
    """What storage found on disk. The defaults are an empty log."""

    hard_state: HardState = HardState()
    first_index: Index = 1
    """First index present in the log; those below are compacted."""
    last_index: Index = 0
    """Last index present; `first_index` - 1 when the log is empty."""
    terms: tuple[tuple[Index, Term], ...] = ()
    """Runs of equal terms, ascending: (first index of the run, term). After a compaction the first run may
    begin at `first_index` - 1, to name the term of the last compacted entry."""
    last_time_ms: Millis = 0
    """Log time of the last entry."""
    memberships: tuple[Entry, ...] = ()
    """All MEMBERSHIP entries present in the log, ascending."""
    tail: tuple[Entry, ...] = ()
    """Newest entries for the memory cache; may be empty."""
