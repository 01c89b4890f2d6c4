"""How many operations a second, beside etcd and beside one Redis that syncs every write, in one run.

    python benchmarks/throughput.py --runs 3 --seconds 4 --json result.json

Starts our cluster of three, an etcd cluster of three and one Redis on loopback, then loads one of them at a
time while the others are stopped (SIGSTOP), in turns, so that a machine that becomes slower or faster
meanwhile does so for all. Numbers are medians over the runs. See README.md beside this file for what is
measured and what it does not say.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from balsadb.errors import BalsaError
from harness import BenchError, Machine, cpu_seconds, leave_on_signals
from loads import KEYS, VALUE_BYTES, EtcdBench, Result, calibrate, fill, redis_benchmark
from report import Cell, Findings, Measurement, print_table
from systems import Etcd, Ours, Redis, System

CLIENTS = (1, 64, 256)
PIPELINED_CLIENTS, PIPELINE = 64, 16
OPERATIONS = ("SET", "GET")
PATIENCE = 5
"""A cell may take this many times the time that it was meant to take before it counts as failed."""


class Bench:
    """One system with the way to load it. `measure` takes a cell and returns what it saw."""

    def __init__(self, system: System, seconds: float) -> None:
        self.system = system
        self.seconds = seconds
        self.rates: dict[Cell, float] = {}
        """Last known rate of a cell: redis-benchmark wants to know how many operations fill the seconds."""

    def prepare(self) -> None:
        """Write every key once."""
        raise NotImplementedError

    def takes(self, cell: Cell) -> bool:
        """True when the cell makes sense for this system."""
        return cell == cell.reference()

    def load(self, cell: Cell) -> Result:
        """Load the system for about as many seconds as were asked for."""
        raise NotImplementedError

    def measure(self, cell: Cell) -> tuple[Measurement, bool]:
        """Measure a cell; also tells whether the same processes led before and after."""
        self.warm_up(cell)
        before = self.system.pids()
        used = {pid: cpu_seconds(pid) for pids in before.values() for pid in pids}
        result = self.load(cell)
        self.rates[cell] = result.rate
        cost = {
            role: statistics.mean(cpu_seconds(pid) - used[pid] for pid in pids) * 1e6 / result.operations
            for role, pids in before.items()
            if pids
        }
        return Measurement(result, cost), self.system.pids() == before

    def warm_up(self, cell: Cell) -> None:
        """Get ready for a cell, outside of what is measured."""


class RespBench(Bench):
    """Any system that redis-benchmark can load."""

    def addresses(self, cell: Cell) -> list[str]:
        """Return the servers that get clients."""
        raise NotImplementedError

    def warm_up(self, cell: Cell) -> None:
        if cell not in self.rates:
            self.rates[cell] = calibrate(self.addresses(cell), cell.operation, cell.clients, cell.pipeline)

    def load(self, cell: Cell) -> Result:
        count = max(cell.clients * cell.pipeline, int(self.rates[cell] * self.seconds))
        patience = self.seconds * PATIENCE + 10
        return redis_benchmark(
            self.addresses(cell), cell.operation, cell.clients, cell.pipeline, count, patience
        )


class OursBench(RespBench):
    """Our cluster: every client at the leader, or clients shared out over all three nodes."""

    def __init__(self, system: Ours, seconds: float) -> None:
        super().__init__(system, seconds)
        self.ours = system

    def prepare(self) -> None:
        fill(self.ours.leader_address())

    def takes(self, cell: Cell) -> bool:
        return True

    def addresses(self, cell: Cell) -> list[str]:
        return [self.ours.leader_address()] if cell.placement == "leader" else self.ours.cluster.servers


class RedisBench(RespBench):
    """One Redis."""

    def __init__(self, system: Redis, seconds: float) -> None:
        super().__init__(system, seconds)
        self.redis = system

    def prepare(self) -> None:
        fill(self.redis.address)

    def addresses(self, cell: Cell) -> list[str]:
        return [self.redis.address]


class EtcdClusterBench(Bench):
    """The etcd cluster: its client balances over all members by itself, and does not pipeline."""

    def __init__(self, system: Etcd, seconds: float) -> None:
        super().__init__(system, seconds)
        self.endpoints = system.endpoints
        self.generator = EtcdBench()

    def prepare(self) -> None:
        self.generator.run(self.endpoints, "fill", 64, self.seconds)

    def takes(self, cell: Cell) -> bool:
        return cell.pipeline == 1 and super().takes(cell)

    def load(self, cell: Cell) -> Result:
        mode = "put" if cell.operation == "SET" else "get"
        result = self.generator.run(self.endpoints, mode, cell.clients, self.seconds)
        if result.errors:
            raise BenchError(f"{result.errors} operations failed, the first with: {result.first_error}")
        return result


# -- the run ----------------------------------------------------------------------------------------------


def plan(clients: tuple[int, ...], placements: tuple[str, ...]) -> list[Cell]:
    """Return all cells in the order of the table."""
    loads = [(number, 1) for number in clients] + [(PIPELINED_CLIENTS, PIPELINE)]
    return [
        Cell(operation, number, depth, placement)
        for operation in OPERATIONS
        for number, depth in loads
        for placement in placements
        # One client cannot be spread.
        if placement == "leader" or number >= 3
    ]


def run_all(benches: list[Bench], cells: list[Cell], runs: int, say: Callable[[str], None]) -> Findings:
    """Measure every cell of every system `runs` times, the systems taking turns, one awake at a time."""
    findings = Findings()
    for bench in benches:
        bench.prepare()
        bench.system.sleep()
    for run in range(1, runs + 1):
        for bench in benches:
            bench.system.wake()
            for cell in filter(bench.takes, cells):
                what = f"run {run}, {bench.system.name}, {cell.label}"
                try:
                    measurement, steady = bench.measure(cell)
                except (BenchError, BalsaError) as error:
                    findings.failures.append(f"{what}: {error}")
                    say(f"{what}: FAILED: {error}")
                    continue
                if not steady:
                    findings.failures.append(f"{what}: leadership moved during the measurement")
                findings.add(bench.system.name, cell, measurement)
                result = measurement.result
                say(f"{what}: {result.rate:,.0f}/s p50 {result.p50:.2f} p99 {result.p99:.2f} ms")
            bench.system.sleep()
    return findings


def start_all(stack: ExitStack, options: argparse.Namespace, directory: Path) -> list[Bench]:
    """Start what was not left out."""
    benches: list[Bench] = []
    if not options.skip_ours:
        benches.append(OursBench(stack.enter_context(Ours(directory / "ours")), options.seconds))
    if not options.skip_etcd:
        # Built before it is started, so that the compiler is not running beside anything.
        etcd = Etcd(directory / "etcd")
        bench = EtcdClusterBench(etcd, options.seconds)
        stack.enter_context(etcd)
        benches.append(bench)
    if not options.skip_redis:
        benches.append(RedisBench(stack.enter_context(Redis(directory / "redis")), options.seconds))
    return benches


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Throughput of BalsaDB beside etcd and Redis, on this machine."
    )
    parser.add_argument("--runs", type=int, default=3, help="how often each cell is measured (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement (default 4)")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS), help="unpipelined clients")
    parser.add_argument("--only", default="", help="only cells whose name holds this, such as 'SET 64'")
    parser.add_argument("--no-spread", action="store_true", help="clients at our leader only")
    for name in ("ours", "etcd", "redis"):
        parser.add_argument(f"--skip-{name}", action="store_true", help=f"leave {name} out")
    parser.add_argument(
        "--directory", type=Path, help="where data goes; a directory in it is made and removed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every single measurement there")
    options = parser.parse_args(arguments)
    if options.runs < 1 or options.seconds <= 0 or min(options.clients) < 1:
        parser.error("--runs, --seconds and --clients must be positive")
    return options


def main() -> int:
    """Run the benchmark; the exit status is 1 when a cell failed or leadership moved."""
    options = parse_options()
    leave_on_signals()
    placements = ("leader",) if options.no_spread else ("leader", "spread")
    cells = [cell for cell in plan(tuple(options.clients), placements) if options.only in cell.label]
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="balsadb-bench-", dir=options.directory))
        )
        machine = Machine.inspect(directory)
        benches = start_all(stack, options, directory)
        findings = run_all(
            benches, cells, options.runs, lambda line: print(line, file=sys.stderr, flush=True)
        )
    shown = [cell for cell in cells if not options.skip_ours or cell == cell.reference()]
    for line in machine.lines():
        print(line)
    for bench in benches:
        print(f"{bench.system.name} {bench.system.version}: acknowledged when {bench.system.durability}")
    print(
        f"values of {VALUE_BYTES} bytes, {KEYS:,} keys, medians of {options.runs} runs of "
        f"{options.seconds:g} s; reads of BalsaDB and etcd are linearizable; "
        "'x 16': 16 commands in flight a client"
    )
    print_table(findings, shown)
    for failure in findings.failures:
        print(f"NOTE: {failure}")
    if options.json:
        document = {
            "machine": asdict(machine),
            "systems": {b.system.name: [b.system.version, b.system.durability] for b in benches},
            "settings": {
                "runs": options.runs,
                "seconds": options.seconds,
                "value_bytes": VALUE_BYTES,
                "keys": KEYS,
            },
            "cells": findings.as_json(),
            "notes": findings.failures,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if findings.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, BalsaError) as error:
        sys.exit(f"throughput: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
