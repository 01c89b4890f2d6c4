"""One Raft node: the public face of the core."""

from __future__ import annotations

from random import Random

from balsadb.raft.entry import Entry
from balsadb.raft.messages import Message
from balsadb.raft.options import Options, Recovered
from balsadb.raft.ready import Fetch, Ready
from balsadb.raft.roles import Role
from balsadb.raft.types import Configuration, EntryKind, Index, NodeId, Term

__all__ = ["Node", "Options", "Recovered", "Role"]


class Node:
    """A server's part in the consensus: inputs go in by method, what to do comes out of `ready`."""

    def __init__(
        self,
        node_id: NodeId,
        initial: Configuration,
        recovered: Recovered,
        options: Options,
        random: Random,
        wall_ms: int,
        applied: Index = 0,
        boot: int = 0,
    ) -> None:
        """Start as a follower from what storage recovered.

        `initial` is the configuration before the first MEMBERSHIP entry; `applied` the index that the
        state machine has already applied; `boot` a number never used before by this node id (rule R3).
        """
        self.id: NodeId = node_id
        self.term: Term = 0
        self.role = Role.FOLLOWER
        self.leader: NodeId = 0
        self.commit_index: Index = 0
        self.applied_index: Index = 0
        self.first_index: Index = 1
        self.last_index: Index = 0
        self.durable_index: Index = 0
        self.configuration: Configuration = initial
        self.eligible = True
        """False: neither votes, campaigns nor acknowledges as a voter (rule W5). The driver sets it."""

    def tick(self, wall_ms: int) -> None:
        """Let one tick pass."""
        raise NotImplementedError

    def step(self, message: Message, wall_ms: int) -> None:
        """Take a message from another node. Raises ProtocolError when it is malformed."""
        raise NotImplementedError

    def propose(self, payload: bytes, term: Term) -> bool:
        """Propose a COMMANDS payload in exactly `term`.

        True: appended here, or handed on to the leader of `term`. False: certainly neither.
        """
        raise NotImplementedError

    def propose_entry(self, kind: EntryKind, payload: bytes) -> Index | None:
        """As leader, append a CLOCK or MEMBERSHIP entry and return its index; None when refused."""
        raise NotImplementedError

    def read_index(self, context: int) -> bool:
        """Ask for an index at which a linearizable read may be served.

        True: `context`, unique per call, will come back in `Ready.reads` or `Ready.dropped_reads`.
        """
        raise NotImplementedError

    def peer_lost(self, peer: NodeId) -> None:
        """Note that the last connection with `peer` closed (rule M3)."""
        raise NotImplementedError

    def peer_up(self, peer: NodeId) -> None:
        """Note that a connection to `peer` is newly open: a leader probes it at once."""
        raise NotImplementedError

    def persisted(self, number: int) -> None:
        """Note that write `number` is on disk."""
        raise NotImplementedError

    def applied(self, index: Index) -> None:
        """Note that the state machine has applied everything up to `index`."""
        raise NotImplementedError

    def fetched(self, fetch: Fetch, entries: tuple[Entry, ...]) -> None:
        """Take entries that were read back from the WAL."""
        raise NotImplementedError

    def has_ready(self, disk_idle: bool) -> bool:
        """Tell cheaply whether `ready` would return anything to do."""
        raise NotImplementedError

    def ready(self, disk_idle: bool) -> Ready:
        """Return everything there is to do now. With `disk_idle` False no write is returned."""
        raise NotImplementedError
