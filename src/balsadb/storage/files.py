"""The one door to the file system.

Everything that storage does to files goes through `Files` and `File`, so that the simulator can put a disk
behind them that loses unsynced bytes, tears writes, flips bits, fills up and fails to sync.

What the callers rely on, as POSIX gives it:

* bytes written are durable once `File.sync` has returned, and not a moment earlier;
* a new, renamed or removed name is durable once `Files.sync_directory` of its directory has returned;
* `rename` replaces its target as one step, and an open `File` stays that file under its new name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from balsadb.errors import StorageError, UsageError

IOV_MAX = 1024
"""Buffers that one `pwritev` takes (rule W4); Linux and macOS agree on it."""


class File(Protocol):
    """An open file, read and written at absolute offsets."""

    def write(self, buffers: Sequence[bytes], offset: int) -> None:
        """Write all buffers one after another at `offset`. A short write is a failed one (rule W4)."""

    def read(self, length: int, offset: int) -> bytes:
        """Read up to `length` bytes at `offset`; fewer only at the end of the file."""

    def sync(self) -> None:
        """Make what was written, and the file's length, durable."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    @property
    def descriptor(self) -> int | None:
        """The kernel's number of the file, if the kernel knows it and can sync it with `fdatasync`."""

    def close(self) -> None:
        """Close the file; nothing is synced by this."""


class Lock(Protocol):
    """An exclusive claim on a path, held until closed or until the process ends."""

    def close(self) -> None:
        """Give the claim up."""


class Files(Protocol):
    """The file system. Every method but `exists` and `list` raises StorageError when it fails."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file for reading and writing; with `create` make an empty one, replacing what is there."""

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or directory at `path`."""

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted; none when the directory does not exist."""

    def make_directories(self, path: str) -> None:
        """Make a directory and its missing parents durably."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing a file that has it."""

    def remove(self, path: str) -> None:
        """Remove a file."""

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""

    def lock(self, path: str) -> Lock:
        """Claim a path for this process alone, making the file. Raises UsageError when another has it."""


class OsFiles:
    """The real file system."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file for reading and writing; with `create` make an empty one, replacing what is there."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        try:
            return _OsFile(path, os.open(path, flags, 0o600))
        except OSError as error:
            raise _failed("open", path, error) from error

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or directory at `path`."""
        return os.path.lexists(path)

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted; none when the directory does not exist."""
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failed("list", directory, error) from error

    def make_directories(self, path: str) -> None:
        """Make a directory and its missing parents durably."""
        missing = []
        path = os.path.abspath(path)
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        # A process may have been killed after it made this one and before it synced the name.
        if os.access(os.path.dirname(path), os.W_OK):
            self.sync_directory(os.path.dirname(path))
        for directory in reversed(missing):
            try:
                os.mkdir(directory, 0o700)
            except OSError as error:
                raise _failed("make", directory, error) from error
            self.sync_directory(os.path.dirname(directory))

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing a file that has it."""
        try:
            os.rename(old, new)
        except OSError as error:
            raise _failed("rename", old, error) from error

    def remove(self, path: str) -> None:
        """Remove a file."""
        try:
            os.unlink(path)
        except OSError as error:
            raise _failed("remove", path, error) from error

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failed("sync", path, error) from error

    def lock(self, path: str) -> Lock:
        """Claim a path for this process alone, making the file. Raises UsageError when another has it."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed("open", path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise UsageError(
                    f"another process uses {os.path.dirname(path)}; stop it, or choose another --data-dir"
                ) from error
            raise _failed("lock", path, error) from error
        return _OsLock(descriptor)


class _OsFile:
    """A file behind a descriptor."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def write(self, buffers: Sequence[bytes], offset: int) -> None:
        """Write all buffers one after another at `offset`. A short write is a failed one (rule W4)."""
        if len(buffers) > IOV_MAX:
            buffers = [b"".join(buffers)]
        expected = sum(map(len, buffers))
        try:
            written = os.pwritev(self._descriptor, buffers, offset)
        except OSError as error:
            raise _failed("write", self._path, error) from error
        if written != expected:
            raise StorageError(f"{self._path}: wrote {written} of {expected} bytes at offset {offset}")

    def read(self, length: int, offset: int) -> bytes:
        """Read up to `length` bytes at `offset`; fewer only at the end of the file."""
        pieces = []
        try:
            while length > 0 and (piece := os.pread(self._descriptor, length, offset)):
                pieces.append(piece)
                length -= len(piece)
                offset += len(piece)
        except OSError as error:
            raise _failed("read", self._path, error) from error
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def sync(self) -> None:
        """Make what was written, and the file's length, durable."""
        try:
            if sys.platform == "darwin":  # fsync there leaves the bytes in the drive's cache
                fcntl.fcntl(self._descriptor, fcntl.F_FULLFSYNC)
            else:
                os.fdatasync(self._descriptor)
        except OSError as error:
            raise _failed("sync", self._path, error) from error

    @property
    def size(self) -> int:
        """Length in bytes."""
        return os.fstat(self._descriptor).st_size

    @property
    def descriptor(self) -> int | None:
        """The file's descriptor; None where more than `fdatasync` is needed, see `sync`."""
        return self._descriptor if sys.platform == "linux" else None

    def close(self) -> None:
        """Close the file; nothing is synced by this."""
        os.close(self._descriptor)


class _OsLock:
    """A lock of flock(2): the kernel frees it when the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Give the claim up. The file stays: removing it would let two processes lock two files."""
        os.close(self._descriptor)


def _failed(what: str, path: str, error: OSError) -> StorageError:
    return StorageError(f"{path}: could not {what}: {error.strerror or error}")
