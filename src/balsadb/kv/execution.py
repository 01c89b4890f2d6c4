"""Running argument vectors against a keyspace: one, a batch with its local slots, a transaction.

Everything here is total: whatever a payload of a known version holds, each command of it gets a reply, and a
command that can't run changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from balsadb.kv.batch import EXEC, ONCE_EXEC
from balsadb.kv.command import Command, Handler, Kind
from balsadb.kv.commands.numbers import integer
from balsadb.kv.commands.sessions import Attempt
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.limits import CHANGE_BYTES_MAX, REPLY_BYTES_MAX
from balsadb.kv.refusals import (
    BAD_TRANSACTION,
    NOT_A_READ,
    NOT_IN_TRANSACTION,
    NOT_LOGGED,
    OVER_BUDGET,
    REPLY_TOO_LONG,
    TRANSACTION_TOO_LARGE,
    unknown_command,
    wrong_arity,
)
from balsadb.kv.reply import NullArray, Refusal, Reply
from balsadb.kv.store import OverlayStore
from balsadb.kv.table import COMMANDS, lookup

_Runner: TypeAlias = tuple[Handler, int, int]
"""A handler with the least and the greatest number of words that it takes."""

_ANY_COUNT: Final = 2**62
_HEADERS: Final = {EXEC: 2, ONCE_EXEC: 5}
"""How many words the header of a transaction has, without the keys that are watched."""
_EXHAUSTED: Final = CHANGE_BYTES_MAX + 1
"""Value of `Keyspace.spent` from the first command on that found the entry's budget used up."""


def _runners(*kinds: Kind, unlogged: bool) -> dict[bytes, _Runner]:
    """Return the ways to run commands, by their names in upper and in lower case.

    With `unlogged` those that must not be in the log are among them.
    """
    found: dict[bytes, _Runner] = {}
    for command in COMMANDS.values():
        if command.kind in kinds and command.handler is not None and (unlogged or not command.unlogged):
            most = command.arity if command.arity > 0 else _ANY_COUNT
            runner = (command.handler, abs(command.arity), most)
            found[command.name] = found[command.name.lower()] = runner
    return found


def _flags(name: bytes) -> tuple[bytes, ...]:
    command = lookup(name)
    return () if command is None else command.flags


LOGGED: Final = _runners(Kind.READ, Kind.WRITE, unlogged=False)
"""What may run from the log."""
READS: Final = _runners(Kind.READ, unlogged=True)
"""What may run between entries."""
_INSIDE: Final = {name: runner for name, runner in LOGGED.items() if b"no_multi" not in _flags(name)}
"""What may run in a transaction and in a ONCE."""


def run_batch(
    space: Keyspace, commands: Sequence[list[bytes]], reads: Sequence[tuple[int, list[bytes]]]
) -> list[Reply]:
    """Run the commands of one entry, and between them the reads that ride along (rule P6).

    Each transaction gives one reply. A read stands before the command whose position it names, or after the
    transaction that this command is a part of.
    """
    space.spent = 0
    replies: list[Reply] = []
    position = 0
    for slot, argv in reads:
        position = _run(space, commands, position, min(slot, len(commands)), replies)
        replies.append(run_read(space, argv))
    _run(space, commands, position, len(commands), replies)
    return replies


def _run(
    space: Keyspace, commands: Sequence[list[bytes]], position: int, stop: int, replies: list[Reply]
) -> int:
    """Run the commands from `position` to before `stop`; return where to go on."""
    find = LOGGED.get
    while position < stop:
        argv = commands[position]
        runner = find(argv[0]) if argv else None
        if runner is not None and runner[1] <= len(argv) <= runner[2] and space.spent <= CHANGE_BYTES_MAX:
            space.position = position
            reply = runner[0](space, argv)
            if reply is OVER_BUDGET:
                # What follows must not overtake a refused command, so it is refused too (rule S5).
                space.spent = _EXHAUSTED
        elif argv and argv[0] in _HEADERS:
            count = _count(argv, len(commands) - position - 1)
            run = _run_transaction if argv[0] == EXEC else _run_transaction_once
            reply = run(space, commands, position, count)
            position += len(commands) if count is None else count
        elif space.spent > CHANGE_BYTES_MAX:
            reply = OVER_BUDGET
        else:
            reply = _run_oddly_written(space, argv, position)
        if type(reply) is bytes or type(reply) is list:
            # rule S5: a few bytes of log can ask for gigabytes of replies, on every replica.
            space.spent += _size(reply)
        replies.append(reply)
        position += 1
    return position


def _run_oddly_written(space: Keyspace, argv: list[bytes], position: int) -> Reply:
    """Run a command whose name is in mixed case, or refuse one that does not fit the table."""
    command = _fitting(argv)
    if isinstance(command, Refusal):
        return command
    if command.handler is None or command.unlogged:
        return NOT_LOGGED
    space.position = position
    reply = command.handler(space, argv)
    if reply is OVER_BUDGET:
        space.spent = _EXHAUSTED
    return reply


def _fitting(argv: list[bytes]) -> Command | Refusal:
    """Return the command of an argument vector, or the refusal when there is none or its arity is wrong."""
    command = lookup(argv[0]) if argv else None
    if command is None:
        return unknown_command(argv)
    return command if command.check_arity(len(argv)) else wrong_arity(command.name)


# ---------------------------------------------------------------- transactions


def _count(header: list[bytes], available: int) -> int | None:
    """Return how many commands a transaction's header announces, or None for nonsense.

    Behind the count stand the keys that the client watches, each with its version when it did (rule S7).
    """
    words = _HEADERS[header[0]]
    fits = len(header) >= words and (len(header) - words) % 2 == 0
    count = integer(header[words - 1]) if fits else None
    return count if count is not None and 0 <= count <= available else None


def _run_transaction(
    space: Keyspace, commands: Sequence[list[bytes]], position: int, count: int | None
) -> Reply:
    """Run the transaction whose header is at `position`. All its changes are made, or none.

    As in Redis, a command that fails does not stop the others. Refused as a whole, without any change, is one
    that is malformed, whose answer would be too long, or that the entry has no room for (rule S5).
    """
    if count is None:
        return BAD_TRANSACTION  # together with everything behind it: nobody knows what belongs to it
    if space.spent > CHANGE_BYTES_MAX:
        return OVER_BUDGET
    watched = commands[position][_HEADERS[commands[position][0]] :]
    if any(space.version(key) != version for key, version in zip(watched[::2], watched[1::2], strict=True)):
        return NullArray()
    changes = OverlayStore(space.records)
    inner = space.within(changes)
    replies: list[Reply] = []
    size = 0
    for inner.position in range(position + 1, position + 1 + count):
        reply = run_inside(inner, commands[inner.position], NOT_IN_TRANSACTION)
        if reply is OVER_BUDGET:
            space.spent = _EXHAUSTED  # the work was done, though in vain
            return TRANSACTION_TOO_LARGE
        size += _size(reply)
        if size > REPLY_BYTES_MAX:
            space.spent += inner.spent
            return REPLY_TOO_LONG
        replies.append(reply)
    space.spent += inner.spent
    if space.spent > CHANGE_BYTES_MAX:
        return OVER_BUDGET
    changes.merge()
    return replies


def _run_transaction_once(
    space: Keyspace, commands: Sequence[list[bytes]], position: int, count: int | None
) -> Reply:
    """Run the transaction whose header is at `position` exactly once in its session (rule S2)."""
    if count is None:
        return BAD_TRANSACTION
    if space.spent > CHANGE_BYTES_MAX:
        return OVER_BUDGET
    space.position = position
    attempt = Attempt()
    reply = attempt.begin(space, commands[position], commands[position + 1 : position + 1 + count])
    if not attempt.admitted:
        return reply
    return attempt.end(space, _run_transaction(space, commands, position, count))


def run_inside(space: Keyspace, argv: list[bytes], refusal: Refusal) -> Reply:
    """Run one command of a transaction or of a ONCE, or refuse what must not stand there."""
    runner = _INSIDE.get(argv[0]) if argv else None
    if runner is not None and runner[1] <= len(argv) <= runner[2]:
        return runner[0](space, argv)
    command = _fitting(argv)
    if isinstance(command, Refusal):
        return command
    # What one node alone knows must not get into the log (rule S4), and nothing nests.
    if command.handler is None or b"no_multi" in command.flags or command.unlogged:
        return refusal
    return command.handler(space, argv)


def _size(reply: Reply) -> int:
    """Return about how many bytes of values a command's reply has."""
    if isinstance(reply, bytes):
        return len(reply)
    return sum(len(item) for item in reply if isinstance(item, bytes)) if isinstance(reply, list) else 0


# ----------------------------------------------------------------------- reads


def run_read(space: Keyspace, argv: list[bytes]) -> Reply:
    """Run one command that changes nothing."""
    runner = READS.get(argv[0]) if argv else None
    if runner is not None and runner[1] <= len(argv) <= runner[2]:
        return runner[0](space, argv)
    command = _fitting(argv)
    if isinstance(command, Refusal):
        return command
    if command.kind is not Kind.READ or command.handler is None:
        return NOT_A_READ
    return command.handler(space, argv)


def run_read_transaction(space: Keyspace, commands: Sequence[list[bytes]]) -> Reply:
    """Run a transaction that changes nothing."""
    replies: list[Reply] = []
    size = 0
    for argv in commands:
        command = lookup(argv[0]) if argv else None
        refused = command is not None and (command.unlogged or b"no_multi" in command.flags)
        reply = NOT_IN_TRANSACTION if refused else run_read(space, argv)
        size += _size(reply)
        if size > REPLY_BYTES_MAX:
            return REPLY_TOO_LONG
        replies.append(reply)
    return replies
