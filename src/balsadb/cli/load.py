"""The pure part of `balsadb bench`: which commands, when they are due, and what came back.

Everything here runs once for each operation or each piece of input, and the generator often shares its cores
with what it measures: so commands are put together from parts made before, and replies are counted, not
parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from random import Random

from balsadb.cli.histogram import Histogram
from balsadb.errors import ProtocolError
from balsadb.resp.decode import encode_command

OPERATIONS = {
    "set": ("set",),
    "get": ("get",),
    "append": ("append",),
    "incr": ("incr",),
    "mixed": ("set", "get"),
}
"""What `--operation` may name, and the kinds of commands that it draws from, each as often as the others."""

LINE_BYTES_MAX = 64 * 1024
"""A reply's first line may not be longer; no server of ours comes near it."""
ERROR_WORDS_MAX = 20
"""Errors are told apart by so many first words; those of any more are counted together."""

_STEMS = {"set": b"value:", "get": b"value:", "append": b"append:", "incr": b"count:"}
_VALUES_MAX = 64
"""Different values that are written in turns. They are random, because a compressible value is a gift."""
_VALUES_BYTES_MAX = 16 * 1024 * 1024
"""Large values are fewer: all together have so many bytes, or there is only one."""
_DELETE_KEYS = 100
"""Keys of one DEL."""
_DOLLAR, _MINUS = b"$-"
_ONE_LINE = frozenset(b"+-:_")


class Commands:
    """The commands of one run of `balsadb bench`, and all the keys that they may touch.

    A key is the prefix, what it is for, and a number below `keys`; numbers are drawn evenly.
    """

    def __init__(self, prefix: bytes, keys: int, value_bytes: int, random: Random) -> None:
        self.prefix = prefix
        self.keys = keys
        self._random = random
        values = max(1, min(_VALUES_MAX, _VALUES_BYTES_MAX // max(1, value_bytes)))
        self._values = [random.randbytes(value_bytes) for _ in range(values)]

    def source(self, kind: str) -> Callable[[], bytes]:
        """Return a function that gives the next command of a kind, ready to be sent."""
        words = {"set": 3, "get": 2, "append": 3, "incr": 2}[kind]
        name, stem = kind.upper().encode(), self.prefix + _STEMS[kind]
        head = b"*%d\r\n$%d\r\n%b\r\n$%d\r\n%b" % (words, len(name), name, len(stem) + 10, stem)
        values = self._values if words == 3 else [None]
        ends = [b"\r\n" if value is None else b"\r\n$%d\r\n%b\r\n" % (len(value), value) for value in values]
        draw, keys, end = self._random.random, self.keys, cycle(ends)
        return lambda: b"%b%010d%b" % (head, int(draw() * keys), next(end))

    def fill(self) -> Iterator[bytes]:
        """Return the commands that give every key that GET asks for a value."""
        values = cycle(self._values)
        for number in range(self.keys):
            yield encode_command([b"SET", self._key("set", number), next(values)])

    def remove(self, kinds: set[str]) -> Iterator[bytes]:
        """Return the commands that remove every key that commands of these kinds may have made."""
        for kind in {_STEMS[kind]: kind for kind in sorted(kinds)}.values():
            for first in range(0, self.keys, _DELETE_KEYS):
                numbers = range(first, min(first + _DELETE_KEYS, self.keys))
                yield encode_command([b"DEL", *(self._key(kind, number) for number in numbers)])

    def _key(self, kind: str, number: int) -> bytes:
        return b"%b%b%010d" % (self.prefix, _STEMS[kind], number)


class ReplyCounter:
    """Counts the replies of one connection. Takes what data commands answer, and no nested replies."""

    __slots__ = ("_held", "_skip", "refusals")

    def __init__(self) -> None:
        self._held = b""
        """The beginning of a line that has not all come."""
        self._skip = 0
        """Bytes that the string under way still needs."""
        self.refusals: list[tuple[int, str]] = []
        """Of the last piece: which of its replies, counted from 0, were errors, and what they said."""

    def feed(self, data: bytes) -> int:
        """Return how many replies a piece of input completes. Raises ProtocolError."""
        if self.refusals:
            self.refusals = []
        replies = position = 0
        if self._skip:
            if self._skip > len(data):
                self._skip -= len(data)
                return 0
            replies, position, self._skip = 1, self._skip, 0
        elif self._held:
            data, self._held = self._held + data, b""
        elif data.count(b"+OK\r\n") * 5 == len(data):
            return len(data) // 5
        end = len(data)
        while position < end:
            cut = data.find(b"\r\n", position)
            if cut < 0:
                self._hold(data[position:])
                break
            kind = data[position]
            after = cut + 2
            if kind == _DOLLAR:
                after += _string_bytes(data[position + 1 : cut])
                if after > end:
                    self._skip = after - end
                    break
            elif kind not in _ONE_LINE:
                raise ProtocolError(f"a reply begins with {data[position : position + 32]!r}")
            elif kind == _MINUS:
                self.refusals.append((replies, data[position + 1 : cut].decode(errors="replace")))
            replies += 1
            position = after
        return replies

    def _hold(self, line: bytes) -> None:
        if len(line) > LINE_BYTES_MAX:
            raise ProtocolError("a line of a reply is too long")
        self._held = line


def _string_bytes(length: bytes) -> int:
    """Return how many bytes come after the header of a string, its line end included; -1 is no string."""
    if length == b"-1":
        return 0
    if not (length.isdigit() and len(length) <= 10):
        raise ProtocolError(f"a reply has a bad length: {length[:32]!r}")
    return int(length) + 2


class Schedule:
    """When the operations of a fixed rate are due, whatever the servers do: the n-th n/rate after the begin.

    Latency is counted from then. A generator that waits for an answer before it takes the time of the next
    operation would leave out exactly the operations that a slow server has kept waiting.
    """

    def __init__(self, rate: float, begin_ns: int) -> None:
        self._interval_ns = 1e9 / rate
        self._begin_ns = begin_ns
        self.taken = 0
        """Operations that were given out."""

    def next_ns(self) -> int:
        """Return when the next operation is due."""
        return self._begin_ns + int(self.taken * self._interval_ns)

    def take(self) -> int:
        """Give out the next operation; returns when it was due."""
        due_ns = self.next_ns()
        self.taken += 1
        return due_ns

    def overdue(self, now_ns: int) -> int:
        """Return how many operations are due and were not given out."""
        if now_ns < self.next_ns():
            return 0
        return int((now_ns - self._begin_ns) / self._interval_ns) + 1 - self.taken


class Tally:
    """What came of the commands of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.latest = Histogram()
        """Since the last `turn`."""
        self.total = Histogram()
        """Until the last `turn`."""
        self.errors: dict[str, int] = {}
        """How many, by their first word."""
        self.first_errors: dict[str, str] = {}
        """What the first one with that word said."""

    def fail(self, text: str, times: int = 1) -> None:
        """Count errors that say the same."""
        word = text.split(" ", 1)[0] or "?"
        if word not in self.errors and len(self.errors) >= ERROR_WORDS_MAX:
            word = "others"
        self.errors[word] = self.errors.get(word, 0) + times
        self.first_errors.setdefault(word, text)

    def turn(self) -> Histogram:
        """Begin a new second; returns what the last one brought."""
        latest, self.latest = self.latest, Histogram()
        self.total.add(latest)
        return latest
