"""What every benchmark needs: processes that are always ended, free ports, facts about the machine.

The programs of this directory start real servers on loopback and load them. Everything here is about doing
that without a trace: a server is a process that we started and know by its id, it is paused, resumed and
ended by that id alone, and it dies with us even when we are killed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import hiredis

PR_SET_PDEATHSIG = 1
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
POLL_SECONDS = 0.02
SYNC_PROBE_COUNT = 200
SYNC_PROBE_BYTES = 4096
OUTPUT_TAIL_CHARACTERS = 1500


class BenchError(Exception):
    """A benchmark cannot go on; the message is a sentence for the person who ran it."""


# -- processes --------------------------------------------------------------------------------------------


class Server:
    """A server process that we started: paused, resumed and ended by its id, and never outliving us."""

    def __init__(self, name: str, command: list[str], directory: Path) -> None:
        self.name = name
        self.command = command
        self.directory = directory
        self.log_path = directory.parent / f"{directory.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the running process."""
        if self.process is None:
            raise BenchError(f"{self.name} is not running")
        return self.process.pid

    def start(self) -> None:
        """Start the process; see `wait_for` for when it serves."""
        self.directory.mkdir(parents=True, exist_ok=True)
        # Variables such as ETCD_NAME would silently change what is measured.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_") or "ARCH" in k}
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def check(self) -> None:
        """Raise when the process has left by itself."""
        if self.process is not None and self.process.poll() is not None:
            raise BenchError(
                f"{self.name} left with status {self.process.returncode}; the end of its log:\n{self.tail()}"
            )

    def tail(self) -> str:
        """Return the last lines of its log."""
        try:
            return self.log_path.read_text(errors="replace")[-OUTPUT_TAIL_CHARACTERS:]
        except OSError:
            return ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End the process with SIGKILL, which also works on a paused one, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


def _die_with_parent() -> None:
    # Runs in the child: the kernel sends it SIGKILL when we are gone, however that happened.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def leave_on_signals() -> None:
    """Make SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that every `finally` ends its servers."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until the condition holds; a `BenchError` that says what was awaited when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise BenchError(f"after {seconds:g} s still waiting for {what}")
        time.sleep(POLL_SECONDS)


def require_program(name: str, package: str) -> str:
    """Return the path of a program, or say which package brings it."""
    path = shutil.which(name)
    if path is None:
        raise BenchError(f"{name} is not installed; it comes with Debian's package {package}")
    return path


def run_output(command: list[str], seconds: float, **environment: str) -> str:
    """Run a program to its end and return what it printed; anything unexpected is a `BenchError`."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} did not end within {seconds:g} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-OUTPUT_TAIL_CHARACTERS:]
        raise BenchError(f"{command[0]} failed with status {done.returncode}: {said}")
    return done.stdout


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process with all its threads has used."""
    # The name, in parentheses, may hold spaces; fields are counted from behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime, stime = int(fields[11]), int(fields[12])
    return (utime + stime) / CLOCK_TICKS


# -- sockets ----------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at; all are held at once, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def split_address(address: str) -> tuple[str, int]:
    """Split "host:port"."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def pack_command(*argv: str | bytes) -> bytes:
    """Encode one command as a Redis client does."""
    # Its stub describes a tuple of exactly one argument.
    anything: Any = argv
    packed: bytes = hiredis.pack_command(anything)
    return packed


def resp_calls(address: str, commands: Iterable[bytes], seconds: float) -> list[object]:
    """Send packed commands in one go and return their replies; an error reply is returned, not raised."""
    commands = list(commands)
    reader = hiredis.Reader()
    replies: list[object] = []
    try:
        with socket.create_connection(split_address(address), seconds) as connection:
            connection.settimeout(seconds)
            connection.sendall(b"".join(commands))
            while len(replies) < len(commands):
                data = connection.recv(1 << 16)
                if not data:
                    raise BenchError(f"{address} closed the connection")
                reader.feed(data)
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
    except OSError as error:
        raise BenchError(f"{address}: {error}") from None
    return replies


def resp_call(address: str, *argv: str | bytes, seconds: float = 2.0) -> object:
    """Send one command and return its reply; an error reply is raised."""
    reply = resp_calls(address, [pack_command(*argv)], seconds)[0]
    if isinstance(reply, Exception):
        raise BenchError(f"{address}: {reply}")
    return reply


def answers(address: str, *argv: str | bytes) -> bool:
    """True when a server gives something other than an error for a command."""
    try:
        resp_call(address, *argv)
    except BenchError:
        return False
    return True


def raft_fact(address: str, name: str) -> int:
    """Return a number of a BalsaDB node's `INFO raft`."""
    info = resp_call(address, "INFO", "raft", seconds=5.0)
    for line in info.decode().splitlines() if isinstance(info, bytes) else ():
        key, _, value = line.partition(":")
        if key == name:
            return int(value)
    raise BenchError(f"{address} does not tell {name}")


# -- the machine ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What a number is worth only together with."""

    processor: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    file_system: str
    """Type of the file system that holds the data; on tmpfs a sync costs nothing and nothing is durable."""
    sync_p50_ms: float
    """Median of an fdatasync of 4 KiB appended to a file there."""
    sync_p99_ms: float
    load_before: float
    """Load average of the last minute before we began: other work makes every number worse."""

    @classmethod
    def inspect(cls, directory: Path) -> Machine:
        """Look at this machine and measure its disk for a moment."""
        times = sorted(_sync_times(directory / "sync-probe"))
        return cls(
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
            kernel=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            file_system=_file_system(directory),
            sync_p50_ms=statistics.median(times) * 1e3,
            sync_p99_ms=times[int(len(times) * 0.99)] * 1e3,
            load_before=os.getloadavg()[0],
        )

    def lines(self) -> list[str]:
        """Return the facts as sentences, with a warning where they spoil the numbers."""
        lines = [
            f"machine: {self.processor}, {self.cores} cores, {self.memory_gib:.0f} GiB; {self.kernel}; "
            f"Python {self.python}; everything, load generators included, runs on these cores over loopback",
            f"disk: {self.file_system}, fdatasync of 4 KiB p50 {self.sync_p50_ms:.2f} ms "
            f"p99 {self.sync_p99_ms:.2f} ms",
        ]
        if self.file_system in {"tmpfs", "ramfs"}:
            lines.append("WARNING: the data lies in memory, a sync is free here; choose another --directory")
        if self.load_before > self.cores / 4:
            lines.append(
                f"WARNING: the machine was busy before we began (load average {self.load_before:.1f})"
            )
        return lines


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(directory: Path) -> str:
    """Return the type of the mount with the longest path that contains the directory."""
    best, kind = "", "unknown file system"
    path = f"{directory.resolve()}/"
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return kind
    for mount in mounts:
        _, point, found, *_ = mount.split()
        if path.startswith(point.rstrip("/") + "/") and len(point) >= len(best):
            best, kind = point, found
    return kind


def _sync_times(path: Path) -> list[float]:
    times = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(file, 0, SYNC_PROBE_COUNT * SYNC_PROBE_BYTES)
        os.fsync(file)
        for number in range(SYNC_PROBE_COUNT):
            os.pwrite(file, bytes([number % 255 + 1]) * SYNC_PROBE_BYTES, number * SYNC_PROBE_BYTES)
            start = time.perf_counter()
            os.fdatasync(file)
            times.append(time.perf_counter() - start)
    finally:
        os.close(file)
        path.unlink()
    return times
