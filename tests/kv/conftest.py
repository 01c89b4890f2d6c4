"""A state machine that is fed by hand, and a real Redis to compare with."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from balsadb.kv.batch import encode_batch
from balsadb.kv.machine import Outcome, StateMachine
from balsadb.kv.reply import Mapping, NullArray, Refusal, Reply, Status


def plain(reply: Reply) -> Any:
    """Turn a reply into something easy to compare: simple strings and errors become `+OK` and `-ERR ...`."""
    match reply:
        case Status():
            return "+" + reply.text.decode()
        case Refusal():
            return "-" + reply.text.decode()
        case NullArray():
            return "null array"
        case Mapping():
            return {plain(key): plain(value) for key, value in reply.pairs}
        case list():
            return [plain(item) for item in reply]
        case _:
            return reply


def words(command: str | Sequence[bytes]) -> list[bytes]:
    """Return the argument vector of a command written as text, or as it is."""
    return command.encode().split() if isinstance(command, str) else list(command)


class Fed:
    """A machine of the cluster 1, 2, 3 whose next entry holds what a test says."""

    def __init__(self) -> None:
        self.machine = StateMachine([1, 2, 3])
        self.sequence = 0

    def apply(self, payload: bytes, reads: Sequence[tuple[int, list[bytes]]] = ()) -> Outcome:
        """Apply a payload as the next entry."""
        index = self.machine.applied_index + 1
        return self.machine.apply_commands(index, 1, 1000 * index, payload, reads)

    def batch(
        self, *commands: str | Sequence[bytes], reads: Sequence[tuple[int, str | Sequence[bytes]]] = ()
    ) -> list[Any]:
        """Run commands as node 1's next batch and return their replies in plain form."""
        self.sequence += 1
        payload = encode_batch(1, 1, self.sequence, [words(command) for command in commands])
        outcome = self.apply(payload, [(position, words(read)) for position, read in reads])
        assert outcome.ran
        return [plain(reply) for reply in outcome.replies]

    def do(self, command: str | Sequence[bytes]) -> Any:
        """Run one command in an entry of its own and return its reply in plain form."""
        [reply] = self.batch(command)
        return reply

    def read(self, command: str | Sequence[bytes]) -> Any:
        """Answer a read between entries."""
        return plain(self.machine.read(words(command)))

    def data(self) -> dict[bytes, tuple[bytes, int, int]]:
        """Return all records."""
        return dict(self.machine.store.sorted_items())


@pytest.fixture
def fed() -> Fed:
    return Fed()


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start a Redis that keeps nothing, and return its port."""
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed, and CI must compare with it")
        pytest.skip("redis-server is not installed")
    directory: Path = tmp_path_factory.mktemp("redis")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    options += ["--dir", str(directory), "--logfile", str(directory / "log")]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None, "redis-server did not start"
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(64).startswith(b"+PONG"):
                    return
        except OSError:
            continue
