"""The HTTP health endpoints, asked over real connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from balsadb.errors import UsageError
from balsadb.server.http import HttpServer


class Health:
    """A node's readiness under the test's control."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __call__(self) -> str | None:
        return self.reason


def with_server(test: Callable[[HttpServer, Health], Awaitable[None]]) -> None:
    async def run() -> None:
        health = Health()
        server = await HttpServer.start(health, "127.0.0.1", 0)
        try:
            await test(server, health)
        finally:
            await server.stop()

    asyncio.run(run())


async def send(server: HttpServer, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return answer


async def ask(server: HttpServer, path: str, method: str = "GET") -> tuple[int, str]:
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, _, body = (await send(server, request.encode())).partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode()


def test_livez_says_ok_whether_ready_or_not():
    async def test(server: HttpServer, health: Health) -> None:
        health.reason = "no leader is known"
        assert await ask(server, "/livez") == (200, "ok")

    with_server(test)


def test_readyz_says_ready_or_the_reason_why_not():
    async def test(server: HttpServer, health: Health) -> None:
        assert await ask(server, "/readyz") == (200, "ready")
        health.reason = "no leader is known"
        assert await ask(server, "/readyz") == (503, "no leader is known")

    with_server(test)


@pytest.mark.parametrize(
    "path",
    ["/", "/livez/", "/livez/x", "/metrics", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//livez"],
)
def test_everything_else_is_not_found(path):
    async def test(server: HttpServer, health: Health) -> None:
        assert await ask(server, path) == (404, "not found")

    with_server(test)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_reading_is_possible(method):
    async def test(server: HttpServer, health: Health) -> None:
        assert (await ask(server, "/livez", method))[0] == 404

    with_server(test)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(200) + b"\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
    ],
)
def test_nonsense_is_refused_and_the_server_goes_on(request_bytes):
    async def test(server: HttpServer, health: Health) -> None:
        assert b" 400 " in (await send(server, request_bytes)).split(b"\r\n")[0]
        assert await ask(server, "/livez") == (200, "ok")

    with_server(test)


def test_a_taken_port_is_refused_with_a_sentence_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port} is already in use"):
            asyncio.run(HttpServer.start(lambda: None, "127.0.0.1", port))


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 65_536), ("no-such-host.invalid", 0)]
)
def test_an_impossible_address_is_refused_with_a_sentence(host, port):
    with pytest.raises(UsageError, match=f"can't listen for HTTP on {host}:{port}: .+"):
        asyncio.run(HttpServer.start(lambda: None, host, port))


def test_the_port_is_free_again_after_stop():
    async def run() -> None:
        first = await HttpServer.start(lambda: None, "127.0.0.1", 0)
        await first.stop()
        second = await HttpServer.start(lambda: None, "127.0.0.1", first.port)
        await second.stop()

    asyncio.run(run())
