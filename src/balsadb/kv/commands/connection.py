"""Commands about the connection, answered by the node that holds it."""

from __future__ import annotations

from typing import Final

from balsadb.kv.commands.local import local, sub

_EARLY: Final = b"noscript loading stale fast no_auth allow_busy"
_MUTE: Final = b"noscript loading stale"
_ADMIN: Final = b"admin noscript loading stale"
_HELP: Final = b"loading stale"
_OWN: Final = b"slow connection"
_OTHERS: Final = b"admin slow dangerous connection"

CLIENT: Final = (
    sub(b"GETNAME", 2, _MUTE, b"Return the connection's name", _OWN),
    sub(b"HELP", 2, _HELP, b"Print the subcommands", _OWN),
    sub(b"ID", 2, _MUTE, b"Return the connection's number", _OWN),
    sub(b"INFO", 2, _MUTE, b"Describe the connection", _OWN),
    sub(b"LIST", -2, _ADMIN, b"Describe the connections of this node", _OTHERS),
    sub(b"NO-EVICT", 3, _ADMIN, b"Accepted for compatibility", _OTHERS),
    sub(b"NO-TOUCH", 3, _MUTE, b"Accepted for compatibility", _OWN),
    sub(b"REPLY", 3, _MUTE, b"Accepted for compatibility", _OWN),
    sub(b"SETINFO", 4, _MUTE, b"Say which client library is connected", _OWN),
    sub(b"SETNAME", 3, _MUTE, b"Name the connection", _OWN),
)

COMMANDS: Final = (
    local(
        b"PING",
        -1,
        b"fast",
        b"Answer PONG, or the argument",
        group=b"connection",
        since=b"1.0.0",
        categories=b"fast connection",
        syntax=b"[message]",
    ),
    local(
        b"ECHO",
        2,
        b"loading stale fast",
        b"Answer the argument",
        group=b"connection",
        since=b"1.0.0",
        categories=b"fast connection",
        syntax=b"message",
    ),
    local(
        b"HELLO",
        -1,
        _EARLY,
        b"Choose the protocol version and describe the server",
        group=b"connection",
        since=b"6.0.0",
        categories=b"fast connection",
        syntax=b"[protover [AUTH username password] [SETNAME name]]",
    ),
    local(
        b"AUTH",
        -2,
        _EARLY,
        b"Log in",
        group=b"connection",
        since=b"1.0.0",
        categories=b"fast connection",
        syntax=b"[username] password",
    ),
    local(
        b"QUIT",
        -1,
        _EARLY,
        b"Close the connection after all replies",
        group=b"connection",
        since=b"1.0.0",
        categories=b"fast connection",
    ),
    local(
        b"RESET",
        1,
        _EARLY,
        b"Bring the connection back to how it began",
        group=b"connection",
        since=b"6.2.0",
        categories=b"fast connection",
    ),
    local(
        b"SELECT",
        2,
        b"loading stale fast",
        b"Choose database 0, the only one",
        group=b"connection",
        since=b"1.0.0",
        categories=b"fast connection",
        syntax=b"index",
    ),
    local(
        b"CLIENT",
        -2,
        b"",
        b"Describe and name connections",
        group=b"connection",
        since=b"2.4.0",
        categories=b"slow",
        subcommands=CLIENT,
    ),
)
