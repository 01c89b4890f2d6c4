"""The files of the log: their names, and making them.

A segment is a file of fixed length that is filled with zeros before it is used: a sync of a write into
blocks that were written before changes nothing but those blocks, and costs less than one that also has to
record a new length or newly used blocks. It is made under a temporary name, synced, given its header, synced,
renamed, and its directory synced. So whatever has the name of a segment is whole (rule W3).
"""

from __future__ import annotations

import re
import threading
from typing import NamedTuple

import msgspec

from balsadb.errors import StorageError
from balsadb.storage.files import File, Files
from balsadb.storage.records import SegmentHeader

FILL_BYTES = 1 << 20
"""Zeros are written and synced in such steps, so that the log's own syncs never wait long behind them."""

_NAME = re.compile(r"(\d{10})-(\d{20})\.wal")
_SUFFIX = ".wal"
_TEMPORARY_SUFFIX = ".tmp"
_SPARE = "spare" + _TEMPORARY_SUFFIX
_URGENT = "segment" + _TEMPORARY_SUFFIX
_ZEROS = bytes(FILL_BYTES)


class SegmentName(NamedTuple):
    """What the name of a segment says. Sorts by sequence."""

    sequence: int
    first_index: int

    def __str__(self) -> str:
        return f"{self.sequence:010d}-{self.first_index:020d}{_SUFFIX}"


def is_segment(name: str) -> bool:
    """Tell whether a file claims to be a segment, by the end of its name."""
    return name.endswith(_SUFFIX)


def is_temporary(name: str) -> bool:
    """Tell whether a file is a left-over of a segment that was being made."""
    return name.endswith(_TEMPORARY_SUFFIX)


def parse_name(name: str) -> SegmentName | None:
    """Read a segment's name; None when it is not one that we give."""
    match = _NAME.fullmatch(name)
    return None if match is None else SegmentName(int(match[1]), int(match[2]))


def write_zeros(file: File, start: int, stop: int) -> None:
    """Write zeros in [start, stop), unsynced."""
    for at in range(start, stop, FILL_BYTES):
        file.write([_ZEROS[: stop - at]], at)


class SegmentMaker:
    """Makes segments, one of them ahead of need. Its methods may be called from any thread."""

    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self._directory = directory
        self._lock = threading.Lock()
        """Held while a file is being filled: who needs a segment meanwhile waits for just that one."""
        self._spare: tuple[File, int] | None = None
        self._closed = False

    @property
    def has_spare(self) -> bool:
        """Tell whether a filled file lies ready."""
        return self._spare is not None

    def prepare(self, length: int) -> None:
        """Fill a file of `length` bytes ahead of need, unless one lies ready. Raises StorageError."""
        with self._lock:
            if self._spare is None and not self._closed:
                self._spare = self._fill(_SPARE, length), length

    def make(self, header: SegmentHeader, bytes_min: int, bytes_wanted: int) -> tuple[File, str, int]:
        """Make a segment durable under its name, of the spare file if that is large enough.

        The header's length is set here. Returns the open file, its path and its length. Raises StorageError.
        """
        with self._lock:
            if self._spare is not None and self._spare[1] >= bytes_min:
                (file, length), self._spare = self._spare, None
                temporary = _SPARE
            else:
                temporary, length = _URGENT, max(bytes_min, bytes_wanted)
                file = self._fill(temporary, length)
            header = msgspec.structs.replace(header, length=length)
            path = self._path(str(SegmentName(header.sequence, header.first_index)))
            file.write([header.encode()], 0)
            file.sync()
            self._files.rename(self._path(temporary), path)
            self._files.sync_directory(self._directory)
            return file, path, length

    def close(self) -> None:
        """Make no more segments; one that is being filled is given up. The next start removes left-overs."""
        self._closed = True
        with self._lock:
            if self._spare is not None:
                self._spare[0].close()
                self._spare = None

    def _fill(self, name: str, length: int) -> File:
        file = self._files.open(self._path(name), create=True)
        try:
            for at in range(0, length, FILL_BYTES):
                if self._closed:
                    raise StorageError(f"{self._path(name)}: the log was closed while the file was made")
                write_zeros(file, at, min(at + FILL_BYTES, length))
                file.sync()
        except BaseException:
            file.close()
            raise
        return file

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"
