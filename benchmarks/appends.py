"""Clients that append unique tokens as fast as they go, and the book in which nothing may be missing.

Each client has a key of its own and is its only writer, so the right value of the key is known exactly at
every moment: all acknowledged tokens, each once, in order. A token whose append failed with its outcome open
may be there once; one that was refused must not be.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import hiredis

from harness import pack_command, split_address

GET_EVERY = 8
"""Every eighth operation is a GET of the own key, whose answer must be exactly what was acknowledged."""

OPERATION_SECONDS = 10.0
"""A client gives an operation up after this long: well above every deadline of the server."""

ERROR_PAUSE_SECONDS = 0.005
"""A refusal comes at once; without a pause a client would collect thousands of them."""

REFUSALS = ("CLUSTERDOWN", "TRYAGAIN", "LOADING")
"""Error words that say the operation certainly did not happen."""

TOKEN = re.compile(rb"[^;]*;")
READ_BYTES = 1 << 16


# -- the book ---------------------------------------------------------------------------------------------


@dataclass
class Ledger:
    """What one client knows about its key."""

    key: str
    acknowledged: list[bytes] = field(default_factory=list)
    """Tokens in the order in which they were appended."""
    open: set[bytes] = field(default_factory=set)
    """Tokens whose append ended without an answer that settles it."""
    refused: set[bytes] = field(default_factory=set)
    """Tokens whose append certainly did not happen, as the server says."""
    length: int = 0
    """Bytes of all acknowledged tokens."""

    def acknowledge(self, token: bytes) -> None:
        """Note that an append was acknowledged."""
        self.acknowledged.append(token)
        self.length += len(token)


@dataclass(frozen=True)
class Verdict:
    """How many tokens of a value are not as they must be."""

    lost: int = 0
    """Acknowledged, and not there."""
    doubled: int = 0
    """There more than once."""
    misplaced: int = 0
    """Acknowledged ones that stand in another order than they were appended in."""
    foreign: int = 0
    """Refused, or never written by the owner of the key."""

    @property
    def good(self) -> bool:
        """True when nothing is wrong."""
        return self == Verdict()

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.misplaced + other.misplaced,
            self.foreign + other.foreign,
        )


def judge(ledger: Ledger, value: bytes) -> Verdict:
    """Compare a value that was read with what must be in it."""
    tokens = TOKEN.findall(value)
    counts = Counter(tokens)
    known = set(ledger.acknowledged)
    present = [token for token in dict.fromkeys(tokens) if token in known]
    expected = [token for token in ledger.acknowledged if token in counts]
    rest = value[sum(map(len, tokens)) :]
    return Verdict(
        lost=sum(1 for token in ledger.acknowledged if token not in counts),
        doubled=sum(count - 1 for count in counts.values()),
        misplaced=sum(1 for a, b in zip(present, expected, strict=True) if a != b),
        foreign=sum(1 for t in counts if t not in known and t not in ledger.open) + bool(rest),
    )


def longest_gap(times: Sequence[float], start: float, end: float) -> float:
    """Return the longest time without a success that began between `start` and `end`, or before and lasted.

    `times` ascend. The gap in progress at `start` counts whole, and so does the one in progress at `end`.
    Before the first success and after the last one nobody knows; there the stretch's own borders count, so
    that a client that never comes back is seen.
    """
    inside = [t for t in times if start <= t <= end]
    before = max((t for t in times if t < start), default=start)
    after = min((t for t in times if t > end), default=end)
    points = [before, *inside, after]
    return max(b - a for a, b in pairwise(points))


# -- the clients ------------------------------------------------------------------------------------------


class Connection:
    """One connection that sends a command and waits for its reply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._replies = hiredis.Reader()

    @classmethod
    async def open(cls, address: str) -> Connection:
        """Connect to "host:port"."""
        host, port = split_address(address)
        return cls(*await asyncio.open_connection(host, port))

    async def call(self, *argv: str | bytes) -> object:
        """Return the reply; an error reply is returned as an exception, a lost connection raises OSError."""
        self._writer.write(pack_command(*argv))
        while (reply := self._replies.gets()) is False:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._replies.feed(data)
        return reply

    def close(self) -> None:
        """Close without waiting."""
        self._writer.close()


class AppendClient:
    """A closed loop on one server: appends to its own key, reads it now and then, and keeps the book."""

    def __init__(self, address: str, key: str) -> None:
        self.address = address
        self.ledger = Ledger(key)
        self.successes: list[float] = []
        """When operations succeeded, by the monotonic clock."""
        self.errors: Counter[str] = Counter()
        """How operations failed: the first word of an error reply, or the kind of a lost connection."""
        self.wrong: list[str] = []
        """Answers that contradict what was acknowledged before."""
        self._connection: Connection | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; then finish the operation in progress."""
        number = 0
        while not stop.is_set():
            number += 1
            token = b"%d;" % number if number % GET_EVERY else None
            error = await self._attempt(token)
            if error is None:
                self.successes.append(time.monotonic())
            else:
                self.errors[error] += 1
                await asyncio.sleep(ERROR_PAUSE_SECONDS)
        self._disconnect()

    async def _attempt(self, token: bytes | None) -> str | None:
        """Append the token, or read when there is none. Returns how it failed."""
        sent = False
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                if self._connection is None:
                    self._connection = await Connection.open(self.address)
                sent = True
                if token is None:
                    reply = await self._connection.call("GET", self.ledger.key)
                else:
                    reply = await self._connection.call("APPEND", self.ledger.key, token)
        except OSError as error:  # TimeoutError is one, too.
            self._disconnect()
            if token is not None and sent:
                self.ledger.open.add(token)
            return type(error).__name__
        if isinstance(reply, Exception):
            return self._refused(token, str(reply).split(" ", 1)[0])
        if token is None:
            self._check_read(reply)
        else:
            self.ledger.acknowledge(token)
            self._check_length(reply)
        return None

    def _refused(self, token: bytes | None, word: str) -> str:
        if token is not None:
            (self.ledger.refused if word in REFUSALS else self.ledger.open).add(token)
        return word

    def _check_read(self, reply: object) -> None:
        value = reply if isinstance(reply, bytes) else b""
        if not (verdict := judge(self.ledger, value)).good:
            self.wrong.append(f"GET {self.ledger.key} at {self.address}: {verdict}")

    def _check_length(self, reply: object) -> None:
        # With an open token the length may be one of several; the final reading judges those.
        if not self.ledger.open and reply != self.ledger.length:
            self.wrong.append(
                f"APPEND {self.ledger.key} at {self.address} answered {reply!r}, not {self.ledger.length}"
            )

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
