"""What stands between a connection's input and its intake, where not everybody may do everything.

A connection calls whatever `sorter` gave it for its user: the intake itself for one who may do everything, so
that this costs nothing then; else a `Guard`; and a `Lock` for one who has not logged in. Nothing is asked per
command, and the intake with its MULTI and WATCH stays the same when the user changes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final, TypeAlias

from balsadb.kv.reply import OK, Refusal, Reply
from balsadb.kv.table import lookup
from balsadb.resp.encode import encode_reply
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.connection import Login, read_login
from balsadb.server.intake import Intake, Piece
from balsadb.server.passwords import NOBODY, Accounts
from balsadb.server.telemetry import CommandCounts

GUARDED_COMMANDS_MAX: Final = 256
"""Commands that a guard lets into one piece: it looks at all, and the intake may take only the first."""

NOT_LOGGED_IN: Final = Refusal(b"NOAUTH Authentication required.")
_HELLO_WITHOUT: Final = Refusal(
    b"NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "
    b"<user> <pass> option can be used to authenticate the client and select the RESP protocol version at "
    b"the same time"
)

Sorter: TypeAlias = Callable[[list[list[bytes]]], Piece]
"""As `Intake.sort`."""


def sorter(accounts: Accounts, state: ClientState, intake: Intake, counts: CommandCounts) -> Sorter:
    """Return what sorts the commands of a connection, by what its user may do now."""
    if state.user == NOBODY:
        return Lock(state, counts).sort
    if accounts.unrestricted(state.user):
        return intake.sort
    return Guard(accounts, state, intake).sort


class Guard:
    """Refuses what a user may not do, and gives the rest to the intake."""

    __slots__ = ("_accounts", "_intake", "_state")

    def __init__(self, accounts: Accounts, state: ClientState, intake: Intake) -> None:
        self._accounts = accounts
        self._state = state
        self._intake = intake

    def sort(self, commands: list[list[bytes]]) -> Piece:
        """Sort the commands before the first one that is refused, or that one alone."""
        allowed: list[list[bytes]] = []
        for argv in islice(commands, GUARDED_COMMANDS_MAX):
            refusal = self._accounts.refuse(self._state.user, argv)
            if refusal is not None:
                if not allowed:
                    return self._intake.refuse(argv, refusal)
                break  # it begins the next piece
            allowed.append(argv)
        return self._intake.sort(allowed)


class Lock:
    """Lets in who has a password, and refuses everything else. Takes one command at a time."""

    __slots__ = ("_counts", "_state")

    def __init__(self, state: ClientState, counts: CommandCounts) -> None:
        self._state = state
        self._counts = counts

    def sort(self, commands: list[list[bytes]]) -> Piece:
        """Sort the first command."""
        argv, state = commands[0], self._state
        piece = Piece(False, state.resp3)
        piece.taken, piece.ended = 1, True
        command = lookup(argv[0])
        self._counts.add(command, 1)
        state.last_command = argv[0]
        match b"" if command is None else command.name:
            case b"AUTH" | b"HELLO":
                asked = read_login(argv)
                if isinstance(asked, Login):
                    piece.login = asked
                else:
                    self._say(piece, _HELLO_WITHOUT if asked is None else asked)
            case b"QUIT":
                self._say(piece, OK)
                piece.closing = True
            case b"RESET":
                state.reset()
                piece.literals.append((0, b"+RESET\r\n"))
            case _:
                self._say(piece, NOT_LOGGED_IN)
        return piece

    def _say(self, piece: Piece, reply: Reply) -> None:
        if isinstance(reply, Refusal):
            self._counts.refused(lookup(self._state.last_command), reply)
        piece.literals.append((0, encode_reply(reply, self._state.resp3)))
