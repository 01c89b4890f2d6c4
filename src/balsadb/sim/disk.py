"""A simulated disk behind `Files`, which keeps exactly what was synced and nothing else for sure.

Every file has two contents: what the kernel shows to a running process, and what a power loss would leave.
Writes change the first in whole and mark sectors as dirty; `sync` makes them part of the second. At a power
loss each dirty sector either made it to the disk or not. Names are treated alike: a created, renamed or
removed name is in doubt until its directory was synced, except that later changes never overtake earlier
ones, as in a journal.

Faults: any operation can be the last one of the process, fail, or find the disk full; bits can flip while
nobody looks. A failed sync is as mean as the real one: the kernel forgets that the sectors were dirty, so
that a later sync succeeds without writing them.
"""

from __future__ import annotations

import os.path
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

from balsadb.errors import StorageError, UsageError

SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""


class Interrupted(BaseException):
    """The process ended in the middle of a file operation. Not an `Exception`: nobody outlives a kill."""

    def __init__(self, share: float | None = None) -> None:
        """Say which share of a write was made; it is drawn when None."""
        super().__init__(share)
        self.share = share


class _Inode:
    """One file's contents."""

    __slots__ = ("data", "dirty", "durable")

    def __init__(self) -> None:
        self.data = bytearray()
        """What a running process sees."""
        self.durable = bytearray()
        """What survives a power loss."""
        self.dirty: set[int] = set()
        """Numbers of the sectors in which the two may differ."""

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.data):
            self.data.extend(bytes(end - len(self.data)))
        self.data[offset:end] = data
        self.dirty.update(range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)))

    def flush(self, sectors: Sequence[int]) -> None:
        """Bring some of the dirty sectors to the disk."""
        for sector in sectors:
            start, end = sector * SECTOR_BYTES, min((sector + 1) * SECTOR_BYTES, len(self.data))
            if end > len(self.durable):
                self.durable.extend(bytes(end - len(self.durable)))
            self.durable[start:end] = self.data[start:end]


_Change: TypeAlias = list[tuple[str, _Inode | None]]
"""Names and what they stand for from then on; None when they are gone."""


class Disk:
    """A machine's file system; implements `storage.files.Files`."""

    def __init__(self, rng: random.Random) -> None:
        self.full = False
        """True while nothing new fits on the disk."""
        self.failing = 0.0
        """Probability that a write or sync fails."""
        self.operations = 0
        """Changes and syncs so far; each is a point at which a process can end."""
        self.note: Callable[[str], None] | None = None
        """Told about every operation, for the trace."""
        self.before: Callable[[str, str], None] | None = None
        """Called with kind and path before every operation; it may raise `Interrupted`."""
        self._rng = rng
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._journal: list[_Change] = []
        """Changes of names that are not synced, oldest first; a rename is one change of two names."""
        self._directories: set[str] = set()
        self._locked: set[str] = set()
        self._fuse: int | None = None

    # -------------------------------------------------------------------- faults

    def interrupt_after(self, operations: int | None) -> None:
        """End the process after so many more changes or syncs; None takes that back."""
        self._fuse = operations

    def process_ended(self) -> None:
        """Free what the kernel frees when a process ends. What was written stays readable."""
        self._locked.clear()
        self._fuse = None

    def power_loss(self) -> None:
        """Forget what was not synced, or some of it."""
        rng = self._rng
        for change in self._journal[: rng.randint(0, len(self._journal))]:
            self._settle(change)
        self._journal.clear()
        inodes = {id(inode): inode for inode in [*self._names.values(), *self._durable_names.values()]}
        self._names = dict(self._durable_names)
        share = rng.choice((0.0, 0.5, 0.5, 0.9, 1.0))
        for inode in inodes.values():
            inode.flush([sector for sector in sorted(inode.dirty) if rng.random() < share])
            inode.dirty.clear()
            inode.data = bytearray(inode.durable)

    def flip_bit(self) -> str | None:
        """Turn one bit over in some file; returns where, or None when there is no file."""
        files = [(path, inode) for path, inode in sorted(self._names.items()) if inode.data]
        if not files:
            return None
        path, inode = self._rng.choice(files)
        # Mostly where something was written: a segment is zeros for its greater part.
        written = len(inode.data.rstrip(b"\0")) or 1
        place = self._rng.randrange(written if self._rng.random() < 0.9 else len(inode.data))
        for content in (inode.data, inode.durable):
            if place < len(content):
                content[place] ^= 1 << self._rng.randrange(8)
        return f"{path} at offset {place}"

    # ----------------------------------------------------------------- `Files`

    def open(self, path: str, *, create: bool = False) -> DiskFile:
        """Open a file; see `Files`."""
        if create:
            self.step("create", path, grows=True)
            self._change([(path, _Inode())])
        elif path not in self._names:
            raise StorageError(f"{path}: could not open: No such file or directory")
        return DiskFile(self, path, self._names[path])

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or directory; see `Files`."""
        return path in self._names or path in self._directories

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory; see `Files`."""
        paths = [*self._names, *self._directories]
        return sorted(os.path.basename(path) for path in paths if os.path.dirname(path) == directory)

    def make_directories(self, path: str) -> None:
        """Make a directory and its parents; see `Files`."""
        while path and path not in self._directories and path != os.path.dirname(path):
            self._directories.add(path)
            path = os.path.dirname(path)

    def rename(self, old: str, new: str) -> None:
        """Rename a file; see `Files`."""
        self.step("rename", new)
        if old not in self._names:
            raise StorageError(f"{old}: could not rename: No such file or directory")
        self._change([(old, None), (new, self._names[old])])

    def remove(self, path: str) -> None:
        """Remove a file; see `Files`."""
        self.step("remove", path)
        if path not in self._names:
            raise StorageError(f"{path}: could not remove: No such file or directory")
        self._change([(path, None)])

    def sync_directory(self, path: str) -> None:
        """Make names durable; see `Files`. Like a journal it brings everything older along."""
        self.step("sync", path)
        last = max(
            (
                i
                for i, change in enumerate(self._journal)
                if any(os.path.dirname(p) == path for p, _ in change)
            ),
            default=-1,
        )
        for change in self._journal[: last + 1]:
            self._settle(change)
        del self._journal[: last + 1]

    def lock(self, path: str) -> DiskLock:
        """Claim a path; see `Files`."""
        if path in self._locked:
            raise UsageError(f"another process uses {os.path.dirname(path)}")
        self._locked.add(path)
        return DiskLock(self._locked, path)

    # ------------------------------------------------------------------- inside

    def step(self, what: str, path: str, *, grows: bool = False) -> None:
        """Count an operation, and let what has to go wrong at it go wrong."""
        self.operations += 1
        if self.note is not None:
            self.note(f"{what} {path}")
        if self.before is not None:
            self.before(what, path)
        if self._fuse is not None:
            if self._fuse == 0:
                raise Interrupted
            self._fuse -= 1
        if grows and self.full:
            raise StorageError(f"{path}: could not {what}: No space left on device")
        if self.failing and self._rng.random() < self.failing:
            raise StorageError(f"{path}: could not {what}: Input/output error")

    def _change(self, change: _Change) -> None:
        for path, inode in change:
            if inode is None:
                self._names.pop(path, None)
            else:
                self._names[path] = inode
        self._journal.append(change)

    def _settle(self, change: _Change) -> None:
        for path, inode in change:
            if inode is None:
                self._durable_names.pop(path, None)
            else:
                self._durable_names[path] = inode


class DiskFile:
    """An open file of a simulated disk."""

    def __init__(self, disk: Disk, path: str, inode: _Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode

    def write(self, buffers: Sequence[bytes], offset: int) -> None:
        """Write; see `File`. A write that fails may have written its first sectors."""
        data = b"".join(buffers)
        try:
            self._disk.step("write", self._path, grows=offset + len(data) > len(self._inode.data))
        except (StorageError, Interrupted) as error:
            if not self._disk.full:
                share = error.share if isinstance(error, Interrupted) else None
                drawn = self._disk._rng.randint(0, len(data))
                end = offset + (drawn if share is None else int(share * len(data)))
                self._inode.write(data[: max(0, end // SECTOR_BYTES * SECTOR_BYTES - offset)], offset)
            raise
        self._inode.write(data, offset)

    def read(self, length: int, offset: int) -> bytes:
        """Read; see `File`."""
        return bytes(self._inode.data[offset : offset + length])

    def sync(self) -> None:
        """Make durable; see `File`."""
        inode = self._inode
        try:
            self._disk.step("sync", self._path)
        except StorageError:
            # The kernel reports the failure once and counts the sectors as clean from then on.
            inode.flush([sector for sector in sorted(inode.dirty) if self._disk._rng.random() < 0.5])
            inode.dirty.clear()
            raise
        inode.flush(sorted(inode.dirty))
        inode.dirty.clear()

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self._inode.data)

    @property
    def descriptor(self) -> int | None:
        """None: no kernel knows the file."""
        return None

    def close(self) -> None:
        """Close the file."""


class DiskLock:
    """A claim on a path of a simulated disk."""

    def __init__(self, locked: set[str], path: str) -> None:
        self._locked = locked
        self._path = path

    def close(self) -> None:
        """Give the claim up."""
        self._locked.discard(self._path)
