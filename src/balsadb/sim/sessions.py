"""Simulated clients with sessions: they repeat what got no certain answer, and also what did.

Such a client numbers its writes and sends each until it is answered, at another server after every refusal,
silence or broken connection, so that several copies of a write are under way at once. On purpose it also
sends copies of what was answered long ago, to sessions that have ended, too. The ledger then demands that an
acknowledged write ran exactly once and any other at most once; and a repeated reply must equal the first.

It always uses the same nonce: an id that came back with it would let copies of an earlier session run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from balsadb.kv.batch import ONCE_EXEC
from balsadb.kv.refusals import SEQUENCE_BELOW, SESSION_EXPIRED
from balsadb.kv.reply import OK, Refusal, Reply
from balsadb.raft.types import NodeId
from balsadb.replica.request import Lane, Request, RequestKind
from balsadb.sim.clients import DEFINITE, THINK_US_MAX
from balsadb.sim.failures import SafetyViolation
from balsadb.sim.history import Action, Operation

if TYPE_CHECKING:
    from balsadb.sim.world import World

CALLS_MAX = 3
"""Writes under way at a time."""
RETRY_US_MAX = 50_000
PATIENCE_US_MAX = 600_000
"""After at most so long without an answer a copy goes to another server."""
LATE_US_MAX = 3_000_000
"""A late copy comes up to so long after the answer."""
NAP_US_MAX = 4_000_000
"""A client that naps may find its session expired."""
TTLS_MS = (1_000, 1_500, 3_000)


class _Call:
    """One thing that the client wants done, whatever number of copies that takes."""

    __slots__ = ("called", "copies", "open", "operations", "reply", "sequence", "session", "settled")

    def __init__(
        self, session: bytes, sequence: int, operations: list[tuple[Action, bytes, bytes]], called: float
    ) -> None:
        self.session = session
        self.sequence = sequence
        self.operations = operations
        """(action, key, argument); empty for an OPEN and a CLOSE."""
        self.called = called
        self.copies: list[list[list[bytes]]] = []
        """What was sent, byte for byte, with the acknowledgements of that time."""
        self.open = False
        """True when a copy may yet run, or has run, without anybody telling."""
        self.settled = False
        """True when nobody waits any more."""
        self.reply: Reply = None
        """The first one, when it is settled by one."""


class SessionClient:
    """One client with one session at a time."""

    def __init__(
        self, world: World, number: int, rng: random.Random, keys: tuple[bytes, ...], rewrites: bool
    ) -> None:
        self.number = number
        self.history: list[Operation] = []
        self.refused = 0
        self.stopped = False
        self._world = world
        self._rng = rng
        self._keys = keys
        self._rewrites = rewrites
        self._nonce = b"nonce %d" % number
        self._ttl = b"%d" % rng.choice(TTLS_MS)
        self._session = b""
        self._earlier: set[bytes] = set()
        """Ids of all its sessions so far."""
        self._next = 1
        self._lowest = 1
        self._answered: set[int] = set()
        self._serial = 0
        self._server: NodeId = 0
        self._calls: list[_Call] = []
        """Not settled yet."""
        self._requests: dict[Request, tuple[_Call, NodeId]] = {}

    # ------------------------------------------------------------ what it does

    def begin(self) -> None:
        """Think for a moment, then go."""
        nap = self._rng.random() < 0.02
        self._after(NAP_US_MAX if nap else THINK_US_MAX, self._go)

    def _go(self) -> None:
        if self._calls or self.stopped:
            return
        if not self._session:
            self._start(_Call(b"", 0, [], self._now()))
        elif self._rng.random() < 0.03:
            self._start(_Call(self._session, 0, [], self._now()))
        else:
            for _ in range(self._rng.randint(1, CALLS_MAX)):
                call = _Call(self._session, self._next, self._draw(), self._now())
                self._next += 1
                self._start(call)

    def _draw(self) -> list[tuple[Action, bytes, bytes]]:
        rng, dice = self._rng, self._rng.random()
        key = rng.choice(self._keys)
        if self._rewrites and dice < 0.1:
            return [(Action.PUT, key, self._value())]
        if dice < 0.3:  # a transaction
            return [(Action.APPEND, key, self._value()) for key in self._keys[:2]]
        return [(Action.APPEND, key, self._value())]

    def _value(self) -> bytes:
        self._serial += 1
        # No value of a plain client, which has a dot there, may be the end of one of these.
        return b"%d:%d," % (self.number, self._serial)

    def _start(self, call: _Call) -> None:
        self._calls.append(call)
        self._send(call)

    def _words(self, call: _Call) -> list[list[bytes]]:
        if not call.operations:
            if not call.session:
                return [[b"SESSION", b"OPEN", self._nonce, self._ttl]]
            return [[b"SESSION", b"CLOSE", call.session]]
        commands = [
            [b"APPEND" if action is Action.APPEND else b"SET", key, argument]
            for action, key, argument in call.operations
        ]
        numbers = [call.session, b"%d" % call.sequence, b"%d" % self._lowest]
        if len(commands) > 1:
            return [[ONCE_EXEC, *numbers, b"%d" % len(commands)], *commands]
        return [[b"ONCE", *numbers, *commands[0]]]

    def _send(self, call: _Call, copy: list[list[bytes]] | None = None) -> None:
        """Send a call, or a copy of what was sent before, to some server."""
        server = self._world.servers.get(self._server)
        if server is None or server.replica is None or copy is not None:
            alive = [other for other in self._world.servers.values() if other.replica is not None]
            if not alive:
                if copy is None:
                    self._after(RETRY_US_MAX, self._again, call)
                return
            server = self._rng.choice(alive)
        assert server.replica is not None
        words = self._words(call) if copy is None else copy
        if copy is None:
            call.copies.append(words)
            self._server = server.id
            self._after(PATIENCE_US_MAX, self._impatient, call, len(call.copies))
        size = sum(len(word) for command in words for word in command)
        request = Request(Lane(self), RequestKind.WRITE, words, [], 1, size)
        self._requests[request] = call, server.id
        server.replica.submit(request)
        server.wake()

    def _impatient(self, call: _Call, copies: int) -> None:
        if not call.settled and len(call.copies) == copies:
            self._again(call)

    def _again(self, call: _Call) -> None:
        if not call.settled:
            self._server = 0
            self._send(call)

    def _send_late(self, call: _Call) -> None:
        if not self.stopped:
            self._send(call, self._rng.choice(call.copies))

    # ----------------------------------------------------------------- answers

    def answered(self, request: Request) -> None:
        """Take the answer to a copy of a call."""
        assert request.replies is not None
        call, _ = self._requests.pop(request)
        [reply] = request.replies
        if isinstance(reply, Refusal):
            self._refused(call, reply)
        elif call.settled:
            # What was given up may have been answered; then there is no first reply to compare with.
            if call.operations and call.reply is not None and reply != call.reply:
                self._complain(call, f"was answered {call.reply!r} first and {reply!r} now")
        else:
            self._take(call, reply)

    def _take(self, call: _Call, reply: Reply) -> None:
        call.reply = reply
        if call.operations:
            replies = reply if isinstance(reply, list) and len(call.operations) > 1 else [reply]
            for (action, key, argument), part in zip(call.operations, replies, strict=True):
                if action is Action.APPEND and isinstance(part, int):
                    self._note(action, key, argument, part, call.called)
                elif action is Action.PUT and part == OK:
                    self._note(action, key, argument, None, call.called)
                else:
                    self._complain(call, f"was answered {reply!r}")
            if self._rng.random() < 0.3:
                self._after(LATE_US_MAX, self._send_late, call)
        elif call.session:
            self._over(call.session)
        elif not isinstance(reply, bytes) or reply in self._earlier:
            self._complain(call, f"opened the session {reply!r}, and those before were {self._earlier}")
        else:
            self._earlier.add(reply)
            self._session, self._next, self._lowest = reply, 1, 1
            self._answered.clear()
        self._settle(call)

    def _refused(self, call: _Call, refusal: Refusal) -> None:
        if refusal.text.startswith((*DEFINITE, b"UNKNOWN")):
            call.open = call.open or refusal.text.startswith(b"UNKNOWN")
            if not call.settled:
                self._after(RETRY_US_MAX, self._again, call)
        elif refusal == SESSION_EXPIRED and call.operations:
            if not call.settled:
                self._over(call.session)
                self._give_up(call)
        elif refusal != SEQUENCE_BELOW or not call.settled:
            # Also "below": nothing is acknowledged before it is settled.
            self._complain(call, f"was answered {refusal.text!r}")

    def _over(self, session: bytes) -> None:
        if self._session == session:
            self._session = b""

    def _give_up(self, call: _Call) -> None:
        """Settle a call whose session has ended. Only a single attempt is certainly not done (rule S3)."""
        if call.open or any(other is call for other, _ in self._requests.values()):
            for action, key, argument in call.operations:
                self.history.append(Operation(self.number, action, key, argument, None, call.called, None))
        else:
            self.refused += 1
        self._settle(call)

    def _settle(self, call: _Call) -> None:
        call.settled = True
        self._calls.remove(call)
        if call.operations and call.session == self._session:
            self._answered.add(call.sequence)
            while self._lowest in self._answered:
                self._lowest += 1
        if not self._calls:
            self.begin()

    def _note(self, action: Action, key: bytes, argument: bytes, result: int | None, called: float) -> None:
        self.history.append(Operation(self.number, action, key, argument, result, called, self._now()))

    def _complain(self, call: _Call, what: str) -> None:
        raise SafetyViolation("sessions", f"client {self.number}, {call.copies[-1]!r} {what}")

    # ------------------------------------------------------------------- ends

    @property
    def waiting(self) -> bool:
        """Tell whether something is under way, late copies among it."""
        return bool(self._calls or self._requests)

    def disconnected(self, server: NodeId) -> None:
        """Send again what a server whose process has ended had, elsewhere."""
        for request in [request for request, (_, at) in self._requests.items() if at == server]:
            call, _ = self._requests.pop(request)
            call.open = True
            if not call.settled:
                self._after(RETRY_US_MAX, self._again, call)

    def finish(self) -> None:
        """Leave what is still under way open, at the end of a run."""
        for call in self._calls:
            for action, key, argument in call.operations:
                self.history.append(Operation(self.number, action, key, argument, None, call.called, None))
        self._calls.clear()

    def _after(self, us_max: int, callback: Callable[..., None], *arguments: object) -> None:
        self._world.scheduler.after(self._rng.randrange(us_max), callback, *arguments)

    def _now(self) -> float:
        return self._world.scheduler.now_us / 1e6
