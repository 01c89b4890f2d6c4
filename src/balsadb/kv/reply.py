"""Reply values: what a command answers, before RESP2 or RESP3 gives it a form.

Replies are kept as values because the two protocols write them differently (rule S4). Bytes, integers,
floats, booleans, None and lists stand for themselves; the types here are the rest.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec


class Status(msgspec.Struct, frozen=True, gc=False):
    """A simple string, such as OK."""

    text: bytes
    """One line, without its end."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A deterministic error reply: the command changed nothing."""

    text: bytes
    """One line whose first word is the error's code, such as `ERR syntax error`."""


class NullArray(msgspec.Struct, frozen=True, gc=False):
    """The absent array. RESP2 tells it from the absent string, which is None; RESP3 does not."""


class Mapping(msgspec.Struct, frozen=True):
    """Keys with values, in the order in which they are sent. RESP2 writes a flat array."""

    pairs: list[tuple[Reply, Reply]]


Reply: TypeAlias = bytes | int | float | bool | Status | Refusal | Mapping | NullArray | list["Reply"] | None
"""Any reply. Never changed once it was handed out."""

OK: Final = Status(b"OK")
QUEUED: Final = Status(b"QUEUED")


# -------------------------------------------------------------- replies that are kept

_LIST, _STATUS, _REFUSAL, _NULL_ARRAY, _MAPPING = range(5)
_ITEM_BYTES: Final = 16


def reply_bytes(reply: Reply) -> int:
    """Return what a reply counts for. All replicas must agree on it, so it follows from the value alone."""
    match reply:
        case bytes():
            return _ITEM_BYTES + len(reply)
        case Status() | Refusal():
            return _ITEM_BYTES + len(reply.text)
        case list():
            return _ITEM_BYTES + sum(map(reply_bytes, reply))
        case Mapping():
            return _ITEM_BYTES + sum(reply_bytes(key) + reply_bytes(value) for key, value in reply.pairs)
        case _:
            return _ITEM_BYTES


def encode_reply(reply: Reply) -> Any:
    """Return a reply as msgpack can write it: itself, or a list that begins with what it is."""
    match reply:
        case Status():
            return [_STATUS, reply.text]
        case Refusal():
            return [_REFUSAL, reply.text]
        case list():
            return [_LIST, *map(encode_reply, reply)]
        case NullArray():
            return [_NULL_ARRAY]
        case Mapping():
            return [_MAPPING, *(encode_reply(item) for pair in reply.pairs for item in pair)]
        case _:
            return reply


def decode_reply(data: Any) -> Reply:
    """Return the reply of `encode_reply`. Raises ValueError, TypeError or IndexError for anything else."""
    if not isinstance(data, list):
        if data is None or isinstance(data, bytes | int | float):
            return data
        raise ValueError(f"{data!r} is no reply")
    match data[0]:
        case 0:
            return [decode_reply(item) for item in data[1:]]
        case 1:
            return Status(data[1])
        case 2:
            return Refusal(data[1])
        case 3:
            return NullArray()
        case 4:
            items = [decode_reply(item) for item in data[1:]]
            return Mapping(list(zip(items[::2], items[1::2], strict=True)))
    raise ValueError(f"{data[0]!r} is no kind of reply")
