"""Backups: a damaged one is refused, and one that was made up restores nothing that contradicts itself."""

from __future__ import annotations

import hashlib
import io
import struct
from itertools import pairwise
from types import SimpleNamespace

import google_crc32c
import msgspec

from balsadb.errors import DataError
from balsadb.kv.cut import RECORDS_VERSION, decode_record, encode_record
from balsadb.storage.backup import (
    BLOCK_BYTES_MAX,
    FORMAT_VERSION,
    MAGIC,
    BackupInfo,
    BackupReader,
    Summary,
    _Writer,
)
from fuzz.kit import SEPARATOR, UNREPAIRED, Target, edited

INFO = BackupInfo(RECORDS_VERSION, b"c" * 16, 100, 3, 10**12, 40, 10**12)
PAIRS = [(b"dkey-%02d" % n, encode_record((b"value" * n, 60 + n, n))) for n in range(40)]


class _Counting(io.BytesIO):
    """A file that does not give more than a reader may take at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= BLOCK_BYTES_MAX
        return super().read(size)


def _sound() -> bytes:
    file = io.BytesIO()
    _Writer(file, INFO).write(SimpleNamespace(raw_records=lambda: iter(PAIRS), path="state"))
    return file.getvalue()


BACKUP = _sound()


def read(data: bytes) -> tuple[list[tuple[bytes, bytes]], Summary]:
    """Read a backup to its end. Raises DataError."""
    reader = BackupReader(_Counting(data), "backup")
    pairs = [pair for block in reader.blocks() for pair in block]
    assert reader.summary is not None
    return pairs, reader.summary


def _made(content: bytes, bodies: list[bytes], blocks: int, keys: int) -> bytes:
    """A backup of any parts, with all its checksums right."""
    seed = google_crc32c.value(content)
    data = struct.pack("<8sIII", MAGIC, FORMAT_VERSION, len(content), seed) + content
    for body in bodies:
        data += struct.pack("<II", len(body), google_crc32c.extend(seed, body)) + body
    data += bytes(8) + struct.pack("<QQ", blocks, keys)
    return data + hashlib.sha256(data).digest()


def target(data: bytes) -> str:
    """Read a backup that was damaged, or one whose parts were made up."""
    if data[:1] < b"\x80":
        backup = edited(BACKUP, data[1:])
        try:
            pairs, _ = read(backup)
        except DataError:
            return "damage noticed"
        assert backup == BACKUP
        assert pairs == PAIRS
        return "whole"
    content, *bodies = data[1:].split(SEPARATOR)
    kind = data[0] & 3
    info = msgspec.msgpack.encode(INFO) if kind else content
    announced = min(b.count(b"\xc4") // 2 for b in bodies) if bodies and kind == 2 else len(bodies)
    if kind == 3:
        info = msgspec.msgpack.encode(msgspec.structs.replace(INFO, keys=announced))
    try:
        pairs, summary = read(_made(info, bodies, len(bodies), announced))
    except DataError as error:
        return "refused: " + " ".join(word for word in error.problem.split() if word.isalpha())[:40]
    except UNREPAIRED:
        return "refused"
    assert len(pairs) == summary.info.keys
    assert all(a[0] < b[0] for a, b in pairwise(pairs))
    for key, value in pairs:
        assert key.startswith(b"d")
        assert decode_record(value)[1] <= summary.info.index
    return "taken"


_BLOCK = msgspec.msgpack.encode(PAIRS[:1])
SEEDS = (
    b"\0",
    *[b"\0" + bytes([kind, 0, place, 3, 9, 5]) for kind in range(8) for place in (0, 4, 9)],
    b"\x80" + msgspec.msgpack.encode(INFO),
    b"\x80" + msgspec.msgpack.encode(msgspec.structs.replace(INFO, keys=1)) + SEPARATOR + _BLOCK,
    b"\x83" + SEPARATOR + _BLOCK,
    b"\x83" + SEPARATOR + msgspec.msgpack.encode(PAIRS[:1]) + SEPARATOR + msgspec.msgpack.encode(PAIRS[1:2]),
    b"\x82" + SEPARATOR + msgspec.msgpack.encode(PAIRS[:3]),
)
TOKENS = (
    *[SEPARATOR, _BLOCK, b"d", b"s", b"m", b"\xc4\x01d", b"\x90", b"\x92", b"\xc1", b"\xdd\xff\xff\xff\xff"],
    *[
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 1_500,
        b"state_version",
        b"keys",
        msgspec.msgpack.encode(2**63),
        b"\xff" * 12,
    ],
)

TARGET = Target("backup_files", target, SEEDS, TOKENS)
