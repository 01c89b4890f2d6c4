"""Leader completeness: a new leader has every entry that anybody has applied in an earlier term.

Applied entries are committed ones, so this is the property of the Raft paper's Figure 3, seen from outside.
"""

from __future__ import annotations

from collections.abc import Mapping

from balsadb.raft.node import Node
from balsadb.raft.types import Index, Term
from balsadb.sim.failures import SafetyViolation


def check_new_leader(node: Node, applied: Mapping[Index, tuple[Term, int]], newest: Index) -> None:
    """Compare the log of a server that has just begun to lead with what was `applied` up to `newest`."""
    # A candidate may get its last vote when a later term has already committed more.
    while newest and applied[newest][0] >= node.term:
        newest -= 1
    if not newest:
        return
    term = applied[newest][0]
    if node.last_index < newest or node.log.term_at(newest) != term:
        raise SafetyViolation(
            "leader completeness",
            f"leader {node.id} of term {node.term} lacks the applied entry {newest} of term {term}",
            servers=(node.id,),
            index=newest,
        )
