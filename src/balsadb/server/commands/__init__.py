"""Commands that a node answers by itself, without the log.

Most commands read or change the database and belong to `kv`. The ones here are about the connection
(`connection.py`, `client.py`), the server as tools see it (`config.py`, `info.py`, `command.py`), the
cluster as Redis clients see it (`cluster.py`, `topology.py`) and consensus (`raft.py`).

A handler is a function of (client, view, argv): what is known about the connection, what the node says about
itself, and the arguments. It returns a reply, and may change the client's state and nothing else. It never
raises, whatever bytes come. RESET, QUIT, MULTI, EXEC and DISCARD belong to the listener, which owns the
connection, and RAFT DIGEST goes through the log.

`run` is the only entrance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from balsadb.kv.refusals import unknown_command
from balsadb.kv.reply import Reply
from balsadb.server.commands import connection
from balsadb.server.commands.client import CLIENT
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.cluster import CLUSTER
from balsadb.server.commands.command import COMMAND
from balsadb.server.commands.config import CONFIG
from balsadb.server.commands.info import info, role
from balsadb.server.commands.raft import RAFT
from balsadb.server.commands.subcommands import Handler
from balsadb.server.commands.view import NodeStatus, NodeView
from balsadb.server.commands.words import word

__all__ = ["HANDLERS", "ClientState", "NodeStatus", "NodeView", "run"]

HANDLERS: Final[Mapping[bytes, Handler]] = {
    b"PING": connection.ping,
    b"ECHO": connection.echo,
    b"HELLO": connection.hello,
    b"AUTH": connection.auth,
    b"SELECT": connection.select,
    b"READONLY": connection.readonly,
    b"READWRITE": connection.readwrite,
    b"TIME": connection.time,
    b"CLIENT": CLIENT.run,
    b"CLUSTER": CLUSTER.run,
    b"COMMAND": COMMAND.run,
    b"CONFIG": CONFIG.run,
    b"INFO": info,
    b"RAFT": RAFT.run,
    b"ROLE": role,
}
"""Every command answered here, by its name in upper case."""

# Clients write names in upper or in lower case; both are found without changing them first.
_BY_NAME: Final = {**HANDLERS, **{name.lower(): handler for name, handler in HANDLERS.items()}}


def run(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """Answer one command. Encode its reply only afterwards, because HELLO 3 changes how."""
    handler = _BY_NAME.get(argv[0]) or HANDLERS.get(word(argv[0]))
    if handler is None:
        return unknown_command(argv)
    return handler(client, view, argv)
