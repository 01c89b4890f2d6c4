"""A bounded set of keys: it may forget, and is never wrong about what it knows."""

from __future__ import annotations

import random

from balsadb.kv import presence as presence_module
from balsadb.kv.presence import BUCKET_BYTES, MARK_BYTES, Presence


def keys(count: int, start: int = 0) -> list[bytes]:
    return [b"key %d" % number for number in range(start, start + count)]


def test_what_was_added_is_there_and_nothing_else():
    presence = Presence(1 << 20)
    for key in keys(1000):
        presence.add(key)
    assert all(key in presence for key in keys(1000))
    assert not any(key in presence for key in keys(1000, start=1000))


def test_what_was_discarded_is_not_there():
    presence = Presence(1 << 20)
    for key in keys(100):
        presence.add(key)
        presence.add(key)
    for key in keys(50):
        presence.discard(key)
    presence.discard(b"never added")
    assert [key in presence for key in keys(100)] == [False] * 50 + [True] * 50


def test_nothing_is_there_after_a_clear():
    presence = Presence(1 << 20)
    for key in keys(100):
        presence.add(key)
    presence.clear()
    assert not any(key in presence for key in keys(100))


def test_a_full_one_forgets_what_came_first():
    presence = Presence(0)  # a single bucket
    room = BUCKET_BYTES // MARK_BYTES
    for key in keys(room + 3):
        presence.add(key)
    assert [key in presence for key in keys(room + 3)] == [False] * 3 + [True] * room


def test_it_holds_nearly_as_many_keys_as_it_has_room_for_at_half_load():
    presence = Presence(MARK_BYTES * 20_000)
    for key in keys(10_000):
        presence.add(key)
    assert sum(key in presence for key in keys(10_000)) > 9_500


def test_whatever_happens_it_knows_nothing_that_is_not_so():
    rng = random.Random(1)
    presence, model = Presence(3 * BUCKET_BYTES), set()
    known = 0
    for _ in range(20_000):
        key = b"%d" % rng.randrange(60)
        if rng.random() < 0.6:
            presence.add(key)
            model.add(key)
            assert key in presence
        else:
            presence.discard(key)
            model.discard(key)
            assert key not in presence
        other = b"%d" % rng.randrange(60)
        if other in presence:
            known += 1
            assert other in model
    assert known > 5_000


def test_a_mark_that_two_others_happen_to_contain_is_discarded_all_the_same(monkeypatch):
    """It would be found when one of the two is gone, and say of a key that it is there."""
    monkeypatch.setattr(presence_module, "_mark", lambda key: key)
    hidden = b"last of a" + b"first b"
    before, behind = b"1234567" + b"last of a", b"first b" + b"890123456"
    presence = Presence(0)
    for mark in (hidden, behind, before):  # the newest stands first
        presence.add(mark)
    assert hidden in presence
    presence.add(hidden)
    presence.discard(hidden)
    presence.discard(before)
    assert hidden not in presence
    assert behind in presence
