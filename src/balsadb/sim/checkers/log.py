"""One log: everybody applies the same entries, leaders have all of them, and acks are on a majority's disks.

Raft's safety properties (paper, Figure 3) as seen from outside, over all servers and all time:

* election safety: at most one leader a term;
* leader completeness: a new leader has every entry that anybody has applied;
* log matching: two logs with the same term at an index hold the same entry there;
* state machine safety: nobody applies another entry at an index;
* durability: what a client was told to be done is on the disks of a majority at that moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import google_crc32c

from balsadb.raft.node import Node, Role
from balsadb.raft.types import Configuration, Index, NodeId, Term
from balsadb.sim.failures import SafetyViolation


class LogChecker:
    """Watches all servers of a run."""

    def __init__(self) -> None:
        self._leaders: dict[Term, NodeId] = {}
        self._applied: dict[Index, tuple[Term, int]] = {}
        """What the first server that applied an index found there: (term, checksum)."""
        self.newest = 0
        """Greatest index applied by anybody."""
        self._contents: dict[tuple[Index, Term], int] = {}
        """Checksum of every entry that was ever written to a disk, by index and term."""
        self._on_disk: dict[NodeId, dict[Index, Term]] = {}
        """What each server has synced: our own book, kept apart from the code under test."""
        self._covered: dict[NodeId, Index] = {}
        """Index up to which each server's state on disk includes the log."""
        self._in_doubt: dict[NodeId, Index] = {}
        """First entry of the write that a server's end has interrupted."""

    # ------------------------------------------------------------- observations

    def stepped(self, node: Node) -> None:
        """Look at a server after a turn."""
        if node.role is not Role.LEADER or self._leaders.get(node.term) == node.id:
            return
        other = self._leaders.setdefault(node.term, node.id)
        if other != node.id:
            raise SafetyViolation("election safety", f"{other} and {node.id} both lead term {node.term}")
        newest = self.newest
        # A candidate may get its last vote when a later term has already committed more.
        while newest and self._applied[newest][0] >= node.term:
            newest -= 1
        if newest:
            term = self._applied[newest][0]
            if node.last_index < newest or node.log.term_at(newest) != term:
                raise SafetyViolation(
                    "leader completeness",
                    f"leader {node.id} of term {node.term} lacks the applied entry {newest} of {term}",
                )

    def applied(self, node: NodeId, index: Index, term: Term, payload: bytes) -> None:
        """Note that a server applied an entry."""
        found = (term, google_crc32c.value(payload))
        first = self._applied.setdefault(index, found)
        if first != found:
            raise SafetyViolation(
                "state machine safety", f"server {node} applied {found} at {index}, another one {first}"
            )
        self.newest = max(self.newest, index)

    def recovered(self, node: NodeId, entries: Sequence[tuple[Index, Term, int]]) -> None:
        """Compare what a starting server found on its disk with what it had synced.

        A write that was under way may have happened or not; everything before it must be there.
        """
        found = {index: term for index, term, _ in entries}
        doubt = self._in_doubt.pop(node, None)
        covered = self._covered.get(node, 0)
        for index, term in self._on_disk.get(node, {}).items():
            if covered < index and (doubt is None or index < doubt) and found.get(index) != term:
                raise SafetyViolation(
                    "durability", f"server {node} had synced entry {index} of term {term}, and it is gone"
                )
        self._on_disk[node] = {}
        self.synced(node, entries)

    def covered(self, node: NodeId, index: Index) -> None:
        """Note that a server's state on disk includes everything up to `index`."""
        self._covered[node] = max(index, self._covered.get(node, 0))

    def in_doubt(self, node: NodeId, first: Index) -> None:
        """Note that a server ended while a write with entries from `first` on (0: none) was under way."""
        if first:
            self._in_doubt[node] = first

    def synced(self, node: NodeId, entries: Sequence[tuple[Index, Term, int]]) -> None:
        """Note that entries (index, term, checksum), consecutive, are on a server's disk."""
        book = self._on_disk.setdefault(node, {})
        if entries:
            first = entries[0][0]
            for index in range(first, max(book, default=0) + 1):
                book.pop(index, None)
        for index, term, checksum in entries:
            book[index] = term
            if self._contents.setdefault((index, term), checksum) != checksum:
                raise SafetyViolation("log matching", f"two entries exist at index {index} of term {term}")

    def acknowledged(self, index: Index, configuration: Configuration) -> None:
        """Note that a client was told about the effects of an entry (or of a state that includes it)."""
        term = self._applied[index][0]
        for half in (configuration.voters, configuration.outgoing):
            holders = [
                node
                for node in half
                if self._covered.get(node, 0) >= index or self._on_disk.get(node, {}).get(index) == term
            ]
            if half and len(holders) * 2 <= len(half):
                raise SafetyViolation(
                    "durability",
                    f"entry {index} of term {term} was acknowledged with only {holders} having it on disk",
                )


class DigestChecker:
    """Servers with the same applied index have the same state."""

    def __init__(self) -> None:
        self._digests: dict[Index, bytes] = {}

    def observed(self, node: NodeId, index: Index, digest: bytes) -> None:
        """Compare a server's digest with the first one seen at its index."""
        if self._digests.setdefault(index, digest) != digest:
            raise SafetyViolation("digest", f"server {node} has another state than others at index {index}")


def terms_never_go_back(before: Mapping[NodeId, Term], node: Node) -> None:
    """Check a restarted server against the newest term that it had made durable."""
    if node.term < before.get(node.id, 0):
        raise SafetyViolation(
            "terms", f"server {node.id} restarted in term {node.term} after {before[node.id]}"
        )
