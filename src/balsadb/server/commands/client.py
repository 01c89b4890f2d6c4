"""CLIENT: what a connection says about itself and sees of the others."""

from __future__ import annotations

from typing import Final

from balsadb.kv.commands.numbers import integer
from balsadb.kv.refusals import SYNTAX_ERROR
from balsadb.kv.reply import OK, Refusal, Reply
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.subcommands import Family
from balsadb.server.commands.view import NodeView
from balsadb.server.commands.words import is_plain, shown, word

NAME_BYTES_MAX: Final = 1024
"""Names are kept as long as the connection lives, so they have a bound."""
SETNAME_REFUSAL: Final = Refusal(b"ERR Client names cannot contain spaces, newlines or special characters.")

_TYPES: Final = (b"NORMAL", b"MASTER", b"REPLICA", b"SLAVE", b"PUBSUB")
_BAD_ID: Final = Refusal(b"ERR Invalid client ID")


def is_name(text: bytes) -> bool:
    """Tell whether a connection may carry this name; an empty one takes the name away."""
    return len(text) <= NAME_BYTES_MAX and is_plain(text)


def describe(client: ClientState, now_ms: int) -> bytes:
    """Return the line of CLIENT LIST about one connection."""
    age_s = max(0, now_ms - client.created_ms) // 1000
    idle_s = max(0, now_ms - client.last_command_ms) // 1000
    multi = max(client.queued, -1)
    return (
        b"id=%d addr=%b laddr=%b fd=-1 name=%b age=%d idle=%d flags=%b db=0 sub=0 psub=0 ssub=0 multi=%d "
        b"watch=0 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 "
        b"events=r cmd=%b user=%b redir=-1 resp=%d lib-name=%b lib-ver=%b"
        % (
            client.id,
            client.address.encode("utf-8", "replace"),
            client.local_address.encode("utf-8", "replace"),
            client.name,
            age_s,
            idle_s,
            _flags(client),
            multi,
            _command_shown(client.last_command),
            client.user if is_plain(client.user) and client.user else b"default",
            3 if client.resp3 else 2,
            client.lib_name,
            client.lib_version,
        )
    )


def _flags(client: ClientState) -> bytes:
    letters = b"".join(
        letter
        for letter, present in (
            (b"x", client.queued >= 0),
            (b"r", client.readonly),
            (b"e", client.no_evict),
            (b"T", client.no_touch),
        )
        if present
    )
    return letters or b"N"


def _command_shown(command: bytes) -> bytes:
    # The name comes from the client as it was written. The line format has no quotes, so nothing odd goes in.
    return command.lower() if command and len(command) <= 64 and is_plain(command) else b"NULL"


def _id(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    return client.id


def _get_name(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    return client.name or None


def _set_name(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    if not is_name(argv[2]):
        return SETNAME_REFUSAL
    client.name = argv[2]
    return OK


def _set_info(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    option = word(argv[2])
    if option not in (b"LIB-NAME", b"LIB-VER"):
        return Refusal(b"ERR Unrecognized option '%b'" % shown(argv[2]))
    if not is_name(argv[3]):
        return Refusal(b"ERR %b cannot contain spaces, newlines or special characters." % option.lower())
    if option == b"LIB-NAME":
        client.lib_name = argv[3]
    else:
        client.lib_version = argv[3]
    return OK


def _info(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    return describe(client, view.wall_ms()) + b"\n"


def _list(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    chosen = view.clients()
    if len(argv) > 2:
        filter_name = word(argv[2])
        if filter_name == b"TYPE" and len(argv) == 4:
            if word(argv[3]) not in _TYPES:
                return Refusal(b"ERR Unknown client type '%b'" % shown(argv[3]))
            # There are no replica links and no subscriptions among client connections.
            chosen = chosen if word(argv[3]) == b"NORMAL" else []
        elif filter_name == b"ID" and len(argv) > 3:
            ids = {integer(text) for text in argv[3:]}
            if any(number is None or number < 1 for number in ids):
                return _BAD_ID
            chosen = [other for other in chosen if other.id in ids]
        else:
            return SYNTAX_ERROR
    now_ms = view.wall_ms()
    return b"".join(describe(other, now_ms) + b"\n" for other in chosen)


def _no_evict(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    switch = word(argv[2])
    if switch not in (b"ON", b"OFF"):
        return SYNTAX_ERROR
    client.no_evict = switch == b"ON"
    return OK


def _no_touch(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    switch = word(argv[2])
    if switch not in (b"ON", b"OFF"):
        return SYNTAX_ERROR
    client.no_touch = switch == b"ON"
    return OK


def _reply(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    mode = word(argv[2])
    if mode == b"ON":
        return OK
    if mode in (b"OFF", b"SKIP"):
        # A client that reads no replies would not learn which of its writes are durable.
        return Refusal(b"ERR CLIENT REPLY %b is not supported" % mode)
    return SYNTAX_ERROR


CLIENT: Final = Family(
    b"CLIENT",
    {
        b"GETNAME": _get_name,
        b"ID": _id,
        b"INFO": _info,
        b"LIST": _list,
        b"NO-EVICT": _no_evict,
        b"NO-TOUCH": _no_touch,
        b"REPLY": _reply,
        b"SETINFO": _set_info,
        b"SETNAME": _set_name,
    },
)
