"""What a cluster takes on disk and in memory, sampled while it is loaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from balsadb.testing import LocalCluster

SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class Sample:
    """One look at one node. All in bytes."""

    log: int
    """Files of the write-ahead log, the one that is filled ahead of need included."""
    state: int
    """Files of the state directories."""
    memory: int
    """Resident memory of the process."""


@dataclass
class Footprint:
    """All samples of some time, by node."""

    samples: dict[int, list[Sample]] = field(default_factory=dict)

    @property
    def log_max(self) -> int:
        """Largest log of any node at any moment."""
        return max(sample.log for samples in self.samples.values() for sample in samples)


def size_below(path: Path) -> int:
    """Return the bytes of all files below a directory. Files may come and go meanwhile."""
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue
    return total


def resident(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def look(cluster: LocalCluster) -> dict[int, Sample]:
    """Look at every node that runs."""
    found = {}
    for node in cluster.running:
        assert node.pid is not None
        group = node.data_dir / "group-0"
        found[node.id] = Sample(size_below(group / "wal"), size_below(group / "state"), resident(node.pid))
    return found


@contextmanager
def watching(cluster: LocalCluster) -> Iterator[Footprint]:
    """Sample every node until the block ends."""
    footprint = Footprint()
    stop = threading.Event()

    def run() -> None:
        while True:
            for node, sample in look(cluster).items():
                footprint.samples.setdefault(node, []).append(sample)
            if stop.wait(SAMPLE_SECONDS):
                return

    thread = threading.Thread(target=run, name="footprint", daemon=True)
    thread.start()
    try:
        yield footprint
    finally:
        stop.set()
        thread.join()
