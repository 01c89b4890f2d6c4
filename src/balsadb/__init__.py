"""BalsaDB: a fault-tolerant, strongly consistent key-value database that speaks the Redis protocol.

    from balsadb import Clerk                       # asyncio
    from balsadb import BlockingClerk               # without
    from balsadb.testing import LocalCluster        # a cluster on this machine, for tests

Names load on first use, so that a client does not pay for importing a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from balsadb.errors import (
    AuthenticationError,
    BalsaError,
    ClientError,
    CommandError,
    NoServer,
    NotApplied,
    OutcomeUnknown,
    ReplyLost,
    SessionExpired,
)
from balsadb.version import __version__

if TYPE_CHECKING:
    from balsadb.client import BlockingClerk, Clerk, Tls
    from balsadb.server.config import ServeConfig
    from balsadb.server.node import Node

__all__ = [
    "AuthenticationError",
    "BalsaError",
    "BlockingClerk",
    "Clerk",
    "ClientError",
    "CommandError",
    "NoServer",
    "Node",
    "NotApplied",
    "OutcomeUnknown",
    "ReplyLost",
    "ServeConfig",
    "SessionExpired",
    "Tls",
    "__version__",
]

_HOMES = {
    "BlockingClerk": "balsadb.client.blocking",
    "Clerk": "balsadb.client.aio",
    "Node": "balsadb.server.node",
    "ServeConfig": "balsadb.server.config",
    "Tls": "balsadb.client.tls",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
