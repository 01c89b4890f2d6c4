"""The Clerk: BalsaDB's own client, which hides that there are several servers.

1. A caller's operation becomes one encoded command and a way to read its answer (`operations.py`, `words.py`;
   several in a `Batch`, `batch.py`).
2. The core decides which server gets it, what may be sent again after a failure, and what the caller must be
   told at the end. It is a pure state machine, events in, actions out: `core.py` has the connections,
   `desk.py` the calls, `session.py` the numbers of writes, `ring.py` the servers, `verdicts.py` the meaning
   of error replies.
3. Two thin fronts carry out its actions: `Clerk` for asyncio (`aio.py`), `BlockingClerk` with plain sockets
   (`blocking.py`). They have the same methods.
4. Operators' tools ask one particular server instead, without retries (`ask.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balsadb.client.aio import Clerk
    from balsadb.client.blocking import BlockingClerk
    from balsadb.client.call import ClerkOptions
    from balsadb.client.tls import Tls

__all__ = ["BlockingClerk", "Clerk", "ClerkOptions", "Tls"]

_HOMES = {
    "Clerk": "balsadb.client.aio",
    "BlockingClerk": "balsadb.client.blocking",
    "ClerkOptions": "balsadb.client.call",
    "Tls": "balsadb.client.tls",
}


def __getattr__(name: str) -> Any:
    # A blocking program or a one-shot command should not pay for importing asyncio.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
