"""MULTI, EXEC, DISCARD: the connection queues commands; an EXEC is one log entry's flat transaction.

WATCH reads the versions of its keys; the connection keeps them, and they go into the log with the EXEC, which
compares them when it is applied (rule S7). So nothing of a WATCH lives on any node but the client's own.
"""

from __future__ import annotations

from typing import Final

from balsadb.kv.command import Command, Kind
from balsadb.kv.commands.local import local
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.reply import Reply


def versions(space: Keyspace, argv: list[bytes]) -> Reply:
    """RAFT.VERSIONS key [key ...]."""
    return [space.version(key) for key in argv[1:]]


COMMANDS: Final = (
    local(
        b"MULTI",
        1,
        b"noscript loading stale fast allow_busy",
        b"Begin a transaction: queue the commands that follow",
        group=b"transactions",
        since=b"1.2.0",
        categories=b"fast transaction",
        kind=Kind.TRANSACTION,
    ),
    local(
        b"EXEC",
        1,
        b"noscript loading stale skip_slowlog",
        b"Run the queued commands as one, with nothing in between",
        group=b"transactions",
        since=b"1.2.0",
        categories=b"slow transaction",
        kind=Kind.TRANSACTION,
    ),
    local(
        b"DISCARD",
        1,
        b"noscript loading stale fast allow_busy",
        b"Forget the queued commands",
        group=b"transactions",
        since=b"2.0.0",
        categories=b"fast transaction",
        kind=Kind.TRANSACTION,
    ),
    Command(
        name=b"WATCH",
        arity=-2,
        flags=(b"noscript", b"loading", b"stale", b"fast", b"allow_busy"),
        first_key=1,
        last_key=-1,
        step=1,
        kind=Kind.TRANSACTION,
        handler=None,
        summary=b"Let the next EXEC do nothing if one of the keys has changed until then",
        group=b"transactions",
        since=b"2.2.0",
        categories=(b"fast", b"transaction"),
        key_access=(b"RO",),
        syntax=b"key [key ...]",
    ),
    local(
        b"UNWATCH",
        1,
        b"noscript loading stale fast allow_busy",
        b"Forget the watched keys",
        group=b"transactions",
        since=b"2.2.0",
        categories=b"fast transaction",
        kind=Kind.TRANSACTION,
    ),
    Command(
        name=b"RAFT.VERSIONS",
        arity=-2,
        flags=(b"readonly", b"no_multi"),
        first_key=1,
        last_key=-1,
        step=1,
        kind=Kind.READ,
        handler=versions,
        summary=b"Internal: return the versions that WATCH compares",
        group=b"raft",
        since=b"0.1.0",
        categories=(b"read", b"fast"),
        key_access=(b"RO",),
        syntax=b"key [key ...]",
    ),
)
