"""Real processes end at named points of storage, in every way; what they acknowledged is there afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from balsadb.kv.machine import StateMachine
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.files import OsFiles
from balsadb.storage.opening import open_log
from balsadb.storage.state import StateDirectory, StateStore
from kv.some_log import MEMBERS
from storage import crashing
from storage.crash_points import WHAT_MUST_HOLD, WHAT_MUST_HOLD_ON_A_REAL_DISK
from storage.history import CLUSTER, LENGTH, LOG, entry

pytestmark = pytest.mark.slow

POINTS = (
    "first META: write",
    "first META: rename",
    "META: create META.tmp",
    "META: write",
    "META: sync",
    "META: rename",
    "META: sync the directory",
    "first segment: write zeros",
    "first segment: rename",
    "log: write entries",
    "log: sync entries",
    "log: write a hard state",
    "log: sync a hard state",
    "log: write the first batch of a segment",
    "segment ahead: write zeros",
    "next segment, of the spare: write the header",
    "next segment, of the spare: rename",
    "next segment, of the spare: sync the log's directory",
    "next segment, at once: write the header",
    "next segment, at once: rename",
    "compaction: write the new beginning",
    "compaction: sync the new beginning",
    "compaction: remove a segment",
    "compaction: sync the log's directory",
    "state: write a cut",
    "state: flush",
    *WHAT_MUST_HOLD_ON_A_REAL_DISK,
)
WAYS = {"SIGKILL": -signal.SIGKILL, "os._exit": 3, "exception": 1, "exit": 4}


def run_until(path: Path, point: str, way: str) -> dict[str, int]:
    """Run the program until it ends there; returns what it acknowledged last of each kind."""
    search = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, crashing.__file__, str(path), point, way],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert lines[-1:] == ["ends"], f"{point} was never met: {done.stdout[-200:]} {done.stderr[-2000:]}"
    assert done.returncode == WAYS[way], done.stderr
    return {word: int(number) for word, number in map(str.split, lines[:-1])}


def check_what_is_left(path: Path, acknowledged: dict[str, int]) -> None:
    """Start on what is left, compare it with what was acknowledged, and go on to the end."""
    files = OsFiles()
    directory = DataDirectory.open(str(path), files, 1, CLUSTER)
    try:
        assert directory.meta.boot > acknowledged.get("meta", 0)
        states = StateDirectory(files, directory.state_path)
        current = states.current()
        states.clean()
        store = StateStore(current.path)
        try:
            held = store.bookkeeping
            wal, recovered = open_log(
                files, directory.wal_path, directory.meta.store_id, crashing.OPTIONS, held, current.installed
            )
            try:
                assert recovered.last_index >= acknowledged.get("entries", 0)
                found = []
                while recovered.first_index + len(found) <= recovered.last_index:
                    first = recovered.first_index + len(found)
                    found += wal.read(first, recovered.last_index, 1 << 20)
                wanted = range(recovered.first_index, recovered.last_index + 1)
                assert found == list(map(entry, wanted))
            finally:
                wal.close()
            machine = StateMachine(MEMBERS, store, held, 500)
            assert machine.applied_index >= acknowledged.get("state", 0)
            assert machine.applied_index >= recovered.first_index - 1
            assert machine.digest() == LOG.digest(machine.applied_index)
            assert LOG.apply(machine, LENGTH).digest() == LOG.digest(LENGTH)
        finally:
            store.close()
    finally:
        directory.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("point", POINTS)
def test_a_process_that_ends_at_a_step_finds_what_it_had_acknowledged(tmp_path, point, way):
    assert point in {**WHAT_MUST_HOLD, **WHAT_MUST_HOLD_ON_A_REAL_DISK}
    path = tmp_path / "node"
    check_what_is_left(path, run_until(path, point, way))
