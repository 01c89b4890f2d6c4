"""The HTTP port: health, for load balancers, orchestrators and people with curl; figures; backups.

`/livez` answers 200 as long as the process runs its loop. `/readyz` answers 200 when this node can serve and
503 with one sentence when it can not. `/metrics` is for Prometheus, `/status` for programs (JSON), `/` for
people: a page that follows `/events`. `POST /backup` answers the whole state, for `balsadb backup`.

Where clients need a password, `/backup` does, too. The others never do: they show figures of the node and
where the servers are, no key, value or client, and load balancers and Prometheus must get at them.

Everything else is 404. aiohttp takes a quarter of a second to import, so only a server imports this module.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import os
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec
from aiohttp import web

from balsadb.address import format_address
from balsadb.errors import UsageError
from balsadb.kv.reply import Refusal
from balsadb.server.backups import Backups, Unavailable
from balsadb.server.certificates import Certificates
from balsadb.server.entrance import Entrance
from balsadb.server.events import Events
from balsadb.server.insight import Insight
from balsadb.server.journal import journal
from balsadb.server.logins import Logins
from balsadb.server.metrics import CONTENT_TYPE, Metrics
from balsadb.server.page import Page
from balsadb.server.passwords import DEFAULT

BODY_BYTES_MAX: Final = 1024
"""No request here has a body; this is what one may have before it is refused."""
LINE_BYTES_MAX: Final = 2048
"""Longest request line and longest header."""
KEEPALIVE_S: Final = 15.0
"""How long an idle connection stays open after a response."""
SHUTDOWN_S: Final = 1.0
"""How long a stop waits for responses under way."""
STALLED_S: Final = 30.0
"""A client that takes nothing of its answer for so long is given up."""
BACKLOG: Final = 64
"""Connections waiting to be accepted."""

Readiness: TypeAlias = Callable[[], str | None]
"""Returns None when the node can serve, else one sentence that says why not."""

_READY: Final[web.AppKey[Readiness]] = web.AppKey("ready")
_BACKUPS: Final[web.AppKey[Backups]] = web.AppKey("backups")
_LOGINS: Final[web.AppKey[Logins]] = web.AppKey("logins")
_INSIGHT: Final[web.AppKey[Insight]] = web.AppKey("insight")
_METRICS: Final[web.AppKey[Metrics]] = web.AppKey("metrics")
_EVENTS: Final[web.AppKey[Events]] = web.AppKey("events")
_OPEN: Final[web.AppKey[bool]] = web.AppKey("open")
"""True when backups are given to everybody who reaches the port."""
_NEEDS_CERTIFICATE: Final[web.AppKey[bool]] = web.AppKey("needs_certificate")
"""True when a password alone is not enough for one."""
_PAGE: Final[web.AppKey[Page]] = web.AppKey("page")

BACKUP: Final = (b"RAFT", b"BACKUP")
"""What it is called to fetch a backup, where it is asked whether a user may."""
_NO_CREDENTIALS: Final = Refusal(b"NOAUTH Authentication required.")

_FIGURES_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def create_app(
    ready: Readiness,
    backups: Backups | None = None,
    insight: Insight | None = None,
    logins: Logins | None = None,
    *,
    is_open: bool = True,
    needs_certificate: bool = False,
) -> web.Application:
    """Return the application.

    `ready` is asked at every request to /readyz, `backups` gives the state, `insight` all the figures, and
    `logins` checks who wants a backup; without it everybody may have one. Unless it `is_open` only those get
    a backup who log in or show a certificate: it is the whole database. Where clients need both, so do they.
    """
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app[_READY] = ready
    app[_OPEN] = is_open
    app[_NEEDS_CERTIFICATE] = needs_certificate
    app.router.add_get("/livez", _live)
    app.router.add_get("/readyz", _ready)
    if backups is not None:
        app[_BACKUPS] = backups
        if logins is not None:
            app[_LOGINS] = logins
        app.router.add_post("/backup", _backup)
    if insight is not None:
        _add_figures(app, insight)
    app.router.add_route("*", "/{anything:.*}", _not_found)
    return app


def _add_figures(app: web.Application, insight: Insight) -> None:
    app[_INSIGHT], app[_METRICS], app[_PAGE] = insight, Metrics(insight), Page()
    app[_EVENTS] = events = Events(insight)
    app.router.add_get("/", _dashboard)
    app.router.add_get("/events", _follow, allow_head=False)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/status", _status)
    app.on_shutdown.append(lambda _: events.stop())


class _Site(web.BaseSite):
    """A listening socket with a bound on its connections."""

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        connections_max: int,
        certificates: Certificates | None,
    ) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._certificates = certificates
        self._entrance: Entrance | None = None
        self._host, self._port = host, port
        self._connections_max = connections_max

    @property
    def name(self) -> str:
        """Say where it listens."""
        return format_address(self._host, self._port)

    async def start(self) -> None:
        """Listen."""
        await super().start()
        loop = asyncio.get_running_loop()
        if self._certificates is None:
            self._server = await loop.create_server(
                self._accept, self._host, self._port, backlog=self._backlog
            )
            return
        self._entrance = Entrance(
            self._certificates,
            self._accept,
            lambda: self._connections_max,
            lambda why: journal.say("tls-refused", "warning", port="http", message=why),
        )
        await self._entrance.start(self._host, self._port, self._backlog)

    async def stop(self) -> None:
        """Stop listening."""
        if self._entrance is not None:
            self._entrance.close()
        await super().stop()

    def _accept(self) -> web.RequestHandler:
        """Make room for a connection: a health check must get through whoever leaves his connections open."""
        server = self._runner.server
        assert server is not None
        for one in server.connections[: len(server.connections) - self._connections_max + 1]:
            transport = one.transport
            one.force_close()
            if transport is not None:
                transport.abort()  # whoever does not read his answers would keep his place for ever
        return server()


async def start(
    app: web.Application,
    host: str,
    port: int,
    connections_max: int = 32,
    certificates: Certificates | None = None,
) -> web.AppRunner:
    """Listen on `host:port` (port 0: any free one, see `runner.addresses`), by TLS with `certificates`.

    One more than `connections_max` connections closes the oldest. Raises UsageError with a sentence when
    listening can't be done.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=KEEPALIVE_S,
        max_line_size=LINE_BYTES_MAX,
        max_field_size=LINE_BYTES_MAX,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    try:
        await _Site(runner, host, port, connections_max, certificates).start()
    except (OSError, OverflowError, UnicodeError) as error:
        await runner.cleanup()
        raise UsageError(_refusal(host, port, error)) from error
    return runner


async def stop(runner: web.AppRunner) -> None:
    """Stop listening and close all connections."""
    await runner.cleanup()


def _refusal(host: str, port: int, error: Exception) -> str:
    address = format_address(host, port)
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"the HTTP address {address} is already in use; stop what listens there or choose another one"
    reason = str(error)
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        reason = os.strerror(error.errno)
    return f"can't listen for HTTP on {address}: {reason}"


async def _live(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _ready(request: web.Request) -> web.Response:
    reason = request.app[_READY]()
    return web.Response(text="ready") if reason is None else web.Response(text=reason, status=503)


async def _backup(request: web.Request) -> web.StreamResponse:
    if "Origin" in request.headers:
        # Browsers say where a POST comes from. A web page must not get at the data by way of its visitor.
        return web.Response(text="backups are not given to browsers", status=403)
    if (refusal := await _refuse(request, BACKUP)) is not None:
        return refusal
    certain = request.transport is not None and request.transport.get_extra_info("peercert")
    logins = request.app.get(_LOGINS)
    known = certain or (
        logins is not None and not logins.accounts.open and not request.app[_NEEDS_CERTIFICATE]
    )
    if not (request.app[_OPEN] or known):
        reason = "backups go beyond this machine only to those who show a certificate (--tls-cert, --tls-ca)"
        return web.Response(text=reason, status=403)
    stream = request.app[_BACKUPS].stream()
    try:
        try:
            piece = await anext(stream)
        except Unavailable as error:
            return web.Response(text=str(error), status=503)
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await response.prepare(request)
        try:
            await _write(response, piece)
            async for piece in stream:
                await _write(response, piece)
            await response.write_eof()
        except (Unavailable, OSError, TimeoutError):
            # Half of a state is none: the client sees that the answer has no end.
            if request.transport is not None:
                request.transport.abort()
        return response
    finally:
        await stream.aclose()


async def _refuse(request: web.Request, argv: Sequence[bytes]) -> web.Response | None:
    """Answer somebody who may not do what `argv` calls it, as a client would be answered; None: he may."""
    logins = request.app.get(_LOGINS)
    if logins is None or logins.accounts.open:
        return None
    credentials = _credentials(request.headers.get("Authorization", ""))
    refusal: Refusal | None = _NO_CREDENTIALS
    if credentials is not None:
        user, password = credentials
        refusal = await logins.check(request.remote or "", user, password)
        if refusal is None:
            refusal = logins.accounts.refuse(user, argv)
    if refusal is None:
        return None
    text = refusal.text.decode(errors="replace")
    if text.startswith("TRYAGAIN"):
        return web.Response(text=text, status=503)
    if text.startswith("NOPERM"):
        return web.Response(text=text, status=403)
    return web.Response(text=text, status=401, headers={"WWW-Authenticate": 'Basic realm="balsadb"'})


def _credentials(header: str) -> tuple[bytes, bytes] | None:
    """Read a user and a password, or a password alone as a bearer's token; None: there are none."""
    scheme, _, value = header.partition(" ")
    match scheme.lower():
        case "bearer":
            return DEFAULT, value.strip().encode(errors="surrogateescape")
        case "basic":
            try:
                user, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
            except (binascii.Error, ValueError):
                return None
            return (user or DEFAULT, password) if colon else None
    return None


async def _metrics(request: web.Request) -> web.Response:
    headers = {**_FIGURES_HEADERS, "Content-Type": CONTENT_TYPE}
    return web.Response(body=request.app[_METRICS].text(), headers=headers)


async def _status(request: web.Request) -> web.Response:
    body = msgspec.json.encode(request.app[_INSIGHT].status())
    headers = {**_FIGURES_HEADERS, "Content-Type": "application/json"}
    return web.Response(body=msgspec.json.format(body, indent=2) + b"\n", headers=headers)


async def _dashboard(request: web.Request) -> web.Response:
    page = request.app[_PAGE]
    return web.Response(body=page.body, headers=page.headers)


async def _follow(request: web.Request) -> web.StreamResponse:
    return await request.app[_EVENTS].follow(request)


async def _write(response: web.StreamResponse, piece: bytes) -> None:
    async with asyncio.timeout(STALLED_S):
        await response.write(piece)


async def _not_found(request: web.Request) -> web.Response:
    return web.Response(text="not found", status=404)
