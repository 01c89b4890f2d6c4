"""Strings: set, read, append."""

from __future__ import annotations

from typing import Final

from balsadb.kv.command import Command, Kind
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.limits import REPLY_BYTES_MAX
from balsadb.kv.refusals import REPLY_TOO_LONG, SYNTAX_ERROR, wrong_arity
from balsadb.kv.reply import OK, Reply

_ONLY_IF_ABSENT: Final = 1
_ONLY_IF_PRESENT: Final = 2
_WITH_OLD_VALUE: Final = 4
_OPTIONS: Final = {b"NX": _ONLY_IF_ABSENT, b"XX": _ONLY_IF_PRESENT, b"GET": _WITH_OLD_VALUE}
_OPTION_BYTES_MAX: Final = 8


def set_(space: Keyspace, argv: list[bytes]) -> Reply:
    """SET key value [NX | XX] [GET]."""
    if len(argv) == 3:
        return space.write(argv[1], argv[2]) or OK
    chosen = 0
    for word in argv[3:]:
        option = _OPTIONS.get(word[:_OPTION_BYTES_MAX].upper())
        if option is None:
            return SYNTAX_ERROR
        chosen |= option
    if chosen & _ONLY_IF_ABSENT and chosen & _ONLY_IF_PRESENT:
        return SYNTAX_ERROR
    old = space.value(argv[1])
    wrong = _ONLY_IF_ABSENT if old is not None else _ONLY_IF_PRESENT
    if chosen & wrong:
        return old if chosen & _WITH_OLD_VALUE else None
    refusal = space.write(argv[1], argv[2])
    if refusal is not None:
        return refusal
    return old if chosen & _WITH_OLD_VALUE else OK


def get(space: Keyspace, argv: list[bytes]) -> Reply:
    """GET key."""
    record = space.get(argv[1])
    return None if record is None else record[0]


def append(space: Keyspace, argv: list[bytes]) -> Reply:
    """APPEND key value."""
    value = (space.value(argv[1]) or b"") + argv[2]
    return space.write(argv[1], value) or len(value)


def strlen(space: Keyspace, argv: list[bytes]) -> Reply:
    """STRLEN key."""
    return len(space.value(argv[1]) or b"")


def mget(space: Keyspace, argv: list[bytes]) -> Reply:
    """MGET key [key ...]."""
    values: list[Reply] = []
    size = 0
    for key in argv[1:]:
        value = space.value(key)
        values.append(value)
        if value is not None:
            size += len(value)
    # One key may stand here thousands of times, so a short command could ask for gigabytes.
    return values if size <= REPLY_BYTES_MAX else REPLY_TOO_LONG


def mset(space: Keyspace, argv: list[bytes]) -> Reply:
    """MSET key value [key value ...]."""
    if len(argv) % 2 == 0:
        return wrong_arity(b"mset")
    return space.write_all(dict(zip(argv[1::2], argv[2::2], strict=True))) or OK


_WRITE: Final = (b"write", b"denyoom")
_FAST_WRITE: Final = (b"write", b"denyoom", b"fast")
_READ: Final = (b"readonly", b"fast")

COMMANDS: Final = (
    Command(
        name=b"SET",
        arity=-3,
        flags=_WRITE,
        first_key=1,
        last_key=1,
        step=1,
        kind=Kind.WRITE,
        handler=set_,
        summary=b"Store a value under a key; with NX only if the key is absent, with XX only if present",
        group=b"string",
        since=b"1.0.0",
        categories=(b"write", b"string", b"slow"),
        key_access=(b"RW", b"access", b"update", b"variable_flags"),
        key_notes=b"Reads the old value only with GET",
        syntax=b"key value [NX | XX] [GET]",
    ),
    Command(
        name=b"GET",
        arity=2,
        flags=_READ,
        first_key=1,
        last_key=1,
        step=1,
        kind=Kind.READ,
        handler=get,
        summary=b"Return the value of a key, or nil when there is none",
        group=b"string",
        since=b"1.0.0",
        categories=(b"read", b"string", b"fast"),
        key_access=(b"RO", b"access"),
        syntax=b"key",
    ),
    Command(
        name=b"APPEND",
        arity=3,
        flags=_FAST_WRITE,
        first_key=1,
        last_key=1,
        step=1,
        kind=Kind.WRITE,
        handler=append,
        summary=b"Add to the end of a key's value, which is empty when absent, and return the new length",
        group=b"string",
        since=b"2.0.0",
        categories=(b"write", b"string", b"fast"),
        key_access=(b"RW", b"insert"),
        syntax=b"key value",
    ),
    Command(
        name=b"STRLEN",
        arity=2,
        flags=_READ,
        first_key=1,
        last_key=1,
        step=1,
        kind=Kind.READ,
        handler=strlen,
        summary=b"Return how many bytes a key's value has; 0 when there is none",
        group=b"string",
        since=b"2.2.0",
        categories=(b"read", b"string", b"fast"),
        key_access=(b"RO",),
        syntax=b"key",
    ),
    Command(
        name=b"MGET",
        arity=-2,
        flags=_READ,
        first_key=1,
        last_key=-1,
        step=1,
        kind=Kind.READ,
        handler=mget,
        summary=b"Return the values of several keys, nil for each one absent",
        group=b"string",
        since=b"1.0.0",
        categories=(b"read", b"string", b"fast"),
        key_access=(b"RO", b"access"),
        syntax=b"key [key ...]",
    ),
    Command(
        name=b"MSET",
        arity=-3,
        flags=_WRITE,
        first_key=1,
        last_key=-1,
        step=2,
        kind=Kind.WRITE,
        handler=mset,
        summary=b"Store several values under their keys, all at once",
        group=b"string",
        since=b"1.0.1",
        categories=(b"write", b"string", b"slow"),
        key_access=(b"OW", b"update"),
        syntax=b"key value [key value ...]",
    ),
)
