"""Where the microseconds of a SET and of a GET go, on the leader and on a follower.

    python benchmarks/profile_nodes.py

For each load the cost of an operation is taken from /proc while nobody looks, and then a sampling profiler
(py-spy) says which part of it each stage is: a clock inside of the servers would cost more than many a stage.
Beside it stands the floor: what a server costs that does nothing but read commands and write answers, in the
same event loop under the same load, and what a sync and a send to a sleeping process cost by themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from balsadb.errors import BalsaError
from harness import (
    BenchError,
    Machine,
    leave_on_signals,
    pack_command,
    raft_fact,
    require_program,
    split_address,
)
from loads import KEYS, VALUE_BYTES, calibrate, fill, redis_benchmark
from report import Cell
from stages import STAGES, Folded, check_table, fold
from systems import Ours

CELLS = (Cell("SET", 1), Cell("SET", 64), Cell("SET", 64, 16), Cell("GET", 64))
SAMPLES_PER_SECOND = 400
SAMPLES_MIN = 50
"""From fewer samples no shares are told."""
SECONDS_MAX = 120.0
PROBES = 1000
TABLE_WIDTH = 160
SERVER_FLAG = "--floor-server"


@dataclass(frozen=True)
class Usage:
    """Processor time of one process, in seconds."""

    loop: float
    """Of the thread of the event loop."""
    kernel_ticks: float
    user_ticks: float
    """How often a clock has found it inside and outside of the kernel."""
    others: float
    """Of all other threads: syncs, cuts, RocksDB."""

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read the kernel's counters."""
        # Nanoseconds are exact; which of them were the kernel's is only known from the ticks of a clock.
        user, kernel = _ticks(pid)
        loop = _seconds(Path(f"/proc/{pid}/task/{pid}"))
        threads = sum(_seconds(task) for task in Path(f"/proc/{pid}/task").iterdir())
        return cls(loop, kernel, user, threads - loop)

    def since(self, before: Usage, operations: int) -> Usage:
        """Return what was used since, in microseconds for an operation."""
        each = 1e6 / operations
        return Usage(
            (self.loop - before.loop) * each,
            self.kernel_ticks - before.kernel_ticks,
            self.user_ticks - before.user_ticks,
            (self.others - before.others) * each,
        )

    @property
    def kernel(self) -> float:
        """What of `loop` was inside of the kernel."""
        return self.loop * self.kernel_ticks / max(1, self.kernel_ticks + self.user_ticks)


def _ticks(pid: int) -> tuple[int, int]:
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def _seconds(task: Path) -> float:
    return int((task / "schedstat").read_text().split()[0]) / 1e9


@dataclass(frozen=True)
class Primitives:
    """What the parts of the floor cost by themselves, in microseconds of processor time."""

    send_waking: float
    """A send over loopback to a process that sleeps, such as one to a peer."""
    receive: float
    """A receive of what is there."""
    sync: float
    """A write of 4 KiB and its fdatasync."""


@dataclass(frozen=True)
class Profile:
    """One cell."""

    cell: Cell
    rate: float
    entries_per_second: float
    usage: dict[str, Usage]
    """By role, microseconds for an operation."""
    folded: dict[str, Folded]
    echo: float
    """Of the server that does nothing, microseconds for an operation."""

    @property
    def operations_per_entry(self) -> float:
        """How many commands share an entry of the log; 0 when they make none."""
        return self.rate / self.entries_per_second if self.entries_per_second > 1 else 0.0

    def floor(self, role: str, cost: Primitives) -> float | None:
        """Return what no server with two peers could do without; None for what we do not know."""
        if not self.operations_per_entry:
            return self.echo if role == "leader" else None
        peer = cost.send_waking + cost.receive
        entry = cost.sync + peer * (2 if role == "leader" else 1)
        return entry / self.operations_per_entry + (self.echo if role == "leader" else 0.0)


# -- the floor --------------------------------------------------------------------------------------------


class _Echo(asyncio.Protocol):
    """Answers every SET and GET without keeping anything."""

    _BULK = b"$%d\r\n%b\r\n" % (VALUE_BYTES, b"x" * VALUE_BYTES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        # A command that is cut by the end of a piece is counted where its name is: good enough here.
        sets, gets = data.count(b"\r\nSET\r\n"), data.count(b"\r\nGET\r\n")
        if sets or gets:
            self._transport.write(b"+OK\r\n" * sets + self._BULK * gets)  # type: ignore[attr-defined]
        elif b"CONFIG" in data:
            self._transport.write(b"-ERR no\r\n" * data.count(b"CONFIG"))  # type: ignore[attr-defined]


async def serve_floor() -> None:
    """Serve until standard input ends, which it does when our parent is gone."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def floor_server() -> Iterator[tuple[str, int]]:
    """Run the server that does nothing; gives its address and process id."""
    process = subprocess.Popen(
        [sys.executable, __file__, SERVER_FLAG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}", process.pid
    finally:
        process.kill()
        process.communicate()


def measure_primitives(directory: Path, address: str) -> Primitives:
    """Time the system calls, in processor time of this thread."""
    command = pack_command("SET", "k", b"x" * VALUE_BYTES)
    sending = receiving = syncing = 0.0
    with socket.create_connection(split_address(address)) as connection:
        for _ in range(PROBES):
            time.sleep(0.0005)  # so that the other one sleeps as well
            before = time.thread_time()
            connection.send(command)
            sending += time.thread_time() - before
            time.sleep(0.0005)
            before = time.thread_time()
            connection.recv(1 << 16)
            receiving += time.thread_time() - before
    path = directory / "floor"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(file, 0, PROBES * 4096)
        os.fsync(file)
        for number in range(PROBES):
            before = time.thread_time()
            os.pwrite(file, b"x" * 4096, number * 4096)
            os.fdatasync(file)
            syncing += time.thread_time() - before
    finally:
        os.close(file)
        path.unlink()
    return Primitives(*(seconds * 1e6 / PROBES for seconds in (sending, receiving, syncing)))


# -- measuring --------------------------------------------------------------------------------------------


class Profiler:
    """Measures cells of a cluster and of the server that does nothing."""

    def __init__(self, ours: Ours, floor: tuple[str, int], directory: Path, seconds: float) -> None:
        self.ours = ours
        self.floor_address, self.floor_pid = floor
        self.directory = directory
        self.seconds = seconds
        self.program = find_profiler()

    def measure(self, cell: Cell) -> Profile:
        """Measure a cell without, then with the profiler."""
        leader = self.ours.leader()
        address = self.ours.cluster.nodes[leader].client_address
        follower = next(id for id in self.ours.cluster.nodes if id != leader)
        pids = {role: self._pid(id) for role, id in (("leader", leader), ("follower", follower))}
        count = int(self._calibrate(address, cell) * self.seconds)
        before = {role: Usage.of(pid) for role, pid in pids.items()}
        entries, began = raft_fact(address, "raft_commit_index"), time.monotonic()
        self._load(address, cell, count)
        elapsed = time.monotonic() - began
        entries = raft_fact(address, "raft_commit_index") - entries
        usage = {role: Usage.of(pid).since(before[role], count) for role, pid in pids.items()}
        profile = Profile(
            cell,
            count / elapsed,
            entries / elapsed,
            usage,
            self._sample(address, cell, pids),
            self._echo(cell),
        )
        if self.ours.leader() != leader:
            raise BenchError("leadership moved during a measurement; do it again")
        return profile

    def _pid(self, id: int) -> int:
        pid = self.ours.cluster.nodes[id].pid
        assert pid is not None
        return pid

    def _calibrate(self, address: str, cell: Cell) -> float:
        return calibrate([address], cell.operation, cell.clients, cell.pipeline)

    def _load(self, address: str, cell: Cell, count: int) -> None:
        redis_benchmark([address], cell.operation, cell.clients, cell.pipeline, count, SECONDS_MAX)

    def _echo(self, cell: Cell) -> float:
        count = int(self._calibrate(self.floor_address, cell) * min(1.0, self.seconds))
        before = Usage.of(self.floor_pid)
        self._load(self.floor_address, cell, count)
        return Usage.of(self.floor_pid).since(before, count).loop

    def _sample(self, address: str, cell: Cell, pids: dict[str, int]) -> dict[str, Folded]:
        """Load the cluster without end and look at both processes."""
        host, port = split_address(address)
        command = [require_program("redis-benchmark", "redis-tools"), "-h", host, "-p", str(port), "-q"]
        command += ["-c", str(cell.clients), "-P", str(cell.pipeline), "-n", str(10**9), "-r", str(KEYS)]
        command += ["-d", str(VALUE_BYTES), "-t", cell.operation.lower()]
        load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        try:
            time.sleep(0.3)
            looking = {role: self._look(role, pid) for role, pid in pids.items()}
            for role, (process, _) in looking.items():
                _, said = process.communicate(timeout=self.seconds + 60)
                if process.returncode != 0:
                    raise BenchError(f"py-spy failed on the {role}: {said.strip()[-500:]}")
        finally:
            load.kill()
            load.wait()
        return {role: fold(path.read_text().splitlines()) for role, (_, path) in looking.items()}

    def _look(self, role: str, pid: int) -> tuple[subprocess.Popen[str], Path]:
        path = self.directory / f"stacks-{role}"
        command = [self.program, "record", "--pid", str(pid), "--native", "--threads", "--format", "raw"]
        command += ["--rate", str(SAMPLES_PER_SECOND), "--duration", str(max(1, round(self.seconds)))]
        command += ["--output", str(path)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True), path


def find_profiler() -> str:
    """Return the path of py-spy, or say how to get it."""
    program = shutil.which("py-spy") or shutil.which("py-spy", path=sysconfig.get_path("scripts"))
    if program is None:
        raise BenchError("py-spy is not on PATH; get it with: pip install py-spy")
    return program


# -- printing ---------------------------------------------------------------------------------------------


def print_profile(profiles: list[Profile], cost: Primitives) -> None:
    """Print a summary and then a table of stages for each role."""
    console = Console(width=TABLE_WIDTH, highlight=False)
    labels = [profile.cell.label.removesuffix(" leader") for profile in profiles]
    table = Table("", *labels, box=MARKDOWN)
    table.add_row("op/s", *(f"{p.rate:,.0f}" for p in profiles))
    table.add_row("log entries/s", *(f"{p.entries_per_second:,.0f}" for p in profiles))
    for role in ("leader", "follower"):
        used = [profile.usage[role] for profile in profiles]
        table.add_row(f"{role}: us/op", *(f"{u.loop + u.others:.1f}" for u in used))
        table.add_row("  event loop", *(f"{u.loop:.1f}" for u in used))
        table.add_row("  of it kernel", *(f"{u.kernel / u.loop:.0%}" for u in used))
        table.add_row("  other threads", *(f"{u.others:.1f}" for u in used))
        floors = [profile.floor(role, cost) for profile in profiles]
        table.add_row("  floor", *("-" if floor is None else f"{floor:.1f}" for floor in floors))
    table.add_row("server that does nothing: us/op", *(f"{p.echo:.1f}" for p in profiles))
    console.print(table)
    print(
        f"a send that wakes a sleeping process {cost.send_waking:.1f} us, a receive {cost.receive:.1f} us, "
        f"a write and fdatasync of 4 KiB {cost.sync:.1f} us of processor time"
    )
    for role in ("leader", "follower"):
        print(f"\n{role}, event loop: us/op, and how much of it in system calls")
        table = Table("stage", *labels, box=MARKDOWN)
        for stage in STAGES:
            table.add_row(stage, *(_stage(profile, role, stage) for profile in profiles))
        table.add_row("samples", *(str(p.folded[role].samples.total()) for p in profiles))
        console.print(table)


def _stage(profile: Profile, role: str, stage: str) -> str:
    folded, usage = profile.folded[role], profile.usage[role]
    if folded.samples.total() < SAMPLES_MIN:
        return "-"
    cost, kernel = folded.cost(stage, usage.loop - usage.kernel, usage.kernel)
    return f"{cost:.1f} ({kernel:.1f})" if kernel >= 0.05 else f"{cost:.1f}"


def as_json(profile: Profile) -> dict[str, object]:
    """Return a cell as plain values."""
    return {
        "cell": asdict(profile.cell),
        "rate": profile.rate,
        "entries_per_second": profile.entries_per_second,
        "echo_us": profile.echo,
        "usage_us": {role: asdict(usage) for role, usage in profile.usage.items()},
        "samples": {
            role: {
                "all": dict(folded.samples),
                "in_kernel": dict(folded.in_kernel),
                "waiting": folded.waiting,
            }
            for role, folded in profile.folded.items()
        },
    }


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Where the time of a SET and a GET goes. Wants py-spy.")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default 3)")
    parser.add_argument(
        "--directory", type=Path, help="where data goes; a directory in it is made and removed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument(SERVER_FLAG, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.seconds <= 0:
        parser.error("--seconds must be positive")
    return options


def main() -> int:
    """Measure all cells and print the tables."""
    options = parse_options()
    if options.floor_server:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_floor())
        return 0
    leave_on_signals()
    check_table()
    find_profiler()
    with tempfile.TemporaryDirectory(prefix="balsadb-bench-", dir=options.directory) as name:
        directory = Path(name)
        machine = Machine.inspect(directory)
        with Ours(directory / "ours") as ours, floor_server() as floor:
            fill(ours.leader_address())
            cost = measure_primitives(directory, floor[0])
            profiler = Profiler(ours, floor, directory, options.seconds)
            profiles = []
            for cell in CELLS:
                print(f"measuring {cell.label}", file=sys.stderr, flush=True)
                profiles.append(profiler.measure(cell))
    for line in machine.lines():
        print(line)
    print(f"values of {VALUE_BYTES} bytes, all clients at the leader, 3 nodes; {options.seconds:g} s each")
    print_profile(profiles, cost)
    if options.json:
        document = {
            "machine": asdict(machine),
            "floor": asdict(cost),
            "cells": [as_json(p) for p in profiles],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, BalsaError) as error:
        sys.exit(f"profile_nodes: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
