"""bench: load a cluster, and say how fast it was and what went wrong.

Only keys below a prefix of this very run are touched, and they are removed at the end. See `cli.loops` for
the clients and `cli.load` for what they send.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Any

from balsadb.address import format_address, format_addresses
from balsadb.cli.contact import Contact
from balsadb.cli.failing import FAILED, INTERRUPTED
from balsadb.cli.histogram import Histogram
from balsadb.cli.load import OPERATIONS, Commands, ReplyCounter, Tally
from balsadb.cli.loops import CONNECT_SECONDS, Load, check_login
from balsadb.cli.observe import ask_all, nobody
from balsadb.client.call import Address
from balsadb.client.ring import read_members
from balsadb.client.servers import describe_failure
from balsadb.client.tls import client_context
from balsadb.errors import AuthenticationError, BalsaError, CommandError, NoServer, OutcomeUnknown, UsageError

if TYPE_CHECKING:
    from rich.table import Table

PREFIX = "bench:"
PERCENTS = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
ASK_SECONDS = 2.0
CHUNK_COMMANDS = 500
CHUNK_BYTES = 1 << 20
"""Filling and removing sends so much at a time; far below what a server queues for one client."""
CHUNK_SECONDS = 10.0
IN_FLIGHT_BYTES_MAX = 1 << 30
"""Clients times commands in flight times bytes of a value: what the generator itself must hold."""


@dataclass(frozen=True)
class BenchOptions:
    """What to do; see the flags of `balsadb bench`."""

    operations: Sequence[str] = ("set", "get")
    clients: int = 64
    pipeline: int = 1
    seconds: float = 10.0
    keys: int = 10_000
    value_bytes: int = 256
    spread: bool = False
    rate: float | None = None
    keep: bool = False

    def check(self) -> None:
        """Raise UsageError when it makes no sense."""
        for operation in self.operations:
            if operation not in OPERATIONS:
                raise UsageError(f"--operation: {operation!r} is none of {', '.join(OPERATIONS)}")
        if self.clients * self.pipeline * self.value_bytes > IN_FLIGHT_BYTES_MAX:
            raise UsageError("--clients x --pipeline x --value-bytes is more than 1 GiB in flight; take less")


@dataclass
class _Run:
    """One call of `balsadb bench`."""

    options: BenchOptions
    contact: Contact
    servers: list[Address]
    """In the order in which a client tries them; with the leader first unless clients are spread."""
    as_json: bool
    commands: Commands
    loads: list[Load] = field(default_factory=list)
    """What was measured, or begun to be."""
    written: set[str] = field(default_factory=set)
    """Kinds of commands whose keys may be there."""
    failure: BalsaError | None = None

    async def go(self) -> bool:
        """Measure everything, print it, and remove the keys. False: Ctrl-C ended it early."""
        loop = asyncio.get_running_loop()
        interrupted = asyncio.Event()
        with _Line() as line:
            work = loop.create_task(self._measure(line, interrupted))

            def stop() -> None:
                # The first Ctrl-C keeps what was measured; a second one just ends everything.
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.remove_signal_handler(number)
                interrupted.set()
                if not (self.loads and self.loads[-1].measuring):
                    work.cancel()

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop)
            try:
                with suppress(asyncio.CancelledError):
                    await work
            except BalsaError as error:
                self.failure = error
        if any(load.seconds for load in self.loads):
            self._print()
        if self.written and not self.options.keep:
            await self._remove()
        return not interrupted.is_set()

    async def _measure(self, line: _Line, interrupted: asyncio.Event) -> None:
        options = self.options
        for operation in options.operations:
            kinds = set(OPERATIONS[operation])
            if "get" in kinds:
                line.say(f"writing {options.keys:,} keys for get")
                self.written.add("get")
                await self._send_all(self.commands.fill())
            self.written |= kinds
            greeting = _greeting(self.contact)
            load = Load(self.commands, operation, self._rings(), options.pipeline, options.rate, greeting)
            self.loads.append(load)
            try:
                await load.run(options.seconds, interrupted, line.show)
            except NoServer as error:
                raise NoServer(f"{error}{self.contact.advice}") from None
            if interrupted.is_set():
                return

    async def _send_all(self, commands: Iterator[bytes]) -> None:
        await _send_all(self.servers, _greeting(self.contact), commands)

    def _rings(self) -> list[Sequence[Address]]:
        """Return for each client the servers in the order in which it tries them."""
        if not self.options.spread:
            return [self.servers] * self.options.clients
        turned = [[*self.servers[i:], *self.servers[:i]] for i in range(len(self.servers))]
        return [turned[i % len(turned)] for i in range(self.options.clients)]

    def _print(self) -> None:
        measured = [load for load in self.loads if load.seconds]
        if self.as_json:
            print(json.dumps(_document(self.options, self.commands.prefix.decode(), measured), indent=2))
            return
        from rich.console import Console

        print(_heading(self.options, measured[-1].placement))
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
        console.print(_table(measured))
        for sentence in _sentences(measured):
            print(sentence)
        if self.options.keep:
            print(f"The keys below {self.commands.prefix.decode()} are kept.")
        sys.stdout.flush()

    async def _remove(self) -> None:
        try:
            await self._send_all(self.commands.remove(self.written))
        except BalsaError as error:
            where = self.commands.prefix.decode()
            self.failure = self.failure or CommandError(
                f"the keys below {where} could not be removed: {error}"
            )


def bench(contact: Contact, options: BenchOptions, as_json: bool) -> int:
    """Load a cluster and print what came of it; returns the exit status."""
    options.check()
    found = contact.addresses if options.spread else _leader_first(contact)
    random = Random()
    prefix = f"{PREFIX}{secrets.token_hex(4)}:".encode()
    commands = Commands(prefix, options.keys, options.value_bytes, random)
    run = _Run(options, contact, found, as_json, commands)
    whole = _in_a_loop(run.go)
    if run.failure is not None:
        raise run.failure
    if not whole:
        return INTERRUPTED
    return FAILED if any(tally.errors for load in run.loads for tally in load.tallies) else 0


def _in_a_loop(work: Callable[[], Any]) -> bool:
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # no wheel for this platform
        runner = asyncio.Runner()
    with runner:
        return bool(runner.run(work()))


def _greeting(contact: Contact) -> bytes:
    """Return what a new connection sends first; nothing where there is no password."""
    return b"" if contact.credentials is None else contact.credentials.encoded()


def _leader_first(contact: Contact) -> list[Address]:
    """Ask who leads; returns the leader, then the servers that were given."""
    servers = contact.addresses
    answers = ask_all(contact, servers, ["CLUSTER", "SLOTS"], ASK_SECONDS)
    for _, reply in answers:
        if members := read_members(reply):
            return list(dict.fromkeys([members[0], *servers]))
    errors = [reply for _, reply in answers if isinstance(reply, BalsaError)]
    if len(errors) == len(answers) and all(isinstance(error, NoServer) for error in errors):
        raise nobody(servers, errors, contact.advice)
    if refused := next((error for error in errors if isinstance(error, AuthenticationError)), None):
        raise refused
    reason = next((str(error) for error in errors if not isinstance(error, NoServer)), "no member was named")
    raise CommandError(f"nobody says who leads ({reason}); --spread asks nobody")


# ------------------------------------------------------------------ filling and removing


async def _send_all(servers: Sequence[Address], greeting: bytes, commands: Iterator[bytes]) -> None:
    """Send commands to the first server that answers, some at a time. Raises when one is refused."""
    reader, writer, where = await _connect(servers)
    counter = ReplyCounter()
    try:
        if greeting:
            async with asyncio.timeout(CHUNK_SECONDS):
                writer.write(greeting)
                check_login(await reader.readline())
        while chunk := _chunk(commands):
            async with asyncio.timeout(CHUNK_SECONDS):
                writer.write(b"".join(chunk))
                left = len(chunk)
                while left:
                    data = await reader.read(1 << 16)
                    if not data:
                        raise OutcomeUnknown(f"{where} closed the connection without an answer")
                    left -= counter.feed(data)
                    if counter.refusals:
                        raise CommandError(f"{where}: {counter.refusals[0][1]}")
    except OSError as error:
        raise OutcomeUnknown(f"{where} did not answer ({describe_failure(error)})") from None
    finally:
        writer.close()


async def _connect(servers: Sequence[Address]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    failures: dict[str, None] = {}
    for address in servers:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(*address, ssl=client_context())
                return reader, writer, format_address(*address)
        except OSError as error:
            failures[describe_failure(error)] = None
    raise NoServer(f"no server answers at {format_addresses(servers)} ({'; '.join(failures)})")


def _chunk(commands: Iterator[bytes]) -> list[bytes]:
    chunk: list[bytes] = []
    size = 0
    for command in islice(commands, CHUNK_COMMANDS):
        chunk.append(command)
        size += len(command)
        if size >= CHUNK_BYTES:
            break
    return chunk


# ------------------------------------------------------------------ what is shown


class _Line:
    """One line on the terminal that says how it goes; nothing where standard error is no terminal."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._live: Any = None

    def __enter__(self) -> _Line:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            live = Live(console=Console(stderr=True, highlight=False), auto_refresh=False, transient=True)
            self._live = self._stack.enter_context(live)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, text: str) -> None:
        """Show this instead of what was shown."""
        if self._live is not None:
            self._live.update(text, refresh=True)

    def show(self, load: Load) -> None:
        """Show the second that has gone by."""
        latest = Histogram()
        for tally in load.tallies:
            latest.add(tally.turn())
        errors = sum(count for tally in load.tallies for count in tally.errors.values())
        text = f"{load.operation}: {latest.count:,} op/s, p99 {_ms(latest.percentile_ns(99))} ms"
        self.say(text + (f", {errors:,} errors" if errors else ""))


def _heading(options: BenchOptions, placement: dict[str, int]) -> str:
    where = ", ".join(f"{count} at {server}" for server, count in placement.items())
    depth = f" x {options.pipeline} in flight" if options.pipeline > 1 else ""
    rate = f", {options.rate:g} op/s wanted" if options.rate is not None else ""
    return (
        f"{options.clients} clients{depth} ({where}), {options.keys:,} keys, "
        f"values of {options.value_bytes} bytes{rate}"
    )


def _table(loads: Iterable[Load]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operation")
    for name in ("operations", "op/s", *(f"{name} ms" for name in PERCENTS), "max ms", "errors"):
        table.add_column(name, justify="right")
    for load in loads:
        for tally in load.tallies:
            total, errors = tally.total, sum(tally.errors.values())
            table.add_row(
                tally.kind if load.operation == tally.kind else f"{load.operation}: {tally.kind}",
                f"{total.count:,}",
                f"{total.count / load.seconds:,.0f}",
                *(_ms(total.percentile_ns(percent)) for percent in PERCENTS.values()),
                _ms(total.max_ns),
                f"[red]{errors:,}[/red]" if errors else "0",
            )
    return table


def _sentences(loads: Iterable[Load]) -> Iterator[str]:
    """Say what a table can't."""
    for load in loads:
        for tally in load.tallies:
            for word, count in tally.errors.items():
                first = tally.first_errors[word]
                yield f"{tally.kind}: {count:,} errors ({word}), the first of them: {first}"
        if load.pace.unsent:
            yield (
                f"{load.operation}: {load.pace.unsent:,} operations were due and not sent, because every "
                "client was waiting: the servers are slower than --rate, or --clients are too few"
            )


def _document(options: BenchOptions, prefix: str, loads: Iterable[Load]) -> dict[str, Any]:
    return {
        "clients": options.clients,
        "pipeline": options.pipeline,
        "keys": options.keys,
        "value_bytes": options.value_bytes,
        "rate_wanted": options.rate,
        "prefix": prefix,
        "runs": [
            {
                "operation": load.operation,
                "seconds": load.seconds,
                "clients_at": load.placement,
                "unsent": load.pace.unsent,
                "commands": [_facts(tally, load.seconds) for tally in load.tallies],
            }
            for load in loads
        ],
    }


def _facts(tally: Tally, seconds: float) -> dict[str, Any]:
    total = tally.total
    return {
        "command": tally.kind,
        "operations": total.count,
        "rate": total.count / seconds,
        "mean_ms": total.mean_ns / 1e6,
        **{f"{name.replace('.', '')}_ms": total.percentile_ns(p) / 1e6 for name, p in PERCENTS.items()},
        "max_ms": total.max_ns / 1e6,
        "errors": tally.errors,
        "first_errors": tally.first_errors,
    }


def _ms(nanoseconds: float) -> str:
    """Write milliseconds with three digits or so."""
    ms = nanoseconds / 1e6
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"
