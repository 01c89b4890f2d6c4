"""Clients that share a few keys, go from node to node, and write down what they were told.

What `load.Appender` does for one key, these do for keys that all of them read and write at once. They are
throttled and the keys are renewed, so that every key's history stays short enough to be judged.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

import hiredis

from balsadb.sim.history import Action, Operation
from e2e.load import Connection

OPERATIONS_PER_KEY = 400
"""After so many a key is given up for a new one. It is read again at the end."""
THINK_SECONDS_MAX = 0.015
BACK_OFF_SECONDS = 0.03
"""Pause after a failure."""
MOVE_SHARE = 0.04
"""Share of operations before which a client goes to another node, without need."""
CLIENT_TIMEOUT_SECONDS = 4.0
"""Far longer than a server takes to answer what it can't do: only the silent are given up."""
DEFINITE = ("CLUSTERDOWN", "TRYAGAIN", "LOADING")
"""First words of refusals that promise that nothing happened."""

COMMANDS = {Action.GET: b"GET", Action.PUT: b"SET", Action.APPEND: b"APPEND", Action.DELETE: b"DEL"}
READER_EVERY = 3
"""Every so many-th client only reads. One that writes too soon waits for a write on a node that is cut off,
and would never see what such a node answers to reads."""
REWRITES = ((Action.GET, 40), (Action.APPEND, 30), (Action.PUT, 23), (Action.DELETE, 7))
APPENDS = ((Action.GET, 45), (Action.APPEND, 55))
"""What is done with a key, and how often. Only of keys that are never overwritten is every append known."""


class Attempt(NamedTuple):
    """An operation as the success rate sees it."""

    called: float
    node: int
    succeeded: bool


class Silence(NamedTuple):
    """A call that a node did not answer, although its connection stayed open."""

    node: int
    called: float
    given_up: float


class Keys:
    """The keys in use: two that are rewritten and one that is only appended to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drawn = {"rewritten-a": 0, "rewritten-b": 0, "appended": 0}

    def draw(self, rng: random.Random) -> tuple[bytes, bool]:
        """Return a key and whether it is rewritten."""
        name = rng.choice(tuple(self._drawn))
        with self._lock:
            generation = self._drawn[name] // OPERATIONS_PER_KEY
            self._drawn[name] += 1
        return f"{name}-{generation}".encode(), name != "appended"


class Client(threading.Thread):
    """One client: one operation at a time, on one node at a time."""

    def __init__(
        self, number: int, addresses: Mapping[int, str], keys: Keys, seed: str, stop: threading.Event
    ) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.number = number
        self.history: list[Operation] = []
        self.attempts: list[Attempt] = []
        """In the order of their calls."""
        self.appended_only: set[bytes] = set()
        self.surprises: list[str] = []
        """Answers that no healthy or unhealthy cluster may give."""
        self.silences: list[Silence] = []
        self.under_way: float | None = None
        """When the present operation was called; None between operations."""
        self._addresses = addresses
        self._keys = keys
        self._rng = random.Random(f"{seed} client {number}")
        self._stop_event = stop
        self._node = sorted(addresses)[number % len(addresses)]
        self._connection: Connection | None = None
        self._serial = itertools.count()

    def run(self) -> None:
        while not self._stop_event.is_set():
            if self._rng.random() < MOVE_SHARE:
                self._move()
            self.under_way = called = time.monotonic()
            node, succeeded = self._node, self._operate(called)
            self.attempts.append(Attempt(called, node, succeeded))
            self.under_way = None
            if not succeeded:
                self._move()
            self._stop_event.wait(self._rng.random() * THINK_SECONDS_MAX if succeeded else BACK_OFF_SECONDS)
        self._leave()

    def _operate(self, called: float) -> bool:
        """Do one operation and write down what became of it. False when it was not answered."""
        try:
            if self._connection is None:
                self._connection = Connection(self._addresses[self._node], CLIENT_TIMEOUT_SECONDS)
        except OSError:
            return False  # nothing was sent
        key, rewritten = self._keys.draw(self._rng)
        if not rewritten:
            self.appended_only.add(key)
        action = self._draw_action(rewritten)
        value = b""
        if action in (Action.PUT, Action.APPEND):
            value = b"%d.%d," % (self.number, next(self._serial))
        try:
            reply = self._connection.call(COMMANDS[action], key, *([value] if value else []))
        except OSError as error:
            if isinstance(error, TimeoutError):
                self.silences.append(Silence(self._node, called, time.monotonic()))
            self._leave()
            self._note(action, key, value, None, called, None)
            return False
        returned = time.monotonic()
        if isinstance(reply, hiredis.ReplyError):
            word = str(reply).split()[0]
            if word == "UNKNOWN":
                self._note(action, key, value, None, called, None)
            elif word not in DEFINITE:
                self.surprises.append(f"{action.value} {key!r} on node {self._node} was answered {reply}")
            return False
        self._note(action, key, value, self._result(action, reply), called, returned)
        return True

    def _draw_action(self, rewritten: bool) -> Action:
        if self.number % READER_EVERY == 0:
            return Action.GET
        actions, weights = zip(*(REWRITES if rewritten else APPENDS), strict=True)
        return self._rng.choices(actions, weights)[0]

    def _result(self, action: Action, reply) -> bytes | int | bool | None:
        expected = {
            Action.GET: reply is None or isinstance(reply, bytes),
            Action.PUT: reply in (b"OK", "OK"),
            Action.APPEND: isinstance(reply, int),
            Action.DELETE: reply in (0, 1),
        }
        if not expected[action]:
            self.surprises.append(f"{action.value} on node {self._node} was answered {reply!r}")
        if action is Action.PUT:
            return None
        return bool(reply) if action is Action.DELETE else reply

    def _note(
        self, action: Action, key: bytes, value: bytes, result, called: float, returned: float | None
    ) -> None:
        # A read without an answer says nothing.
        if action is not Action.GET or returned is not None:
            self.history.append(Operation(self.number, action, key, value, result, called, returned))

    def _move(self) -> None:
        self._leave()
        self._node = self._rng.choice([node for node in self._addresses if node != self._node])

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SharedLoad:
    """All clients of a run."""

    def __init__(self, addresses: Mapping[int, str], clients: int, seed: str) -> None:
        self._stop = threading.Event()
        keys = Keys()
        self.clients = [Client(number, addresses, keys, seed, self._stop) for number in range(clients)]

    def start(self) -> None:
        """Let the clients begin."""
        for client in self.clients:
            client.start()

    def stop(self) -> None:
        """Let the clients finish what they are at, and wait for them."""
        self._stop.set()
        for client in self.clients:
            if client.ident is not None:
                client.join(4 * CLIENT_TIMEOUT_SECONDS)
                assert not client.is_alive(), f"{client.name} hangs"

    def attempts(self, since: float, until: float = float("inf")) -> list[Attempt]:
        """Return the finished operations that were called in a span of time."""
        found = []
        for client in self.clients:
            for attempt in reversed(client.attempts):
                if attempt.called < since:
                    break
                if attempt.called <= until:
                    found.append(attempt)
        return found

    def successes(self, since: float) -> int:
        """Count the operations that were called since then and have succeeded."""
        return sum(attempt.succeeded for attempt in self.attempts(since))

    def all_finished(self, until: float) -> bool:
        """Tell whether everything called up to a moment has ended, well or not."""
        return all(client.under_way is None or client.under_way > until for client in self.clients)

    @property
    def history(self) -> list[Operation]:
        """Everything that the clients have seen."""
        return [operation for client in self.clients for operation in client.history]

    @property
    def appended_only(self) -> set[bytes]:
        """Keys that nobody puts or deletes."""
        return set[bytes]().union(*(client.appended_only for client in self.clients))

    @property
    def silences(self) -> list[Silence]:
        """Calls that were given up."""
        return [silence for client in self.clients for silence in client.silences]

    @property
    def surprises(self) -> list[str]:
        """Answers that should never be given."""
        return [surprise for client in self.clients for surprise in client.surprises]
