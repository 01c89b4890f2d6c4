"""How long clients wait while members are added, removed and replaced, and leadership is handed over.

    python benchmarks/membership.py --operations 200

Random operations on a cluster of real processes with three to five voters: a new node joins, a node leaves
(the leader too), a live or a dead node is replaced, another node leads. Around each one, clients on the nodes
that stay append unique tokens to their own keys as fast as they go. The unavailability of an operation is the
longest time in which no client at all had a success, and the longest that one client waited. Afterwards every
key is read, and every acknowledged append must be there exactly once, in order. The exit status is 1 when
an operation of a client failed, a change did not end, or anything was lost, doubled or read wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import hiredis
import uvloop
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from appends import AppendClient, Verdict, judge, longest_gap
from balsadb.errors import BalsaError
from balsadb.testing import LocalCluster
from harness import BenchError, Machine, leave_on_signals, resp_call

VOTERS_MIN, VOTERS_MAX = 3, 5
CHANGE_SECONDS = 60.0
"""A change that takes longer has failed."""
AROUND_SECONDS = 0.4
"""Load before an operation begins and after it has ended."""
KINDS = ("add", "remove", "remove the leader", "replace", "replace a dead one", "transfer")


@dataclass
class Operation:
    """One operation and what clients saw of it. Times in milliseconds."""

    kind: str
    took_ms: float
    gap_ms: float
    """Longest time in which no client had a success."""
    client_gap_ms: float
    """Longest time that one client went without a success."""
    errors: dict[str, int] = field(default_factory=dict)


class Cluster:
    """The cluster, and who is in it."""

    def __init__(self, local: LocalCluster, seed: int) -> None:
        self.local = local
        self.rng = random.Random(seed)
        self.verdict = Verdict()
        self.wrong: list[str] = []
        self.newest = max(local.nodes)
        """The greatest id that was ever used."""

    def draw(self) -> str:
        """Draw an operation that fits the number of voters."""
        size = len(self.local.nodes)
        fitting = [
            kind
            for kind in KINDS
            if (kind != "add" or size < VOTERS_MAX) and ("remove" not in kind or size > VOTERS_MIN)
        ]
        return self.rng.choice(fitting)

    def choose(self, kind: str) -> int | None:
        """Choose the node that leaves; None when nobody does."""
        leader = self.local.wait_leader()
        others = [node for node in self.local.nodes if node != leader]
        match kind:
            case "remove the leader":
                return leader
            case "remove" | "replace a dead one":
                return self.rng.choice(others)
            case "replace":
                return self.rng.choice([leader, *others])
            case _:
                return None

    def carry_out(self, kind: str, leaving: int | None) -> None:
        """Do it, and wait until the cluster says that it is done."""
        local = self.local
        asked = self.rng.choice([node for node in local.nodes if node != leaving])
        words: list[str] = []
        if kind == "transfer":
            leader = local.wait_leader()
            words = ["TRANSFER", str(self.rng.choice([node for node in local.nodes if node != leader]))]
        elif kind.startswith("remove"):
            words = ["REMOVE", str(leaving)]
        else:
            self.newest += 1
            node = local.join(self.newest, through=asked)
            words = ["ADD"] if leaving is None else ["REPLACE", str(leaving)]
            words += [str(node.id), node.peer_address, node.client_address]
        self._insist(local.nodes[asked].client_address, ["RAFT", *words])

    def _insist(self, address: str, words: list[str]) -> None:
        deadline = time.monotonic() + CHANGE_SECONDS
        while True:
            reply = resp_call(address, *words, seconds=10.0)
            if reply in ("OK", b"OK"):
                return
            again = isinstance(reply, hiredis.ReplyError) and str(reply).split()[0] in ("TRYAGAIN", "UNKNOWN")
            accepted = str(reply).startswith(("ACCEPTED", "b'ACCEPTED"))
            if not (again or accepted) or time.monotonic() > deadline:
                tails = "\n".join(f"--- node {n.id}\n{n.log_tail()}" for n in self.local.nodes.values())
                raise BenchError(f"{' '.join(words)} was answered {reply!r}\n{tails}")
            time.sleep(0.05)

    async def operate(self, number: int, clients_each: int) -> Operation:
        """Carry out one operation under load."""
        kind = self.draw()
        leaving = await asyncio.to_thread(self.choose, kind)
        if kind == "replace a dead one" and leaving is not None:
            await asyncio.to_thread(self.local.kill, leaving)
            await asyncio.sleep(1.5)  # its death is no news any more
        staying = [node for node in self.local.nodes.values() if node.id != leaving]
        clients = [
            AppendClient(node.client_address, f"membership:{number}:{node.id}:{i}")
            for node in staying
            for i in range(clients_each)
        ]
        stop = asyncio.Event()
        running = [asyncio.create_task(client.run(stop)) for client in clients]
        try:
            await asyncio.sleep(AROUND_SECONDS)
            began = time.monotonic()
            await asyncio.to_thread(self.carry_out, kind, leaving)
            ended = time.monotonic()
            await asyncio.sleep(AROUND_SECONDS)
        finally:
            stop.set()
            await asyncio.gather(*running)
        end = time.monotonic()
        if leaving is not None:
            await asyncio.to_thread(self.local.forget, leaving)
        await asyncio.to_thread(self.local.wait_ready)
        await asyncio.to_thread(self._read, clients)
        everybody = sorted(t for client in clients for t in client.successes)
        return Operation(
            kind=kind,
            took_ms=(ended - began) * 1e3,
            gap_ms=longest_gap(everybody, began, end) * 1e3,
            client_gap_ms=max(longest_gap(client.successes, began, end) for client in clients) * 1e3,
            errors=dict(sum((client.errors for client in clients), Counter[str]())),
        )

    def _read(self, clients: list[AppendClient]) -> None:
        """Read every key on some node and judge it."""
        address = self.rng.choice(list(self.local.nodes.values())).client_address
        for client in clients:
            self.wrong += client.wrong
            value = resp_call(address, "GET", client.ledger.key, seconds=10.0)
            self.verdict += judge(client.ledger, value if isinstance(value, bytes) else b"")


async def _operate_all(cluster: Cluster, options: argparse.Namespace) -> list[Operation]:
    done: list[Operation] = []
    for number in range(options.operations):
        done.append(await cluster.operate(number, options.clients))
        one = done[-1]
        print(
            f"{number + 1:4} {one.kind:<20} {one.took_ms:7.0f} ms, nobody served for {one.gap_ms:5.1f} ms, "
            f"one client waited {one.client_gap_ms:5.1f} ms {one.errors or ''}",
            flush=True,
        )
    return done


def print_table(done: list[Operation]) -> None:
    """Print what each kind of operation cost."""
    table = Table(box=MARKDOWN)
    table.add_column("operation")
    for name in ("count", "took, median", "nobody served: median", "max", "one client waited: median", "max"):
        table.add_column(name, justify="right")
    for kind in KINDS:
        some = [one for one in done if one.kind == kind]
        if some:
            gaps, waits = [one.gap_ms for one in some], [one.client_gap_ms for one in some]
            numbers = (
                statistics.median(one.took_ms for one in some),
                statistics.median(gaps),
                max(gaps),
                statistics.median(waits),
                max(waits),
            )
            table.add_row(kind, str(len(some)), *(f"{number:.0f} ms" for number in numbers))
    Console(width=140).print(table)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Change the members under load, again and again.")
    parser.add_argument("--operations", type=int, default=40, help="how many changes are made (default 40)")
    parser.add_argument("--clients", type=int, default=2, help="clients on each node that stays (default 2)")
    parser.add_argument("--seed", type=int, default=1, help="which operations are drawn (default 1)")
    parser.add_argument(
        "--snapshot-log-bytes",
        default="64MiB",
        metavar="SIZE",
        help="setting of every node: with 4MiB most newcomers need the state (default 64MiB)",
    )
    parser.add_argument(
        "--directory", type=Path, help="where data goes; a directory in it is made and removed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every operation there")
    options = parser.parse_args(arguments)
    if options.operations < 1 or options.clients < 1:
        parser.error("--operations and --clients must be positive")
    return options


def main() -> int:
    """Run the benchmark; the exit status is 1 when one of our clients saw anything wrong."""
    options = parse_options()
    leave_on_signals()
    with tempfile.TemporaryDirectory(prefix="balsadb-bench-", dir=options.directory) as name:
        machine = Machine.inspect(Path(name))
        settings = {"snapshot-log-bytes": options.snapshot_log_bytes}
        with LocalCluster(VOTERS_MIN, directory=Path(name) / "ours", settings=settings) as local:
            cluster = Cluster(local, options.seed)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                done = runner.run(_operate_all(cluster, options))
    for line in machine.lines():
        print(line)
    print(f"{options.clients} closed-loop clients on each node that stays; three to five voters")
    print_table(done)
    errors = dict(sum((Counter(one.errors) for one in done), Counter[str]()))
    print(f"errors {errors or 0}; final reading of every key: {cluster.verdict}")
    for sentence in cluster.wrong[:20]:
        print(f"WRONG: {sentence}")
    if options.json:
        document = {"machine": asdict(machine), "operations": [asdict(one) for one in done]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if errors or cluster.wrong or not cluster.verdict.good else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, BalsaError) as error:
        sys.exit(f"membership: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
