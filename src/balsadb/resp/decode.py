"""The Clerk's end of a connection: commands out, replies in.

A server is trusted with the data but not with our memory: a reply's headers are claims, checked against
named limits before anything is kept, and nesting is a list on the heap, not recursion (bad input 38).
Whatever is not RESP raises `ProtocolError`, after which the connection is of no use any more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from balsadb.errors import ProtocolError
from balsadb.kv.reply import OK, Mapping, Refusal, Reply, Status
from balsadb.resp.header import CRLF_BYTES, HEADERS, parse_number

BULK_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of one string in a reply: well above the largest value."""
REPLY_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of all strings of one reply."""
REPLY_VALUES_MAX = 1_048_576
"""Values in one reply, at all depths together."""
DEPTH_MAX = 32
"""Aggregates inside one another; no command's reply comes near it."""
LINE_BYTES_MAX = 64 * 1024
"""Bytes of a simple string, error or header, without its line end."""

_WINDOW_BYTES = 64 * 1024
"""The fast way cuts at most so much at once."""
_SIMPLE: dict[bytes, Reply] = {
    b"+OK": OK,
    b"$-1": None,
    b"_": None,
    b"#t": True,
    b"#f": False,
    **{b":%d" % number: number for number in range(-1, 1024)},
}
"""Replies of one line that are worth looking up."""
_DOUBLE = re.compile(rb"[+-]?(?:inf|nan|[0-9]{1,400}(?:\.[0-9]{0,400})?(?:[eE][+-]?[0-9]{1,4})?)")
_BIG_NUMBER = re.compile(rb"[+-]?[0-9]{1,1000}")


def encode_command(argv: Sequence[bytes]) -> bytes:
    """Encode a command as an array of bulk strings."""
    return b"*%d\r\n%b" % (len(argv), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in argv]))


class _Aggregate:
    """An array, set or map whose elements are not all there yet."""

    __slots__ = ("is_map", "items", "left")

    def __init__(self, left: int, is_map: bool) -> None:
        self.left = left
        self.is_map = is_map
        self.items: list[Reply] = []

    def finished(self) -> Reply:
        if self.is_map:
            return Mapping(list(zip(self.items[::2], self.items[1::2], strict=True)))
        return self.items


class ReplyParser:
    """Parses the replies of one connection. `feed` returns those that a piece of input completes.

    Error replies are `Refusal` values, null arrays are None, sets are lists. Push messages and attributes
    are refused: our servers send none, and taking one for a reply would shift all later answers.
    """

    __slots__ = ("_bulk_bytes_max", "_bulk_kind", "_bulk_left", "_bytes", "_claimed", "_held", "_stack")

    def __init__(self, bulk_bytes_max: int = BULK_BYTES_MAX) -> None:
        assert bulk_bytes_max >= len(HEADERS), "the fast way looks at no limit"
        self._bulk_bytes_max = bulk_bytes_max
        self._held = bytearray()
        """What has arrived of the line or string under way."""
        self._bulk_left = 0
        """Bytes that the string under way still needs, its CRLF included; 0 when a line is due."""
        self._bulk_kind = b""
        """Type byte of the string under way."""
        self._stack: list[_Aggregate] = []
        """Unfinished aggregates, outermost first."""
        self._claimed = 0
        """Values that the headers of the unfinished reply have claimed."""
        self._bytes = 0
        """Bytes of strings that they have claimed."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes of an unfinished reply; greater than 0 exactly while one is unfinished."""
        if self._bulk_left:
            return self._bytes + CRLF_BYTES - self._bulk_left + len(self._stack) + 1
        return self._bytes + len(self._held) + len(self._stack)

    def feed(self, data: bytes) -> list[Reply]:
        """Take a piece of input and return the replies that it completes. Raises ProtocolError."""
        replies: list[Reply] = []
        position, end = 0, len(data)
        while position < end:
            stop = min(end, position + _WINDOW_BYTES)
            if not (self._held or self._stack or self._bulk_left):
                position += _parse_lines(data[position:stop], replies)
            while position < end:
                position = self._step(data, position, replies)
                if position >= stop and not (self._held or self._stack or self._bulk_left):
                    break
        return replies

    def _step(self, data: bytes, position: int, replies: list[Reply]) -> int:
        """Take one line or string, or what there is of it; return the position after it."""
        if self._bulk_left:
            return self._take_bulk(data, position, replies)
        held = self._held
        begin = position - len(held)
        if held:
            held += data[position : position + LINE_BYTES_MAX + CRLF_BYTES - len(held)]
            cut = held.find(b"\r\n", max(0, position - begin - 1))
            line = bytes(held[:cut])
        else:
            cut = data.find(b"\r\n", position, position + LINE_BYTES_MAX + CRLF_BYTES)
            line = data[position:cut]
            if cut < 0:
                held += data[position : position + LINE_BYTES_MAX + CRLF_BYTES]
            else:
                cut -= position
        if cut < 0:
            if held.startswith(b"\x15\x03"):  # an alert of TLS
                raise ProtocolError("the server speaks TLS, and this client does not")
            if len(held) >= LINE_BYTES_MAX + CRLF_BYTES:
                raise ProtocolError("a line of a reply is too long")
            return begin + len(held)
        held.clear()
        self._take_line(line, replies)
        return begin + cut + CRLF_BYTES

    def _take_bulk(self, data: bytes, position: int, replies: list[Reply]) -> int:
        stop = position + self._bulk_left
        if stop > len(data):
            self._held += data[position:]
            self._bulk_left = stop - len(data)
            return len(data)
        if self._held:
            self._held += data[position:stop]
            text = bytes(self._held)
            self._held = bytearray()
        else:
            text = data[position:stop]
        self._bulk_left = 0
        if not text.endswith(b"\r\n"):
            raise ProtocolError("a string of a reply is longer than its header says")
        kind = self._bulk_kind
        if kind == b"!":
            self._deliver(Refusal(text[:-CRLF_BYTES]), replies)
        else:
            # A verbatim string begins with three characters for its format and a colon.
            self._deliver(text[4:-CRLF_BYTES] if kind == b"=" else text[:-CRLF_BYTES], replies)
        return stop

    def _take_line(self, line: bytes, replies: list[Reply]) -> None:
        if line in _SIMPLE:
            self._deliver(_SIMPLE[line], replies)
            return
        kind, text = line[:1], line[1:]
        if kind == b"+":
            self._deliver(Status(text), replies)
        elif kind == b"-":
            self._deliver(Refusal(text), replies)
        elif kind in (b"$", b"=", b"!"):
            self._begin_bulk(kind, _whole(line, text))
        elif kind in (b"*", b"~", b"%"):
            self._begin_aggregate(kind, _whole(line, text), replies)
        elif kind == b":":
            self._deliver(_whole(line, text), replies)
        elif kind == b"," and _DOUBLE.fullmatch(text):
            self._deliver(float(text), replies)
        elif kind == b"(" and _BIG_NUMBER.fullmatch(text):
            self._deliver(int(text), replies)
        else:
            raise ProtocolError(f"a reply begins with {line[:32]!r}")

    def _begin_bulk(self, kind: bytes, length: int) -> None:
        self._bytes += length
        if not 0 <= length <= self._bulk_bytes_max or self._bytes > REPLY_BYTES_MAX:
            raise ProtocolError(f"a reply claims a string of {length} bytes")
        if kind == b"=" and length < 4:
            raise ProtocolError("a reply has a verbatim string without a format")
        self._bulk_kind = kind
        self._bulk_left = length + CRLF_BYTES

    def _begin_aggregate(self, kind: bytes, count: int, replies: list[Reply]) -> None:
        if count == -1 and kind == b"*":
            self._deliver(None, replies)
            return
        is_map = kind == b"%"
        values = 2 * count if is_map else count
        self._claimed += values
        if values < 0 or self._claimed > REPLY_VALUES_MAX or len(self._stack) == DEPTH_MAX:
            raise ProtocolError(f"a reply claims {count} elements at depth {len(self._stack)}")
        aggregate = _Aggregate(values, is_map)
        if values:
            self._stack.append(aggregate)
        else:
            self._deliver(aggregate.finished(), replies)

    def _deliver(self, value: Reply, replies: list[Reply]) -> None:
        """Put a finished value where it belongs; that may finish the aggregates around it."""
        stack = self._stack
        while stack:
            innermost = stack[-1]
            innermost.items.append(value)
            innermost.left -= 1
            if innermost.left:
                return
            value = stack.pop().finished()
        replies.append(value)
        self._claimed = self._bytes = 0


def _whole(line: bytes, text: bytes) -> int:
    number = parse_number(text)
    if number is None:
        raise ProtocolError(f"a reply has a bad number: {line[:32]!r}")
    return number


def _parse_lines(window: bytes, replies: list[Reply]) -> int:
    """Parse plain replies from the beginning of `window`; return how many bytes they take.

    As in `parser`: after cutting at every CRLF, a line with exactly the header that the next line's length
    has, and the next line, are a bulk string.
    """
    lines = window.split(b"\r\n")
    last = len(lines) - 1
    at = 0
    try:
        while at < last:
            line = lines[at]
            if line in _SIMPLE:
                replies.append(_SIMPLE[line])
                at += 1
            elif at + 2 <= last and HEADERS[len(lines[at + 1])] == line:
                replies.append(lines[at + 1])
                at += 2
            else:
                break
    except IndexError:
        pass  # a string longer than the table knows
    return sum(map(len, lines[:at])) + CRLF_BYTES * at
