"""The Clerk without sockets and clocks: which server to try, when, and what each outcome means.

A front feeds it events and carries out its actions:

    submit, abandon              a caller wants something, or no longer
    connected, connect_failed    what became of a `Connect`
    received, lost               what an open connection brought
    tick                         the time `wake_at()` has come
    actions() -> Connect | Send | Close, in this order to be carried out
    finished() -> calls whose `reply` or `error` is now known

Time is an argument (seconds of any clock that only goes forward) and randomness is injected, so a test can
play every race. One connection at a time carries new calls, pipelined; an older one lives on only until its
answers are in.

**What may be repeated** (rule S3). A call that was never handed to a connection, or that a server refused
definitely, is tried again elsewhere until its deadline; if that passes, it certainly did not happen:
`NotApplied`. A *read* has no effect, so it is simply asked again. A *write* whose connection broke, whose
answer did not come in time, or that was answered `-UNKNOWN`, may have happened: its outcome is open. In a
session it is sent again under its number, and the session tells what became of it; if the deadline or the
session's end comes first, it is `OutcomeUnknown`, whatever other attempts said.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from balsadb.address import format_address, format_addresses
from balsadb.client.call import (
    Action,
    Address,
    Before,
    Call,
    ClerkOptions,
    Close,
    Command,
    Connect,
    Kind,
    Link,
    Random,
    Send,
)
from balsadb.client.credentials import Credentials
from balsadb.client.desk import Desk
from balsadb.client.ring import Ring, read_members
from balsadb.client.verdicts import Verdict, judge
from balsadb.client.words import encode
from balsadb.errors import ClientError, NoServer, ProtocolError
from balsadb.kv.reply import Refusal

ASK_FOR_MEMBERS = encode("CLUSTER", "SLOTS")
"""Every node answers it at once, with all members, the leader first."""

_TRY_ELSEWHERE = frozenset((Verdict.NOT_APPLIED, Verdict.OPEN))
_NOT_EXECUTED = frozenset((Verdict.ANSWERED, Verdict.REFUSED, Verdict.NOT_LOGGED_IN))


class ClerkCore:
    """See the module's text. Not thread-safe; fronts take care of that."""

    def __init__(
        self,
        servers: Sequence[Address],
        options: ClerkOptions,
        random: Random,
        credentials: Credentials | None = None,
    ) -> None:
        self.options = options
        self._greeting = b"" if credentials is None else credentials.encoded()
        """What logs a new connection in; nothing else is sent before that is answered."""
        self._shut_out: dict[Address, str] = {}  # who did not let us in, since the last one that did
        self.ring = Ring(servers, options, random)
        self.desk = Desk(options, random, self._nobody_answers)
        self.retries = 0
        """Attempts beyond the first of each call, so far."""
        self.moves = 0
        """Changes of the connection that carries new calls, so far."""
        self._links: dict[int, Link] = {}
        self._current: Link | None = None
        self._actions: list[Action] = []
        self._numbers = 0
        self._connect_failures: dict[Address, str] = {}  # since the last connection that was made
        self._asked_at = -inf
        self._now = -inf  # of the latest event

    # ------------------------------------------------------------------ what callers want

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self.desk.closed

    def submit(self, command: Command, deadline: float, owner: Any = None, ordered: bool = False) -> Call:
        """Take a call. Raises `NotApplied` when too much is under way already.

        An `ordered` one is not sent before those that were submitted earlier.
        """
        return self.desk.submit(command, deadline, owner, ordered)

    def abandon(self, call: Call) -> None:
        """Nobody waits for this call any more. If it was not sent yet it won't be."""
        self.desk.abandon(call)

    def end_session(self, now: float, owner: Any = None) -> Call | None:
        """Have the database close the session, if that takes no more than one message.

        Returns the call to wait for before `close()`. A session that is not closed ends by itself.
        """
        if self._current is None or not self._current.is_open:
            return None
        return self.desk.end_session(now, owner)

    def finished(self) -> list[Call]:
        """Return the calls that got a result since the last time."""
        return self.desk.finished()

    def close(self) -> None:
        """End every call and close every connection."""
        self.desk.closed = True
        for link in list(self._links.values()):
            self._discard(link, "the Clerk was closed")
        self.desk.give_up("the Clerk was closed")

    # ------------------------------------------------------------------ what connections report

    def connected(self, number: int, now: float) -> None:
        """The connection is open."""
        self._now = now
        link = self._links.get(number)
        if link is None:
            return
        if self._greeting:
            link.connect_deadline = now + self.options.answer_timeout
            self._actions.append(Send(number, self._greeting))
        else:
            self._opened(link)

    def _opened(self, link: Link) -> None:
        """Calls may be sent over the connection."""
        link.is_open = True
        self._connect_failures.clear()
        self._shut_out.clear()
        if link.to_leader and link is not self._current:
            self._use(link)

    def connect_failed(self, number: int, reason: str, now: float) -> None:
        """The connection could not be made; `reason` is a few words for people."""
        self._now = now
        link = self._links.pop(number, None)
        if link is None:
            return
        self._connect_failures[link.address] = reason
        if link is self._current:
            self._move_on(link.address)
        all_failed = all(address in self._connect_failures for address in self.ring.servers)
        if all_failed and self._shut_out:
            self.desk.shut_out(next(iter(self._shut_out.values())))
            self._shut_out.clear()
            self._connect_failures.clear()
        elif self.options.fail_fast and all_failed and not self._links:
            self.desk.give_up()

    def _logged_in(self, link: Link, reply: object) -> None:
        """Take the first answer on a connection that has to log in."""
        if not isinstance(reply, Refusal):
            self._opened(link)
            return
        words = reply.text.decode(errors="replace")
        if judge(reply.text) not in _TRY_ELSEWHERE:
            # Another server may have another password just now: they are told a new one after each other.
            self._shut_out[link.address] = words
        self._actions.append(Close(link.number))
        self.connect_failed(link.number, words, self._now)

    def received(self, number: int, data: bytes, now: float) -> None:
        """Bytes arrived."""
        self._now = now
        link = self._links.get(number)
        if link is None:
            return
        link.heard, link.heard_at = True, now
        try:
            replies = link.parser.feed(data)
        except ProtocolError as error:
            self._break(link, f"nonsense from the server ({error})")
            return
        if not link.is_open:
            if replies:
                self._logged_in(link, replies[0])
            return
        desk, sent = self.desk, link.sent
        again: list[Call] = []
        failed = answered = False
        for reply in replies:
            if not sent:
                self._break(link, "an answer to no question")
                break
            what = sent.popleft()
            if what is None:
                self._learn_members(link, reply)
            elif isinstance(what, Before):
                if not desk.take_before(what.call, reply):
                    self._break(link, "an answer that a transaction never gets")
                    break
            elif what.done:
                pass
            elif type(reply) is Refusal:
                verdict = desk.refused(what, reply.text)
                if verdict in _TRY_ELSEWHERE:
                    failed = True
                else:
                    answered = True
                again.append(what)
                if what.command.led and verdict in _NOT_EXECUTED and not reply.text.startswith(b"EXECABORT"):
                    # Nobody knows whether this connection is still inside MULTI.
                    self._break(link, f"a transaction was answered {what.reason}")
                    break
            else:
                answered = True
                desk.succeed(what, reply)
        desk.requeue(again)
        if answered:
            self.ring.succeeded()
        if failed and link is self._current:
            self._move_on(link.address)
        if not sent and link is not self._current:
            self._forget(link)

    def lost(self, number: int, reason: str, now: float) -> None:
        """An open connection ended."""
        self._now = now
        link = self._links.get(number)
        if link is not None and not link.is_open:
            self.connect_failed(number, reason, now)  # it was to log in yet
        elif link is not None:
            self._break(link, reason, closed=True)

    # ------------------------------------------------------------------ time

    def wake_at(self) -> float | None:
        """When `tick` must be called at the latest; None: not at all."""
        when = self.desk.wake_at()
        if self._current is None and not self.desk.is_empty:
            when = min(when, self.ring.paused_until)
        for link in self._links.values():
            if not link.is_open:
                when = min(when, link.connect_deadline)
            elif link.sent:
                when = min(when, link.heard_at + self.options.answer_timeout)
        return None if when == inf else when

    def tick(self, now: float) -> None:
        """Give up what has waited too long, and keep the session alive."""
        self._now = now
        for link in list(self._links.values()):
            if not link.is_open:
                if now >= link.connect_deadline:
                    self._actions.append(Close(link.number))
                    self.connect_failed(
                        link.number, f"no answer within {self.options.connect_timeout:g} s", now
                    )
            elif link.sent and now >= link.heard_at + self.options.answer_timeout:
                self._break(link, f"no answer within {self.options.answer_timeout:g} s")
        self.desk.tick(now, self._flying)

    def _flying(self) -> list[tuple[Call, str]]:
        """Return the calls that were sent, each with its server."""
        # A call that is given up keeps its place: the answer may still come and must not go to the next one.
        return [
            (call, format_address(*link.address))
            for link in self._links.values()
            for call in link.sent
            if isinstance(call, Call)
        ]

    # ------------------------------------------------------------------ what to do

    def actions(self, now: float) -> list[Action]:
        """Return what the front must do now, in order."""
        self._now = now
        if not self.desk.is_empty:
            self._send_waiting(now)
        if not self._actions:
            return []
        actions, self._actions = self._actions, []
        return actions

    def _send_waiting(self, now: float) -> None:
        link = self._current
        if link is None:
            if now < self.ring.paused_until:
                return
            link = self._current = self._link_to(self.ring.candidate)
        if not link.is_open:
            return
        parts: list[bytes] = []
        if not link.sent:
            link.heard_at = now
        calls = self.desk.take(now)
        options = self.options
        wants_members = options.prefer_leader or options.discover
        if calls and wants_members and now >= self._asked_at + options.leader_interval:
            self._asked_at = now
            parts.append(ASK_FOR_MEMBERS)
            link.sent.append(None)
        for call in calls:
            if call.kind is Kind.ONCE:
                assert call.session is not None
                parts.append(call.session.encode(call))
            else:
                parts.append(call.command.encoded())
            if call.first_sent:
                self.retries += 1
            else:
                call.first_sent = now
            call.early = b""
            if call.command.led:
                link.sent.extend([Before(call)] * call.command.led)
            link.sent.append(call)
        if parts:
            self._actions.append(Send(link.number, b"".join(parts)))

    def _link_to(self, address: Address, to_leader: bool = False) -> Link:
        """Return the connection to a server, open or on its way; there is at most one."""
        for link in self._links.values():
            if link.address == address:
                return link
        self._numbers += 1
        link = Link(self._numbers, address, self._now + self.options.connect_timeout, to_leader)
        self._links[link.number] = link
        self._actions.append(Connect(link.number, address))
        return link

    # ------------------------------------------------------------------ which server

    def _break(self, link: Link, reason: str, closed: bool = False) -> None:
        """A connection is unusable: what was sent over it has an open outcome."""
        was_current = link is self._current
        self._discard(link, f"{format_address(*link.address)}: {reason}", closed)
        if was_current:
            # A connection that worked and was closed by the other side says little of the server: between the
            # two there may be something that cuts connections. One that is gone does not take the next one.
            self._move_on(link.address, again=closed and link.heard)

    def _discard(self, link: Link, reason: str, closed: bool = False) -> None:
        sent = [call for call in link.sent if isinstance(call, Call)]
        link.sent.clear()
        self.desk.unanswered(sent, reason)
        self._forget(link, closed)

    def _nobody_answers(self) -> ClientError:
        reasons = list(dict.fromkeys(self._connect_failures.values())) or ["no answer"]
        return NoServer(f"no server answers at {format_addresses(self.ring.servers)} ({'; '.join(reasons)})")

    def _move_on(self, address: Address, again: bool = False) -> None:
        """The current connection failed us, and with it its server unless that is to be tried `again`."""
        self._retire_current()
        self.moves += 1
        self._asked_at = -inf
        self.ring.failed(address, self._now, again)
        for link in self._links.values():
            if link.to_leader:
                self.ring.candidate = link.address  # it is on its way

    def _use(self, link: Link) -> None:
        self._retire_current()
        self._current = link
        self.moves += 1
        self.ring.candidate = link.address

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

    def _learn_members(self, link: Link, reply: object) -> None:
        """Follow changes of the membership, and move to the leader unless this is its connection already."""
        members = read_members(reply)
        if self.options.discover:
            self.ring.learn(members)
        if not self.options.prefer_leader or not members or link is not self._current:
            return
        leader = members[0]
        if leader == link.address or leader not in self.ring.servers:
            return
        preferred = self._link_to(leader, to_leader=True)
        if preferred.is_open:
            self._use(preferred)
