"""Reading a node's data without touching it: the state on disk, and the keys as of the last committed entry.

RocksDB and its wrapper write small files even when they only read. So a state is opened through a directory
of links, which takes those writes and is removed afterwards.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from balsadb.errors import DataError
from balsadb.kv.machine import StateMachine
from balsadb.raft.configuration import decode_configuration
from balsadb.raft.entry import Entry, decode_entry
from balsadb.raft.options import Recovered
from balsadb.raft.types import EntryKind, Index, NodeId
from balsadb.storage.files import OsFiles
from balsadb.storage.index import LogIndex
from balsadb.storage.log_end import NAME, LogEnd, check_present, check_reached, decode_end
from balsadb.storage.meta import Meta
from balsadb.storage.recovery import REPLACE, Replay
from balsadb.storage.state import REPAIR, Current, StateStore
from balsadb.storage.wal import check_header, segment_names

READ_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of entries that are looked up at a time."""


def read_file(path: str, bytes_max: int = -1) -> bytes:
    """Read a file, or its beginning, without the right or the wish to write it."""
    with open(path, "rb") as file:
        return file.read(bytes_max)


def read_end(directory: str, store_id: bytes) -> LogEnd | None:
    """Read how far the log in `directory` certainly reached. Raises DataError when that can't be trusted."""
    path = f"{directory}/{NAME}"
    try:
        data = read_file(path)
    except FileNotFoundError:
        return None
    return decode_end(path, data, store_id)[1]


@contextmanager
def open_state(current: Current | None) -> Iterator[StateStore | None]:
    """Open a state for reading, leaving its directory as it is. None: there is none.

    Raises DataError when it is damaged.
    """
    if current is None or not os.path.exists(f"{current.path}/CURRENT"):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="balsadb-view-") as view:
        for name in os.listdir(current.path):
            if not _is_rewritten(name):
                os.symlink(os.path.abspath(f"{current.path}/{name}"), f"{view}/{name}")
        try:
            store = StateStore(view, read_only=True)
            try:
                yield store
            finally:
                store.close()
        except DataError as error:
            if error.path != view:
                raise
            # The sentence must name the directory that was meant, and not the links.
            group = os.path.dirname(os.path.dirname(current.path))
            problem = error.problem.replace(view, current.path)
            raise DataError(current.path, None, problem, REPAIR.format(group)) from error


def _is_rewritten(name: str) -> bool:
    """Tell whether a file is written even when a RocksDB is opened for reading, and is not needed for it."""
    return name in ("LOCK", "rocksdict-config.json") or name.startswith("LOG")


@contextmanager
def committed_machine(group: str, meta: Meta, current: Current | None) -> Iterator[StateMachine]:
    """Yield the state machine as of the last entry that this node knows to be committed.

    `group` is the directory of the Raft group. Raises DataError when log or state can't be trusted.
    """
    with open_state(current) as store:
        bookkeeping = None if store is None else store.bookkeeping
        directory = f"{group}/wal"
        index = LogIndex()
        recovered = _replay(directory, meta.store_id, index)
        machine = StateMachine(first_members(meta, recovered), store, bookkeeping)
        first = machine.applied_index + 1
        for entry in _entries(directory, index, first, recovered.hard_state.commit):
            apply_entry(machine, entry)
        yield machine


def first_members(meta: Meta, recovered: Recovered) -> tuple[NodeId, ...]:
    """Return whose payloads count before the first configuration that the state or the log holds (rule P5).

    A node that joined later knows no initial members: for it they are all that ever were members.
    """
    if not meta.joined:
        return tuple(int(part.partition("=")[0]) for part in meta.cluster_text.split(","))
    if not recovered.memberships:
        return ()
    newest = decode_configuration(recovered.memberships[-1].payload)
    return tuple(sorted({*newest.everyone(), *newest.removed}))


def _replay(directory: str, store_id: bytes, index: LogIndex) -> Recovered:
    replay = Replay(store_id, index)
    end = read_end(directory, store_id)
    names = segment_names(OsFiles(), directory)
    check_present(directory, end, names)
    for name in names:
        path = f"{directory}/{name}"
        data = read_file(path)
        replay.feed(path, check_header(path, name, store_id, data), data, newest=name is names[-1])
    if not names:
        return Recovered()
    recovered = replay.finish()
    check_reached(f"{directory}/{names[-1]}", end, replay)
    return recovered


def _entries(directory: str, index: LogIndex, first: Index, last: Index) -> Iterator[Entry]:
    while first <= last:
        extent = index.locate(first, last, READ_BYTES_MAX)
        if extent is None:
            raise DataError(directory, None, f"entry {first} is not there", REPLACE)
        with open(extent.path, "rb") as file:
            for offset, length in zip(extent.offsets, extent.lengths, strict=True):
                file.seek(offset)
                yield decode_entry(file.read(length))
        first += len(extent.offsets)


def apply_entry(machine: StateMachine, entry: Entry) -> None:
    """Let a machine apply an entry, whatever its kind."""
    index, term, time_ms, payload = entry.index, entry.term, entry.time_ms, entry.payload
    if entry.kind is EntryKind.COMMANDS:
        machine.apply_commands(index, term, time_ms, payload)
    elif entry.kind is EntryKind.MEMBERSHIP:
        new = decode_configuration(payload)
        machine.apply_membership(index, term, time_ms, new.everyone(), new.removed, payload)
    else:
        machine.apply_empty(index, term, time_ms)
