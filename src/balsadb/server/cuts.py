"""Writing cuts: built on the event loop in slices, written and flushed by a worker thread (rule C1).

A slice takes well below a millisecond and the loop goes round between two of them, so nobody notices. What is
left, one call into RocksDB per cut, holds Python's lock for a few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from balsadb.kv.cut import Cut
from balsadb.replica.replica import Replica
from balsadb.server.failure import stop_process
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
        self._replica = replica
        self._wal = wal
        self._tail_bytes = tail_bytes
        self._loop = loop
        self._wake = wake
        self._queue: deque[Cut] = deque()
        self._batch: StateBatch | None = None
        self._slices: Iterator[None] | None = None
        self._stopped = False
        self._writing: asyncio.Future[bool] | None = None
        self._collecting = False

    def add(self, cuts: Sequence[Cut]) -> None:
        """Take new cuts."""
        if not self._queue:
            self._loop.call_soon(self._step)
        self._queue += cuts

    async def stop(self) -> None:
        """Make no further cut; one that is being written is finished."""
        self._stopped = True
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def _step(self) -> None:
        """Do one slice of the work on the oldest cut."""
        if self._stopped:
            return
        cut = self._queue[0]
        try:
            if self._slices is None:
                if not self._replica.machine.store.count(cut):
                    self._batch = self.store.batch()
                    self._slices = cut.build(self._batch)
            elif next(self._slices, cut) is cut:
                self._write()
                return
        except Exception as error:
            stop_process(str(error))
        self._loop.call_soon(self._step)

    def _write(self) -> None:
        assert self._batch is not None
        self._writing = self._loop.run_in_executor(
            None, _write, self.store, self._batch, self._queue[0].release
        )
        self._writing.add_done_callback(self._done)

    def _done(self, done: asyncio.Future[bool]) -> None:
        self._writing = None
        try:
            written = done.result()
        except Exception as error:
            stop_process(str(error))  # rule W4: nothing is acknowledged after it
        if self._stopped:
            return
        self._batch = self._slices = None
        if not written:
            self._loop.call_later(STALL_SECONDS, self._step)  # the refused batch is used up: build it again
            return
        cut = self._queue.popleft()
        self.written += 1
        try:
            self._replica.cut_written(cut, self._wal.first_within(self._tail_bytes))
        except Exception as error:
            stop_process(str(error))
        if self._queue:
            self._loop.call_soon(self._step)
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


def _write(store: StateStore, batch: StateBatch, durable: bool) -> bool:
    if not store.write(batch):
        return False
    if durable:
        store.flush()
    return True
