"""Strings: set, read, append."""

from __future__ import annotations

from typing import Final

from balsadb.kv.command import Command, Kind
from balsadb.kv.commands.options import parse_options
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.limits import REPLY_BYTES_MAX, VALUE_BYTES_MAX
from balsadb.kv.refusals import REPLY_TOO_LONG, VALUE_TOO_LONG, wrong_arity
from balsadb.kv.reply import OK, Refusal, Reply


def set_(space: Keyspace, argv: list[bytes]) -> Reply:
    """SET key value, and whatever options."""
    if len(argv) == 3:
        return space.write(argv[1], argv[2]) or OK
    options = parse_options(argv[3:], setting=True)
    if isinstance(options, Refusal):
        return options
    deadline = options.deadline(space, b"set")
    if isinstance(deadline, Refusal):
        return deadline
    key = argv[1]
    former = space.get(key)
    old = None if former is None else former[0]
    if (
        (options.absent and former is not None)
        or (options.present and former is None)
        or (options.equal is not None and old != options.equal)
    ):
        return old if options.old else None
    if options.keep:
        refusal = space.update(key, argv[2], former)
    else:
        refusal = space.replace(key, argv[2], deadline, former)
    if refusal is not None:
        return refusal
    return old if options.old else OK


def setnx(space: Keyspace, argv: list[bytes]) -> Reply:
    """SETNX key value."""
    if space.get(argv[1]) is not None:
        return 0
    refusal = space.write(argv[1], argv[2])
    return 1 if refusal is None else refusal


def getset(space: Keyspace, argv: list[bytes]) -> Reply:
    """GETSET key value."""
    former = space.get(argv[1])
    refusal = space.replace(argv[1], argv[2], 0, former)
    if refusal is not None:
        return refusal
    return None if former is None else former[0]


def getdel(space: Keyspace, argv: list[bytes]) -> Reply:
    """GETDEL key."""
    record = space.get(argv[1])
    if record is None:
        return None
    refusal = space.remove_all({argv[1]: record})
    return record[0] if refusal is None else refusal


def get(space: Keyspace, argv: list[bytes]) -> Reply:
    """GET key."""
    record = space.get(argv[1])
    return None if record is None else record[0]


def append(space: Keyspace, argv: list[bytes]) -> Reply:
    """APPEND key value."""
    former = space.get(argv[1])
    if former is not None and len(former[0]) + len(argv[2]) > VALUE_BYTES_MAX:
        return VALUE_TOO_LONG  # before megabytes are copied, which nothing would count
    value = argv[2] if former is None else former[0] + argv[2]
    return space.update(argv[1], value, former) or len(value)


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


def msetnx(space: Keyspace, argv: list[bytes]) -> Reply:
    """MSETNX key value [key value ...]."""
    if len(argv) % 2 == 0:
        return wrong_arity(b"msetnx")
    if any(space.get(key) is not None for key in argv[1::2]):
        return 0
    refusal = space.write_all(dict(zip(argv[1::2], argv[2::2], strict=True)))
    return 1 if refusal is None else refusal


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
        summary=b"Store a value under a key; with NX only if it is absent, with XX only if present, "
        b"with IFEQ only if it has a certain value",
        group=b"string",
        since=b"1.0.0",
        categories=(b"write", b"string", b"slow"),
        key_access=(b"RW", b"access", b"update", b"variable_flags"),
        key_notes=b"Reads the old value only with GET",
        syntax=b"key value [NX | XX | IFEQ value] [GET] "
        b"[EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds | KEEPTTL]",
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
    Command(
        name=b"MSETNX",
        arity=-3,
        flags=_WRITE,
        first_key=1,
        last_key=-1,
        step=2,
        kind=Kind.WRITE,
        handler=msetnx,
        summary=b"Store several values if none of the keys is present; return 1 if it did",
        group=b"string",
        since=b"1.0.1",
        categories=(b"write", b"string", b"slow"),
        key_access=(b"OW", b"insert"),
        syntax=b"key value [key value ...]",
        tips=(b"request_policy:multi_shard", b"response_policy:agg_min"),
    ),
    Command(
        name=b"SETNX",
        arity=3,
        flags=_FAST_WRITE,
        first_key=1,
        last_key=1,
        step=1,
        kind=Kind.WRITE,
        handler=setnx,
        summary=b"Store a value if the key is absent; return 1 if it did",
        group=b"string",
        since=b"1.0.0",
        categories=(b"write", b"string", b"fast"),
        key_access=(b"OW", b"insert"),
        syntax=b"key value",
    ),
    Command(
        name=b"GETSET",
        arity=3,
        flags=_FAST_WRITE,
        first_key=1,
        last_key=1,
        step=1,
        kind=Kind.WRITE,
        handler=getset,
        summary=b"Store a value and return the old one",
        group=b"string",
        since=b"1.0.0",
        categories=(b"write", b"string", b"fast"),
        key_access=(b"RW", b"access", b"update"),
        syntax=b"key value",
    ),
    Command(
        name=b"GETDEL",
        arity=2,
        flags=(b"write", b"fast"),
        first_key=1,
        last_key=1,
        step=1,
        kind=Kind.WRITE,
        handler=getdel,
        summary=b"Remove a key and return its value",
        group=b"string",
        since=b"6.2.0",
        categories=(b"write", b"string", b"fast"),
        key_access=(b"RW", b"access", b"delete"),
        syntax=b"key",
    ),
)
