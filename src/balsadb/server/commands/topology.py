"""Who is in the cluster and where, in the terms of Redis: one master, its replicas, 40-digit node ids.

The leader is presented as the master of all slots and everybody else as its replica, so that cluster-aware
clients prefer the leader. It is only a preference: every node serves every request.
"""

from __future__ import annotations

from typing import Final

import msgspec

from balsadb.address import parse_address
from balsadb.errors import UsageError
from balsadb.raft.types import NOBODY, Index, NodeId
from balsadb.server.commands.view import NodeStatus

SLOT_LAST: Final = 16383
"""Last hash slot of a Redis cluster; all slots are served by all nodes."""

_WILDCARDS: Final = ("0.0.0.0", "::")


class Site(msgspec.Struct, frozen=True):
    """One member as clients see it."""

    id: NodeId
    redis_id: bytes
    """40 hex digits: the cluster's id and the node's."""
    host: bytes
    """Empty when the member has not said yet where clients reach it."""
    port: int
    """0 when the member has not said yet where clients reach it."""
    peer_port: int
    learner: bool
    connected: bool
    """True for this node itself, and for all peers when the node does not say which it is connected to."""
    offset: Index
    """How far its log is known to agree, where this node knows; else 0."""


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`. What is empty or can't be split gives an empty host and port 0."""
    try:
        return parse_address(address)
    except UsageError:
        return "", 0


def redis_id(status: NodeStatus, node: NodeId) -> bytes:
    """Return the 40 hex digits that name a node towards Redis clients; zeros stand for an unknown cluster."""
    cluster = status.cluster_id[:32].rjust(32, "0")
    return f"{cluster}{node & 0xFFFF_FFFF:08x}".encode()


def sites(status: NodeStatus) -> list[Site]:
    """Return all members by id; this node among them, even while it is not a member."""
    everyone = {*status.configuration.everyone(), status.id}
    return [_site(status, node) for node in sorted(everyone)]


def ranked(status: NodeStatus) -> list[Site]:
    """Return the members that clients can be sent to, the leader first, then by id.

    During an election the leader known last stays first, and before the first election this node itself:
    clients take an empty or refused answer for "not a cluster" and give up.
    """
    known = [site for site in sites(status) if site.port]
    first = head(status)
    return sorted(known, key=lambda site: (site.id != first, site.id))


def head(status: NodeStatus) -> NodeId:
    """Return who is presented as the master: the leader, else the last one known, else this node."""
    for node in (status.leader, status.last_leader):
        if node != NOBODY and (node == status.id or _client_address(status, node)):
            return node
    return status.id


def _site(status: NodeStatus, node: NodeId) -> Site:
    host, port = split_address(_client_address(status, node))
    peer_host, peer_port = split_address(_peer_address(status, node))
    if port and host in _WILDCARDS:
        # A server told to listen everywhere: the address at which its peers reach it serves clients better.
        host = peer_host
    itself = node == status.id
    return Site(
        id=node,
        redis_id=redis_id(status, node),
        host=host.encode("utf-8", "replace"),
        port=port,
        peer_port=peer_port,
        learner=node in status.configuration.learners,
        connected=itself or status.connected is None or node in status.connected,
        offset=status.applied_index if itself else status.matched.get(node, 0),
    )


def _client_address(status: NodeStatus, node: NodeId) -> str:
    if node == status.id:
        return status.client_address
    member = status.configuration.member(node)
    return member.client_address if member else ""


def _peer_address(status: NodeStatus, node: NodeId) -> str:
    member = status.configuration.member(node)
    if member is not None:
        return member.peer_address
    return status.peer_address if node == status.id else ""
