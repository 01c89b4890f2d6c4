"""Commands about the connection itself: PING ECHO HELLO AUTH SELECT READONLY READWRITE, and TIME."""

from __future__ import annotations

from typing import Final

from balsadb.kv.commands.numbers import integer
from balsadb.kv.refusals import NOT_AN_INTEGER, SYNTAX_ERROR, wrong_arity
from balsadb.kv.reply import OK, Mapping, Refusal, Reply
from balsadb.server.commands.client import SETNAME_REFUSAL, is_name
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.topology import head
from balsadb.server.commands.view import NodeStatus, NodeView
from balsadb.server.commands.words import PONG, shown, word

REDIS_VERSION: Final = b"7.2.4"
"""The version of Redis whose commands and words this server follows; clients switch features by it."""
REDIS_MODE: Final = b"standalone"
"""Not "cluster": clients that go by it would refuse commands over keys of several slots, which work here.
Cluster-aware clients ask CLUSTER SLOTS and `cluster_enabled`, and find a cluster."""

_NO_PASSWORD: Final = Refusal(
    b"ERR AUTH <password> called without any password configured for the default user. "
    b"Are you sure your configuration is correct?"
)
_WRONG_PASSWORD: Final = Refusal(b"WRONGPASS invalid username-password pair or user is disabled.")
_NO_PROTOCOL: Final = Refusal(b"NOPROTO unsupported protocol version")
_NOT_A_PROTOCOL: Final = Refusal(b"ERR Protocol version is not an integer or out of range")
_NO_DATABASE: Final = Refusal(b"ERR DB index is out of range")


def ping(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """PING [message]."""
    if len(argv) == 1:
        return PONG
    return argv[1] if len(argv) == 2 else wrong_arity(b"ping")


def echo(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """ECHO message."""
    return argv[1] if len(argv) == 2 else wrong_arity(b"echo")


def time(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """TIME: this node's wall clock, which nothing in the database depends on."""
    if len(argv) != 1:
        return wrong_arity(b"time")
    seconds, micros = divmod(view.wall_us(), 1_000_000)
    return [b"%d" % seconds, b"%d" % micros]


def select(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """SELECT 0. There is one database."""
    if len(argv) != 2:
        return wrong_arity(b"select")
    number = integer(argv[1])
    if number is None:
        return NOT_AN_INTEGER
    return OK if number == 0 else _NO_DATABASE


def readonly(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """READONLY: reads of this connection may be served from this node's own state (rule R4)."""
    if len(argv) != 1:
        return wrong_arity(b"readonly")
    client.readonly = True
    return OK


def readwrite(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """READWRITE: back to linearizable reads."""
    if len(argv) != 1:
        return wrong_arity(b"readwrite")
    client.readonly = False
    return OK


def auth(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """AUTH [username] password. There are no passwords yet, so a client that has one is misconfigured."""
    if len(argv) < 2:
        return wrong_arity(b"auth")
    if len(argv) > 3:
        return SYNTAX_ERROR
    return _refuse_login(argv[1] if len(argv) == 3 else b"default")


def hello(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """HELLO [2|3 [AUTH username password] [SETNAME name]]: all of it is checked before any of it is done."""
    resp3 = client.resp3
    if len(argv) > 1:
        version = integer(argv[1])
        if version is None:
            return _NOT_A_PROTOCOL
        if version not in (2, 3):
            return _NO_PROTOCOL
        resp3 = version == 3
    options = _hello_options(argv)
    if isinstance(options, Refusal):
        return options
    if b"AUTH" in options:
        return _refuse_login(options[b"AUTH"])
    client.name = options.get(b"SETNAME", client.name)
    client.resp3 = resp3
    return _greeting(client, view.status())


def _hello_options(argv: list[bytes]) -> dict[bytes, bytes] | Refusal:
    """Return the user name of AUTH and the name of SETNAME, as far as they are given."""
    options: dict[bytes, bytes] = {}
    at = 2
    while at < len(argv):
        option, left = word(argv[at]), len(argv) - at - 1
        if option == b"AUTH" and left >= 2:
            options[b"AUTH"] = argv[at + 1]
            at += 3
        elif option == b"SETNAME" and left >= 1:
            if not is_name(argv[at + 1]):
                return SETNAME_REFUSAL
            options[b"SETNAME"] = argv[at + 1]
            at += 2
        else:
            return Refusal(b"ERR Syntax error in HELLO option '%b'" % shown(argv[at]))
    return options


def _greeting(client: ClientState, status: NodeStatus) -> Reply:
    return Mapping(
        [
            (b"server", b"redis"),
            (b"version", REDIS_VERSION),
            (b"proto", 3 if client.resp3 else 2),
            (b"id", client.id),
            (b"mode", REDIS_MODE),
            (b"role", b"master" if head(status) == status.id else b"replica"),
            (b"modules", []),
        ]
    )


def _refuse_login(user: bytes) -> Refusal:
    return _NO_PASSWORD if user == b"default" else _WRONG_PASSWORD
