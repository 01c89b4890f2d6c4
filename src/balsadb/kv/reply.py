"""Reply values: what a command answers, before RESP2 or RESP3 gives it a form.

Replies are kept as values because the two protocols write them differently (rule S4). Bytes, integers,
floats, booleans, None and lists stand for themselves; the types here are the rest.
"""

from __future__ import annotations

from typing import Final, TypeAlias

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
