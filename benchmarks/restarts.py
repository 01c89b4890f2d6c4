"""How long clients wait while every node of the cluster is restarted, one after the other.

    python benchmarks/restarts.py --rounds 5

A rolling restart is what an upgrade does: one node after the other gets SIGTERM, leaves, is started again
and catches up, the leader among them. Meanwhile Clerks that know all nodes append unique tokens to their
own keys as fast as they go and read them back now and then; so do plain clients, each with one connection
to a node that stays. None may see an error. At the end all keys are read from every node, and every
acknowledged append must be there exactly once, in order. The exit status is 1 when a client saw an error or
anything was lost, doubled or read wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from appends import GET_EVERY, AppendClient, Ledger, Verdict, judge, longest_gap
from balsadb import Clerk
from balsadb.errors import BalsaError, ClientError
from harness import BenchError, Machine, leave_on_signals, raft_fact, resp_call, wait_for
from systems import Ours

CLERK_SECONDS = 30.0
"""A call of a Clerk that takes longer is an error."""
AROUND_SECONDS = 0.5
"""Load before a node gets its signal and after it has caught up."""
CATCH_UP_SECONDS = 60.0
TABLE_WIDTH = 140


class ClerkClient:
    """A closed loop that appends to its own key through a Clerk, and reads it now and then."""

    def __init__(self, servers: list[str], key: str) -> None:
        self.servers = servers
        self.ledger = Ledger(key)
        self.successes: list[float] = []
        """When operations succeeded, by the monotonic clock."""
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        """Answers that contradict what was acknowledged before."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop."""
        number = 0
        async with Clerk(self.servers, timeout=CLERK_SECONDS) as clerk:
            while not stop.is_set():
                number += 1
                try:
                    await self._operate(clerk, number)
                    self.successes.append(time.monotonic())
                except ClientError as error:
                    self.errors[type(error).__name__] += 1

    async def _operate(self, clerk: Clerk, number: int) -> None:
        key = self.ledger.key
        if number % GET_EVERY == 0:
            verdict = judge(self.ledger, await clerk.get(key) or b"")
            if not verdict.good:
                self.wrong.append(f"GET {key}: {verdict}")
            return
        token = b"%d;" % number
        self.ledger.open.add(token)  # it stays there when the call raises
        length = await clerk.append(key, token)
        self.ledger.open.discard(token)
        self.ledger.acknowledge(token)
        if not self.ledger.open and length != self.ledger.length:
            self.wrong.append(f"APPEND {key} answered {length}, not {self.ledger.length}")


@dataclass
class Restart:
    """One node's restart, and what clients saw of it. Times in milliseconds."""

    node: int
    led: bool
    """Whether it led when it got its signal."""
    leave_ms: float
    """From SIGTERM until the process had ended."""
    back_ms: float
    """From there until it had applied all that was committed."""
    gap_ms: float
    """Longest time in which no client at all had a success."""
    clerk_gap_ms: float
    """Longest time that one Clerk went without a success."""
    plain_gap_ms: float
    """Longest time that one plain client of a node that stays went without a success."""
    errors: dict[str, int] = field(default_factory=dict)


class Rolling:
    """The cluster, and the books of all its clients."""

    def __init__(self, ours: Ours, options: argparse.Namespace) -> None:
        self.ours = ours
        self.cluster = ours.cluster
        self.options = options
        self.books: list[Ledger] = []
        self.wrong: list[str] = []

    async def round(self, number: int) -> list[Restart]:
        """Restart every node once."""
        clerks = [
            ClerkClient(self.cluster.servers, f"restarts:{number}:clerk:{i}")
            for i in range(self.options.clerks)
        ]
        stop = asyncio.Event()
        done: list[Restart] = []
        async with asyncio.TaskGroup() as group:
            for clerk in clerks:
                group.create_task(clerk.run(stop))
            try:
                done.extend([await self._restart(number, node, clerks) for node in self.cluster.nodes])
            finally:
                stop.set()
        self._take(clerks)
        return done

    async def _restart(self, number: int, node: int, clerks: list[ClerkClient]) -> Restart:
        """Restart one node under the load of the Clerks and of plain clients on the other nodes."""
        plain = [
            AppendClient(other.client_address, f"restarts:{number}:{node}:{other.id}:{i}")
            for other in self.cluster.nodes.values()
            if other.id != node
            for i in range(self.options.clients)
        ]
        stop = asyncio.Event()
        failed = Counter[str]()
        for clerk in clerks:
            failed.subtract(clerk.errors)
        async with asyncio.TaskGroup() as group:
            for client in plain:
                group.create_task(client.run(stop))
            try:
                await asyncio.sleep(AROUND_SECONDS)
                led = await asyncio.to_thread(self.ours.leader) == node
                began = time.monotonic()
                await asyncio.to_thread(self.cluster.stop, node)
                left = time.monotonic()
                await asyncio.to_thread(self.cluster.start, node)
                await asyncio.to_thread(self._wait_caught_up, node)
                back = time.monotonic()
                await asyncio.sleep(AROUND_SECONDS)
            finally:
                stop.set()
        self._take(plain)
        end = time.monotonic()
        everyone: list[ClerkClient | AppendClient] = [*clerks, *plain]
        for one in everyone:
            failed.update(one.errors)
        everybody = sorted(t for one in everyone for t in one.successes)
        found = Restart(
            node=node,
            led=led,
            leave_ms=(left - began) * 1e3,
            back_ms=(back - left) * 1e3,
            gap_ms=longest_gap(everybody, began, end) * 1e3,
            clerk_gap_ms=max(longest_gap(clerk.successes, began, end) for clerk in clerks) * 1e3,
            plain_gap_ms=max(longest_gap(client.successes, began, end) for client in plain) * 1e3,
            errors=dict(+failed),
        )
        print(
            f"round {number}: node {node}{' (leader)' if led else ''} left in {found.leave_ms:.0f} ms, was "
            f"back {found.back_ms:.0f} ms later; nobody served for {found.gap_ms:.0f} ms, one Clerk waited "
            f"{found.clerk_gap_ms:.0f} ms, one plain client {found.plain_gap_ms:.0f} ms {found.errors or ''}",
            file=sys.stderr,
            flush=True,
        )
        return found

    def _take(self, clients: list[ClerkClient] | list[AppendClient]) -> None:
        self.books += [client.ledger for client in clients]
        self.wrong += [sentence for client in clients for sentence in client.wrong]

    def _wait_caught_up(self, node: int) -> None:
        self.cluster.wait_ready()
        address = self.cluster.nodes[node].client_address
        committed = raft_fact(self.ours.leader_address(), "raft_commit_index")
        wait_for(
            lambda: raft_fact(address, "raft_applied_index") >= committed,
            CATCH_UP_SECONDS,
            f"node {node} to catch up after its restart",
        )

    def final_reading(self) -> Verdict:
        """Read every key from every node and judge it."""
        total = Verdict()
        for address in self.cluster.servers:
            for ledger in self.books:
                value = resp_call(address, "GET", ledger.key, seconds=10.0)
                verdict = judge(ledger, value if isinstance(value, bytes) else b"")
                if not verdict.good:
                    self.wrong.append(f"{ledger.key} read at {address}: {verdict}")
                total += verdict
        return total


async def _rounds(rolling: Rolling, count: int) -> list[Restart]:
    return [one for number in range(1, count + 1) for one in await rolling.round(number)]


def print_table(done: list[Restart]) -> None:
    """Print what the restarts cost: of followers, of leaders, and of all."""
    table = Table(box=MARKDOWN)
    table.add_column("ms, median / worst", no_wrap=True)
    for heading in (
        "restarts",
        "left in",
        "back in",
        "nobody served",
        "one Clerk waited",
        "one plain client",
    ):
        table.add_column(heading, justify="right")
    for name, some in (
        ("a follower", [one for one in done if not one.led]),
        ("the leader", [one for one in done if one.led]),
        ("all", done),
    ):
        if some:
            columns = (
                [one.leave_ms for one in some],
                [one.back_ms for one in some],
                [one.gap_ms for one in some],
                [one.clerk_gap_ms for one in some],
                [one.plain_gap_ms for one in some],
            )
            cells = [f"{statistics.median(column):.0f} / {max(column):.0f}" for column in columns]
            table.add_row(name, str(len(some)), *cells)
    Console(width=TABLE_WIDTH, highlight=False).print(table)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Restart every node under load, one after the other.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each node is restarted (default 3)")
    parser.add_argument("--clerks", type=int, default=4, help="Clerks that know all nodes (default 4)")
    parser.add_argument(
        "--clients", type=int, default=2, help="plain clients on each node that stays (default 2)"
    )
    parser.add_argument(
        "--directory", type=Path, help="where data goes; a directory in it is made and removed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every restart there")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.clerks < 1 or options.clients < 1:
        parser.error("--rounds, --clerks and --clients must be positive")
    return options


def main() -> int:
    """Run the benchmark; the exit status is 1 when a client saw anything wrong."""
    options = parse_options()
    leave_on_signals()
    with tempfile.TemporaryDirectory(prefix="balsadb-bench-", dir=options.directory) as name:
        directory = Path(name)
        machine = Machine.inspect(directory)
        with Ours(directory / "ours") as ours, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rolling = Rolling(ours, options)
            done = runner.run(_rounds(rolling, options.rounds))
            verdict = rolling.final_reading()
    for line in machine.lines():
        print(line)
    print(
        f"{options.clerks} Clerks that know all three nodes, {2 * options.clients} plain clients on the two "
        "that stay; each node gets SIGTERM and is started again"
    )
    print_table(done)
    errors = dict(sum((Counter(one.errors) for one in done), Counter[str]()))
    print(f"errors {errors or 0}; final reading of every key at every node: {verdict}")
    for sentence in rolling.wrong[:20]:
        print(f"WRONG: {sentence}")
    if options.json:
        document = {
            "machine": asdict(machine),
            "restarts": [asdict(one) for one in done],
            "verdict": asdict(verdict),
            "wrong": rolling.wrong,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if errors or rolling.wrong or not verdict.good else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, BalsaError) as error:
        sys.exit(f"restarts: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
