"""A violation is told in few operations, and stays a violation."""

from balsadb.sim.checkers.linearizability import Verdict, check_key
from balsadb.sim.checkers.reduction import explain, reduce
from balsadb.sim.history import Action, Operation


def append(at: float, value: bytes, length: int | None, key: bytes = b"k") -> Operation:
    returned = None if length is None else at + 0.5
    return Operation(1, Action.APPEND, key, value, length, at, returned)


def get(at: float, value: bytes | None, client: int = 2) -> Operation:
    return Operation(client, Action.GET, b"k", b"", value, at, at + 0.5)


def stale_read_at_the_end(count: int) -> list[Operation]:
    """Appends, each followed by a read that shows it; then a read that does not show the last one."""
    history, value = [], b""
    for number in range(count):
        added = b"%d," % number
        before, value = value, value + added
        history += [append(number, added, len(value)), get(number + 0.6, value)]
    return [*history, get(count, before, client=3)]


def test_of_a_long_history_with_a_stale_read_two_answers_are_left():
    history = stale_read_at_the_end(12)
    shorter = reduce(history)
    assert check_key(shorter) is Verdict.VIOLATION
    answered = [operation for operation in shorter if operation.returned is not None]
    assert answered[-1] == history[-1]
    assert len(answered) == 2


def test_what_came_after_the_violation_is_left_out():
    history = stale_read_at_the_end(5)
    later = [append(100 + number, b"late%d," % number, None) for number in range(20)]
    assert not [operation for operation in reduce([*history, *later]) if operation.called >= 100]


def test_no_operation_is_left_out_that_would_make_a_good_answer_look_bad():
    """Every write stays, with its answer or without: a read of it must not seem to come from nowhere."""
    history = stale_read_at_the_end(10)
    writes = {operation.argument for operation in history if operation.action is Action.APPEND}
    assert {operation.argument for operation in reduce(history) if operation.argument} == writes


def test_the_explanation_counts_what_it_does_not_show():
    unseen = [append(0.1 + number / 1_000, b"unseen%d," % number, None) for number in range(5)]
    told = explain([append(0, b"1,", 2), *unseen, get(1, b"1,"), get(2, None)])
    assert told[-2].endswith("client 2: get -> None")
    assert "unseen" not in "".join(told)
    assert told[-1].startswith("(6 writes")
