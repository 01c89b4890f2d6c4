"""Election safety: at most one leader a term (Raft paper, Figure 3), over all servers and all time."""

from __future__ import annotations

from balsadb.raft.types import NodeId, Term
from balsadb.sim.failures import SafetyViolation


class ElectionSafety:
    """Remembers who led which term."""

    def __init__(self) -> None:
        self._leaders: dict[Term, NodeId] = {}

    def began(self, node: NodeId, term: Term) -> bool:
        """Note that a server believes to lead; tell whether that is news."""
        known = self._leaders.get(term)
        if known == node:
            return False
        if known is not None:
            what = f"{known} and {node} both lead term {term}"
            raise SafetyViolation("election safety", what, servers=(known, node))
        self._leaders[term] = node
        return True
