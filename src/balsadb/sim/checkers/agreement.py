"""State machine safety: whatever two servers apply at an index is the same entry (Raft paper, Figure 3)."""

from __future__ import annotations

import google_crc32c

from balsadb.raft.types import Index, NodeId, Term
from balsadb.sim.failures import SafetyViolation


class StateMachineSafety:
    """Remembers what the first server that applied an index found there."""

    def __init__(self) -> None:
        self.entries: dict[Index, tuple[Term, int]] = {}
        """Term and checksum of the content of every applied entry."""
        self.known: dict[Index, Term] = {}
        """Least term in which a server has applied each entry: it was committed in that term or before."""
        self.newest: Index = 0
        """Greatest index applied by anybody."""

    def applied(self, node: NodeId, index: Index, term: Term, payload: bytes, now: Term) -> None:
        """Note that a server applies an entry of `term` while it is in the term `now`."""
        self.known[index] = min(now, self.known.get(index, now))
        found = (term, google_crc32c.value(payload))
        first = self.entries.setdefault(index, found)
        if first != found:
            raise SafetyViolation(
                "state machine safety",
                f"server {node} applies an entry of term {term} at index {index}, "
                f"where another one of term {first[0]} was applied",
                index=index,
            )
        if index > self.newest:
            self.newest = index
