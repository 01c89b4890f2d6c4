"""Simulated clients: each talks to one server at a time and remembers what it was told.

A client calls one operation at a time, now and then several in one pipeline, and goes to another server when
its own one dies. Values are unique. What it was told goes into the history: an answer closes an operation, a
definite refusal takes it out, and silence or `-UNKNOWN` leaves it open.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from balsadb.kv.reply import Refusal, Reply, Status
from balsadb.raft.types import NodeId
from balsadb.replica.request import Lane, Request, RequestKind
from balsadb.sim.checkers.order import ConnectionOrder
from balsadb.sim.failures import SafetyViolation
from balsadb.sim.history import Action, Operation

if TYPE_CHECKING:
    from balsadb.sim.world import World

THINK_US_MAX = 30_000
"""Longest pause between an answer and the next operation."""
DEFINITE = (b"CLUSTERDOWN", b"TRYAGAIN", b"LOADING")
"""First words of refusals that promise that nothing happened."""


class _Call:
    """A request under way, with what it means for the history."""

    __slots__ = ("called", "operations")

    def __init__(self, operations: list[tuple[Action, bytes, bytes]], called: float) -> None:
        self.operations = operations
        """(action, key, argument) in the order of the replies."""
        self.called = called


class Client:
    """One client of the simulated cluster."""

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
        """True when keys are also put and deleted, so that appends start from changing values."""
        self._server: NodeId = 0
        self._boot = 0
        self._lane = Lane(self)
        self._flying: list[tuple[Request, _Call]] = []
        self._serial = 0
        self._order = ConnectionOrder(only_appends=not rewrites)

    def begin(self) -> None:
        """Think for a moment, then go."""
        self._world.scheduler.after(self._rng.randrange(THINK_US_MAX), self._next)

    # ---------------------------------------------------------------- operations

    def _next(self) -> None:
        if self._flying or self.stopped:
            return
        if not self._connect():
            self.begin()
            return
        for _ in range(self._rng.choice((1, 1, 1, 2, 3))):
            self._submit(self._draw())

    def _connect(self) -> bool:
        """Stay with the server, or find another when its process is gone."""
        server = self._world.servers.get(self._server)
        if (
            server is None
            or server.replica is None
            or server.replica.outside
            or server.starts != self._boot
            or self._rng.random() < 0.05
        ):
            alive = [s for s in self._world.servers.values() if s.replica and not s.replica.outside]
            if not alive:
                return False
            server = self._rng.choice(alive)
            self._server, self._boot = server.id, server.starts
            self._lane = Lane(self)
            self._order.reconnected()
        return True

    def _draw(self) -> list[tuple[Action, bytes, bytes]]:
        """Draw one operation, or a write with a read of the same key behind it."""
        rng = self._rng
        key = rng.choice(self._keys)
        dice = rng.random()
        if dice < 0.35:
            return [(Action.GET, key, b"")]
        if self._rewrites and dice < 0.45:
            return [(Action.PUT, key, self._value())]
        if self._rewrites and dice < 0.48:
            return [(Action.DELETE, key, self._value())]
        append = (Action.APPEND, key, self._value())
        return [append, (Action.GET, key, b"")] if dice < 0.6 else [append]

    def _value(self) -> bytes:
        self._serial += 1
        return b"%d.%d," % (self.number, self._serial)

    def _submit(self, operations: list[tuple[Action, bytes, bytes]]) -> None:
        replica = self._world.servers[self._server].replica
        assert replica is not None
        commands = [_COMMANDS[action](key, argument) for action, key, argument in operations]
        size = sum(len(argument) for command in commands for argument in command)
        writes = [command for command in commands if command[0] != b"GET"]
        if writes:
            reads: list[tuple[int, list[bytes]]] = []
            position = 0
            for command in commands:
                if command[0] == b"GET":
                    reads.append((position, command))
                else:
                    position += 1
            request = Request(self._lane, RequestKind.WRITE, writes, reads, len(commands), size)
        else:
            request = Request(self._lane, RequestKind.READ, commands, [], len(commands), size)
        for action, key, argument in operations:
            self._order.sent(action, key, argument)
        self._flying.append((request, _Call(operations, self._now())))
        replica.submit(request)
        self._world.servers[self._server].wake()

    def _now(self) -> float:
        return self._world.scheduler.now_us / 1e6

    @property
    def waiting(self) -> bool:
        """Tell whether an operation is under way."""
        return bool(self._flying)

    # ------------------------------------------------------------------ answers

    def answered(self, request: Request) -> None:
        """Take the replies of a request; as a connection does, hold them until all before are there."""
        while self._flying and self._flying[0][0].replies is not None:
            first, call = self._flying.pop(0)
            assert first.replies is not None
            for (action, key, argument), reply in zip(call.operations, first.replies, strict=True):
                self._note(action, key, argument, reply, call.called)
                self._order.answered(action, key, argument, reply)
            if not self._flying:
                self.begin()

    def disconnected(self, server: NodeId) -> None:
        """Give up everything that was sent to a server whose process has ended."""
        if self._server != server:
            return
        for _, call in self._flying:
            for action, key, argument in call.operations:
                self._open(action, key, argument, call.called)
        if self._flying:
            self._flying.clear()
            self.begin()
        self._server = 0

    def _note(self, action: Action, key: bytes, argument: bytes, reply: Reply, called: float) -> None:
        if isinstance(reply, Refusal):
            if reply.text.startswith(DEFINITE):
                self.refused += 1  # nothing happened: if it did, the ledger finds a value of nobody
            elif reply.text.startswith(b"UNKNOWN"):
                self._open(action, key, argument, called)
            else:
                raise SafetyViolation("answers", f"{action.value} {key!r} was answered {reply.text!r}")
            return
        result: bytes | int | bool | None
        match action, reply:
            case Action.GET, bytes() | None as value:
                result = value
            case Action.APPEND, int() as length:
                result = length
            case Action.PUT, Status():
                result = None
            case Action.DELETE, 0 | 1:
                result = reply == 1
            case _:
                raise SafetyViolation("answers", f"{action.value} {key!r} was answered {reply!r}")
        self.history.append(Operation(self.number, action, key, argument, result, called, self._now()))

    def _open(self, action: Action, key: bytes, argument: bytes, called: float) -> None:
        if action is not Action.GET:
            self.history.append(Operation(self.number, action, key, argument, None, called, None))

    def finish(self) -> None:
        """Leave what is still under way open, at the end of a run."""
        for _, call in self._flying:
            for action, key, argument in call.operations:
                self._open(action, key, argument, call.called)
        self._flying.clear()


_COMMANDS = {
    Action.GET: lambda key, argument: [b"GET", key],
    Action.PUT: lambda key, argument: [b"SET", key, argument],
    Action.APPEND: lambda key, argument: [b"APPEND", key, argument],
    # The second key is never there. It tells whose deletion this is, in the log.
    Action.DELETE: lambda key, argument: [b"DEL", key, argument],
}
