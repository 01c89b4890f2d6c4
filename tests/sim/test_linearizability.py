"""The checker agrees with hand-made histories, linearizable and not."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from balsadb.sim.checkers.linearizability import Verdict, check, check_key
from balsadb.sim.history import Action, Operation, step


def get(called, returned, result, client=1, key=b"k"):
    return Operation(client, Action.GET, key, b"", result, called, returned)


def put(called, returned, value, client=1, key=b"k"):
    return Operation(client, Action.PUT, key, value, None, called, returned)


def append(called, returned, value, length=None, client=1, key=b"k"):
    return Operation(client, Action.APPEND, key, value, length, called, returned)


def delete(called, returned, result=None, client=1, key=b"k"):
    return Operation(client, Action.DELETE, key, b"", result, called, returned)


LINEARIZABLE = {
    "nothing": [],
    "a key that was never written is absent": [get(0, 1, None)],
    "one after another": [put(0, 1, b"a"), get(2, 3, b"a"), append(4, 5, b"b", 2), get(6, 7, b"ab")],
    "a read during a write sees the old value": [put(0, 1, b"a"), put(2, 9, b"b"), get(3, 4, b"a")],
    "a read during a write sees the new value": [put(0, 1, b"a"), put(2, 9, b"b"), get(3, 4, b"b")],
    "two overlapping writes in either order": [put(0, 9, b"a"), put(0, 9, b"b"), get(10, 11, b"a")],
    "a write without answer that happened": [put(0, None, b"a"), get(5, 6, b"a")],
    "a write without answer that never happened": [put(0, None, b"a"), get(5, 6, None)],
    "a write without answer that happened late": [put(0, None, b"a"), get(5, 6, None), get(7, 8, b"a")],
    "a read without answer": [put(0, 1, b"a"), get(2, None, None), get(3, 4, b"a")],
    "an append without answer between others": [
        append(0, 1, b"a", 1),
        append(2, None, b"b"),
        append(3, 4, b"c", 3),
        get(5, 6, b"abc"),
    ],
    "a delete": [put(0, 1, b"a"), delete(2, 3, True), get(4, 5, None), delete(6, 7, False)],
    "other keys don't matter": [put(0, 1, b"a"), get(2, 3, None, key=b"other")],
    "a choice that must be taken back": [
        put(0, 10, b"a"),
        put(0, 10, b"b"),
        get(11, 12, b"b"),
        append(13, 14, b"c", 2),
    ],
}

VIOLATIONS = {
    "a lost write": [put(0, 1, b"a"), get(2, 3, None)],
    "a stale read": [put(0, 1, b"a"), put(2, 3, b"b"), get(4, 5, b"a")],
    "a read that goes back": [put(0, 1, b"a"), put(2, 20, b"b"), get(3, 4, b"b"), get(5, 6, b"a")],
    "a value that nobody wrote": [put(0, 1, b"a"), get(2, 3, b"x")],
    "an append that ran twice": [append(0, 1, b"a", 1), get(2, 3, b"aa")],
    "an append that was lost": [append(0, 1, b"a", 1), append(2, 3, b"b", 1)],
    "an append whose answer is too long": [append(0, 1, b"a", 2)],
    "a write without answer seen before its call": [get(0, 1, b"a"), put(2, None, b"a")],
    "a write without answer that came and went": [
        put(0, None, b"a"),
        get(1, 2, b"a"),
        get(3, 4, None),
    ],
    "appends seen in two orders": [
        append(0, 10, b"a", 1),
        append(0, 10, b"b", 2),
        get(11, 12, b"ba"),
    ],
    "a delete that found nothing where something was": [put(0, 1, b"a"), delete(2, 3, False)],
    "a deleted value that is back": [put(0, 1, b"a"), delete(2, 3, True), get(4, 5, b"a")],
    "one bad key among good ones": [put(0, 1, b"a"), get(2, 3, b"a"), get(0, 1, b"z", key=b"other")],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_linearizable(name):
    assert check(LINEARIZABLE[name]).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation(name):
    finding = check(VIOLATIONS[name])
    assert finding.verdict is Verdict.VIOLATION
    assert repr(finding.key) in str(finding)


def test_giving_up_is_not_a_success():
    operations = [put(0, 100, bytes([65 + i])) for i in range(12)] + [get(101, 102, b"?")]
    assert check(operations, steps_max=50).verdict is Verdict.GAVE_UP
    assert check(operations).verdict is Verdict.VIOLATION


def naive(operations: list[Operation]) -> bool:
    """Try every subset of the unanswered operations in every order."""
    answered = [op for op in operations if op.returned is not None]
    unanswered = [op for op in operations if op.returned is None]
    for count in range(len(unanswered) + 1):
        for chosen in itertools.combinations(unanswered, count):
            for order in itertools.permutations([*answered, *chosen]):
                if _explains(order):
                    return True
    return False


def _explains(order) -> bool:
    value = None
    for position, operation in enumerate(order):
        fits, value = step(value, operation)
        if not fits:
            return False
        for later in order[position + 1 :]:
            if later.returned is not None and later.returned < operation.called:
                return False
    return True


def test_it_agrees_with_trying_every_order():
    verdicts = set()
    for seed in range(600):
        rng = random.Random(seed)
        operations = []
        for _ in range(rng.randint(1, 5)):
            called = rng.randint(0, 8)
            returned = None if rng.random() < 0.25 else called + rng.randint(1, 6)
            kind = rng.choice("gpad")
            if kind == "g":
                operations.append(get(called, returned, rng.choice([None, b"a", b"b", b"ab"])))
            elif kind == "p":
                operations.append(put(called, returned, rng.choice([b"a", b"b"])))
            elif kind == "a":
                operations.append(append(called, returned, rng.choice([b"a", b"b"]), rng.randint(1, 2)))
            else:
                operations.append(delete(called, returned, rng.choice([True, False])))
        expected = Verdict.LINEARIZABLE if naive(operations) else Verdict.VIOLATION
        assert check_key(sorted(operations, key=lambda op: op.called)) is expected, f"seed {seed}"
        verdicts.add(expected)
    assert len(verdicts) == 2


def lived(rng: random.Random) -> list[Operation]:
    """Make a history as clients record it: unique values, some calls without an answer, perhaps one lie."""
    value: bytes | None = None
    operations: list[Operation] = []
    for number in range(rng.randint(3, 7)):
        time = number * 2.0
        argument = b"%d," % number
        kind = rng.choice("ggaaapd")
        template = {
            "g": get(time, time, value),
            "p": put(time, time, argument),
            "a": append(time, time, argument, len(value or b"") + len(argument)),
            "d": delete(time, time, value is not None),
        }[kind]
        called, returned = time - rng.choice([0, 1, 3]), time + rng.choice([0, 1, 3])
        happened = True
        if kind != "g" and rng.random() < 0.35:
            happened = rng.random() < 0.6
            template = msgspec.structs.replace(template, returned=None, result=None)
        else:
            template = msgspec.structs.replace(template, returned=returned)
        operations.append(msgspec.structs.replace(template, called=called))
        if happened:
            value = step(value, msgspec.structs.replace(template, returned=None))[1]
    if rng.random() < 0.8:
        lie = rng.randrange(len(operations))
        damaged = operations[lie]
        if isinstance(damaged.result, bytes) and damaged.result:
            damaged = msgspec.structs.replace(damaged, result=damaged.result[rng.choice([0, 2]) : -2] or None)
        elif damaged.returned is not None:
            damaged = msgspec.structs.replace(damaged, called=99, returned=100)
        operations[lie] = damaged
    return sorted(operations, key=lambda op: op.called)


def test_its_shortcuts_agree_with_trying_every_order():
    verdicts = {Verdict.LINEARIZABLE: 0, Verdict.VIOLATION: 0}
    for seed in range(1500):
        operations = lived(random.Random(seed))
        expected = Verdict.LINEARIZABLE if naive(operations) else Verdict.VIOLATION
        assert check_key(operations) is expected, f"seed {seed}"
        verdicts[expected] += 1
    assert min(verdicts.values()) > 100, verdicts
