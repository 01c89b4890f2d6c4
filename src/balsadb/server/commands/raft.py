"""RAFT: what an operator asks a node about consensus.

STATUS answers a map with these fields: id, role, term, leader, commit_index, applied_index, first_index,
last_index, last_term, durable_index, snapshot_index, voters, outgoing_voters, learners, promote (learners
that become voters when they have caught up), retire (voters that leave for them), removed (lists of ids),
cluster_id, keys, uptime_ms, ready, loading, admitted (0: its directory is new under its id and may not vote),
client_address, peer_address, log_time_ms, boot, alarms.
MEMBERS answers a list of maps: id, role (voter or learner), leader, connected (1 or 0), peer_address,
client_address, matched_index (on the leader). Truth values are 1 and 0, in RESP2 and RESP3 alike.
ADD, REMOVE, REPLACE and TRANSFER are answered by `replica.changes`: +OK when all is done.
"""

from __future__ import annotations

from typing import Final

from balsadb.kv.reply import OK, Mapping, Refusal, Reply
from balsadb.raft.types import NodeId
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.info import raft_role
from balsadb.server.commands.subcommands import Family
from balsadb.server.commands.view import NodeStatus, NodeView


def _status(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    status = view.status()
    configuration = status.configuration
    return Mapping(
        [
            (b"id", status.id),
            (b"role", raft_role(status).encode()),
            (b"term", status.term),
            (b"leader", status.leader),
            (b"commit_index", status.commit_index),
            (b"applied_index", status.applied_index),
            (b"first_index", status.first_index),
            (b"last_index", status.last_index),
            (b"last_term", status.last_term),
            (b"durable_index", status.durable_index),
            (b"snapshot_index", status.snapshot_index),
            (b"voters", list(configuration.voters)),
            (b"outgoing_voters", list(configuration.outgoing)),
            (b"learners", list(configuration.learners)),
            (b"promote", list(configuration.promote)),
            (b"retire", list(configuration.retire)),
            (b"removed", list(configuration.removed)),
            (b"cluster_id", status.cluster_id.encode()),
            (b"keys", status.keys),
            (b"uptime_ms", status.uptime_ms),
            (b"ready", int(status.ready)),
            (b"loading", int(status.loading)),
            (b"admitted", int(status.admitted)),
            (b"client_address", _text(status.client_address)),
            (b"peer_address", _text(status.peer_address)),
            (b"log_time_ms", status.log_time_ms),
            (b"boot", status.boot),
            (b"alarms", status.alarms),
        ]
    )


def _snapshot(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    view.take_snapshot()
    return OK


def _members(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    status = view.status()
    return [_member(status, node) for node in status.configuration.everyone()]


def _member(status: NodeStatus, node: NodeId) -> Reply:
    member = status.configuration.member(node)
    client_address = member.client_address if member else ""
    if node == status.id:
        client_address = status.client_address
    itself = node == status.id
    connected = itself or status.connected is None or node in status.connected
    return Mapping(
        [
            (b"id", node),
            (b"role", b"voter" if status.configuration.is_voter(node) else b"learner"),
            (b"leader", int(node == status.leader)),
            (b"connected", int(connected)),
            (b"peer_address", _text(member.peer_address if member else "")),
            (b"client_address", _text(client_address)),
            (b"matched_index", status.last_index if itself else status.matched.get(node, 0)),
        ]
    )


def _text(address: str) -> bytes:
    return address.encode("utf-8", "replace")


def _elsewhere(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    # The connection brings these to the replica, so they never come here but by mistake.
    return Refusal(b"ERR RAFT %b can only be answered by the whole cluster" % argv[1].upper())


RAFT: Final = Family(
    b"RAFT",
    {
        b"ADD": _elsewhere,
        b"DIGEST": _elsewhere,
        b"MEMBERS": _members,
        b"REMOVE": _elsewhere,
        b"REPLACE": _elsewhere,
        b"SNAPSHOT": _snapshot,
        b"STATUS": _status,
        b"TRANSFER": _elsewhere,
    },
)
