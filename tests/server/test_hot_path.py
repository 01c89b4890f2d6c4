"""What a command costs, counted in calls of Python functions and not in seconds, which depend on the machine.

One node serves 64 clients in this process, with one command each or sixteen at a time. Counted is what the
package itself calls. Whoever needs more for a good reason raises the figure together with the change; whoever
needs less lowers it. Nine tenths of it are the same in every run; how many turns of the loop the commands
share is not, hence the tolerance.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

import pytest

import balsadb
from balsadb import Node
from balsadb.server.config import make_config

PACKAGE = str(Path(balsadb.__file__).parent)
CLIENTS = 64
ROUNDS = 20
TOLERANCE = 1.1
SECONDS_MAX = 60

SET = b"*3\r\n$3\r\nSET\r\n$8\r\nkey%05d\r\n$256\r\n" + b"x" * 256 + b"\r\n"
GET = b"*2\r\n$3\r\nGET\r\n$8\r\nkey%05d\r\n"
ABSENT, OK = b"$-1\r\n", b"+OK\r\n"


@contextlib.contextmanager
def counting(found: dict[str, int]):
    """Count calls of the package's functions ("python") and by them of built-in ones ("built in")."""

    def count(frame, event, argument):
        if frame.f_code.co_filename.startswith(PACKAGE):
            if event == "call":
                found["python"] += 1
            elif event == "c_call":
                found["built in"] += 1

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


async def calls(
    directory: Path, command: bytes, reply: bytes, pipeline: int, password_file: str | None = None
) -> dict[str, float]:
    """Return how many calls of each kind a command takes, for clients that have logged in if they must."""
    client, peer, http = free_address(), free_address(), free_address()
    config = make_config(
        {
            "id": 1,
            "data_dir": str(directory),
            "listen": client,
            "peer_listen": peer,
            "http_listen": http,
            "cluster": f"1={peer}",
            "password_file": password_file,
        }
    )
    found = {"python": 0, "built in": 0}
    host, port = client.split(":")
    async with Node(config), asyncio.timeout(SECONDS_MAX):
        clients = [await asyncio.open_connection(host, int(port)) for _ in range(CLIENTS)]
        if password_file is not None:
            for reader, writer in clients:
                writer.write(b"AUTH secret\r\n")
                assert await reader.readline() == OK

        async def play(number: int) -> None:
            for place, (_, writer) in enumerate(clients):
                first = (number * CLIENTS + place) * pipeline
                writer.write(b"".join(command % (n % 10_000) for n in range(first, first + pipeline)))
            for reader, _ in clients:
                assert await reader.readexactly(len(reply) * pipeline) == reply * pipeline

        for number in range(3):
            await play(number)
        with counting(found):
            for number in range(3, 3 + ROUNDS):
                await play(number)
        for _, writer in clients:
            writer.close()
    return {kind: count / (ROUNDS * CLIENTS * pipeline) for kind, count in found.items()}


LIMITS = [
    pytest.param(SET, OK, 1, 32, 44, id="SET"),
    pytest.param(SET, OK, 16, 9.6, 27.5, id="SET, 16 at a time"),
    pytest.param(GET, ABSENT, 1, 36.3, 35.5, id="GET"),
    pytest.param(GET, ABSENT, 16, 7.8, 16.8, id="GET, 16 at a time"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "reply", "pipeline", "python", "built_in"), LIMITS)
def test_a_command_takes_no_more_calls_than_it_did(tmp_path, command, reply, pipeline, python, built_in):
    found = asyncio.run(calls(tmp_path, command, reply, pipeline))
    assert found["python"] <= python * TOLERANCE, found
    assert found["built in"] <= built_in * TOLERANCE, found
    assert found["python"] > python / 2, f"lower the figure: {found}"


@pytest.mark.slow
@pytest.mark.parametrize(("command", "reply", "pipeline", "python", "built_in"), LIMITS)
def test_a_password_costs_the_commands_after_it_nothing(tmp_path, command, reply, pipeline, python, built_in):
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o600)
    found = asyncio.run(calls(tmp_path / "data", command, reply, pipeline, str(path)))
    assert found["python"] <= python * TOLERANCE, found
    assert found["built in"] <= built_in * TOLERANCE, found
