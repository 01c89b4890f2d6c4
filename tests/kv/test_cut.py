"""A cut on its way to the disk: whole, sorted, in slices, and readable later."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.errors import LocalFault
from balsadb.kv import cut as cut_module
from balsadb.kv.cut import (
    SLICE_KEYS,
    STATE_VERSION,
    Cut,
    decode_bookkeeping,
    decode_record,
    encode_bookkeeping,
    encode_record,
)
from kv.delta_model import bookkeeping

NUMBERS = st.integers(0, 2**62)


class Noted:
    """A batch that notes what is done to it."""

    def __init__(self) -> None:
        self.steps: list[tuple[object, ...]] = []

    def put(self, key, record):
        self.steps.append(("put", key, decode_record(record)))

    def remove(self, key):
        self.steps.append(("remove", key))

    def bookkeeping(self, data):
        self.steps.append(("bookkeeping", decode_bookkeeping(data)))


def built(cut: Cut) -> tuple[list[tuple[object, ...]], list[int]]:
    """Build a cut; return what came into the batch, and how much of it each slice brought."""
    batch, sizes, before = Noted(), [], 0
    for _ in cut.build(batch):
        sizes.append(len(batch.steps) - before)
        before = len(batch.steps)
    return batch.steps, [*sizes, len(batch.steps) - before]


POSITIONS = st.integers(0, 2**31 - 1)


@given(st.binary(), NUMBERS, POSITIONS)
def test_a_record_is_read_as_it_was_written(value, index, position):
    assert decode_record(encode_record((value, index, position))) == (value, index, position)


@given(st.binary(), NUMBERS, POSITIONS, st.integers(1, 2**63 - 1))
def test_a_record_with_a_deadline_is_read_as_it_was_written(value, index, position, deadline):
    record = (value, index, position, deadline)
    assert decode_record(encode_record(record)) == record


def test_a_record_that_lacks_its_deadline_is_refused():
    whole = encode_record((b"", 1, 2, 3))
    with pytest.raises(LocalFault, match="has no deadline"):
        decode_record(whole[:-1])


@given(st.binary(max_size=11))
def test_a_record_without_room_for_a_revision_is_refused(data):
    with pytest.raises(LocalFault, match="has no revision"):
        decode_record(data)


@given(
    st.builds(
        bookkeeping,
        NUMBERS,
        term=NUMBERS,
        log_time_ms=NUMBERS,
        members=st.lists(NUMBERS, max_size=4).map(tuple),
        configuration=st.binary(),
        origins=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=4).map(tuple),
        digests=st.lists(st.tuples(NUMBERS, st.binary()), max_size=4).map(tuple),
        keys=NUMBERS,
    )
)
def test_bookkeeping_is_read_as_it_was_written(written):
    assert decode_bookkeeping(encode_bookkeeping(written)) == written


def test_bookkeeping_of_another_version_names_both():
    later = msgspec.structs.replace(bookkeeping(1), version=STATE_VERSION + 1)
    with pytest.raises(LocalFault, match=f"has version {STATE_VERSION + 1} and this BalsaDB reads"):
        decode_bookkeeping(encode_bookkeeping(later))


@given(st.binary(max_size=40))
def test_bytes_that_are_no_bookkeeping_are_refused(data):
    with pytest.raises(LocalFault):
        decode_bookkeeping(data)


def test_a_cut_is_sorted_and_ends_with_its_bookkeeping(monkeypatch):
    """Rule C1: keys in order, and the applied index in the same batch."""
    monkeypatch.setattr(cut_module, "SLICE_KEYS", 4)
    keys = [b"%03d" % number for number in range(30)]
    random.Random(1).shuffle(keys)
    changes = {key: None if key.endswith(b"7") else (b"v" + key, 5, 1) for key in keys}
    steps, sizes = built(Cut(bookkeeping(9, keys=27), changes, set(), 0))
    expected = [
        ("remove", key) if changes[key] is None else ("put", key, changes[key]) for key in sorted(changes)
    ]
    assert steps == [*expected, ("bookkeeping", bookkeeping(9, keys=27))]
    assert max(sizes) <= 5


def test_an_empty_cut_still_brings_its_index():
    steps, _ = built(Cut(bookkeeping(4), {}, set(), 0))
    assert steps == [("bookkeeping", bookkeeping(4))]


def test_no_slice_handles_more_keys_than_its_bound():
    """A slice is what nobody notices on the event loop."""
    count = 5 * SLICE_KEYS + 17
    changes = {b"%08d" % (number * 7919 % 100_000): (b"", 1, 0) for number in range(count)}
    steps, sizes = built(Cut(bookkeeping(1), changes, set(), 0))
    assert len(steps) == len(changes) + 1
    assert len(sizes) >= 2 * 5
    assert max(sizes) <= SLICE_KEYS + 1
