"""Keys expire by log time: at the same entry everywhere, a bounded number at a time (rules S5, S6)."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balsadb.kv import expiry, machine
from balsadb.kv.batch import encode_batch
from balsadb.kv.cut import decode_bookkeeping
from balsadb.kv.machine import StateMachine
from balsadb.kv.memory import MemoryBase
from kv.conftest import Fed, plain, words
from kv.delta_model import write


class Timed(Fed):
    """A machine whose clock is in the hands of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.time_ms = 1_000_000

    def apply(self, payload, reads=()):
        return self.machine.apply_commands(self.machine.applied_index + 1, 1, self.time_ms, payload, reads)

    def clock(self, later_ms: int = 0) -> None:
        """Apply a CLOCK entry."""
        self.time_ms += later_ms
        self.machine.apply_empty(self.machine.applied_index + 1, 1, self.time_ms)

    def restart(self, cache_bytes: int = 1_000_000) -> None:
        """Go on from what is on the disk, everything being there."""
        base = self.machine.store.base
        self.machine.freeze()
        write_cuts(self.machine)
        self.machine = StateMachine([1, 2, 3], base, decode_bookkeeping(base.data), cache_bytes)


def write_cuts(machine: StateMachine) -> None:
    store = machine.store
    while store.cuts:
        cut = store.cuts[0]
        while store.count(cut):
            pass
        write(store.base, cut)
        store.written(cut)


@pytest.fixture
def timed() -> Timed:
    return Timed()


def test_a_key_is_there_until_log_time_reaches_its_deadline(timed):
    assert timed.do("SET k v PX 100") == "+OK"
    timed.clock(99)
    assert timed.read("GET k") == b"v"
    timed.clock(1)
    assert timed.read("GET k") is None
    assert timed.read("DBSIZE") == 0


def test_reads_neither_move_time_nor_remove_anything(timed):
    """Rule S6: the leader's clock is what TTL subtracts, and decides about nothing."""
    timed.do("SET k v PX 100")
    before = timed.machine.digest()
    timed.machine.tell_time(timed.time_ms + 50)
    assert timed.read("PTTL k") == 50
    timed.machine.tell_time(timed.time_ms + 5_000)
    assert timed.read("PTTL k") == 0
    assert timed.read("TTL k") == 0
    assert timed.read("GET k") == b"v"
    assert timed.read("EXISTS k") == 1
    assert timed.machine.digest() == before
    timed.machine.tell_time(0)
    assert timed.read("PTTL k") == 100


def test_what_is_due_is_gone_for_the_commands_of_the_same_entry(timed):
    timed.do("SET k v PX 100")
    timed.time_ms += 100
    assert timed.batch("GET k", "INCR k", "TTL k") == [None, 1, -1]


@pytest.mark.parametrize(
    ("command", "deadline"),
    [
        ("APPEND k x", 100), ("INCR n", 100), ("SETRANGE k 1 x", 100), ("INCRBYFLOAT n 0.5", 100),
        ("SET k x KEEPTTL", 100), ("GETEX k", 100), ("SET k x XX GET KEEPTTL", 100),
        ("SET k x IFEQ v KEEPTTL", 100),
        ("SET k x", -1), ("GETSET k x", -1), ("MSET k x", -1), ("PERSIST k", -1), ("GETEX k PERSIST", -1),
        ("SET k x IFEQ v", -1), ("SET k x IFEQ other", 100), ("SET k x NX", 100), ("EXPIRE k 1 NX", 100),
        ("PEXPIRE k 50 GT", 100), ("PEXPIRE k 50 LT", 50), ("PEXPIRE k 150 GT", 150), ("SET k v PX 70", 70),
        ("PSETEX k 30 v", 30), ("GETEX k PX 20", 20), ("SETEX k 1 v", 1_000), ("PEXPIRE k 5 XX", 5),
    ],
)  # fmt: skip
def test_what_becomes_of_a_deadline(timed, command, deadline):
    timed.do("SET k v PX 100")
    timed.do("SET n 5 PX 100")
    timed.do(command)
    key = command.split()[1]
    assert timed.read(f"PTTL {key}") == deadline
    timed.clock(deadline if deadline > 0 else 100)
    assert timed.read(f"EXISTS {key}") == (deadline < 0)


@pytest.mark.parametrize(
    "command",
    [
        "EXPIRE k 0",
        "EXPIRE k -1",
        "PEXPIREAT k 1",
        "EXPIREAT k -5",
        "SET k x PXAT 1",
        "GETEX k PXAT 1",
        "SET k x EXAT 1",
    ],
)
def test_a_deadline_that_has_passed_removes_the_key_at_once(timed, command):
    timed.do("SET k v")
    assert timed.do(command) in (1, "+OK", b"v")
    assert timed.read("EXISTS k") == timed.read("DBSIZE") == 0
    assert timed.machine.next_deadline_ms is None


def test_a_key_keeps_its_deadline_under_a_new_name_and_the_old_deadline_of_the_name_is_void(timed):
    timed.do("SET a 1 PX 100")
    timed.do("SET b 2 PX 50")
    assert timed.do("RENAME a b") == "+OK"
    timed.clock(50)
    assert timed.read("GET b") == b"1"
    timed.clock(50)
    assert timed.read("GET b") is None
    assert timed.do("SET a 1 PX 100") == "+OK"
    timed.clock(100)
    assert timed.machine.next_deadline_ms is None


def test_an_overwritten_key_does_not_go_at_its_former_deadline(timed):
    """A blind write leaves the hint: it is checked when it is due (rule C1)."""
    timed.do("SET k v PX 100")
    timed.do("SET k w")
    assert timed.machine.next_deadline_ms == timed.time_ms + 100
    timed.clock(100)
    assert timed.read("GET k") == b"w"
    assert timed.machine.next_deadline_ms is None


@pytest.fixture
def few_per_entry(monkeypatch):
    monkeypatch.setattr(expiry, "EXPIRED_PER_ENTRY_MAX", 3)
    monkeypatch.setattr(machine, "EXPIRED_PER_ENTRY_MAX", 3)


@pytest.mark.usefixtures("few_per_entry")
def test_more_than_an_entry_removes_reads_as_absent_at_once_and_goes_with_the_next_ones(timed):
    timed.batch(*[f"SET k{number} v PX 10" for number in range(8)])
    timed.do("SET stays v PX 11")
    timed.clock(10)
    assert timed.read("DBSIZE") == 6
    assert [timed.read(f"EXISTS k{number}") for number in range(8)] == [0] * 8
    assert timed.read("MGET k7 stays") == [None, b"v"]
    assert timed.read("SCAN 0") == [b"0", [b"stays"]]
    assert timed.read("KEYS *") == [b"stays"]
    assert timed.machine.next_deadline_ms <= timed.time_ms
    assert timed.batch("SET k7 new NX", "EXEC 2", "GET k6", "APPEND k6 x") == ["+OK", [None, 1]]
    timed.clock()
    timed.clock()
    assert timed.read("DBSIZE") == 3
    assert timed.machine.next_deadline_ms == timed.time_ms + 1
    assert timed.read("MGET k6 k7 stays") == [b"x", b"new", b"v"]


@pytest.mark.usefixtures("few_per_entry")
@pytest.mark.parametrize("cache_bytes", [0, 1_000_000])
def test_a_restart_keeps_what_is_due_when(timed, cache_bytes):
    timed.batch(*[f"SET k{number} v PX {10 + number}" for number in range(8)])
    timed.clock(14)
    timed.restart(cache_bytes)
    assert [timed.read(f"EXISTS k{number}") for number in range(8)] == [0] * 5 + [1] * 3
    timed.clock()
    assert timed.read("DBSIZE") == 3
    assert timed.machine.next_deadline_ms == timed.time_ms + 1
    timed.clock(100)
    assert timed.read("DBSIZE") == 0
    assert timed.machine.next_deadline_ms is None


def test_time_that_jumps_back_brings_nothing_back(timed):
    timed.do("SET k v PX 100")
    timed.clock(200)
    timed.clock(-150)
    assert timed.read("EXISTS k") == 0
    timed.do("SET k v PX 100")
    assert timed.read("PEXPIRETIME k") == 1_000_300


def test_expire_counts_as_a_change_of_the_key(timed):
    timed.do("SET k v")
    before = timed.data()[b"k"][1:3]
    timed.do("EXPIRE k 10")
    assert timed.data()[b"k"][1:3] > before


# ------------------------------------------------------------------- a model

KEYS = st.sampled_from(["a", "b", "c"])
TIMES = st.integers(1, 40)
STEPS = st.one_of(
    st.builds("SET {} v{}".format, KEYS, TIMES),
    st.builds("SET {} w PX {}".format, KEYS, TIMES),
    st.builds("SET {} x KEEPTTL".format, KEYS),
    st.builds("PEXPIRE {} {}".format, KEYS, TIMES),
    st.builds("PEXPIRE {} {} GT".format, KEYS, TIMES),
    st.builds("PERSIST {}".format, KEYS),
    st.builds("DEL {}".format, KEYS),
    st.builds("RENAME {} {}".format, KEYS, KEYS),
    st.builds("APPEND {} +".format, KEYS),
    st.just("FLUSHALL"),
    st.integers(0, 30),
    st.sampled_from(["freeze", "write", "restart"]),
)


class Model:
    """One dict of (value, deadline), looked through at every step."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, int]] = {}

    def run(self, command: str, now: int) -> None:
        name, *args = command.split()
        keys = self.keys
        key = args[0] if args else ""
        there = keys.get(key)
        match name:
            case "SET":
                until = now + int(args[3]) if args[2:3] == ["PX"] else 0
                keys[key] = args[1], there[1] if there and args[2:] == ["KEEPTTL"] else until
            case "PEXPIRE" if there:
                until = now + int(args[1])
                if len(args) == 2 or (there[1] and until > there[1]):
                    keys[key] = there[0], until
            case "PERSIST" if there:
                keys[key] = there[0], 0
            case "DEL":
                keys.pop(key, None)
            case "RENAME" if there:
                del keys[key]
                keys[args[1]] = there
            case "APPEND":
                keys[key] = (there[0] + "+", there[1]) if there else ("+", 0)
            case "FLUSHALL":
                keys.clear()

    def pass_time(self, now: int) -> None:
        self.keys = {key: it for key, it in self.keys.items() if not 0 < it[1] <= now}


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=40), st.sampled_from([0, 300, 1_000_000]))
def test_any_history_is_that_of_a_dict_that_looks_at_every_key(steps, cache_bytes):
    timed, model = Timed(), Model()
    timed.machine = StateMachine([1, 2, 3], MemoryBase(), None, cache_bytes)
    for step in steps:
        if isinstance(step, int):
            timed.clock(step)
            model.pass_time(timed.time_ms)
        elif step == "freeze":
            timed.machine.freeze()
        elif step == "write":
            write_cuts(timed.machine)
        elif step == "restart":
            timed.restart(cache_bytes)
        else:
            timed.do(step)
            model.run(step, timed.time_ms)
        for key in "abc":
            value, until = model.keys.get(key, (None, 0))
            assert timed.read(f"GET {key}") == (None if value is None else value.encode())
            assert timed.read(f"PEXPIRETIME {key}") == (-2 if value is None else until or -1)
        assert timed.read("DBSIZE") == len(model.keys)
        deadlines = [until for _, until in model.keys.values() if until]
        assert not deadlines or timed.machine.next_deadline_ms <= min(deadlines)


@pytest.mark.usefixtures("few_per_entry")
@pytest.mark.parametrize("seed", range(10))
def test_machines_that_cut_at_different_entries_hold_the_same_after_each(seed):
    """Also while more is due than an entry removes: which keys those are must not depend on memory."""
    draw = random.Random(seed)
    machines = [StateMachine([1], MemoryBase(), None, cache) for cache in (0, 500, 1_000_000)]
    time_ms = 0
    for index in range(1, 150):
        time_ms += draw.choice([0, 0, 5, 60])
        commands: list[Any] = []
        for _ in range(draw.randrange(6)):
            key = f"k{draw.randrange(30)}"
            commands.append(
                draw.choice(
                    [f"SET {key} v PX {draw.randrange(1, 90)}", f"SET {key} v", f"PEXPIRE {key} 9", "DBSIZE"]
                )
            )
        payload = encode_batch(1, 1, index, [words(command) for command in commands])
        replies = [
            [plain(reply) for reply in one.apply_commands(index, 1, time_ms, payload).replies]
            for one in machines
        ]
        assert replies[0] == replies[1] == replies[2]
        for one in machines[: draw.randrange(4)]:
            one.freeze()
            if draw.random() < 0.7:
                write_cuts(one)
        assert len({one.digest() for one in machines}) == 1
