"""Load generators and their results: `redis-benchmark` for RESP, our `etcdbench` for etcd.

Both are compiled programs whose clients are closed loops, so that the generator is neither the bottleneck
nor a difference. A result is what one generator measured in one cell; `merge` joins generators that ran at
the same time.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from harness import (
    OUTPUT_TAIL_CHARACTERS,
    BenchError,
    pack_command,
    require_program,
    resp_calls,
    run_output,
    split_address,
)

VALUE_BYTES = 256
KEYS = 10_000
FILL_CHUNK = 500
"""Commands sent in one go while filling; far below every server's limit for what one client may queue."""

PROBE_SECONDS = 0.4
"""The calibrating run is repeated until it has lasted this long: shorter ones measure connection set-up."""
PROBE_ROUNDS_MAX = 4
GOPATH = "/usr/share/gocode"
"""Where Debian's golang-*-dev packages put their sources."""
BUILD_SECONDS = 600


@dataclass(frozen=True)
class Result:
    """What a load generator measured. Latencies in milliseconds."""

    operations: int
    rate: float
    """Operations a second."""
    p50: float
    p95: float
    p99: float
    maximum: float
    errors: int = 0
    gap_ms: float = 0.0
    """Longest time in which no client had a success; only etcdbench reports it."""
    client_gap_ms: float = 0.0
    first_error: str = ""


def merge(results: Sequence[Result]) -> Result:
    """Join generators that ran side by side.

    The rate is all operations over the time of the slowest, which is fair to nobody but the reader. The
    median is the mean of medians weighted by operations; of the tails the worst counts.
    """
    if len(results) == 1:
        return results[0]
    operations = sum(r.operations for r in results)
    seconds = max(r.operations / r.rate for r in results)
    return Result(
        operations=operations,
        rate=operations / seconds,
        p50=sum(r.p50 * r.operations for r in results) / operations,
        p95=max(r.p95 for r in results),
        p99=max(r.p99 for r in results),
        maximum=max(r.maximum for r in results),
        errors=sum(r.errors for r in results),
    )


def shares(total: int, parts: int) -> list[int]:
    """Split a number into equal whole parts, the first ones greater by one where it does not divide."""
    return [total // parts + (1 if i < total % parts else 0) for i in range(parts)]


# -- RESP -------------------------------------------------------------------------------------------------


def fill(address: str) -> None:
    """Write every key once, so that each GET of a benchmark finds a value."""
    value = b"x" * VALUE_BYTES
    for start in range(0, KEYS, FILL_CHUNK):
        chunk = [
            pack_command("SET", f"key:{i:012d}", value) for i in range(start, min(start + FILL_CHUNK, KEYS))
        ]
        for reply in resp_calls(address, chunk, 30.0):
            if reply != b"OK":
                raise BenchError(f"{address} answered {reply!r} to a SET")


def calibrate(
    addresses: Sequence[str], operation: str, clients: int, pipeline: int, keys: int = KEYS
) -> float:
    """Find roughly how many operations a second to expect: redis-benchmark takes a count, not a time."""
    count = clients * pipeline * 10 if clients > 1 else 200
    rate = 0.0
    for _ in range(PROBE_ROUNDS_MAX):
        rate = redis_benchmark(addresses, operation, clients, pipeline, count, 60.0, keys).rate
        if count / rate >= PROBE_SECONDS * 0.7:
            break
        count = max(count, int(rate * PROBE_SECONDS))
    return rate


def redis_benchmark(
    addresses: Sequence[str],
    operation: str,
    clients: int,
    pipeline: int,
    count: int,
    seconds_max: float,
    keys: int = KEYS,
) -> Result:
    """Run one redis-benchmark for each address, all at once, with clients and requests shared out evenly."""
    program = require_program("redis-benchmark", "redis-tools")
    processes: list[subprocess.Popen[str]] = []
    counts = shares(max(count, clients), len(addresses))
    with ExitStack() as stack:
        for address, part, number in zip(addresses, shares(clients, len(addresses)), counts, strict=True):
            host, port = split_address(address)
            command = [program, "-h", host, "-p", str(port), "-c", str(part), "-n", str(number)]
            command += ["-P", str(pipeline), "-d", str(VALUE_BYTES), "-r", str(keys)]
            command += ["-t", operation.lower(), "--csv"]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
            )
            # It tries for ever, with a whole processor, to connect to a server that is gone: always end it.
            stack.callback(_end, process)
            processes.append(process)
        return merge([_finish(p, number, seconds_max) for p, number in zip(processes, counts, strict=True)])


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()


def _finish(process: subprocess.Popen[str], count: int, seconds_max: float) -> Result:
    try:
        output, complaint = process.communicate(timeout=seconds_max)
    except subprocess.TimeoutExpired:
        raise BenchError(f"redis-benchmark did not end within {seconds_max:g} s") from None
    if process.returncode != 0:
        said = complaint.strip()[-OUTPUT_TAIL_CHARACTERS:]
        raise BenchError(f"redis-benchmark failed with status {process.returncode}: {said}")
    return parse_redis_benchmark(output, count)


def parse_redis_benchmark(output: str, operations: int) -> Result:
    """Read the one row that `redis-benchmark --csv` prints for one test."""
    rows = list(csv.DictReader(output.splitlines()))
    try:
        (row,) = rows
        return Result(
            operations=operations,
            rate=float(row["rps"]),
            p50=float(row["p50_latency_ms"]),
            p95=float(row["p95_latency_ms"]),
            p99=float(row["p99_latency_ms"]),
            maximum=float(row["max_latency_ms"]),
        )
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"redis-benchmark printed something unexpected: {output!r}") from None


# -- many writes, as fast as they go ----------------------------------------------------------------------


class Values:
    """Random values, which no compression makes smaller; cheap, because they are cut from one block."""

    BLOCK_BYTES = 1 << 20

    def __init__(self) -> None:
        self._random = random.Random()
        self._block = os.urandom(self.BLOCK_BYTES)

    def draw(self, length: int) -> bytes:
        """Return some bytes."""
        start = int(self._random.random() * (self.BLOCK_BYTES - length))
        return self._block[start : start + length]


class Writers:
    """Threads that set keys over pipelined connections, one piece at a time."""

    CONNECTIONS = 4
    PIECE_COMMANDS = 256

    def __init__(self, address: str, numbers: Iterator[int]) -> None:
        """Set `key:<number>` for each of the numbers; the iterator may be endless."""
        self.operations = 0
        """Writes that were acknowledged."""
        self.seconds = 0.0
        """From the start to the end of the last thread."""
        self._address = address
        self._numbers = numbers
        self._lock = threading.Lock()
        self._stopping = False
        self._failure: BenchError | OSError | None = None
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(self.CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more numbers."""
        self._stopping = True

    def wait(self, seconds: float) -> None:
        """Wait until all that was begun is acknowledged. Raises BenchError when something was not."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise BenchError(f"writes to {self._address} did not end within {seconds:g} s")
        self.seconds = time.monotonic() - self._began
        if self._failure is not None:
            raise BenchError(f"{self._address}: {self._failure}")

    def _run(self) -> None:
        values = Values()
        try:
            with socket.create_connection(split_address(self._address), 30.0) as connection:
                while not self._stopping and self._failure is None:
                    with self._lock:
                        numbers = list(islice(self._numbers, self.PIECE_COMMANDS))
                    if not numbers:
                        return
                    self._write(connection, numbers, values)
        except (BenchError, OSError) as error:
            self._failure = error

    def _write(self, connection: socket.socket, numbers: list[int], values: Values) -> None:
        # By hand: the generator shares the cores with what it measures.
        head, length = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$%d\r\n%b\r\n", VALUE_BYTES
        connection.sendall(b"".join([head % (n, length, values.draw(length)) for n in numbers]))
        expected = b"+OK\r\n" * len(numbers)
        got = b""
        while len(got) < len(expected):
            data = connection.recv(1 << 16)
            if not data:
                raise BenchError("the connection was closed")
            got += data
            if not expected.startswith(got):
                raise BenchError(f"a SET was answered {got[-200:]!r}")
        with self._lock:
            self.operations += len(numbers)


# -- etcd -------------------------------------------------------------------------------------------------


class EtcdBench:
    """The load generator for etcd, built once from the source beside this file with Debian's packages."""

    def __init__(self) -> None:
        self.program = _build(Path(__file__).parent / "etcdbench" / "main.go")

    def run(self, endpoints: Sequence[str], mode: str, clients: int, seconds: float, *flags: str) -> Result:
        """Load the endpoints; `mode` is put, get, sget or fill."""
        return parse_etcdbench(
            run_output(self.command(endpoints, mode, clients, seconds, *flags), 60 + seconds)
        )

    def command(
        self, endpoints: Sequence[str], mode: str, clients: int, seconds: float, *flags: str
    ) -> list[str]:
        """Return the command line, for callers that do something else meanwhile."""
        command = [str(self.program), "-e", ",".join(endpoints), "-m", mode, "-c", str(clients)]
        return [*command, "-d", f"{seconds}s", "-s", str(VALUE_BYTES), "-k", str(KEYS), *flags]


def parse_etcdbench(output: str) -> Result:
    """Read the line of JSON that etcdbench prints."""
    try:
        report = json.loads(output)
        return Result(
            operations=int(report["operations"]),
            rate=report["operations"] / report["seconds"],
            p50=float(report["p50_ms"]),
            p95=float(report["p95_ms"]),
            p99=float(report["p99_ms"]),
            maximum=float(report["max_ms"]),
            errors=int(report["errors"]),
            gap_ms=float(report["gap_ms"]),
            client_gap_ms=float(report["client_gap_ms"]),
            first_error=str(report["first_error"]),
        )
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"etcdbench printed something unexpected: {output!r}") from None


def _build(source: Path) -> Path:
    """Build the program into the user's cache, or take the one that was built from the same source."""
    hint = "or leave etcd out with --skip-etcd"
    go = shutil.which("go")
    if go is None or not Path(GOPATH, "src/go.etcd.io/etcd/clientv3").is_dir():
        raise BenchError(
            "the load generator for etcd is built with Debian's packages golang-go and "
            f"golang-etcd-server-dev, which are not installed; install them {hint}"
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "balsadb-benchmarks"
    program = cache / f"etcdbench-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if program.exists():
        return program
    print("building etcdbench (once, about a minute) ...", file=sys.stderr, flush=True)
    # GOPATH mode wants the package below a src directory of its path.
    tree = cache / "gopath"
    package = tree / "src" / "etcdbench"
    package.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, package / "main.go")
    temporary = program.with_suffix(".new")
    run_output(
        [go, "build", "-o", str(temporary), "etcdbench"],
        BUILD_SECONDS,
        GO111MODULE="off",
        GOPATH=f"{tree}:{GOPATH}",
        GOCACHE=str(cache / "go-build"),
    )
    temporary.rename(program)
    return program
