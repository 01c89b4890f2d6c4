"""Cuts on their way to the disk: what needs the disk is done beside the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

from balsadb.kv.cut import SLICE_KEYS, STATE_VERSION, Bookkeeping
from balsadb.kv.delta import DeltaStore
from balsadb.server.cuts import CutWriter
from balsadb.storage.state import StateBatch, StateStore

KEYS = 3 * SLICE_KEYS
SECONDS_MAX = 30.0


class Watched(StateStore):
    """A state that notes which threads use it, and refuses as many writes as it is told."""

    def __init__(self, path: str) -> None:
        self.counting: set[threading.Thread] = set()
        self.writing: set[threading.Thread] = set()
        self.stalls = 0
        super().__init__(path)

    def count_present(self, keys):
        self.counting.add(threading.current_thread())
        return super().count_present(keys)

    def write(self, batch: StateBatch) -> bool:
        self.writing.add(threading.current_thread())
        if self.stalls:
            self.stalls -= 1
            return False
        return super().write(batch)


class Bench:
    """A cut writer whose replica is a store alone."""

    def __init__(self, state: Watched) -> None:
        self.state = state
        self.store = DeltaStore(state, 0, cache_bytes_max=0)
        self.done: list[int] = []
        replica = SimpleNamespace(machine=SimpleNamespace(store=self.store), cut_written=self._cut_written)
        wal = SimpleNamespace(first_within=lambda _: 1, collect_due=False)
        loop = asyncio.get_running_loop()
        self.writer = CutWriter(replica, wal, state, 0, loop, lambda: None)

    def _cut_written(self, cut, tail_first):
        self.store.written(cut)
        self.done.append(cut.index)

    def cut(self, index: int, *, release: bool = False) -> None:
        """Set all keys and hand the cut to the writer."""
        for number in range(KEYS):
            self.store.put(b"key:%d" % number, (b"v", index, 0))
        cut = self.store.freeze(Bookkeeping(STATE_VERSION, index, 1, 0, (1,), b"", (), ()))
        cut.release = release
        self.writer.add([cut])

    async def until(self, condition) -> None:
        deadline = time.monotonic() + SECONDS_MAX
        while not condition():
            assert time.monotonic() < deadline, "the writer stands still"
            await asyncio.sleep(0.001)


def run(path, use) -> Watched:
    """Let `use` work with a bench in an event loop; returns its state, closed."""

    async def main() -> Watched:
        state = Watched(str(path / "state"))
        bench = Bench(state)
        try:
            await use(bench)
        finally:
            await bench.writer.stop()
            state.close()
        return state

    return asyncio.run(main())


def test_keys_are_counted_and_written_by_worker_threads(tmp_path):
    async def use(bench):
        bench.cut(1)
        await bench.until(lambda: bench.done == [1])
        await bench.until(lambda: not bench.store.is_resident(b"key:0"))
        bench.cut(2)
        await bench.until(lambda: bench.done == [1, 2])
        assert len(bench.store) == KEYS
        assert bench.state.bookkeeping.keys == KEYS

    state = run(tmp_path, use)
    assert state.counting
    assert threading.main_thread() not in state.counting | state.writing


def test_what_a_written_cut_leaves_in_memory_is_forgotten_also_when_no_cut_follows(tmp_path):
    async def use(bench):
        bench.cut(1)
        await bench.until(lambda: bench.done == [1])
        await bench.until(lambda: not any(bench.store.is_resident(b"key:%d" % n) for n in range(KEYS)))

    run(tmp_path, use)


def test_cuts_are_written_in_their_order_also_when_the_disk_is_behind(tmp_path):
    async def use(bench):
        bench.state.stalls = 2
        for index in (1, 2, 3):
            bench.cut(index, release=index == 3)
        await bench.until(lambda: bench.done == [1, 2, 3])
        assert bench.state.bookkeeping.index == 3
        assert bench.state.get(b"key:0") == (b"v", 3, 0)
        assert bench.state.stalls == 0

    run(tmp_path, use)


def test_a_stopped_writer_writes_nothing_more(tmp_path):
    async def use(bench):
        bench.cut(1)
        await bench.writer.stop()
        written = len(bench.state.writing)
        bench.cut(2)
        # Everything that is on its way to the loop runs before a timer that is set now.
        await asyncio.sleep(0.01)
        assert len(bench.state.writing) == written
        assert bench.done == []

    run(tmp_path, use)
