"""/events: what /status says, sent to the dashboard once a second as server-sent events.

    event: history    data: samples of the last minutes, once at the beginning
    event: status     data: /status, and in `samples` the newest seconds

The event is made once for all streams. A reader that does not keep up is dropped; its browser comes back by
itself. While nobody reads nothing is made.
"""

from __future__ import annotations

import asyncio
import contextlib
from itertools import islice
from typing import Any, Final

import msgspec
from aiohttp import web

from balsadb.server.insight import Insight

STREAMS_MAX: Final = 8
"""Readers at once; one more is refused."""
QUEUE_MAX: Final = 5
"""Events that wait for one reader; with one more it is dropped."""
PERIOD_SECONDS: Final = 1.0
SAMPLES: Final = 3
"""Samples in one event, so that a reader misses none."""
RETRY_MS: Final = 1000
"""After so long a browser connects again."""

_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


class _Stream:
    """One reader."""

    __slots__ = ("pieces", "transport")

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self.transport = transport
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_MAX)
        """None ends the stream."""

    def put(self, piece: bytes | None) -> None:
        """Queue an event, or drop the reader."""
        try:
            self.pieces.put_nowait(piece)
        except asyncio.QueueFull:
            if self.transport is not None:
                self.transport.abort()  # its handler is stuck in a write, which fails now


class Events:
    """All streams of one node."""

    def __init__(self, insight: Insight) -> None:
        self._insight = insight
        self._streams: dict[_Stream, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def readers(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """Serve one reader until it leaves or the node stops."""
        if self._stopped or len(self._streams) >= STREAMS_MAX:
            return web.Response(text=f"{STREAMS_MAX} dashboards are open already", status=503)
        stream = _Stream(request.transport)
        self._streams[stream] = None
        try:
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            stream.put(b"retry: %d\n" % RETRY_MS + _event("history", list(self._insight.history.samples)))
            stream.put(self._status())
            if self._timer is None:
                self._wait()
            with contextlib.suppress(ConnectionError):  # readers leave when they like; that is no fault
                while (piece := await stream.pieces.get()) is not None:
                    await response.write(piece)
                await response.write_eof()
            return response
        finally:
            del self._streams[stream]

    async def stop(self) -> None:
        """End all streams."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for stream in self._streams:
            stream.put(None)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PERIOD_SECONDS, self._publish)

    def _publish(self) -> None:
        self._timer = None
        if not self._streams or self._stopped:
            return
        self._wait()
        event = self._status()
        for stream in self._streams:
            stream.put(event)

    def _status(self) -> bytes:
        samples = self._insight.history.samples
        newest = list(islice(samples, max(0, len(samples) - SAMPLES), None))
        return _event("status", self._insight.status() | {"samples": newest})


def _event(name: str, data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))
