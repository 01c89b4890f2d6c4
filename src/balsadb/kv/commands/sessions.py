"""SESSION and ONCE: commands that run exactly once, however often they are sent (rules S1, S2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from balsadb.kv.batch import EXEC
from balsadb.kv.command import Command, Handler, Kind, Subcommand
from balsadb.kv.commands.local import sub
from balsadb.kv.commands.numbers import integer
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.limits import (
    NAME_BYTES_MAX,
    SEQUENCE_MAX,
    SESSION_NONCE_BYTES_MAX,
    SESSION_TTL_MS_MAX,
    SESSION_TTL_MS_MIN,
)
from balsadb.kv.refusals import (
    BAD_NONCE,
    BAD_SEQUENCE,
    BAD_TTL,
    EXEC_WITHOUT_MULTI,
    NOT_ONCE,
    OVER_BUDGET,
    unknown_subcommand,
    wrong_arity,
)
from balsadb.kv.reply import OK, Refusal, Reply, Status
from balsadb.kv.sessions import Session

_ENCODE: Final = msgspec.msgpack.Encoder().encode


class Attempt:
    """One arrival of a command that is to run once."""

    __slots__ = ("_checksum", "_sequence", "_session")

    def __init__(self) -> None:
        self._session: Session | None = None
        self._sequence = 0
        self._checksum = b""

    def begin(self, space: Keyspace, header: list[bytes], words: Sequence[object]) -> Reply:
        """Look the sequence number up. Unless the command is then `admitted` to run, this is its answer.

        `header` is ONCE, id, sequence, ack and more, `words` everything that makes the command what it is.
        """
        sequence, ack = integer(header[2]), integer(header[3])
        if sequence is None or ack is None:
            return BAD_SEQUENCE
        if not (1 <= sequence <= SEQUENCE_MAX and 1 <= ack <= SEQUENCE_MAX):
            return BAD_SEQUENCE
        self._sequence = sequence
        self._checksum = hashlib.blake2b(_ENCODE(words), digest_size=8).digest()
        self._session, reply = space.sessions.attempt(
            header[1], sequence, ack, self._checksum, (space.index, space.position)
        )
        return reply

    @property
    def admitted(self) -> bool:
        """Tell whether the command is to run now."""
        return self._session is not None

    def end(self, space: Keyspace, reply: Reply) -> Reply:
        """Note that the command ran, and return its reply.

        A command for which its entry had no room left did not run: the number stays free for the next try.
        """
        assert self._session is not None
        if reply is not OVER_BUDGET:
            space.spent += space.sessions.note(self._session, self._sequence, self._checksum, reply)
        return reply


def once(space: Keyspace, argv: list[bytes]) -> Reply:
    """ONCE id sequence ack command [argument ...]."""
    command = argv[4:]
    if command[0][:4].upper() == EXEC and len(command[0]) == len(EXEC):
        return EXEC_WITHOUT_MULTI  # the front makes another thing of it where there is a MULTI
    attempt = Attempt()
    reply = attempt.begin(space, argv, command)
    return attempt.end(space, space.inside(space, command, NOT_ONCE)) if attempt.admitted else reply


def session(space: Keyspace, argv: list[bytes]) -> Reply:
    """SESSION OPEN nonce ttl-ms | KEEPALIVE id | CLOSE id | INFO id | HELP."""
    name = argv[1].upper() if len(argv[1]) <= NAME_BYTES_MAX else b""
    found = _SUBCOMMANDS.get(name)
    if found is None:
        return unknown_subcommand(b"SESSION", argv[1])
    if len(argv) != found.arity:
        return wrong_arity(b"session|" + name)
    sessions, revision = space.sessions, (space.index, space.position)
    match name:
        case b"OPEN":
            return _open(space, argv)
        case b"KEEPALIVE":
            refusal = sessions.keep_alive(argv[2], revision)
            return OK if refusal is None else refusal
        case b"CLOSE":
            sessions.close(argv[2])
            return OK
        case b"INFO":
            return sessions.describe(argv[2])
    lines = [b"SESSION <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for subcommand in SESSION:
        lines += [subcommand.name, b"    %b." % subcommand.summary]
    return [Status(line) for line in lines]


def _open(space: Keyspace, argv: list[bytes]) -> Reply:
    nonce, ttl_ms = argv[2], integer(argv[3])
    if not 1 <= len(nonce) <= SESSION_NONCE_BYTES_MAX:
        return BAD_NONCE
    if ttl_ms is None or not SESSION_TTL_MS_MIN <= ttl_ms <= SESSION_TTL_MS_MAX:
        return BAD_TTL
    reply = space.sessions.open(nonce, ttl_ms, (space.index, space.position))
    if not isinstance(reply, Refusal):
        space.spent += len(reply)
    return reply


_FAST: Final = b"noscript fast"

SESSION: Final = (
    sub(b"CLOSE", 3, _FAST, b"End a session; its sequence numbers never run again", b"fast"),
    sub(b"HELP", 2, b"loading stale", b"Print the subcommands"),
    sub(b"INFO", 3, _FAST, b"Return time left, floor and kept replies of a session", b"fast"),
    sub(b"KEEPALIVE", 3, _FAST, b"Let a session live for another ttl", b"fast"),
    sub(b"OPEN", 4, _FAST, b"Return the id of a new session, or of the living one with this nonce", b"fast"),
)
_SUBCOMMANDS: Final = {subcommand.name: subcommand for subcommand in SESSION}


def _command(
    name: bytes,
    arity: int,
    summary: bytes,
    syntax: bytes,
    handler: Handler,
    subcommands: tuple[Subcommand, ...] = (),
) -> Command:
    return Command(
        name=name,
        arity=arity,
        flags=(b"write", b"noscript", b"fast", b"no_multi"),
        first_key=0,
        last_key=0,
        step=0,
        kind=Kind.WRITE,
        handler=handler,
        summary=summary,
        group=b"sessions",
        since=b"0.1.0",
        categories=(b"write", b"fast"),
        syntax=syntax,
        subcommands=subcommands,
    )


COMMANDS: Final = (
    _command(
        b"ONCE",
        -5,
        b"Run a command exactly once in a session, however often it is sent",
        b"id sequence ack command [argument ...]",
        once,
    ),
    _command(
        b"SESSION",
        -2,
        b"Open, keep and close sessions, in which ONCE runs commands",
        b"subcommand [argument ...]",
        session,
        SESSION,
    ),
)
