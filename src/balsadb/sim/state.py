"""The state on a simulated machine's disk: what RocksDB promises of it, and no more (rule C1).

A cut that was written is in memory; it is durable once it was flushed. RocksDB may flush by itself at any
moment, and a process that ends leaves some whole cuts behind, in their order.
"""

from __future__ import annotations

import random

from balsadb.kv.cut import Bookkeeping, decode_bookkeeping
from balsadb.kv.memory import MemoryBase, MemoryBatch
from balsadb.raft.types import Index
from balsadb.sim.disk import Disk


class SimulatedState:
    """One machine's state directory."""

    def __init__(self, disk: Disk, rng: random.Random) -> None:
        self.base = MemoryBase()
        """With everything written, durable or not."""
        self.installed: Index = 0
        """Index of the state when it was received; 0 when it grew here."""
        self._disk = disk
        self._rng = rng
        self._durable = MemoryBase()
        self._unflushed: list[MemoryBatch] = []

    @property
    def bookkeeping(self) -> Bookkeeping | None:
        """The bookkeeping of the newest written cut."""
        return decode_bookkeeping(self.base.data) if self.base.data else None

    def write(self, batch: MemoryBatch) -> None:
        """Write a cut to memory. Raises StorageError as the disk does."""
        self._disk.step("write", "state")
        self.base.write(batch)
        self._unflushed.append(batch)

    def flush(self) -> None:
        """Make everything written durable. Raises StorageError as the disk does."""
        self._disk.step("sync", "state", grows=True)
        self._settle(len(self._unflushed))

    def install(self, base: MemoryBase, index: Index) -> None:
        """Let a received state take the place of this one, durably."""
        self._disk.step("rename", "state")
        self._durable, self.installed = base, index
        self._unflushed.clear()

    def reopen(self) -> None:
        """Read what is on disk, at a start or after an install."""
        self.base = self._durable.copy()

    def lose(self) -> None:
        """Forget everything, as when somebody removed the directory."""
        self._durable, self.installed = MemoryBase(), 0

    def process_ended(self) -> None:
        """Keep the first few of the cuts that were not flushed: any number of them, whole."""
        self._settle(self._rng.randint(0, len(self._unflushed)))
        self._unflushed.clear()

    def _settle(self, count: int) -> None:
        for batch in self._unflushed[:count]:
            self._durable.write(batch)
        del self._unflushed[:count]
