"""A file system in memory for the tests of storage: counts operations, fails on demand, loses power.

A file has the bytes that processes see and the bytes that are on the disk. `sync` makes them equal; a power
loss keeps, of each sector that was written since, the old or the new bytes, as the test chooses. Names are
on the disk once their directory was synced.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Sequence

from balsadb.errors import StorageError, UsageError

SECTOR = 512


class Stopped(BaseException):
    """The process ends here."""


class _Inode:
    def __init__(self) -> None:
        self.seen = bytearray()
        self.disk = bytearray()
        self.dirty: set[int] = set()


class MemoryFiles:
    """Implements `Files`."""

    def __init__(self) -> None:
        self.names: dict[str, _Inode] = {}
        self.disk_names: dict[str, _Inode] = {}
        self.directories: set[str] = set()
        self.locks: set[str] = set()
        self.operations: list[str] = []
        self.stop_at: int | None = None
        """Number of the operation (from 0) at which the process ends."""
        self.fail: Callable[[str], bool] = lambda operation: False
        """Tells which operations fail."""
        self.open_files = 0

    # ------------------------------------------------------------------ for tests

    def content(self, path: str) -> bytearray:
        return self.names[path].seen

    def put(self, path: str, data: bytes) -> None:
        """Make a durable file."""
        inode = _Inode()
        inode.seen, inode.disk = bytearray(data), bytearray(data)
        self.names[path] = self.disk_names[path] = inode

    def under(self, directory: str) -> list[str]:
        return [f"{directory}/{name}" for name in self.list(directory)]

    def copy(self) -> MemoryFiles:
        """Return the same durable content in another object."""
        other = MemoryFiles()
        for path, inode in self.names.items():
            other.put(path, bytes(inode.seen))
        other.directories = set(self.directories)
        return other

    def power_loss(self, keep: Callable[[int], bool], *, keep_names: bool = False) -> MemoryFiles:
        """Return what is left; `keep` tells which unsynced sectors reached the disk."""
        other = MemoryFiles()
        for path, inode in (self.names if keep_names else self.disk_names).items():
            content = bytearray(inode.disk)
            for sector in sorted(inode.dirty):
                if keep(sector):
                    start = sector * SECTOR
                    piece = inode.seen[start : start + SECTOR]
                    content.extend(bytes(max(0, start + len(piece) - len(content))))
                    content[start : start + len(piece)] = piece
            other.put(path, bytes(content))
        other.directories = set(self.directories)
        return other

    def step(self, operation: str, path: str) -> None:
        text = f"{operation} {os.path.basename(path)}"
        if self.stop_at is not None and len(self.operations) >= self.stop_at:
            raise Stopped
        self.operations.append(text)
        if self.fail(text):
            raise StorageError(f"{path}: could not {operation}: Input/output error")

    # -------------------------------------------------------------------- `Files`

    def open(self, path: str, *, create: bool = False) -> MemoryFile:
        if create:
            self.step("create", path)
            self.names[path] = _Inode()
        elif path not in self.names:
            raise StorageError(f"{path}: could not open: No such file or directory")
        return MemoryFile(self, path, self.names[path])

    def exists(self, path: str) -> bool:
        return path in self.names or path in self.directories

    def list(self, directory: str) -> list[str]:
        return sorted(os.path.basename(p) for p in self.names if os.path.dirname(p) == directory)

    def make_directories(self, path: str) -> None:
        self.directories.add(path)

    def rename(self, old: str, new: str) -> None:
        self.step("rename", new)
        self.names[new] = self.names.pop(old)

    def remove(self, path: str) -> None:
        self.step("remove", path)
        del self.names[path]

    def sync_directory(self, path: str) -> None:
        self.step("sync-directory", path)
        for name in [name for name in self.disk_names if os.path.dirname(name) == path]:
            del self.disk_names[name]
        self.disk_names.update({n: i for n, i in self.names.items() if os.path.dirname(n) == path})

    def lock(self, path: str) -> MemoryLock:
        if path in self.locks:
            raise UsageError(f"another process uses {os.path.dirname(path)}")
        self.locks.add(path)
        return MemoryLock(self.locks, path)


class MemoryLock:
    def __init__(self, locks: set[str], path: str) -> None:
        self._locks, self._path = locks, path

    def close(self) -> None:
        self._locks.discard(self._path)


class MemoryFile:
    """Implements `File`."""

    def __init__(self, files: MemoryFiles, path: str, inode: _Inode) -> None:
        self._files, self._path, self._inode = files, path, inode
        self._open = True
        files.open_files += 1

    def write(self, buffers: Sequence[bytes], offset: int) -> None:
        data = b"".join(buffers)
        self._files.step("write", self._path)
        inode = self._inode
        end = offset + len(data)
        inode.seen.extend(bytes(max(0, end - len(inode.seen))))
        inode.seen[offset:end] = data
        inode.dirty.update(range(offset // SECTOR, -(-end // SECTOR)))

    def read(self, length: int, offset: int) -> bytes:
        assert self._open
        return bytes(self._inode.seen[offset : offset + length])

    descriptor = None

    def sync(self) -> None:
        inode = self._inode
        try:
            self._files.step("sync", self._path)
        except StorageError:
            inode.dirty.clear()  # as Linux does: a second sync has nothing to do and succeeds
            raise
        for sector in inode.dirty:
            start = sector * SECTOR
            piece = inode.seen[start : start + SECTOR]
            inode.disk.extend(bytes(max(0, start + len(piece) - len(inode.disk))))
            inode.disk[start : start + len(piece)] = piece
        inode.dirty.clear()

    @property
    def size(self) -> int:
        return len(self._inode.seen)

    def close(self) -> None:
        assert self._open
        self._open = False
        self._files.open_files -= 1
