"""Making writes of the log durable while the event loop works.

There are two ways. Mostly the loop itself hands the bytes to the kernel and has the kernel sync them
(`kernel_sync`), which needs no thread. A thread does what may take long before the sync even begins: a new
segment, much data, every write for a while after the kernel has once let the loop wait or has not taken a
sync, and everything on systems without such a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import NoReturn, Protocol

from balsadb.server.failure import stop_process
from balsadb.server.kernel_sync import KernelSync
from balsadb.storage.wal import WalWrite

LOOP_BYTES_MAX = 256 * 1024
"""The loop copies no more than this to the kernel at a time: some 50 microseconds."""
LOOP_SECONDS_MAX = 0.005
"""A kernel that takes longer to take a write has made the loop wait for the disk, or for a processor."""
SHY_FACTOR = 100
"""For so many times as long a thread writes then: the loop waits for the disk a hundredth of its time.

Not for longer, since on a busy machine one write in some thousands takes so long with the disk at rest, and
what a thread does costs more."""
SHY_SECONDS = 10.0
"""The same after a sync that the kernel did not take."""
STOP_SECONDS = 10.0
"""How long a stop waits for a write."""


class Log(Protocol):
    """The part of a WAL that is needed here."""

    def execute(self, write: WalWrite) -> None:
        """Write and sync; raises on any failure."""
        ...

    def begin(self, write: WalWrite) -> int | None:
        """Write, and return the descriptor that must be synced; None: `execute` must do all of it."""
        ...

    def failed(self, reason: str) -> None:
        """Take nothing any more: what was begun could not be synced."""
        ...


class LogDisk:
    """Runs WAL writes, one at a time, and reports each to the event loop."""

    def __init__(self, wal: Log, loop: asyncio.AbstractEventLoop, done: Callable[[WalWrite], None]) -> None:
        """`done` is called on the loop when a write is on disk."""
        self._wal = wal
        self._loop = loop
        self._done = done
        self._kernel: KernelSync | None = None
        self._flying: WalWrite | None = None
        """What the kernel syncs."""
        self._shy_until = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue: SimpleQueue[WalWrite | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="wal-sync", daemon=True)

    def start(self) -> None:
        """Begin to take writes."""
        self._kernel = KernelSync.open(self._loop, self._synced)
        self._thread.start()

    def submit(self, write: WalWrite) -> None:
        """Have a write done. Call only when none is under way."""
        if self._kernel is None or write.length > LOOP_BYTES_MAX or not self._begin(self._kernel, write):
            self._queue.put(write)

    async def stop(self) -> None:
        """Finish what is under way, and end."""
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join, STOP_SECONDS)
        if self._kernel is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._idle.wait()
                self._kernel.close()  # which would wait for a sync without end

    # ---------------------------------------------------------------- by the kernel

    def _begin(self, kernel: KernelSync, write: WalWrite) -> bool:
        """Let the kernel do a write; False: a thread must, from the beginning."""
        began = time.monotonic()
        if began < self._shy_until:
            return False
        try:
            descriptor = self._wal.begin(write)
        except Exception as error:
            _stop(error)
        if (took := time.monotonic() - began) > LOOP_SECONDS_MAX:
            self._shy_until = began + SHY_FACTOR * took
        if descriptor is None:
            return False
        if not kernel.sync(descriptor):
            self._shy_until = began + SHY_SECONDS  # an old kernel never takes it: write nothing twice
            return False
        self._flying = write
        self._idle.clear()
        return True

    def _synced(self, error: int) -> None:
        write, self._flying = self._flying, None
        assert write is not None
        if error:
            self._wal.failed(reason := f"could not sync: {os.strerror(error)}")
            _stop(reason)
        self._idle.set()
        self._done(write)

    # ---------------------------------------------------------------- by the thread

    def _run(self) -> None:
        wal, loop, done = self._wal, self._loop, self._done
        while (write := self._queue.get()) is not None:
            try:
                wal.execute(write)
            except BaseException as error:
                _stop(error)
            try:
                loop.call_soon_threadsafe(done, write)
            except RuntimeError:
                return  # the loop was closed: the node is stopping


def _stop(error: object) -> NoReturn:
    # Rule W4: what was written is in doubt, and no retry can make it certain again.
    stop_process(f"the write-ahead log can't be written: {error}")
