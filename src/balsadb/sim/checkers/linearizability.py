"""Is there an order of all operations that respects real time and explains every answer?

The method is that of Wing and Gong (1993) with Lowe's memory of visited states (2017). Keys don't influence
each other, so a history is linearizable when it is so key by key, which keeps each search small.

How one key is searched. All calls and returns stand in one list in the order of time. The search takes the
first call whose answer fits the present state, lets it happen, and begins at the front again. When it meets
the return of an operation that has not happened yet, nothing before it can wait any longer: it goes back to
the last choice and tries the next call. A pair (set of happened operations, state) is never tried twice.

Operations without an answer have a call and no return: they may happen at any later time, or never. The
search is over when every *answered* operation has happened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec

from balsadb.sim.history import Action, Operation

STEPS_MAX = 2_000_000
"""Steps that the search of one key may take; one that needs more gives up, which counts as a failure."""


class Verdict(Enum):
    """What the checker found."""

    LINEARIZABLE = "linearizable"
    VIOLATION = "not linearizable"
    GAVE_UP = "gave up"
    """The search was too long. Never to be taken as a success."""


class Finding(msgspec.Struct, frozen=True):
    """The verdict on one key, with what is needed to understand it."""

    verdict: Verdict
    key: bytes = b""
    operations: tuple[Operation, ...] = ()
    """All operations on the key, by the time of their call."""

    def __str__(self) -> str:
        lines = [f"{self.verdict.value}: key {self.key!r}"]
        for op in self.operations:
            end = "?" if op.returned is None else f"{op.returned:g}"
            what = f"{op.action.value} {op.argument!r} -> {op.result!r}"
            lines.append(f"  [{op.called:g} .. {end}] client {op.client} {what}")
        return "\n".join(lines)


def check(history: Iterable[Operation], steps_max: int = STEPS_MAX) -> Finding:
    """Return the first finding that is not LINEARIZABLE, or one that is when all keys are."""
    by_key: dict[bytes, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    for key in sorted(by_key):
        operations = sorted(by_key[key], key=lambda operation: operation.called)
        verdict = check_key(operations, steps_max)
        if verdict is not Verdict.LINEARIZABLE:
            return Finding(verdict, key, tuple(operations))
    return Finding(Verdict.LINEARIZABLE)


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


class _Event:
    """A call or a return in the list of events of one key."""

    __slots__ = ("following", "number", "operation", "preceding", "return_event")

    def __init__(self, operation: Operation, number: int, return_event: _Event | None) -> None:
        self.operation = operation
        self.number = number
        """Position of the operation, used as its bit in the set of happened ones; -1 for a return."""
        self.return_event = return_event
        """Of a call: its return, if there is one."""
        self.preceding: _Event | None = None
        self.following: _Event | None = None

    def lift(self) -> None:
        """Take this call and its return out of the list."""
        _unlink(self)
        if self.return_event is not None:
            _unlink(self.return_event)

    def unlift(self) -> None:
        """Put them back; the reverse of the newest `lift`."""
        if self.return_event is not None:
            _relink(self.return_event)
        _relink(self)


def _unlink(event: _Event) -> None:
    assert event.preceding is not None
    event.preceding.following = event.following
    if event.following is not None:
        event.following.preceding = event.preceding


def _relink(event: _Event) -> None:
    assert event.preceding is not None
    event.preceding.following = event
    if event.following is not None:
        event.following.preceding = event


def _events(operations: Sequence[Operation]) -> _Event:
    """Build the list of events and return its head, which stands for no event."""
    timeline: list[tuple[float, int, int, _Event]] = []
    for number, operation in enumerate(operations):
        return_event = None
        if operation.returned is not None:
            return_event = _Event(operation, -1, None)
            # At equal times calls come first: such operations overlap, which is the lenient reading.
            timeline.append((operation.returned, 1, number, return_event))
        timeline.append((operation.called, 0, number, _Event(operation, number, return_event)))
    timeline.sort(key=lambda item: item[:3])
    head = last = _Event(Operation(0, Action.GET, b""), -1, None)
    for *_, event in timeline:
        last.following, event.preceding = event, last
        last = event
    return head


def check_key(operations: Sequence[Operation], steps_max: int = STEPS_MAX) -> Verdict:
    """Judge all operations on one key."""
    open_answers = sum(1 for operation in operations if operation.returned is not None)
    if not open_answers:
        return Verdict.LINEARIZABLE
    head = _events(operations)
    event = head.following
    value: bytes | None = None
    happened = 0
    visited: set[tuple[int, bytes | None]] = set()
    choices: list[tuple[_Event, bytes | None]] = []
    for _ in range(steps_max):
        if event is not None and event.number >= 0:
            fits, new = step(value, event.operation)
            after = happened | (1 << event.number)
            if fits and (after, new) not in visited:
                visited.add((after, new))
                choices.append((event, value))
                value, happened = new, after
                event.lift()
                open_answers -= event.return_event is not None
                if not open_answers:
                    return Verdict.LINEARIZABLE
                event = head.following
            else:
                event = event.following
            continue
        # A return that can't wait, or the end of the list: the last choice was wrong.
        if not choices:
            return Verdict.VIOLATION
        event, value = choices.pop()
        happened &= ~(1 << event.number)
        event.unlift()
        open_answers += event.return_event is not None
        event = event.following
    return Verdict.GAVE_UP
