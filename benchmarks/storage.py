"""What the state on disk costs: does anything grow, how fast is a restart, does a cut or a transfer disturb.

    python benchmarks/storage.py --keys 1000000 --seconds 60

Four parts, each on a cluster of three with 256-byte values; `--only` chooses.

footprint  one key, and then many keys, are overwritten without end: log, state and resident memory must stay
           as they are, and the log within 2 x snapshot-log-bytes + one segment on every node
restart    all nodes with all keys get SIGKILL; how long after its start does each answer a write and a read
transfer   a follower is away until its log is compacted and needs the state, while 64 clients write
cuts       SET of 64 clients to many keys with much log let go, beside a few keys and none; and how long each
           step of a cut takes by itself

The exit status is 1 when the log outgrew its bound.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from balsadb.errors import BalsaError
from balsadb.testing import LocalCluster, LocalNode
from footprint import Footprint, look, watching
from harness import BenchError, Machine, answers, leave_on_signals, raft_fact, wait_for
from loads import VALUE_BYTES, Result, Writers, calibrate, redis_benchmark
from report import TABLE_WIDTH
from steps import Step, measure_steps
from systems import Ours

PARTS = ("footprint", "restart", "transfer", "cuts")
MIB = 1024 * 1024
SNAPSHOT_LOG_BYTES = 64 * MIB
"""The servers' default; a segment of the log is a quarter of it."""
SEGMENT_BYTES = SNAPSHOT_LOG_BYTES // 4
LOG_BYTES_MAX = 2 * SNAPSHOT_LOG_BYTES + SEGMENT_BYTES
SETTLE_SECONDS = 60.0
LOAD_SECONDS_MAX = 300.0
RESTART_SECONDS_AIM = 5.0
RATIO_AIM = 1.5
STEP_MS_AIM = 5.0

CLIENTS = 64
SPELL_SECONDS = 2.0
"""Length of one run of the load generator while a state is transferred."""
FEW_KEYS = 100
SMALL_LOG = "16MiB"
LARGE_LOG = "1GiB"

_INSTALLED = re.compile(r"event=state-installed index=(\d+) term=\d+ bytes=(\d+)")


@dataclass(frozen=True)
class Overwriting:
    """Keys that were overwritten for some time."""

    name: str
    writes: int
    rate: float
    footprint: Footprint


@dataclass(frozen=True)
class Restart:
    """All nodes killed and started. Seconds by node, from its start."""

    entries: int
    """Entries that had to be applied again on the node with the most of them."""
    first_write: dict[int, float]
    first_read: dict[int, float]


@dataclass(frozen=True)
class Transfer:
    """A follower that needed the state."""

    ready_seconds: float
    """From the start of its process until it had applied what was committed at that moment."""
    bytes: int
    transfer_seconds: float
    """From the first received byte until the state was installed."""
    during: list[Result]
    afterwards: list[Result]


@dataclass(frozen=True)
class Variant:
    """One side of the comparison with and without cuts."""

    name: str
    snapshot_log_bytes: str
    keys: int


# -- parts ------------------------------------------------------------------------------------------------


def fill(ours: Ours, keys: int) -> None:
    """Set every key once."""
    writers = Writers(ours.leader_address(), iter(range(keys)))
    writers.wait(LOAD_SECONDS_MAX)
    _say(f"{keys:,} keys written, {writers.operations / writers.seconds:,.0f}/s")


def _random_keys(keys: int) -> Iterator[int]:
    draw = random.Random().random
    while True:
        yield int(draw() * keys)


def overwrite(ours: Ours, name: str, numbers: Iterator[int], seconds: float) -> Overwriting:
    """Overwrite keys for some time and watch what it takes."""
    with watching(ours.cluster) as footprint:
        writers = Writers(ours.leader_address(), numbers)
        time.sleep(seconds)
        writers.stop()
        writers.wait(SETTLE_SECONDS)
    rate = writers.operations / writers.seconds
    _say(f"{name}: {writers.operations:,} writes, {rate:,.0f}/s, log at most {_mib(footprint.log_max)} MiB")
    return Overwriting(name, writers.operations, rate, footprint)


def restart(ours: Ours) -> Restart:
    """Kill all nodes, start them, and wait until each has answered a write and a read."""
    nodes = list(ours.cluster.nodes.values())
    entries = max(
        raft_fact(n.client_address, "raft_last_index") - raft_fact(n.client_address, "raft_snapshot_index")
        for n in nodes
    )
    ours.cluster.kill()
    writes: dict[int, float] = {}
    reads: dict[int, float] = {}
    began = time.monotonic()
    ours.cluster.start()
    watchers = [
        threading.Thread(target=_first_answers, args=(node, began, writes, reads), daemon=True)
        for node in nodes
    ]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(SETTLE_SECONDS)
    if len(reads) < len(nodes):
        raise BenchError(f"only nodes {sorted(reads)} answered within {SETTLE_SECONDS:g} s of their start")
    _say(f"restarted: first reads after {', '.join(f'{s:.2f}' for s in reads.values())} s")
    return Restart(entries, dict(sorted(writes.items())), dict(sorted(reads.items())))


def _first_answers(node: LocalNode, began: float, writes: dict[int, float], reads: dict[int, float]) -> None:
    key = f"restart:{node.id}"
    address = node.client_address
    wait_for(lambda: answers(address, "SET", key, "yes"), SETTLE_SECONDS, "a write to be answered")
    writes[node.id] = time.monotonic() - began
    wait_for(lambda: answers(address, "GET", key), SETTLE_SECONDS, "a read to be answered")
    reads[node.id] = time.monotonic() - began


def transfer(ours: Ours, keys: int) -> Transfer:
    """Let a follower miss what is compacted, start it under load, and watch it come back."""
    cluster, leader = ours.cluster, ours.leader_address()
    node = next(n for n in cluster.nodes.values() if n.client_address != leader)
    missed = raft_fact(node.client_address, "raft_last_index")
    cluster.kill(node.id)
    writers = Writers(leader, _random_keys(keys))
    wait_for(lambda: raft_fact(leader, "raft_first_index") > missed + 1, LOAD_SECONDS_MAX, "compaction")
    writers.stop()
    writers.wait(SETTLE_SECONDS)
    rate = calibrate([leader], "SET", CLIENTS, 1, keys)
    moments: dict[str, float] = {}
    watcher = threading.Thread(target=_watch_return, args=(node, leader, moments), daemon=True)
    began = time.monotonic()
    cluster.start(node.id)
    watcher.start()
    during = []
    while watcher.is_alive():
        during.append(_spell(leader, rate, keys))
    found = _INSTALLED.findall(node.log_tail())
    if "ready" not in moments or not found:
        raise BenchError(f"node {node.id} did not come back with a state; its log:\n{node.log_tail()}")
    afterwards = [_spell(leader, rate, keys) for _ in range(max(3, len(during)))]
    length = int(found[-1][1])
    seconds = moments["installed"] - moments["first byte"]
    ready = moments["ready"] - began
    _say(f"transfer of {_mib(length)} MiB in {seconds:.1f} s, level {ready:.1f} s after the start")
    return Transfer(ready, length, seconds, during, afterwards)


def _spell(leader: str, rate: float, keys: int) -> Result:
    count = int(rate * SPELL_SECONDS)
    return redis_benchmark([leader], "SET", CLIENTS, 1, count, SETTLE_SECONDS, keys)


def _watch_return(node: LocalNode, leader: str, moments: dict[str, float]) -> None:
    """Note when the first byte of a state comes, when it is installed, and when the node is level."""
    incoming = node.data_dir / "group-0" / "incoming"

    def await_(what: str, condition: Callable[[], bool]) -> None:
        wait_for(condition, SETTLE_SECONDS, what)
        moments[what] = time.monotonic()

    def level() -> bool:
        committed = raft_fact(leader, "raft_commit_index")
        return answers(node.client_address, "PING") and (
            raft_fact(node.client_address, "raft_applied_index") >= committed
        )

    await_("first byte", incoming.exists)
    await_("installed", lambda: _INSTALLED.search(node.log_tail()) is not None)
    await_("ready", level)


def compare(directory: Path, keys: int, runs: int, seconds: float) -> dict[str, list[Result]]:
    """Load a cluster that makes no cut worth the name and one that makes many, in turns."""
    variants = (
        Variant(f"{FEW_KEYS} keys, no log let go", LARGE_LOG, FEW_KEYS),
        Variant(f"{keys:,} keys, {SMALL_LOG} of log", SMALL_LOG, keys),
    )
    found: dict[str, list[Result]] = {variant.name: [] for variant in variants}
    with ExitStack() as stack:
        clusters = {}
        rates = {}
        for number, variant in enumerate(variants):
            settings = {"snapshot-log-bytes": variant.snapshot_log_bytes}
            ours = stack.enter_context(Ours(directory / str(number), settings=settings))
            fill(ours, variant.keys)
            leader = ours.leader_address()
            rates[variant.name] = calibrate([leader], "SET", CLIENTS, 1, variant.keys)
            clusters[variant.name] = ours
            ours.sleep()
        for _ in range(runs):
            for variant in variants:
                ours = clusters[variant.name]
                ours.wake()
                count = int(rates[variant.name] * seconds)
                leader = ours.leader_address()
                found[variant.name].append(
                    redis_benchmark([leader], "SET", CLIENTS, 1, count, seconds * 10, variant.keys)
                )
                ours.sleep()
    return found


# -- the report -------------------------------------------------------------------------------------------


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _mib(size: float) -> str:
    return f"{size / MIB:,.0f}"


def _verdict(good: bool) -> str:
    return "met" if good else "MISSED"


def _table(first: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=MARKDOWN)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=TABLE_WIDTH, highlight=False).print(table)


def print_footprint(found: Sequence[Overwriting]) -> bool:
    """Print what overwriting took; True when the log kept its bound."""
    rows = []
    for case in found:
        for node, samples in sorted(case.footprint.samples.items()):
            columns = ([s.log for s in samples], [s.state for s in samples], [s.memory for s in samples])
            cells = [f"{_mib(c[0])} / {_mib(c[-1])} / {_mib(max(c))}" for c in columns]
            half = statistics.mean(columns[2][len(samples) // 2 :]) / MIB
            rows.append(
                [
                    f"{case.name}, node {node}",
                    f"{case.writes:,}",
                    f"{case.rate:,.0f}",
                    *cells,
                    f"{half:,.0f}",
                ]
            )
    headings = ["writes", "op/s", "log MiB first / last / max", "state MiB", "memory MiB"]
    _table("overwritten without end", [*headings, "memory, mean of 2nd half"], rows)
    largest = max(case.footprint.log_max for case in found)
    good = largest <= LOG_BYTES_MAX
    print(
        f"log: at most {_mib(largest)} MiB; aim: at most {_mib(LOG_BYTES_MAX)} "
        f"(2 x {_mib(SNAPSHOT_LOG_BYTES)} + a segment of {_mib(SEGMENT_BYTES)}): {_verdict(good)}"
    )
    return good


def print_restart(found: Restart, footprint: str) -> None:
    """Print how long each node was away."""
    rows = [
        [f"node {node}", f"{found.first_write[node]:.2f}", f"{seconds:.2f}"]
        for node, seconds in found.first_read.items()
    ]
    _table("after SIGKILL of all, s from start", ["first write answered", "first read answered"], rows)
    worst = max(found.first_read.values())
    print(
        f"restart with {footprint}, up to {found.entries:,} entries to apply again: {worst:.2f} s; "
        f"aim: {RESTART_SECONDS_AIM:g} s: {_verdict(worst <= RESTART_SECONDS_AIM)}"
    )


def print_transfer(found: Transfer) -> None:
    """Print how a follower came back, and what the clients saw of it."""
    rows = [_row(name, results) for name, results in _spells(found)]
    _table(f"SET, {CLIENTS} clients, while a follower", _COLUMNS, rows)
    print(
        f"transfer of {_mib(found.bytes)} MiB in {found.transfer_seconds:.1f} s, "
        f"{found.bytes / MIB / found.transfer_seconds:.0f} MiB/s; the follower was level with the leader "
        f"{found.ready_seconds:.1f} s after its start"
    )


def _spells(found: Transfer) -> list[tuple[str, list[Result]]]:
    return [("fetches the state and catches up", found.during), ("is level", found.afterwards)]


_COLUMNS = ("op/s", "p50 ms", "p99 ms", "worst p99 ms", "max ms")


def _row(name: str, results: Sequence[Result]) -> list[str]:
    return [
        name,
        f"{statistics.median(r.rate for r in results):,.0f}",
        f"{statistics.median(r.p50 for r in results):.2f}",
        f"{statistics.median(r.p99 for r in results):.2f}",
        f"{max(r.p99 for r in results):.2f}",
        f"{max(r.maximum for r in results):.1f}",
    ]


def print_comparison(found: dict[str, list[Result]]) -> None:
    """Print both sides and their ratio."""
    _table(f"SET, {CLIENTS} clients", _COLUMNS, [_row(name, results) for name, results in found.items()])
    without, with_cuts = (statistics.median(r.p99 for r in results) for results in found.values())
    ratio = with_cuts / without
    print(f"p99 with cuts / without: {ratio:.2f}; aim: {RATIO_AIM}: {_verdict(ratio <= RATIO_AIM)}")


def print_steps(steps: Sequence[Step], keys: int) -> None:
    """Print the steps of a cut."""
    rows = [
        [step.name, step.thread, str(len(step.times_ms)), f"{step.median_ms:.2f}", f"{step.longest_ms:.2f}"]
        for step in steps
    ]
    _table(f"a cut of {keys:,} keys in all", ["thread", "steps", "median ms", "longest ms"], rows)
    longest = max(steps, key=lambda step: step.longest_ms)
    print(
        f"longest step: {longest.longest_ms:.1f} ms of processor time ({longest.name}); "
        f"aim: {STEP_MS_AIM:g} ms: {_verdict(longest.longest_ms <= STEP_MS_AIM)}"
    )


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="What the state on disk costs.")
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many keys (default 1,000,000)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long keys are overwritten (default 60)"
    )
    parser.add_argument("--runs", type=int, default=3, help="runs with and without cuts (default 3)")
    parser.add_argument("--run-seconds", type=float, default=6.0, help="length of one of these (default 6)")
    parser.add_argument("--only", choices=PARTS, action="append", help="do this part; may be repeated")
    parser.add_argument(
        "--directory", type=Path, help="where data goes; a directory in it is made and removed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    options = parser.parse_args(arguments)
    if options.keys < 1 or options.seconds <= 0 or options.runs < 1 or options.run_seconds <= 0:
        parser.error("--keys, --seconds, --runs and --run-seconds must be positive")
    options.parts = tuple(options.only or PARTS)
    return options


def run(directory: Path, options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    """Do all parts; returns whether the log kept its bound, and all that was measured."""
    parts, keys, good = options.parts, options.keys, True
    document: dict[str, object] = {}
    if parts != ("cuts",):
        with Ours(directory / "ours") as ours:
            if "footprint" in parts:
                cases = [overwrite(ours, "one key", repeat(0), options.seconds)]
                fill(ours, keys)
                cases.append(overwrite(ours, f"{keys:,} keys", _random_keys(keys), options.seconds))
                good = print_footprint(cases)
                document["footprint"] = [asdict(case) for case in cases]
            else:
                fill(ours, keys)
            if "restart" in parts:
                footprint = _describe(ours.cluster)
                restarted = restart(ours)
                print_restart(restarted, footprint)
                document["restart"] = asdict(restarted)
            if "transfer" in parts:
                moved = transfer(ours, keys)
                print_transfer(moved)
                document["transfer"] = asdict(moved)
    if "cuts" in parts:
        compared = compare(directory / "cuts", keys, options.runs, options.run_seconds)
        print_comparison(compared)
        steps = measure_steps(directory / "steps", keys)
        print_steps(steps, keys)
        document["cuts"] = {name: [asdict(r) for r in results] for name, results in compared.items()}
        document["steps"] = [asdict(step) for step in steps]
    return good, document


def _describe(cluster: LocalCluster) -> str:
    samples = look(cluster).values()
    log, state = max(s.log for s in samples), max(s.state for s in samples)
    return f"{_mib(state)} MiB of state and {_mib(log)} MiB of log"


def main() -> int:
    """Run the benchmark; the exit status is 1 when the log outgrew its bound."""
    options = parse_options()
    leave_on_signals()
    with tempfile.TemporaryDirectory(prefix="balsadb-bench-", dir=options.directory) as name:
        directory = Path(name)
        machine = Machine.inspect(directory)
        for line in machine.lines():
            print(line)
        print(
            f"three nodes, values of {VALUE_BYTES} random bytes, or of one letter by redis-benchmark",
            flush=True,
        )
        good, document = run(directory, options)
    if options.json:
        options.json.write_text(json.dumps({"machine": asdict(machine), **document}, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, BalsaError) as error:
        sys.exit(f"storage: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
