"""A process that uses all of storage and ends at a named point: `python crashing.py DIRECTORY POINT WAY`.

It prints what it has acknowledged, a line at a time: `entries LAST`, `state INDEX`, `meta BOOT`.
"""

from __future__ import annotations

import os
import signal
import sys

import msgspec

from balsadb.kv.machine import StateMachine
from balsadb.raft.ready import LogStart, WriteBatch
from balsadb.raft.types import HardState
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.files import OsFiles
from balsadb.storage.opening import open_log
from balsadb.storage.state import StateDirectory, StateStore
from balsadb.storage.wal import WalOptions
from kv.some_log import MEMBERS, SomeLog
from storage.crash_points import name_of
from storage.history import CLUSTER, entry

OPTIONS = WalOptions(segment_bytes=4096)
LOG = SomeLog(120)


class EndingFile:
    """A file whose operations may be the last ones."""

    def __init__(self, files, path, file):
        self._files, self._path, self._file = files, path, file

    def write(self, buffers, offset):
        data = b"".join(buffers)
        # Half of it is there when the process ends.
        self._files.before("write", self._path, lambda: self._file.write([data[: len(data) // 2]], offset))
        self._file.write([data], offset)

    def sync(self):
        self._files.before("sync", self._path)
        self._file.sync()

    def __getattr__(self, name):
        return getattr(self._file, name)


class EndingFiles(OsFiles):
    """The real file system, until a named point is met."""

    def __init__(self, point, way):
        self._point, self._way = point, way
        self.cleanup = lambda: None

    def before(self, what, path, half=lambda: None):
        if name_of(what, path) == self._point:
            half()
            self.end()

    def end(self):
        print("ends", flush=True)
        if self._way == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._way == "os._exit":
            os._exit(3)
        elif self._way == "exception":
            raise RuntimeError("on purpose")
        self.cleanup()
        sys.exit(4)

    def open(self, path, *, create=False):
        if create:
            self.before("create", path)
        return EndingFile(self, path, super().open(path, create=create))

    def rename(self, old, new):
        self.before("rename", new)
        super().rename(old, new)

    def remove(self, path):
        self.before("remove", path)
        super().remove(path)

    def sync_directory(self, path):
        if os.path.basename(path) in ("wal", "state", "node") and _named():
            self.before("sync", path)
        super().sync_directory(path)


def _named():
    """Making directories syncs their parents; that has no name of its own."""
    frame = sys._getframe(2)
    return frame.f_code.co_name != "make_directories"


def told(what, number):
    print(what, number, flush=True)


def main(path, point, way):
    files = EndingFiles(point, way)
    DataDirectory.open(path, files, 1, CLUSTER).close()
    told("meta", 1)
    directory = DataDirectory.open(path, files, 1, CLUSTER)
    told("meta", directory.meta.boot)
    states = StateDirectory(files, directory.state_path)
    current = states.current()
    store = StateStore(current.path)
    files.cleanup = store.close
    held = store.bookkeeping
    wal, recovered = open_log(
        files, directory.wal_path, directory.meta.store_id, OPTIONS, held, current.installed
    )
    machine = StateMachine(MEMBERS, store, held, 500)
    number, last = 0, recovered.last_index

    def bring(entries, state=None, start=None):
        nonlocal number
        number += 1
        write = wal.plan(WriteBatch(number, entries, state, start))
        wal.execute(write)
        wal.complete(write)

    while last < 120:
        new = range(last + 1, min(120, last + 3) + 1)
        bring(tuple(map(entry, new)))
        last = new[-1]
        told("entries", last)
        bring((), HardState(1 + last // 10, 1, last))
        if last > 60:
            wal.prepare()
        if last % 4 == 0:
            wal.note_end()
        if last % 30 == 0:
            cut = LOG.apply(machine, last).freeze()
            while machine.store.count(cut):
                pass
            batch = store.batch()
            for _ in cut.build(batch):
                pass
            if point == "state: write a cut":
                files.end()
            assert store.write(batch)
            if point == "state: flush":
                files.end()
            store.flush()
            machine.store.written(cut)
            told("state", last)
            bring((), None, LogStart(last - 5, 1 + (last - 5) // 10, True))
            wal.collect()
        if last == 60:
            directory.update_meta(msgspec.structs.replace(directory.meta, admitted=True))
    # A copy takes the place of the state, as one that was received does.
    copy = states.fresh()
    store.checkpoint(copy)
    states.switch(os.path.basename(copy), 120)
    print("finished", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
