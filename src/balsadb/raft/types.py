"""The nouns of Raft: identifiers, the hard state, and a cluster configuration.

Names are those of the Raft thesis (Ongaro 2014). All values are plain and immutable, so that they can be
compared, logged and sent without a second thought.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import msgspec

NodeId: TypeAlias = int
"""A server's id, 1 or greater. Never used again once removed (rule P5)."""
Term: TypeAlias = int
"""Election term; 0 before the first election."""
Index: TypeAlias = int
"""Position in the log; the first entry has index 1, and 0 means "before the log"."""
Round: TypeAlias = int
"""Number of a leader's read round within one term (rule R2)."""
Millis: TypeAlias = int
"""Milliseconds: of log time since the Unix epoch where a point in time is meant, else a duration."""

NOBODY: NodeId = 0
"""Stands for "no leader known" and "no vote given"."""

NUMBER_MAX = 2**62
"""No term, index, round or time from outside may be greater (a guard against term inflation)."""


class EntryKind(IntEnum):
    """What an entry carries."""

    NOOP = 0
    """Appended by a new leader; its commit lets the leader count itself up to date (thesis 6.4)."""
    COMMANDS = 1
    """One batch of client commands with its origin."""
    CLOCK = 2
    """Only moves log time on."""
    MEMBERSHIP = 3
    """A new `Configuration`, in force from the moment it is appended (thesis 4.1)."""


class HardState(msgspec.Struct, frozen=True, gc=False):
    """What a node must never forget (Raft paper, Figure 2, "persistent state")."""

    term: Term = 0
    """Latest term seen; never decreases."""
    vote: NodeId = NOBODY
    """Who got this node's vote in `term`; `NOBODY` when it has not voted."""
    commit: Index = 0
    """A lower bound of the commit index. Written along with other changes, never on its own (rule P7)."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One server of a configuration."""

    id: NodeId
    peer_address: str
    """host:port on which other servers reach it."""
    client_address: str = ""
    """host:port that clients are told; empty until the member has said it."""
    store_id: bytes = b""
    """Identity of its data directory as bound by the log; empty until bound (rule W5)."""


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """Who votes, who only listens, and who must never come back.

    `outgoing` is empty except during a joint configuration (thesis 4.3), when both halves must agree.
    """

    voters: tuple[NodeId, ...]
    """Incoming voters, sorted."""
    outgoing: tuple[NodeId, ...] = ()
    """Voters of the old half while joint, sorted; empty otherwise."""
    learners: tuple[NodeId, ...] = ()
    """Non-voting members, sorted; disjoint from both halves."""
    removed: tuple[NodeId, ...] = ()
    """Ids that were members once (rule P5)."""
    members: tuple[Member, ...] = ()
    """Addresses and identities of everybody above except the removed, sorted by id."""
    cluster_id: bytes = b""
    """Drawn by the first leader; empty until then (rule W5)."""
    promote: tuple[NodeId, ...] = ()
    """Learners that become voters, all in one step, as soon as all of them have caught up (rule M2)."""
    retire: tuple[NodeId, ...] = ()
    """Voters that leave in the same step, because those in `promote` take their places."""
    former: tuple[bytes, ...] = ()
    """Ids that this cluster had before each recovery from a lost majority, the oldest first (rule M4)."""

    @property
    def changing(self) -> bool:
        """Tell whether a change of the members has begun and is not finished."""
        return bool(self.outgoing or self.promote)

    def everyone(self) -> tuple[NodeId, ...]:
        """Return all current members, voters and learners, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, node: NodeId) -> bool:
        """Tell whether `node` votes in either half."""
        return node in self.voters or node in self.outgoing

    def member(self, node: NodeId) -> Member | None:
        """Return the addresses and identity of `node`, or None when it is unknown."""
        return next((m for m in self.members if m.id == node), None)
