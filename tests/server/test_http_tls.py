"""The HTTP port beyond this machine: by TLS, and backups only for those who show a certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest

from balsadb.client.tls import client_context
from balsadb.server import http
from balsadb.server.certificates import Certificates, Files
from certificates import client_tls, needs_openssl

pytestmark = needs_openssl


class OneBackup:
    """Gives a state of one piece."""

    async def stream(self):
        yield b"everything"


async def ask(port: int, context: ssl.SSLContext | None, request: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def serving(scenario, certificates: Certificates | None, is_open: bool) -> None:
    async def run() -> None:
        app = http.create_app(lambda: None, OneBackup(), is_open=is_open)
        runner = await http.start(app, "127.0.0.1", 0, certificates=certificates)
        try:
            (site,) = runner.sites
            entrance = site._entrance
            found = site._server.sockets if entrance is None else entrance.sockets
            await scenario(found[0].getsockname()[1])
        finally:
            await http.stop(runner)

    asyncio.run(run())


def optional(directory) -> Certificates:
    files = Files(*(str(directory / name) for name in ("server.pem", "server.key", "ca.pem")))
    return Certificates.of_clients(files, "optional", "127.0.0.1")


@pytest.mark.parametrize(("shown", "status"), [(True, b"200"), (False, b"403")])
def test_health_is_for_everybody_and_a_backup_for_those_with_a_certificate(certificates, shown, status):
    async def scenario(port: int) -> None:
        context = client_context(client_tls(certificates, shown=shown))
        assert (await ask(port, context, "GET /readyz")).startswith(b"HTTP/1.1 200")
        answer = await ask(port, context, "POST /backup")
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (b"everything" in answer) is shown

    serving(scenario, optional(certificates), is_open=False)


def test_without_tls_it_gives_no_backup_beyond_this_machine(certificates):
    async def scenario(port: int) -> None:
        assert (await ask(port, None, "GET /readyz")).startswith(b"HTTP/1.1 200")
        answer = await ask(port, None, "POST /backup")
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"show a certificate" in answer

    serving(scenario, None, is_open=False)


def test_on_this_machine_backups_are_given_to_everybody():
    async def scenario(port: int) -> None:
        assert b"everything" in await ask(port, None, "POST /backup")

    serving(scenario, None, is_open=True)


def test_plain_http_gets_nothing_from_a_port_with_tls(certificates):
    async def scenario(port: int) -> None:
        with contextlib.suppress(OSError):
            assert b"200" not in await ask(port, None, "GET /readyz")

    serving(scenario, optional(certificates), is_open=False)
