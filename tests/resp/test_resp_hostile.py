"""Bad input on the client port: each gives the words of Redis, closes one connection, and does no more."""

from __future__ import annotations

import random

import pytest

from balsadb.resp.decode import encode_command
from balsadb.resp.parser import CommandParser

MULTIBULK = b"Protocol error: invalid multibulk length"
BULK = b"Protocol error: invalid bulk length"
INLINE = b"Protocol error: too big inline request"
QUOTES = b"Protocol error: unbalanced quotes in request"
NUMBERS = [
    b"+5",
    b"05",
    b" 5",
    b"5 ",
    b"1_0",
    b"0x10",
    "٣".encode(),
    b"-0",
    b"1e3",
    b"",
    b"5\t",
    b"-",
    b"--1",
    b"5.0",
]

REFUSED: dict[str, tuple[bytes, bytes]] = {
    "3: more elements than anyone sends": (b"*3000000000\r\n", MULTIBULK),
    "3: more than 64 bits": (b"*99999999999999999999\r\n", MULTIBULK),
    "3: the claim that stalls hiredis": (b"*1000000000\r\n", MULTIBULK),
    "3: one more than allowed": (b"*65537\r\n", MULTIBULK),
    "3: less than 64 bits": (b"*-99999999999999999999\r\n", MULTIBULK),
    "4: a million elements": (b"*1000000\r\n", MULTIBULK),
    "5: negative length": (b"*1\r\n$-10\r\n", BULK),
    "5: null as argument": (b"*1\r\n$-1\r\n", BULK),
    "5: letters": (b"*1\r\n$blabla\r\n", BULK),
    "5: no length": (b"*1\r\n$\r\n", BULK),
    "6: two gigabytes": (b"*1\r\n$2000000000\r\n", BULK),
    "6: above Redis' default": (b"*1\r\n$536870913\r\n", BULK),
    "6: one byte too many": (b"*1\r\n$8388609\r\n", BULK),
    "6: too much together": (b"*3\r\n" + b"$8388608\r\n%b\r\n" % bytes(8_388_608) * 2 + b"$1\r\n", BULK),
    **{f"7: count {number!r}": (b"*%b\r\n" % number, MULTIBULK) for number in NUMBERS},
    **{f"7: length {number!r}": (b"*1\r\n$%b\r\nx\r\n" % number, BULK) for number in NUMBERS},
    "8: endless count": (b"*" + b"1" * 70_000, b"Protocol error: too big mbulk count string"),
    "8: endless length": (b"*1\r\n$" + b"1" * 70_000, b"Protocol error: too big bulk count string"),
    "8: 5,000 digits": (b"*" + b"1" * 5_000 + b"\r\n", MULTIBULK),
    "9: endless line": (b"x" * 70_000, INLINE),
    "10: open double quote": (b'SET "a\r\n', QUOTES),
    "10: open single quote": (b"SET 'a\r\n", QUOTES),
    "10: text behind a quote": (b'SET "a"b\r\n', QUOTES),
    "11: NUL first": (b"\0" + b"A" * 70_000, INLINE),
    "11: NUL in a count": (b"*\0" + b"A" * 70_000, b"Protocol error: too big mbulk count string"),
    "11: NUL in a length": (b"$\0" + b"A" * 70_000, INLINE),
    "11: NUL in the middle of a line": (b"PING\0\r\n", INLINE),
    "12: a word": (b"*1\r\nfoo\r\n", b"Protocol error: expected '$', got 'f'"),
    "12: an integer": (b"*1\r\n:1\r\n", b"Protocol error: expected '$', got ':'"),
    "12: a simple string": (b"*1\r\n+PING\r\n", b"Protocol error: expected '$', got '+'"),
    "12: a nested array": (b"*1\r\n*1\r\n$4\r\nPING\r\n", b"Protocol error: expected '$', got '*'"),
    "12: a verbatim string": (b"*1\r\n=8\r\ntxt:PING\r\n", b"Protocol error: expected '$', got '='"),
    "12: a map": (b"*1\r\n%1000000000\r\n", b"Protocol error: expected '$', got '%'"),
    "12: an empty line": (b"*1\r\n\r\n", b"Protocol error: expected '$', got ' '"),
    "12: a control byte": (b"*1\r\n\x1b[2J\r\n", b"Protocol error: expected '$', got '.'"),
    "12: in a later argument": (b"*2\r\n$3\r\nGET\r\n:1\r\n", b"Protocol error: expected '$', got ':'"),
    "12: behind a payload without CRLF": (
        b"*2\r\n$3\r\nfooXX+bar\r\n",
        b"Protocol error: expected '$', got '+'",
    ),
    "14: LF alone ends no count": (b"*1\n$4\r\nPING\r\n", MULTIBULK),
    "14: LF alone ends no length": (b"*1\r\n$4\nPING\r\n", BULK),
    "14: CR alone ends no count": (b"*1\r$4\r\nPING\r\n", MULTIBULK),
    "25: a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", INLINE),
}

IGNORED: dict[str, bytes] = {
    "1: CRLF alone": b"\r\n",
    "1: LF alone": b"\n",
    "1: blanks alone": b" \t \r\n",
    "2: no elements": b"*0\r\n",
    "2: null": b"*-1\r\n",
    "2: less than null": b"*-10\r\n",
    "2: the least number": b"*-9223372036854775808\r\n",
}

ACCEPTED: dict[str, tuple[bytes, list[bytes]]] = {
    "13: a payload without CRLF": (b"*2\r\n$3\r\nGET--$1\r\nk--", [b"GET", b"k"]),
    "23: an unknown command": (b"FOO bar\r\n", [b"FOO", b"bar"]),
    "23: 10,000 arguments": (encode_command([b"x"] * 10_000), [b"x"] * 10_000),
    "23: 65,536 arguments": (encode_command([b"x"] * 65_536), [b"x"] * 65_536),
    "32: empty arguments": (encode_command([b"SET", b"", b""]), [b"SET", b"", b""]),
    "32: all bytes": (encode_command([b"SET", bytes(range(256))]), [b"SET", bytes(range(256))]),
    "32: CRLF inside": (encode_command([b"SET", b"\r\n", b"a\r\nb"]), [b"SET", b"\r\n", b"a\r\nb"]),
    "32: a header inside": (
        encode_command([b"SET", b"k\r\n*1000000000\r\n"]),
        [b"SET", b"k\r\n*1000000000\r\n"],
    ),
    "32: a command inside": (encode_command([b"X", encode_command([b"Y"])]), [b"X", encode_command([b"Y"])]),
    "32: invalid UTF-8": (encode_command([b"SET", b"\xff\xc0\x80"]), [b"SET", b"\xff\xc0\x80"]),
    "32: the largest value": (encode_command([b"SET", bytes(8_388_608)]), [b"SET", bytes(8_388_608)]),
}

SEGMENTS = [10**9, 16_384, 1]


def feed(stream: bytes, segment: int) -> tuple[CommandParser, list[list[bytes]]]:
    if segment == 1 and len(stream) > 100_000:
        segment = 4_093
    parser = CommandParser()
    pieces = [stream[at : at + segment] for at in range(0, len(stream), segment)]
    return parser, [argv for piece in pieces for argv in parser.feed(piece)]


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize(("stream", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_the_words_of_redis_after_what_came_before(stream, error, segment):
    before = encode_command([b"SET", b"k", b"v"])
    parser, commands = feed(before + stream + before, segment)
    assert commands == [[b"SET", b"k", b"v"]]
    assert parser.error == error
    assert not parser.hostile
    assert parser.buffered_bytes == 0


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("stream", IGNORED.values(), ids=IGNORED.keys())
def test_ignored(stream, segment):
    ping = encode_command([b"PING"])
    parser, commands = feed(stream + ping + stream + stream + ping, segment)
    assert commands == [[b"PING"], [b"PING"]]
    assert parser.error is None


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize(("stream", "argv"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(stream, argv, segment):
    parser, commands = feed(stream * 2, segment)
    assert commands == [argv, argv]
    assert parser.error is None
    assert parser.buffered_bytes == 0


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize(
    "stream",
    [
        b"POST / HTTP/1.1\r\nHost: localhost:7001\r\n\r\n*1\r\n$8\r\nFLUSHALL\r\n",
        b"post / HTTP/1.1\r\n",
        b"Host: localhost\r\n",
    ],
    ids=["24: POST", "24: post", "24: Host"],
)
def test_a_browser_gets_no_reply(stream, segment):
    parser, commands = feed(stream, segment)
    assert commands == []
    assert parser.hostile
    assert parser.error is not None


def test_a_browser_that_gets_a_page_is_dropped_at_its_second_line():
    """24: GET is a command of ours, with a wrong number of arguments; what follows is not."""
    parser, commands = feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 10**9)
    assert commands == [[b"GET", b"/", b"HTTP/1.1"]]
    assert parser.hostile


@pytest.mark.parametrize(
    "claim", [b"*65536\r\n", b"*2\r\n$3\r\nGET\r\n$8388608\r\n"], ids=["4", "4: a value"]
)
def test_a_claim_within_the_limits_waits(claim):
    parser, commands = feed(claim, 10**9)
    assert commands == []
    assert parser.error is None
    assert 0 < parser.buffered_bytes < 100


def test_header_lines_wait_for_crlf():
    """14: neither CR nor LF alone is an answer to anything."""
    for stream in (b"*1", b"*1\r", b"*1\n", b"*1\r\n$4", b"*1\r\n$4\r", b"*1\r\n$4\n"):
        parser, commands = feed(stream, 10**9)
        assert commands == []
        assert parser.error is None
        assert parser.buffered_bytes > 0


def test_random_bytes_never_raise_and_never_give_anything_but_commands():
    numbers = random.Random(24)
    alphabet = b"*$\r\n0123456789-+:%~PINGSET\"'\\ \0\xff"
    for _ in range(300):
        parser = CommandParser()
        for _ in range(20):
            if numbers.random() < 0.5:
                piece = bytes(numbers.choices(alphabet, k=numbers.randrange(60)))
            else:
                piece = numbers.randbytes(numbers.randrange(200))
            for argv in parser.feed(piece):
                assert argv
                assert all(type(argument) is bytes for argument in argv)


@pytest.mark.parametrize(
    "lines", [b"\n", b"\r\n", b" \t\n", b"*0\r\n", b"*-1\r\n", b"\n*-99\r\n  \r\n"], ids=repr
)
def test_a_piece_full_of_lines_that_mean_nothing_is_skipped_in_few_steps(monkeypatch, lines):
    """Taken line by line, a quarter of a megabyte would stop the event loop for a good while."""
    taken = []
    real = CommandParser._take_line

    def take_line(parser, *arguments):
        taken.append(arguments)
        return real(parser, *arguments)

    monkeypatch.setattr(CommandParser, "_take_line", take_line)
    parser, commands = feed(lines * 100_000 + b"PING\r\n" + lines * 50_000, 65_536)
    assert commands == [[b"PING"]]
    assert parser.buffered_bytes == 0
    assert len(taken) < 100
