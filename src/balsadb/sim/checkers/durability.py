"""Durability: what a client was told is on the disks of a majority, and what was synced stays there.

The checker keeps its own book of what each disk holds, from completed syncs alone. It asks no server what
it believes to be durable, since a wrong belief is just the kind of bug that it looks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from balsadb.raft.types import Configuration, Index, NodeId, Term
from balsadb.sim.failures import SafetyViolation


class Durability:
    """Knows which entries lie on which disk."""

    def __init__(self) -> None:
        self._on_disk: dict[NodeId, dict[Index, Term]] = {}
        self._covered: dict[NodeId, Index] = {}
        """Index up to which each server's state on disk includes the log."""
        self._in_doubt: dict[NodeId, Index] = {}
        """First entry of the write that a server's end has interrupted."""

    def synced(self, node: NodeId, entries: Sequence[tuple[Index, Term, int]]) -> None:
        """Note that entries (index, term, checksum), consecutive, are on a server's disk."""
        book = self._on_disk.setdefault(node, {})
        if entries:
            for index in range(entries[0][0], max(book, default=0) + 1):
                book.pop(index, None)  # an entry replaces all from its index on
        for index, term, _ in entries:
            book[index] = term

    def in_doubt(self, node: NodeId, first: Index) -> None:
        """Note that a server ended while a write with entries from `first` on (0: none) was under way."""
        if first:
            self._in_doubt[node] = first

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
                    "durability",
                    f"server {node} had synced entry {index} of term {term}, and it is gone",
                    servers=(node,),
                )
        self._on_disk[node] = {}
        self.synced(node, entries)

    def covered(self, node: NodeId, index: Index) -> None:
        """Note that a server's state on disk includes everything up to `index`, which its log may let go."""
        self._covered[node] = max(index, self._covered.get(node, 0))

    def replaced(self, node: NodeId, index: Index) -> None:
        """Note that a state which a server's log does not continue took its place: the log goes (rule C4)."""
        book = self._on_disk.get(node, {})
        for behind in [held for held in book if held > index]:
            del book[behind]

    def acknowledged(self, index: Index, term: Term, in_force: Sequence[Configuration]) -> None:
        """Note that a client was told about the effects of an entry (or of a state that includes it).

        While members change, an entry may be committed by a configuration that lies behind it in the log: one
        of those that may be in force must have it on a quorum of disks.
        """
        if not any(self._decided(index, term, configuration) for configuration in in_force):
            nodes = sorted({node for c in in_force for node in (*c.voters, *c.outgoing)})
            holders = [node for node in nodes if self._holds(node, index, term)]
            raise SafetyViolation(
                "durability",
                f"entry {index} of term {term} was acknowledged and only {holders} have it on disk",
                index=index,
            )

    def _decided(self, index: Index, term: Term, configuration: Configuration) -> bool:
        halves = [half for half in (configuration.voters, configuration.outgoing) if half]
        holders = [[node for node in half if self._holds(node, index, term)] for half in halves]
        return all(len(have) * 2 > len(half) for half, have in zip(halves, holders, strict=True))

    def _holds(self, node: NodeId, index: Index, term: Term) -> bool:
        return self._covered.get(node, 0) >= index or self._on_disk.get(node, {}).get(index) == term
