"""Whether every write of a Clerk takes effect exactly once, whatever happens to nodes and connections.

    python benchmarks/exactly_once.py --operations 1000000

Many Clerks append unique tokens and increment counters on three nodes. Every few seconds the leader is killed
and started again, or paused for a while; logs are short, so that nodes which come back need snapshots.
Between the Clerks and each node stands a proxy that throws away a share of the answers, once the node has
given them, and closes the connection instead. At the end every value is read from the nodes: each
acknowledged token must be there exactly once, in order, each counter must be what was acknowledged, and no
two increments may have got the same answer.

Side by side, clients without a session increment counters of their own through the same proxies, and send
again what got no answer, as clients with retries do. How much too high these counters are is how many of
their increments ran twice. The exit status is 1 when a Clerk lost or doubled anything, or a call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

from appends import Ledger, Verdict, judge
from balsadb import Clerk, ClientError, OutcomeUnknown
from balsadb.client import ClerkOptions
from balsadb.errors import BalsaError
from balsadb.testing import LocalCluster
from cutting_proxy import CuttingProxy
from harness import BenchError, Machine, free_ports, leave_on_signals, raft_fact, resp_call, wait_for

CALL_SECONDS = 60.0
"""How long a Clerk tries. Longer than any disturbance, so that no outcome stays open."""
TOKENS_PER_KEY = 100
"""Then a worker begins a new key: a value that grew without end would measure copying."""
PLAIN_SHARE = 20
"""One of so many operations is a plain client's."""
DOWN_SECONDS = 1.0
"""How long a killed leader stays away, and a paused one silent."""
START_SECONDS = 60.0
SAY_SECONDS = 10.0
CLERK = ClerkOptions(answer_timeout=1.0, session_ttl=120.0)
PLAIN = ClerkOptions(answer_timeout=1.0, sessions=False)


@dataclass
class Books:
    """What clients were told."""

    appends: dict[str, Ledger] = field(default_factory=dict)
    """By key."""
    increments: Counter[str] = field(default_factory=Counter)
    """Acknowledged increments by counter."""
    open: Counter[str] = field(default_factory=Counter)
    """Increments that may have happened, by counter."""
    answers: dict[str, set[int]] = field(default_factory=dict)
    """Answers to increments by counter."""
    repeated_answers: int = 0
    """Increments that got an answer that another one had got before."""
    errors: Counter[str] = field(default_factory=Counter)
    slow: list[float] = field(default_factory=list)
    """Seconds that operations took, of one in a hundred."""
    done: int = 0


@dataclass
class Result:
    """What came out."""

    operations: int
    seconds: float
    appends: Verdict
    counters_lost: int
    """By how much counters are lower than what was acknowledged."""
    counters_doubled: int
    """By how much they are higher, beyond what may have happened."""
    repeated_answers: int
    errors: dict[str, int]
    retries: int
    moves: int
    kills: int
    pauses: int
    leader_changes: int
    snapshot_index: int
    """The lowest index, of all nodes, of a snapshot that took the log's place."""
    answers_passed: int
    answers_cut: int
    connections_cut: int
    p50_ms: float
    p999_ms: float
    worst_ms: float
    plain_operations: int
    plain_retries: int
    plain_doubled: int
    plain_lost: int

    @property
    def cut_share(self) -> float:
        """The part of all answers that was thrown away."""
        return self.answers_cut / max(1, self.answers_cut + self.answers_passed)

    @property
    def good(self) -> bool:
        """True when nothing is wrong with what the Clerks did."""
        wrong = (self.counters_lost, self.counters_doubled, self.repeated_answers)
        return self.appends.good and not any(wrong) and not self.errors


# -- the clients ------------------------------------------------------------------------------------------


class Load:
    """Clerks with several calls under way each, until so many operations are done."""

    def __init__(self, servers: list[str], operations: int, clerks: int, workers: int) -> None:
        self.clerks = [Clerk(servers, timeout=CALL_SECONDS, options=CLERK) for _ in range(clerks)]
        self.plain = Clerk(servers, timeout=CALL_SECONDS, options=PLAIN)
        self.books = Books()
        self.plain_sent: Counter[str] = Counter()
        self.plain_retries = 0
        self._workers = workers
        self._numbers = iter(range(operations))
        self._plain_numbers = iter(range(operations // PLAIN_SHARE))

    async def run(self) -> None:
        """Do all operations."""
        async with asyncio.TaskGroup() as group:
            for number, clerk in enumerate(self.clerks):
                for worker in range(self._workers):
                    group.create_task(self._work(clerk, f"{number}:{worker}"))
            for worker in range(self._workers):
                group.create_task(self._work_plainly(f"plain:{worker}"))

    async def close(self) -> None:
        """Close all Clerks."""
        for clerk in (*self.clerks, self.plain):
            await clerk.close()

    async def _work(self, clerk: Clerk, name: str) -> None:
        """Append and increment in turns."""
        books, counter = self.books, f"count:{name}"
        ledger = Ledger("")
        for number in self._numbers:
            start = time.monotonic()
            try:
                if number % 2:
                    await self._increment(clerk, counter)
                else:
                    if len(ledger.acknowledged) % TOKENS_PER_KEY == 0:
                        ledger = Ledger(f"append:{name}:{number}")
                        books.appends[ledger.key] = ledger
                    token = b"%d;" % number
                    await self._append(clerk, ledger, token)
            except ClientError as error:
                books.errors[type(error).__name__] += 1
            books.done += 1
            if number % 100 < 2:
                books.slow.append(time.monotonic() - start)

    async def _increment(self, clerk: Clerk, counter: str) -> None:
        books = self.books
        try:
            answer = await clerk.increment(counter)
        except OutcomeUnknown:
            books.open[counter] += 1
            raise
        books.increments[counter] += 1
        answers = books.answers.setdefault(counter, set())
        books.repeated_answers += answer in answers
        answers.add(answer)

    async def _append(self, clerk: Clerk, ledger: Ledger, token: bytes) -> None:
        try:
            length = await clerk.append(ledger.key, token)
        except OutcomeUnknown:
            ledger.open.add(token)
            raise
        except ClientError:
            ledger.refused.add(token)
            raise
        ledger.acknowledge(token)
        if length != ledger.length and not ledger.open:
            raise BenchError(f"{ledger.key} is {length} bytes long after an append, not {ledger.length}")

    async def _work_plainly(self, name: str) -> None:
        """Increment without a session, and send again what got no answer."""
        for _ in self._plain_numbers:
            while True:
                try:
                    await self.plain.increment(name)
                except OutcomeUnknown:
                    self.plain_retries += 1
                    continue
                break
            self.plain_sent[name] += 1


# -- the disturbances -------------------------------------------------------------------------------------


class Nemesis:
    """Kills or pauses the leader every few seconds."""

    def __init__(self, cluster: LocalCluster, every: float, seed: int) -> None:
        self.kills = self.pauses = self.leader_changes = 0
        self._cluster = cluster
        self._every = every
        self._random = random.Random(seed)
        self._last_leader: int | None = None

    async def run(self) -> None:
        """Disturb until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self._disturb(self._random.random() < 0.5)

    async def _disturb(self, kill: bool) -> None:
        cluster = self._cluster
        leader = await asyncio.to_thread(cluster.wait_leader, START_SECONDS)
        self._note(leader)
        if kill:
            self.kills += 1
            await asyncio.to_thread(cluster.kill, leader)
        else:
            self.pauses += 1
            cluster.pause(leader)
        try:
            await asyncio.sleep(DOWN_SECONDS)
            self._note(await asyncio.to_thread(cluster.leader))
        finally:
            if kill:
                cluster.start(leader)
            else:
                cluster.resume(leader)
        await asyncio.to_thread(cluster.wait_ready, START_SECONDS)

    def _note(self, leader: int | None) -> None:
        if leader is not None and leader != self._last_leader:
            self.leader_changes += self._last_leader is not None
            self._last_leader = leader


# -- the run ----------------------------------------------------------------------------------------------


async def run(cluster: LocalCluster, options: argparse.Namespace) -> Result:
    """Run load and disturbances, then judge."""
    ports = free_ports(len(cluster.nodes))
    proxies = []
    for node, port in zip(cluster.nodes.values(), ports, strict=True):
        proxy = CuttingProxy(node.client_address, options.cut, options.seed + node.id)
        await proxy.start(port)
        cluster.advertise[node.id] = f"127.0.0.1:{port}"
        proxies.append(proxy)
    await asyncio.to_thread(cluster.start)
    await asyncio.to_thread(cluster.wait_ready, START_SECONDS)
    await asyncio.to_thread(cluster.wait_leader, START_SECONDS)
    load = Load(list(cluster.advertise.values()), options.operations, options.clerks, options.workers)
    nemesis = Nemesis(cluster, options.every, options.seed)
    start = time.monotonic()
    disturbing = asyncio.create_task(nemesis.run())
    saying = asyncio.create_task(_say(load, nemesis, start))
    try:
        await load.run()
        seconds = time.monotonic() - start
    finally:
        for task in (disturbing, saying):
            task.cancel()
        outcomes = await asyncio.gather(disturbing, saying, return_exceptions=True)
        await load.close()
        for proxy in proxies:
            proxy.close()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    await asyncio.to_thread(_heal, cluster)
    return await asyncio.to_thread(_judge, cluster, load, nemesis, proxies, seconds)


async def _say(load: Load, nemesis: Nemesis, start: float) -> None:
    for number in itertools.count(1):
        await asyncio.sleep(SAY_SECONDS)
        done = load.books.done
        print(
            f"{number * SAY_SECONDS:.0f} s: {done:,} operations, {done / (time.monotonic() - start):,.0f}/s, "
            f"{_retries(load):,} sent again, {nemesis.kills} kills, {nemesis.pauses} pauses, "
            f"errors {dict(load.books.errors) or 0}",
            file=sys.stderr,
            flush=True,
        )


def _retries(load: Load) -> int:
    return sum(clerk.retries for clerk in load.clerks)


def _heal(cluster: LocalCluster) -> None:
    for node in cluster.nodes.values():
        if node.paused:
            cluster.resume(node.id)
    cluster.start()
    cluster.wait_ready(START_SECONDS)
    serving = [node.client_address for node in cluster.nodes.values()]
    wait_for(lambda: all(_serves(address) for address in serving), START_SECONDS, "all nodes to serve")


def _serves(address: str) -> bool:
    try:
        resp_call(address, "GET", "nothing", seconds=5.0)
    except BenchError:
        return False
    return True


def _judge(
    cluster: LocalCluster, load: Load, nemesis: Nemesis, proxies: list[CuttingProxy], seconds: float
) -> Result:
    """Read everything from the nodes in turns, and compare."""
    books = load.books
    addresses = itertools.cycle([node.client_address for node in cluster.nodes.values()])

    def read(key: str) -> bytes:
        value = resp_call(next(addresses), "GET", key, seconds=10.0)
        return value if isinstance(value, bytes) else b""

    appends = sum((judge(ledger, read(key)) for key, ledger in books.appends.items()), Verdict())
    lost = doubled = 0
    for name in books.increments | books.open:
        over = int(read(name) or 0) - books.increments[name]
        lost += max(0, -over)
        doubled += max(0, over - books.open[name])
    plain = {name: int(read(name) or 0) - count for name, count in load.plain_sent.items()}
    slow = sorted(books.slow) or [0.0]
    return Result(
        operations=books.done,
        seconds=seconds,
        appends=appends,
        counters_lost=lost,
        counters_doubled=doubled,
        repeated_answers=books.repeated_answers,
        errors=dict(books.errors),
        retries=_retries(load),
        moves=sum(clerk.moves for clerk in load.clerks),
        kills=nemesis.kills,
        pauses=nemesis.pauses,
        leader_changes=nemesis.leader_changes,
        snapshot_index=min(
            raft_fact(node.client_address, "raft_snapshot_index") for node in cluster.nodes.values()
        ),
        answers_passed=sum(proxy.passed for proxy in proxies),
        answers_cut=sum(proxy.cut for proxy in proxies),
        connections_cut=sum(proxy.connections_cut for proxy in proxies),
        p50_ms=statistics.median(slow) * 1e3,
        p999_ms=slow[int(len(slow) * 0.999)] * 1e3,
        worst_ms=slow[-1] * 1e3,
        plain_operations=sum(load.plain_sent.values()),
        plain_retries=load.plain_retries,
        plain_doubled=sum(difference for difference in plain.values() if difference > 0),
        plain_lost=sum(-difference for difference in plain.values() if difference < 0),
    )


def print_result(result: Result) -> None:
    """Print what came out, as sentences."""
    rate = result.operations / result.seconds
    print(f"{result.operations:,} operations of Clerks in {result.seconds:.0f} s, {rate:,.0f}/s")
    print(
        f"disturbed by {result.kills} kills and {result.pauses} pauses of the leader "
        f"({result.leader_changes} changes of the leader seen; snapshots up to index "
        f"{result.snapshot_index:,} at least on each node), and by {result.connections_cut:,} "
        f"connections closed instead of {result.answers_cut:,} answers ({result.cut_share:.1%} of all)"
    )
    print(
        f"Clerks sent {result.retries:,} operations again and changed connections {result.moves:,} times; "
        f"latency p50 {result.p50_ms:.0f} ms, p99.9 {result.p999_ms:.0f} ms, worst {result.worst_ms:.0f} ms"
    )
    appends = result.appends
    print(
        f"Clerks' appends: {appends.lost} lost, {appends.doubled} doubled, {appends.misplaced} out of order, "
        f"{appends.foreign} foreign; increments: {result.counters_lost} lost, {result.counters_doubled} "
        f"doubled, {result.repeated_answers} answers given twice; errors {result.errors or 0}"
    )
    print(
        f"plain clients that retry, side by side: {result.plain_operations:,} increments, "
        f"{result.plain_retries:,} sent again, {result.plain_doubled:,} doubled, {result.plain_lost} lost"
    )


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Try to make a Clerk do something twice, or not at all.")
    parser.add_argument("--operations", type=int, default=1_000_000, help="of Clerks (default 1,000,000)")
    parser.add_argument("--clerks", type=int, default=8, help="how many Clerks (default 8)")
    parser.add_argument("--workers", type=int, default=64, help="calls under way per Clerk (default 64)")
    parser.add_argument("--every", type=float, default=4.0, help="seconds between disturbances (default 4)")
    parser.add_argument(
        "--cut", type=float, default=0.15, help="share of pieces of answers thrown away (default 0.15)"
    )
    parser.add_argument(
        "--snapshot-log-bytes",
        default="4MiB",
        help="as of a node; little, so that sessions go through many snapshots (default 4MiB)",
    )
    parser.add_argument("--seed", type=int, default=1, help="for what is killed and cut (default 1)")
    parser.add_argument("--directory", type=Path, help="where data goes; one in it is made and removed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    options = parser.parse_args(arguments)
    if options.operations < 1 or options.clerks < 1 or options.workers < 1 or options.every <= 0:
        parser.error("--operations, --clerks, --workers and --every must be positive")
    if not 0 <= options.cut < 1:
        parser.error("--cut is a share below 1")
    return options


def main() -> int:
    """Run the benchmark; the exit status is 1 when a Clerk did anything wrong."""
    options = parse_options()
    leave_on_signals()
    with tempfile.TemporaryDirectory(prefix="balsadb-bench-", dir=options.directory) as name:
        directory = Path(name)
        machine = Machine.inspect(directory)
        settings = {"snapshot-log-bytes": options.snapshot_log_bytes}
        cluster = LocalCluster(nodes=3, directory=directory / "cluster", settings=settings)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result = runner.run(run(cluster, options))
        finally:
            cluster.close()
    for line in machine.lines():
        print(line)
    print_result(result)
    if options.json:
        document = {"machine": asdict(machine), **asdict(result), "good": result.good}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if result.good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, BalsaError) as error:
        sys.exit(f"exactly_once: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
