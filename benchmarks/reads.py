"""What reads at followers are worth: GETs spread over three nodes against all of them at the leader.

    python benchmarks/reads.py --runs 5

Both are linearizable. At a follower one question to the leader serves all reads of a turn, and the parsing,
looking up and answering happens there. The two placements are measured in turns and the ratio of each pair
is taken, because a machine differs from minute to minute; the median of the ratios is the result. Where all
nodes and the load generator share two cores, there is no third core that a follower could use: look at the
processor time that a read costs the leader, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from balsadb.errors import BalsaError
from harness import BenchError, Machine, cpu_seconds, leave_on_signals
from loads import Result, calibrate, fill, redis_benchmark
from systems import Ours

SECONDS_MAX = 120.0
TABLE_WIDTH = 140


@dataclass(frozen=True)
class Pair:
    """One measurement of each placement."""

    clients: int
    leader: Result
    spread: Result
    leader_cpu_us: float
    """Processor time of the leader for a read, when all clients are there."""
    spread_cpu_us: float
    """The same when they are spread over all nodes."""

    @property
    def ratio(self) -> float:
        """Reads a second at three nodes over those at one."""
        return self.spread.rate / self.leader.rate


def measure(ours: Ours, clients: int, seconds: float) -> Pair:
    """Read at the leader, then at all nodes, for about as long."""
    leader = ours.leader()
    places = ([ours.cluster.nodes[leader].client_address], ours.cluster.servers)
    results: list[Result] = []
    costs: list[float] = []
    for addresses in places:
        count = int(calibrate(addresses, "GET", clients, 1) * seconds)
        before = _leader_cpu(ours, leader)
        result = redis_benchmark(addresses, "GET", clients, 1, count, SECONDS_MAX)
        costs.append((_leader_cpu(ours, leader) - before) / result.operations * 1e6)
        results.append(result)
    if ours.leader() != leader:
        raise BenchError("leadership moved while reads were measured")
    return Pair(clients, results[0], results[1], costs[0], costs[1])


def _leader_cpu(ours: Ours, leader: int) -> float:
    pid = ours.cluster.nodes[leader].pid
    assert pid is not None
    return cpu_seconds(pid)


def print_table(pairs: Sequence[Pair]) -> None:
    """Print the medians for each number of clients."""
    table = Table(box=MARKDOWN)
    table.add_column("clients", justify="right")
    rates, costs = ("GET/s, leader", "GET/s, spread", "ratio"), ("leader us/GET", "leader us/GET")
    for heading in (*rates, "p99 ms", "p99 ms", *costs):
        table.add_column(heading, justify="right")
    for clients in sorted({pair.clients for pair in pairs}):
        some = [pair for pair in pairs if pair.clients == clients]

        def median(values: list[float]) -> float:
            return statistics.median(values)

        table.add_row(
            str(clients),
            f"{median([pair.leader.rate for pair in some]):,.0f}",
            f"{median([pair.spread.rate for pair in some]):,.0f}",
            f"{median([pair.ratio for pair in some]):.2f}",
            f"{median([pair.leader.p99 for pair in some]):.2f}",
            f"{median([pair.spread.p99 for pair in some]):.2f}",
            f"{median([pair.leader_cpu_us for pair in some]):.1f}",
            f"{median([pair.spread_cpu_us for pair in some]):.1f}",
        )
    Console(width=TABLE_WIDTH, highlight=False).print(table)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Read at all nodes against reading at the leader alone.")
    parser.add_argument("--runs", type=int, default=3, help="pairs of measurements (default 3)")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[48, 192], help="numbers of clients (default 48 192)"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default 3)")
    parser.add_argument(
        "--directory", type=Path, help="where data goes; a directory in it is made and removed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every measurement there")
    options = parser.parse_args(arguments)
    if options.runs < 1 or min(options.clients) < 3 or options.seconds <= 0:
        parser.error("--runs and --seconds must be positive, and --clients at least 3")
    return options


def main() -> int:
    """Run the benchmark; the exit status is 1 when a client saw an error."""
    options = parse_options()
    leave_on_signals()
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory(prefix="balsadb-bench-", dir=options.directory) as name:
        directory = Path(name)
        machine = Machine.inspect(directory)
        with Ours(directory / "ours") as ours:
            fill(ours.leader_address())
            for _ in range(options.runs):
                for clients in options.clients:
                    pairs.append(measure(ours, clients, options.seconds))
                    print(f"{clients} clients: ratio {pairs[-1].ratio:.2f}", file=sys.stderr, flush=True)
    for line in machine.lines():
        print(line)
    print(
        "linearizable GETs of 256-byte values, clients at the leader against clients spread over three nodes"
    )
    print_table(pairs)
    errors = sum(pair.leader.errors + pair.spread.errors for pair in pairs)
    print(f"errors {errors}")
    if options.json:
        document = {"machine": asdict(machine), "pairs": [asdict(pair) for pair in pairs]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if errors else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, BalsaError) as error:
        sys.exit(f"reads: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
