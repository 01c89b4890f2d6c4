"""CONFIG: the few parameters that tools ask for. Settings are given at start, so none can be set here."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from typing import Final

from balsadb.kv.refusals import wrong_arity
from balsadb.kv.reply import OK, Mapping, Refusal, Reply
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.glob import is_literal, matches
from balsadb.server.commands.subcommands import Family
from balsadb.server.commands.topology import split_address
from balsadb.server.commands.view import NodeView
from balsadb.server.commands.words import WORD_BYTES_MAX, shown

GLOBS_MAX: Final = 8
"""Patterns with special characters in one CONFIG GET. Plain names are looked up, and are not counted."""

_FIXED: Final[AbstractMapping[bytes, bytes]] = {
    # redis-benchmark prints these two; monitoring tools read the others. Durability is not a matter of
    # configuration here: every acknowledged write is synced on a majority.
    b"appendfsync": b"always",
    b"appendonly": b"yes",
    b"cluster-enabled": b"yes",
    b"databases": b"1",
    b"maxmemory": b"0",
    b"maxmemory-policy": b"noeviction",
    b"notify-keyspace-events": b"",
    b"proto-max-bulk-len": b"8388608",
    b"save": b"",
    b"slowlog-max-len": b"0",
    b"timeout": b"0",
}
_TOO_MANY: Final = Refusal(b"ERR too many patterns in one CONFIG GET, at most %d" % GLOBS_MAX)


def _parameters(view: NodeView) -> dict[bytes, bytes]:
    host, port = split_address(view.status().client_address)
    return {**_FIXED, b"bind": host.encode("utf-8", "replace"), b"port": b"%d" % port}


def _get(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    parameters = _parameters(view)
    wanted: set[bytes] = set()
    globs = 0
    for argument in argv[2:]:
        if len(argument) > WORD_BYTES_MAX:
            continue
        pattern = argument.lower()
        if is_literal(pattern):
            wanted.add(pattern)
            continue
        globs += 1
        if globs > GLOBS_MAX:
            return _TOO_MANY
        wanted.update(name for name in parameters if matches(pattern, name))
    return Mapping([(name, parameters[name]) for name in sorted(parameters) if name in wanted])


def _set(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    if len(argv) % 2:
        return wrong_arity(b"config|set")
    parameters = _parameters(view)
    for name in argv[2::2]:
        if len(name) > WORD_BYTES_MAX or name.lower() not in parameters:
            return Refusal(b"ERR Unknown option or number of arguments for CONFIG SET - '%b'" % shown(name))
    return Refusal(
        b"ERR CONFIG SET failed (possibly related to argument '%b') - can't set immutable config"
        % shown(argv[2])
    )


def _reset_statistics(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    # The counters of INFO are kept for monitoring, which tells a reset from a restart only with trouble.
    return OK


CONFIG: Final = Family(
    b"CONFIG",
    {
        b"GET": _get,
        b"RESETSTAT": _reset_statistics,
        b"SET": _set,
    },
)
