"""Leader completeness: a new leader has every entry that was committed in an earlier term (paper, Figure 3).

An entry that somebody applied in a term was committed in that term or before. The entry's own term says less:
a later leader may commit what an earlier one has left, and a candidate of a term between may not have it.
"""

from __future__ import annotations

from collections.abc import Mapping

from balsadb.raft.node import Node
from balsadb.raft.types import Index, Term
from balsadb.sim.failures import SafetyViolation


def check_new_leader(
    node: Node, applied: Mapping[Index, tuple[Term, int]], known: Mapping[Index, Term], newest: Index
) -> None:
    """Compare the log of a server that has just begun to lead with what was `applied` up to `newest`.

    `known` has, of each entry, the least term in which somebody applied it.
    """
    # A candidate may get its last vote when a later term has already committed more.
    while newest and known[newest] >= node.term:
        newest -= 1
    if newest <= node.log.base_index:
        return  # the state includes it; that states agree is another checker's matter
    term = applied[newest][0]
    if node.last_index < newest or node.log.term_at(newest) != term:
        raise SafetyViolation(
            "leader completeness",
            f"leader {node.id} of term {node.term} lacks the applied entry {newest} of term {term}",
            servers=(node.id,),
            index=newest,
        )
