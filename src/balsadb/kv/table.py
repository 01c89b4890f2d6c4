"""The table of all commands, and the ways into it.

One table feeds the front's checks, the state machine, COMMAND, and the documentation's list of commands.
"""

from __future__ import annotations

from typing import Final

from balsadb.kv.command import Command, Handler, Kind, Subcommand
from balsadb.kv.commands import (
    cluster,
    connection,
    counters,
    expiry,
    keys,
    raft,
    ranges,
    scans,
    server,
    sessions,
    strings,
    transactions,
)
from balsadb.kv.limits import NAME_BYTES_MAX
from balsadb.kv.refusals import unknown_command, wrong_arity

__all__ = [
    "COMMANDS",
    "Command",
    "Handler",
    "Kind",
    "Subcommand",
    "lookup",
    "unknown_command",
    "wrong_arity",
]

COMMANDS: Final[dict[bytes, Command]] = {
    command.name: command
    for family in (
        strings,
        ranges,
        counters,
        expiry,
        keys,
        scans,
        connection,
        server,
        cluster,
        raft,
        transactions,
        sessions,
    )
    for command in family.COMMANDS
}
"""Every command by its name in upper case."""

_BY_NAME: Final = {**COMMANDS, **{name.lower(): command for name, command in COMMANDS.items()}}
# Clients write names in upper or in lower case; both are found without changing them first.


def lookup(name: bytes) -> Command | None:
    """Return the command of a name in any letter case, or None."""
    return _BY_NAME.get(name) or (COMMANDS.get(name.upper()) if len(name) <= NAME_BYTES_MAX else None)
