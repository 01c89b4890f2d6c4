"""Commands of cluster-aware clients, answered by the node that gets them."""

from __future__ import annotations

from typing import Final

from balsadb.kv.commands.local import local, sub

_STALE: Final = b"stale"
_DANGEROUS: Final = b"admin slow dangerous"

CLUSTER: Final = (
    sub(b"COUNT-FAILURE-REPORTS", 3, b"admin stale", b"Return 0: nodes don't report each other", _DANGEROUS),
    sub(b"COUNTKEYSINSLOT", 3, _STALE, b"Return the number of keys in a hash slot"),
    sub(b"GETKEYSINSLOT", 4, _STALE, b"Return keys of a hash slot"),
    sub(b"HELP", 2, b"loading stale", b"Print the subcommands"),
    sub(b"INFO", 2, _STALE, b"Say how the cluster is"),
    sub(b"KEYSLOT", 3, _STALE, b"Return the hash slot of a key"),
    sub(b"MYID", 2, _STALE, b"Return the node's id as cluster clients know it"),
    sub(b"NODES", 2, _STALE, b"Return the members, a line each"),
    sub(b"REPLICAS", 3, b"admin stale", b"Return the members that don't lead", _DANGEROUS),
    sub(b"SHARDS", 2, _STALE, b"Return the one shard with its members, the leader first"),
    sub(b"SLAVES", 3, b"admin stale", b"Old name of REPLICAS", _DANGEROUS),
    sub(b"SLOTS", 2, _STALE, b"Return all hash slots with the members, the leader first"),
)

COMMANDS: Final = (
    local(
        b"CLUSTER",
        -2,
        b"",
        b"Describe the cluster to cluster-aware clients",
        group=b"cluster",
        since=b"3.0.0",
        categories=b"slow",
        subcommands=CLUSTER,
    ),
    local(
        b"READONLY",
        1,
        b"loading stale fast",
        b"Let reads of this connection be answered from the node's own, possibly older, data",
        group=b"cluster",
        since=b"3.0.0",
        categories=b"fast connection",
    ),
    local(
        b"READWRITE",
        1,
        b"loading stale fast",
        b"Let reads of this connection be linearizable again",
        group=b"cluster",
        since=b"3.0.0",
        categories=b"fast connection",
    ),
)
