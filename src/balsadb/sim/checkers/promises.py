"""Terms and votes that a server has made durable are never taken back (Raft paper, Figure 2).

A vote that is forgotten breaks election safety only when another candidate asks in the same term, which is
rare. So it is checked at every restart, whether somebody asks or not.
"""

from __future__ import annotations

from balsadb.raft.node import Node
from balsadb.raft.types import NOBODY, HardState
from balsadb.sim.failures import SafetyViolation


def check_restart(node: Node, durable: HardState) -> None:
    """Compare a restarted server with the newest term and vote of its last completed sync."""
    if node.term < durable.term:
        what = f"server {node.id} restarted in term {node.term} after {durable.term}"
        raise SafetyViolation("promises", what, servers=(node.id,))
    # An interrupted write may have brought a later term, or the first vote of this one.
    if node.term == durable.term and durable.vote not in (NOBODY, node.core.vote):
        what = f"server {node.id} voted for {durable.vote} in term {node.term} and knows {node.core.vote}"
        raise SafetyViolation("promises", what, servers=(node.id,))
