"""The clients of the key-value scenarios: one operation at a time, at another server when one refuses.

The course's Clerk repeats an operation until it is answered, and the servers see to it that it takes effect
once. Ours repeats what was certainly not done, and reads. A write whose outcome is open stays open: a client
goes on with its next operation, and the checkers take into account that it may have happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from balsadb.raft.types import NodeId
from balsadb.sim.history import Action
from sim.lab.calls import Call, Fate
from sim.lab.cluster import LabCluster

PAUSE_US_MAX = 15_000
PAUSE_US_PER_WORKER = 5_000
"""Longest pause between two operations of a worker; in a crowd each is slower, which saves time here."""
RETRY_US_MAX = 50_000
"""Longest pause after a refusal."""


class Clerk:
    """Brings operations to servers."""

    def __init__(
        self, lab: LabCluster, servers: Sequence[NodeId] | None = None, *, repeats_puts: bool = False
    ) -> None:
        self._lab = lab
        self._servers = list(servers or lab.servers)
        """Those that it can reach."""
        self._repeats_puts = repeats_puts
        """Put once more when the outcome is open: for who writes a key alone, and knows no other way."""
        self._server = lab.rng.choice(self._servers)

    def ask(self, action: Action, key: bytes, argument: bytes, then: Callable[[Call], None]) -> None:
        """Let an operation happen; `then` gets the call that ended it, answered or open."""
        lab = self._lab
        if not lab.is_up(self._server):
            self._server = lab.rng.choice(self._servers)
        if not lab.is_up(self._server):
            self._again(action, key, argument, then)
            return
        lab.calls.start(
            self._server,
            action,
            key,
            argument,
            remote=True,
            then=lambda call: self._ended(call, then),
        )

    def _ended(self, call: Call, then: Callable[[Call], None]) -> None:
        repeatable = call.action is Action.GET or (call.action is Action.PUT and self._repeats_puts)
        if call.fate is not Fate.DONE:
            self._server = self._lab.rng.choice(self._servers)
        if call.fate is Fate.REFUSED or (call.fate is Fate.OPEN and repeatable):
            if not self._lab.calls.stopped:
                self._again(call.action, call.key, call.argument, then)
        else:
            then(call)

    def _again(self, *arguments: object) -> None:
        delay = self._lab.rng.randrange(RETRY_US_MAX)
        self._lab.scheduler.after(delay, self.ask, *arguments)

    def start(self, action: Action, key: bytes, argument: bytes = b"") -> list[Call]:
        """Ask without waiting; the list gets the call that ended the operation, once it has ended."""
        ended: list[Call] = []
        self.ask(action, key, argument, ended.append)
        return ended

    def do(self, action: Action, key: bytes, argument: bytes = b"", *, within_ms: float = 10_000) -> Call:
        """Ask, and wait for the end of the operation."""
        ended = self.start(action, key, argument)
        assert self._lab.wait(lambda: bool(ended), within_ms), f"{action.value} {key!r} did not end"
        return ended[0]


class Worker:
    """A client that appends and reads, as the testers' GenericTest draws it, until the scenario ends.

    With a key of its own every read must equal what it has written so far; shared keys are also put.
    """

    def __init__(
        self, lab: LabCluster, number: int, workers: int, keys: Sequence[bytes] | None = None
    ) -> None:
        self.done = 0
        """Operations answered."""
        self._lab = lab
        self._number = number
        self._pause_us_max = PAUSE_US_MAX + workers * PAUSE_US_PER_WORKER
        self._shared = keys is not None
        self._keys = keys or (b"of %d" % number,)
        self._clerk = Clerk(lab)
        self._value: bytes | None = None
        """What its own key holds; not known any more once an append's outcome stayed open."""
        self._is_known = not self._shared
        self._serial = 0

    def go(self) -> None:
        """Do the next operation, unless the scenario ends."""
        lab, rng = self._lab, self._lab.rng
        if lab.calls.stopped:
            return
        key, dice = rng.choice(self._keys), rng.random()
        if dice < 0.5:
            self._clerk.ask(Action.APPEND, key, self._new_value(), self._ended)
        elif self._shared and dice < 0.55:
            self._clerk.ask(Action.PUT, key, self._new_value(), self._ended)
        else:
            self._clerk.ask(Action.GET, key, b"", self._ended)

    def _new_value(self) -> bytes:
        self._serial += 1
        return b"%02d.%05d," % (self._number, self._serial)

    def _ended(self, call: Call) -> None:
        self.done += call.fate is Fate.DONE
        if not self._shared:
            self._compare(call)
        self._lab.scheduler.after(self._lab.rng.randrange(self._pause_us_max), self.go)

    def _compare(self, call: Call) -> None:
        """Follow the own key's value, and hold every read against it."""
        if call.fate is Fate.OPEN:
            self._is_known = False
        elif call.action is Action.APPEND:
            self._value = (self._value or b"") + call.argument
        elif self._is_known:
            assert call.reply == self._value, f"{call.key!r} is {call.reply!r}, and should be {self._value!r}"
