"""Who the members are, bound in the log (rule W5).

At first a cluster has no name: its initial members know each other from the same `--cluster` text. The
first leader draws the cluster id and writes it into the log, and with it the store id that each member
presented in its hello. From then on a member is its id **and** its data directory: an empty or foreign
directory under a known id is a stranger, because it has forgotten what it voted for and acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from balsadb.raft.types import Configuration, Member, NodeId


def bind_members(
    configuration: Configuration, identities: Mapping[NodeId, tuple[bytes, str]], fresh_cluster_id: bytes
) -> Configuration | None:
    """Return the configuration with what is newly known of its members, or None when that is nothing.

    `identities` maps a node id to (store id, client address) as said in its hello. A store id once bound
    is never changed here; only a client address may move.
    """
    members = tuple(_bound(member, identities.get(member.id)) for member in configuration.members)
    cluster_id = configuration.cluster_id or fresh_cluster_id
    if members == configuration.members and cluster_id == configuration.cluster_id:
        return None
    return msgspec.structs.replace(configuration, members=members, cluster_id=cluster_id)


def _bound(member: Member, identity: tuple[bytes, str] | None) -> Member:
    if identity is None:
        return member
    store_id, client_address = identity
    if member.store_id and member.store_id != store_id:
        return member
    if member.store_id == store_id and client_address in ("", member.client_address):
        return member
    return Member(member.id, member.peer_address, client_address or member.client_address, store_id)


def stranger(configuration: Configuration, node: NodeId, store_id: bytes) -> str | None:
    """Say why `node` with the data directory `store_id` is not who the log knows, or None when it is."""
    if node in configuration.removed:
        return f"node {node} was removed from this cluster; its id is never used again"
    if configuration.member(node) is None:
        return f"node {node} is not a member of this cluster"
    return exchanged(configuration, node, store_id)


def exchanged(configuration: Configuration, node: NodeId, store_id: bytes) -> str | None:
    """Say that the log knows another data directory under this node's id; None when it does not."""
    member = configuration.member(node)
    if member is not None and member.store_id and member.store_id != store_id:
        return (
            f"node {node}'s data is not what this cluster knows (its directory was emptied or exchanged); "
            "put the former directory back, or replace the node by a new one under a new id: "
            "balsadb member replace"
        )
    return None
