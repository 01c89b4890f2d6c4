"""The Clerk: BalsaDB's own client, which hides that there are several servers.

1. A caller's operation becomes one encoded command and a deadline (`words.py`).
2. The core (`core.py`) decides which server gets it, what may be sent again after a failure, and what the
   caller must be told at the end. It is a pure state machine: events in, actions out.
3. Two thin fronts carry out its actions: `Clerk` for asyncio (`aio.py`), `BlockingClerk` with plain sockets
   (`blocking.py`). They have the same methods.
4. Operators' tools ask one particular server instead, without retries (`ask.py`).

What is left out, and its price: there are no sessions yet, so a write whose answer got lost can't be repeated
safely and ends with `OutcomeUnknown`; the caller must look before doing it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balsadb.client.aio import Clerk
    from balsadb.client.blocking import BlockingClerk
    from balsadb.client.core import ClerkOptions

__all__ = ["BlockingClerk", "Clerk", "ClerkOptions"]

_HOMES = {
    "Clerk": "balsadb.client.aio",
    "BlockingClerk": "balsadb.client.blocking",
    "ClerkOptions": "balsadb.client.core",
}


def __getattr__(name: str) -> Any:
    # A blocking program or a one-shot command should not pay for importing asyncio.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
