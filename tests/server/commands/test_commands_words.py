"""Small parsers shared by the command families, and glob patterns."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.server.commands.glob import PATTERN_BYTES_MAX, is_literal, matches
from balsadb.server.commands.words import is_plain, shown, word


@given(st.binary(max_size=300))
def test_what_is_repeated_in_an_error_is_short_and_printable(text):
    assert len(shown(text)) <= 128
    assert is_plain(shown(text).replace(b" ", b""))


def test_a_word_is_found_in_any_case_and_a_long_one_is_not_converted():
    assert word(b"SetName") == b"SETNAME"
    assert len(word(b"a" * 10_000_000)) < 100


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        *(
            (b"*", b""),
            (b"*", b"abc"),
            (b"a*c", b"abbbc"),
            (b"a*b*c", b"axbybc"),
            (b"**", b"x"),
            (b"a?c", b"abc"),
        ),
        *(
            (b"[a-c]x", b"bx"),
            (b"[c-a]x", b"bx"),
            (b"[^a]x", b"bx"),
            (rb"\*", b"*"),
            (rb"[\]]", b"]"),
            (b"[ab", b"a"),
        ),
        *((b"a\\", b"a\\"), (b"maxmemory*", b"maxmemory"), (b"", b"")),
    ],
)
def test_a_pattern_matches(pattern, text):
    assert matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        *(
            (b"", b"a"),
            (b"a", b""),
            (b"a", b"A"),
            (b"a?c", b"ac"),
            (b"[^a]x", b"ax"),
            (rb"\*", b"a"),
            (b"[", b"a"),
        ),
        *((b"a*b", b"acbc"), (b"?", b""), (b"[]a", b"a")),
    ],
)
def test_a_pattern_does_not_match(pattern, text):
    assert not matches(pattern, text)


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_stars_and_question_marks_are_those_of_the_shell(pattern, text):
    assert matches(pattern.encode(), text.encode()) is fnmatch.fnmatchcase(text, pattern)


@given(st.binary(max_size=70), st.binary(max_size=20))
def test_any_pattern_has_an_answer(pattern, text):
    answer = matches(pattern, text)
    if is_literal(pattern) and len(pattern) <= PATTERN_BYTES_MAX:
        assert answer is (pattern == text)


def test_a_pattern_made_to_be_slow_is_quick():
    start = time.perf_counter()
    assert not matches(b"*a" * (PATTERN_BYTES_MAX // 2), b"a" * 30 + b"b")
    assert not matches(b"*a" * 1_000_000, b"a" * 1_000_000)
    assert time.perf_counter() - start < 0.1
