"""Commands in: bytes of a client connection become argument lists.

Two ways lead through a piece of input, and they agree by construction.

* **The fast way** cuts the piece at every CRLF in one C call. At a command boundary the lines must then read
  `*3`, `$3`, `SET`, `$5`, `hello`, ...: a count that is in a table, and before each argument exactly the
  header that an argument of its length has. Where that holds, the lines *are* the command; there is nothing
  else the bytes could mean. Where it does not (an argument that contains CRLF, an inline command, a large
  value, the unfinished end of the piece, nonsense) the fast way stops, having decided nothing.
* **The exact way** reads header by header and argument by argument, keeps what is unfinished, and knows all
  of Redis' errors. It goes on from where the fast way stopped.

Why not hiredis, although it is in C: it parses *replies*. It allocates what an array header claims before a
single element has come, at any depth, and takes simple strings, numbers, maps and nested arrays for
arguments. The checks that make it strict cost more than it saves (per SET of 256 bytes in a 16-deep pipeline:
0.35 us alone, 0.75 us with its result checked by encoding it again, 0.6 us this way; here nothing is claimed
that has not arrived).

What the limits guard: a client can make the server hold `command_bytes_max` plus one piece of input, and
each byte that arrives is looked at a bounded number of times, however the stream is cut (bad inputs 4, 8,
15).
"""

from __future__ import annotations

import re

from balsadb.resp.header import CRLF_BYTES, HEADERS, LENGTHS, parse_number
from balsadb.resp.inline import split_arguments

ARGUMENTS_MAX = 65_536
"""Arguments of one command. Redis allows 2^31; nobody who is not mistaken or hostile sends so many."""
BULK_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of one argument: the largest value. Each is copied into the log, the WAL and to every peer."""
COMMAND_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of all arguments of one command together."""
LINE_BYTES_MAX = 64 * 1024
"""Bytes of a header or of an inline command without its line end, as in Redis."""

_WINDOW_BYTES = 64 * 1024
"""The fast way cuts at most so much at once, so that 100,000 commands in one piece take linear time."""
_COUNTS = {b"*%d" % count: count for count in range(1, 1025)}
"""The number of arguments, by the header of the command."""

_EMPTY_LINES = re.compile(rb"(?:[ \t]{0,1000}\r?\n|\*(?:0|-[1-9]\d{0,17})\r\n)+")
"""Lines without a word and arrays without an element, which mean nothing. Skipped in one go: a piece of input
may hold 250,000 of them, and no count of commands bounds what they cost."""
_ASTERISK, _DOLLAR = 0x2A, 0x24
_ATTACKS = (b"post", b"host:")
"""First words of lines that a browser sends when it is tricked into talking to us (bad input 24)."""


class CommandParser:
    """The input side of one client connection.

    Call `feed` with what arrived, run the commands that it returns, then look at `error`: when it is set,
    reply `-ERR <error>` after the replies to those commands and close (when `hostile`, close without a word).
    """

    __slots__ = (
        "_arguments_left",
        "_arguments_max",
        "_argv",
        "_bulk_bytes_max",
        "_bulk_left",
        "_command_bytes_max",
        "_fast",
        "_held",
        "_size",
        "at_boundary",
        "error",
        "hostile",
    )

    def __init__(
        self,
        arguments_max: int = ARGUMENTS_MAX,
        bulk_bytes_max: int = BULK_BYTES_MAX,
        command_bytes_max: int = COMMAND_BYTES_MAX,
    ) -> None:
        self._arguments_max = arguments_max
        self._bulk_bytes_max = bulk_bytes_max
        self._command_bytes_max = command_bytes_max
        # The fast way looks at no limit: its tables and its window must lie within all of them.
        self._fast = (
            arguments_max >= len(_COUNTS)
            and bulk_bytes_max >= len(HEADERS)
            and command_bytes_max >= _WINDOW_BYTES
        )
        self.at_boundary = self._fast
        """True when the next piece may begin the fast way: nothing is unfinished and nothing is wrong."""
        self._argv: list[bytes] = []
        """Arguments of the unfinished command that are complete."""
        self._arguments_left = 0
        """Arguments that the unfinished command still needs; 0 at a command boundary."""
        self._bulk_left = 0
        """Bytes that the argument under way still needs, its CRLF included; 0 when a line is due."""
        self._held = bytearray()
        """What has arrived of the line or the argument under way."""
        self._size = 0
        """Claimed bytes of the arguments of the unfinished command, those under way included."""
        self.error: bytes | None = None
        """Why the connection must be closed (the text after `-ERR `); nothing is parsed any more."""
        self.hostile = False
        """True when the client speaks HTTP: it gets no reply that it could use."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes held of an unfinished command; greater than 0 exactly while one is unfinished."""
        unfinished = self._arguments_left > 0 or self._bulk_left > 0
        return sum(map(len, self._argv)) + len(self._held) + unfinished

    @property
    def arrived_bytes(self) -> int:
        """About what `buffered_bytes` says, but found without looking at each argument."""
        if self._bulk_left:
            return max(0, self._size + CRLF_BYTES - self._bulk_left)
        return self._size + len(self._held)

    def feed(self, data: bytes) -> list[list[bytes]]:
        """Take a piece of input and return the commands that it completes, each a non-empty list of bytes."""
        commands: list[list[bytes]] = []
        if self.at_boundary and len(data) <= _WINDOW_BYTES:
            position = _parse_lines(data, commands)
            if position < len(data):
                self._parse(data, position, len(data), commands)
        elif self.error is None:
            self._feed_on(data, commands)
        return commands

    def feed_one(self, data: bytes, position: int = 0) -> tuple[list[bytes] | None, int]:
        """Take a piece of input from a position on, up to the end of its first command.

        Returns that command, or None when there is none yet, and where to go on. For input whose commands
        must be run one by one, because a command may change what comes after it. Slower than `feed`.
        """
        commands: list[list[bytes]] = []
        while position < len(data) and self.error is None and not commands:
            position = self._parse(data, position, position, commands)
        return commands[0] if commands else None, position

    def _feed_on(self, data: bytes, commands: list[list[bytes]]) -> None:
        """Take a piece that begins inside a command, or a long one, or any one when limits are small."""
        end = len(data)
        position = self._parse(data, 0, 0 if self._fast else end, commands)
        while position < end and self.error is None:
            # When the fast way stops inside its window the exact way takes over for the rest of it, so that
            # no byte is cut at CRLFs twice.
            stop = min(end, position + _WINDOW_BYTES)
            position += _parse_lines(data[position:stop], commands)
            if position < stop:
                position = self._parse(data, position, stop, commands)

    # ------------------------------------------------------------------ the exact way

    def _parse(self, data: bytes, position: int, stop: int, commands: list[list[bytes]]) -> int:
        """Parse at least one line or argument, on to the first command boundary at or after `stop`."""
        end = len(data)
        while position < end and self.error is None:
            if self._bulk_left:
                position = self._take_bulk(data, position)
                self._maybe_finish(commands)
            elif self._arguments_left:
                before = position
                if not self._held:
                    position = self._take_short_arguments(data, position)
                    self._maybe_finish(commands)
                if position == before:
                    line, position = self._take_line(data, position, b"\r\n", b"too big bulk count string")
                    if line is not None:
                        self._begin_argument(line)
            elif not self._held and (empty := _EMPTY_LINES.match(data, position)) is not None:
                position = empty.end()
            elif (self._held or data[position : position + 1])[0] == _ASTERISK:
                line, position = self._take_line(data, position, b"\r\n", b"too big mbulk count string")
                if line is not None:
                    self._begin_command(line)
            else:
                begin = position
                line, position = self._take_line(data, begin, b"\n", b"too big inline request")
                if data.find(b"\0", begin, position) >= 0:
                    # Redis' search for the line end stops at a NUL, so such a line grows until it is too
                    # big. It can't become anything else: say so at once (bad inputs 11, 25).
                    self._fail(b"too big inline request")
                elif line is not None:
                    self._inline(line, commands)
            if position >= stop and not (self._arguments_left or self._bulk_left or self._held):
                break
        self.at_boundary = self._fast and not (self._arguments_left or self._bulk_left or self._held)
        return position

    def _fail(self, problem: bytes) -> None:
        self.error = b"Protocol error: " + problem
        self._argv = []
        self._held = bytearray()
        self._arguments_left = self._bulk_left = self._size = 0
        self._fast = False

    def _take_line(
        self, data: bytes, position: int, terminator: bytes, too_long: bytes
    ) -> tuple[bytes | None, int]:
        """Return the line at `position` without its terminator and where the next one begins.

        None instead of the line: it goes on in the next piece, or it is too long.
        """
        held = self._held
        bytes_max = LINE_BYTES_MAX + len(terminator)
        if not held:
            cut = data.find(terminator, position, position + bytes_max)
            if cut >= 0:
                return data[position:cut], cut + len(terminator)
        before = len(held)
        held += data[position : position + bytes_max - before]
        cut = held.find(terminator, max(0, before - 1))
        if cut >= 0:
            line = bytes(held[:cut])
            self._held = bytearray()
            return line, position + cut + len(terminator) - before
        position += len(held) - before
        if len(held) == bytes_max:
            self._fail(too_long)
        return None, position

    def _begin_command(self, line: bytes) -> None:
        count = parse_number(line[1:])
        if count is None or count > self._arguments_max:
            self._fail(b"invalid multibulk length")
        elif count > 0:
            self._arguments_left = count

    def _maybe_finish(self, commands: list[list[bytes]]) -> None:
        if not self._arguments_left and not self._bulk_left:
            commands.append(self._argv)
            self._argv = []
            self._size = 0

    def _take_short_arguments(self, data: bytes, position: int) -> int:
        """Take arguments as long as they are short and complete; the loop for commands of many of them."""
        end = len(data)
        while self._arguments_left:
            cut = data.find(b"\r\n", position, position + 8)
            if cut < 0:
                break
            length = LENGTHS.get(data[position:cut], self._bulk_bytes_max + 1)
            begin = cut + CRLF_BYTES
            after = begin + length + CRLF_BYTES
            size = self._size + length
            if after > end or length > self._bulk_bytes_max or size > self._command_bytes_max:
                break
            self._argv.append(data[begin : begin + length])
            self._arguments_left -= 1
            self._size = size
            position = after
        return position

    def _begin_argument(self, line: bytes) -> None:
        if not line or line[0] != _DOLLAR:
            self._fail(b"expected '$', got '%b'" % _printable(line))
            return
        length = parse_number(line[1:])
        if length is None or not 0 <= length <= self._bulk_bytes_max:
            self._fail(b"invalid bulk length")
            return
        self._size += length
        if self._size > self._command_bytes_max:
            self._fail(b"invalid bulk length")
            return
        self._arguments_left -= 1
        self._bulk_left = length + CRLF_BYTES

    def _take_bulk(self, data: bytes, position: int) -> int:
        """Take what `data` has of the argument under way. Its CRLF is not looked at, as in Redis."""
        left = self._bulk_left
        stop = position + left
        if stop > len(data):
            # A bytearray grows in place: a value that comes byte by byte costs linear time and no more
            # memory than what has come.
            self._held += data[position:] if position else data
            self._bulk_left = stop - len(data)
            return len(data)
        if self._held:
            held = self._held
            held += data[position:stop]
            self._argv.append(bytes(memoryview(held)[:-CRLF_BYTES]))
            self._held = bytearray()
        else:
            self._argv.append(data[position : stop - CRLF_BYTES])
        self._bulk_left = 0
        return stop

    def _inline(self, line: bytes, commands: list[list[bytes]]) -> None:
        argv = split_arguments(line)  # a CR before the LF is a blank like any other
        if argv is None:
            self._fail(b"unbalanced quotes in request")
        elif argv and argv[0].lower() in _ATTACKS:
            self._fail(b"this is not HTTP")
            self.hostile = True
        elif argv:
            commands.append(argv)


def _printable(line: bytes) -> bytes:
    """Return the first character for an error text: a line end as a blank, as in Redis, others as a dot."""
    first = line[:1]
    if first in (b"", b"\r", b"\n"):
        return b" "
    return first if b" " <= first <= b"~" else b"."


def _parse_lines(window: bytes, commands: list[list[bytes]]) -> int:
    """Parse whole commands from the beginning of `window` the fast way; return how many bytes they take.

    A command of three arguments (SET) is seven lines, one of two (GET) five; the two are written out because
    nearly all traffic is of that form.
    """
    lines = window.split(b"\r\n")
    last = len(lines) - 1  # the line after the last CRLF: not complete
    headers = HEADERS
    at = 0
    try:
        while at < last:
            count_line = lines[at]
            if count_line == b"*3":
                after = at + 7
                if after > last:
                    break
                _, header_a, a, header_b, b, header_c, c = lines[at:after]
                if headers[len(a)] != header_a or headers[len(b)] != header_b or headers[len(c)] != header_c:
                    break
                commands.append([a, b, c])
            elif count_line == b"*2":
                after = at + 5
                if after > last:
                    break
                _, header_a, a, header_b, b = lines[at:after]
                if headers[len(a)] != header_a or headers[len(b)] != header_b:
                    break
                commands.append([a, b])
            else:
                after = at + 1 + 2 * _COUNTS[count_line]
                if after > last:
                    break
                argv = lines[at + 2 : after : 2]
                if [headers[len(argument)] for argument in argv] != lines[at + 1 : after : 2]:
                    break
                commands.append(argv)
            at = after
    except LookupError:
        pass  # a header that is not in the tables: the exact way knows what to do
    if at == last and not lines[last]:
        return len(window)
    return sum(map(len, lines[:at])) + CRLF_BYTES * at
