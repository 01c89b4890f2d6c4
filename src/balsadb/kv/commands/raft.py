"""RAFT, the operator's command, and the internal commands behind RAFT DIGEST (rule S8).

A digest is a logged command, so that all replicas compute it of the same state. The front turns
`RAFT DIGEST` into `RAFT.DIGEST`, a write, and `RAFT DIGEST <index>` into `RAFT.DIGESTAT <index>`, a read.
"""

from __future__ import annotations

from typing import Final

from balsadb.kv.command import Command, Kind
from balsadb.kv.commands.local import local, sub
from balsadb.kv.commands.numbers import integer
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.limits import DIGESTS_KEPT
from balsadb.kv.refusals import NOT_AN_INTEGER
from balsadb.kv.reply import Refusal, Reply


def digest(space: Keyspace, argv: list[bytes]) -> Reply:
    """RAFT.DIGEST."""
    return space.digests.request(space.index)


def digest_at(space: Keyspace, argv: list[bytes]) -> Reply:
    """RAFT.DIGESTAT index."""
    index = integer(argv[1])
    if index is None:
        return NOT_AN_INTEGER
    kept = space.digests.kept.get(index)
    if kept is None:
        return Refusal(b"ERR no digest of index %d is kept, only the last %d" % (index, DIGESTS_KEPT))
    return [index, kept]


_ADMIN: Final = b"admin noscript loading stale"
_DANGEROUS: Final = b"admin slow dangerous"

RAFT: Final = (
    sub(b"ADD", -5, _ADMIN, b"Add a server: id, peer address, client address", _DANGEROUS),
    sub(b"DIGEST", -2, _ADMIN, b"Return a log index and the digest of all state right after it", _DANGEROUS),
    sub(b"HELP", 2, b"loading stale", b"Print the subcommands"),
    sub(b"MEMBERS", 2, _ADMIN, b"Return the members and their addresses", _DANGEROUS),
    sub(b"REMOVE", -3, _ADMIN, b"Remove a server by its id", _DANGEROUS),
    sub(
        b"REPLACE", -6, _ADMIN, b"Replace a server: old id, new id, peer address, client address", _DANGEROUS
    ),
    sub(b"SNAPSHOT", 2, _ADMIN, b"Make a snapshot soon and let the log before it go", _DANGEROUS),
    sub(b"STATUS", 2, _ADMIN, b"Return the node's consensus state", _DANGEROUS),
    sub(b"TRANSFER", -2, _ADMIN, b"Hand leadership over, to a server by its id or to any", _DANGEROUS),
)

COMMANDS: Final = (
    local(
        b"RAFT",
        -2,
        b"",
        b"Look at consensus and administer the cluster",
        group=b"raft",
        since=b"0.1.0",
        categories=b"slow",
        subcommands=RAFT,
    ),
    Command(
        name=b"RAFT.DIGEST",
        arity=1,
        flags=(b"admin", b"no_multi"),
        first_key=0,
        last_key=0,
        step=0,
        kind=Kind.WRITE,
        handler=digest,
        summary=b"Internal: compute the digest of all replicated state right after this log entry",
        group=b"raft",
        since=b"0.1.0",
        categories=(b"admin", b"slow", b"dangerous"),
    ),
    Command(
        name=b"RAFT.DIGESTAT",
        arity=2,
        flags=(b"readonly", b"admin", b"no_multi"),
        first_key=0,
        last_key=0,
        step=0,
        kind=Kind.READ,
        handler=digest_at,
        summary=b"Internal: return the digest that was computed at a log index",
        group=b"raft",
        since=b"0.1.0",
        categories=(b"admin", b"slow", b"dangerous"),
        syntax=b"index",
    ),
)
