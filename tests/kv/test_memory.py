"""What is special about the base in memory; what it shares with RocksDB is in `storage/test_state.py`."""

from __future__ import annotations

from balsadb.kv.cut import encode_bookkeeping, encode_record
from balsadb.kv.memory import MemoryBase
from kv.delta_model import bookkeeping


def test_a_copy_changes_apart_from_its_original():
    base = MemoryBase()
    batch = base.batch()
    batch.put(b"a", encode_record((b"1", 1, 0)))
    batch.bookkeeping(encode_bookkeeping(bookkeeping(1)))
    base.write(batch)
    copy = base.copy()
    later = copy.batch()
    later.remove(b"a")
    later.bookkeeping(encode_bookkeeping(bookkeeping(2)))
    copy.write(later)
    assert (base.get(b"a"), copy.get(b"a")) == ((b"1", 1, 0), None)
    assert (base.data, copy.data) == (
        encode_bookkeeping(bookkeeping(1)),
        encode_bookkeeping(bookkeeping(2)),
    )


def test_a_batch_changes_nothing_before_it_is_written():
    base = MemoryBase()
    batch = base.batch()
    batch.put(b"a", encode_record((b"1", 1, 0)))
    assert base.get(b"a") is None
