"""Glob patterns: the same as a matcher that tries one byte after the other, and never long."""

from __future__ import annotations

from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st

from balsadb.kv.glob import PATTERN_BYTES_MAX, Glob
from balsadb.server.commands.glob import matches

PATTERNS = st.lists(
    st.sampled_from(
        [b"*", b"?", b"[", b"]", b"^", b"-", b"\\", b"a", b"b", b"c", b"\n", b".", b"(", b"+", b"\xff"]
    ),
    max_size=9,
).map(b"".join)
KEYS = st.lists(st.sampled_from([b"a", b"b", b"c", b"\n", b".", b"(", b"]", b"\xff"]), max_size=7).map(
    b"".join
)


@given(PATTERNS, KEYS)
def test_a_pattern_matches_as_the_simple_matcher_says(pattern, key):
    assert Glob(pattern).matches(key) == matches(pattern, key)


@given(PATTERNS, KEYS)
def test_whatever_matches_begins_with_the_prefix(pattern, key):
    glob = Glob(pattern)
    assert not glob.matches(key) or key.startswith(glob.prefix)


def test_a_prefix_is_the_text_before_the_first_special_character():
    assert [Glob(pattern).prefix for pattern in (b"user:*", rb"a\*b?", b"*x", b"abc", b"[a]b")] == [
        b"user:", b"a*b", b"", b"abc", b"",
    ]  # fmt: skip


def test_hostile_patterns_take_no_time_that_anybody_notices():
    """Bad input 36."""
    key = b"a" * 10_000
    for pattern in (
        b"*a" * 127 + b"b",
        b"a*" * 127 + b"b",
        b"?" * 255 + b"b",
        b"*" * PATTERN_BYTES_MAX + b"b",
    ):
        glob = Glob(pattern)
        start = perf_counter()
        assert not glob.matches(key)
        assert perf_counter() - start < 1
