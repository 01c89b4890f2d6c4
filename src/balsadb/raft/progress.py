"""What a leader knows of one follower, and how fast it may send to it.

    PROBE      one append at a time, until the follower says where the logs agree
    REPLICATE  appends are pipelined: `next` moves on when sending, a bounded window waits for acks
    SNAPSHOT   it needs entries that are compacted: nothing but heartbeats until it has a newer state

A lost message is normal. Whoever notices (a rejection, a round acknowledgement that lacks what was sent,
a broken connection) puts the follower back to PROBE, and sending starts again where the logs agree.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from balsadb.raft.entry import Entry
from balsadb.raft.options import Options
from balsadb.raft.ready import Fetch
from balsadb.raft.types import Index, NodeId, Round


class Pace(Enum):
    """How appends go to a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower as its leader sees it."""

    __slots__ = (
        "catch_up_since",
        "catch_up_to",
        "caught_up",
        "clock_offset",
        "commit_sent",
        "fetched",
        "fetching",
        "heard",
        "id",
        "inflight",
        "inflight_bytes",
        "match",
        "next",
        "pace",
        "probe_sent",
        "round_sent",
        "sent",
        "votes",
    )

    def __init__(self, node: NodeId, next_index: Index, now: int, votes: bool) -> None:
        """Begin by probing right before `next_index`."""
        self.id = node
        self.votes = votes
        """False for a learner, which confirms no round."""
        self.pace = Pace.PROBE
        self.match: Index = 0
        """Known to be equal and durable up to here."""
        self.next: Index = next_index
        """First index of the next append; above `match`."""
        self.probe_sent = False
        """In PROBE: the one append is out, and no other goes before its fate is known."""
        self.sent: Index = 0
        """Last index sent, or probed for, since the pace changed."""
        self.inflight: deque[tuple[Index, int]] = deque()
        """(last index, bytes) of each unacknowledged append, in order."""
        self.inflight_bytes = 0
        self.round_sent: Round = 0
        """Newest round in a message to this follower."""
        self.commit_sent: Index = 0
        """Newest commit index in a message to this follower."""
        self.heard = now
        """Tick of its last message (check-quorum)."""
        self.clock_offset: int | None = None
        """Its wall clock minus the leader's steady clock at receipt; None until known (rule S6)."""
        self.fetching: Fetch | None = None
        """Entries asked back from the WAL for it."""
        self.fetched: tuple[Entry, ...] = ()
        """Entries that came back and are not yet sent."""
        self.catch_up_to: Index = 0
        """Of a learner that is to be promoted: where the log ended when this round of catching up began."""
        self.catch_up_since = now
        """Tick at which it began."""
        self.caught_up = False
        """The last round was short (thesis 4.2.1)."""

    def catching_up(self, last_index: Index, now: int, short: int) -> bool:
        """Go on with the rounds of thesis 4.2.1; tell whether the follower has caught up.

        In each round it gets what was in the log when the round began. When a round takes less than an
        election timeout, what is missing then can be had in less than that, too, so as a voter the follower
        makes nobody wait for longer than an election would.
        """
        if self.match >= self.catch_up_to:
            if self.catch_up_to:
                self.caught_up = now - self.catch_up_since < short
            self.catch_up_to, self.catch_up_since = last_index, now
        elif now - self.catch_up_since >= short:
            self.caught_up = False
        return self.caught_up

    def become_probe(self, next_index: Index) -> None:
        """Send one append at `next_index` and wait for its fate."""
        self.pace = Pace.PROBE
        self.next = max(next_index, self.match + 1)
        self.probe_sent = False
        self.sent = 0
        self.inflight.clear()
        self.inflight_bytes = 0

    def become_replicate(self, next_index: Index) -> None:
        """Pipeline from `next_index` on."""
        self.pace = Pace.REPLICATE
        self.next = max(next_index, self.match + 1)
        self.probe_sent = False
        self.sent = self.next - 1
        self.inflight.clear()
        self.inflight_bytes = 0

    def become_snapshot(self) -> None:
        """Send nothing until the follower has been sent a state (thesis 5.3)."""
        self.become_probe(self.next)
        self.pace = Pace.SNAPSHOT

    def window_open(self, options: Options) -> bool:
        """Tell whether one more append may be sent; with nothing in flight always."""
        inflight = self.inflight
        return not inflight or (
            len(inflight) < options.inflight_messages_max and self.inflight_bytes < options.inflight_bytes_max
        )

    def appended(self, last: Index, size: int) -> None:
        """Note an append that ends at `last` and carries `size` bytes of entries."""
        if self.pace is Pace.REPLICATE:
            self.next = last + 1
            self.inflight.append((last, size))
            self.inflight_bytes += size
        else:
            self.probe_sent = True
        self.sent = last

    def acknowledged(self, match: Index) -> bool:
        """Note that the follower has everything up to `match`; tell whether that is new."""
        inflight = self.inflight
        while inflight and inflight[0][0] <= match:
            self.inflight_bytes -= inflight.popleft()[1]
        advanced = match > self.match
        if advanced:
            self.match = match
        if self.pace is not Pace.REPLICATE:
            if match >= self.next - 1:
                self.become_replicate(match + 1)
        elif self.next <= match:
            self.next = match + 1
        return advanced
