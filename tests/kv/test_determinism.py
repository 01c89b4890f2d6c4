"""Rule S4: apply is total, and the same on every replica whatever its process is like."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from balsadb.kv.batch import FORMAT_VERSION, encode_batch
from balsadb.kv.machine import StateMachine
from balsadb.kv.reply import Refusal
from balsadb.kv.table import COMMANDS

NAMES = st.sampled_from(
    [*COMMANDS, *[name.lower() for name in COMMANDS], b"gEt", b"Set", b"EXEC", b"EXEC", b"", b"NOSUCH"]
)
WORDS = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"c", b"n", b"NX", b"XX", b"GET", b"0", b"1", b"2", b"3", b"-1", b"x" * 100]
    ),
    st.integers(-(2**64), 2**64).map(lambda number: b"%d" % number),
    st.binary(max_size=8),
)
VECTORS = st.builds(lambda name, rest: [name, *rest], NAMES, st.lists(WORDS, max_size=5)) | st.just([])
SLOTS = st.lists(st.tuples(st.integers(0, 12), VECTORS), max_size=4).map(lambda slots: sorted(slots))
BATCHES = st.lists(st.tuples(st.lists(VECTORS, max_size=10), SLOTS), max_size=6)
STRUCTURES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.binary(max_size=8), st.text(max_size=4)
    ),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.binary(max_size=200))
def test_no_payload_of_a_known_version_raises(data):
    machine = StateMachine([1])
    outcome = machine.apply_commands(1, 1, 1, bytes([FORMAT_VERSION]) + data)
    assert machine.applied_index == 1
    assert outcome.ran or len(machine) == 0


@given(STRUCTURES, st.integers(0, 3))
def test_no_structure_in_a_payload_raises(structure, wrapped):
    machine = StateMachine([1])
    value = [[structure], [1, 1, 1, structure], [1, 1, 1, [structure]], [1, 1, 1, [[b"SET", structure]]]][
        wrapped
    ]
    machine.apply_commands(1, 1, 1, bytes([FORMAT_VERSION]) + msgspec.msgpack.encode(value))
    assert machine.applied_index == 1


def feed(machine: StateMachine, batches, with_slots: bool) -> list[object]:
    replies: list[object] = []
    for index, (commands, slots) in enumerate(batches, 1):
        payload = encode_batch(1, 1, index, commands)
        outcome = machine.apply_commands(index, 1, index, payload, slots if with_slots else ())
        assert outcome.ran
        replies.append(outcome.replies)
    return replies


@settings(max_examples=300)
@given(BATCHES)
def test_machines_fed_the_same_entries_are_equal(batches):
    machine, other = StateMachine([1]), StateMachine([1])
    replies = feed(machine, batches, with_slots=True)
    others = feed(other, batches, with_slots=False)
    assert machine.digest() == other.digest()
    for (_, slots), mine, bare in zip(batches, replies, others, strict=True):
        assert len(mine) == len(bare) + len(slots)


def records(machine: StateMachine) -> dict[bytes, object]:
    return dict(machine.store.sorted_items())


@settings(max_examples=300)
@given(st.lists(VECTORS, max_size=30))
def test_a_refused_command_changes_nothing(commands):
    machine = StateMachine([1])
    for index, argv in enumerate(commands, 1):
        before = records(machine)
        [reply] = machine.apply_commands(index, 1, 1, encode_batch(1, 1, index, [argv])).replies
        if isinstance(reply, Refusal):
            assert records(machine) == before


PROGRAM = """
import random
from balsadb.kv.batch import encode_batch
from balsadb.kv.machine import StateMachine
draw = random.Random(7)
machine = StateMachine({3, 1, 2})
keys = [b"key:%d" % number for number in range(200)]
def command():
    kind = draw.randrange(6)
    some = draw.sample(keys, draw.randrange(1, 6))
    if kind == 0: return [b"SET", some[0], draw.randbytes(9)]
    if kind == 1: return [b"DEL", *some]
    if kind == 2: return [b"MSET", *[word for key in some for word in (key, key)]]
    if kind == 3: return [b"APPEND", some[0], b"x"]
    if kind == 4: return [b"INCR", b"n:" + some[0]]
    return [b"MGET", *some]
sequence = dict.fromkeys((1, 2, 3), 0)
for index in range(1, 301):
    node = draw.choice((1, 2, 3))
    sequence[node] += 1
    commands = [command() for _ in range(draw.randrange(1, 9))]
    if draw.random() < 0.3:
        commands.insert(0, [b"EXEC", b"%d" % len(commands)])
    if index % 50 == 0:
        commands.append([b"RAFT.DIGEST"])
    payload = encode_batch(node, 1, sequence[node], commands)
    replies = machine.apply_commands(index, 1, index, payload).replies
print(machine.digest().decode(), len(machine), replies[-1])
"""


def test_the_order_of_hash_tables_does_not_matter():
    """Bad input 37: Python seeds its hashes anew in every process."""
    said = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(said) == 1
    assert "[300, b'" in said.pop()
