"""Servers that share one database, over a network that loses, delays, doubles and reorders.

One seed is one run.

What a server was given is handed to the database at any later time, in any order, even after the connection
is gone or the server was started again, and a command in a session may be handed over twice. Every answer may
be lost with its connection. Deadlines and sessions pass by the same clock.
"""

from __future__ import annotations

import random
from collections import deque

from model_database import Conversation, Database

from balsadb.client.call import ClerkOptions, Close, Connect, Send
from balsadb.client.core import ClerkCore
from balsadb.resp.parser import CommandParser

SERVERS = [("a", 1), ("b", 2), ("c", 3)]
SLOTS = b"*1\r\n*5\r\n:0\r\n:16383\r\n" + b"".join(
    b"*2\r\n$1\r\n%b\r\n:%d\r\n" % (host.encode(), port) for host, port in (*SERVERS[1:], SERVERS[0])
)
REFUSALS = [
    b"-CLUSTERDOWN no leader\r\n",
    b"-TRYAGAIN busy\r\n",
    b"-LOADING starting\r\n",
    b"-NOAUTH Authentication required.\r\n",
]
"""What a server says that does not run a command."""


class Asked:
    """One command that a server was given, on its way to an answer."""

    def __init__(self, work) -> None:
        self.work = work
        self.reply: bytes | None = None
        self.ran = False


class Wire:
    """One connection."""

    def __init__(self, address) -> None:
        self.address = address
        self.parser = CommandParser()
        self.conversation = Conversation()
        self.asked: deque[Asked] = deque()


class World:
    """A Clerk's core, the servers, and everything between them."""

    def __init__(self, seed: int, *, trouble: float = 0.3, **options) -> None:
        self.random = random.Random(seed)
        self.trouble = trouble
        self.database = Database()
        self.now = 1.0
        self.core = ClerkCore(SERVERS, ClerkOptions(answer_timeout=1.0, **options), self.random)
        self.wires: dict[int, Wire] = {}
        self.connecting: dict[int, tuple[str, int]] = {}
        self.late: list[Asked] = []
        """Work whose connection is gone, still to be done or never."""
        self.finished = []

    def step(self) -> None:
        """Let one thing happen."""
        chance = self.random.random
        if chance() < 0.2:
            self._pass_time()
        self._act()
        if self.connecting and chance() < 0.7:
            self._connect()
        for number in list(self.wires):
            if number in self.wires and chance() < 0.6:
                self._serve(number)
        if self.late and chance() < 0.3:
            asked = self.late.pop(self.random.randrange(len(self.late)))
            if chance() < 0.7 and not asked.ran:
                self.database.run(*asked.work)
        if chance() < 0.02 * self.trouble:
            self._restart(self.random.choice(SERVERS))
        self.finished += self.core.finished()

    def _pass_time(self) -> None:
        seconds = self.random.choice([0.001, 0.01, 0.1, 0.6])
        if self.random.random() < 0.05 * self.trouble:
            seconds = 4.0  # long enough for sessions to end
        self.now += seconds
        self.database.now_ms = int(self.now * 1000)
        self.core.tick(self.now)

    def _act(self) -> None:
        for action in self.core.actions(self.now):
            match action:
                case Connect(number, address):
                    self.connecting[number] = address
                case Close(number):
                    self.connecting.pop(number, None)
                    self._gone(number)
                case Send(number, data):
                    if number in self.wires:
                        self._ask(self.wires[number], data)

    def _ask(self, wire: Wire, data: bytes) -> None:
        for argv in wire.parser.feed(data):
            if argv[0] == b"CLUSTER":
                asked = Asked(None)
                asked.reply = SLOTS
            else:
                what = wire.conversation.take(argv)
                asked = Asked(None if isinstance(what, bytes) else what)
                if isinstance(what, bytes):
                    asked.reply = what
                elif self.random.random() < 0.1 * self.trouble:
                    weights = [10, 10, 10, argv[0] == b"ONCE"]
                    (asked.reply,) = self.random.choices(REFUSALS, weights)  # and so it is never run
            wire.asked.append(asked)

    def _connect(self) -> None:
        number = self.random.choice(list(self.connecting))
        address = self.connecting.pop(number)
        if self.random.random() < 0.2 * self.trouble:
            self.core.connect_failed(number, "connection refused", self.now)
        else:
            self.wires[number] = Wire(address)
            self.core.connected(number, self.now)

    def _serve(self, number: int) -> None:
        """Do some of what a server was asked, in any order, and answer as far as there is no gap."""
        wire, chance = self.wires[number], self.random.random
        if chance() < 0.05 * self.trouble:
            self._cut(number)
            return
        for asked in self.random.sample(list(wire.asked), min(len(wire.asked), 3)):
            if asked.reply is None:
                self._run(asked)
        answers = []
        while wire.asked and wire.asked[0].reply is not None and chance() < 0.9:
            answers.append(wire.asked.popleft().reply)
        if not answers:
            return
        if chance() < 0.15 * self.trouble:
            self._cut(number)  # done, and nobody hears of it
            return
        data = b"".join(answers)
        cut = self.random.randrange(len(data) + 1)
        self.core.received(number, data[:cut], self.now)
        self.core.received(number, data[cut:], self.now)

    def _run(self, asked: Asked) -> None:
        chance = self.random.random
        if chance() < 0.05 * self.trouble:
            asked.reply = b"-UNKNOWN the deadline passed\r\n"
            self.late.append(asked)
            return
        asked.ran = True
        asked.reply = self.database.run(*asked.work)
        argv = asked.work[0]
        if argv[0] == b"ONCE" and chance() < 0.2 * self.trouble:
            again = Asked(asked.work)
            self.late.append(again)

    def _cut(self, number: int) -> None:
        self._gone(number)
        self.core.lost(number, "the server closed the connection", self.now)

    def _gone(self, number: int) -> None:
        wire = self.wires.pop(number, None)
        if wire is not None:
            self.late += [asked for asked in wire.asked if asked.reply is None and not asked.ran]

    def _restart(self, address) -> None:
        for number, wire in list(self.wires.items()):
            if wire.address == address:
                self._cut(number)

    def settle(self) -> None:
        """End all trouble, let every call end and everything late arrive."""
        self.trouble = 0.0
        for _ in range(20_000):
            if not self.core.desk.count and not self.late:
                return
            self.step()
        raise AssertionError(f"{self.core.desk.count} calls never ended, {len(self.late)} late")
