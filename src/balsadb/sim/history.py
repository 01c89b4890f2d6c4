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
    """The value of a PUT, or what an APPEND adds; of a DELETE at most a name for it."""
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


def step(value: bytes | None, operation: Operation) -> tuple[bool, bytes | None]:
    """Let an operation happen on `value`. Returns whether its answer fits, and the new value."""
    known = operation.returned is not None
    match operation.action:
        case Action.GET:
            return (not known or operation.result == value), value
        case Action.PUT:
            return True, operation.argument
        case Action.APPEND:
            new = (value or b"") + operation.argument
            return (not known or operation.result == len(new)), new
        case Action.DELETE:
            return (not known or operation.result == (value is not None)), None


def certain(operations: list[Operation]) -> int:
    """Count the operations whose outcome is known."""
    return sum(1 for operation in operations if operation.returned is not None)
