"""The HTTP health endpoints, asked over real connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from balsadb.errors import UsageError
from balsadb.server import http
from balsadb.server.backups import Unavailable


class Copies:
    """Gives what the test says instead of a state."""

    def __init__(self, *frames: bytes, refusal: str = "", breaks: bool = False) -> None:
        self.frames, self.refusal, self.breaks = frames, refusal, breaks
        self.open = 0
        self.given_back = asyncio.Event()

    async def stream(self):
        if self.refusal:
            raise Unavailable(self.refusal)
        self.open += 1
        try:
            for frame in self.frames:
                yield frame
            if self.breaks:
                raise Unavailable("the disk is gone")
        finally:
            self.open -= 1
            self.given_back.set()


class Health:
    """A node's readiness under the test's control."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __call__(self) -> str | None:
        return self.reason


def with_server(test: Callable[[int, Health], Awaitable[None]], copies: Copies | None = None) -> None:
    async def run() -> None:
        health = Health()
        runner = await http.start(http.create_app(health, copies), "127.0.0.1", 0)
        try:
            await test(runner.addresses[0][1], health)
        finally:
            await http.stop(runner)

    asyncio.run(run())


async def send(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return answer


async def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, _, body = (await send(port, request.encode())).partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode()


def test_livez_says_ok_whether_ready_or_not():
    async def test(port: int, health: Health) -> None:
        health.reason = "no leader is known"
        assert await ask(port, "/livez") == (200, "ok")

    with_server(test)


def test_readyz_says_ready_or_the_reason_why_not():
    async def test(port: int, health: Health) -> None:
        assert await ask(port, "/readyz") == (200, "ready")
        health.reason = "no leader is known"
        assert await ask(port, "/readyz") == (503, "no leader is known")

    with_server(test)


@pytest.mark.parametrize(
    "path",
    ["/", "/livez/", "/livez/x", "/metrics", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//livez"],
)
def test_everything_else_is_not_found(path):
    async def test(port: int, health: Health) -> None:
        assert await ask(port, path) == (404, "not found")

    with_server(test)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_reading_is_possible(method):
    async def test(port: int, health: Health) -> None:
        assert (await ask(port, "/livez", method))[0] == 404

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
    async def test(port: int, health: Health) -> None:
        assert b" 400 " in (await send(port, request_bytes)).split(b"\r\n")[0]
        assert await ask(port, "/livez") == (200, "ok")

    with_server(test)


def test_a_taken_port_is_refused_with_a_sentence_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port} is already in use"):
            asyncio.run(http.start(http.create_app(lambda: None), "127.0.0.1", port))


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 65_536), ("no-such-host.invalid", 0)]
)
def test_an_impossible_address_is_refused_with_a_sentence(host, port):
    with pytest.raises(UsageError, match=f"can't listen for HTTP on {host}:{port}: .+"):
        asyncio.run(http.start(http.create_app(lambda: None), host, port))


def test_the_port_is_free_again_after_stop():
    async def run() -> None:
        first = await http.start(http.create_app(lambda: None), "127.0.0.1", 0)
        port = first.addresses[0][1]
        await http.stop(first)
        second = await http.start(http.create_app(lambda: None), "127.0.0.1", port)
        await http.stop(second)

    asyncio.run(run())


def test_connections_that_say_nothing_keep_no_health_check_out():
    async def run() -> None:
        runner = await http.start(http.create_app(Health()), "127.0.0.1", 0, connections_max=4)
        port = runner.addresses[0][1]
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        try:
            assert await ask(port, "/livez") == (200, "ok")
            assert len(runner.server.connections) <= 4
        finally:
            for _, writer in silent:
                writer.close()
            await http.stop(runner)

    asyncio.run(run())


def test_one_who_does_not_read_his_answers_keeps_no_place():
    async def run() -> None:
        runner = await http.start(http.create_app(Health()), "127.0.0.1", 0, connections_max=4)
        port = runner.addresses[0][1]
        loop = asyncio.get_running_loop()
        greedy = socket.socket()
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.setblocking(False)
        await loop.sock_connect(greedy, ("127.0.0.1", port))
        asking = loop.create_task(
            loop.sock_sendall(greedy, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 100_000)
        )
        while not any(c.transport.get_write_buffer_size() for c in runner.server.connections):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        try:
            assert await ask(port, "/livez") == (200, "ok")
            assert len(runner.server.connections) <= 4
        finally:
            asking.cancel()
            greedy.close()
            for _, writer in silent:
                writer.close()
            await http.stop(runner)

    asyncio.run(asyncio.wait_for(run(), 20))


# -------------------------------------------------------------------------------------------- backups


def test_a_backup_is_streamed_to_its_end_and_its_copy_is_given_back():
    copies = Copies(b"one", b"two" * 100_000)

    async def test(port: int, health: Health) -> None:
        answer = await send(port, b"POST /backup HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 200 OK" in answer.splitlines()[0]
        assert answer.count(b"two") == 100_000
        assert answer.endswith(b"\r\n0\r\n\r\n")  # the end of a chunked answer
        assert copies.open == 0

    with_server(test, copies)


def test_a_backup_that_is_not_possible_is_refused_with_the_reason():
    async def test(port: int, health: Health) -> None:
        assert await ask(port, "/backup", "POST") == (503, "CLUSTERDOWN no leader")

    with_server(test, Copies(refusal="CLUSTERDOWN no leader"))


def test_a_backup_that_breaks_off_has_no_end():
    copies = Copies(b"one", breaks=True)

    async def test(port: int, health: Health) -> None:
        try:
            answer = await send(port, b"POST /backup HTTP/1.1\r\nHost: x\r\n\r\n")
        except ConnectionResetError:
            answer = b""
        assert not answer.endswith(b"0\r\n\r\n")
        assert copies.open == 0
        assert await ask(port, "/livez") == (200, "ok")

    with_server(test, copies)


def test_a_client_that_leaves_in_the_middle_of_a_backup_leaves_nothing_behind():
    copies = Copies(*[bytes(1 << 20)] * 100)

    async def test(port: int, health: Health) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /backup HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.readexactly(100_000), 5)
        assert copies.open == 1
        writer.transport.abort()
        await asyncio.wait_for(copies.given_back.wait(), 5)
        assert copies.open == 0

    with_server(test, copies)


def test_a_web_page_gets_no_backup():
    async def test(port: int, health: Health) -> None:
        request = (
            b"POST /backup HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n"
        )
        assert b" 403 " in (await send(port, request)).splitlines()[0]

    with_server(test, Copies(b"secret"))


def test_only_a_post_makes_a_backup():
    async def test(port: int, health: Health) -> None:
        assert await ask(port, "/backup") == (404, "not found")

    with_server(test, Copies(b"secret"))


def test_a_node_that_gives_no_backups_says_not_found():
    async def test(port: int, health: Health) -> None:
        assert await ask(port, "/backup", "POST") == (404, "not found")

    with_server(test)
