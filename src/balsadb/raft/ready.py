"""What a node wants done: the one output of the Raft core.

The driver takes a `Ready` and does, in any order it likes:

* `write`: hand it to the WAL; when it is on disk (synced), call `Node.persisted(write.number)`.
  Only one write is out at a time; a driver asks for no new one while one is in flight.
* `messages`: send them at once. **Messages that promise something about this node's disk are not here**
  until that promise is kept: the core holds them back itself until `persisted` (so no driver can send a
  vote or an acknowledgement early).
* `committed`: apply these entries in order, then call `Node.applied(index)`. They are committed by a
  majority; the local disk may still be working on them.
* `reads`: each read may be served as soon as the applied index has reached its index.
* `dropped_reads`: contexts of reads that will never be confirmed, because leadership was lost or the leader
  or term changed; ask again under a new context (rule R3).
* `fetches`: read these entries back from the WAL and hand them to `Node.fetched` (rule B2).
* `answers`: what became of requests for other members that were made on this node.
* `snapshots`: send these followers the state as of a durable cut, and report to `Node.snapshot_ended`.
"""

from __future__ import annotations

import msgspec

from balsadb.raft.entry import Entry
from balsadb.raft.messages import ChangeResponse, Message
from balsadb.raft.types import HardState, Index, Millis, NodeId, Term


class LogStart(msgspec.Struct, frozen=True):
    """Where the log begins from now on: the state on disk includes everything up to `index`."""

    index: Index
    term: Term
    """Of the entry at `index`."""
    keep: bool
    """True: the entries behind `index` stay. False: the log is empty, and begins behind it (rule C4)."""


class WriteBatch(msgspec.Struct, frozen=True):
    """One durable step: entries first, then the hard state (rule W2)."""

    number: int
    """1, 2, 3, ... within one process; `persisted` names it (rule W1)."""
    entries: tuple[Entry, ...]
    """Consecutive. The first one may be at or below the last index written: then it replaces the suffix."""
    hard_state: HardState | None
    """Written after the entries; None when unchanged since the last write."""
    start: LogStart | None = None
    """A new start of the log; such a write has no entries."""


class ReadState(msgspec.Struct, frozen=True, gc=False):
    """A read that leadership was confirmed for."""

    context: int
    """What `Node.read_index` was given."""
    index: Index
    """Serve it from a state that has applied at least this."""
    clock_ms: Millis
    """The leader's wall clock at confirmation."""
    term: Term
    """Of the leader. In a later term its index may be that of a lost entry: ask again."""


class Fetch(msgspec.Struct, frozen=True):
    """A wish for entries that are no longer in the memory cache."""

    reader: NodeId
    """The follower for which they are wanted; the node's own id when they are to be applied."""
    first: Index
    last: Index
    """Inclusive; the driver may return fewer, at least one."""


class Ready(msgspec.Struct, frozen=True):
    """Everything there is to do now."""

    write: WriteBatch | None
    messages: tuple[Message, ...]
    committed: tuple[Entry, ...]
    reads: tuple[ReadState, ...]
    fetches: tuple[Fetch, ...]
    dropped_reads: tuple[int, ...] = ()
    snapshots: tuple[tuple[NodeId, Index], ...] = ()
    """(follower, least index of a state that is of use to it)."""
    answers: tuple[ChangeResponse, ...] = ()
