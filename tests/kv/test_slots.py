"""Hash slots agree with those of Redis clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot as redis_key_slot

from balsadb.kv.slots import SLOTS, key_slot


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 0x31C3),  # the check value of CRC-16/XMODEM
        (b"", 0),
        (b"foo", 12182),
        (b"{user1000}.following", 3443),
        (b"{user1000}.followers", 3443),
    ],
)
def test_known_slots(key, slot):
    assert key_slot(key) == slot % SLOTS


@pytest.mark.parametrize(
    ("key", "same_as"),
    [
        (b"a{b}c", b"b"),
        (b"a{b}{c}", b"b"),
        (b"a{{b}}c", b"{b"),
        (b"a}b{c}", b"c"),
    ],
)
def test_keys_with_the_same_tag_share_a_slot(key, same_as):
    assert key_slot(key) == key_slot(same_as)


@pytest.mark.parametrize("key", [b"a{}{b}", b"a{b", b"}{", b"{}"])
def test_without_a_whole_tag_the_whole_key_counts(key):
    assert key_slot(key) == redis_key_slot(key) != key_slot(b"b")


@given(st.one_of(st.binary(), st.text("ab{}").map(str.encode)))
def test_every_key_has_the_slot_that_redis_py_computes(key):
    assert key_slot(key) == redis_key_slot(key)
