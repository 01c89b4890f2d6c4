"""The Clerk without sockets and clocks: which server to try, when, and what each outcome means.

A front feeds it events and carries out its actions:

    submit, abandon              a caller wants something, or no longer
    connected, connect_failed    what became of a `Connect`
    received, lost               what an open connection brought
    tick                         the time `wake_at()` has come
    actions() -> Connect | Send | Close, in this order to be carried out
    finished() -> calls whose `reply` or `error` is now known

Time is an argument (seconds of any clock that only goes forward), jitter comes from an injected source, so a
test can play every race. One connection at a time carries new calls, pipelined; an older one lives on only
until its answers are in.

**What may be repeated** (rule S3). A call that was never handed to a connection, or that a server refused
definitely, is tried again elsewhere until its deadline; if that passes, it certainly did not happen:
`NotApplied`. A *write* whose connection broke, whose answer did not come in time, or that was answered
`-UNKNOWN`, may have happened: it ends with `OutcomeUnknown`, whatever other attempts said. A *read* has no
effect, so it is simply asked again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias

from balsadb.address import format_address, format_addresses
from balsadb.client.words import encode, is_certainly_not_applied, is_open_outcome
from balsadb.errors import (
    ClientError,
    CommandError,
    NoServer,
    NotApplied,
    OutcomeUnknown,
    ProtocolError,
    UsageError,
)
from balsadb.kv.reply import Refusal
from balsadb.resp.decode import ReplyParser

Address: TypeAlias = tuple[str, int]

ASK_FOR_LEADER = encode("CLUSTER", "SLOTS")
"""Every node answers it at once and names the leader first."""


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
    """How often to ask who leads, at most."""
    prefer_leader: bool = True
    """Move to the leader when it is among the given servers. Any server serves; the leader saves a hop."""
    fail_fast: bool = False
    """Give up as soon as every server refused to connect, instead of waiting for one until the deadline."""
    calls_max: int = 65_536
    """Calls under way; further ones are refused at once."""
    bytes_max: int = 64 * 1024 * 1024
    """Bytes of the commands under way; one call is always admitted."""


@dataclass(frozen=True)
class Connect:
    """Open a connection; report `connected(number)` or `connect_failed(number)`."""

    number: int
    address: Address


@dataclass(frozen=True)
class Send:
    """Write these bytes to a connection. From now on they count as sent, whatever becomes of them."""

    number: int
    data: bytes


@dataclass(frozen=True)
class Close:
    """Close a connection, or stop connecting. No event about it is expected; late ones are ignored."""

    number: int


Action: TypeAlias = Connect | Send | Close


class Call:
    """One operation from its submission to its result."""

    __slots__ = ("data", "deadline", "done", "error", "is_read", "owner", "reason", "reply")

    def __init__(self, data: bytes, is_read: bool, deadline: float, owner: Any) -> None:
        self.data = data
        """The encoded command."""
        self.is_read = is_read
        """Without effect, hence free to be asked again."""
        self.deadline = deadline
        """When the caller wants an answer of whatever kind."""
        self.owner = owner
        """The front's; the core never looks at it."""
        self.reason = ""
        """Why the last attempt came to nothing; empty before that."""
        self.done = False
        """True: `reply` or `error` is final, or nobody waits for it any more."""
        self.reply: Any = None
        """The answer, when `error` is None."""
        self.error: ClientError | None = None
        """Why there is none."""


class Link:
    """One connection, while it is being made and while it is open."""

    __slots__ = ("connect_deadline", "heard_at", "is_open", "number", "parser", "sent", "server", "to_leader")

    def __init__(self, number: int, server: int, connect_deadline: float, to_leader: bool) -> None:
        self.number = number
        """Never used again, so that a late event about an older connection is known as such."""
        self.server = server
        """Index of its server."""
        self.connect_deadline = connect_deadline
        """When it must be open."""
        self.to_leader = to_leader
        """True: made beside the current link, to take over from it once it is open."""
        self.is_open = False
        self.heard_at = 0.0
        """When something was last received, or when the first of the waiting calls was sent."""
        self.sent: deque[Call | None] = deque()
        """What was sent and not yet answered, in order; None stands for the question who leads."""
        self.parser = ReplyParser()


class ClerkCore:
    """See the module's text. Not thread-safe; fronts take care of that."""

    def __init__(
        self, servers: Sequence[Address], options: ClerkOptions, jitter: Callable[[float, float], float]
    ) -> None:
        """`jitter(low, high)` draws a number between the two, as `random.Random().uniform` does."""
        if not servers:
            raise UsageError("a Clerk needs at least one server")
        self.servers = list(dict.fromkeys(servers))
        self.options = options
        self._jitter = jitter
        self._links: dict[int, Link] = {}
        self._current: Link | None = None
        self._server = 0  # index of the server to try next
        self._waiting: deque[Call] = deque()
        self._finished: list[Call] = []
        self._actions: list[Action] = []
        self._numbers = 0
        self._failures = 0  # in a row, without a single answer in between
        self._connect_failures: dict[int, str] = {}  # by server, since the last connection that was made
        self._paused_until = -inf
        self._asked_at = -inf
        self._calls = 0
        self._bytes = 0
        self._first_deadline = inf  # no call's deadline is earlier
        self.closed = False

    # ------------------------------------------------------------------ what callers want

    def submit(self, data: bytes, is_read: bool, deadline: float, owner: Any = None) -> Call:
        """Take a call. Raises `NotApplied` when too much is under way already."""
        if self.closed:
            raise NotApplied("this Clerk is closed")
        if self._calls and (
            self._calls >= self.options.calls_max or self._bytes + len(data) > self.options.bytes_max
        ):
            raise NotApplied(f"{self._calls:,} calls with {self._bytes:,} bytes are under way already")
        call = Call(data, is_read, deadline, owner)
        self._calls += 1
        self._bytes += len(data)
        self._waiting.append(call)
        if deadline < self._first_deadline:
            self._first_deadline = deadline
        return call

    def abandon(self, call: Call) -> None:
        """Nobody waits for this call any more. If it was not sent yet it won't be."""
        if not call.done:
            self._release(call)

    def close(self) -> None:
        """End every call and close every connection."""
        self.closed = True
        for link in list(self._links.values()):
            self._discard(link, "the Clerk was closed")
        for call in self._waiting:
            if not call.done:
                self._fail(call, NotApplied("the Clerk was closed"))
        self._waiting.clear()

    # ------------------------------------------------------------------ what connections report

    def connected(self, number: int, now: float) -> None:
        """The connection is open."""
        link = self._links.get(number)
        if link is None:
            return
        link.is_open = True
        self._connect_failures.clear()
        if link.to_leader and link is not self._current:
            self._use(link)

    def connect_failed(self, number: int, reason: str, now: float) -> None:
        """The connection could not be made; `reason` is a few words for people."""
        link = self._links.pop(number, None)
        if link is None:
            return
        self._connect_failures[link.server] = reason
        if link is self._current:
            self._move_on(now)
        if self.options.fail_fast and len(self._connect_failures) == len(self.servers) and not self._links:
            for call in self._waiting:
                if not call.done:
                    self._fail(call, self._gave_up(call))
            self._waiting.clear()

    def received(self, number: int, data: bytes, now: float) -> None:
        """Bytes arrived."""
        link = self._links.get(number)
        if link is None:
            return
        link.heard_at = now
        try:
            replies = link.parser.feed(data)
        except ProtocolError as error:
            self._break(link, f"nonsense from the server ({error})", now)
            return
        again: list[Call] = []
        sent = link.sent
        for reply in replies:
            if not sent:
                self._break(link, "an answer to no question", now)
                break
            call = sent.popleft()
            if call is None:
                self._learn_leader(link, reply, now)
            elif call.done:
                pass
            elif isinstance(reply, Refusal):
                if self._refused(call, reply.text):
                    again.append(call)
            else:
                call.reply = reply
                self._failures = 0
                self._release(call)
                self._finished.append(call)
        if again:
            self._waiting.extendleft(reversed(again))
            if link is self._current:
                self._move_on(now)
        if not sent and link is not self._current:
            self._forget(link)

    def lost(self, number: int, reason: str, now: float) -> None:
        """An open connection ended."""
        link = self._links.get(number)
        if link is not None:
            self._break(link, reason, now, closed=True)

    # ------------------------------------------------------------------ time

    def wake_at(self) -> float | None:
        """When `tick` must be called at the latest; None: not at all."""
        when = self._first_deadline if self._calls else inf
        if self._waiting and self._current is None:
            when = min(when, self._paused_until)
        for link in self._links.values():
            if not link.is_open:
                when = min(when, link.connect_deadline)
            elif link.sent:
                when = min(when, link.heard_at + self.options.answer_timeout)
        return None if when == inf else when

    def tick(self, now: float) -> None:
        """Give up what has waited too long."""
        for link in list(self._links.values()):
            if not link.is_open:
                if now >= link.connect_deadline:
                    self._actions.append(Close(link.number))
                    self.connect_failed(
                        link.number, f"no answer within {self.options.connect_timeout:g} s", now
                    )
            elif link.sent and now >= link.heard_at + self.options.answer_timeout:
                self._break(link, f"no answer within {self.options.answer_timeout:g} s", now)
        if now >= self._first_deadline:
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        """End the calls whose deadline has come, and find the next one."""
        first = inf
        kept: deque[Call] = deque()
        for call in self._waiting:
            if call.done:
                continue
            if now >= call.deadline:
                self._fail(call, self._gave_up(call))
                continue
            kept.append(call)
            first = min(first, call.deadline)
        self._waiting = kept
        for link in self._links.values():
            where = format_address(*self.servers[link.server])
            for sent in link.sent:
                if sent is None or sent.done:
                    continue
                if now >= sent.deadline:
                    # Its place stays: the answer may still come and must not go to the next call.
                    self._fail(sent, self._unanswered(sent, f"{where} did not answer in time"))
                else:
                    first = min(first, sent.deadline)
        self._first_deadline = first

    # ------------------------------------------------------------------ what to do

    def actions(self, now: float) -> list[Action]:
        """Return what the front must do now, in order."""
        if self._waiting:
            self._send_waiting(now)
        if not self._actions:
            return []
        actions, self._actions = self._actions, []
        return actions

    def finished(self) -> list[Call]:
        """Return the calls that got a result since the last time."""
        finished, self._finished = self._finished, []
        return finished

    def _send_waiting(self, now: float) -> None:
        link = self._current
        if link is None:
            if now < self._paused_until:
                return
            link = self._current = self._link_to(self._server, now)
        if not link.is_open:
            return
        parts: list[bytes] = []
        if not link.sent:
            link.heard_at = now
        if self.options.prefer_leader and now >= self._asked_at + self.options.leader_interval:
            self._asked_at = now
            parts.append(ASK_FOR_LEADER)
            link.sent.append(None)
        for call in self._waiting:
            if not call.done:
                parts.append(call.data)
                link.sent.append(call)
        self._waiting.clear()
        self._actions.append(Send(link.number, b"".join(parts)))

    def _link_to(self, server: int, now: float, to_leader: bool = False) -> Link:
        """Return the connection to a server, open or on its way; there is at most one."""
        for link in self._links.values():
            if link.server == server:
                return link
        self._numbers += 1
        link = Link(self._numbers, server, now + self.options.connect_timeout, to_leader)
        self._links[link.number] = link
        self._actions.append(Connect(link.number, self.servers[server]))
        return link

    # ------------------------------------------------------------------ outcomes

    def _refused(self, call: Call, text: bytes) -> bool:
        """Take an error reply. True: the call is to be tried again."""
        words = text.decode(errors="replace")
        if is_certainly_not_applied(text):
            call.reason = words
            return True
        if is_open_outcome(text):
            if call.is_read:
                call.reason = words
                return True
            self._fail(call, OutcomeUnknown(words))
        else:
            # A deterministic refusal is an answer like any other.
            self._failures = 0
            self._fail(call, CommandError(words))
        return False

    def _break(self, link: Link, reason: str, now: float, closed: bool = False) -> None:
        """A connection is unusable: reads go elsewhere, the fate of its writes is unknown."""
        was_current = link is self._current
        self._discard(link, f"{format_address(*self.servers[link.server])}: {reason}", closed)
        if was_current:
            self._move_on(now)

    def _discard(self, link: Link, reason: str, closed: bool = False) -> None:
        again: list[Call] = []
        for call in link.sent:
            if call is None or call.done:
                continue
            call.reason = reason
            if call.is_read and not self.closed:
                again.append(call)
            else:
                self._fail(call, self._unanswered(call, reason))
        link.sent.clear()
        self._waiting.extendleft(reversed(again))
        self._forget(link, closed)

    def _unanswered(self, call: Call, reason: str) -> ClientError:
        if call.is_read:
            return NotApplied(f"no answer: {reason}")
        return OutcomeUnknown(f"the write was sent and may have happened, or may happen yet: {reason}")

    def _gave_up(self, call: Call) -> ClientError:
        """The error for a call of which no attempt can have had an effect (rule S3)."""
        if call.reason:
            return NotApplied(f"gave up: {call.reason}")
        reasons = list(dict.fromkeys(self._connect_failures.values())) or ["no answer"]
        return NoServer(f"no server answers at {format_addresses(self.servers)} ({'; '.join(reasons)})")

    def _fail(self, call: Call, error: ClientError) -> None:
        call.error = error
        self._release(call)
        self._finished.append(call)

    def _release(self, call: Call) -> None:
        call.done = True
        self._calls -= 1
        self._bytes -= len(call.data)
        call.data = b""

    # ------------------------------------------------------------------ which server

    def _move_on(self, now: float) -> None:
        """The current server failed us: the next one is tried, after a pause once all have failed."""
        self._retire_current()
        self._server = (self._server + 1) % len(self.servers)
        self._failures += 1
        self._asked_at = -inf
        rounds, rest = divmod(self._failures, len(self.servers))
        if rest == 0:
            longest = min(self.options.backoff_max, self.options.backoff_min * 2 ** min(rounds - 1, 20))
            self._paused_until = now + longest * self._jitter(0.5, 1.0)

    def _use(self, link: Link) -> None:
        self._retire_current()
        self._current = link
        self._server = link.server

    def _retire_current(self) -> None:
        """Send nothing more on the current connection; it stays until its answers are in."""
        link, self._current = self._current, None
        if link is not None and link.number in self._links and not link.sent:
            self._forget(link)

    def _forget(self, link: Link, closed: bool = False) -> None:
        if self._links.pop(link.number, None) is not None and not closed:
            self._actions.append(Close(link.number))
        if link is self._current:
            self._current = None

    def _learn_leader(self, link: Link, reply: object, now: float) -> None:
        """Move to the leader if it is one of our servers and this is not its connection already."""
        leader = _first_node(reply)
        # An address that we were not given may be unreachable from here, or lead round a proxy.
        if leader is None or leader not in self.servers or link is not self._current:
            return
        server = self.servers.index(leader)
        if server == link.server:
            return
        preferred = self._link_to(server, now, to_leader=True)
        if preferred.is_open:
            self._use(preferred)


def _first_node(reply: object) -> Address | None:
    """Read the first node of the first range in an answer to CLUSTER SLOTS, whatever else was answered."""
    match reply:
        case [[_, _, [bytes(host), int(port), *_], *_], *_]:
            return host.decode(errors="replace"), port
        case _:
            return None
