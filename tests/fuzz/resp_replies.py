"""Replies: whatever a server, or what pretends to be one, sends to a Clerk (bad input 38)."""

from __future__ import annotations

from balsadb.errors import ProtocolError
from balsadb.kv.reply import OK, Mapping, NullArray, Refusal, Reply, Status
from balsadb.resp.decode import DEPTH_MAX, ReplyParser
from balsadb.resp.encode import encode_reply
from fuzz.kit import Target, cuttings

_INT64 = range(-(2**63), 2**63)


def receive(pieces: list[bytes]) -> tuple[list[Reply], bool, int]:
    """Return the replies, whether the stream was refused, and the bytes kept of what is unfinished."""
    parser = ReplyParser()
    replies: list[Reply] = []
    for piece in pieces:
        try:
            replies += parser.feed(piece)
        except ProtocolError:
            return replies, True, 0
    return replies, False, parser.buffered_bytes


def measure(reply: Reply, depth: int = 0) -> tuple[int, int, bool]:
    """Return bytes and greatest depth of a reply, and whether all its numbers have 64 bits at most."""
    match reply:
        case bytes():
            return len(reply), depth, True
        case Status() | Refusal():
            return len(reply.text), depth, True
        case bool() | None | float() | NullArray():
            return 0, depth, True
        case int():
            return 0, depth, reply in _INT64
        case list():
            inner = [measure(item, depth + 1) for item in reply]
        case Mapping():
            inner = [measure(item, depth + 1) for pair in reply.pairs for item in pair]
        case _:
            raise AssertionError(f"{reply!r} is no reply")
    sizes, depths, sound = zip(*inner, strict=True) if inner else ((0,), (depth,), (True,))
    return sum(sizes), max(depths), all(sound)


def target(data: bytes) -> str:
    """Read in one piece and in several, weigh what comes out, and send it back through the encoder."""
    whole, refused, kept = receive([data])
    for pieces in cuttings(data):
        replies, refused_too, kept_too = receive(pieces)
        assert (refused_too, kept_too) == (refused, kept)
        # What precedes nonsense in the same piece is lost with it: the connection is of no use any more.
        assert repr(replies) == repr(whole) or (refused and repr(replies[: len(whole)]) == repr(whole))
    assert kept <= len(data)
    size, depth, sound = measure(whole)
    assert size <= len(data)
    assert depth <= DEPTH_MAX + 1
    if whole and sound:
        # One pass through the encoder settles what has several forms; another one must change nothing.
        stream = b"".join(encode_reply(reply, resp3=True) for reply in whole)
        again, refused_again, kept_again = receive([stream])
        assert not refused_again
        assert not kept_again
        assert b"".join(encode_reply(reply, resp3=True) for reply in again) == stream
        assert len(again) == len(whole)
    return "refused" if refused else "unfinished" if kept else "replies" if whole else "nothing"


SEEDS = (
    b"+OK\r\n:1\r\n$5\r\nhello\r\n$-1\r\n*-1\r\n",
    b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
    b"%2\r\n$1\r\na\r\n:1\r\n+b\r\n%0\r\n",
    b"~2\r\n#t\r\n_\r\n,1.5\r\n(12345678901234567890\r\n",
    b"=8\r\ntxt:abcd\r\n!9\r\nERR a\r\n b\r\n-ERR no\r\n",
    b"*3\r\n" * 5 + b":1\r\n" * 11,
    *(encode_reply(reply, True) for reply in (OK, [b"x" * 500, None], Mapping([(b"k", [1, 2.5, True])]))),
)
TOKENS = (
    *[
        b"%c%d\r\n" % (kind, number)
        for kind in b"*$~%=!:"
        for number in (-2, -1, 0, 1, 2, 3, 5, 1_048_576, 10**9)
    ],
    *[
        b"+OK\r\n",
        b"-ERR x\r\n",
        b":1\r\n",
        b"_\r\n",
        b"#t\r\n",
        b"#x\r\n",
        b",inf\r\n",
        b",nan\r\n",
        b",1e400\r\n",
    ],
    *[b",-1.5e-3\r\n", b"(1\r\n", b">1\r\n", b"|1\r\n", b"*?\r\n", b"$?\r\n", b";4\r\n", b".\r\n"],
    *[b"\r\n", b"\n", b"\r", b"\0", b":05\r\n", b":1_0\r\n", b"$1\r\na\r\n", b"*1\r\n" * 31, b"a:", b"txt:"],
)

TARGET = Target("resp_replies", target, SEEDS, TOKENS)
