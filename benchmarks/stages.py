"""What a server was doing when it was looked at: stacks of a sampling profiler, folded into stages.

A stack belongs to the stage of its innermost frame that the table knows, so that what `apply` calls is
counted as apply, whoever wrote it. Only the thread of the event loop is folded: what the others cost is known
from the kernel, and they are few enough to be told apart by their names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import balsadb
from harness import BenchError

READ, PARSE, INTAKE, RAFT = "socket reads", "parse", "intake", "propose, replicate, commit"
WAL, PEERS_OUT, PEERS_IN = "WAL: write, begin sync", "peers: encode, send", "peers: decode"
RUN, ENCODE, WRITE = "run commands", "reply: encode", "reply: write"
CUTS, GARBAGE, LOOP, OTHER = "cuts", "garbage collection", "event loop itself", "other"
STAGES = (READ, PARSE, INTAKE, RAFT, WAL, PEERS_OUT, PEERS_IN, RUN, ENCODE, WRITE, CUTS, GARBAGE, LOOP, OTHER)

# By file, or by file and function where a file takes part in several; the more precise one wins.
_TABLE = {
    "resp/parser.py": PARSE,
    "resp/inline.py": PARSE,
    "server/connection.py": INTAKE,
    "server/connection.py:flush": ENCODE,
    "server/connection.py:_encode": ENCODE,
    "server/intake.py": INTAKE,
    "server/admission.py": INTAKE,
    "server/listener.py": INTAKE,
    "server/listener.py:flush": ENCODE,
    "server/driver.py": RAFT,
    "server/peers.py": PEERS_IN,
    "server/peers.py:send": PEERS_OUT,
    "wire/frame.py": PEERS_IN,
    "wire/frame.py:encode_frame": PEERS_OUT,
    "wire/frame.py:_encode_frame": PEERS_OUT,
    "server/disk.py": WAL,
    "server/kernel_sync.py": WAL,
    "storage/wal.py": WAL,
    "storage/files.py": WAL,
    "storage/records.py": WAL,
    "storage/segments.py": WAL,
    "replica/request.py": INTAKE,
    "replica/replica.py": RAFT,
    "replica/replica.py:submit": INTAKE,
    "replica/replica.py:_dispatch": INTAKE,
    "replica/replica.py:_apply": RUN,
    "replica/replica.py:_apply_commands": RUN,
    "replica/replica.py:_answer_reads": RUN,
    "replica/replica.py:_read_all": RUN,
    "replica/replica.py:_run": RUN,
    "replica/replica.py:_finish": RUN,
    "replica/proposals.py": RAFT,
    "replica/reads.py": RAFT,
    "raft/": RAFT,
    "kv/batch.py:encode_batch": RAFT,
    "kv/table.py": INTAKE,
    "kv/command.py": INTAKE,
    "kv/": RUN,
    "storage/state.py": RUN,
    "resp/encode.py": ENCODE,
    "server/cuts.py": CUTS,
    "server/http.py": OTHER,
}
_FRAME = re.compile(r"(?P<function>\S+) \(balsadb/(?P<file>[a-z_/]+\.py):\d+\)")
_SYSTEM_CALLS = re.compile(
    r"(?:read|recv\w*|write|writev|send\w*|syscall|fdatasync|pwrite\w*|fallocate) \(lib"
)
_WAITS = re.compile(r"(?:epoll_p?wait|pthread_cond_timedwait|sem_\w*wait) \(lib")
_MAIN = "MainThread"


def check_table() -> None:
    """Raise when the table names a file that is no more: its time would silently count as another stage."""
    root = Path(balsadb.__file__).parent
    gone = {name.partition(":")[0] for name in _TABLE if not (root / name.partition(":")[0]).exists()}
    if gone:
        raise BenchError(f"the stages name files that do not exist: {', '.join(sorted(gone))}")


@dataclass
class Folded:
    """Samples of the event loop's thread, by stage."""

    samples: Counter[str] = field(default_factory=Counter)
    in_kernel: Counter[str] = field(default_factory=Counter)
    """Of these, those that were in a system call."""
    waiting: int = 0
    """Samples in a wait for events or for the interpreter's lock, which cost hardly any processor time."""

    def cost(self, stage: str, user: float, kernel: float) -> tuple[float, float]:
        """Split the time of the thread: return what a stage costs, and what of it are system calls.

        Samples inside and outside of the kernel are shared out by themselves. A thread that has to wait for
        a processor does so at the end of a system call that has waked somebody, and the profiler cannot tell
        that from work; so, where processors are scarce, it sees far too much of system calls.
        """
        outside = self.samples.total() - self.in_kernel.total()
        in_kernel = kernel * self.in_kernel[stage] / max(1, self.in_kernel.total())
        return user * (self.samples[stage] - self.in_kernel[stage]) / max(1, outside) + in_kernel, in_kernel


def fold(lines: Iterable[str]) -> Folded:
    """Fold lines `thread;outermost;...;innermost COUNT`."""
    folded = Folded()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not (frames[0].endswith(_MAIN) and count.strip().isdigit()):
            continue
        if any(_WAITS.match(frame) for frame in frames[-3:]):
            folded.waiting += int(count)
            continue
        stage = stage_of(frames)
        folded.samples[stage] += int(count)
        if _SYSTEM_CALLS.match(frames[-1]):
            folded.in_kernel[stage] += int(count)
    return folded


def stage_of(frames: list[str]) -> str:
    """Return the stage of one stack, its outermost frame first."""
    if any("(balsadb/server/cuts.py:" in frame for frame in frames):
        return CUTS
    if any(frame.startswith("gc_collect_main") for frame in frames):
        return GARBAGE
    inside_uvloop = False
    for frame in reversed(frames):
        found = _FRAME.match(frame)
        if found is None:
            if frame.startswith("uv__read "):
                return READ
            inside_uvloop |= "(loop.c:" in frame or "(stream.c:" in frame or "(core.c:" in frame
            continue
        file, function = found["file"], found["function"].rpartition(".")[2]
        folder = file.partition("/")[0] + "/"
        for name in (f"{file}:{function}", file, folder):
            if name in _TABLE:
                stage = _TABLE[name]
                return WRITE if stage == ENCODE and inside_uvloop else stage
    return LOOP
