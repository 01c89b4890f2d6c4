"""Is there an order of all operations that respects real time and explains every answer?

The method is that of Wing and Gong (1993) with Lowe's memory of visited states (2017). Keys don't influence
each other, so a history is linearizable when it is so key by key, which keeps each search small.

How one key is searched. All calls and returns stand in one list in the order of time. The search takes the
first call whose answer fits the present state, lets it happen, and begins at the front again. When it meets
the return of an operation that has not happened yet, nothing before it can wait any longer: it goes back to
the last choice and tries the next call. A pair (set of happened operations, state) is never tried twice.

Operations without an answer have a call and no return: they may happen at any later time, or never. The
search is over when every *answered* operation has happened.

Where the log is known the search is spared nearly always: see `witness`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import pairwise

import msgspec

from balsadb.sim.checkers.witness import Effect, explains
from balsadb.sim.history import Action, Operation, step

STEPS_MAX = 2_000_000
"""Steps that the search of one key may take; one that needs more gives up, which counts as a failure."""


class Verdict(Enum):
    """What the checker found."""

    LINEARIZABLE = "linearizable"
    VIOLATION = "not linearizable"
    GAVE_UP = "gave up"
    """The search was too long. Never to be taken as a success."""


class Finding(msgspec.Struct, frozen=True):
    """The verdict on one key."""

    verdict: Verdict
    key: bytes = b""
    operations: tuple[Operation, ...] = ()
    """All operations on the key, by the time of their call."""


def check(history: Iterable[Operation], steps_max: int = STEPS_MAX, order: Iterable[Effect] = ()) -> Finding:
    """Return the first finding that is not LINEARIZABLE, or one that is when all keys are.

    `order`, if somebody knows one, is that in which the writes were probably done; it is tried first.
    """
    by_key: dict[bytes, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    effects: dict[bytes, list[Effect]] = defaultdict(list)
    for effect in order:
        effects[effect[0]].append(effect)
    for key in sorted(by_key):
        operations = sorted(by_key[key], key=lambda operation: operation.called)
        if explains(operations, effects[key]):
            continue
        verdict = check_key(operations, steps_max)
        if verdict is not Verdict.LINEARIZABLE:
            return Finding(verdict, key, tuple(operations))
    return Finding(Verdict.LINEARIZABLE)


class _Search:
    """The search of one key's history for an order that explains it."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._by_call = [n for n, op in enumerate(operations) if op.returned is not None]
        self._by_return = sorted(self._by_call, key=self._returned)
        self._open = [
            n for n, op in enumerate(operations) if op.returned is None and op.action is not Action.GET
        ]
        self._all = sum(1 << n for n in self._by_call)
        self._reads = _longest(
            op.result for op in operations if op.action is Action.GET and isinstance(op.result, bytes)
        )
        self._seen = _states_seen(operations, self._reads)
        self._before = [0] * len(operations)
        """Of each operation, those that must have happened before it besides those that returned earlier."""
        self._filler = _filler(operations)
        self._unread = self._find_unread(self._reads)
        self._twins = self._find_twins()

    def _returned(self, number: int) -> float:
        returned = self._operations[number].returned
        assert returned is not None
        return returned

    def run(self, steps_max: int) -> Verdict:
        """Try orders until one explains every answer or none is left.

        Few of the operations whose effect nobody has read are ever needed, and each one allowed multiplies
        the orders. So orders with none of them are tried first, then with a few, then with all. And clients
        that send several at once nearly always find them done in that order, though linearizability does not
        ask for it: such orders, which are far fewer, are tried before all others.
        """
        if self._seen is None:
            return Verdict.VIOLATION
        for before in (self._find_before(), [0] * len(self._operations)):
            self._before = before
            verdict = self._run(steps_max)
            if verdict is Verdict.LINEARIZABLE:
                break
        return verdict

    def _run(self, steps_max: int) -> Verdict:
        unread = sum(1 << number for number in self._unread)
        verdict = Verdict.VIOLATION
        for allowed in (0, 1, 2, 4, 6, 8, len(self._unread)):
            verdict = self._try(steps_max, unread, allowed)
            if verdict is Verdict.LINEARIZABLE or allowed >= len(self._unread):
                break
        return verdict

    def _find_before(self) -> list[int]:
        """Find, for each operation, the answered ones that its client sent before it."""
        sent: dict[int, int] = defaultdict(int)
        before = []
        for number, operation in enumerate(self._operations):
            before.append(sent[operation.client])
            if operation.returned is not None:
                sent[operation.client] |= 1 << number
        return before

    def _try(self, steps_max: int, unread: int, allowed: int) -> Verdict:
        assert self._seen is not None
        state = self._advance(0, None, 0, 0)
        path = [(*state, self._candidates(state[0], state[2], state[3]))]
        visited: dict[tuple[int, bytes | None], list[int]] = {}
        for _ in range(steps_max):
            happened, value, oldest, first, candidates = path[-1]
            if happened & self._all == self._all:
                return Verdict.LINEARIZABLE
            number = next(candidates, None)
            if number is None:
                path.pop()
                if not path:
                    return Verdict.VIOLATION
                continue
            fits, new = step(value, self._operations[number])
            after = happened | 1 << number
            if not fits or self._seen.get(number, new) != new or (after & unread).bit_count() > allowed:
                continue
            state = self._advance(after, self._blur(new), oldest, first)
            if self._is_new(visited, state[0], state[1]):
                path.append((*state, self._candidates(state[0], state[2], state[3])))
        return Verdict.GAVE_UP

    def _is_new(
        self, visited: dict[tuple[int, bytes | None], list[int]], happened: int, value: bytes | None
    ) -> bool:
        """Note a state; False when one from which at least as much is possible was tried before.

        Operations without an answer need not happen. So of two states that differ only in them, the one
        in which fewer have happened can go wherever the other can.
        """
        unanswered = happened & ~self._all
        tried = visited.setdefault((happened & self._all, value), [])
        if any(fewer & unanswered == fewer for fewer in tried):
            return False
        tried.append(unanswered)
        return True

    def _candidates(self, happened: int, oldest: int, first: int) -> Iterator[int]:
        """Operations that may happen next; those without an answer last, since they need not happen."""
        limit = self._limit(oldest)
        for numbers in (self._by_call[first:], self._open):
            for number in numbers:
                if self._operations[number].called > limit:
                    break
                twin = self._twins.get(number)
                if (
                    not happened >> number & 1
                    and (twin is None or happened >> twin & 1)
                    and not self._before[number] & ~happened
                ):
                    yield number

    def _find_unread(self, reads: Sequence[bytes]) -> list[int]:
        """Find the operations without an answer of which no read shows that they happened."""
        operations = self._operations
        return [
            number
            for number in self._open
            if operations[number].action is Action.DELETE
            or not any(operations[number].argument in result for result in reads)
        ]

    def _find_twins(self) -> dict[int, int]:
        """Find, for each unread operation, an earlier one of the same effect that can stand in for it.

        Their values are of the same length and nobody read either, so nobody can tell which one happened.
        """
        newest: dict[tuple[Action, int], int] = {}
        twins: dict[int, int] = {}
        for number in self._unread:
            operation = self._operations[number]
            alike = (operation.action, len(operation.argument))
            if alike in newest:
                twins[number] = newest[alike]
            newest[alike] = number
        return twins

    def _blur(self, value: bytes | None) -> bytes | None:
        """Keep only the length of a state that no read can ever show, since no read begins with it."""
        if value is None or self._filler is None:
            return value
        nearest = bisect_left(self._reads, value)
        if nearest < len(self._reads) and self._reads[nearest].startswith(value):
            return value
        return self._filler * len(value)

    def _limit(self, oldest: int) -> float:
        """Time of the next return: nothing called later may happen before that operation has."""
        return self._returned(self._by_return[oldest]) if oldest < len(self._by_return) else float("inf")

    def _advance(
        self, happened: int, value: bytes | None, oldest: int, first: int
    ) -> tuple[int, bytes | None, int, int]:
        """Let everything happen that may and changes nothing: what is possible after it, was so before.

        `oldest` counts in `_by_return` and `first` in `_by_call`; all operations before them have happened.
        """
        operations, by_call, by_return = self._operations, self._by_call, self._by_return
        while True:
            while oldest < len(by_return) and happened >> by_return[oldest] & 1:
                oldest += 1
            while first < len(by_call) and happened >> by_call[first] & 1:
                first += 1
            before, limit = happened, self._limit(oldest)
            for position in range(first, len(by_call)):
                number = by_call[position]
                if operations[number].called > limit:
                    break
                harmless = operations[number].action in (Action.GET, Action.DELETE)
                if (
                    harmless
                    and not happened >> number & 1
                    and not self._before[number] & ~happened
                    and step(value, operations[number]) == (True, value)
                ):
                    happened |= 1 << number
            if happened == before:
                return happened, value, oldest, first


def _filler(operations: Sequence[Operation]) -> bytes | None:
    """Return a byte that occurs nowhere in the history, or None when all do."""
    used = set[int]()
    for operation in operations:
        used.update(operation.argument)
        if isinstance(operation.result, bytes):
            used.update(operation.result)
    return next((bytes((byte,)) for byte in range(256) if byte not in used), None)


def _longest(reads: Iterable[bytes]) -> list[bytes]:
    """Return the reads that no other one begins with, sorted: what appends made of the others."""
    ordered = sorted(set(reads))
    return [read for read, after in pairwise([*ordered, b""]) if not after.startswith(read)]


def _states_seen(operations: Sequence[Operation], reads: Sequence[bytes]) -> dict[int, bytes] | None:
    """Find which state each append must have left behind, where a read tells.

    A value that was appended once and by one operation only, and that a read shows, stood at the end of the
    state when it was appended: everything before it in the read is what was there. Returns None when two
    reads tell different things, which no order explains.
    """
    unique = _unique([op.argument for op in operations if op.action in (Action.APPEND, Action.PUT)])
    seen: dict[int, bytes] = {}
    for number, operation in enumerate(operations):
        value = operation.argument
        if operation.action is not Action.APPEND or value not in unique:
            continue
        states = {read[: read.index(value) + len(value)] for read in reads if value in read}
        if len(states) > 1 or any(read.count(value) > 1 for read in reads):
            return None
        if states:
            seen[number] = states.pop()
    return seen


def _unique(arguments: Sequence[bytes]) -> set[bytes]:
    """Return the arguments that can come into a state only by being appended themselves.

    That is so when all arguments end with the same separator and have no other one inside, and when no
    other argument ends like it.
    """
    separator = arguments[0][-1:] if arguments else b""
    if not separator or any(argument.find(separator) != len(argument) - 1 for argument in arguments):
        return set()
    endings = Counter(argument[start:] for argument in arguments for start in range(len(argument)))
    return {argument for argument in arguments if endings[argument] == 1}


def check_key(operations: Sequence[Operation], steps_max: int = STEPS_MAX) -> Verdict:
    """Judge all operations on one key, given in the order of their calls."""
    return _Search(operations).run(steps_max)
