"""Requests: whatever comes on a client's connection, and however the network cuts it."""

from __future__ import annotations

import zlib

from balsadb.resp.decode import encode_command
from balsadb.resp.parser import CommandParser
from fuzz.kit import Target, cuttings
from resp.reference import Result, parse, reference

SMALL = {"arguments_max": 5, "bulk_bytes_max": 30, "command_bytes_max": 50}
"""Limits that short inputs reach; with them the parser has no fast way."""
_ERRORS = (
    b"invalid multibulk length",
    b"invalid bulk length",
    b"too big mbulk count string",
    b"too big bulk count string",
    b"too big inline request",
    b"unbalanced quotes in request",
    b"this is not HTTP",
)
ERRORS = frozenset(b"Protocol error: " + text for text in _ERRORS)
"""All errors but the one that quotes a character."""
EXPECTED = b"Protocol error: expected '$', got '"


def target(data: bytes) -> str:
    """Parse in one piece and in several, compare with the reference, and weigh what is kept."""
    parser, result = _whole(data)
    _in_pieces(data, result)
    _as_reference(data, result)
    _at_small_limits(data)
    _there_and_back(result)
    return _outcome(parser, result)


def quick(data: bytes) -> str:
    """The same with one of the comparisons, chosen by the bytes: for very many inputs."""
    parser, result = _whole(data)
    match zlib.crc32(data) & 3:
        case 0:
            _in_pieces(data, result)
        case 1:
            _as_reference(data, result)
        case 2:
            _at_small_limits(data)
        case 3:
            _there_and_back(result)
    return _outcome(parser, result)


def _whole(data: bytes) -> tuple[CommandParser, Result]:
    parser = CommandParser()
    commands = parser.feed(data)
    error = parser.error
    size = 0
    for argv in commands:
        assert argv
        for argument in argv:
            assert type(argument) is bytes
            size += len(argument)
    # Nothing comes out that has not come in, and nothing is kept that has not come either.
    kept = parser.buffered_bytes
    assert size + kept <= len(data) + 1
    assert parser.arrived_bytes <= len(data)
    if error is not None:
        assert error in ERRORS or (error.startswith(EXPECTED) and len(error) == len(EXPECTED) + 2), error
        assert parser.hostile == error.endswith(b"HTTP")
        assert parser.feed(b"*1\r\n$4\r\nPING\r\n") == []  # nothing more is ever read
    return parser, (commands, error, kept > 0)


def _in_pieces(data: bytes, result: Result) -> None:
    for pieces in cuttings(data):
        assert parse(CommandParser(), pieces) == result, pieces


def _as_reference(data: bytes, result: Result) -> None:
    assert reference(data) == result


def _at_small_limits(data: bytes) -> None:
    small: Result = parse(CommandParser(**SMALL), [data])
    assert small == reference(data, **SMALL)
    assert parse(CommandParser(**SMALL), cuttings(data)[-1]) == small


def _there_and_back(result: Result) -> None:
    if commands := result[0]:
        stream = b"".join(map(encode_command, commands))
        assert CommandParser().feed(stream) == commands


def _outcome(parser: CommandParser, result: Result) -> str:
    commands, error, unfinished = result
    if error is not None:
        return error[16:].partition(b",")[0].decode()
    return "unfinished" if unfinished else "commands" if commands else "nothing"


SEEDS = (
    encode_command([b"SET", b"key", b"value"]),
    encode_command([b"GET", b"key"]) * 3,
    encode_command([b"PING"]) + b"PING\r\n" + encode_command([b"MGET", *[b"k"] * 9]),
    encode_command([b"SET", b"k", b"\r\n$3\r\n*1\r\n"]),
    encode_command([b"SET", b"k", bytes(range(256))]),
    encode_command([b"ECHO", b"x" * 600]),
    b"SET 'a b' \"c\\x41\\n\"\r\n",
    b"GET k\n\r\n\n*0\r\n*-1\r\nPING\r\n",
    b"*2\r\n$3\r\nGET--$1\r\nk--",
    b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nabc",
)
NUMBERS = (-1, 0, 1, 2, 3, 4, 5, 6, 29, 30, 31, 1024, 1025, 4095, 4096, 65_536, 65_537, 8_388_608, 8_388_609)
TOKENS = (
    *[b"*%d\r\n" % number for number in NUMBERS],
    *[b"$%d\r\n" % number for number in NUMBERS],
    *[
        b"*3000000000\r\n",
        b"$99999999999999999999\r\n",
        b"*9223372036854775807\r\n",
        b"*-9223372036854775809\r\n",
    ],
    *[b"*05\r\n", b"$+1\r\n", b"$-0\r\n", b"*1_0\r\n", b"$0x1\r\n", b"*\xd9\xa3\r\n", b"$ 1\r\n", b"$1 \r\n"],
    *[b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b'"', b"'", b"\\", b"\\x4", b'\\"', b"\xff", b"*", b"$"],
    *[b":1\r\n", b"+OK\r\n", b"-ERR\r\n", b"%1\r\n", b"_\r\n", b"=8\r\ntxt:PING\r\n", b"*1\r\n*1\r\n"],
    *[
        b"$4\r\nPING\r\n",
        b"$1\r\nk\r\n",
        b"$0\r\n\r\n",
        b"GET k\n",
        b"ping\r\n",
        b"host: x\r\n",
        b"k\r\n",
        b"kkXX",
    ],
)

TARGET = Target("resp_requests", target, SEEDS, TOKENS)
QUICK = Target("resp_requests_quick", quick, SEEDS, TOKENS)
