"""What the commands may know about the node that answers them.

The handlers see the node only through `NodeView`, so that they can be tested without a node and the node
can change without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from balsadb.raft.types import NOBODY, Configuration, Index, Millis, NodeId, Term
from balsadb.server.commands.client_state import ClientState


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A node at one moment. Fields without a default must be given; the others may be added as they come."""

    id: NodeId
    """This node."""
    role: str
    """leader, follower, candidate or pre-candidate. Whether it is a learner follows from `configuration`."""
    term: Term
    """Current term."""
    leader: NodeId
    """Leader of the current term as far as this node knows; `NOBODY` during an election."""
    configuration: Configuration
    """Who is in the cluster. `client_address` of a member is empty until that member has said it."""
    client_address: str
    """host:port that clients of this node are told (`--advertise`, else `--listen`)."""
    commit_index: Index
    applied_index: Index
    first_index: Index
    """First index present in the log; last_index + 1 when the log is empty."""
    last_index: Index
    last_term: Term = 0
    """Term of the last entry: with `last_index` it says which of two logs is the longer one."""
    durable_index: Index = 0
    """Last index known to be on this node's disk."""
    snapshot_index: Index = 0
    """Index of the newest snapshot; 0 when there is none."""
    last_leader: NodeId = NOBODY
    """The leader known last, kept through elections; `NOBODY` only before the first one was heard of."""
    peer_address: str = ""
    """host:port on which other servers reach this node."""
    cluster_id: str = ""
    """The cluster's id as hex digits; empty until the first leader has drawn it."""
    connected: frozenset[NodeId] | None = None
    """Peers with an open connection to this node; None when that is not known."""
    matched: Mapping[NodeId, Index] = {}
    """On a leader: how far each follower's log is known to agree. Empty elsewhere."""
    loading: bool = False
    """True until the log found at start has been applied."""
    ready: bool = True
    """True when this node can serve (what /readyz says)."""
    admitted: bool = True
    """False while this node's directory may not vote: another one may have voted under its id (rule W5)."""
    unready: str | None = None
    """Why it can't; None when it can."""
    keys: int = 0
    """Keys in the database; a key that was overwritten lately without being read may count twice."""
    log_time_ms: Millis = 0
    """Log time: the database's only clock. 0 before the first entry."""
    alarms: int = 0
    """Entries that were applied as no-ops because their payload was malformed (rule S4). Should be 0."""
    uptime_ms: Millis = 0
    """How long this process runs."""
    boot: int = 0
    """Counts the starts of this node on its data directory."""
    stale_ms: Millis | None = None
    """How old what a READONLY read sees may be, at most; None when that is not known."""
    stale_limit_ms: Millis = 0
    """READONLY reads are refused when it may be older than this."""
    connections_received: int = 0
    """Client connections accepted since the start."""
    commands_processed: int = 0
    """Client commands answered since the start."""


class NodeView(Protocol):
    """The node, as commands see it. All methods are quick; those named after a deed do it."""

    def status(self) -> NodeStatus:
        """Return the node's present state."""
        ...

    def figures(self) -> Mapping[str, int | str]:
        """Return how fast, how large and how full the node is, under the names that RAFT STATUS shows."""
        ...

    def silent_ms(self) -> Mapping[NodeId, Millis | None]:
        """Return for how long each other member was not known to be there; None: not since the start."""
        ...

    def clients(self) -> Sequence[ClientState]:
        """Return the open client connections."""
        ...

    def keys(self) -> Iterable[bytes]:
        """Iterate over the keys of the applied state. Used only while they are few, see `cluster.py`."""
        ...

    def take_snapshot(self) -> None:
        """Make the state durable soon, and let the log before it go."""
        ...

    def wall_ms(self) -> Millis:
        """Return the wall clock in milliseconds since the Unix epoch."""
        ...

    def wall_us(self) -> int:
        """Return the wall clock in microseconds since the Unix epoch."""
        ...
