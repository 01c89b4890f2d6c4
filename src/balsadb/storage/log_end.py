"""How far the log certainly reached, kept in a file beside it (rule W5).

The newest segment deleted, or the newest batches read back as zeros, leave a log that looks like one that
ended earlier. The node would start with an older log and an older vote than it had. So a lower bound for the
end of the log lies in a file of its own, `END`, and a log that ends before it is damaged. The bound is raised

* before the first batch of a new segment is written, so that no segment can vanish unnoticed;
* soon after each write, beside the writes and not as a part of them: a few times a second at most;
* at a clean stop, so that nothing can be lost unnoticed while a node is down.

It is never ahead of what is durable. The file has two sectors, which are written in turn: a write that is
torn leaves the bound before it.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence

import google_crc32c
import msgspec

from balsadb.errors import DataError, StorageError
from balsadb.storage.files import File, Files
from balsadb.storage.records import SECTOR_BYTES
from balsadb.storage.recovery import REPLACE, RESTORE, Replay
from balsadb.storage.segments import SegmentName

NAME = "END"
FORMAT_VERSION = 1
MAGIC = b"BALSAEND"
FILE_BYTES = 2 * SECTOR_BYTES

_BODY = struct.Struct("<8sI16sQQQQ")
_CHECKSUM = struct.Struct("<I")


class LogEnd(msgspec.Struct, frozen=True, gc=False):
    """A lower bound for the end of a log."""

    sequence: int = 0
    """Of the newest segment that certainly was there; 0 before the first."""
    batch: int = 0
    """Number of the newest batch that certainly is on disk."""
    lost: int = 0
    """Index of an entry that this node had acknowledged and lacks, as a leader has found out; 0: none is
    known. Such a node never starts again."""

    def joined(self, other: LogEnd) -> LogEnd:
        """Return the bound that says what both say."""
        return LogEnd(
            max(self.sequence, other.sequence), max(self.batch, other.batch), max(self.lost, other.lost)
        )


def encode_end(store_id: bytes, number: int, end: LogEnd) -> bytes:
    """Return one sector of the file; `number` says which of the two is newer."""
    body = _BODY.pack(MAGIC, FORMAT_VERSION, store_id, number, end.sequence, end.batch, end.lost)
    return (body + _CHECKSUM.pack(google_crc32c.value(body))).ljust(SECTOR_BYTES, b"\0")


def decode_end(path: str, data: bytes, store_id: bytes) -> tuple[int, LogEnd]:
    """Return number and bound of the newer sector of the file at `path`. Raises DataError on any doubt."""
    if len(data) != FILE_BYTES:
        raise DataError(path, min(len(data), FILE_BYTES), f"the file has {len(data)} bytes", REPLACE)
    found = [_decode_sector(path, data[at : at + SECTOR_BYTES]) for at in (0, SECTOR_BYTES)]
    sound = [sector for sector in found if sector is not None]
    if not sound:
        raise DataError(path, 0, "neither of its two sectors is sound", REPLACE)
    number, owner, end = max(sound, key=lambda sector: sector[0])
    if owner != store_id:
        problem = f"the file belongs to store {owner.hex()}, this directory is {store_id.hex()}"
        raise DataError(path, 0, problem, "Put the log and META of the same node together again")
    return number, end


def _decode_sector(path: str, sector: bytes) -> tuple[int, bytes, LogEnd] | None:
    magic, version, owner, number, sequence, batch, lost = _BODY.unpack_from(sector)
    (checksum,) = _CHECKSUM.unpack_from(sector, _BODY.size)
    if magic != MAGIC or google_crc32c.value(sector[: _BODY.size]) != checksum:
        return None
    if version > FORMAT_VERSION:
        problem = f"it has format version {version}, and this program knows {FORMAT_VERSION}"
        raise DataError(path, 8, problem, "Start the version of BalsaDB that wrote it")
    return number, owner, LogEnd(sequence, batch, lost)


def check_present(directory: str, end: LogEnd | None, names: Sequence[SegmentName]) -> None:
    """Refuse a log whose newest segment, or whose `END`, is gone. Raises DataError."""
    if end is None:
        if names:
            raise DataError(f"{directory}/{NAME}", None, "the file is missing beside a log", RESTORE)
        return
    if end.lost:
        problem = f"entry {end.lost} was acknowledged by this node, and it has lost it"
        raise DataError(f"{directory}/{NAME}", None, problem, REPLACE)
    newest = names[-1].sequence if names else 0
    if newest < end.sequence:
        problem = f"segment {end.sequence}, in which the log went on, is missing"
        raise DataError(directory, None, problem, RESTORE)


def check_reached(path: str, end: LogEnd | None, replay: Replay) -> None:
    """Refuse a log that ends before a batch that was on disk. `path` names its newest segment.

    Raises DataError.
    """
    if end is not None and replay.batch < end.batch:
        problem = f"the log ends with batch {replay.batch}, and batch {end.batch} was on disk"
        raise DataError(path, replay.end, problem, REPLACE)


class EndFile:
    """The file `END` of an open log. Its methods may be called from any thread."""

    def __init__(self, files: Files, directory: str, store_id: bytes) -> None:
        """Read what is there. Raises DataError when it can't be trusted."""
        self._files = files
        self._directory = directory
        self._path = f"{directory}/{NAME}"
        self._store_id = store_id
        self._lock = threading.Lock()
        self._closed = False
        self._file: File | None = None
        self._number = 0
        self.end: LogEnd | None = None
        """As on disk; None when there is no file."""
        if files.exists(self._path):
            self._file = files.open(self._path)
            try:
                data = self._file.read(FILE_BYTES + 1, 0)
                self._number, self.end = decode_end(self._path, data, store_id)
            except BaseException:
                self.close()
                raise

    def note(self, end: LogEnd) -> None:
        """Raise the bound durably; the file is made when there is none. Raises StorageError."""
        with self._lock:
            if self._closed:
                raise StorageError(f"{self._path}: the log was closed before its end was noted")
            end = end.joined(self.end or LogEnd())
            if end == self.end:
                return
            self._number += 1
            sector = encode_end(self._store_id, self._number, end)
            if self._file is None:
                self._file = self._make(sector)
            else:
                self._file.write([sector], self._number % 2 * SECTOR_BYTES)
                self._file.sync()
            self.end = end

    def close(self) -> None:
        """Close the file; a note that is under way is finished first."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None

    def _make(self, sector: bytes) -> File:
        temporary = f"{self._path}.tmp"
        file = self._files.open(temporary, create=True)
        try:
            file.write([sector, sector], 0)
            file.sync()
            self._files.rename(temporary, self._path)
            self._files.sync_directory(self._directory)
        except BaseException:
            file.close()
            raise
        return file
