"""Does the order in which the servers applied the writes explain every answer?

Whoever asks for *some* order of all operations may have to try very many, above all when the outcome of many
is unknown. The servers have already chosen one: their log. So it is tried first. That trusts nobody: an order
that respects real time and explains every answer proves that the history is linearizable, wherever it came
from, and one that does not proves nothing, so that the search has to judge (see `linearizability`).

The log orders the writes. Reads are not in it. Each is put at the first place where it sees what it was
answered and no order in time is broken, by the time of their calls; a later place would only leave less room
to the reads after it, so when this fails no other choice helps.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TypeAlias

from balsadb.kv.batch import ONCE_EXEC, decode_batch
from balsadb.kv.machine import Outcome
from balsadb.kv.reply import Refusal
from balsadb.raft.types import Index
from balsadb.sim.history import Action, Operation, step

Effect: TypeAlias = tuple[bytes, bytes]
"""Key and argument of a write that was done; no two writes of a history share both."""


class AppliedOrder:
    """What the first server that applied each entry did, in the order of the log."""

    def __init__(self) -> None:
        self._applied: dict[Index, tuple[bytes, list[int], Outcome]] = {}

    def applied(self, index: Index, payload: bytes, slots: list[int], outcome: Outcome) -> None:
        """Note what became of an entry whose replies have reads before the commands at `slots`."""
        if index not in self._applied and outcome.ran:
            self._applied[index] = payload, slots, outcome

    def effects(self) -> Iterable[Effect]:
        """Return all writes in the order in which they were done, with the later copies of some."""
        for _, (payload, slots, outcome) in sorted(self._applied.items()):
            yield from _effects(payload, slots, outcome)


def _effects(payload: bytes, slots: list[int], outcome: Outcome) -> Iterable[Effect]:
    batch = decode_batch(payload)
    assert batch is not None
    replies = iter(outcome.replies)
    position = read = 0
    while position < len(batch.commands):
        while read < len(slots) and slots[read] <= position:
            next(replies)
            read += 1
        argv = batch.commands[position]
        inside = int(argv[4]) if argv[0] == ONCE_EXEC else 0
        if not isinstance(next(replies), Refusal):
            for done in batch.commands[position + 1 : position + 1 + inside] or [argv]:
                yield done[-2], done[-1]
        position += 1 + inside


def explains(operations: Sequence[Operation], order: Iterable[Effect]) -> bool:
    """Tell whether the operations on one key, in the order of their calls, can have happened in this order.

    Writes that are no operation's are passed over, and so is each but the first of several copies. False
    tells only that this order is not one: another may be.
    """
    writes = _writes(operations, order)
    if writes is None:
        return False
    states: list[bytes | None] = [None]
    for write in writes:
        fits, after = step(states[-1], write)
        if not fits:
            return False
        states.append(after)
    called = list(accumulate((write.called for write in writes), max))
    if any(_returned(write) < latest for write, latest in zip(writes, called, strict=True)):
        return False
    reads = [op for op in operations if op.action is Action.GET and op.returned is not None]
    return _place(reads, states, called, [_returned(write) for write in writes])


def _writes(operations: Sequence[Operation], order: Iterable[Effect]) -> list[Operation] | None:
    """Return the writes that were done, in order; None when one that was answered is not among them."""
    waiting = {(op.key, op.argument): op for op in operations if op.action is not Action.GET}
    if len(waiting) != sum(1 for op in operations if op.action is not Action.GET):
        return None
    done = [waiting.pop(effect) for effect in order if effect in waiting]
    return done if all(op.returned is None for op in waiting.values()) else None


def _place(
    reads: Sequence[Operation], states: list[bytes | None], called: list[float], returned: list[float]
) -> bool:
    """Find a place for each read. `called[n]` is the latest call of the first n + 1 writes."""
    seen_at: dict[object, list[int]] = defaultdict(list)
    for place, state in enumerate(states):
        seen_at[state].append(place)
    earliest = [*accumulate(reversed(returned), min)][::-1]  # return of a write or one after it
    ended = sorted(range(len(reads)), key=lambda number: _returned(reads[number]))
    places: list[int] = []
    before = least = 0
    for read in reads:
        while before < len(ended) and _returned(reads[ended[before]]) < read.called:
            least = max(least, places[ended[before]])  # it returned before this one was called
            before += 1
        least_here = max(least, bisect_left(earliest, read.called))
        fitting = seen_at.get(read.result, [])
        n = bisect_left(fitting, least_here)
        if n == len(fitting) or fitting[n] > bisect_right(called, _returned(read)):
            return False
        places.append(fitting[n])
    return True


def _returned(operation: Operation) -> float:
    return float("inf") if operation.returned is None else operation.returned
