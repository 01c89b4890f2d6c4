"""SCAN returns what is there all the time, on any node, with bounded work; KEYS and RANDOMKEY."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balsadb.kv import cursors
from balsadb.kv.commands import scans
from balsadb.kv.cursors import Cursors
from balsadb.kv.machine import StateMachine
from balsadb.kv.memory import MemoryBase
from kv.test_expiring_keys import Timed, write_cuts


def scan_all(asked, *words: bytes, count: bytes = b"3") -> list[bytes]:
    """Scan from 0 to 0; `asked` answers one call."""
    found: list[bytes] = []
    cursor = b"0"
    for _ in range(10_000):
        cursor, keys = asked([b"SCAN", cursor, b"COUNT", count, *words])
        found += keys
        if cursor == b"0":
            return found
    raise AssertionError("the scan does not end")


@pytest.fixture
def timed() -> Timed:
    return Timed()


def fill(timed: Timed, number: int, name: str = "key:%05d") -> list[bytes]:
    keys = [(name % n).encode() for n in range(number)]
    for start in range(0, number, 500):
        timed.batch(*[[b"SET", key, b"v"] for key in keys[start : start + 500]])
    return keys


def test_a_scan_in_peace_returns_every_key_once(timed):
    keys = fill(timed, 100)
    assert scan_all(timed.read) == keys
    assert scan_all(timed.read, count=b"1000000") == keys


def test_no_call_looks_at_more_keys_than_its_count_nor_than_the_bound(timed):
    fill(timed, 2_000)
    assert len(timed.read("SCAN 0")[1]) == scans.SCAN_KEYS
    assert len(timed.read("SCAN 0 COUNT 77")[1]) == 77
    assert len(timed.read("SCAN 0 COUNT 1000000")[1]) == scans.SCAN_KEYS_MAX
    assert timed.read("SCAN 0 MATCH nothing*")[1] == []


def test_long_keys_end_a_call_early(timed):
    timed.batch(*[[b"SET", b"%02d" % number * 10_000, b""] for number in range(20)])
    cursor, keys = timed.read(b"SCAN 0 COUNT 20".split())
    assert 0 < len(keys) < 5
    assert len(scan_all(timed.read)) == 20
    assert cursor != b"0"


def test_patterns_and_types_filter(timed):
    fill(timed, 30)
    assert scan_all(timed.read, b"MATCH", b"key:0001?") == [b"key:%05d" % n for n in range(10, 20)]
    assert len(scan_all(timed.read, b"TYPE", b"STRING")) == 30
    assert scan_all(timed.read, b"TYPE", b"list") == []


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("SCAN x", "-ERR invalid cursor"),
        ("SCAN -1", "-ERR invalid cursor"),
        ("SCAN 99999999999999999999", "-ERR invalid cursor"),
        ("SCAN 0 COUNT 0", "-ERR syntax error"),
        ("SCAN 0 COUNT x", "-ERR value is not an integer or out of range"),
        ("SCAN 0 MATCH", "-ERR syntax error"),
        ("SCAN 0 FOO 1", "-ERR syntax error"),
        ("SCAN 0 MATCH " + "x" * 257, "-ERR pattern exceeds maximum allowed size of 256 bytes"),
        ("KEYS " + "x" * 257, "-ERR pattern exceeds maximum allowed size of 256 bytes"),
    ],
)
def test_what_makes_no_sense_is_refused(timed, command, reply):
    assert timed.read(command) == reply


@pytest.mark.parametrize("command", ["SCAN 0", "KEYS *", "RAFT.RANDOMKEY 12345678"])
def test_what_depends_on_a_node_never_runs_from_the_log(timed, command):
    """Rule S4."""
    assert timed.do(command) == "-ERR command belongs to one node and can't go through the log"
    assert timed.do(command.lower().title()).startswith("-ERR command belongs to one node")
    assert timed.batch("EXEC 1", command) == [["-ERR Command not allowed inside a transaction"]]
    assert timed.machine.read_transaction([command.encode().split()])[0].text.startswith(b"ERR Command not")


@settings(max_examples=120, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([0, 400, 1_000_000]), st.integers(1, 7))
def test_what_is_there_all_the_time_is_returned_whatever_else_changes(
    draw: random.Random, cache_bytes, count
):
    timed = Timed()
    timed.machine = StateMachine([1, 2, 3], MemoryBase(), None, cache_bytes)
    constant = {b"c%d" % number for number in range(draw.randrange(1, 25))}
    timed.batch(*[[b"SET", key, b"v"] for key in sorted(constant)])
    changing = [b"%c%d" % (draw.choice(b"bcd"), number) for number in range(100, 120)]
    ever = set(constant)
    found: set[bytes] = set()
    cursor = b"0"
    for _ in range(1_000):
        cursor, keys = timed.read([b"SCAN", cursor, b"COUNT", b"%d" % count])
        found.update(keys)
        if cursor == b"0":
            break
        key = draw.choice(changing)
        match draw.randrange(6):
            case 0:
                timed.do([b"DEL", key])
            case 1:
                timed.machine.freeze()
            case 2:
                write_cuts(timed.machine)
            case 3:
                timed.do([b"SET", draw.choice(sorted(constant)), b"w"])
            case _:
                timed.do([b"SET", key, b"v"])
                ever.add(key)
    assert cursor == b"0"
    assert constant <= found <= ever


def test_a_node_that_does_not_know_a_cursor_goes_on_before_it_and_not_behind(timed):
    keys = fill(timed, 40, "%02d:key")
    other = Timed()
    fill(other, 40, "%02d:key")
    machines = [timed, other]
    turns = iter(range(10_000))
    found = scan_all(lambda words: machines[next(turns) % 2].read(words), count=b"4")
    assert set(found) == set(keys)
    assert len(found) >= len(keys)


@given(st.lists(st.binary(max_size=6), max_size=20))
def test_an_unknown_cursor_never_leaves_out_a_key(positions):
    known, foreign = Cursors(), Cursors()
    for position in positions:
        cursor = known.cursor(position)
        assert 0 < cursor < 2**63
        assert known.position(cursor) == position
        assert foreign.position(cursor) <= position


def test_the_table_of_cursors_is_bounded_and_keeps_those_in_use(monkeypatch):
    monkeypatch.setattr(cursors, "CURSORS_MAX", 4)
    table = Cursors()
    first = table.cursor(b"first position")
    for number in range(20):
        assert table.position(first) == b"first position"
        table.cursor(b"position %d" % number)
    assert len(table._positions) == 4


def test_keys_answers_all_or_refuses(timed, monkeypatch):
    monkeypatch.setattr(scans, "KEYS_MAX", 50)
    keys = fill(timed, 50)
    assert timed.read("KEYS *") == keys
    assert timed.read("KEYS key:0000?") == keys[:10]
    fill(timed, 50, "other:%d")
    assert timed.read("KEYS *").startswith("-ERR KEYS would have to look at more than")
    assert timed.read("KEYS key:*") == keys
    assert timed.read("KEYS key:00001") == [b"key:00001"]


def test_a_random_key_is_one_of_the_keys_and_not_always_the_same(timed):
    assert timed.read([b"RAFT.RANDOMKEY", b"x" * 8]) is None
    keys = set(fill(timed, 50))
    draw = random.Random(1)
    drawn = {timed.read([b"RAFT.RANDOMKEY", draw.randbytes(8)]) for _ in range(300)}
    assert drawn <= keys
    assert len(drawn) > 10


def test_a_random_key_is_found_where_most_of_them_have_gone(timed):
    keys = fill(timed, 50)
    timed.restart(0)
    timed.do([b"DEL", *keys[1:]])
    assert timed.read([b"RAFT.RANDOMKEY", b"\xff" * 8]) == keys[0]
    timed.do("FLUSHALL")
    assert timed.read([b"RAFT.RANDOMKEY", b"\xff" * 8]) is None
