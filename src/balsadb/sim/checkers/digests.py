"""Equal states: servers with the same applied index have the same digest of all replicated state."""

from __future__ import annotations

from balsadb.raft.types import Index, NodeId
from balsadb.sim.failures import SafetyViolation


class EqualDigests:
    """Remembers the first digest seen at each index."""

    def __init__(self) -> None:
        self._first: dict[Index, tuple[NodeId, bytes]] = {}

    def observed(self, node: NodeId, index: Index, digest: bytes) -> None:
        """Compare a server's digest with the first one seen at its index."""
        other, first = self._first.setdefault(index, (node, digest))
        if first != digest:
            raise SafetyViolation(
                "digests",
                f"servers {other} and {node} have different states at index {index}",
                servers=(other, node),
            )
