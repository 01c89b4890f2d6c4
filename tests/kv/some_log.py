"""A log of all kinds of entries, drawn from a seed, for machines that are cut and put together again."""

from __future__ import annotations

import random
from typing import Any

from balsadb.kv.batch import encode_batch
from balsadb.kv.machine import StateMachine
from balsadb.raft.configuration import encode_configuration
from balsadb.raft.types import Configuration

MEMBERS = (1, 2, 3)


class SomeLog:
    """Entry `index` is always the same one, so a machine may leave and come back anywhere."""

    def __init__(self, length: int, seed: int = 1) -> None:
        draw = random.Random(seed)
        self._entries: list[tuple[str, Any]] = []
        sequences = dict.fromkeys(MEMBERS, 0)
        for index in range(1, length + 1):
            kind = draw.randrange(20)
            if kind == 0:
                self._entries.append(("empty", None))
            elif kind == 1:
                configuration = Configuration(voters=MEMBERS, learners=(10 + index,))
                self._entries.append(("membership", configuration))
            else:
                node = draw.choice(MEMBERS)
                sequences[node] += 1
                commands = [_command(draw) for _ in range(draw.randrange(1, 5))]
                if index % 7 == 0:
                    commands.append([b"RAFT.DIGEST"])
                self._entries.append(("commands", encode_batch(node, 1, sequences[node], commands)))

    def __len__(self) -> int:
        return len(self._entries)

    def apply(self, machine: StateMachine, up_to: int) -> StateMachine:
        """Apply what comes next, up to an index; returns the machine."""
        while machine.applied_index < up_to:
            index = machine.applied_index + 1
            kind, what = self._entries[index - 1]
            term, time_ms = 1 + index // 10, 1000 * index
            if kind == "commands":
                assert machine.apply_commands(index, term, time_ms, what).ran
            elif kind == "membership":
                payload = encode_configuration(what)
                machine.apply_membership(index, term, time_ms, what.everyone(), what.removed, payload)
            else:
                machine.apply_empty(index, term, time_ms)
        return machine

    def digest(self, index: int) -> bytes:
        """The digest of the state right after an entry."""
        return self.apply(StateMachine(MEMBERS), index).digest()


def _command(draw: random.Random) -> list[bytes]:
    key = b"key-%d" % draw.randrange(12)
    match draw.randrange(10):
        case 0:
            return [b"DEL", key]
        case 1:
            return [b"APPEND", key, b"+"]
        case 2:
            return [b"INCR", b"n" + key]
        case 3:
            return [b"MSET", key, draw.randbytes(5), b"m" + key, b"2"]
        case 4:
            return [b"SET", key, b"soon", b"PX", b"%d" % draw.randrange(1, 9_000)]
        case 5:
            return [b"EXPIRE", key, b"%d" % draw.randrange(9)]
        case 6:
            return [b"GETEX", key, b"PERSIST"] if draw.random() < 0.5 else [b"RENAME", key, b"m" + key]
        case 7 if draw.random() < 0.3:
            return [b"FLUSHALL"]
        case _:
            return [b"SET", key, draw.randbytes(draw.randrange(40))]
