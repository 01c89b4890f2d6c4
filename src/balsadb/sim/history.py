"""What clients did and what they saw, as the checkers judge it."""

from __future__ import annotations

from enum import Enum

import msgspec


class Action(Enum):
    """What an operation does to its key."""

    GET = "get"
    """Result: the value, or None when the key is absent."""
    PUT = "put"
    """Replaces the value. Result: None."""
    APPEND = "append"
    """Appends to the value, an absent key counting as empty. Result: the new length."""
    DELETE = "delete"
    """Removes the key. Result: True when it was there."""


class Operation(msgspec.Struct, frozen=True):
    """One operation of one client on one key."""

    client: int
    action: Action
    key: bytes
    argument: bytes = b""
    """The value of a PUT, or what an APPEND adds."""
    result: bytes | int | bool | None = None
    """What the client was answered; meaningless while `returned` is None."""
    called: float = 0.0
    """When the client sent it. Any unit, the same for all."""
    returned: float | None = None
    """When the answer arrived; None: no answer, so it may have happened at any time after, or never."""

    def __str__(self) -> str:
        words = " ".join((self.action.value, *([repr(self.argument)] if self.argument else [])))
        if self.returned is None:
            return f"[{self.called:.6f} ..         ?] client {self.client}: {words} -> no answer"
        return f"[{self.called:.6f} .. {self.returned:.6f}] client {self.client}: {words} -> {self.result!r}"


def certain(operations: list[Operation]) -> int:
    """Count the operations whose outcome is known."""
    return sum(1 for operation in operations if operation.returned is not None)
