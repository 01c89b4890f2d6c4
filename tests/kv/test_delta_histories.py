"""Long random histories of a `DeltaStore` with hardly any memory, where a worker's answers come late."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from balsadb.kv import delta
from balsadb.kv.delta import DeltaStore
from balsadb.kv.memory import MemoryBase
from balsadb.kv.presence import Presence
from kv.delta_model import bookkeeping, write

STEPS = 500


class History:
    """One store beside a dict, as a server uses it: cuts and reads ahead in worker threads."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        choice = self.random.choice
        self.base = MemoryBase()
        self.store = DeltaStore(self.base, 0, choice([600, 1_500, 3_000]))
        self.store._present = Presence(choice([0, 128, 4_096]))
        self.keys = [b"%d" % number for number in range(choice([4, 12, 40]))]
        self.clears = choice([0, 0, 1])
        self.model: dict[bytes, Any] = {}
        self.frozen: list[dict[bytes, Any]] = []
        """What the model was at each cut that is not written."""
        self.revision = 0
        self.ahead: Any = None
        self.counting: Any = None
        self.seen: Counter[str] = Counter()

    def run(self) -> None:
        steps = [self.put] * 25 + [self.get] * 7 + [self.remove] * 10 + [self.put_and_remove] * 5
        steps += [self.clear] * self.clears + [self.store.trim] * 7 + [self.freeze] * 8 + [self.count] * 16
        steps += [self.write] * 8 + [self.read_ahead] * 4 + [self.change_what_is_being_read] * 3
        steps += [self.count_all]
        for _ in range(STEPS):
            self.random.choice(steps)()
            self.check()
        self.count_all()

    def key(self) -> bytes:
        return self.random.choice(self.keys)

    def put(self, key: bytes = b"") -> None:
        key = key or self.key()
        self.revision += 1
        if not self.store.is_resident(key):
            self.seen["marked" if key in self.store._present else "blind"] += 1
        self.model[key] = (b"v" * self.random.choice([1, 50, 900]), self.revision, 0)
        self.store.put(key, self.model[key])

    def get(self) -> bytes:
        key = self.key()
        assert self.store.get(key) == self.model.get(key)
        return key

    def remove(self) -> None:
        key = self.get()
        if key in self.model:
            self.store.remove(key)
            del self.model[key]

    def put_and_remove(self) -> None:
        key = self.key()
        self.store.put(key, (b"v", self.revision, 0))
        self.store.remove(key)
        self.model.pop(key, None)

    def clear(self) -> None:
        self.store.clear()
        self.model.clear()

    def freeze(self) -> None:
        if len(self.store.cuts) < 4:
            self.store.freeze(bookkeeping(self.revision))
            self.frozen.append(dict(self.model))

    def count(self) -> None:
        """A worker counts some keys of the oldest cut, and tells later."""
        if self.counting is not None:
            self.store.counted(*self.counting)
            self.counting = None
        elif self.frozen and (keys := self.store.uncounted(self.store.cuts[0])):
            self.counting = (self.store.cuts[0], keys, self.base.count_present(keys))

    def write(self) -> None:
        if not self.frozen or self.counting is not None:
            return
        cut, held = self.store.cuts[0], self.frozen.pop(0)
        while self.store.count(cut):
            pass
        write(self.base, cut)
        self.store.written(cut)
        assert cut.bookkeeping.keys == len(held)
        assert dict(self.base.sorted_items()) == held

    def read_ahead(self) -> None:
        """A worker reads keys that are not in memory, and brings them later (rule R5)."""
        if self.ahead is not None:
            self.store.warm(*self.ahead)
            self.ahead = None
        elif not self.store.complete:
            cold = [key for key in self.keys if not self.store.is_resident(key)]
            keys = self.random.sample(cold, min(len(cold), self.random.choice([1, 12])))
            self.ahead = (keys, self.base.get_many(keys), self.store.forgotten)

    def change_what_is_being_read(self) -> None:
        """A key gets a new record, which is written, while a worker has the old one."""
        if self.ahead is None or not self.ahead[0]:
            return
        self.put(self.random.choice(self.ahead[0]))
        self.freeze()
        while self.frozen and self.counting is None:
            self.write()

    def count_all(self) -> None:
        assert len(self.store) == len(self.model)

    def check(self) -> None:
        store, model = self.store, self.model
        self.seen["leaving"] += bool(store._leaving)
        for key, record in store._resident.items():
            assert record == model.get(key)
        for key in self.keys:
            if not store.is_resident(key) and key in store._present:
                assert key in self.base.records


@pytest.mark.slow
def test_memory_and_marks_are_right_after_every_step_of_random_histories(monkeypatch):
    monkeypatch.setattr(delta, "SLICE_KEYS", 5)
    monkeypatch.setattr(delta, "RECORD_MEMORY_BYTES", 100)
    seen: Counter[str] = Counter()
    for seed in range(150):
        monkeypatch.setattr(delta, "READ_GENERATION_BYTES", random.Random(seed).choice([1, 300, 1_000]))
        history = History(seed)
        history.run()
        seen += history.seen
    assert min(seen[what] for what in ("marked", "blind", "leaving")) > 300
