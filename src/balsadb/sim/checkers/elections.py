"""Election safety: at most one leader a term (Raft paper, Figure 3), over all servers and all time.

Nobody leads a term twice either: a server that has forgotten that it led would write other entries into it.
"""

from __future__ import annotations

from balsadb.raft.types import NodeId, Term
from balsadb.sim.failures import SafetyViolation


class ElectionSafety:
    """Remembers who led which term, and who leads now."""

    def __init__(self) -> None:
        self._leaders: dict[Term, NodeId] = {}
        self._leading: dict[NodeId, Term] = {}

    def began(self, node: NodeId, term: Term) -> bool:
        """Note that a server believes to lead; tell whether it did not a moment ago."""
        if self._leading.get(node) == term:
            return False
        if (known := self._leaders.get(term)) is not None:
            who = f"{known} and {node} both lead" if known != node else f"{node} leads for the second time"
            raise SafetyViolation("election safety", f"{who} term {term}", servers=(known, node))
        self._leaders[term] = node
        self._leading[node] = term
        return True

    def ended(self, node: NodeId) -> None:
        """Note that a server does not lead, or not any more."""
        self._leading.pop(node, None)
