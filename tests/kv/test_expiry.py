"""Deadlines by log time: what is due goes at the same entry everywhere, some at a time (rules S5, S6)."""

from __future__ import annotations

import pytest

from balsadb.kv import expiry
from balsadb.kv.batch import encode_batch
from balsadb.kv.limits import EXPIRED_PER_ENTRY_MAX
from balsadb.kv.machine import StateMachine


class Deadlines:
    """Some deadlines, and which entry removed which of them."""

    def __init__(self, *deadlines: int) -> None:
        self.left = sorted(deadlines)
        self.removed: list[tuple[int, int]] = []

    def next_deadline_ms(self) -> int | None:
        return self.left[0] if self.left else None

    def expire(self, index: int, now_ms: int, limit: int) -> int:
        due = [deadline for deadline in self.left if deadline <= now_ms][:limit]
        del self.left[: len(due)]
        self.removed += [(index, deadline) for deadline in due]
        return len(due)


def machine_with(*parts: Deadlines) -> StateMachine:
    machine = StateMachine([1])
    machine._expiring = parts
    return machine


def test_the_next_deadline_is_the_smallest_of_all_parts():
    assert machine_with().next_deadline_ms is None
    assert machine_with(Deadlines(), Deadlines()).next_deadline_ms is None
    assert machine_with(Deadlines(70), Deadlines(), Deadlines(50, 90)).next_deadline_ms == 50


@pytest.mark.parametrize("kind", ["empty", "commands", "duplicate", "malformed", "membership"])
def test_an_entry_of_any_kind_removes_what_is_due(kind):
    part = Deadlines(10, 20, 21)
    machine = machine_with(part)
    machine.apply_commands(1, 1, 5, encode_batch(1, 1, 1, []))
    match kind:
        case "empty":
            machine.apply_empty(2, 1, 20)
        case "membership":
            machine.apply_membership(2, 1, 20, (1,), (), b"")
        case "commands":
            assert machine.apply_commands(2, 1, 20, encode_batch(1, 1, 2, [])).ran
        case "duplicate":
            assert not machine.apply_commands(2, 1, 20, encode_batch(1, 1, 1, [])).ran
        case _:
            assert not machine.apply_commands(2, 1, 20, b"\x01nonsense").ran
    assert part.removed == [(2, 10), (2, 20)]


def test_log_time_decides_and_not_the_stamp_of_a_late_entry():
    part = Deadlines(30)
    machine = machine_with(part)
    machine.apply_empty(1, 1, 25)
    machine.apply_empty(2, 1, 10)
    assert part.removed == []
    machine.apply_empty(3, 1, 30)
    assert part.removed == [(3, 30)]


def test_an_entry_removes_a_bounded_number_of_all_parts_together():
    first, second = Deadlines(*range(700)), Deadlines(*range(2_000))
    machine = machine_with(first, second)
    counts = []
    for index in range(1, 5):
        before = len(first.removed) + len(second.removed)
        machine.apply_empty(index, 1, 5_000)
        counts.append(len(first.removed) + len(second.removed) - before)
    assert counts == [EXPIRED_PER_ENTRY_MAX, EXPIRED_PER_ENTRY_MAX, 700, 0]
    assert machine.next_deadline_ms is None


def test_nothing_is_asked_of_the_parts_behind_the_limit():
    class Strict(Deadlines):
        def expire(self, index: int, now_ms: int, limit: int) -> int:
            assert limit > 0
            return super().expire(index, now_ms, limit)

    expiry.expire([Strict(*range(EXPIRED_PER_ENTRY_MAX)), Strict(1)], 1, 5_000)
