"""Keys whatever they hold: delete, look for, count."""

from __future__ import annotations

from typing import Final

from balsadb.kv.command import Command, Kind
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.reply import Reply


def delete(space: Keyspace, argv: list[bytes]) -> Reply:
    """DEL key [key ...]."""
    present = [key for key in dict.fromkeys(argv[1:]) if space.get(key) is not None]
    refusal = space.remove_all(present)
    return len(present) if refusal is None else refusal


def exists(space: Keyspace, argv: list[bytes]) -> Reply:
    """EXISTS key [key ...]. A key named twice counts twice."""
    return sum(space.get(key) is not None for key in argv[1:])


def dbsize(space: Keyspace, argv: list[bytes]) -> Reply:
    """DBSIZE."""
    return len(space)


COMMANDS: Final = (
    Command(
        name=b"DEL",
        arity=-2,
        flags=(b"write",),
        first_key=1,
        last_key=-1,
        step=1,
        kind=Kind.WRITE,
        handler=delete,
        summary=b"Remove keys and return how many of them were present",
        group=b"generic",
        since=b"1.0.0",
        categories=(b"keyspace", b"write", b"slow"),
        key_access=(b"RM", b"delete"),
        syntax=b"key [key ...]",
    ),
    Command(
        name=b"EXISTS",
        arity=-2,
        flags=(b"readonly", b"fast"),
        first_key=1,
        last_key=-1,
        step=1,
        kind=Kind.READ,
        handler=exists,
        summary=b"Return how many of the keys are present",
        group=b"generic",
        since=b"1.0.0",
        categories=(b"keyspace", b"read", b"fast"),
        key_access=(b"RO",),
        syntax=b"key [key ...]",
    ),
    Command(
        name=b"DBSIZE",
        arity=1,
        flags=(b"readonly", b"fast"),
        first_key=0,
        last_key=0,
        step=0,
        kind=Kind.READ,
        handler=dbsize,
        summary=b"Return the number of keys",
        group=b"server",
        since=b"1.0.0",
        categories=(b"keyspace", b"read", b"fast"),
    ),
)
