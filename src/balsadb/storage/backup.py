"""A backup: the whole state right after one entry, in one file that proves itself.

    header    magic, version, checksum, and what the backup is of
    blocks    records in the order of their keys, each block with its checksum
    footer    how many blocks and keys there are, and a SHA-256 over everything before it

Each block's checksum starts from the header's, so blocks of two backups can't be mixed; the footer tells that
none is missing. A file that was cut short, or in which a bit was turned, is refused before anything is
restored from it. The SHA-256 names the backup: all nodes of a restored cluster must have been given the same.

docs/disk-format.md has every byte. Everything here is for a command or a worker thread, never for the loop.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, TypeAlias

import google_crc32c
import msgspec

from balsadb.errors import DataError, LocalFault, StorageError
from balsadb.kv.cut import RECORDS_VERSION, decode_record
from balsadb.kv.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX
from balsadb.raft.configuration import decode_configuration
from balsadb.raft.types import Index, Millis, Term
from balsadb.storage.state import StateStore, is_record

MAGIC: Final = b"BALSBACK"
FORMAT_VERSION: Final = 1
INFO_BYTES_MAX: Final = 1 << 20
"""A longer description is not one of ours; it is not even read."""
BLOCK_BYTES: Final = 256 * 1024
"""A block ends with the record that reaches this many bytes."""
PAIR_BYTES: Final = 11
"""What MessagePack adds to a key and a value, at most."""
BLOCK_BYTES_MAX: Final = BLOCK_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX + 1024
"""No block is longer: a reader takes no more memory for one, whatever a damaged length says."""

_HEADER: Final = struct.Struct("<8sIII")
_BLOCK: Final = struct.Struct("<II")
_COUNTS: Final = struct.Struct("<QQ")
_CHECKSUM_BYTES: Final = 32
_NO_BLOCK: Final = bytes(_BLOCK.size)
_ANOTHER: Final = "Use another backup"

Pair: TypeAlias = tuple[bytes, bytes]
"""A key with the byte that says what it is, and its value, as both stand in the state on disk."""

_DECODER: Final[msgspec.msgpack.Decoder[list[Pair]]] = msgspec.msgpack.Decoder(list[Pair])
_ENCODER: Final = msgspec.msgpack.Encoder()


class BackupInfo(msgspec.Struct, frozen=True):
    """What a backup is of."""

    state_version: int
    """Version of the records (`kv.cut`)."""
    cluster_id: bytes
    """The cluster that it was taken from; a restore makes a new one (rule M4)."""
    index: Index
    """The state is that right after this entry."""
    term: Term
    """Term of that entry."""
    log_time_ms: Millis
    """Log time there."""
    keys: int
    """Number of keys."""
    created_ms: Millis
    """Wall clock of the machine that wrote the file."""


class Summary(msgspec.Struct, frozen=True):
    """A backup that was read from beginning to end and found sound."""

    info: BackupInfo
    length: int
    """Of the file, in bytes."""
    checksum: bytes
    """SHA-256 of everything before it in the file: the backup's name."""


def write_backup(path: str, store: StateStore, created_ms: Millis) -> Summary:
    """Write all of a state that nobody changes into a new file, durably.

    Raises DataError when the state is damaged, StorageError when it is empty or the file can't be written.
    """
    bookkeeping = store.bookkeeping
    if bookkeeping is None:
        raise StorageError(f"{store.path}: there is no state to be backed up yet")
    configuration = bookkeeping.configuration
    info = BackupInfo(
        state_version=RECORDS_VERSION,
        cluster_id=decode_configuration(configuration).cluster_id if configuration else b"",
        index=bookkeeping.index,
        term=bookkeeping.term,
        log_time_ms=bookkeeping.log_time_ms,
        keys=bookkeeping.keys,
        created_ms=created_ms,
    )
    try:
        with open(path, "xb") as file:
            os.chmod(file.fileno(), 0o600)  # it holds all data of the cluster
            summary = _Writer(file, info).write(store)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{path}: could not write the backup: {error.strerror or error}") from error
    return summary


class _Writer:
    """Puts a file together and hashes what goes into it."""

    def __init__(self, file: BinaryIO, info: BackupInfo) -> None:
        self._file = file
        self._info = info
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._blocks = 0
        self._seed = 0

    def write(self, store: StateStore) -> Summary:
        content = _ENCODER.encode(self._info)
        self._seed = google_crc32c.value(content)
        self._put(_HEADER.pack(MAGIC, FORMAT_VERSION, len(content), self._seed), content)
        keys = 0
        pairs: list[Pair] = []
        size = 0
        for pair in store.raw_records():
            keys += 1
            pairs.append(pair)
            size += len(pair[0]) + len(pair[1]) + PAIR_BYTES
            if size >= BLOCK_BYTES:
                self._block(pairs)
                pairs, size = [], 0
        if pairs:
            self._block(pairs)
        if keys != self._info.keys:
            problem = f"the state has {keys} keys and should have {self._info.keys}"
            raise DataError(store.path, None, problem, "Take the backup from another node")
        self._put(_NO_BLOCK)
        self._put(_COUNTS.pack(self._blocks, keys))
        checksum = self._hash.digest()
        self._file.write(checksum)
        return Summary(self._info, self._bytes + len(checksum), checksum)

    def _block(self, pairs: list[Pair]) -> None:
        body = _ENCODER.encode(pairs)
        self._put(_BLOCK.pack(len(body), google_crc32c.extend(self._seed, body)), body)
        self._blocks += 1

    def _put(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._file.write(piece)
            self._hash.update(piece)
            self._bytes += len(piece)


class BackupReader:
    """Reads a backup from beginning to end. Whatever is wrong with the file raises DataError.

    `summary` is there only once `blocks` has ended: then, and not before, the file is known to be whole.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        """Read the header."""
        self._file = file
        self._path = path
        self._hash = hashlib.sha256()
        self._at = 0
        self._seed = 0
        self._last = b""
        """The greatest key so far."""
        self._keys = 0
        self._blocks = 0
        self.info = self._read_info()
        self.summary: Summary | None = None

    def _read_info(self) -> BackupInfo:
        magic, version, length, self._seed = _HEADER.unpack(self._take(_HEADER.size, "its header"))
        if magic != MAGIC:
            raise self._damage(0, "this is not a backup of BalsaDB")
        if version != FORMAT_VERSION:
            problem = f"the backup has format version {version}, and this program knows {FORMAT_VERSION}"
            raise DataError(self._path, 8, problem, "Use the version of BalsaDB that wrote it")
        if length > INFO_BYTES_MAX:
            raise self._damage(12, f"a description of {length} bytes is announced")
        content = self._take(length, "its description")
        if google_crc32c.value(content) != self._seed:
            raise self._damage(_HEADER.size, "the description fails its checksum")
        try:
            info = msgspec.msgpack.decode(content, type=BackupInfo)
        except msgspec.MsgspecError as error:
            raise self._damage(_HEADER.size, f"the description makes no sense: {error}") from error
        if not 1 <= info.state_version <= RECORDS_VERSION:
            problem = (
                f"its records have version {info.state_version}, and this program knows {RECORDS_VERSION}"
            )
            raise DataError(self._path, _HEADER.size, problem, "Use the version of BalsaDB that wrote it")
        return info

    def blocks(self) -> Iterator[list[Pair]]:
        """Yield the pairs block by block, each checked, and check the whole file at the end."""
        while True:
            start = self._at
            length, checksum = _BLOCK.unpack(self._take(_BLOCK.size, "a block"))
            if length == 0:
                break
            if length > BLOCK_BYTES_MAX:
                raise self._damage(start, f"a block of {length} bytes is announced")
            body = self._take(length, "a block")
            if google_crc32c.extend(self._seed, body) != checksum:
                raise self._damage(start, "a block fails its checksum")
            try:
                pairs = _DECODER.decode(body)
            except msgspec.MsgspecError as error:
                raise self._damage(start, f"a block makes no sense: {error}") from error
            self._check(start, pairs)
            self._blocks += 1
            yield pairs
        self._finish(checksum)

    def _check(self, start: int, pairs: list[Pair]) -> None:
        last = self._last
        for key, value in pairs:
            if key <= last:
                raise self._damage(start, f"key {key[:40]!r} follows {last[:40]!r}")
            if not is_record(key):
                raise self._damage(start, f"what {key[:40]!r} stands for is unknown")
            try:
                revision = decode_record(value)[1]
            except LocalFault as error:
                raise self._damage(start, str(error)) from error
            if revision > self.info.index:
                problem = f"a record of entry {revision} is in a state of entry {self.info.index}"
                raise self._damage(start, problem)
            last = key
        self._last = last
        self._keys += len(pairs)

    def _finish(self, word: int) -> None:
        blocks, keys = _COUNTS.unpack(self._take(_COUNTS.size, "its footer"))
        expected = self._hash.digest()
        at = self._at
        checksum = self._take(_CHECKSUM_BYTES, "its footer")
        if checksum != expected or word != 0:
            raise self._damage(at, "the whole file fails its checksum")
        if (blocks, keys, keys) != (self._blocks, self._keys, self.info.keys):
            problem = (
                f"{keys} keys in {blocks} blocks are announced, "
                f"and {self._keys} keys in {self._blocks} blocks are there"
            )
            raise self._damage(at, problem)
        if self._file.read(1):
            raise self._damage(self._at, "the file goes on behind its end")
        self.summary = Summary(self.info, self._at, checksum)

    def _take(self, length: int, what: str) -> bytes:
        try:
            data = self._file.read(length)
        except OSError as error:
            raise StorageError(f"{self._path}: could not read: {error.strerror or error}") from error
        if len(data) != length:
            raise self._damage(self._at + len(data), f"the file ends within {what}: it is not complete")
        self._hash.update(data)
        self._at += length
        return data

    def _damage(self, offset: int, problem: str) -> DataError:
        return DataError(self._path, offset, problem, _ANOTHER)


def verify_backup(path: str) -> Summary:
    """Read a whole backup. Raises DataError when it is not sound, StorageError when it can't be read."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - the sentence is about opening alone
    except OSError as error:
        raise StorageError(f"{path}: could not open: {error.strerror or error}") from error
    with file:
        reader = BackupReader(file, path)
        for _ in reader.blocks():
            pass
    assert reader.summary is not None
    return reader.summary
