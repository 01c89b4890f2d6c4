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
WRONG_PASSWORD: Final = Refusal(b"WRONGPASS invalid username-password pair or user is disabled.")
_PASSWORD: Final = b" "
"""Where `_hello_options` puts it: no option is called so."""
_NO_PROTOCOL: Final = Refusal(b"NOPROTO unsupported protocol version")
_NOT_A_PROTOCOL: Final = Refusal(b"ERR Protocol version is not an integer or out of range")
_NO_DATABASE: Final = Refusal(b"ERR DB index is out of range")


class Login:
    """A user's name and password, to be checked, and the AUTH or HELLO that they came with."""

    __slots__ = ("argv", "password", "user")

    def __init__(self, argv: list[bytes], user: bytes, password: bytes) -> None:
        self.argv = argv
        self.user = user
        self.password = password


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
    """AUTH [username] password, where there are no passwords: a client that has one is misconfigured.

    Where there are, the connection has them checked; see `read_login` and `logged_in`.
    """
    login = read_login(argv)
    return _refuse_login(login) if isinstance(login, Login) else login


def hello(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """HELLO [2|3 [AUTH username password] [SETNAME name]]: all of it is checked before any of it is done."""
    login = read_login(argv)
    if isinstance(login, Refusal):
        return login
    return _refuse_login(login) if login is not None else _greet(client, view, argv)


def read_login(argv: list[bytes]) -> Login | Refusal | None:
    """Return what an AUTH or HELLO wants checked; None for a HELLO that wants nothing.

    A refusal says what is wrong with the command as it stands.
    """
    if word(argv[0]) == b"AUTH":
        if len(argv) < 2:
            return wrong_arity(b"auth")
        if len(argv) > 3:
            return SYNTAX_ERROR
        return Login(argv, argv[1] if len(argv) == 3 else b"default", argv[-1])
    if len(argv) > 1:
        version = integer(argv[1])
        if version is None:
            return _NOT_A_PROTOCOL
        if version not in (2, 3):
            return _NO_PROTOCOL
    options = _hello_options(argv)
    if isinstance(options, Refusal):
        return options
    return Login(argv, options[b"AUTH"], options[_PASSWORD]) if b"AUTH" in options else None


def logged_in(client: ClientState, view: NodeView, login: Login) -> Reply:
    """Do what an AUTH or HELLO wants, whose password was the right one."""
    client.user = login.user
    return OK if word(login.argv[0]) == b"AUTH" else _greet(client, view, login.argv)


def _greet(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """Do what a HELLO wants that was checked."""
    options = _hello_options(argv)
    assert not isinstance(options, Refusal)
    client.name = options.get(b"SETNAME", client.name)
    if len(argv) > 1:
        client.resp3 = integer(argv[1]) == 3
    return _greeting(client, view.status())


def _hello_options(argv: list[bytes]) -> dict[bytes, bytes] | Refusal:
    """Return the user of AUTH, the password, and the name of SETNAME, as far as they are given."""
    options: dict[bytes, bytes] = {}
    at = 2
    while at < len(argv):
        option, left = word(argv[at]), len(argv) - at - 1
        if option == b"AUTH" and left >= 2:
            options[b"AUTH"], options[_PASSWORD] = argv[at + 1], argv[at + 2]
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


def _refuse_login(login: Login) -> Refusal:
    return _NO_PASSWORD if login.user == b"default" else WRONG_PASSWORD
