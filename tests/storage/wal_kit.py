"""Writes and opens logs for the tests of storage."""

from __future__ import annotations

from memory_files import MemoryFiles

from balsadb.raft.entry import Entry, encode_entry
from balsadb.raft.options import Recovered
from balsadb.raft.ready import LogStart, WriteBatch
from balsadb.raft.types import EntryKind, HardState
from balsadb.storage.files import Files
from balsadb.storage.wal import Wal, WalOptions, WalWrite

STORE = bytes(range(16))
WAL = "/data/wal"
SMALL = WalOptions(segment_bytes=8192)


def entry(index: int, term: int = 1, size: int = 100, kind: EntryKind = EntryKind.COMMANDS) -> Entry:
    """Make an entry whose payload tells it from any other."""
    text = f"{term}/{index}/".encode()
    return encode_entry(term, index, 1000 + index, kind, (text * (size // len(text) + 1))[:size])


def entries(first: int, last: int, term: int = 1, size: int = 100) -> tuple[Entry, ...]:
    return tuple(entry(index, term, size) for index in range(first, last + 1))


class Log:
    """A WAL together with what it should hold."""

    def __init__(self, files: Files | None = None, options: WalOptions = SMALL, directory: str = WAL) -> None:
        self.files: Files = MemoryFiles() if files is None else files
        self.options, self.directory = options, directory
        self.entries: list[Entry] = []
        self.hard_state = HardState()
        self.number = 0
        self.wal, self.recovered = Wal.open(self.files, directory, STORE, options)

    @property
    def memory(self) -> MemoryFiles:
        assert isinstance(self.files, MemoryFiles)
        return self.files

    def plan(self, *new: Entry, state: HardState | None = None, start: LogStart | None = None) -> WalWrite:
        self.number += 1
        return self.wal.plan(WriteBatch(self.number, new, state, start))

    def write(self, *new: Entry, state: HardState | None = None, start: LogStart | None = None) -> WalWrite:
        """Bring a batch to the disk."""
        write = self.plan(*new, state=state, start=start)
        self.wal.execute(write)
        self.wal.complete(write)
        if new:
            del self.entries[new[0].index - 1 :]
            self.entries += new
        if state is not None:
            self.hard_state = state
        return write

    def reopen(self) -> Recovered:
        """Stop and start again."""
        self.wal.close()
        self.wal, self.recovered = Wal.open(self.files, self.directory, STORE, self.options)
        return self.recovered

    def read_all(self) -> list[Entry]:
        return read_all(self.wal, self.recovered.first_index, self.entries[-1].index if self.entries else 0)

    def segment(self, number: int = -1) -> str:
        """Path of a segment; the newest one when no number is given."""
        return self.segments[number]

    @property
    def segments(self) -> list[str]:
        """Paths of all segments, oldest first."""
        return [path for path in self.memory.under(self.directory) if path.endswith(".wal")]


def read_all(wal: Wal, first: int, last: int, bytes_max: int = 4096) -> list[Entry]:
    found: list[Entry] = []
    while first <= last:
        found += wal.read(first, last, bytes_max)
        first = found[-1].index + 1
    return found


def recover(files: Files, options: WalOptions = SMALL, directory: str = WAL) -> tuple[Recovered, list[Entry]]:
    """Open a log, read everything it has, and close it."""
    wal, recovered = Wal.open(files, directory, STORE, options)
    try:
        return recovered, read_all(wal, recovered.first_index, recovered.last_index)
    finally:
        wal.close()
