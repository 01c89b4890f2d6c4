"""Brings what is seen of the servers to those who judge it: one observer for all promises about the log.

Observations are made from outside, over all servers and all time: no server is asked what it believes about
another. Each promise has its own module.
"""

from __future__ import annotations

from collections.abc import Sequence

from balsadb.raft.node import Node, Role
from balsadb.raft.types import Configuration, Index, NodeId, Term
from balsadb.sim.checkers.agreement import StateMachineSafety
from balsadb.sim.checkers.completeness import check_new_leader
from balsadb.sim.checkers.durability import Durability
from balsadb.sim.checkers.elections import ElectionSafety
from balsadb.sim.checkers.matching import LogMatching


class LogChecker:
    """Watches all servers of a run."""

    def __init__(self) -> None:
        self._elections = ElectionSafety()
        self._agreement = StateMachineSafety()
        self._matching = LogMatching()
        self._durability = Durability()
        self.in_doubt = self._durability.in_doubt
        self.covered = self._durability.covered
        self.replaced = self._durability.replaced
        self.applied = self._agreement.applied

    @property
    def newest(self) -> Index:
        """Greatest index applied by anybody."""
        return self._agreement.newest

    def stepped(self, node: Node) -> bool:
        """Look at a server after a turn; tell whether it has just begun to lead."""
        if node.role is not Role.LEADER:
            self._elections.ended(node.id)
            return False
        if not self._elections.began(node.id, node.term):
            return False
        check_new_leader(node, self._agreement.entries, self._agreement.known, self._agreement.newest)
        return True

    def recovered(self, node: NodeId, entries: Sequence[tuple[Index, Term, int]]) -> None:
        """Look at the entries (index, term, checksum) that a starting server found on its disk."""
        self._durability.recovered(node, entries)
        self._matching.written(node, entries)

    def synced(self, node: NodeId, entries: Sequence[tuple[Index, Term, int]]) -> None:
        """Look at entries whose sync has just been completed."""
        self._durability.synced(node, entries)
        self._matching.written(node, entries)

    def acknowledged(self, index: Index, in_force: Sequence[Configuration]) -> None:
        """Look at the newest entry of the state from which a client was answered."""
        self._durability.acknowledged(index, self._agreement.entries[index][0], in_force)
