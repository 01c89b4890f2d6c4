"""What takes long for a large cut is done a slice at a time, or elsewhere."""

from __future__ import annotations

from balsadb.kv.cut import SLICE_KEYS, STATE_VERSION, Bookkeeping, Cut
from balsadb.kv.deadlines import make_hint
from balsadb.kv.delta import DeltaStore
from balsadb.kv.memory import MemoryBase

KEYS = 5 * SLICE_KEYS


def bookkeeping(index: int) -> Bookkeeping:
    return Bookkeeping(STATE_VERSION, index, 1, 0, (1,), b"", (), ())


def set_keys(store: DeltaStore, revision: int) -> None:
    for number in range(KEYS):
        store.put(b"key:%d" % number, (b"v", revision, 0))


def write(store: DeltaStore, base: MemoryBase, cut: Cut) -> None:
    batch = base.batch()
    for _ in cut.build(batch):
        pass
    base.write(batch)
    store.written(cut)


def known(store: DeltaStore) -> int:
    """Number of keys whose record is in memory."""
    return sum(store.is_resident(b"key:%d" % number) for number in range(KEYS))


def test_a_large_cut_is_forgotten_a_slice_at_a_time():
    base = MemoryBase()
    store = DeltaStore(base, 0, 0)
    set_keys(store, 1)
    write(store, base, store.freeze(bookkeeping(1)))
    left = [known(store)]
    while store.trim():
        left.append(known(store))
    assert left == [KEYS - SLICE_KEYS * (slices + 1) for slices in range(len(left))]
    assert known(store) == 0
    assert store.get(b"key:7") == (b"v", 1, 0)


def test_what_changes_while_a_cut_is_being_forgotten_stays():
    base = MemoryBase()
    store = DeltaStore(base, 0, 0)
    set_keys(store, 1)
    write(store, base, store.freeze(bookkeeping(1)))
    set_keys(store, 2)
    while store.trim():
        pass
    assert known(store) == KEYS
    assert store.get(b"key:7") == (b"v", 2, 0)


def test_a_new_base_is_not_mixed_with_what_was_still_to_be_forgotten():
    base = MemoryBase()
    store = DeltaStore(base, 0, 0)
    set_keys(store, 1)
    write(store, base, store.freeze(bookkeeping(1)))
    store.restore(MemoryBase(), 0)
    set_keys(store, 2)
    assert not store.trim()
    assert known(store) == KEYS


def overwritten_blindly() -> tuple[DeltaStore, Cut, MemoryBase]:
    """A store that has overwritten all keys of its base without a look, in a cut that is to be counted."""
    base = MemoryBase()
    before = DeltaStore(base, 0, 0)
    set_keys(before, 1)
    write(before, base, before.freeze(bookkeeping(1)))
    store = DeltaStore(base, KEYS, 0)
    set_keys(store, 2)
    return store, store.freeze(bookkeeping(2)), base


def test_keys_that_were_looked_up_elsewhere_are_counted_once():
    store, cut, base = overwritten_blindly()
    slices = 0
    while keys := store.uncounted(cut):
        store.counted(cut, keys, base.count_present(keys))
        slices += 1
    assert slices == KEYS // SLICE_KEYS
    assert cut.bookkeeping.keys == len(store) == KEYS


def test_keys_that_somebody_has_counted_meanwhile_are_not_counted_again():
    store, cut, base = overwritten_blindly()
    keys = store.uncounted(cut)
    present = base.count_present(keys)
    assert len(store) == KEYS
    store.counted(cut, keys, present)
    assert cut.bookkeeping.keys == len(store) == KEYS


def test_reading_alone_keeps_memory_within_the_bound():
    """Nobody writes and no cut is made, so nothing but the reads themselves makes room."""
    base = MemoryBase()
    before = DeltaStore(base, 0, 0)
    keys = [b"key:%d" % number for number in range(16 * SLICE_KEYS)]
    for key in keys:
        before.put(key, (b"v", 1, 0))
    write(before, base, before.freeze(bookkeeping(1)))
    store = DeltaStore(base, len(keys), 0)
    for start in range(0, len(keys), 4 * SLICE_KEYS):
        some = keys[start : start + 4 * SLICE_KEYS]
        store.warm(some, base.get_many(some), store.forgotten)
        assert sum(map(store.is_resident, keys)) <= SLICE_KEYS
    for key in keys:
        store.get(key)
    assert sum(map(store.is_resident, keys)) <= SLICE_KEYS


def hint_all(store: DeltaStore) -> None:
    store.hint(make_hint(5, b"key:1"), True)


def test_all_keys_are_removed_by_a_mark_and_those_on_disk_with_the_next_cut():
    """Rule S5: no loop over the keys, in memory or on disk."""
    base = MemoryBase()
    store = DeltaStore(base, 0, 0)
    set_keys(store, 1)
    hint_all(store)
    write(store, base, store.freeze(bookkeeping(1)))
    store.clear()
    store.put(b"after", (b"v", 2, 0))
    assert (store.changed_keys, len(store), store.get(b"key:7")) == (1, 1, None)
    cut = store.freeze(bookkeeping(2))
    assert (len(cut.changes), len(cut.hints), cut.cleared) == (1, 0, True)
    write(store, base, cut)
    assert list(base.records) == [b"after"]
    assert base.hint_set == set()
    assert cut.bookkeeping.keys == 1
    while store.trim():
        pass
    assert store.get(b"key:7") is None


def test_keys_that_a_cut_counts_late_don_t_count_after_all_were_removed():
    """The cut before counts for itself, and the one with the mark begins with nothing."""
    store, cut, base = overwritten_blindly()
    store.clear()
    store.put(b"after", (b"v", 3, 0))
    later = store.freeze(bookkeeping(3))
    while keys := store.uncounted(cut):
        store.counted(cut, keys, base.count_present(keys))
    assert (cut.bookkeeping.keys, later.bookkeeping.keys, len(store)) == (KEYS, 1, 1)
    write(store, base, cut)
    assert store.get(b"key:7") is None
    write(store, base, later)
    assert len(base.records) == 1
