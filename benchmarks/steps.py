"""How long each step of a cut takes by itself, without a cluster: what the event loop stands still for.

A step is timed by the processor time of its thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from balsadb.kv.cut import STATE_VERSION, Bookkeeping
from balsadb.kv.delta import DeltaStore
from balsadb.kv.machine import CACHE_BYTES_MAX
from balsadb.replica.limits import ReplicaOptions
from balsadb.storage.state import StateStore
from loads import VALUE_BYTES, Values

CUTS = 20
CUTS_PER_FLUSH = 5
STALL_SECONDS = 0.05

_T = TypeVar("_T")


@dataclass(frozen=True)
class Step:
    """All of one kind."""

    name: str
    thread: str
    """Where a server does it."""
    times_ms: list[float]

    @property
    def longest_ms(self) -> float:
        """The longest one."""
        return max(self.times_ms)

    @property
    def median_ms(self) -> float:
        """The median."""
        return statistics.median(self.times_ms)


class _Cutter:
    """A store that is cut as a server cuts it."""

    def __init__(self, state: StateStore) -> None:
        self.state = state
        self.store = DeltaStore(state, 0, CACHE_BYTES_MAX)
        self.index = 0
        self.steps: dict[str, Step] = {}

    def put(self, number: int, value: bytes) -> bool:
        """Set a key; True when a cut is due."""
        self.index += 1
        self.store.put(b"key:%012d" % number, (value, self.index, 0))
        options = ReplicaOptions()
        return (
            self.store.changed_keys >= options.cut_keys_max
            or self.store.changed_bytes >= options.cut_bytes_max
        )

    def cut(self, *, flush: bool) -> None:
        """Make a cut and bring it to the disk."""
        bookkeeping = Bookkeeping(STATE_VERSION, self.index, 1, 0, (1, 2, 3), b"", (), ())
        cut = self._timed("freeze", "loop", lambda: self.store.freeze(bookkeeping))
        while keys := self.store.uncounted(cut):
            present = self._timed("count", "worker", lambda: self.state.count_present(keys))
            self._timed("note count", "loop", lambda: self.store.counted(cut, keys, present))  # noqa: B023
        written = False
        while not written:
            batch = self.state.batch()
            slices = cut.build(batch)
            while self._timed("sort, encode", "loop", lambda: next(slices, cut)) is not cut:  # noqa: B023
                pass
            written = self._timed("write", "worker", lambda: self.state.write(batch))  # noqa: B023
            if not written:
                time.sleep(STALL_SECONDS)
        self._timed("forget", "loop", lambda: self.store.written(cut))
        while self._timed("forget", "loop", self.store.trim):
            pass
        if flush:
            self._timed("flush", "worker", self.state.flush)

    def _timed(self, name: str, thread: str, step: Callable[[], _T]) -> _T:
        began = time.thread_time()
        result = step()
        elapsed = (time.thread_time() - began) * 1e3
        self.steps.setdefault(name, Step(name, thread, [])).times_ms.append(elapsed)
        return result


def measure_steps(directory: Path, keys: int) -> list[Step]:
    """Write `keys` keys, then overwrite random ones for some cuts; returns the steps of these."""
    directory.mkdir(parents=True)
    state = StateStore(str(directory / "state"))
    try:
        cutter = _Cutter(state)
        values = Values()
        for number in range(keys):
            if cutter.put(number, values.draw(VALUE_BYTES)):
                cutter.cut(flush=False)
        cutter.cut(flush=True)
        cutter.steps.clear()
        draw = random.Random(1).randrange
        for number in range(CUTS):
            while not cutter.put(draw(keys), values.draw(VALUE_BYTES)):
                pass
            cutter.cut(flush=number % CUTS_PER_FLUSH == 0)
        return list(cutter.steps.values())
    finally:
        state.close()
