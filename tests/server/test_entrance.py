"""A port with TLS lets nobody in without a handshake, and lets nobody keep others out."""

from __future__ import annotations

import asyncio
import ssl
import time
import warnings

import pytest
import uvloop

from balsadb.client.tls import client_context
from balsadb.server import entrance
from balsadb.server.certificates import Certificates, Files
from balsadb.server.entrance import Entrance
from certificates import client_tls, needs_openssl

pytestmark = needs_openssl
LOOPS = [uvloop.new_event_loop, asyncio.new_event_loop]


class Echo(asyncio.Protocol):
    """Says everything back."""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Port:
    """An entrance with what it has refused."""

    def __init__(self, directory, room: int = 100) -> None:
        files = Files(*(str(directory / name) for name in ("server.pem", "server.key", "ca.pem")))
        self.refused: list[str] = []
        self.entrance = Entrance(
            Certificates.of_clients(files, "yes", "127.0.0.1"), Echo, lambda: room, self.refused.append
        )
        self.context = client_context(client_tls(directory))
        self.stranger = client_context(client_tls(directory, shown=False))

    async def __aenter__(self):
        await self.entrance.start("127.0.0.1", 0, 100)
        self.port = self.entrance.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_) -> None:
        self.entrance.close()

    async def connect(self, context: ssl.SSLContext | None):
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context)

    async def says(self, word: str) -> None:
        async with asyncio.timeout(5):
            while not any(word in sentence for sentence in self.refused):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


def playing(make_loop, scenario, directory, **options) -> None:
    async def play() -> None:
        async with Port(directory, **options) as port, asyncio.timeout(20):
            await scenario(port)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(play())


@pytest.mark.parametrize("make_loop", LOOPS)
def test_who_shows_a_certificate_is_let_in(make_loop, certificates):
    async def scenario(port: Port) -> None:
        for _ in range(3):
            reader, writer = await port.connect(port.context)
            writer.write(b"hello" * 100_000)
            assert await reader.readexactly(500_000) == b"hello" * 100_000
            writer.close()
            await writer.wait_closed()
        assert port.refused == []

    playing(make_loop, scenario, certificates)


async def _nothing_but_the_end(reader: asyncio.StreamReader) -> bool:
    try:
        data = await reader.read()
    except OSError:
        return True
    return not data or data.startswith(b"\x15\x03")  # an alert of TLS


@pytest.mark.parametrize("make_loop", LOOPS)
@pytest.mark.parametrize("words", [b"*1\r\n$4\r\nPING\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100])
def test_who_does_not_speak_tls_is_closed_at_once_and_named(make_loop, words, certificates):
    async def scenario(port: Port) -> None:
        reader, writer = await port.connect(None)
        writer.write(words)
        assert await _nothing_but_the_end(reader)
        await port.says("does not speak TLS")
        assert port.refused[0].startswith("127.0.0.1:")
        writer.close()

    playing(make_loop, scenario, certificates)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_who_shows_no_certificate_does_not_get_as_far_as_a_word(make_loop, certificates):
    async def scenario(port: Port) -> None:
        try:
            reader, writer = await port.connect(port.stranger)
            writer.write(b"hello")
            assert await reader.read() == b""
            writer.close()
        except OSError:
            pass  # at whatever moment it is said
        await port.says("it has shown no certificate")

    playing(make_loop, scenario, certificates)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_an_old_version_of_tls_is_refused(make_loop, certificates):
    async def scenario(port: Port) -> None:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):  # noqa: PT011
            await port.connect(old)
        await port.says("speaks no version of TLS from 1.2 on")

    playing(make_loop, scenario, certificates)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_handshake_that_never_ends_is_given_up(make_loop, certificates, monkeypatch):
    monkeypatch.setattr(entrance, "HANDSHAKE_SECONDS_MAX", 0.2)

    async def scenario(port: Port) -> None:
        began = time.monotonic()
        reader, writer = await port.connect(None)
        writer.write(b"\x16\x03\x01")
        assert await _nothing_but_the_end(reader)
        assert time.monotonic() - began < 5
        await port.says("took too long")
        writer.close()

    playing(make_loop, scenario, certificates)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_those_who_say_nothing_keep_nobody_out(make_loop, certificates):
    async def scenario(port: Port) -> None:
        silent = [await port.connect(None) for _ in range(20)]
        reader, writer = await port.connect(port.context)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        for reader, _ in silent[:15]:
            assert await _nothing_but_the_end(reader)
        assert len(port.entrance._arriving) <= 5
        for _, other in [*silent, (reader, writer)]:
            other.close()

    playing(make_loop, scenario, certificates, room=5)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_crowd_that_says_nothing_holds_no_more_files_than_there_is_room_for(make_loop, certificates):
    """All of them at once: whoever had to go and has not yet must not go a second time in place of others."""

    async def scenario(port: Port) -> None:
        silent = await asyncio.gather(*(port.connect(None) for _ in range(60)))
        over = [asyncio.ensure_future(_nothing_but_the_end(reader)) for reader, _ in silent]
        while sum(one.done() for one in over) < 55:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert not port.entrance._leaving
        for one, (_, writer) in zip(over, silent, strict=True):
            one.cancel()
            writer.close()

    began = time.monotonic()
    playing(make_loop, scenario, certificates, room=5)
    assert time.monotonic() - began < entrance.HANDSHAKE_SECONDS_MAX, "they have gone by themselves"
