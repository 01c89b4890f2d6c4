"""A short history that still is no linearizable one: what a reader needs of a long one.

Operations can't be left out at will, because what is left would be wrong for another reason: a read of a
value whose append was left out proves nothing. Three changes are sound, since each only makes a history
easier to explain; so what can't be explained after them could not be before:

* to end it earlier: later calls are left out, and operations under way then have no answer;
* to leave out a read;
* to forget the answer of a write, so that it may have happened at any time after its call, or never.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from balsadb.sim.checkers.linearizability import Verdict, check_key
from balsadb.sim.history import Action, Operation

STEPS_MAX = 5_000
"""Steps of one search: a shorter history is kept only if it is quickly seen to be wrong."""


def explain(operations: Sequence[Operation]) -> list[str]:
    """Tell in as few lines as possible why the history of a key can't be explained."""
    shorter = reduce(operations)
    # A write without an answer is worth a line only if one read shows it and another does not.
    seen = [operation.result for operation in shorter if isinstance(operation.result, bytes)]
    told = [
        operation
        for operation in shorter
        if operation.returned is not None
        or 0 < sum(operation.argument in result for result in seen) < len(seen)
    ]
    return [*map(str, told), f"({len(shorter) - len(told)} writes whose answers don't matter are not shown)"]


def reduce(operations: Sequence[Operation]) -> list[Operation]:
    """Return a shorter history of one key, in the order of its calls, that can't be explained either."""
    kept: list[Operation | None] = list(shortest_prefix(operations))
    size = len(kept)
    while size:  # most of it has nothing to do with the violation, so much is tried at a time at first
        for start in range(0, len(kept), size):
            weaker = [*kept[:start], *map(_weaker, kept[start : start + size]), *kept[start + size :]]
            if weaker != kept and _is_wrong(_present(weaker)):
                kept = weaker
        size //= 2
    return _present(kept)


def _present(operations: Sequence[Operation | None]) -> list[Operation]:
    return [operation for operation in operations if operation is not None]


def _weaker(operation: Operation | None) -> Operation | None:
    return None if operation is None or operation.action is Action.GET else _without_answer(operation)


def shortest_prefix(operations: Sequence[Operation]) -> list[Operation]:
    """Return the history up to the first answer that can't be explained."""
    ends = sorted(operation.returned for operation in operations if operation.returned is not None)
    low, high = 0, len(ends)  # all from `high` on are wrong; a longer prefix of a wrong history is wrong, too
    while low < high:
        middle = (low + high) // 2
        if _is_wrong(_until(operations, ends[middle])):
            high = middle
        else:
            low = middle + 1
    return _until(operations, ends[high]) if high < len(ends) else list(operations)


def _until(operations: Sequence[Operation], end: float) -> list[Operation]:
    return [
        operation
        if operation.returned is not None and operation.returned <= end
        else _without_answer(operation)
        for operation in operations
        if operation.called <= end
    ]


def _without_answer(operation: Operation) -> Operation:
    return structs.replace(operation, result=None, returned=None)


def _is_wrong(operations: Sequence[Operation]) -> bool:
    return check_key(operations, STEPS_MAX) is Verdict.VIOLATION
