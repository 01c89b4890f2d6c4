"""TEMPORARY: entries in a list with synced/unsynced, until the WAL runs over a simulated disk."""

from __future__ import annotations

import random

from balsadb.raft.entry import Entry
from balsadb.raft.node import Recovered
from balsadb.raft.ready import WriteBatch
from balsadb.raft.types import EntryKind, HardState, Index, NodeId
from balsadb.sim.faults import FaultPlan


class Storage:
    """A stand-in for the WAL."""

    def __init__(self, node_id: NodeId, rng: random.Random, plan: FaultPlan) -> None:
        self._rng = rng
        self._plan = plan
        self._entries: list[Entry] = []
        self._hard_state = HardState()
        self._pending: WriteBatch | None = None

    def open(self) -> Recovered:
        terms: list[tuple[int, int]] = []
        for e in self._entries:
            if not terms or terms[-1][1] != e.term:
                terms.append((e.index, e.term))
        n = len(self._entries)
        h = self._hard_state
        return Recovered(
            hard_state=HardState(h.term, h.vote, min(h.commit, n)),
            last_index=n,
            terms=tuple(terms),
            last_time_ms=self._entries[-1].time_ms if n else 0,
            memberships=tuple(e for e in self._entries if e.kind is EntryKind.MEMBERSHIP),
        )

    def begin(self, write: WriteBatch) -> None:
        self._pending = write

    def sync_us(self, healthy: bool) -> int:
        plan, rng = self._plan, self._rng
        if not healthy and rng.random() < plan.slow_sync:
            return rng.randrange(2_000_000)
        return rng.randint(plan.sync_us_min, plan.sync_us_max)

    def finish(self, healthy: bool) -> bool:
        if not healthy and self._rng.random() < self._plan.failed_sync:
            self.crash(power_loss=False)
            return False
        self._do()
        return True

    def _do(self) -> None:
        w = self._pending
        assert w is not None
        for e in w.entries:
            del self._entries[e.index - 1 :]
            self._entries.append(e)
        if w.hard_state is not None:
            self._hard_state = w.hard_state
        self._pending = None

    def crash(self, power_loss: bool) -> None:
        if self._pending is not None and self._rng.random() < 0.5:
            self._do()
        self._pending = None

    def read(self, first: Index, last: Index) -> tuple[Entry, ...]:
        return tuple(self._entries[first - 1 : last])
