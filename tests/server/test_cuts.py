"""Cuts on their way to a real RocksDB, beside a running event loop (rule C1)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from balsadb.errors import StorageError
from balsadb.kv import cut as cut_module
from balsadb.kv.machine import StateMachine
from balsadb.server import cuts as cuts_module
from balsadb.server.cuts import CutWriter
from balsadb.storage.state import StateStore
from kv.some_log import MEMBERS, SomeLog

LOG = SomeLog(60)


class Stopped(BaseException):
    """The process was told to stop; the loop's exception handler sees it."""


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    """Many slices for few keys; and a stop that a test can see."""
    monkeypatch.setattr(cut_module, "SLICE_KEYS", 2)
    monkeypatch.setattr(cuts_module, "STALL_SECONDS", 0.001)

    def stop(sentence):
        raise Stopped(sentence)

    monkeypatch.setattr(cuts_module, "stop_process", stop)


class FakeWal:
    def __init__(self) -> None:
        self.collect_due = False
        self.collected = 0
        self.failing = False

    def first_within(self, bytes_max):
        return bytes_max

    def collect(self):
        self.collected += 1
        self.collect_due = False
        if self.failing:
            raise StorageError("no")


class Writing:
    """A cut writer with a machine that makes cuts for it."""

    def __init__(self, path) -> None:
        self.path = str(path)
        self.store = StateStore(self.path)
        self.machine = StateMachine(MEMBERS, self.store, None, 500)
        self.told: list[tuple[int, int]] = []
        self.wakes = 0
        self.wal = FakeWal()
        replica = SimpleNamespace(machine=self.machine, cut_written=self._told)
        loop = asyncio.get_running_loop()
        self.faults: list[BaseException] = []
        loop.set_exception_handler(lambda _, context: self.faults.append(context["exception"]))
        self.writer = CutWriter(replica, self.wal, self.store, 77, loop, self._wake)

    def _told(self, cut, tail_first):
        self.machine.store.written(cut)
        self.told.append((cut.index, tail_first))

    def _wake(self):
        self.wakes += 1

    def cut(self, index: int, *, release: bool = False):
        cut = LOG.apply(self.machine, index).freeze()
        cut.release = release
        return cut

    async def until(self, count: int) -> None:
        """Wait for so many cuts to be written."""
        async with asyncio.timeout(20):
            while len(self.told) < count and not self.faults:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        await self.writer.stop()
        self.store.close()


def writing(tmp_path, act) -> None:
    async def run() -> None:
        made = Writing(tmp_path / "state")
        try:
            await act(made)
        finally:
            await made.close()

    asyncio.run(run())


def test_cuts_are_written_one_after_another_in_order(tmp_path):
    async def act(made):
        made.writer.add([made.cut(10), made.cut(25)])
        made.writer.add([made.cut(40)])
        await made.until(3)
        assert made.told == [(10, 77), (25, 77), (40, 77)]
        assert (made.writer.written, made.wakes) == (3, 3)
        again = StateMachine((), made.store, made.store.bookkeeping)
        assert again.digest() == LOG.digest(40)

    writing(tmp_path, act)


def test_the_machine_goes_on_while_a_cut_is_written(tmp_path):
    async def act(made):
        made.writer.add([made.cut(20)])
        for index in range(21, 40):
            LOG.apply(made.machine, index)
            await asyncio.sleep(0)
        await made.until(1)
        assert StateMachine((), made.store, made.store.bookkeeping).digest() == LOG.digest(20)
        assert made.machine.digest() == LOG.digest(39)

    writing(tmp_path, act)


def test_the_loop_goes_round_between_two_slices(tmp_path):
    """Nobody waits for the sorting of thousands of keys."""

    async def act(made):
        rounds = 0
        made.writer.add([made.cut(50)])
        while not made.told:
            await asyncio.sleep(0)
            rounds += 1
        assert rounds >= len(made.machine) // 2

    writing(tmp_path, act)


def test_only_a_cut_that_lets_the_log_go_is_flushed(tmp_path):
    async def act(made):
        flushes = []
        flush = made.store.flush
        made.store.flush = lambda: (flushes.append(made.store.bookkeeping.index), flush())
        made.writer.add([made.cut(10), made.cut(20, release=True), made.cut(30)])
        await made.until(3)
        assert flushes == [20]

    writing(tmp_path, act)


def test_a_durable_cut_is_told_of_only_after_its_flush(tmp_path):
    """Rule C1: only a flushed cut releases log."""

    async def act(made):
        order = []
        flush, told = made.store.flush, made.writer._replica.cut_written
        made.store.flush = lambda: (flush(), order.append("flushed"))
        made.writer._replica.cut_written = lambda cut, first: (order.append("told"), told(cut, first))
        made.writer.add([made.cut(10, release=True)])
        await made.until(1)
        assert order == ["flushed", "told"]

    writing(tmp_path, act)


def test_a_stalled_write_is_tried_again_with_the_same_cut(tmp_path):
    async def act(made):
        write, refusals = made.store.write, [False, False]
        made.store.write = lambda batch: refusals.pop() if refusals else write(batch)
        made.writer.add([made.cut(10), made.cut(20)])
        await made.until(2)
        assert made.told == [(10, 77), (20, 77)]
        assert StateMachine((), made.store, made.store.bookkeeping).digest() == LOG.digest(20)

    writing(tmp_path, act)


@pytest.mark.parametrize("operation", ["write", "flush"])
def test_a_failure_stops_the_process_and_nothing_is_told(tmp_path, operation):
    """Rule W4."""

    async def act(made):
        def fail(*_):
            raise StorageError("the disk is gone")

        setattr(made.store, operation, fail)
        made.writer.add([made.cut(10, release=True)])
        await made.until(1)
        assert made.told == []
        assert [repr(fault) for fault in made.faults] == [repr(Stopped("the disk is gone"))]

    writing(tmp_path, act)


def test_stopping_finishes_the_write_under_way_and_begins_no_other(tmp_path):
    async def act(made):
        made.writer.add([made.cut(10), made.cut(20)])
        while made.writer._working is None or made.writer._slices is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await made.writer.stop()
        assert made.store.bookkeeping.index == 10
        for _ in range(50):
            await asyncio.sleep(0)
        assert (made.store.bookkeeping.index, made.told) == (10, [])

    writing(tmp_path, act)


def test_old_files_are_collected_in_a_worker_once_at_a_time(tmp_path):
    async def act(made):
        made.writer.collect()
        assert made.wal.collected == 0
        made.wal.collect_due = True
        made.writer.collect()
        made.writer.collect()
        async with asyncio.timeout(10):
            while made.writer._collecting:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert made.wal.collected == 1
        made.wal.collect_due = True
        made.writer.collect()
        async with asyncio.timeout(10):
            while made.wal.collected < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    writing(tmp_path, act)
