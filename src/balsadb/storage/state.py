"""The state on disk: RocksDB, written one cut at a time.

    group-0/state/CURRENT     name of the directory in use, and the index at which it was installed (0: it was
                              not); replaced in one step (rule C4)
    group-0/state/<name>/     a RocksDB

RocksDB's own log is off: the Raft log is its log. So after a crash it holds the newest cut that was flushed,
whole, and the entries behind it are applied again from the Raft log (rule C1).

Keys on disk begin with a byte that says what they are, in an order that range scans can use:

    d<key>   a record: revision, deadline if there is one, value
    m        the bookkeeping
    s<id>    a session
    x<hint>  nothing: a hint, which is a deadline, big endian, and the key that is due then

RocksDB works on its own files, not through `Files`; a simulated node has `sim.state` in its place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from balsadb.errors import DataError, StorageError
from balsadb.kv.cut import Bookkeeping, decode_bookkeeping, decode_record
from balsadb.kv.store import Record, deadline_of
from balsadb.raft.types import Index
from balsadb.storage.files import Files

POINTER = "CURRENT"
POINTER_BYTES_MAX = 64
BLOCK_CACHE_BYTES = 32 * 1024 * 1024
"""RocksDB's memory for blocks of its files; besides it our own cache holds records."""
MEMTABLE_BYTES = 32 * 1024 * 1024
"""Cuts collect in memory up to this before RocksDB writes them out by itself; at most two at a time."""
STATE_FILES_MAX = 256
"""Files that RocksDB keeps open."""
BLOOM_BITS = 10
"""Bits a key of the filters that save reading for absent keys; one in a hundred slips through."""

_BOOKKEEPING = b"m"
_DATA = b"d"
_DATA_END = b"e"
_SESSION = b"s"
_SESSION_END = b"t"
_HINT = b"x"
_HINT_END = b"y"
STALL_SECONDS = 0.05
"""Pause before something is offered again to a RocksDB that is behind with its work."""
SLICE_BYTES = 4 * 1024 * 1024
"""Values that a slice of keys passes by before it ends, however few keys it has."""
REPAIR = "Remove the directory {}/state; the node then fetches the state from the others"
"""Remedy for damage confined to the state: the log is intact, so the node remembers its votes."""

_T = TypeVar("_T")


def is_record(key: bytes) -> bool:
    """Tell whether a key on disk is that of a record."""
    return key.startswith(_DATA)


def record_key(key: bytes) -> bytes:
    """Return the key of a record by its key on disk."""
    return key[len(_DATA) :]


class StateBatch:
    """A cut on its way into RocksDB."""

    __slots__ = ("batch",)

    def __init__(self) -> None:
        self.batch = WriteBatch(raw_mode=True)

    @property
    def size(self) -> int:
        """Bytes of the batch; never 0."""
        return int(self.batch.size_in_bytes())

    def put(self, key: bytes, record: bytes) -> None:
        """Set a key to an encoded record."""
        self.batch.put(_DATA + key, record)

    def remove(self, key: bytes) -> None:
        """Take a key away, present or not."""
        self.batch.delete(_DATA + key)

    def hint(self, hint: bytes, present: bool) -> None:
        """Set a hint at when a key is due, or take it away, present or not."""
        if present:
            self.batch.put(_HINT + hint, b"")
        else:
            self.batch.delete(_HINT + hint)

    def clear(self) -> None:
        """Take all keys and hints away that are there: two range deletions. Comes first."""
        self.batch.delete_range(_DATA, _DATA_END)
        self.batch.delete_range(_HINT, _HINT_END)

    def put_session(self, id: bytes, data: bytes) -> None:
        """Set a session."""
        self.batch.put(_SESSION + id, data)

    def remove_session(self, id: bytes) -> None:
        """Take a session away, present or not."""
        self.batch.delete(_SESSION + id)

    def bookkeeping(self, data: bytes) -> None:
        """Replace the bookkeeping."""
        self.batch.put(_BOOKKEEPING, data)

    def put_raw(self, key: bytes, value: bytes) -> None:
        """Set a key as `StateStore.raw_records` yields it."""
        self.batch.put(key, value)


class StateStore:
    """An open state directory. Reads on the event loop, everything else in worker threads."""

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        """Open the RocksDB at `path`, making it when there is none. Raises DataError when it is damaged.

        With `read_only` no byte in the directory changes, and it must be there.
        """
        self.path = path
        access = AccessType.read_only() if read_only else AccessType.read_write()
        self._database = self._trusted(lambda: Rdict(path, _options(), access_type=access))
        self._write_options = _write_options()

    @property
    def bookkeeping(self) -> Bookkeeping | None:
        """The bookkeeping of the newest cut; None when there was none."""
        data = self._trusted(lambda: self._database.get(_BOOKKEEPING))
        return None if data is None else decode_bookkeeping(data)

    # ------------------------------------------------------------------ reads

    def get(self, key: bytes, /) -> Record | None:
        """Return the record of a key, or None."""
        data = self._trusted(lambda: self._database.get(_DATA + key))
        return None if data is None else decode_record(data)

    def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return the records of keys, in their order. In a worker thread: it lets others run (rule R5)."""
        return [None if data is None else decode_record(data) for data in self._find(keys)]

    def count_present(self, keys: Sequence[bytes]) -> int:
        """Return how many of the keys are there."""
        return len(keys) - self._find(keys).count(None)

    def _find(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] | None
        found = self._trusted(lambda: self._database.get([_DATA + key for key in keys]))
        return found or []

    def sorted_items(self) -> Iterator[tuple[bytes, Record]]:
        """Yield all records in the order of their keys' bytes, as of the beginning."""
        for key, value in self._range(_DATA, _DATA_END):
            yield key[len(_DATA) :], decode_record(value)

    def sessions(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all sessions, encoded, by their ids."""
        for key, value in self._range(_SESSION, _SESSION_END):
            yield key[len(_SESSION) :], value

    def _range(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._trusted(self._database.iter)
        cursor.seek(first)
        while cursor.valid():
            key = cursor.key()
            if key >= end:
                break
            yield key, cursor.value()
            cursor.next()
        self._trusted(cursor.status)  # a damaged block ends the loop as if there were no more

    def slice(self, start: bytes, count: int) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """Return keys from `start` on, each with its deadline or 0, and where to go on; None at the end."""
        found: list[tuple[bytes, int]] = []
        cursor = self._trusted(self._database.iter)
        cursor.seek(_DATA + start)
        size = 0
        then: bytes | None = None
        while cursor.valid():
            key = cursor.key()
            if key >= _DATA_END:
                break
            if len(found) == count or size > SLICE_BYTES:
                then = key[len(_DATA) :]
                break
            record = cursor.value()
            size += len(record)
            found.append((key[len(_DATA) :], deadline_of(decode_record(record))))
            cursor.next()
        self._trusted(cursor.status)
        return found, then

    def last_key(self) -> bytes | None:
        """Return the greatest key, or None."""
        cursor = self._trusted(self._database.iter)
        cursor.seek_for_prev(_DATA_END)
        key = cursor.key() if cursor.valid() else None
        self._trusted(cursor.status)
        return key[len(_DATA) :] if key is not None and is_record(key) else None

    def hints(self, start: bytes, count: int) -> list[bytes]:
        """Return up to `count` hints from `start` on, in their order."""
        found: list[bytes] = []
        cursor = self._trusted(self._database.iter)
        cursor.seek(_HINT + start)
        while len(found) < count and cursor.valid():
            key = cursor.key()
            if key >= _HINT_END:
                break
            found.append(key[len(_HINT) :])
            cursor.next()
        self._trusted(cursor.status)
        return found

    def raw_records(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all records as they stand on disk, in the order of the keys' bytes.

        Only those: sessions and bookkeeping belong to this cluster and not to one made of a copy (rule M4).
        """
        return self._range(_DATA, _DATA_END)

    # ------------------------------------------------------------------- cuts

    def batch(self) -> StateBatch:
        """Begin a cut."""
        return StateBatch()

    def write(self, batch: StateBatch) -> bool:
        """Let a cut happen, in memory for now. False: RocksDB is behind with its work; try again later."""
        try:
            self._database.write(batch.batch, self._write_options)
        except Exception as error:
            if "stall" in str(error):
                return False
            raise StorageError(f"{self.path}: the state could not be written: {error}") from error
        return True

    def flush(self) -> None:
        """Make all cuts written so far durable. Blocks for as long as the disk takes."""
        try:
            self._database.flush(True)
        except Exception as error:
            raise StorageError(f"{self.path}: the state could not be written: {error}") from error

    def checkpoint(self, path: str) -> None:
        """Make a copy of the state by hard links, with all cuts written so far, at a new directory."""
        try:
            Checkpoint(self._database).create_checkpoint(path)
        except Exception as error:
            raise StorageError(f"{path}: no copy of the state could be made: {error}") from error

    def close(self) -> None:
        """Close; RocksDB writes out what it has in memory. In a worker thread: it waits for its own."""
        self._database.close()

    def size(self) -> int:
        """Return the bytes that RocksDB's files take."""
        return sum(int(file["size"]) for file in self._database.live_files())

    def properties(self, names: Sequence[str]) -> dict[str, int]:
        """Return numbers that RocksDB keeps about itself; one that it does not know is left out.

        For names see the `rocksdb::DB::Properties` of its documentation. A few microseconds each.
        """
        values = {name: self._database.property_int_value(f"rocksdb.{name}") for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def _trusted(self, read: Callable[[], _T]) -> _T:
        """Read, and turn a failure into the sentence that an operator needs."""
        try:
            return read()
        except Exception as error:
            text = str(error)
            if "lock" in text.lower() and "Corruption" not in text:
                raise StorageError(f"{self.path}: the state is in use: {text}") from error
            group = os.path.dirname(os.path.dirname(self.path))
            raise DataError(self.path, None, f"the state is damaged: {text}", REPAIR.format(group)) from error


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_paranoid_checks(True)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_max_write_buffer_number(3)
    options.set_max_background_jobs(2)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_keep_log_file_num(2)
    options.set_max_open_files(STATE_FILES_MAX)
    options.set_stats_dump_period_sec(0)
    table = BlockBasedOptions()
    table.set_bloom_filter(BLOOM_BITS, False)
    table.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    # Beside the block cache and not in it, where data blocks would push them out: with a million keys a look
    # for a key that is not in memory took 7 us with them inside, and 4 us so. They take about 2 bytes a key.
    table.set_cache_index_and_filter_blocks(False)
    options.set_block_based_table_factory(table)
    return options


def _write_options() -> WriteOptions:
    options = WriteOptions()
    # A stalled write would hold the GIL and with it the whole process. (The stubs take both for methods.)
    for name in ("disable_wal", "no_slowdown"):
        setattr(options, name, True)
    return options


def make_durable(files: Files, directory: str) -> None:
    """Make what RocksDB wrote into a closed state durable, whatever it left to the system."""
    for name in os.listdir(directory):
        with open(f"{directory}/{name}", "rb") as file:
            os.fsync(file.fileno())
    files.sync_directory(directory)


class Current(NamedTuple):
    """The state in use."""

    path: str
    installed: Index
    """Its index when it was received from another node; 0 when it grew here."""


def read_pointer(path: str, data: bytes) -> Current:
    """Return what the pointer at `path` says. Raises DataError when it says nothing."""
    words = data.split()
    directory = os.path.dirname(path)
    if len(words) != 2 or not all(word.isdigit() for word in words):
        remedy = REPAIR.format(os.path.dirname(directory))
        raise DataError(path, 0, "this does not name a state", remedy)
    return Current(f"{directory}/{words[0].decode()}", int(words[1]))


class StateDirectory:
    """Which of the state directories counts, and how another one takes its place."""

    def __init__(self, files: Files, path: str) -> None:
        self.path = path
        self._files = files

    def current(self) -> Current:
        """Return which state is in use, making the pointer for a first one when there is none."""
        files, pointer = self._files, f"{self.path}/{POINTER}"
        files.make_directories(self.path)
        if not files.exists(pointer):
            self.switch("1", 0)
        file = files.open(pointer)
        try:
            return read_pointer(pointer, file.read(min(file.size, POINTER_BYTES_MAX), 0))
        finally:
            file.close()

    def fresh(self) -> str:
        """Return a path for a new state, next to the one in use."""
        names = [int(name) for name in self._files.list(self.path) if name.isdigit()]
        return f"{self.path}/{max(names, default=0) + 1}"

    def switch(self, name: str, installed: Index) -> None:
        """Let another state count from now on, durably (rule C4)."""
        files, pointer = self._files, f"{self.path}/{POINTER}"
        temporary = pointer + ".tmp"
        file = files.open(temporary, create=True)
        try:
            file.write([b"%s %d\n" % (name.encode(), installed)], 0)
            file.sync()
        finally:
            file.close()
        files.rename(temporary, pointer)
        files.sync_directory(self.path)

    def clean(self) -> None:
        """Remove the states that don't count any more, or never did."""
        current = os.path.basename(self.current().path)
        for name in self._files.list(self.path):
            if name.isdigit() and name != current:
                shutil.rmtree(f"{self.path}/{name}", ignore_errors=True)
