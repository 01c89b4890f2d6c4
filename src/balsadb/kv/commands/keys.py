"""Keys whatever they hold: delete, look for, count."""

from __future__ import annotations

from typing import Final

from balsadb.kv.command import Command, Handler, Kind
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.limits import CHANGE_BYTES_MAX
from balsadb.kv.refusals import NO_SUCH_KEY, OVER_BUDGET, SYNTAX_ERROR
from balsadb.kv.reply import OK, Refusal, Reply, Status
from balsadb.kv.store import deadline_of

_STRING: Final = Status(b"string")
_NONE: Final = Status(b"none")


def delete(space: Keyspace, argv: list[bytes]) -> Reply:
    """DEL key [key ...]."""
    former = {key: record for key in dict.fromkeys(argv[1:]) if (record := space.get(key)) is not None}
    refusal = space.remove_all(former)
    return len(former) if refusal is None else refusal


def exists(space: Keyspace, argv: list[bytes]) -> Reply:
    """EXISTS key [key ...]. A key named twice counts twice."""
    return sum(space.get(key) is not None for key in argv[1:])


def dbsize(space: Keyspace, argv: list[bytes]) -> Reply:
    """DBSIZE."""
    return len(space)


def type_(space: Keyspace, argv: list[bytes]) -> Reply:
    """TYPE key."""
    return _NONE if space.get(argv[1]) is None else _STRING


def rename(space: Keyspace, argv: list[bytes]) -> Reply:
    """RENAME key newkey. The key keeps its deadline."""
    refusal = _move(space, argv[1], argv[2])
    return OK if refusal is None else refusal


def renamenx(space: Keyspace, argv: list[bytes]) -> Reply:
    """RENAMENX key newkey."""
    if space.get(argv[1]) is None:
        return NO_SUCH_KEY
    if space.get(argv[2]) is not None:
        return 0
    refusal = _move(space, argv[1], argv[2])
    return 1 if refusal is None else refusal


def _move(space: Keyspace, key: bytes, to: bytes) -> Refusal | None:
    record = space.get(key)
    if record is None:
        return NO_SUCH_KEY
    if key == to:
        return None
    if space.spent + len(key) + len(to) * 2 + len(record[0]) > CHANGE_BYTES_MAX:
        return OVER_BUDGET  # before the first of two changes
    refusal = space.replace(to, record[0], deadline_of(record), space.get(to))
    return space.remove_all({key: record}) if refusal is None else refusal


def flush(space: Keyspace, argv: list[bytes]) -> Reply:
    """FLUSHALL [ASYNC | SYNC], FLUSHDB [ASYNC | SYNC]. Both options are taken and mean the same."""
    if len(argv) > 2 or (len(argv) == 2 and argv[1][:8].upper() not in (b"ASYNC", b"SYNC")):
        return SYNTAX_ERROR
    space.clear()
    return OK


def _flushing(name: bytes, summary: bytes) -> Command:
    return Command(
        name=name,
        arity=-1,
        flags=(b"write",),
        first_key=0,
        last_key=0,
        step=0,
        kind=Kind.WRITE,
        handler=flush,
        summary=summary,
        group=b"server",
        since=b"1.0.0",
        categories=(b"keyspace", b"write", b"slow", b"dangerous"),
        tips=(b"request_policy:all_shards", b"response_policy:all_succeeded"),
        syntax=b"[ASYNC | SYNC]",
    )


def _renaming(
    name: bytes, handler: Handler, flags: bytes, speed: bytes, use: bytes, summary: bytes
) -> Command:
    return Command(
        name=name,
        arity=3,
        flags=tuple(flags.split()),
        first_key=1,
        last_key=2,
        step=1,
        kind=Kind.WRITE,
        handler=handler,
        summary=summary,
        group=b"generic",
        since=b"1.0.0",
        categories=(b"keyspace", b"write", speed),
        key_access=(b"RW", b"access", b"delete"),
        last_key_access=(b"OW", use),
        syntax=b"key newkey",
    )


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
    Command(
        name=b"UNLINK",
        arity=-2,
        flags=(b"write", b"fast"),
        first_key=1,
        last_key=-1,
        step=1,
        kind=Kind.WRITE,
        handler=delete,
        summary=b"Remove keys, as DEL does",
        group=b"generic",
        since=b"4.0.0",
        categories=(b"keyspace", b"write", b"fast"),
        key_access=(b"RM", b"delete"),
        tips=(b"request_policy:multi_shard", b"response_policy:agg_sum"),
        syntax=b"key [key ...]",
    ),
    Command(
        name=b"TOUCH",
        arity=-2,
        flags=(b"readonly", b"fast"),
        first_key=1,
        last_key=-1,
        step=1,
        kind=Kind.READ,
        handler=exists,
        summary=b"Return how many of the keys are present, as EXISTS does",
        group=b"generic",
        since=b"3.2.1",
        categories=(b"keyspace", b"read", b"fast"),
        key_access=(b"RO",),
        tips=(b"request_policy:multi_shard", b"response_policy:agg_sum"),
        syntax=b"key [key ...]",
    ),
    Command(
        name=b"TYPE",
        arity=2,
        flags=(b"readonly", b"fast"),
        first_key=1,
        last_key=1,
        step=1,
        kind=Kind.READ,
        handler=type_,
        summary=b"Return string, or none when there is no key",
        group=b"generic",
        since=b"1.0.0",
        categories=(b"keyspace", b"read", b"fast"),
        key_access=(b"RO",),
        syntax=b"key",
    ),
    _renaming(
        b"RENAME",
        rename,
        b"write",
        b"slow",
        b"update",
        b"Give a key another name, whose former value is lost",
    ),
    _renaming(
        b"RENAMENX",
        renamenx,
        b"write fast",
        b"fast",
        b"insert",
        b"Give a key another name unless there is such a key",
    ),
    _flushing(b"FLUSHDB", b"Remove all keys"),
    _flushing(b"FLUSHALL", b"Remove all keys"),
)
