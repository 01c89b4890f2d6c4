"""What the methods of both fronts mean: for each, the command to send and the way to read its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from balsadb.client.call import Command, Kind
from balsadb.client.words import Word, classify, command, to_python
from balsadb.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One operation, ready to be sent."""

    command: Command
    read: Callable[[Any], T]
    """Turns the answer into what the caller gets."""
    says_nothing: bool = False
    """True: to have happened is all there is to say, so that a lost answer is none the worse."""


def _nothing(_: Any) -> None:
    return None


def _as_int(reply: Any) -> int:
    return cast(int, reply)


def _as_value(reply: Any) -> bytes | None:
    return cast("bytes | None", reply)


def _is_something(reply: Any) -> bool:
    return reply is not None


def put(key: Word, value: Word) -> Operation[None]:
    """Set a key to a value."""
    return Operation(command(Kind.ONCE, b"SET", key, value), _nothing, says_nothing=True)


def append(key: Word, value: Word) -> Operation[int]:
    """Append to a value."""
    return Operation(command(Kind.ONCE, b"APPEND", key, value), _as_int)


def get(key: Word) -> Operation[bytes | None]:
    """Read a value."""
    return Operation(command(Kind.READ, b"GET", key), _as_value)


def delete(*keys: Word) -> Operation[int]:
    """Delete keys."""
    return Operation(command(Kind.ONCE, b"DEL", *keys), _as_int)


def exists(*keys: Word) -> Operation[int]:
    """Count the keys that exist."""
    return Operation(command(Kind.READ, b"EXISTS", *keys), _as_int)


def increment(key: Word, by: int = 1) -> Operation[int]:
    """Add to a number."""
    return Operation(command(Kind.ONCE, b"INCRBY", key, by), _as_int)


def compare_and_set(key: Word, old: Word | None, new: Word) -> Operation[bool]:
    """Set a key if it has a certain value; `None` for the old value means that there must be no such key."""
    words = (b"SET", key, new, b"NX") if old is None else (b"SET", key, new, b"IFEQ", old)
    return Operation(command(Kind.ONCE, *words), _is_something)


def mget(*keys: Word) -> Operation[list[bytes | None]]:
    """Read several values."""
    return Operation(command(Kind.READ, b"MGET", *keys), list)


def mput(items: Mapping[Any, Word]) -> Operation[None]:
    """Set several keys."""
    words = [word for item in items.items() for word in item]
    return Operation(command(Kind.ONCE, b"MSET", *words), _nothing, says_nothing=True)


def scan(cursor: bytes, match: Word | None, count: int) -> Operation[tuple[bytes, list[bytes]]]:
    """Read one part of all keys: where to go on, and keys."""
    pattern = () if match is None else (b"MATCH", match)
    return Operation(command(Kind.READ, b"SCAN", cursor, *pattern, b"COUNT", count), _read_scan)


def _read_scan(reply: Any) -> tuple[bytes, list[bytes]]:
    cursor, keys = reply
    return cursor, keys


def execute(*words: Word) -> Operation[Any]:
    """Any command that does not change the state of a connection."""
    return Operation(command(classify(words), *words), to_python)


def in_transaction(operation: Operation[Any]) -> Operation[Any]:
    """Check that an operation may be part of a transaction."""
    if operation.command.kind is Kind.PLAIN or operation.command.led:
        raise UsageError("this command can't be part of a transaction")
    return operation
