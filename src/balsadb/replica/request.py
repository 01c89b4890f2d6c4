"""What clients ask for, and the order within one connection (rule P6).

A `Request` is the work of one piece of a connection's input: either reads alone, or writes with the reads
that stand between them. A `Lane` is one connection: it lets requests of one kind overlap (writes follow
each other through the log, reads are answered in order) and makes a change of kind wait until what came
before is answered. So `SET a 1` then `GET a` never answers the old value.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any, TypeAlias

from balsadb.kv.reply import Reply

Command: TypeAlias = list[bytes]
"""An argument vector; the first element names the command."""


class RequestKind(IntEnum):
    """How a request gets its answer."""

    READ = 1
    """Linearizable reads, by read index."""
    WRITE = 2
    """Through the log; may carry reads as local slots."""
    STALE_READ = 3
    """Reads of a READONLY connection, answered from whatever this node has applied."""
    CHANGE = 4
    """One RAFT ADD, REMOVE, REPLACE or TRANSFER."""


class Request:
    """One piece of a connection's input on its way to an answer."""

    __slots__ = (
        "answers",
        "clock_ms",
        "commands",
        "context",
        "costly",
        "deadline_ms",
        "kind",
        "lane",
        "literals",
        "reads",
        "replies",
        "sent",
        "size",
        "transaction",
    )

    def __init__(
        self,
        lane: Lane,
        kind: RequestKind,
        commands: list[Command],
        reads: list[tuple[int, Command]],
        answers: int,
        size: int,
        *,
        transaction: bool = False,
    ) -> None:
        self.lane = lane
        self.kind = kind
        self.commands = commands
        """Of a WRITE: what goes into the log (flat, see `kv.batch`). Of a read: the reads in order."""
        self.reads = reads
        """Of a WRITE: local slots (position in `commands`, command), ascending."""
        self.answers = answers
        """How many replies it gets, besides its literals; a transaction gets one."""
        self.size = size
        """Bytes of all arguments."""
        self.transaction = transaction
        """Of a read: run all commands as one transaction with one list reply."""
        self.costly = False
        """Of a read: it looks at many keys, so that other clients get their turn after it."""
        self.literals: list[tuple[int, bytes]] = []
        """Replies known beforehand: (number of other replies before it, encoded reply), ascending."""
        self.context: Any = None
        """The driver's own; never looked at here."""
        self.clock_ms = 0
        """Of a read: the leader's clock when it was confirmed, which TTL subtracts (rule S6); 0: unknown."""
        self.deadline_ms = 0
        """Monotonic time at which an answer is due, set on submission."""
        self.sent = False
        """True once a payload with it was handed to Raft, so that its fate may be open."""
        self.replies: list[Reply] | None = None
        """The answer; None while there is none. Never changed again once set."""


class Lane:
    """The order of one connection. `owner` is whatever the driver wants to find again."""

    __slots__ = ("backlog", "flying", "held_bytes", "kind", "owner")

    def __init__(self, owner: Any = None) -> None:
        self.owner = owner
        self.kind = RequestKind.READ
        """Kind of the requests in flight, where `flying` is not 0."""
        self.flying = 0
        """Requests dispatched and not answered."""
        self.backlog: deque[Request] = deque()
        """Requests that wait for a change of kind; bounded by the listener, which stops reading."""
        self.held_bytes = 0
        """Bytes of all requests of this lane that have no answer yet."""

    def admits(self, kind: RequestKind) -> bool:
        """Tell whether a request of `kind` may be dispatched now."""
        return not self.backlog and (self.flying == 0 or self.kind is kind)
