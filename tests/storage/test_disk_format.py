"""docs/disk-format.md as a specification: fields at their offsets. A change here needs a new version."""

import struct

import msgspec
from google_crc32c import extend, value
from memory_files import MemoryFiles
from wal_kit import STORE, Log, entry

from balsadb.raft.types import HardState
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.records import Codec, CompactionMark

STATE = HardState(7, 2, 1)


def sealed(body):
    return struct.pack("<II", len(body), extend(value(STORE), body)) + body


def test_a_segment():
    log = Log()
    log.write(entry(1, term=7), state=STATE)
    data = bytes(log.memory.content(log.segment()))
    header = b"\4BALSAWAL" + struct.pack("<I16s9Q", 1, STORE, 1, 1, 8192, 0, 0, 0, 0, 0, 0)
    assert data[:109] == struct.pack("<II", 101, value(header)) + header
    assert data[109:512] == b"\xff" * 403
    records = entry(1, term=7).encoded + sealed(b"\3" + struct.pack("<QQQ", 7, 2, 1))
    batch = sealed(b"\2" + struct.pack("<QIII", 1, 512, 2, 0)) + records
    assert data[512:1024] == batch + b"\xff" * (512 - len(batch))
    assert not any(data[1024:])
    assert len(data) == 8192


def test_a_later_segment_repeats_what_is_in_force():
    log = Log()
    log.write(entry(1, term=7), state=STATE)
    log.write(entry(2, term=7, size=9000))
    data = bytes(log.memory.content(log.segment()))
    assert log.segment().endswith("/0000000002-00000000000000000002.wal")
    assert struct.unpack_from("<9Q", data, 37) == (2, 2, len(data), 1, 7, 2, 1, 0, 0)


def test_a_compaction_mark():
    body = b"\5" + struct.pack("<QQB", 9, 3, 1)
    assert Codec(STORE).compaction(CompactionMark(9, 3), keep=True) == sealed(body)


def test_the_note_of_the_end():
    log = Log()
    log.write(entry(1))
    log.wal.note_end(lost=9)
    data = bytes(log.memory.content("/data/wal/END"))
    body = b"BALSAEND" + struct.pack("<I16sQQQQ", 1, STORE, 3, 1, 1, 9)
    assert data[512:] == (body + struct.pack("<I", value(body))).ljust(512, b"\0")
    assert (len(data), struct.unpack_from("<Q", data, 28)) == (1024, (2,))


def test_meta():
    files = MemoryFiles()
    DataDirectory.open("/d", files, 3, "3=h:1", new_store_id=lambda: STORE)
    data = bytes(files.content("/d/META"))
    content = {
        "node_id": 3,
        "store_id": STORE,
        "cluster_text": "3=h:1",
        "cluster_id": b"",
        "boot": 1,
        "admitted": False,
        "met": {},
        "restored": b"",
    }
    assert msgspec.msgpack.decode(data[20:]) == content
    assert data[:20] == b"BALSMETA" + struct.pack("<III", 1, len(data) - 20, value(data[20:]))
