"""RAFT: what an operator asks a node about consensus.

STATUS answers a map with these fields: id, role, term, leader, commit_index, applied_index, first_index,
last_index, durable_index, snapshot_index, voters, outgoing_voters, learners (lists of ids), cluster_id,
keys, uptime_ms, ready, loading, client_address, peer_address, log_time_ms, boot, alarms.
MEMBERS answers a list of maps: id, role (voter or learner), leader, connected (1 or 0), peer_address,
client_address, matched_index. Truth values are 1 and 0, in RESP2 and RESP3 alike.
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
            (b"durable_index", status.durable_index),
            (b"snapshot_index", status.snapshot_index),
            (b"voters", list(configuration.voters)),
            (b"outgoing_voters", list(configuration.outgoing)),
            (b"learners", list(configuration.learners)),
            (b"cluster_id", status.cluster_id.encode()),
            (b"keys", status.keys),
            (b"uptime_ms", status.uptime_ms),
            (b"ready", int(status.ready)),
            (b"loading", int(status.loading)),
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


def _not_yet(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    return Refusal(b"ERR RAFT %b is not available in this version" % argv[1].upper())


def _digest(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    # The listener turns RAFT DIGEST into a logged command (rule S8), so it never comes here but by mistake.
    return Refusal(b"ERR RAFT DIGEST can only be answered through the log")


RAFT: Final = Family(
    b"RAFT",
    {
        b"ADD": _not_yet,
        b"DIGEST": _digest,
        b"MEMBERS": _members,
        b"REMOVE": _not_yet,
        b"REPLACE": _not_yet,
        b"SNAPSHOT": _snapshot,
        b"STATUS": _status,
        b"TRANSFER": _not_yet,
    },
)
