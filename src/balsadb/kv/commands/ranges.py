"""Parts of strings."""

from __future__ import annotations

from typing import Final

from balsadb.kv.command import Command, Handler, Kind
from balsadb.kv.commands.numbers import integer
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.limits import VALUE_BYTES_MAX
from balsadb.kv.refusals import NOT_AN_INTEGER, VALUE_TOO_LONG
from balsadb.kv.reply import Refusal, Reply

_OUT_OF_RANGE: Final = Refusal(b"ERR offset is out of range")


def getrange(space: Keyspace, argv: list[bytes]) -> Reply:
    """GETRANGE key start end. Both ends count; negative ones count from the end."""
    start, end = integer(argv[2]), integer(argv[3])
    if start is None or end is None:
        return NOT_AN_INTEGER
    value = space.value(argv[1]) or b""
    if start < 0 and end < 0 and start > end:
        return b""
    start = max(0, start + len(value) if start < 0 else start)
    end = max(0, end + len(value) if end < 0 else end)
    return value[start : end + 1]


def setrange(space: Keyspace, argv: list[bytes]) -> Reply:
    """SETRANGE key offset value. What is missing before the offset becomes zeros."""
    offset = integer(argv[2])
    if offset is None:
        return NOT_AN_INTEGER
    if offset < 0:
        return _OUT_OF_RANGE
    former = space.get(argv[1])
    value = b"" if former is None else former[0]
    piece = argv[3]
    if not piece:
        return len(value)
    if offset + len(piece) > VALUE_BYTES_MAX:  # before the memory for it is taken
        return VALUE_TOO_LONG
    value = value[:offset].ljust(offset, b"\0") + piece + value[offset + len(piece) :]
    return space.update(argv[1], value, former) or len(value)


def _reading(name: bytes, since: bytes, summary: bytes) -> Command:
    return _command(name, getrange, Kind.READ, b"readonly", b"RO access", since, summary, b"key start end")


def _command(
    name: bytes,
    handler: Handler,
    kind: Kind,
    flags: bytes,
    access: bytes,
    since: bytes,
    summary: bytes,
    syntax: bytes,
) -> Command:
    return Command(
        name=name,
        arity=4,
        flags=tuple(flags.split()),
        first_key=1,
        last_key=1,
        step=1,
        kind=kind,
        handler=handler,
        summary=summary,
        group=b"string",
        since=since,
        categories=(b"read" if kind is Kind.READ else b"write", b"string", b"slow"),
        key_access=tuple(access.split()),
        syntax=syntax,
    )


COMMANDS: Final = (
    _reading(b"GETRANGE", b"2.4.0", b"Return a part of a key's value; negative numbers count from its end"),
    _reading(b"SUBSTR", b"1.0.0", b"Old name of GETRANGE"),
    _command(
        b"SETRANGE",
        setrange,
        Kind.WRITE,
        b"write denyoom",
        b"RW update",
        b"2.2.0",
        b"Overwrite a part of a key's value and return its new length",
        b"key offset value",
    ),
)
