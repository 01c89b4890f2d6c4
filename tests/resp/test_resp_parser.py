"""Commands in: what a stream means, whatever pieces it comes in."""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balsadb.resp.decode import encode_command
from balsadb.resp.parser import (
    ARGUMENTS_MAX,
    BULK_BYTES_MAX,
    LINE_BYTES_MAX,
    CommandParser,
)
from resp.reference import parse, reference

SMALL = {"arguments_max": 5, "bulk_bytes_max": 30, "command_bytes_max": 50}
"""Limits that a short random stream can reach."""


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a stream at positions given modulo its length plus one."""
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[left:right] for left, right in pairwise(edges)]


ARGUMENTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"\r\n", b"\r\n*1000000000\r\n", b"$5\r\nhello\r\n", b"*0\r\n", b"\r", b"\n", b"x" * 5000]
    ),
)
COMMANDS = st.lists(st.lists(ARGUMENTS, min_size=1, max_size=6), max_size=8)
CUTS = st.lists(st.integers(0, 100_000), max_size=12)
FRAGMENTS = [
    *[b"*%d\r\n" % n for n in (-10, -1, 0, 1, 2, 3, 4, 5, 6, 70_000, 10**9, 10**20)],
    *[b"$%d\r\n" % n for n in (-1, 0, 1, 2, 3, 29, 30, 31, 9_000_000, 10**9)],
    *[
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*1\r\n$4\r\nPING\r\n",
    ],
    *[
        b"*",
        b"$",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b'"',
        b"'",
        b"\\",
        b":1\r\n",
        b"+OK\r\n",
        b"%1\r\n",
        b"_\r\n",
    ],
    *[
        b"foo",
        b"PING\r\n",
        b"GET k\n",
        b'SET "a b" c\r\n',
        b"POST / HTTP/1.1\r\n",
        b"host: x\r\n",
        b"*05\r\n",
        b"$+1\r\n",
    ],
    *[b"k\r\n", b"kk\r\n", b"kkXX", b"12", b"-0\r\n"],
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Well-formed commands in which one line, or one byte, was replaced."""
    stream = b"".join(map(encode_command, draw(COMMANDS)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(stream)))
        return stream[:at] + draw(st.binary(max_size=2)) + stream[at + 1 :]
    lines = stream.split(b"\r\n")
    at = draw(st.integers(0, len(lines) - 1))
    number = draw(st.integers(0, 12))
    lines[at] = draw(st.sampled_from([b"", b"*%d" % number, b"$%d" % number, b"x" * number, lines[-at]]))
    return b"\r\n".join(lines)


STREAMS = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=6)), max_size=30).map(b"".join),
    st.binary(max_size=200),
    damaged(),
)


@given(COMMANDS, CUTS)
def test_commands_arrive_as_they_were_sent_however_the_stream_is_cut(commands, cuts):
    stream = b"".join(map(encode_command, commands))
    assert parse(CommandParser(), cut(stream, cuts)) == (commands, None, False)
    assert reference(stream) == (commands, None, False)


@given(STREAMS, CUTS)
@example(b"*1\r\n$3\r\nfooXX*1\r\n$3\r\nbar\r\n", [])
@example(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r", [])
@example(b"*1\r\n$3", [])
@example(b"*1\r\n$3X", [])
def test_any_stream_means_what_the_reference_says_however_it_is_cut(stream, cuts):
    expected = reference(stream)
    assert parse(CommandParser(), [stream]) == expected
    assert parse(CommandParser(), cut(stream, cuts)) == expected


@given(STREAMS, CUTS)
def test_the_same_holds_at_small_limits(stream, cuts):
    expected = reference(stream, **SMALL)
    assert parse(CommandParser(**SMALL), [stream]) == expected
    assert parse(CommandParser(**SMALL), cut(stream, cuts)) == expected


@given(STREAMS)
def test_every_argument_of_every_command_is_bytes(stream):
    for argv in CommandParser().feed(stream):
        assert argv
        assert {type(argument) for argument in argv} == {bytes}


def test_long_random_streams_mean_the_same_in_any_pieces():
    """Longer than a window of the fast way, with large values and binary ones among the small."""
    random_numbers = random.Random(1)
    for _ in range(10):
        commands = [
            [random_numbers.choice([b"SET", b"GET", b"APPEND"])]
            + [
                random_numbers.choice(
                    [
                        b"k",
                        b"v" * 256,
                        b"\r\n$3\r\n",
                        b"x" * 5000,
                        random_numbers.randbytes(300),
                        b"z" * 200_000,
                    ]
                )
                for _ in range(random_numbers.choice([0, 1, 1, 2, 2, 2, 5]))
            ]
            for _ in range(60)
        ]
        stream = b"".join(map(encode_command, commands))
        for pieces in (1, 2, 7, 50, 1000):
            cuts = [random_numbers.randrange(len(stream)) for _ in range(pieces - 1)]
            assert parse(CommandParser(), cut(stream, cuts)) == (commands, None, False)


def test_a_stream_may_come_byte_by_byte():
    commands = [
        [b"SET", b"key", b"\r\n*1000000000\r\n"],
        [b"GET", b"key"],
        [b"PING"],
        [b"MGET", *[b"k"] * 20],
    ]
    stream = b"".join(map(encode_command, commands)) + b"PING\r\n\r\nECHO 'a b'\n*0\r\n"
    pieces = [stream[at : at + 1] for at in range(len(stream))]
    assert parse(CommandParser(), pieces) == ([*commands, [b"PING"], [b"ECHO", b"a b"]], None, False)


def test_a_value_that_looks_like_commands_may_be_cut_anywhere():
    inner = encode_command([b"DEL", b"k"]) * 2 + b"*0\r\nPING\r\n"
    commands = [[b"SET", b"k", inner], [inner], [inner, inner], [b"GET", b"k"]]
    stream = b"".join(map(encode_command, commands))
    for at in range(len(stream)):
        assert parse(CommandParser(), [stream[:at], stream[at:]]) == (commands, None, False)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_header_that_does_not_fit_its_argument_is_never_believed(count):
    argv = [b"abc"] * count
    for wrong in range(count):
        for length in (0, 1, 2, 4, 5):
            parts = [b"$%d\r\nabc\r\n" % (length if place == wrong else 3) for place in range(count)]
            stream = b"*%d\r\n" % count + b"".join(parts) + encode_command(argv) * 2
            assert parse(CommandParser(), [stream]) == reference(stream)
            assert CommandParser().feed(stream)[:1] != [argv]


def test_buffered_bytes_tell_an_unfinished_command_from_none():
    stream = encode_command([b"SET", b"k", b"value"])
    for prefix in range(len(stream) + 1):
        parser = CommandParser()
        parser.feed(stream[:prefix])
        assert (parser.buffered_bytes > 0) == (0 < prefix < len(stream))


def test_after_an_error_nothing_more_is_parsed():
    parser = CommandParser()
    assert parser.feed(b"PING\r\n*1\r\n$-1\r\nPING\r\n") == [[b"PING"]]
    assert parser.error == b"Protocol error: invalid bulk length"
    assert parser.feed(b"PING\r\n") == []
    assert parser.buffered_bytes == 0


def test_payloads_without_crlf_behind_them_are_taken_as_redis_takes_them():
    assert CommandParser().feed(b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\n\n") == [[b"PING"], [b"PING"]]


# ------------------------------------------------------------------ limits


@pytest.mark.parametrize("fast", [True, False])
def test_an_argument_may_have_exactly_the_greatest_length(fast):
    limit = 5000 if fast else 20
    parser = CommandParser(bulk_bytes_max=limit)
    assert parser.feed(encode_command([b"SET", b"k", b"x" * limit])) == [[b"SET", b"k", b"x" * limit]]
    assert parser.feed(encode_command([b"SET", b"k", b"x" * (limit + 1)])) == []
    assert parser.error == b"Protocol error: invalid bulk length"


@pytest.mark.parametrize("limit", [2000, 3])
def test_a_command_may_have_exactly_the_greatest_number_of_arguments(limit):
    parser = CommandParser(arguments_max=limit)
    assert parser.feed(encode_command([b"x"] * limit)) == [[b"x"] * limit]
    assert parser.feed(b"*%d\r\n" % (limit + 1)) == []
    assert parser.error == b"Protocol error: invalid multibulk length"


@pytest.mark.parametrize("limit", [100_000, 30])
def test_all_arguments_together_may_have_exactly_the_greatest_size(limit):
    parser = CommandParser(command_bytes_max=limit)
    whole = [b"x" * (limit // 2), b"x" * (limit - limit // 2)]
    assert parser.feed(encode_command(whole) * 3) == [whole] * 3
    assert parser.feed(encode_command([*whole, b"x"])) == []
    assert parser.error == b"Protocol error: invalid bulk length"


@pytest.mark.parametrize(
    ("begin", "end", "problem"),
    [
        (b"", b"\n", b"too big inline request"),
        (b"*", b"\r\n", b"too big mbulk count string"),
        (b"*1\r\n$", b"\r\n", b"too big bulk count string"),
    ],
)
def test_a_line_is_too_big_by_its_own_length_and_not_by_how_it_arrives(begin, end, problem):
    filler = b"1" * LINE_BYTES_MAX
    for stream in (begin + filler + b"1" + end, begin + filler + b"111"):
        for size in (len(stream), 1000, 1 + len(stream) // 2):
            parser = CommandParser()
            parse(parser, [stream[at : at + size] for at in range(0, len(stream), size)])
            assert parser.error == b"Protocol error: " + problem


def test_an_inline_command_may_have_exactly_the_greatest_length():
    word = b"x" * LINE_BYTES_MAX
    assert CommandParser().feed(word + b"\n") == [[word]]


# -------------------------------------------------------------- time and memory


def cpu_seconds(pieces: list[bytes]) -> float:
    parser = CommandParser()
    gc.disable()
    started = time.process_time()
    commands = [argv for piece in pieces for argv in parser.feed(piece)]
    seconds = time.process_time() - started
    gc.enable()
    assert commands
    assert parser.error is None
    return seconds


@pytest.mark.parametrize("value", [b"x" * BULK_BYTES_MAX, b"\r\n$1\r\n*1\r\n" * (BULK_BYTES_MAX // 12)])
def test_the_largest_value_in_small_pieces_takes_linear_time(value):
    stream = encode_command([b"SET", b"k", value])
    assert cpu_seconds([stream[at : at + 16_384] for at in range(0, len(stream), 16_384)]) < 0.1


def test_one_byte_at_a_time_takes_linear_time():
    def per_byte(size: int) -> float:
        stream = encode_command([b"SET", b"k", b"x" * size])
        return cpu_seconds([stream[at : at + 1] for at in range(len(stream))]) / size

    small = min(per_byte(20_000) for _ in range(3))
    assert per_byte(500_000) < 5 * small + 1e-6


def test_a_hundred_thousand_commands_in_one_piece_take_linear_time():
    command = encode_command([b"SET", b"key", b"value"])
    assert cpu_seconds([command * 100_000]) < 1.0
    assert len(CommandParser().feed(command * 100_000)) == 100_000


def test_a_command_of_the_most_arguments_in_many_pieces_takes_linear_time():
    stream = encode_command([b"x"] * ARGUMENTS_MAX)
    assert cpu_seconds([stream[at : at + 7] for at in range(0, len(stream), 7)]) < 1.0


@pytest.mark.parametrize(
    "claim",
    [
        b"*65536\r\n",
        b"*65536\r\n$8388608\r\n",
        b"*2\r\n$3\r\nSET\r\n$8388608\r\nabc",
        b"*1\r\n*1000000000\r\n",
        b"*1000000000\r\n",
        b"*1\r\n%1000000000\r\n",
        b"*1\r\n$3\r\nfooXX*1000000000\r\n",
    ],
)
def test_a_claim_costs_no_memory(claim):
    parsers = [CommandParser() for _ in range(100)]
    tracemalloc.start()
    for parser in parsers:
        parser.feed(claim)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100 * 2000
    assert peak < 100 * 2000 + 100_000


def test_memory_follows_the_bytes_that_came_even_in_tiny_pieces():
    parser = CommandParser()
    parser.feed(b"*2\r\n$3\r\nSET\r\n$8388608\r\n")
    tracemalloc.start()
    for _ in range(100_000):
        parser.feed(b"ab")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 400_000
    assert parser.buffered_bytes == 200_000 + 3 + 1


def test_what_has_arrived_of_a_command_is_known_at_every_byte():
    """It decides how much memory a client is said to take; claims of bytes to come do not count."""
    parser = CommandParser()
    arrived = 0
    for byte in b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5000\r\n" + b"v" * 4999:
        parser.feed(bytes([byte]))
        assert abs(parser.arrived_bytes - parser.buffered_bytes) <= 3
        arrived = parser.arrived_bytes
    assert arrived == 3 + 3 + 4999
    parser.feed(b"v\r\n")
    assert parser.arrived_bytes == 0


ONE_BY_ONE = (
    b"PING\r\n\r\n*0\r\n*1\r\n$4\r\nPING\r\n*-1\r\n\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$300\r\n"
    + b"v" * 300
    + b"\r\n"
    b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\nGET 'a b'\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_commands_taken_one_by_one_are_those_that_are_taken_together(size):
    together = CommandParser().feed(ONE_BY_ONE)
    parser, one_by_one = CommandParser(arguments_max=10, bulk_bytes_max=1000), []
    for begin in range(0, len(ONE_BY_ONE), size):
        data, position = ONE_BY_ONE[begin : begin + size], 0
        while True:
            command, position = parser.feed_one(data, position)
            if command is None:
                break
            one_by_one.append(command)
        assert position == len(data)
    assert one_by_one == together
    assert parser.error is None


def test_what_is_behind_a_command_that_is_taken_alone_is_not_looked_at():
    parser = CommandParser(arguments_max=2)
    data = b"*1\r\n$4\r\nAUTH\r\n*3\r\n"
    assert parser.feed_one(data) == ([b"AUTH"], 14)
    assert parser.error is None
    assert parser.feed_one(data, 14)[0] is None
    assert parser.error == b"Protocol error: invalid multibulk length"
