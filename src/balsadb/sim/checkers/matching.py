"""Log matching: entries with the same index and term are the same entry, on every disk and for ever."""

from __future__ import annotations

from collections.abc import Sequence

from balsadb.raft.types import Index, NodeId, Term
from balsadb.sim.failures import SafetyViolation


class LogMatching:
    """Remembers the content of every entry that was ever written to a disk."""

    def __init__(self) -> None:
        self._contents: dict[tuple[Index, Term], int] = {}

    def written(self, node: NodeId, entries: Sequence[tuple[Index, Term, int]]) -> None:
        """Note entries (index, term, checksum) on a server's disk."""
        contents = self._contents
        for index, term, checksum in entries:
            if contents.setdefault((index, term), checksum) != checksum:
                raise SafetyViolation(
                    "log matching",
                    f"server {node} and another have different entries at index {index} of term {term}",
                    index=index,
                )
