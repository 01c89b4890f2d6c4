"""Inline commands are cut as Redis cuts them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.resp.inline import split_arguments

BLANKS = b" \t\n\v\f\r"
HEX = b"0123456789abcdefABCDEF"
ESCAPES = {ord("n"): b"\n", ord("r"): b"\r", ord("t"): b"\t", ord("b"): b"\b", ord("a"): b"\a"}


def split_by_characters(line: bytes) -> list[bytes] | None:
    """The same rules once more, one character at a time."""
    arguments: list[bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at] in BLANKS:
            at += 1
        if at == len(line):
            return arguments
        argument = b""
        quote = 0
        while True:
            if at == len(line):
                if quote:
                    return None
                break
            character = line[at]
            if not quote:
                if character in b" \t\r\n":
                    break
                if character in b"\"'":
                    quote = character
                else:
                    argument += line[at : at + 1]
            elif character == quote:
                at += 1
                if at < len(line) and line[at] not in BLANKS:
                    return None
                break
            elif character == ord("\\") and quote == ord("'") and line[at + 1 : at + 2] == b"'":
                argument += b"'"
                at += 1
            elif character == ord("\\") and quote == ord('"') and at + 1 < len(line):
                digits = line[at + 2 : at + 4]
                if line[at + 1] == ord("x") and len(digits) == 2 and all(digit in HEX for digit in digits):
                    argument += bytes([int(digits, 16)])
                    at += 3
                else:
                    argument += ESCAPES.get(line[at + 1], line[at + 1 : at + 2])
                    at += 1
            else:
                argument += line[at : at + 1]
            at += 1
        arguments.append(argument)


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        (b"", []),
        (b"   \t ", []),
        (b"PING", [b"PING"]),
        (b"  SET  key\tvalue  ", [b"SET", b"key", b"value"]),
        (b'SET "a key" ""', [b"SET", b"a key", b""]),
        (b"SET 'a key' ''", [b"SET", b"a key", b""]),
        (rb'"\n\r\t\b\a\"\\\x41\xfF\xg\q"', [b'\n\r\t\b\a"\\A\xffxgq']),
        (rb"'\n\'\x41'", [rb"\n'\x41"]),
        (rb"plain\n\x41", [rb"plain\n\x41"]),
        (b'half"quoted argument" next', [b"halfquoted argument", b"next"]),
        (b"\xff\xfe \x01", [b"\xff\xfe", b"\x01"]),
    ],
)
def test_arguments_are_separated_by_blanks_and_kept_together_by_quotes(line, arguments):
    assert split_arguments(line) == arguments
    assert split_by_characters(line) == arguments


@pytest.mark.parametrize(
    "line", [b'"', b"'", b'SET "a', b"SET 'a", b'"a"b', b"'a'b", b'"a""b"', b'"a\\', b"'a\\'"]
)
def test_unbalanced_quotes_give_none(line):
    assert split_arguments(line) is None
    assert split_by_characters(line) is None


@given(
    st.lists(st.sampled_from([bytes([c]) for c in b"ab x41n\\\"' \t\v\f\r\n\xff"]), max_size=20).map(b"".join)
)
def test_the_rules_agree_with_a_second_writing_of_them(line):
    assert split_arguments(line) == split_by_characters(line)


@pytest.mark.parametrize("pattern", [b'"', b"'", b"\\", b'"\\', b"'\\", b'a"', b" '", b"\\'", b'" '])
def test_no_line_takes_more_than_linear_time(pattern):
    """64 KiB of the worst that we can think of; quadratic time would be many seconds."""
    for prefix in (b"", b'"', b"'"):
        line = prefix + pattern * (65_536 // len(pattern))
        started = time.process_time()
        split_arguments(line)
        assert time.process_time() - started < 0.5
