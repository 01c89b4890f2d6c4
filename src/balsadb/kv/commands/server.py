"""Commands about the server, answered by the node that gets them."""

from __future__ import annotations

from typing import Final

from balsadb.kv.commands.local import local, sub

_HELP: Final = b"loading stale"
_ADMIN: Final = b"admin noscript loading stale"
_OWN: Final = b"slow connection"
_DANGEROUS: Final = b"admin slow dangerous"

COMMAND: Final = (
    sub(b"COUNT", 2, _HELP, b"Return the number of commands", _OWN),
    sub(b"DOCS", -2, _HELP, b"Return what commands do", _OWN),
    sub(b"GETKEYS", -4, _HELP, b"Return the keys among the words of a command", _OWN),
    sub(b"GETKEYSANDFLAGS", -4, _HELP, b"Return the keys of a command and how it uses them", _OWN),
    sub(b"HELP", 2, _HELP, b"Print the subcommands", _OWN),
    sub(b"INFO", -2, _HELP, b"Return how commands are called", _OWN),
    sub(b"LIST", -2, _HELP, b"Return the names of the commands", _OWN),
)
CONFIG: Final = (
    sub(b"GET", -3, _ADMIN, b"Return settings whose names match", _DANGEROUS),
    sub(b"HELP", 2, _HELP, b"Print the subcommands"),
    sub(b"RESETSTAT", 2, _ADMIN, b"Accepted for compatibility", _DANGEROUS),
    sub(b"SET", -4, _ADMIN, b"Change settings", _DANGEROUS),
)

COMMANDS: Final = (
    local(
        b"COMMAND",
        -1,
        _HELP,
        b"Describe the commands",
        group=b"server",
        since=b"2.8.13",
        categories=b"slow connection",
        subcommands=COMMAND,
    ),
    local(
        b"CONFIG",
        -2,
        b"",
        b"Read and change settings of the node",
        group=b"server",
        since=b"2.0.0",
        categories=b"slow",
        subcommands=CONFIG,
    ),
    local(
        b"INFO",
        -1,
        b"loading stale",
        b"Describe the node, its clients and its part in the cluster",
        group=b"server",
        since=b"1.0.0",
        categories=b"slow dangerous",
        syntax=b"[section ...]",
    ),
    local(
        b"TIME",
        1,
        b"loading stale fast",
        b"Return the node's clock as seconds and microseconds",
        group=b"server",
        since=b"2.6.0",
        categories=b"fast",
    ),
    local(
        b"ROLE",
        1,
        b"noscript loading stale fast",
        b"Say whether the node leads (master) or follows (slave)",
        group=b"server",
        since=b"2.8.12",
        categories=b"admin fast dangerous",
    ),
)
