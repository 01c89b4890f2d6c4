"""Streams of /events: how many, how slow a reader may be, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import SimpleNamespace

import msgspec
import pytest

from balsadb.server import events as events_module
from balsadb.server import http
from balsadb.server.events import QUEUE_MAX, STREAMS_MAX
from server.lone_node import lone_node

HEAD = b"HEAD /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
REQUEST = b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n"


class Reader:
    """One open stream."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self):
        self.input, self.output = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        self.output.write(REQUEST)
        self.head = await asyncio.wait_for(self.input.readuntil(b"\r\n\r\n"), 5)
        return self

    async def __aexit__(self, *_):
        self.output.close()
        with contextlib.suppress(ConnectionError):
            await self.output.wait_closed()

    async def event(self) -> tuple[str, object]:
        """Return the next event's name and data, whatever pieces it comes in."""
        name = ""
        async with asyncio.timeout(10):
            while True:
                line = (await self.input.readline()).strip()
                if line.startswith(b"event: "):
                    name = line[7:].decode()
                elif line.startswith(b"data: "):
                    return name, msgspec.json.decode(line[6:])
                elif not line and self.input.at_eof():
                    raise EOFError


class Served:
    """The HTTP port over facts that the test makes up."""

    def __init__(self, padding: int = 0) -> None:
        self.asked = 0
        self.padding = padding

    def status(self) -> dict:
        self.asked += 1
        return {"number": self.asked, "padding": "x" * self.padding}

    async def __aenter__(self):
        insight = SimpleNamespace(status=self.status, history=SimpleNamespace(samples=deque([1, 2, 3, 4])))
        app = http.create_app(lambda: None, None, insight)
        (self.events,) = [value for value in app.values() if isinstance(value, events_module.Events)]
        self.runner = await http.start(app, "127.0.0.1", 0)
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_):
        await http.stop(self.runner)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(events_module, "PERIOD_SECONDS", 0.01)
    # The registry asks for nothing; the parts of a node are not there.
    monkeypatch.setattr(http, "Metrics", lambda insight: None)


def test_a_stream_begins_with_the_past_and_goes_on_with_the_present():
    async def run():
        async with Served() as served, Reader(served.port) as reader:
            assert b" 200 " in reader.head
            assert b"text/event-stream" in reader.head
            assert await reader.event() == ("history", [1, 2, 3, 4])
            first = await reader.event()
            second = await reader.event()
            assert [name for name, _ in (first, second)] == ["status", "status"]
            assert second[1]["number"] == first[1]["number"] + 1
            assert first[1]["samples"] == [2, 3, 4]

    asyncio.run(run())


def test_an_event_is_made_once_for_all_readers_and_not_at_all_for_none():
    async def run():
        async with Served() as served:
            async with Reader(served.port) as one, Reader(served.port) as other:
                ours, theirs = [], []
                for reader, numbers in ((one, ours), (other, theirs)):
                    await reader.event()
                    numbers += [(await reader.event())[1]["number"] for _ in range(10)]
                assert len({*ours, *theirs}) < 20
            await until(lambda: served.events.readers == 0)
            asked = served.asked
            await asyncio.sleep(0.05)
            assert served.asked <= asked + 1

    asyncio.run(run())


def test_one_reader_too_many_is_refused_and_finds_a_place_when_another_leaves():
    async def run():
        async with Served() as served:
            readers = [Reader(served.port) for _ in range(STREAMS_MAX)]
            for reader in readers:
                await reader.__aenter__()
            async with Reader(served.port) as refused:
                assert b" 503 " in refused.head
            await readers[0].__aexit__()
            await until(lambda: served.events.readers < STREAMS_MAX)
            async with Reader(served.port) as late:
                assert b" 200 " in late.head
            for reader in readers[1:]:
                await reader.__aexit__()

    asyncio.run(run())


def test_a_reader_that_does_not_read_is_dropped_with_bounded_memory_and_others_go_on():
    async def run():
        async with Served(padding=200_000) as served, Reader(served.port) as good:
            slow = Reader(served.port)
            await slow.__aenter__()
            slow.output.transport.pause_reading()
            await until(lambda: served.events.readers == 2)
            seen = 0
            async with asyncio.timeout(20):
                while served.events.readers == 2:
                    await good.event()
                    seen += 1
                    assert all(s.pieces.qsize() <= QUEUE_MAX for s in served.events._streams)
            assert seen > QUEUE_MAX
            await good.event()
            await slow.__aexit__()

    asyncio.run(run())


@pytest.mark.parametrize("way", ["close", "abort"])
def test_a_reader_that_leaves_leaves_nothing_behind_not_even_a_word_in_the_log(way, caplog):
    async def run():
        async with Served() as served:
            async with Reader(served.port) as reader:
                await reader.event()
                getattr(reader.output.transport, way)()
            await until(lambda: served.events.readers == 0)

    asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == []


def test_a_question_for_the_headers_alone_takes_no_place():
    async def run():
        async with Served() as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(HEAD)
            assert b" 404 " in await asyncio.wait_for(reader.read(), 5)
            assert served.events.readers == 0
            writer.close()
            await writer.wait_closed()

    asyncio.run(run())


def test_a_stop_ends_streams_at_once(monkeypatch):
    monkeypatch.setattr(events_module, "PERIOD_SECONDS", 60.0)

    async def run():
        served = Served()
        await served.__aenter__()
        async with Reader(served.port) as reader:
            await reader.event()
            await reader.event()
            loop = asyncio.get_running_loop()
            began = loop.time()
            await served.__aexit__()
            assert loop.time() - began < http.SHUTDOWN_S / 2
            with pytest.raises(EOFError):
                await reader.event()

    asyncio.run(run())


def test_a_stop_does_not_wait_for_a_reader_that_does_not_read():
    async def run():
        served = Served(padding=1_000_000)
        await served.__aenter__()
        slow = Reader(served.port)
        await slow.__aenter__()
        slow.output.transport.pause_reading()
        await until(lambda: served.asked > 3)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await served.__aexit__()
        assert loop.time() - began < 2 * http.SHUTDOWN_S
        await slow.__aexit__()

    asyncio.run(run())


def test_a_real_node_streams_its_own_status(tmp_path):
    async def run():
        async with lone_node(tmp_path / "data") as node:
            port = int(node.config.http_listen.split(":")[1])
            async with Reader(port) as reader:
                assert (await reader.event())[0] == "history"
                name, facts = await reader.event()
                assert (name, facts["role"]) == ("status", "leader")

    asyncio.run(run())
