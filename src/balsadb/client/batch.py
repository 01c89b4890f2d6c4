"""Several operations that are sent together: `clerk.pipeline()` and `clerk.transaction()`.

batch = clerk.transaction()
batch.put("a", "1")
batch.increment("n")
_, n = batch.run()                  # `await batch.run()` with the asyncio Clerk
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Self, TypeVar

from balsadb.client import operations
from balsadb.client.operations import Operation
from balsadb.client.words import Word, to_python, transaction
from balsadb.errors import CommandError

R = TypeVar("R", covariant=True)


class Batch(Generic[R]):
    """Collects operations; `run` sends them and gives their results in the same order.

    Every method adds one operation and returns the batch. What stands for a failed operation among the
    results is its exception, not raised. A batch may be run again, which does everything once more.
    """

    def __init__(self, run: Callable[[list[Operation[Any]]], R], *, atomic: bool) -> None:
        self._run = run
        self._atomic = atomic
        self._operations: list[Operation[Any]] = []

    def __len__(self) -> int:
        return len(self._operations)

    def _add(self, operation: Operation[Any]) -> Self:
        if self._atomic:
            operation = operations.in_transaction(operation)
        self._operations.append(operation)
        return self

    def put(self, key: Word, value: Word) -> Self:
        """Set a key to a value. Result: None."""
        return self._add(operations.put(key, value))

    def append(self, key: Word, value: Word) -> Self:
        """Append to a key's value. Result: the new length."""
        return self._add(operations.append(key, value))

    def get(self, key: Word) -> Self:
        """Read a value. Result: the value, or None."""
        return self._add(operations.get(key))

    def delete(self, *keys: Word) -> Self:
        """Delete keys. Result: how many of them there were."""
        return self._add(operations.delete(*keys))

    def exists(self, *keys: Word) -> Self:
        """Count the keys that exist. Result: how many."""
        return self._add(operations.exists(*keys))

    def increment(self, key: Word, by: int = 1) -> Self:
        """Add to a number. Result: the new number."""
        return self._add(operations.increment(key, by))

    def compare_and_set(self, key: Word, old: Word | None, new: Word) -> Self:
        """Set a key if it has the old value. Result: whether it had."""
        return self._add(operations.compare_and_set(key, old, new))

    def mget(self, *keys: Word) -> Self:
        """Read several values. Result: a list."""
        return self._add(operations.mget(*keys))

    def mput(self, items: Mapping[Any, Word]) -> Self:
        """Set several keys. Result: None."""
        return self._add(operations.mput(items))

    def execute(self, *command: Word) -> Self:
        """Run any command. Result: its answer."""
        return self._add(operations.execute(*command))

    def run(self) -> R:
        """Send everything; an empty batch gives an empty list at once."""
        return self._run(self._operations.copy())


def as_transaction(parts: list[Operation[Any]]) -> Operation[list[Any]]:
    """Return the operation that runs all of these in one log entry, in a session."""

    def read(reply: Any) -> list[Any]:
        answers = to_python(reply)
        return [
            answer if isinstance(answer, CommandError) else part.read(answer)
            for part, answer in zip(parts, answers, strict=True)
        ]

    return Operation(transaction([part.command for part in parts]), read)
