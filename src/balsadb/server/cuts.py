"""Writing cuts: built on the event loop in slices; counted, written and flushed by a worker thread (rule C1).

A slice takes well below a millisecond and the loop goes round between two of them, so nobody notices. What is
left, one call into RocksDB per cut, holds Python's lock for a few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from balsadb.kv.cut import Cut
from balsadb.kv.delta import DeltaStore
from balsadb.replica.replica import Replica
from balsadb.server.failure import stop_process
from balsadb.server.journal import journal
from balsadb.server.telemetry import Histogram
from balsadb.storage.state import StateBatch, StateStore
from balsadb.storage.wal import Wal

STALL_SECONDS = 0.05
"""Pause before a cut is offered again to a RocksDB that is behind with its work."""


class CutWriter:
    """Brings the cuts of a replica to the disk, one after another."""

    def __init__(
        self,
        replica: Replica,
        wal: Wal,
        store: StateStore,
        tail_bytes: int,
        loop: asyncio.AbstractEventLoop,
        wake: Callable[[], None],
    ) -> None:
        """`tail_bytes` of the log are kept for followers that are a little behind."""
        self.store = store
        """Replaced when a state of another node is installed; no cut is under way then."""
        self.written = 0
        """Cuts written so far."""
        self.written_bytes = 0
        """What RocksDB was given in them."""
        self.newest_bytes = 0
        """The same for the newest one."""
        self.durable = 0
        """How many of them let the log before them go."""
        self.took = Histogram()
        """How long each took, from its first slice until it was in RocksDB, the durable ones on disk."""
        self._cut_began = 0.0
        """When the oldest cut that waits was first looked at; 0 for not yet."""
        self._replica = replica
        self._wal = wal
        self._tail_bytes = tail_bytes
        self._loop = loop
        self._wake = wake
        self._queue: deque[Cut] = deque()
        self._batch: StateBatch | None = None
        self._slices: Iterator[None] | None = None
        self._stopped = False
        self._scheduled = False
        """True while a call of `_step` is under way to the loop."""
        self._working: asyncio.Future[int] | None = None
        """What a worker thread does for the oldest cut."""
        self._collecting = False

    def add(self, cuts: Sequence[Cut]) -> None:
        """Take new cuts."""
        self._queue += cuts
        self._go_on()

    @property
    def waiting(self) -> int:
        """Cuts that are not written yet."""
        return len(self._queue)

    async def stop(self) -> None:
        """Make no further cut; one that is being written is finished."""
        self._stopped = True
        if self._working is not None:
            await asyncio.wait([self._working])

    def _go_on(self) -> None:
        if not self._scheduled and self._working is None:
            self._scheduled = True
            self._loop.call_soon(self._step)

    def _go_on_in(self, seconds: float) -> None:
        self._scheduled = True
        self._loop.call_later(seconds, self._step)

    def _step(self) -> None:
        """Do one slice: of what the cut before has left to be forgotten, or else of the oldest cut."""
        self._scheduled = False
        if self._stopped:
            return
        store = self._replica.machine.store
        try:
            if not store.trim():
                if not self._queue:
                    return
                self._step_cut(store, self._queue[0])
        except Exception as error:
            stop_process(str(error))
        self._go_on()

    def _step_cut(self, store: DeltaStore, cut: Cut) -> None:
        self._cut_began = self._cut_began or self._loop.time()
        if self._slices is None:
            if keys := store.uncounted(cut):
                self._work(partial(self.store.count_present, keys), partial(self._counted, cut, keys))
            else:
                self._batch = self.store.batch()
                self._slices = cut.build(self._batch)
        elif next(self._slices, cut) is cut:
            assert self._batch is not None
            self._work(partial(_write, self.store, self._batch, cut.release), partial(self._written, cut))

    def _work(self, work: Callable[[], int], done: Callable[[int], None]) -> None:
        """Have something done by a worker thread, and go on with what it returned."""
        self._working = self._loop.run_in_executor(None, work)
        self._working.add_done_callback(partial(self._worked, done))

    def _worked(self, done: Callable[[int], None], future: asyncio.Future[int]) -> None:
        self._working = None
        try:
            result = future.result()
            if not self._stopped:
                done(result)
        except Exception as error:
            stop_process(str(error))  # rule W4: nothing is acknowledged after it

    def _counted(self, cut: Cut, keys: Sequence[bytes], present: int) -> None:
        self._replica.machine.store.counted(cut, keys, present)
        self._go_on()

    def _written(self, cut: Cut, written: int) -> None:
        self._batch = self._slices = None
        if not written:
            self._go_on_in(STALL_SECONDS)  # the refused batch is used up: build it again
            return
        self._queue.popleft()
        self.written += 1
        self.durable += cut.release
        if cut.release:
            journal.say("snapshot", index=cut.bookkeeping.index, term=cut.bookkeeping.term, bytes=written)
        self.newest_bytes = written
        self.written_bytes += written
        self.took.add(self._loop.time() - self._cut_began)
        self._cut_began = 0.0
        self._replica.cut_written(cut, self._wal.first_within(self._tail_bytes))
        self._go_on()
        self._wake()

    # ---------------------------------------------------------------- old files of the log

    def collect(self) -> None:
        """Remove files of the log that no start needs any more, in a worker thread."""
        if self._collecting or not self._wal.collect_due:
            return
        self._collecting = True
        self._loop.run_in_executor(None, self._wal.collect).add_done_callback(self._collected)

    def _collected(self, done: asyncio.Future[None]) -> None:
        self._collecting = False
        if not self._stopped and not done.cancelled() and (error := done.exception()) is not None:
            stop_process(f"an old file of the write-ahead log can't be removed: {error}")


def _write(store: StateStore, batch: StateBatch, durable: bool) -> int:
    """Write a cut and return its bytes; 0: RocksDB is behind with its work."""
    size = batch.size
    if not store.write(batch):
        return 0
    if durable:
        store.flush()
    return size
