"""The thread that makes writes durable, so that the event loop works while the disk does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from typing import Protocol

from balsadb.server.failure import stop_process
from balsadb.storage.wal import WalWrite


class Executor(Protocol):
    """The part of a WAL that the thread needs."""

    def execute(self, write: WalWrite) -> None:
        """Write and sync; raises on any failure."""
        ...


class SyncThread:
    """Runs WAL writes one after another and reports each to the event loop.

    A plain thread on a `SimpleQueue` and not an executor: with one client every microsecond between a
    command and its sync counts.
    """

    def __init__(
        self, wal: Executor, loop: asyncio.AbstractEventLoop, done: Callable[[WalWrite], None]
    ) -> None:
        self._wal = wal
        self._loop = loop
        self._done = done
        self.on_measure: Callable[[float], None] | None = None
        """Is told in the thread how many seconds a write took."""
        self._queue: SimpleQueue[WalWrite | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="wal-sync", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, write: WalWrite) -> None:
        """Queue a write; `done` is called on the loop when it is on disk."""
        self._queue.put(write)

    def stop(self) -> None:
        """Let the thread finish what is queued, and end it."""
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        wal, loop, done = self._wal, self._loop, self._done
        while (write := self._queue.get()) is not None:
            began = perf_counter()
            try:
                wal.execute(write)
            except BaseException as error:
                # Rule W4: what was written is in doubt, and no retry can make it certain again.
                stop_process(f"the write-ahead log can't be written: {error}")
            took = perf_counter() - began
            try:
                loop.call_soon_threadsafe(done, write)
            except RuntimeError:
                return  # the loop was closed: the node is stopping
            if self.on_measure is not None:
                self.on_measure(took)
