"""Real processes end at every step of a cut, in every way: one whole cut is left (rule C1).

SIGKILL alone would not show it: RocksDB writes out what it has in memory when a process ends in an orderly
way, so an uncaught exception or a plain exit is when half a cut could become durable.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from balsadb.kv.machine import StateMachine
from balsadb.storage.state import StateStore
from kv.some_log import MEMBERS, SomeLog

pytestmark = pytest.mark.slow

LOG = SomeLog(120)
CUTS = (10, 35, 36, 80)
"""Where the child makes cuts; the second one is made durable, as one that lets the log go is."""
FLUSHED = 35
LAST = 80

PROGRAM = """
import os, signal, sys
from kv.some_log import MEMBERS, SomeLog
from balsadb.kv import cut as cut_module
from balsadb.kv.machine import StateMachine
from balsadb.storage.state import StateStore

path, step, way = sys.argv[1:]
cut_module.SLICE_KEYS = 3

def end():
    print("ends", flush=True)
    if way == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif way == "os._exit":
        os._exit(3)
    elif way == "exception":
        raise RuntimeError("on purpose")
    elif way == "close":
        store.close()
    sys.exit(4)

log, store = SomeLog(120), StateStore(path)
machine = StateMachine(MEMBERS, store, None, 500)
for index in (10, 35, 36, 80):
    cut = log.apply(machine, index).freeze()
    log.apply(machine, index + 15 if index == 80 else index)  # applying goes on while a cut is written
    last = index == 80
    while machine.store.count(cut):
        pass
    batch = store.batch()
    slices = cut.build(batch)
    if last and step == "between slices":
        for _ in range(6):
            next(slices)
        end()
    for _ in slices:
        pass
    if last and step == "built":
        end()
    assert store.write(batch)
    if last and step == "written":
        end()
    if index == 35 or last:
        store.flush()
    machine.store.written(cut)
end()
"""


def child(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    tests = str(Path(__file__).parent.parent)
    path = os.pathsep.join([tests, *sys.path])
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


def left_behind(path: str) -> int:
    """Check that the state is right after one entry, whole, and goes on; returns that entry's index."""
    store = StateStore(path)
    try:
        found = store.bookkeeping
        machine = StateMachine(MEMBERS, store, found, 500)
        index = machine.applied_index
        assert machine.digest() == LOG.digest(index)
        # The entries behind it are applied again from the log, each once.
        assert LOG.apply(machine, 120).digest() == LOG.digest(120)
    finally:
        store.close()
    return index


WAYS = {"SIGKILL": -signal.SIGKILL, "os._exit": 3, "exception": 1, "exit": 4, "close": 4}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", ["between slices", "built", "written", "flushed"])
def test_a_process_that_ends_at_any_step_leaves_exactly_one_whole_cut(tmp_path, step, way):
    path = str(tmp_path / "state")
    done = child(PROGRAM, path, step, way)
    assert done.stdout == "ends\n", done.stderr
    assert done.returncode == WAYS[way], done.stderr
    index = left_behind(path)
    assert index in CUTS
    assert index >= FLUSHED
    if step in ("between slices", "built"):
        assert index < LAST
    if step == "flushed":
        assert index == LAST


UNENDING = """
import os, signal, sys, threading, time
from kv.some_log import MEMBERS, SomeLog
from balsadb.kv.machine import StateMachine
from balsadb.storage.state import StateStore

path, way, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
log, store = SomeLog(120), StateStore(path)
machine = StateMachine(MEMBERS, store, None, 500)

def end():
    time.sleep(seconds)
    if way == "os._exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL if way == "SIGKILL" else signal.SIGINT)

threading.Thread(target=end, daemon=True).start()
while True:
    cut = log.apply(machine, min(machine.applied_index + 1, 120)).freeze()
    while machine.store.count(cut):
        pass
    batch = store.batch()
    for _ in cut.build(batch):
        pass
    assert store.write(batch)
    if cut.index % 3 == 0:
        store.flush()
    machine.store.written(cut)
"""


@pytest.mark.parametrize("way", ["SIGKILL", "os._exit", "SIGINT"])
@pytest.mark.parametrize("seconds", ["0.0", "0.03", "0.1"])
def test_a_process_that_ends_at_any_moment_leaves_one_whole_cut(tmp_path, way, seconds):
    """SIGINT raises wherever the process is, also between two calls that belong together."""
    path = str(tmp_path / "state")
    done = child(UNENDING, path, way, seconds)
    assert done.returncode in (-signal.SIGKILL, 3, -signal.SIGINT, 1, 130), done.stderr
    left_behind(path)


HALVES = """
import sys
from balsadb.kv.cut import encode_bookkeeping, encode_record
from kv.delta_model import bookkeeping
from balsadb.storage.state import StateStore

store = StateStore(sys.argv[1])
for half in (b"a", b"b"):
    batch = store.batch()
    batch.put(half, encode_record((half, 1, 0)))
    if half == b"b":
        batch.bookkeeping(encode_bookkeeping(bookkeeping(1)))
    assert store.write(batch)
    if half == b"a":
        raise SystemExit(5)
"""


def test_a_cut_in_two_writes_would_not_be_atomic(tmp_path):
    """Why a cut is one batch: a normal exit makes what was written so far durable."""
    path = str(tmp_path / "state")
    assert child(HALVES, path).returncode == 5
    store = StateStore(path)
    assert (store.get(b"a"), store.bookkeeping) == ((b"a", 1, 0), None)
    store.close()
