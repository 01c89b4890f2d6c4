"""MULTI, EXEC, DISCARD: the connection queues commands; an EXEC is one log entry's flat transaction."""

from __future__ import annotations

from typing import Final

from balsadb.kv.command import Kind
from balsadb.kv.commands.local import local

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
)
