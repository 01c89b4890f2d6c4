"""How long clients wait when the leader is killed, and whether anything they were told gets lost.

    python benchmarks/failover.py --rounds 10 --etcd

In every round clients on the two nodes that do not lead append unique tokens to their own keys as fast as
they go, and read them back now and then. The leader gets SIGKILL; what the clients see is recorded; the node
is started again and catches up under the same load. At the end all keys are read from every node, and every
acknowledged append must be there exactly once, in order. The exit status is 1 when an operation failed or
anything was lost, doubled or read wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from signal import SIGSTOP

import uvloop
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from appends import AppendClient, Verdict, judge, longest_gap
from balsadb.errors import BalsaError
from harness import BenchError, Machine, leave_on_signals, raft_fact, resp_call, wait_for
from loads import EtcdBench, parse_etcdbench
from systems import Etcd, Ours

RESUME_SECONDS = 20.0
"""After a kill every client must have had a success within this time, else the round counts as hung."""
CATCH_UP_SECONDS = 60.0
TABLE_WIDTH = 160


@dataclass
class Round:
    """What one kill did. Gaps in milliseconds."""

    killed: int
    """Node id, or position of the etcd member."""
    gap_ms: float
    """Longest time in which no surviving client had a success."""
    client_gap_ms: float
    """Longest time that one of these clients went without a success."""
    operations: int
    errors: dict[str, int] = field(default_factory=dict)
    client_gaps_ms: list[float] = field(default_factory=list)
    """The same for each client."""
    steady_gap_ms: float | None = None
    """Longest time that one client went without a success before the kill: what is no news."""
    rejoin_gap_ms: float | None = None
    """The same while the node came back."""
    catch_up_seconds: float | None = None
    """From the start of the process until it had applied all that was committed."""


# -- our cluster ------------------------------------------------------------------------------------------


class Failover:
    """The rounds against our cluster, and the books of all their clients."""

    def __init__(self, ours: Ours, options: argparse.Namespace) -> None:
        self.ours = ours
        self.cluster = ours.cluster
        self.options = options
        self.clients: list[AppendClient] = []
        self.wrong: list[str] = []

    async def round(self, number: int) -> Round:
        """Kill the leader under load, start it again, and return what the clients saw."""
        leader = await asyncio.to_thread(self.ours.leader)
        survivors = [node for node in self.cluster.nodes.values() if node.id != leader]
        clients = [
            AppendClient(node.client_address, f"failover:{number}:{node.id}:{i}")
            for node in survivors
            for i in range(self.options.clients)
        ]
        self.clients += clients
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run(stop))
            try:
                moments = await self._disturb(leader, clients)
            finally:
                stop.set()
        start, killed, restarted, caught_up = moments
        everybody = sorted(t for client in clients for t in client.successes)

        def worst_client(begin: float, end: float) -> list[float]:
            return [longest_gap(client.successes, begin, end) * 1e3 for client in clients]

        # The gap in progress at the kill belongs to the kill: only those that ended before are what is usual.
        steady = [
            longest_gap([t for t in client.successes if start <= t <= killed], start, start) * 1e3
            for client in clients
        ]
        gaps = worst_client(killed, restarted)
        return Round(
            killed=leader,
            gap_ms=longest_gap(everybody, killed, restarted) * 1e3,
            client_gap_ms=max(gaps),
            operations=len(everybody),
            errors=dict(sum((client.errors for client in clients), Counter())),
            client_gaps_ms=gaps,
            steady_gap_ms=max(steady),
            rejoin_gap_ms=max(worst_client(restarted, caught_up)),
            catch_up_seconds=caught_up - restarted,
        )

    async def _disturb(self, leader: int, clients: list[AppendClient]) -> tuple[float, float, float, float]:
        """Kill and restart; returns when load had begun, the kill, the restart, and when all was well."""
        await self._all_succeed(clients, time.monotonic())
        start = time.monotonic()
        await asyncio.sleep(self.options.steady)
        if await asyncio.to_thread(self.ours.leader) != leader:
            raise BenchError("leadership moved under load before the leader was killed")
        killed = time.monotonic()
        if self.options.silent:
            self.cluster.pause(leader)
        else:
            await asyncio.to_thread(self.cluster.kill, leader)
        await asyncio.sleep(self.options.after)
        await self._all_succeed(clients, killed + self.options.after / 2)
        await asyncio.to_thread(self.cluster.kill, leader)
        restarted = time.monotonic()
        await asyncio.to_thread(self.cluster.start, leader)
        await asyncio.to_thread(self._wait_caught_up, leader)
        caught_up = time.monotonic()
        # One more look at everybody, so that the last gap has an end.
        await self._all_succeed(clients, caught_up)
        return start, killed, restarted, caught_up

    async def _all_succeed(self, clients: list[AppendClient], since: float) -> None:
        """Wait until every client has had a success later than `since`."""
        deadline = time.monotonic() + RESUME_SECONDS
        while not all(client.successes and client.successes[-1] > since for client in clients):
            if time.monotonic() > deadline:
                errors = dict(sum((client.errors for client in clients), Counter()))
                raise BenchError(
                    f"a client had no success for {RESUME_SECONDS:g} s; errors so far: {errors}; "
                    f"leader: {self.cluster.leader()}"
                )
            await asyncio.sleep(0.01)

    def _wait_caught_up(self, node_id: int) -> None:
        self.cluster.wait_ready()
        leader_address = self.ours.leader_address()
        own_address = self.cluster.nodes[node_id].client_address

        def caught_up() -> bool:
            committed = raft_fact(leader_address, "raft_commit_index")
            return raft_fact(own_address, "raft_applied_index") >= committed

        wait_for(caught_up, CATCH_UP_SECONDS, f"node {node_id} to catch up after its restart")

    def final_reading(self) -> Verdict:
        """Read every key from every node and judge it."""
        total = Verdict()
        for address in self.cluster.servers:
            for client in self.clients:
                value = resp_call(address, "GET", client.ledger.key, seconds=10.0)
                verdict = judge(client.ledger, value if isinstance(value, bytes) else b"")
                if not verdict.good:
                    self.wrong.append(f"{client.ledger.key} read at {address}: {verdict}")
                total += verdict
        self.wrong += [sentence for client in self.clients for sentence in client.wrong]
        return total


async def _rounds(failover: Failover, count: int) -> list[Round]:
    rounds = []
    for number in range(1, count + 1):
        found = await failover.round(number)
        _say(number, "BalsaDB", found)
        rounds.append(found)
    return rounds


def run_ours(directory: Path, options: argparse.Namespace) -> tuple[list[Round], Verdict, list[str]]:
    """Run all rounds against our cluster; returns them, the verdict, and sentences on what was wrong."""
    with Ours(directory) as ours, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failover = Failover(ours, options)
        rounds = runner.run(_rounds(failover, options.rounds))
        verdict = failover.final_reading()
        return rounds, verdict, failover.wrong


# -- etcd -------------------------------------------------------------------------------------------------


def run_etcd(directory: Path, options: argparse.Namespace) -> list[Round]:
    """Kill etcd's leader under the load of as many clients, each tied to one surviving member."""
    generator = EtcdBench()
    rounds = []
    with Etcd(directory) as etcd:
        for number in range(1, options.rounds + 1):
            leader = etcd.settle()
            survivors = [e for position, e in enumerate(etcd.endpoints) if position != leader]
            found = _etcd_round(etcd, generator, leader, survivors, options)
            _say(number, "etcd", found)
            rounds.append(found)
            etcd.servers[leader].kill()
            etcd.servers[leader].start()
    return rounds


def _etcd_round(
    etcd: Etcd, generator: EtcdBench, leader: int, survivors: list[str], options: argparse.Namespace
) -> Round:
    clients = options.clients * len(survivors)
    seconds = options.steady + options.after + 1.0
    flags = ["-pin", "-conns", str(clients), "-timeout", "10s"]
    process = subprocess.Popen(
        generator.command(survivors, "put", clients, seconds, *flags),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(options.steady + 0.5)
        if options.silent:
            etcd.servers[leader].signal(SIGSTOP)
        else:
            etcd.servers[leader].kill()
        output, complaint = process.communicate(timeout=seconds + 30.0)
    except subprocess.TimeoutExpired:
        raise BenchError("etcdbench did not end") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode != 0:
        raise BenchError(f"etcdbench failed: {complaint.strip()}")
    result = parse_etcdbench(output)
    return Round(
        killed=leader + 1,
        gap_ms=result.gap_ms,
        client_gap_ms=result.client_gap_ms,
        operations=result.operations,
        errors={result.first_error: result.errors} if result.errors else {},
    )


# -- the report -------------------------------------------------------------------------------------------


def _say(number: int, name: str, found: Round) -> None:
    print(
        f"{name} round {number}: killed node {found.killed}, longest gap {found.gap_ms:.0f} ms, "
        f"of one client {found.client_gap_ms:.0f} ms, {sum(found.errors.values())} errors, "
        f"{found.operations} operations",
        file=sys.stderr,
        flush=True,
    )


def print_rounds(name: str, rounds: list[Round]) -> None:
    """Print a table with a row for each round, and the median and the worst of all."""
    table = Table(box=MARKDOWN)
    table.add_column(f"{name}, ms", no_wrap=True)
    headings = ["before the kill", "gap, any client", "gap, one client", "node comes back", "catch-up s"]
    for heading in [*headings, "operations", "errors"]:
        table.add_column(heading, justify="right")
    columns: list[list[float | None]] = [
        [r.steady_gap_ms for r in rounds],
        [r.gap_ms for r in rounds],
        [r.client_gap_ms for r in rounds],
        [r.rejoin_gap_ms for r in rounds],
        [r.catch_up_seconds for r in rounds],
    ]
    for position, found in enumerate(rounds):
        label = f"round {position + 1}, node {found.killed}"
        errors = str(sum(found.errors.values()))
        table.add_row(label, *(_number(c[position]) for c in columns), f"{found.operations:,}", errors)
    operations = f"{sum(r.operations for r in rounds):,}"
    errors = str(sum(sum(r.errors.values()) for r in rounds))
    table.add_row("median", *(_summary(statistics.median, c) for c in columns), "", "")
    table.add_row("worst", *(_summary(max, c) for c in columns), operations, errors)
    Console(width=TABLE_WIDTH, highlight=False).print(table)


def _summary(function: Callable[[list[float]], float], column: list[float | None]) -> str:
    known = [value for value in column if value is not None]
    return _number(function(known) if known else None)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Kill the leader under load, again and again.")
    parser.add_argument("--rounds", type=int, default=10, help="how many leaders are killed (default 10)")
    parser.add_argument("--clients", type=int, default=8, help="clients on each surviving node (default 8)")
    parser.add_argument("--steady", type=float, default=1.0, help="seconds of load before a kill (default 1)")
    parser.add_argument(
        "--after", type=float, default=2.0, help="seconds between kill and restart (default 2)"
    )
    parser.add_argument(
        "--silent",
        action="store_true",
        help="stop the leader with SIGSTOP, so that its connections stay open",
    )
    parser.add_argument("--etcd", action="store_true", help="then do the same to an etcd cluster")
    parser.add_argument(
        "--directory", type=Path, help="where data goes; a directory in it is made and removed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round there")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.clients < 1 or options.steady <= 0 or options.after <= 0:
        parser.error("--rounds, --clients, --steady and --after must be positive")
    return options


def main() -> int:
    """Run the benchmark; the exit status is 1 when one of our clients saw anything wrong."""
    options = parse_options()
    leave_on_signals()
    etcd: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="balsadb-bench-", dir=options.directory) as name:
        directory = Path(name)
        machine = Machine.inspect(directory)
        rounds, verdict, wrong = run_ours(directory / "ours", options)
        if options.etcd:
            etcd = run_etcd(directory / "etcd", options)
    for line in machine.lines():
        print(line)
    blow = "SIGSTOP, and SIGKILL later: nobody is told" if options.silent else "SIGKILL"
    print(
        f"{2 * options.clients} closed-loop clients on the two nodes that do not lead; the leader gets {blow}"
    )
    print_rounds("BalsaDB", rounds)
    if etcd:
        print_rounds("etcd", etcd)
    errors = dict(sum((Counter(r.errors) for r in rounds), Counter[str]()))
    print(f"BalsaDB: errors {errors or 0}; final reading of every key at every node: {verdict}")
    for sentence in wrong[:20]:
        print(f"WRONG: {sentence}")
    if options.json:
        document = {
            "machine": asdict(machine),
            "balsadb": [asdict(r) for r in rounds],
            "etcd": [asdict(r) for r in etcd],
            "verdict": asdict(verdict),
            "wrong": wrong,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if errors or wrong or not verdict.good else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, BalsaError) as error:
        sys.exit(f"failover: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
