"""Keys in memory in front of keys on disk: the same answers as one dict, whatever is where."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from balsadb.errors import InvariantError
from balsadb.kv import deadlines, delta
from balsadb.kv.delta import DeltaStore
from balsadb.kv.memory import MemoryBase
from kv.delta_model import DeltaModel, bookkeeping, write


class Watched(MemoryBase):
    """A base that notes every look at it."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[bytes] = []

    def get(self, key, /):
        self.looks.append(key)
        return super().get(key)

    def count_present(self, keys):
        self.looks += keys
        return super().count_present(keys)


def written(store, base) -> None:
    """Bring everything to the base."""
    cut = store.freeze(bookkeeping(1))
    while store.count(cut):
        pass
    write(base, cut)
    store.written(cut)


@pytest.fixture
def base():
    return Watched()


def store_over(base, cache_bytes: int = 1_000_000, **records: bytes) -> DeltaStore:
    """A store that starts on a base with these records and nothing in memory."""
    maker = DeltaStore(base, 0, 0)
    for key, value in records.items():
        maker.put(key.encode(), (value, 1, 0))
    written(maker, base)
    base.looks.clear()
    return DeltaStore(base, len(records), cache_bytes)


@pytest.fixture
def small_generations(monkeypatch):
    """What was read is forgotten in groups of a few records."""
    monkeypatch.setattr(delta, "READ_GENERATION_BYTES", 700)
    monkeypatch.setattr(deadlines, "NEAR_MAX", 4)
    monkeypatch.setattr(deadlines, "REFILL_HINTS", 2)


@pytest.mark.usefixtures("small_generations")
def test_any_history_is_answered_as_by_one_dict():
    class OverMemory(DeltaModel):
        new_base = MemoryBase

    run_state_machine_as_test(
        OverMemory, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )


def test_what_is_overwritten_is_not_looked_up(base):
    """Rule C1: no read before a blind SET."""
    store = store_over(base, a=b"old")
    store.put(b"a", (b"new", 2, 0))
    store.put(b"b", (b"new", 2, 1))
    assert base.looks == []
    assert store.get(b"a") == (b"new", 2, 0)
    assert base.looks == []
    assert len(store) == 2
    assert base.looks == [b"a", b"b"]


def test_keys_set_blindly_are_counted_when_their_cut_is_built_and_every_later_cut_learns_of_it(base):
    store = store_over(base, a=b"1", b=b"2")
    store.put(b"a", (b"x", 2, 0))
    first = store.freeze(bookkeeping(2))
    store.put(b"c", (b"y", 3, 0))
    second = store.freeze(bookkeeping(3))
    store.put(b"b", (b"z", 4, 0))
    assert not store.count(first)
    assert (first.bookkeeping.keys, second.bookkeeping.keys) == (2, 3)
    assert not store.count(second)
    assert (first.bookkeeping.keys, second.bookkeeping.keys) == (2, 3)
    assert len(store) == 3


def test_counting_goes_by_slices(base, monkeypatch):
    monkeypatch.setattr(delta, "SLICE_KEYS", 2)
    store = store_over(base, a=b"1", b=b"2", c=b"3")
    for key in (b"a", b"b", b"c", b"d", b"e"):
        store.put(key, (b"x", 2, 0))
    cut = store.freeze(bookkeeping(2))
    looks = []
    while store.count(cut):
        looks.append(len(base.looks))
    assert looks == [2, 4]
    assert cut.bookkeeping.keys == 5


def test_a_key_is_read_from_the_base_once(base):
    store = store_over(base, a=b"1")
    assert [store.get(key) for key in (b"a", b"a", b"none", b"none")] == [(b"1", 1, 0)] * 2 + [None] * 2
    assert base.looks == [b"a", b"none"]


def test_what_a_written_cut_changed_stays_in_memory_as_long_as_it_fits(base):
    store = DeltaStore(base, 0, 1_000_000)
    store.put(b"a", (b"1", 1, 0))
    store.put(b"b", (b"2", 1, 1))
    store.remove(b"b")
    written(store, base)
    base.looks.clear()
    assert (store.get(b"a"), store.get(b"b")) == ((b"1", 1, 0), None)
    assert base.looks == []


def test_without_room_a_written_cut_is_forgotten_but_what_changed_since_is_not(base):
    store = DeltaStore(base, 0, 0)
    store.put(b"a", (b"1", 1, 0))
    store.put(b"b", (b"1", 1, 1))
    first = store.freeze(bookkeeping(1))
    store.put(b"a", (b"2", 2, 0))
    while store.count(first):
        pass
    write(base, first)
    store.written(first)
    base.looks.clear()
    assert (store.get(b"a"), store.get(b"b")) == ((b"2", 2, 0), (b"1", 1, 1))
    assert base.looks == [b"b"]


def test_what_lies_in_a_frozen_cut_is_never_forgotten(base, monkeypatch):
    """The base does not have it yet: a look there would answer with the past."""
    monkeypatch.setattr(delta, "READ_GENERATION_BYTES", 1)
    store = store_over(base, cache_bytes=0, a=b"old", b=b"old")
    store.put(b"a", (b"new", 2, 0))
    store.freeze(bookkeeping(2))
    assert store.get(b"b") == (b"old", 1, 0)  # its generation pushes out whatever may go
    assert store.get(b"a") == (b"new", 2, 0)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_removal_that_is_not_written_is_not_forgotten_with_an_earlier_one(base, monkeypatch, frozen):
    """Removals look alike; the base has the key, and a look there would bring it back."""
    monkeypatch.setattr(delta, "READ_GENERATION_BYTES", 1)
    store = store_over(base, cache_bytes=700, k=b"old")
    assert store.get(b"k") is not None
    store.remove(b"k")
    written(store, base)
    store.put(b"k", (b"new", 2, 0))
    written(store, base)
    store.remove(b"k")
    if frozen:
        store.freeze(bookkeeping(3))
    for number in range(9):  # groups that push out whatever may go
        assert store.get(b"other-%d" % number) is None
    assert store.get(b"k") is None
    assert len(store) == 0


def forgetful_store(base) -> DeltaStore:
    """A store that keeps nothing in memory that is written, and remembers a key or two of what it had."""
    return DeltaStore(base, 0, 0)


def test_a_key_that_had_to_leave_memory_is_set_again_without_a_look_at_the_disk(base):
    store = forgetful_store(base)
    store.put(b"k", (b"1", 1, 0))
    written(store, base)
    assert not store.is_resident(b"k")
    base.looks.clear()
    store.put(b"k", (b"2", 2, 0))
    written(store, base)
    assert (len(store), base.looks) == (1, [])


def test_a_key_that_was_removed_before_it_left_memory_counts_as_new_when_it_is_set_again(base):
    store = forgetful_store(base)
    for number in (1, 3):
        store.put(b"k", (b"1", number, 0))
        written(store, base)
        store.get(b"k")
        store.remove(b"k")
        written(store, base)
        assert len(store) == 0
    store.put(b"k", (b"1", 5, 0))
    written(store, base)
    assert len(store) == 1


def test_nothing_is_known_to_be_on_disk_after_everything_was_cleared_or_replaced(base):
    store = forgetful_store(base)
    store.put(b"k", (b"1", 1, 0))
    written(store, base)
    store.clear()
    store.put(b"other", (b"1", 2, 0))
    written(store, base)
    store.put(b"k", (b"2", 3, 0))
    assert len(store) == 2
    written(store, base)
    another = Watched()
    store_over(another, x=b"1")
    store.restore(another, 1)
    store.put(b"k", (b"3", 4, 0))
    assert len(store) == 2


def test_a_frozen_cut_does_not_change_any_more(base):
    store = DeltaStore(base, 0, 1_000)
    store.put(b"a", (b"1", 1, 0))
    cut = store.freeze(bookkeeping(1))
    store.put(b"a", (b"2", 2, 0))
    store.put(b"b", (b"2", 2, 1))
    assert (cut.index, cut.changes) == (1, {b"a": (b"1", 1, 0)})


def test_the_size_of_a_cut_counts_every_write_to_it(base):
    store = DeltaStore(base, 0, 1_000)
    for _ in range(3):
        store.put(b"key", (b"value", 1, 0))
    assert store.changed_bytes == 24
    store.remove(b"key")
    assert store.changed_bytes == 27
    assert store.freeze(bookkeeping(1)).size == 27


def test_only_the_oldest_cut_is_written_next(base):
    store = DeltaStore(base, 0, 1_000)
    store.freeze(bookkeeping(1))
    second = store.freeze(bookkeeping(2))
    with pytest.raises(InvariantError, match="the cut at 2 is written and is not the oldest"):
        store.written(second)


def test_another_base_takes_the_place_of_everything(base):
    """Rule C4: pending cut, delta and cache of the old state are discarded."""
    store = store_over(base, a=b"1")
    store.put(b"b", (b"2", 2, 0))
    store.freeze(bookkeeping(2))
    store.put(b"c", (b"3", 3, 0))
    assert store.get(b"a") is not None
    other = Watched()
    store_over(other, z=b"26")
    store.restore(other, 1)
    assert (len(store), store.changed_keys, store.changed_bytes, list(store.cuts)) == (1, 0, 0, [])
    assert list(store.sorted_items()) == [(b"z", (b"26", 1, 0))]
    assert [store.get(key) for key in (b"a", b"b", b"c")] == [None] * 3
    assert store.get(b"z") == (b"26", 1, 0)


def test_a_record_that_was_read_before_a_newer_one_was_forgotten_is_not_believed(base):
    """Rule R5: a worker is slow; meanwhile the key gets a new record, which is written and forgotten."""
    store = store_over(base, 0, k=b"old")
    before, read = store.forgotten, base.get_many([b"k"])
    store.put(b"k", (b"new", 2, 0))
    written(store, base)
    while store.trim():
        pass
    store.warm([b"k"], read, before)
    assert store.get(b"k") == (b"new", 2, 0)


def test_what_was_read_ahead_does_not_push_out_what_is_newer_than_its_own_rest(base):
    """The second of the two keys is forgotten while the first, which is large, is taken."""
    store = store_over(base, large=b"x" * delta.READ_GENERATION_BYTES, key=b"old")
    keys, before = [b"large", b"key"], store.forgotten
    read = base.get_many(keys)
    store.put(b"key", (b"new", 2, 0))
    written(store, base)
    store._cache_bytes_max = 10_000
    store.warm(keys, read, before)
    assert not store._cached
    assert store.get(b"key") == (b"new", 2, 0)


def test_what_was_read_before_the_base_knew_that_all_keys_were_taken_away_is_not_taken(base):
    store = store_over(base, key=b"old")
    store.clear()
    store.warm([b"key"], base.get_many([b"key"]), store.forgotten)
    assert store.get(b"key") is None


def test_an_absence_found_long_ago_does_not_hide_that_the_key_was_removed_lately(base, monkeypatch):
    """Both are None, so the old one takes the new one with it, in the middle of its group."""
    monkeypatch.setattr(delta, "SLICE_KEYS", 2)
    store = store_over(base, 0, a=b"a", b=b"b", c=b"c")
    assert store.get(b"key") is None
    store.put(b"key", (b"old", 2, 0))
    written(store, base)
    assert not store.is_resident(b"key")
    for key in (b"a", b"b"):
        store.get(key)
    with monkeypatch.context() as patch:
        patch.setattr(delta, "READ_GENERATION_BYTES", 1)
        store.get(b"c")
    assert set(store._leaving) == {b"key", b"a"}
    read, before = base.get_many([b"key"]), store.forgotten
    store.put(b"key", (b"new", 3, 0))
    store.remove(b"key")
    written(store, base)
    store.warm([b"key"], read, before)
    assert store.get(b"key") is None
    assert len(store) == 3
