"""The values that pass between the Clerk's core and its fronts, and the core's own notes about them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from balsadb.resp.decode import ReplyParser

if TYPE_CHECKING:
    from balsadb.client.session import Session
    from balsadb.errors import ClientError

Address: TypeAlias = tuple[str, int]


class Random(Protocol):
    """The randomness that the core needs. `random.SystemRandom()` has it, and so has a test's own."""

    def uniform(self, a: float, b: float) -> float:
        """Draw a number between the two; keeps Clerks from marching in step."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """Draw `k` random bits; names sessions."""
        ...


@dataclass(frozen=True)
class ClerkOptions:
    """Times in seconds, and bounds."""

    connect_timeout: float = 1.0
    """A server that has not accepted a connection after this is passed over."""
    answer_timeout: float = 3.0
    """A connection on which calls wait and nothing was heard for this long is given up. More than the 2.5 s
    after which a server itself answers that it can't."""
    backoff_min: float = 0.025
    """Pause after all servers failed once; doubles with every further round."""
    backoff_max: float = 1.0
    """Longest pause. A random part of up to a half is taken off each, so that clients don't march in step."""
    leader_interval: float = 5.0
    """How often to ask who the members are and who leads, at most."""
    prefer_leader: bool = True
    """Move to the leader. Any server serves; the leader saves a hop."""
    discover: bool = True
    """Use members that the servers tell of besides the servers that were given."""
    sessions: bool = True
    """Run writes in a session, exactly once. Without, a write whose answer got lost is not repeated."""
    session_ttl: float = 60.0
    """A session of which the database hears nothing for so long ends. Three messages fall into this time."""
    close_timeout: float = 1.0
    """How long closing may wait for the database to close the session, which would end by itself too."""
    fail_fast: bool = False
    """Give up as soon as every server refused to connect, instead of waiting for one until the deadline."""
    calls_max: int = 65_536
    """Calls under way; further ones are refused at once."""
    bytes_max: int = 64 * 1024 * 1024
    """Bytes of the commands under way; one call is always admitted."""


# --------------------------------------------------------------------- actions


@dataclass(frozen=True)
class Connect:
    """Open a connection; report `connected(number)` or `connect_failed(number)`."""

    number: int
    address: Address


@dataclass(frozen=True)
class Send:
    """Write these bytes to a connection. From now on they count as sent, whatever becomes of them."""

    number: int
    data: bytes = field(repr=False)
    """Among it may be a password, and values."""


@dataclass(frozen=True)
class Close:
    """Close a connection, or stop connecting. No event about it is expected; late ones are ignored."""

    number: int


Action: TypeAlias = Connect | Send | Close


# --------------------------------------------------------------------- calls


class Kind(Enum):
    """What may be done when an answer is lost."""

    READ = 1
    """Without effect, so it is asked again. The session's own commands are of this kind: they are made to be
    repeated."""
    ONCE = 2
    """A write in a session, so it is asked again under the same number and runs once."""
    PLAIN = 3
    """Neither; it is never repeated once its fate is open."""


@dataclass(frozen=True, slots=True)
class Command:
    """One encoded command, or one transaction."""

    kind: Kind
    count: int
    """Words of the command."""
    body: bytes
    """The words, encoded, without the array's header that tells their count."""
    lead: bytes = b""
    """What is sent before it: MULTI and the commands of the transaction."""
    led: int = 0
    """Answers that come before the command's own."""

    @property
    def size(self) -> int:
        """Bytes, nearly."""
        return len(self.lead) + len(self.body)

    def encoded(self) -> bytes:
        """Return what goes over the wire outside a session."""
        return b"%b*%d\r\n%b" % (self.lead, self.count, self.body)


class Call:
    """One operation from its submission to its result."""

    __slots__ = (
        "command",
        "deadline",
        "done",
        "early",
        "error",
        "first_sent",
        "is_open",
        "kind",
        "owner",
        "reason",
        "reply",
        "sequence",
        "session",
        "then",
    )

    def __init__(
        self,
        command: Command,
        kind: Kind,
        deadline: float,
        owner: Any = None,
        then: Callable[[Call], None] | None = None,
    ) -> None:
        self.command = command
        self.kind = kind
        self.deadline = deadline
        """When the caller wants an answer of whatever kind."""
        self.owner = owner
        """The front's; the core never looks at it."""
        self.then = then
        """Of the core's own calls: what follows when it is done."""
        self.early = b""
        """Of a transaction: the first error among the answers before its own, which had it discarded."""
        self.reason = ""
        """Why the last attempt came to nothing; empty before that."""
        self.session: Session | None = None
        """The session in which it was sent."""
        self.sequence = 0
        """Its number there; 0 before it was sent."""
        self.first_sent = 0.0
        """When it was sent for the first time."""
        self.is_open = False
        """True: at least one attempt ended without an answer that settles it (rule S3)."""
        self.done = False
        """True: `reply` or `error` is final, or nobody waits for it any more."""
        self.reply: Any = None
        """The answer, when `error` is None."""
        self.error: ClientError | None = None
        """Why there is none."""


class Before:
    """Stands for one of the answers that come before a transaction's own: of MULTI and of each command."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call


class Link:
    """One connection, while it is being made and while it is open."""

    __slots__ = (
        "address",
        "connect_deadline",
        "heard",
        "heard_at",
        "is_open",
        "number",
        "parser",
        "sent",
        "to_leader",
    )

    def __init__(self, number: int, address: Address, connect_deadline: float, to_leader: bool) -> None:
        self.number = number
        """Never used again, so that a late event about an older connection is known as such."""
        self.address = address
        self.connect_deadline = connect_deadline
        """When it must be open."""
        self.to_leader = to_leader
        """True: made beside the current link, to take over from it once it is open."""
        self.is_open = False
        """True once calls may be sent: it is connected, and logged in if there is need."""
        self.heard = False
        """True once anything was received."""
        self.heard_at = 0.0
        """When something was last received, or when the first of the waiting calls was sent."""
        self.sent: deque[Call | Before | None] = deque()
        """What was sent and not yet answered, in order; None stands for the question who the members are."""
        self.parser = ReplyParser()
