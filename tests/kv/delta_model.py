"""A `DeltaStore` over any base, beside plain dicts that say what it must hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from balsadb.kv.cut import STATE_VERSION, Bookkeeping, Cut
from balsadb.kv.deadlines import make_hint, split_hint
from balsadb.kv.delta import DeltaStore
from balsadb.kv.store import deadline_of

HINTS = st.builds(make_hint, st.integers(0, 12), st.sampled_from([b"", b"a", b"b"]))
KEYS = st.integers(0, 11).map(lambda number: b"key-%02d" % number)
VALUES = st.binary(max_size=6) | st.just(b"x" * 700)
CACHE_BYTES = st.sampled_from([0, 500, 2_000, 1_000_000])


def bookkeeping(index: int, **changes: Any) -> Bookkeeping:
    """Bookkeeping as a machine at `index` would make it."""
    fields: dict[str, Any] = {
        "version": STATE_VERSION,
        "index": index,
        "term": 1,
        "log_time_ms": 1000 * index,
        "members": (1, 2, 3),
        "configuration": b"",
        "origins": ((1, 1, index),),
        "digests": (),
    }
    return Bookkeeping(**(fields | changes))


def write(base: Any, cut: Cut) -> None:
    """Write a counted cut to a base, as one batch."""
    batch = base.batch()
    for _ in cut.build(batch):
        pass
    base.write(batch)


class DeltaModel(RuleBasedStateMachine):
    """Any history of changes, looks, cuts and new starts."""

    new_base: Callable[[], Any]
    """Makes an empty base that is written by batches."""

    @initialize(cache_bytes=CACHE_BYTES)
    def begin(self, cache_bytes: int) -> None:
        self.cache_bytes = cache_bytes
        self.base = type(self).new_base()
        self.store = DeltaStore(self.base, 0, cache_bytes)
        self.model: dict[bytes, Any] = {}
        """What the store must hold."""
        self.hints: set[bytes] = set()
        """The hints it must hold."""
        self.frozen: list[tuple[dict[bytes, Any], set[bytes]]] = []
        """What it held at each cut that is not written."""
        self.written_hints: set[bytes] = set()
        self.written: dict[bytes, Any] = {}
        """What the base must hold."""
        self.revision = 0
        self.ahead: Any = None
        """Keys, their records in the base, and how much was forgotten by then."""

    @rule(key=KEYS, value=VALUES, deadline=st.sampled_from([0, 0, 7]))
    def put_without_a_look(self, key: bytes, value: bytes, deadline: int = 0) -> None:
        self.revision += 1
        revision = (value, self.revision, 0)
        self.model[key] = (*revision, deadline) if deadline else revision
        self.store.put(key, self.model[key])

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.store.get(key) == self.model.get(key)

    @rule(key=KEYS)
    def remove_what_a_look_has_found(self, key: bytes) -> None:
        found = self.store.get(key)
        assert (found is None) == (key not in self.model)
        if found is not None:
            self.store.remove(key)
            del self.model[key]

    @rule(key=KEYS, value=VALUES)
    def set_and_remove_without_a_look_between(self, key: bytes, value: bytes) -> None:
        self.put_without_a_look(key, value)
        self.store.remove(key)
        del self.model[key]

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.model.clear()
        self.hints.clear()
        assert self.store.complete

    @rule(hint=HINTS, present=st.booleans())
    def set_or_drop_a_hint(self, hint: bytes, present: bool) -> None:
        self.store.hint(hint, present)
        (self.hints.add if present else self.hints.discard)(hint)

    @rule()
    def look_at_all_hints(self) -> None:
        assert list(self.store.deadlines) == sorted(self.hints)

    @rule(now=st.integers(0, 12), limit=st.integers(1, 3))
    def ask_what_is_due(self, now: int, limit: int) -> None:
        due = sorted(hint for hint in self.hints if split_hint(hint)[0] <= now)
        assert self.store.deadlines.due(now, limit) == due[:limit]

    @invariant()
    def no_deadline_is_earlier_than_the_next_one(self) -> None:
        if getattr(self, "store", None) is not None:
            next_ms = self.store.deadlines.next_ms
            assert (next_ms is None) <= (not self.hints)
            assert all(split_hint(hint)[0] >= next_ms for hint in self.hints)

    @rule(start=KEYS | st.just(b""), count=st.integers(1, 5))
    def look_at_a_slice(self, start: bytes, count: int) -> None:
        found, then = self.store.slice(start, count)
        assert len(found) <= count
        there = sorted(key for key in self.model if key >= start and (then is None or key < then))
        assert found == [(key, deadline_of(self.model[key])) for key in there]
        assert then is None or then > start or found

    @rule()
    def ask_for_the_last_key(self) -> None:
        last = self.store.last_key()
        assert not self.model or (last is not None and last >= max(self.model))

    @rule(keys=st.lists(KEYS, unique=True, max_size=4))
    def begin_to_read_ahead(self, keys: list[bytes]) -> None:
        """As a worker thread does it (rule R5): what it finds may be old when it comes."""
        self.ahead = (keys, self.base.get_many(keys), self.store.forgotten)

    @precondition(lambda self: self.ahead is not None)
    @rule()
    def take_what_was_read_ahead(self) -> None:
        self.store.warm(*self.ahead)
        self.ahead = None

    @rule(key=KEYS)
    def ask_what_is_in_memory(self, key: bytes) -> None:
        if self.store.complete:
            assert self.store.is_resident(key)
        elif self.store.is_resident(key):
            assert self.store._resident[key] == self.model.get(key)

    @rule()
    def count_all(self) -> None:
        assert len(self.store) == len(self.model)

    @rule()
    def scan(self) -> None:
        assert list(self.store.sorted_items()) == sorted(self.model.items())
        assert list(self.store) == sorted(self.model)

    @precondition(lambda self: len(self.store.cuts) < 3)
    @rule()
    def freeze(self) -> None:
        changed = self.store.changed_keys
        cut = self.store.freeze(bookkeeping(self.revision))
        assert (len(cut.changes), self.store.changed_keys, self.store.changed_bytes) == (changed, 0, 0)
        self.frozen.append((dict(self.model), set(self.hints)))

    @precondition(lambda self: self.store.cuts)
    @rule()
    def count_a_slice(self) -> None:
        self.store.count(self.store.cuts[0])

    @precondition(lambda self: self.store.cuts)
    @rule()
    def write_the_oldest_cut(self) -> None:
        store, cut = self.store, self.store.cuts[0]
        while store.count(cut):
            pass
        write(self.base, cut)
        store.written(cut)
        self.written, self.written_hints = self.frozen.pop(0)
        assert self.base.hints(b"", 1_000) == sorted(self.written_hints)
        assert cut.bookkeeping.keys == len(self.written)
        assert list(self.base.sorted_items()) == sorted(self.written.items())

    @precondition(lambda self: self.written)
    @rule()
    def start_again_from_the_base(self) -> None:
        """What was not written is gone, and nothing else (rule C4)."""
        self.store.restore(self.base, len(self.written))
        self.frozen = []
        self.ahead = None  # a replica takes nothing that it asked for before an install
        self.model, self.hints = dict(self.written), set(self.written_hints)
        assert (self.store.changed_keys, self.store.changed_bytes, len(self.store.cuts)) == (0, 0, 0)

    @invariant()
    def what_is_kept_in_memory_without_need_is_bounded(self) -> None:
        store = getattr(self, "store", None)
        if store is not None:
            assert store._cached_bytes <= self.cache_bytes or store._clears
            needed = {key for cut in store.cuts for key in cut.changes} | set(store._changes)
            kept = {key for group, _ in store._cached for key in group} | set(store._read)
            assert set(store._resident) <= needed | kept
