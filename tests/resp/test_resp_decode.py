"""Replies in, at the Clerk: both protocols, any pieces, and no trust in what headers claim."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.errors import ProtocolError
from balsadb.kv.reply import OK, Mapping, Refusal, Reply, Status
from balsadb.resp import decode
from balsadb.resp.decode import ReplyParser, encode_command
from balsadb.resp.encode import encode_reply
from balsadb.resp.parser import CommandParser

FORMS: list[tuple[bytes, Reply]] = [
    (b"+OK\r\n", OK),
    (b"+\r\n", Status(b"")),
    (b"+PONG\r\n", Status(b"PONG")),
    (b"-ERR syntax error\r\n", Refusal(b"ERR syntax error")),
    (b":-1\r\n", -1),
    (b":5\r\n", 5),
    (b":9223372036854775807\r\n", 2**63 - 1),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"$5\r\na\r\nb\xff\r\n", b"a\r\nb\xff"),
    (b"$7\r\n+OK\r\n:1\r\n", b"+OK\r\n:1"),
    (b"*0\r\n", []),
    (b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", [b"a", [1]]),
    (b"_\r\n", None),
    (b"#t\r\n", True),
    (b"#f\r\n", False),
    (b",1.5\r\n", 1.5),
    (b",-inf\r\n", float("-inf")),
    (b",1e+20\r\n", 1e20),
    (b"(-12345678901234567890\r\n", -12345678901234567890),
    (b"=8\r\ntxt:abcd\r\n", b"abcd"),
    (b"!9\r\nERR a\r\n b\r\n", Refusal(b"ERR a\r\n b")),
    (b"~2\r\n:1\r\n:2\r\n", [1, 2]),
    (b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n%0\r\n", Mapping([(b"a", 1), (b"b", Mapping([]))])),
]
NONSENSE: dict[str, bytes] = {
    "a billion elements": b"*1000000000\r\n",
    "a billion pairs": b"%1000000000\r\n",
    "many claims in one reply": b"*2\r\n*1000000\r\n" + b"*1000000\r\n" * 30,
    "a string of two gigabytes": b"$2000000000\r\n",
    "many large strings in one reply": b"*9\r\n"
    + b"$60000000\r\n%b\r\n" % bytes(60_000_000) * 4
    + b"$60000000\r\n",
    "deep nesting": b"*1\r\n" * 100,
    "negative length": b"$-5\r\n",
    "negative count": b"*-5\r\n",
    "negative map": b"%-1\r\n",
    "not a number": b":abc\r\n",
    "a number with underscore": b":1_0\r\n",
    "more than 64 bits": b":9223372036854775808\r\n",
    "a very big number": b"(" + b"1" * 5000 + b"\r\n",
    "not a float": b",abc\r\n",
    "not a boolean": b"#x\r\n",
    "a verbatim string without its format": b"=3\r\ntxt\r\n",
    "a string longer than it says": b"$3\r\nabcd\r\n",
    "an endless line": b"+" + b"x" * 70_000,
    "a push message": b">1\r\n:1\r\n",
    "an attribute": b"|1\r\n+a\r\n:1\r\n:2\r\n",
    "an empty line": b"\r\n",
    "HTTP": b"HTTP/1.1 200 OK\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x0a\r\n",
}


def pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def parse(stream: bytes, size: int) -> list[Reply]:
    parser = ReplyParser()
    replies = [reply for piece in pieces(stream, size) for reply in parser.feed(piece)]
    assert parser.buffered_bytes == 0
    return replies


@pytest.mark.parametrize(("stream", "reply"), FORMS, ids=[repr(form[0]) for form in FORMS])
def test_each_kind_of_reply_is_understood_in_any_pieces(stream, reply):
    for size in (1, 2, 3, 1000):
        assert parse(stream * 3, size) == [reply] * 3
        assert type(parse(stream, size)[0]) is type(reply)


@pytest.mark.parametrize("size", [10**9, 50_000])
@pytest.mark.parametrize("stream", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_ends_the_connection(stream, size):
    """Bad input 38."""
    parser = ReplyParser()
    assert parser.feed(b"+OK\r\n") == [OK]
    with pytest.raises(ProtocolError):
        list(map(parser.feed, pieces(stream, size)))


def replies() -> st.SearchStrategy[Reply]:
    plain = st.one_of(
        st.binary(max_size=20),
        st.just(b"x" * 5000),
        st.integers(-(2**63), 2**63 - 1),
        st.none(),
        st.booleans(),
        st.floats(allow_nan=False),
        st.sampled_from([OK, Status(b"PONG"), Refusal(b"ERR no")]),
    )
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.lists(inner, max_size=5), st.lists(st.tuples(inner, inner), max_size=3).map(Mapping)
        ),
        max_leaves=20,
    )


@given(st.lists(replies(), max_size=8), st.integers(1, 200))
def test_what_the_server_encodes_the_clerk_reads(values, size):
    stream = b"".join(encode_reply(value, resp3=True) for value in values)
    assert parse(stream, size) == values


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_what_the_clerk_encodes_the_server_reads(argv):
    assert CommandParser().feed(encode_command(argv)) == [argv]


def test_buffered_bytes_tell_an_unfinished_reply_from_none():
    stream = b"*2\r\n$5\r\nhello\r\n%1\r\n+a\r\n$0\r\n\r\n"
    for prefix in range(len(stream) + 1):
        parser = ReplyParser()
        parser.feed(stream[:prefix])
        assert (parser.buffered_bytes > 0) == (0 < prefix < len(stream))


def test_limits_count_per_reply_and_not_per_connection(monkeypatch):
    monkeypatch.setattr(decode, "REPLY_VALUES_MAX", 10)
    monkeypatch.setattr(decode, "REPLY_BYTES_MAX", 10_000)
    parser = ReplyParser()
    for _ in range(5):
        assert parser.feed(b"*10\r\n" + b":1\r\n" * 10) == [[1] * 10]
        assert parser.feed(b"$9000\r\n" + b"x" * 9000 + b"\r\n") == [b"x" * 9000]


@pytest.mark.parametrize("claim", [b"*1000000\r\n", b"$60000000\r\n", b"*1\r\n" * 32])
def test_a_claim_costs_no_memory(claim):
    tracemalloc.start()
    parser = ReplyParser()
    parser.feed(claim)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000
    assert parser.buffered_bytes > 0


def test_large_and_many_replies_take_linear_time():
    started = time.process_time()
    large = b"$8388608\r\n" + b"\r\n" * 4_194_304 + b"\r\n"
    assert parse(large, 16_384) == [b"\r\n" * 4_194_304]
    assert len(parse(b"+OK\r\n$3\r\nabc\r\n" * 100_000, 10**9)) == 200_000
    assert len(parse(b"*200000\r\n" + b"$1\r\nx\r\n" * 200_000, 7)[0]) == 200_000  # type: ignore[arg-type]
    assert time.process_time() - started < 5


def test_random_bytes_raise_nothing_but_protocol_errors():
    numbers = random.Random(38)
    alphabet = b"*$\r\n0123456789-+:%~_#,(=!>|tf.e"
    for _ in range(500):
        parser = ReplyParser()
        try:
            for _ in range(20):
                if numbers.random() < 0.7:
                    parser.feed(bytes(numbers.choices(alphabet, k=numbers.randrange(60))))
                else:
                    parser.feed(b"%c%d\r\n" % (numbers.choice(b"*$%~:=!"), numbers.randrange(-2, 8)))
        except ProtocolError:
            pass
