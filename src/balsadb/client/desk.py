"""The calls of a Clerk between their submission and their result, and the session in which its writes run.

A call is in one place at a time: in one of the two queues here, or sent over one connection, which the core
keeps. `Desk` knows nothing of connections. It says which calls can be sent, takes what became of each
attempt, and decides what the caller is told (rule S3, see `core.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from balsadb.client.call import Call, ClerkOptions, Command, Kind, Random
from balsadb.client.session import RENEWALS, Session
from balsadb.client.verdicts import Verdict, judge
from balsadb.client.words import command
from balsadb.errors import (
    AuthenticationError,
    ClientError,
    CommandError,
    NotApplied,
    OutcomeUnknown,
    ReplyLost,
    SessionExpired,
)
from balsadb.kv.reply import OK, QUEUED, Refusal, Reply

_BEFORE_IT_WAS_LOOKED_AT = frozenset((Verdict.REFUSED, Verdict.NOT_LOGGED_IN))


class Desk:
    """See the module's text."""

    def __init__(
        self, options: ClerkOptions, random: Random, nobody_answers: Callable[[], ClientError]
    ) -> None:
        self.options = options
        self.session: Session | None = None
        """The session of new writes; None: the next write opens one."""
        self.closed = False
        self.count = 0
        """Calls under way."""
        self.first_deadline = inf
        """No call's deadline is earlier."""
        self._random = random
        self._nobody_answers = nobody_answers
        self._waiting: deque[Call] = deque()  # may be sent as soon as there is a connection
        self._held: deque[Call] = deque()  # writes without a number yet, and what must not overtake them
        self._finished: list[Call] = []
        self._bytes = 0
        self._session_trouble = ""  # why no session could be opened
        self._now = -inf  # when `tick` or `take` was last called

    # ------------------------------------------------------------------ what callers want

    def submit(self, command: Command, deadline: float, owner: Any = None, ordered: bool = False) -> Call:
        """Take a call. Raises `NotApplied` when too much is under way already.

        An `ordered` one is not sent before those that were submitted earlier.
        """
        if self.closed:
            raise NotApplied("this Clerk is closed")
        size = command.size
        if self.count and (
            self.count >= self.options.calls_max or self._bytes + size > self.options.bytes_max
        ):
            raise NotApplied(f"{self.count:,} calls with {self._bytes:,} bytes are under way already")
        kind = command.kind
        if kind is Kind.ONCE and not self.options.sessions:
            kind = Kind.PLAIN
        call = Call(command, kind, deadline, owner)
        held = kind is Kind.ONCE or (ordered and self._held)
        self._admit(call, self._held if held else self._waiting)
        return call

    def _admit(self, call: Call, queue: deque[Call]) -> None:
        self.count += 1
        self._bytes += call.command.size
        queue.append(call)
        if call.deadline < self.first_deadline:
            self.first_deadline = call.deadline

    def abandon(self, call: Call) -> None:
        """Nobody waits for this call any more. If it was not sent yet it won't be."""
        if not call.done:
            self._release(call)

    def end_session(self, now: float, owner: Any = None) -> Call | None:
        """Have the database close the session, if that costs no more than one message.

        Returns the call to wait for before `close()`. A session that is not closed ends by itself.
        """
        session = self.session
        if self.closed or session is None or not session.id or not session.is_idle:
            return None
        session.is_over, self.session = True, None
        # Not worth a second attempt on another server.
        closing = command(Kind.PLAIN, b"SESSION", b"CLOSE", session.id)
        call = Call(closing, Kind.PLAIN, now + self.options.close_timeout, owner)
        self._admit(call, self._waiting)
        return call

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing waits to be sent."""
        return not (self._waiting or self._held)

    def finished(self) -> list[Call]:
        """Return the calls that got a result since the last time."""
        finished, self._finished = self._finished, []
        return finished

    def give_up(self, why: str = "") -> None:
        """End all calls that wait."""
        for call in self._queued():
            if not call.done:
                self._fail(call, self._gave_up(call, why))
        self._waiting.clear()
        self._held.clear()

    def shut_out(self, text: str) -> None:
        """End all calls that wait, because no server lets us in; `text` is what one of them said."""
        for call in self._queued():
            if not call.done:
                error = self._unanswered(call, text) if call.is_open else AuthenticationError(text)
                self._fail(call, error)
        self._waiting.clear()
        self._held.clear()

    # ------------------------------------------------------------------ time

    def wake_at(self) -> float:
        """When `tick` must be called at the latest; infinity: not at all."""
        when = self.first_deadline if self.count else inf
        session = self.session
        if session is not None and session.id and not session.renewing and not self.closed:
            when = min(when, session.renew_at())
        return when

    def tick(self, now: float, flying: Callable[[], Iterable[tuple[Call, str]]]) -> None:
        """End the calls whose deadline has come, and keep the session alive.

        `flying` gives the calls that were sent, each with the name of its server.
        """
        self._now = now
        if now >= self.first_deadline:
            for call in self._queued():
                if not call.done and now >= call.deadline:
                    self._fail(call, self._gave_up(call))
            for call, where in list(flying()):
                if not call.done and now >= call.deadline:
                    self._fail(call, self._unanswered(call, f"{where} did not answer in time"))
            self._waiting = deque(call for call in self._waiting if not call.done)
            self._held = deque(call for call in self._held if not call.done)
            open_calls = [*self._queued(), *(call for call, _ in flying() if not call.done)]
            self.first_deadline = min((call.deadline for call in open_calls), default=inf)
        session = self.session
        if session is not None and session.id and not self.closed:
            self._keep_alive(session, now)

    # ------------------------------------------------------------------ the session

    def _keep_alive(self, session: Session, now: float) -> None:
        """Renew the session when it is time; let go of one that may have ended while nothing was asked."""
        if session.is_idle and session.may_be_over(now) and not session.renewing:
            self._expired(session)
        elif now >= session.renew_at() and not session.renewing:
            session.renewing = True
            renewal = command(Kind.READ, b"SESSION", b"KEEPALIVE", session.id)
            deadline = max(now + self.options.answer_timeout, session.renewed_at + session.ttl)
            self._admit(Call(renewal, Kind.READ, deadline, session, self._renewed), self._waiting)

    def _renewed(self, call: Call) -> None:
        session: Session = call.owner
        session.renewing = False
        if call.error is None:
            session.renewed_at = max(session.renewed_at, call.first_sent)
        elif isinstance(call.error, CommandError) and call.error.code == "SESSIONEXPIRED":
            self._expired(session)
        else:
            # Nobody knows; it is asked again a little later, not in a hurry.
            session.retry_at = self._now + session.ttl / (4 * RENEWALS)

    def _open_session(self) -> None:
        """Ask for a session, unless that is being done."""
        if self.session is None:
            nonce = b"%032x" % self._random.getrandbits(128)
            self.session = Session(nonce, self.options.session_ttl)
        session = self.session
        if not session.renewing:
            session.renewing = True
            ttl_ms = max(1, round(session.ttl * 1000))
            opening = command(Kind.READ, b"SESSION", b"OPEN", session.nonce, ttl_ms)
            deadline = self._held[0].deadline
            self._admit(Call(opening, Kind.READ, deadline, session, self._opened), self._waiting)

    def _opened(self, call: Call) -> None:
        session: Session = call.owner
        session.renewing = False
        if isinstance(call.reply, bytes) and call.error is None:
            session.opened(call.reply, session.asked_at or call.first_sent)
            self._session_trouble = ""
            return
        # The nonce is kept: a copy of the question that is late must not open a second session.
        session.asked_at = session.asked_at or call.first_sent
        if call.error is None:
            call.error = CommandError(f"ERR the server answered {call.reply!r} to SESSION OPEN")
        self._session_trouble = f"no session could be opened: {call.reason or call.error}"
        if isinstance(call.error, CommandError):
            self.session = None
            # The database does not want to; waiting is of no use to anybody.
            held, self._held = self._held, deque()
            for waiting in held:
                if not waiting.done:
                    self._fail(waiting, type(call.error)(str(call.error)))

    def _expired(self, session: Session) -> None:
        """Note that a session is no more. Nothing that was sent in it can run from now on."""
        session.is_over = True
        if self.session is session:
            self.session = None

    def _rehome(self, call: Call) -> bool:
        """Take a write out of a session that is over; False ends it, because its outcome stays open."""
        if call.is_open:
            text = "the session ended before the outcome could be learned; the write may have happened"
            self._fail(call, SessionExpired(f"{text}: {call.reason}"))
            return False
        call.session, call.sequence = None, 0
        return True

    # ------------------------------------------------------------------ attempts

    def take(self, now: float) -> list[Call]:
        """Return the calls that can be sent now, each write with its number."""
        self._now = now
        calls: list[Call] = []
        homeless: list[Call] = []
        for call in self._waiting:
            if call.done:
                continue
            if call.session is None or not call.session.is_over:
                calls.append(call)
            elif self._rehome(call):
                homeless.append(call)
        self._waiting.clear()
        held = self._held
        held.extendleft(reversed(homeless))
        if held:
            session = self.session
            if session is not None and session.id and session.is_idle and session.may_be_over(self._now):
                self._expired(session)
            if self.session is None or not self.session.id:
                self._open_session()
            calls += self._waiting
            self._waiting.clear()
            self._take_held(calls)
        return calls

    def _take_held(self, calls: list[Call]) -> None:
        held, session = self._held, self.session
        while held:
            call = held[0]
            if not call.done and call.kind is Kind.ONCE:
                if session is None or not session.id or not session.has_room:
                    return
                session.number(call)
            held.popleft()
            if not call.done:
                calls.append(call)

    def succeed(self, call: Call, reply: Reply) -> None:
        """Take the answer to a call."""
        call.reply = reply
        session = call.session
        if session is not None and call.first_sent > session.renewed_at:
            session.renewed_at = call.first_sent  # every write is a sign of life
        self._end(call)

    def _fail(self, call: Call, error: ClientError) -> None:
        call.error = error
        self._end(call)

    def _end(self, call: Call) -> None:
        self._release(call)
        if call.then is None:
            self._finished.append(call)
        else:
            call.then(call)

    def _release(self, call: Call) -> None:
        call.done = True
        self.count -= 1
        self._bytes -= call.command.size
        if call.session is not None:
            call.session.answered(call.sequence)

    def refused(self, call: Call, text: bytes) -> Verdict:
        """Take an error reply; returns what it says of the attempt.

        Afterwards the call is done, or is to be tried again.
        """
        verdict = judge(call.early or text)
        words = (call.early or text).decode(errors="replace")
        call.reason = words
        match verdict:
            case Verdict.NOT_APPLIED:
                return verdict
            case Verdict.OPEN if call.kind is Kind.PLAIN:
                self._fail(call, OutcomeUnknown(words))
                return verdict
            case Verdict.OPEN:
                call.is_open = True
                return verdict
            case Verdict.EXPIRED if call.session is not None:
                self._expired(call.session)
                self._rehome(call)
                return verdict
        if verdict is Verdict.DONE:
            self._fail(call, ReplyLost(words))
        elif verdict in _BEFORE_IT_WAS_LOOKED_AT and call.is_open and call.kind is not Kind.READ:
            # rule S3: this attempt was refused, an earlier one may have happened.
            self._fail(
                call, OutcomeUnknown(f"an attempt got no answer, and a later one was refused: {words}")
            )
        elif verdict is Verdict.NOT_LOGGED_IN:
            self._fail(call, AuthenticationError(words))
        else:
            self._fail(call, CommandError(words))
        return verdict

    def take_before(self, call: Call, reply: Reply) -> bool:
        """Take an answer that comes before a transaction's own; False when it can't be one."""
        if isinstance(reply, Refusal):
            call.early = call.early or reply.text
            return True
        if reply in (OK, QUEUED):
            return True
        if not call.done:
            # Whatever it is, commands may have been run outside of a transaction and its session.
            self._fail(call, OutcomeUnknown(f"the server answered {reply!r} inside a transaction"))
        return False

    def unanswered(self, calls: Iterable[Call], reason: str) -> None:
        """Take calls that were sent and to which no answer will come any more."""
        again: list[Call] = []
        for call in calls:
            if call.done:
                continue
            call.reason, call.is_open = reason, True
            if call.kind is Kind.PLAIN or self.closed:
                self._fail(call, self._unanswered(call, reason))
            else:
                again.append(call)
        self.requeue(again)

    def requeue(self, again: Iterable[Call]) -> None:
        """Put calls back before everything that waits, in their order."""
        again = [call for call in again if not call.done]
        homeless = [call for call in again if call.kind is Kind.ONCE and call.session is None]
        self._held.extendleft(reversed(homeless))
        self._waiting.extendleft(
            reversed([call for call in again if call.kind is not Kind.ONCE or call.session is not None])
        )

    def _queued(self) -> list[Call]:
        return [*self._waiting, *self._held]

    def _unanswered(self, call: Call, reason: str) -> ClientError:
        """The error for a call that was sent and got no answer."""
        if call.kind is Kind.READ:
            return NotApplied(f"no answer: {reason}")
        return OutcomeUnknown(f"the write was sent and may have happened, or may happen yet: {reason}")

    def _gave_up(self, call: Call, why: str = "") -> ClientError:
        """The error for a call that waits for its next attempt (rule S3)."""
        if call.is_open:
            return self._unanswered(call, why or call.reason)
        if why:
            return NotApplied(why)
        if call.reason:
            return NotApplied(f"gave up: {call.reason}")
        if call.kind is Kind.ONCE and self._session_trouble:
            return NotApplied(f"gave up: {self._session_trouble}")
        return self._nobody_answers()
