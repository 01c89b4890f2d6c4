"""A state as files: offering a copy of it to a follower, and receiving one in `incoming/`.

    group-0/outgoing/<index>/    a checkpoint by hard links, kept while somebody needs it
    group-0/incoming/OFFER       what is being received, as it was offered
    group-0/incoming/files/      what has come of it

Everything here is for worker threads. What was received counts only once every file has its checksum and is
durable, and a pointer says so (`state.StateDirectory.switch`, rule C4); until then the old state stays.
"""

from __future__ import annotations

import os
import shutil

import google_crc32c
import msgspec

from balsadb.errors import DataError, ProtocolError, StorageError
from balsadb.storage.files import Files
from balsadb.storage.state import StateDirectory, StateStore
from balsadb.wire.transfer import CHUNK_BYTES_MAX, Chunk, Offer, Resume, StateFile

READ_BYTES = 1 << 20
MARGIN_BYTES = 64 * 1024 * 1024
"""Free space that must remain beside a received state."""


class Outgoing:
    """A checkpoint that is offered to followers."""

    def __init__(self, path: str, offer: Offer) -> None:
        self.path = path
        self.offer = offer

    @classmethod
    def make(cls, store: StateStore, directory: str) -> Outgoing:
        """Make a checkpoint of all cuts written so far in a fresh directory. Raises LocalFault."""
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(os.path.dirname(directory), mode=0o700, exist_ok=True)
        store.checkpoint(directory)
        copy = StateStore(directory, read_only=True)
        try:
            bookkeeping = (
                copy.bookkeeping
            )  # from inside the checkpoint, never from the running node (rule C2)
        finally:
            copy.close()
        if bookkeeping is None:
            raise StorageError(f"{directory}: there is no state to be sent yet")
        files = tuple(_describe(directory, name) for name in sorted(os.listdir(directory)) if _travels(name))
        return cls(directory, Offer(bookkeeping.index, bookkeeping.term, files))

    def chunk(self, file: int, offset: int) -> Chunk:
        """Read the piece of a file that begins at `offset`."""
        with open(f"{self.path}/{self.offer.files[file].name}", "rb") as source:
            source.seek(offset)
            return Chunk(file, offset, source.read(CHUNK_BYTES_MAX))

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self.path, ignore_errors=True)


class Incoming:
    """A state that is being received, in order, piece by piece."""

    def __init__(self, files: Files, group: str, offer: Offer) -> None:
        """Begin, or go on where a former connection ended. Raises ProtocolError, StorageError."""
        self.offer = offer
        self._group = group
        self._files = files
        self._path = f"{group}/incoming"
        names = [file.name for file in offer.files]
        if not names or len(set(names)) != len(names) or offer.index == 0:
            raise ProtocolError("a peer offers a state that can't be one")
        if not self._goes_on():
            self._begin()
        self.resume = self._find()

    def _goes_on(self) -> bool:
        if not os.path.isdir(f"{self._path}/files"):
            return False  # a process ended when it had moved them, and before they counted
        try:
            with open(f"{self._path}/OFFER", "rb") as source:
                return source.read() == msgspec.msgpack.encode(self.offer)
        except FileNotFoundError:
            return False

    def _begin(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        free = shutil.disk_usage(self._group).free
        if free < self.offer.length + MARGIN_BYTES:
            raise StorageError(f"{self._path}: {free} bytes are free and the state has {self.offer.length}")
        os.makedirs(f"{self._path}/files", mode=0o700)
        with open(f"{self._path}/OFFER", "wb") as target:
            target.write(msgspec.msgpack.encode(self.offer))

    def _find(self) -> Resume:
        """Return where to go on. What is there is checked when all is there."""
        for position, file in enumerate(self.offer.files):
            try:
                length = os.path.getsize(self._name(file.name))
            except FileNotFoundError:
                length = -1
            if length > file.length:
                os.unlink(self._name(file.name))
                length = -1
            if length < file.length:
                return Resume(position, max(length, 0))
        return Resume(len(self.offer.files), 0)

    def take(self, chunk: Chunk) -> None:
        """Write the next piece. Raises ProtocolError when it is another one, StorageError."""
        expected = self.resume
        if (chunk.file, chunk.offset) != (expected.file, expected.offset):
            raise ProtocolError(f"a peer sends {chunk.file}:{chunk.offset} where {expected} is due")
        file = self.offer.files[chunk.file]
        end = chunk.offset + len(chunk.data)
        if end > file.length or (not chunk.data and file.length):
            raise ProtocolError(f"a peer sends {end} bytes of a file of {file.length}")
        try:
            with open(self._name(file.name), "r+b" if chunk.offset else "wb") as target:
                target.seek(chunk.offset)
                target.write(chunk.data)
        except OSError as error:
            raise StorageError(f"{self._name(file.name)}: could not write: {error}") from error
        self.resume = Resume(chunk.file, end) if end < file.length else self._after(chunk.file)

    def _after(self, file: int) -> Resume:
        return Resume(file + 1, 0)

    @property
    def complete(self) -> bool:
        """Tell whether all bytes are there."""
        return self.resume.file == len(self.offer.files)

    def verify(self) -> None:
        """Check every file against its checksum and make it durable. Raises DataError and starts over."""
        for file in self.offer.files:
            found = _describe(f"{self._path}/files", file.name, sync=True)
            if found != file:
                self.drop()
                problem = f"it was received as {found} and offered as {file}"
                raise DataError(self._name(file.name), None, problem, "The transfer begins anew by itself")
        self._files.sync_directory(f"{self._path}/files")

    def put_in_place(self, directory: StateDirectory) -> StateStore:
        """Move what was verified next to the state in use, let it count, durably, and open it (rule C4)."""
        path = directory.fresh()
        os.rename(f"{self._path}/files", path)
        store = StateStore(path)
        try:
            bookkeeping = store.bookkeeping
            if bookkeeping is None or (bookkeeping.index, bookkeeping.term) != (
                self.offer.index,
                self.offer.term,
            ):
                problem = f"it holds {bookkeeping} and was offered as {self.offer.index}"
                raise DataError(path, None, problem, "The transfer begins anew by itself")
            directory.switch(os.path.basename(path), self.offer.index)
        except BaseException:
            store.close()
            raise
        shutil.rmtree(self._path, ignore_errors=True)
        return store

    def drop(self) -> None:
        """Forget all of it."""
        shutil.rmtree(self._path, ignore_errors=True)

    def _name(self, name: str) -> str:
        return f"{self._path}/files/{name}"


def _travels(name: str) -> bool:
    """Tell whether a file of a RocksDB is part of its content."""
    return name not in {"LOCK", "LOG", "IDENTITY"} and not name.startswith("LOG.old")


def _describe(directory: str, name: str, *, sync: bool = False) -> StateFile:
    checksum = length = 0
    with open(f"{directory}/{name}", "rb") as source:
        while piece := source.read(READ_BYTES):
            checksum = google_crc32c.extend(checksum, piece)
            length += len(piece)
        if sync:
            os.fsync(source.fileno())
    return StateFile(name, length, checksum)
