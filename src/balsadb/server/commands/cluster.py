"""CLUSTER: the topology for cluster-aware clients. It always answers, leader first, during elections too.

A refused CLUSTER SLOTS makes clients conclude that this is no cluster at all, so there is no such refusal.
"""

from __future__ import annotations

from typing import Final

from balsadb.kv.commands.numbers import integer
from balsadb.kv.refusals import NOT_AN_INTEGER
from balsadb.kv.reply import Mapping, Refusal, Reply
from balsadb.kv.slots import key_slot
from balsadb.raft.types import NOBODY
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.subcommands import Family
from balsadb.server.commands.topology import SLOT_LAST, Site, head, ranked, redis_id, sites
from balsadb.server.commands.view import NodeStatus, NodeView
from balsadb.server.commands.words import shown

SCANNED_KEYS_MAX: Final = 65_536
"""Keys are not sorted by slot, so counting those of one slot means looking at all: 20 ms for this many."""

_BAD_SLOT: Final = Refusal(b"ERR Invalid slot")
_BAD_SLOT_OR_COUNT: Final = Refusal(b"ERR Invalid slot or number of keys")


def _slots(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    nodes: list[Reply] = [[site.host, site.port, site.redis_id, []] for site in ranked(view.status())]
    return [[0, SLOT_LAST, *nodes]]


def _shards(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    nodes: list[Reply] = [
        Mapping(
            [
                (b"id", site.redis_id),
                (b"port", site.port),
                (b"ip", site.host),
                (b"endpoint", site.host),
                (b"role", b"master" if place == 0 else b"replica"),
                (b"replication-offset", site.offset),
                (b"health", b"online" if site.connected else b"failed"),
            ]
        )
        for place, site in enumerate(ranked(view.status()))
    ]
    return [Mapping([(b"slots", [0, SLOT_LAST]), (b"nodes", nodes)])]


def _nodes(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    status = view.status()
    return b"".join(_node_line(status, site) + b"\n" for site in sites(status))


def _node_line(status: NodeStatus, site: Site) -> bytes:
    master = head(status)
    flags = [b"myself"] if site.id == status.id else []
    flags.append(b"master" if site.id == master else b"slave")
    if not site.port:
        flags.append(b"noaddr")
    return b"%b %b:%d@%d %b %b 0 0 %d %b%b" % (
        site.redis_id,
        site.host,
        site.port,
        site.peer_port,
        b",".join(flags),
        b"-" if site.id == master else redis_id(status, master),
        status.term,
        b"connected" if site.connected else b"disconnected",
        b" 0-%d" % SLOT_LAST if site.id == master else b"",
    )


def _replicas(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    status = view.status()
    master = head(status)
    if argv[2] != redis_id(status, master):
        known = any(site.redis_id == argv[2] for site in sites(status))
        return Refusal(b"ERR The specified node is not a master") if known else _unknown_node(argv[2])
    return [_node_line(status, site) for site in sites(status) if site.id != master]


def _info(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    status = view.status()
    # Some clients connect only to a node whose state is ok, so a node that is merely electing says ok while
    # it counts itself ready.
    good = status.leader != NOBODY or status.ready
    slots = SLOT_LAST + 1
    fields = (
        ("cluster_state", "ok" if good else "fail"),
        ("cluster_slots_assigned", slots),
        ("cluster_slots_ok", slots if good else 0),
        ("cluster_slots_pfail", 0),
        ("cluster_slots_fail", 0 if good else slots),
        ("cluster_known_nodes", len(sites(status))),
        ("cluster_size", 1),
        ("cluster_current_epoch", status.term),
        ("cluster_my_epoch", status.term),
        ("cluster_stats_messages_sent", 0),
        ("cluster_stats_messages_received", 0),
        ("total_cluster_links_buffer_limit_exceeded", 0),
    )
    return "".join(f"{name}:{value}\r\n" for name, value in fields).encode()


def _my_id(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    status = view.status()
    return redis_id(status, status.id)


def _key_slot(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    return key_slot(argv[2])


def _count_failure_reports(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    # Nodes of a Raft cluster do not report each other; a known node has no reports.
    known = any(site.redis_id == argv[2] for site in sites(view.status()))
    return 0 if known else _unknown_node(argv[2])


def _count_keys(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    slot = integer(argv[2])
    if slot is None:
        return NOT_AN_INTEGER
    if not 0 <= slot <= SLOT_LAST:
        return _BAD_SLOT
    return _refuse_scan(argv[1], view) or len(_keys_in(slot, view))


def _get_keys(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    slot, count = integer(argv[2]), integer(argv[3])
    if slot is None or count is None:
        return NOT_AN_INTEGER
    if not 0 <= slot <= SLOT_LAST or count < 0:
        return _BAD_SLOT_OR_COUNT
    refusal = _refuse_scan(argv[1], view)
    if refusal is not None:
        return refusal
    return list(sorted(_keys_in(slot, view))[:count])


def _keys_in(slot: int, view: NodeView) -> list[bytes]:
    keys = view.keys()
    return [key for key in keys if key_slot(key) == slot]


def _refuse_scan(subcommand: bytes, view: NodeView) -> Refusal | None:
    if view.status().keys <= SCANNED_KEYS_MAX:
        return None
    return Refusal(
        b"ERR CLUSTER %b would look at every key; it is available up to %d keys"
        % (subcommand.upper(), SCANNED_KEYS_MAX)
    )


def _unknown_node(name: bytes) -> Refusal:
    return Refusal(b"ERR Unknown node %b" % shown(name))


CLUSTER: Final = Family(
    b"CLUSTER",
    {
        b"COUNT-FAILURE-REPORTS": _count_failure_reports,
        b"COUNTKEYSINSLOT": _count_keys,
        b"GETKEYSINSLOT": _get_keys,
        b"INFO": _info,
        b"KEYSLOT": _key_slot,
        b"MYID": _my_id,
        b"NODES": _nodes,
        b"REPLICAS": _replicas,
        b"SHARDS": _shards,
        b"SLAVES": _replicas,
        b"SLOTS": _slots,
    },
)
