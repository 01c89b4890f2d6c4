"""Makes states and data directories on the real file system for the tests of storage."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from balsadb.kv.batch import encode_batch
from balsadb.kv.cut import STATE_VERSION, Bookkeeping, encode_bookkeeping, encode_record
from balsadb.raft.configuration import encode_configuration
from balsadb.raft.entry import Entry, encode_entry
from balsadb.raft.ready import LogStart, WriteBatch
from balsadb.raft.types import Configuration, EntryKind, HardState, Member
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.files import OsFiles
from balsadb.storage.opening import open_log
from balsadb.storage.state import StateDirectory, StateStore
from balsadb.storage.wal import Wal, WalOptions

CLUSTER_TEXT = "1=a:1,2=b:2,3=c:3"
CLUSTER = Configuration(
    voters=(1, 2, 3),
    members=(Member(1, "a:1"), Member(2, "b:2"), Member(3, "c:3")),
    cluster_id=b"\x11" * 16,
)
RECORDS = {b"": b"empty key", b"a": b"1", b"b": b"", b"c" * 300: bytes(1000)}
SMALL = WalOptions(segment_bytes=8192)


def bookkeeping(keys: int, index: int = 9, term: int = 4, **changes) -> Bookkeeping:
    """The bookkeeping of a cluster that has lived a little."""
    whole = Bookkeeping(
        version=STATE_VERSION,
        index=index,
        term=term,
        log_time_ms=1_700_000_000_000,
        members=(1, 2, 3),
        configuration=encode_configuration(CLUSTER),
        origins=((1, 3, 70), (2, 1, 5)),
        digests=((4, b"ab" * 32),),
        keys=keys,
    )
    return msgspec.structs.replace(whole, **changes)


def make_state(path: Path, records: dict[bytes, bytes], held: Bookkeeping | None = None) -> Path:
    """Make a state of these records, every one of entry 7, and close it."""
    store = StateStore(str(path))
    batch = store.batch()
    for key, value in sorted(records.items()):
        batch.put(key, encode_record((value, 7, 0)))
    batch.bookkeeping(encode_bookkeeping(held or bookkeeping(len(records))))
    assert store.write(batch)
    store.flush()
    store.close()
    return path


def command(index: int, term: int, *argv: bytes, node: int = 1, sequence: int = 0) -> Entry:
    """An entry with one command of a node, whose first boot it is; its sequence number is the index."""
    payload = encode_batch(node, 1, sequence or index, [list(argv)])
    return encode_entry(term, index, 1000 + index, EntryKind.COMMANDS, payload)


def membership(index: int, term: int, configuration: Configuration = CLUSTER) -> Entry:
    """An entry with a configuration."""
    payload = encode_configuration(configuration)
    return encode_entry(term, index, 1000 + index, EntryKind.MEMBERSHIP, payload)


class NodeDirectory:
    """A data directory as a stopped node leaves it."""

    def __init__(self, path: Path, *, node: int = 1, cluster: str = CLUSTER_TEXT) -> None:
        self.path = path
        files = OsFiles()
        directory = DataDirectory.open(str(path), files, node, cluster)
        meta = msgspec.structs.replace(directory.meta, admitted=True, met={2: b"2" * 16, 3: b"3" * 16})
        directory.update_meta(meta)
        directory.close()
        self.store_id = meta.store_id
        self.wal_path = path / "group-0" / "wal"
        self.state_path = path / "group-0" / "state"
        self._number = 0

    def write(self, *entries: Entry, state: HardState | None = None) -> None:
        """Write batches of one entry each, and a hard state with the last."""
        wal, _ = Wal.open(OsFiles(), str(self.wal_path), self.store_id, SMALL)
        try:
            for position, entry in enumerate(entries):
                last = position == len(entries) - 1
                self._bring(wal, WriteBatch(self._next(), (entry,), state if last else None))
        finally:
            wal.close()

    def compact(self, index: int, term: int) -> None:
        """Let the log begin behind an entry, as after a cut, and remove files that are useless then."""
        wal, _ = Wal.open(OsFiles(), str(self.wal_path), self.store_id, SMALL)
        try:
            self._bring(wal, WriteBatch(self._next(), (), None, LogStart(index, term, True)))
            wal.collect()
        finally:
            wal.close()

    def note(self, lost: int) -> None:
        """Note that an acknowledged entry is lost, as a node does that a leader has told."""
        wal, _ = Wal.open(OsFiles(), str(self.wal_path), self.store_id, SMALL)
        wal.note_end(lost)
        wal.close()

    def state(self, records: dict[bytes, bytes], held: Bookkeeping, installed: int = 0) -> None:
        """Put a state in place."""
        directory = StateDirectory(OsFiles(), str(self.state_path))
        OsFiles().make_directories(directory.path)
        make_state(self.state_path / "1", records, held)
        directory.switch("1", installed)

    def segments(self) -> list[Path]:
        return sorted(self.wal_path.glob("*.wal"))

    def start(self) -> None:
        """Do with the files what a node's start does. Raises what it raises."""
        start(self.path)

    def _next(self) -> int:
        self._number += 1
        return self._number

    @staticmethod
    def _bring(wal: Wal, batch: WriteBatch) -> None:
        write = wal.plan(batch)
        wal.execute(write)
        wal.complete(write)


def start(path: Path, node: int = 1, cluster: str = CLUSTER_TEXT) -> Bookkeeping | None:
    """Open a data directory as a node's start does, close it, and return the state's bookkeeping."""
    files = OsFiles()
    directory = DataDirectory.open(str(path), files, node, cluster)
    try:
        current = StateDirectory(files, directory.state_path).current()
        store = StateStore(current.path)
        try:
            held = store.bookkeeping
            wal, _ = open_log(
                files, directory.wal_path, directory.meta.store_id, SMALL, held, current.installed
            )
            wal.close()
        finally:
            store.close()
    finally:
        directory.close()
    return held


def fingerprint(path: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a directory tree that a reader could change: names, bytes, times, modes."""
    found: dict[str, tuple[object, ...]] = {}
    for place in [path, *sorted(path.rglob("*"))]:
        facts = os.lstat(place)
        content = hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else ""
        found[str(place)] = (facts.st_mtime_ns, facts.st_ctime_ns, facts.st_mode, facts.st_size, content)
    return found
