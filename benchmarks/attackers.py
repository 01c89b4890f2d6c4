"""Ten thousand idle and a thousand hostile clients in one process, for `attack.py`.

    python benchmarks/attackers.py 127.0.0.1:7001 --idle 10000 --hostile 1000

It says `ready` once all are there, goes on until its input ends, and then says as JSON what happened to them.
Each hostile client acts at its own pace, so that what is measured is what they cost the server and not what
they cost this machine:

    slowloris   one byte of a command every second
    pipelines   asks for a large value again and again and never reads
    giants      says that a value of 8 MiB comes, sends it slowly, and never the last byte
    garbage     random bytes and broken commands, and comes again when it was closed
    half-closed closes its sending side and waits
    storms      connects, says nothing or a PING, and leaves
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import resource
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable

from harness import split_address

BIG_KEY = b"attack:big"
BIG_BYTES = 100_000
"""Bytes of the value that the pipelines ask for."""
GIANT_BYTES = 8 * 1024 * 1024
GIANT_PIECE = bytes(64 * 1024)
CLIENTS_PER_ADDRESS = 4_000
"""So many of them share one source address: there are only so many ports."""
CONNECT_SECONDS = 30.0
START_SECONDS = 2.0
"""Over which the hostile clients begin."""

GET_BIG = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(BIG_KEY), BIG_KEY)
SLOW = b"*3\r\n$3\r\nSET\r\n$6\r\nattack\r\n$5000\r\n" + bytes(5_000)
BROKEN = (
    b"*1000000000\r\n",
    b"*1\r\n$2000000000\r\n",
    b"*3\r\n:1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\0" * 500,
    b"'" * 5_000 + b"\n",
    b"MULTI\r\n" * 300,
    b"\r\n" * 5_000,
)


def source_address(number: int) -> tuple[str, int]:
    """Return where the client with this number connects from."""
    return f"127.0.0.{2 + number // CLIENTS_PER_ADDRESS}", 0


class Hostile:
    """One hostile client: it acts when its time has come and says when it wants to act again."""

    kind = ""

    def __init__(self, server: tuple[str, int], number: int, tally: Counter[str]) -> None:
        self.number = number
        self._server = server
        self._tally = tally
        self._random = random.Random(number)
        self._socket: socket.socket | None = None

    def act(self) -> float:
        """Do the next thing; return after how many seconds there is another one."""
        raise NotImplementedError

    def connect(self) -> socket.socket:
        """Return the connection, a new one when there is none."""
        if self._socket is None:
            self._socket = socket.socket()
            self._socket.setblocking(False)
            self._socket.bind(source_address(20_000 + self.number))
            self._socket.connect_ex(self._server)
            self._tally[f"{self.kind}: connected"] += 1
        return self._socket

    def send(self, data: bytes) -> int | None:
        """Send what the kernel takes; None when the connection is gone."""
        try:
            return self.connect().send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.leave("closed by the server")
            return None

    def closed(self) -> bool:
        """Read a little; tell whether the server has closed."""
        try:
            data = self.connect().recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.leave("closed by the server")
        return not data

    def leave(self, how: str) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._tally[f"{self.kind}: {how}"] += 1


class Slowloris(Hostile):
    kind = "slowloris"
    _sent = 0

    def act(self) -> float:
        sent = self.send(SLOW[self._sent : self._sent + 1])
        self._sent = 0 if sent is None else (self._sent + sent) % len(SLOW)
        return 1.0


class Pipeline(Hostile):
    kind = "pipeline"

    def act(self) -> float:
        sent = self.send(GET_BIG * 500)
        return 1.0 if sent is None else 0.5


class Giant(Hostile):
    kind = "giant"
    _left = 0

    def act(self) -> float:
        if self._socket is None:
            self._left = GIANT_BYTES - 1
            if self.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % GIANT_BYTES) is None:
                return 1.0
            return 0.1
        if not self._left:
            return 1.0 if self.closed() else 0.5
        sent = self.send(GIANT_PIECE[: self._left])
        self._left -= sent or 0
        return 1.0 if sent is None else 0.25


class Garbage(Hostile):
    kind = "garbage"

    def act(self) -> float:
        if self._socket is not None and self.closed():
            return 0.5
        kind = self._random.randrange(len(BROKEN) + 2)
        data = BROKEN[kind] if kind < len(BROKEN) else self._random.randbytes(300)
        self.send(data)
        return 0.5


class HalfClosed(Hostile):
    kind = "half-closed"

    def act(self) -> float:
        if self._socket is not None:
            return 1.0 if self.closed() else 2.0
        if self.send(b"SET attack 1\r\nPING\r\n*1\r\n$4\r\nPI") is not None:
            try:
                self.connect().shutdown(socket.SHUT_WR)
            except OSError:
                self.leave("closed by the server")
        return 1.0


class Storm(Hostile):
    kind = "storm"

    def act(self) -> float:
        if self._socket is None:
            self.connect()
            return 0.05
        if self._random.random() < 0.5:
            self.send(b"PING\r\n")
        self.leave("left")
        return 0.45


KINDS: tuple[tuple[type[Hostile], int], ...] = (
    (Slowloris, 20),
    (Pipeline, 15),
    (Giant, 15),
    (Garbage, 20),
    (HalfClosed, 10),
    (Storm, 20),
)
"""Who comes, and how many of a hundred."""


def make_hostile(server: tuple[str, int], count: int, tally: Counter[str]) -> list[Hostile]:
    """Return all hostile clients, their kinds mixed."""
    kinds = [kind for kind, share in KINDS for _ in range(share)]
    random.Random(1).shuffle(kinds)
    return [kinds[number % len(kinds)](server, number, tally) for number in range(count)]


def connect_idle(server: tuple[str, int], count: int) -> list[socket.socket]:
    """Return connections that will never say anything."""
    found = []
    for number in range(count):
        connection = socket.create_connection(server, CONNECT_SECONDS, source_address(number))
        connection.setblocking(False)
        found.append(connection)
    return found


def still_open(connections: list[socket.socket]) -> int:
    """Count the connections that the server has not closed."""
    count = 0
    for connection in connections:
        try:
            connection.recv(100)
        except BlockingIOError:
            count += 1
        except OSError:
            continue
    return count


def run(hostile: list[Hostile], ended: Callable[[float], bool]) -> float:
    """Let everybody act when it is time until `ended`, which may wait; return the greatest delay."""
    now = time.monotonic()
    step = START_SECONDS / max(1, len(hostile))
    due = [(now + client.number * step, client.number) for client in hostile]
    heapq.heapify(due)
    behind = 0.0
    while not ended(max(0.0, due[0][0] - time.monotonic()) if due else 0.5):
        now = time.monotonic()
        while due and due[0][0] <= now:
            at, number = due[0]
            behind = max(behind, now - at)
            heapq.heapreplace(due, (max(at, now) + hostile[number].act(), number))
    return behind


def input_ended(seconds: float) -> bool:
    """Wait for a while; tell whether our input has ended meanwhile."""
    readable, _, _ = select.select([sys.stdin], [], [], min(seconds, 0.5))
    return bool(readable) and not sys.stdin.read(1)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("server", metavar="HOST:PORT")
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--hostile", type=int, default=1_000)
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = split_address(given.server)
    tally: Counter[str] = Counter()
    idle = connect_idle(server, given.idle)
    hostile = make_hostile(server, given.hostile, tally)
    print("ready", flush=True)
    behind = run(hostile, input_ended)
    print(
        json.dumps(
            {
                "idle": len(idle),
                "idle_open": still_open(idle),
                "behind_seconds": behind,
                **dict(sorted(tally.items())),
            }
        )
    )


if __name__ == "__main__":
    main()
