"""A state that is being received: offers and pieces in any order, cut off and begun anew at any point."""

from __future__ import annotations

import tempfile
from pathlib import Path

import google_crc32c

from balsadb.errors import DataError, ProtocolError, StorageError
from balsadb.storage.files import OsFiles
from balsadb.storage.transfer import Incoming
from balsadb.wire.transfer import Chunk, Offer, StateFile
from fuzz.kit import Target

CONTENT = (b"sixteen bytes...", b"", b"0123456789")
NAMES = ("CURRENT", "000007.sst", "MANIFEST-000003")
FILES_MAX = 1_000_000


def _offer(index: int, word: int) -> Offer:
    """An offer whose files are the true ones, or lie about a length or a checksum."""
    files = []
    for number, (name, content) in enumerate(zip(NAMES, CONTENT, strict=True)):
        length, checksum = len(content), google_crc32c.value(content)
        if word >> 2 == number:
            length += (0, 1, -1, 10**15)[word & 3] if length else 0
        elif word >> 2 == number + 3:
            checksum ^= word & 3
        files.append(StateFile(NAMES[0] if word >> 2 == 7 else name, length, checksum))
    return Offer(index, 1, tuple(files[: 1 + word % 3] if word >> 5 == 1 else files))


def _true(offer: Offer) -> bool:
    known = dict(zip(NAMES, CONTENT, strict=True))
    return all(
        (file.length, file.checksum) == (len(known[file.name]), google_crc32c.value(known[file.name]))
        for file in offer.files
    )


def _run(data: bytes, group: str) -> str:
    files = OsFiles()
    incoming: Incoming | None = None
    said = "nothing"
    for at in range(0, len(data) - 3, 4):
        kind, one, two, three = data[at : at + 4]
        try:
            if incoming is None or kind % 8 == 0:
                said = "offered"
                incoming = Incoming(files, group, _offer(one % 3, two))
            elif incoming.complete:
                # Nobody asks for more then; `test_found.py` has what would happen.
                incoming.verify()
                said = "verified"
                assert _true(incoming.offer)
                for file in incoming.offer.files:
                    received = Path(group, "incoming", "files", file.name).read_bytes()
                    assert received == CONTENT[NAMES.index(file.name)]
            elif kind % 8 > 1:
                # Mostly the piece that is due, else another one.
                due = incoming.resume
                number, offset = (due.file, due.offset) if kind % 8 > 2 else (one % 4, two % 20)
                content = CONTENT[number % 3] if kind & 64 == 0 else b"another content that is longer"
                size = three % 8 if kind & 128 else len(content)
                incoming.take(Chunk(number, offset, content[offset : offset + size]))
                said = "complete" if incoming.complete else "received"
        except (ProtocolError, StorageError, DataError) as error:
            incoming = None
            said = f"{type(error).__name__} after {said}"
        there = [path for path in Path(group).rglob("*") if path.is_file()]
        assert all(
            path.parent in (Path(group, "incoming"), Path(group, "incoming", "files")) for path in there
        )
        assert (
            sum(path.stat().st_size for path in there if path.name != "OFFER") <= sum(map(len, CONTENT)) + 64
        )
    return said


def target(data: bytes) -> str:
    """Play one receiver: four bytes a step."""
    with tempfile.TemporaryDirectory(prefix="balsadb-fuzz-") as group:
        return _run(data[:200], group)


_PIECES = b"\3\0\0\0" * 3
SEEDS = (
    b"\0\1\xff\0" + _PIECES + b"\1\0\0\0",
    b"\0\1\xff\0" + b"\x83\0\0\5" * 8 + b"\1\0\0\0",
    b"\0\1\xff\0\3\0\0\0" + b"\0\1\xff\0" + _PIECES + b"\1\0\0\0",
    b"\0\2\xff\0\3\0\0\0" + b"\0\1\xff\0" + _PIECES + b"\1\0\0\0",
    *[b"\0\1" + bytes([word]) + b"\0" + _PIECES + b"\1\0\0\0" for word in range(0, 36, 2)],
    b"\0\1\xff\0" + b"\x43\0\0\0" * 3,
    b"\0\1\xff\0" + b"\2\1\5\0" * 3,
)
TOKENS = (b"\0\1\xff\0", b"\3\0\0\0", b"\x83\0\0\2", b"\1\0\0\0", b"\2\0\0\0")

TARGET = Target("state_transfers", target, SEEDS, TOKENS)
