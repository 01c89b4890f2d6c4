"""What a node says of itself, under one set of names: for RAFT STATUS, RAFT MEMBERS and the page /status.

`docs/operations.md` describes every name; programs rely on them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from balsadb.raft.types import Millis, NodeId
from balsadb.server.commands.info import raft_role
from balsadb.server.commands.view import NodeStatus

Facts: TypeAlias = dict[str, Any]
"""Names with numbers, texts, truth values and tuples of node ids, in the order in which they are shown."""


def node_facts(status: NodeStatus) -> Facts:
    """Return what RAFT STATUS answers first; `insight.py` has the rest."""
    configuration = status.configuration
    return {
        "id": status.id,
        "role": raft_role(status),
        "term": status.term,
        "leader": status.leader,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "first_index": status.first_index,
        "last_index": status.last_index,
        "last_term": status.last_term,
        "durable_index": status.durable_index,
        "snapshot_index": status.snapshot_index,
        "voters": configuration.voters,
        "outgoing_voters": configuration.outgoing,
        "learners": configuration.learners,
        "promote": configuration.promote,
        "retire": configuration.retire,
        "removed": configuration.removed,
        "cluster_id": status.cluster_id,
        "keys": status.keys,
        "uptime_ms": status.uptime_ms,
        "ready": status.ready,
        "loading": status.loading,
        "admitted": status.admitted,
        "client_address": status.client_address,
        "peer_address": status.peer_address,
        "log_time_ms": status.log_time_ms,
        "readonly_staleness_ms": -1 if status.stale_ms is None else status.stale_ms,
        "boot": status.boot,
        "alarms": status.alarms,
    }


def member_facts(status: NodeStatus, node: NodeId, silent_ms: Millis | None) -> Facts:
    """Return what RAFT MEMBERS answers of one member, which was not known to be there for so long."""
    member = status.configuration.member(node)
    client_address = member.client_address if member else ""
    if node == status.id:
        client_address = status.client_address
    itself = node == status.id
    return {
        "id": node,
        "role": "voter" if status.configuration.is_voter(node) else "learner",
        "leader": node == status.leader,
        "connected": itself or status.connected is None or node in status.connected,
        "peer_address": member.peer_address if member else "",
        "client_address": client_address,
        "matched_index": status.last_index if itself else status.matched.get(node, 0),
        "silent_ms": 0 if itself else silent_ms,
    }
