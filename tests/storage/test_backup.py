"""A backup proves itself: whatever is missing from it or changed in it is noticed before it is used."""

import hashlib
import io
import struct

import msgspec
import pytest
from google_crc32c import extend, value
from state_kit import CLUSTER, RECORDS, bookkeeping, make_state

from balsadb.errors import DataError, StorageError
from balsadb.kv.cut import encode_record
from balsadb.kv.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX
from balsadb.storage import backup
from balsadb.storage.backup import BackupReader, verify_backup, write_backup
from balsadb.storage.state import StateStore


def make_backup(directory, records=None, name="file", **changes):
    """Make a state, back it up, and return the file's path."""
    records = RECORDS if records is None else records
    state = make_state(directory / f"state of {name}", records, bookkeeping(len(records), **changes))
    store = StateStore(str(state), read_only=True)
    try:
        write_backup(str(directory / name), store, created_ms=5)
    finally:
        store.close()
    return directory / name


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of a backup."""
    return make_backup(tmp_path_factory.mktemp("sound")).read_bytes()


def read(data):
    reader = BackupReader(io.BytesIO(data), "file")
    pairs = [pair for block in reader.blocks() for pair in block]
    assert reader.summary is not None
    return pairs, reader.summary


def refuse(data):
    with pytest.raises(DataError) as caught:
        read(bytes(data))
    return caught.value


# ------------------------------------------------------------------------------------------- sound ones


def test_it_holds_every_record_in_the_order_of_the_keys(sound):
    pairs, summary = read(sound)
    assert pairs == [(b"d" + key, encode_record((v, 7, 0))) for key, v in sorted(RECORDS.items())]
    assert summary.length == len(sound)
    info = summary.info
    assert (info.index, info.term, info.keys, info.created_ms) == (9, 4, 4, 5)
    assert (info.cluster_id, info.log_time_ms) == (CLUSTER.cluster_id, 1_700_000_000_000)


def test_an_empty_state_makes_a_backup_without_blocks(tmp_path):
    pairs, summary = read(make_backup(tmp_path, {}).read_bytes())
    assert (pairs, summary.info.keys) == ([], 0)


def test_a_state_before_its_first_cut_can_not_be_backed_up(tmp_path):
    store = StateStore(str(tmp_path / "state"))
    try:
        with pytest.raises(StorageError, match="no state to be backed up yet"):
            write_backup(str(tmp_path / "file"), store, 5)
    finally:
        store.close()
    assert not (tmp_path / "file").exists()


def test_many_records_take_many_blocks_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "BLOCK_BYTES", 1000)
    records = {b"%04d" % number: bytes(number % 300) for number in range(500)}
    path = make_backup(tmp_path, records)
    with open(path, "rb") as file:
        reader = BackupReader(file, "file")
        blocks = list(reader.blocks())
    assert len(blocks) > 50
    assert sum(map(len, blocks)) == 500
    assert all(sum(len(k) + len(v) for k, v in block[:-1]) < 1000 for block in blocks)


def test_the_largest_record_behind_many_tiny_ones_fits_into_a_block(tmp_path):
    tiny = {b"%05d" % number: b"" for number in range(14_500)}
    largest = {b"x" * KEY_BYTES_MAX: bytes(VALUE_BYTES_MAX)}
    pairs, summary = read(make_backup(tmp_path, tiny | largest).read_bytes())
    assert len(pairs) == summary.info.keys == 14_501
    assert summary.length > VALUE_BYTES_MAX + KEY_BYTES_MAX + 14_500 * 18


def test_the_bytes_are_those_of_the_format(sound):
    """docs/disk-format.md, field by field."""
    magic, version, length, checksum = struct.unpack_from("<8sIII", sound)
    assert (magic, version) == (b"BALSBACK", 1)
    content = sound[20 : 20 + length]
    assert checksum == value(content)
    assert msgspec.msgpack.decode(content) == {
        "state_version": 2,
        "cluster_id": b"\x11" * 16,
        "index": 9,
        "term": 4,
        "log_time_ms": 1_700_000_000_000,
        "keys": 4,
        "created_ms": 5,
    }
    at = 20 + length
    size, block_checksum = struct.unpack_from("<II", sound, at)
    body = sound[at + 8 : at + 8 + size]
    assert block_checksum == extend(checksum, body)
    records = [[b"d" + key, struct.pack("<QI", 7, 0) + v] for key, v in sorted(RECORDS.items())]
    assert msgspec.msgpack.decode(body) == records
    at += 8 + size
    assert sound[at : at + 8] == bytes(8)
    assert sound[at + 8 : at + 24] == struct.pack("<QQ", 1, 4)
    assert sound[at + 24 :] == hashlib.sha256(sound[: at + 24]).digest()


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    path = make_backup(tmp_path)
    before = path.read_bytes()
    store = StateStore(str(tmp_path / "state of file"), read_only=True)
    try:
        with pytest.raises(StorageError, match="File exists"):
            write_backup(str(path), store, 6)
    finally:
        store.close()
    assert path.read_bytes() == before


def test_only_its_owner_may_read_it(tmp_path):
    assert make_backup(tmp_path).stat().st_mode & 0o077 == 0


# ----------------------------------------------------------------------------------------- unsound ones


def test_a_file_that_ends_anywhere_before_its_end_is_refused(sound):
    for length in range(len(sound)):
        error = refuse(sound[:length])
        assert error.offset == length
        assert "it is not complete" in error.problem


def test_a_bit_that_is_turned_anywhere_is_noticed(sound):
    for offset in range(len(sound)):
        for bit in (0, 7):
            data = bytearray(sound)
            data[offset] ^= 1 << bit
            refuse(data)


def test_a_file_that_goes_on_behind_its_end_is_refused(sound):
    assert "goes on behind its end" in refuse(sound + b"\0").problem


def test_a_block_of_another_backup_is_refused(tmp_path, sound):
    other = make_backup(tmp_path, dict.fromkeys(RECORDS, b"x"), index=10).read_bytes()
    header = 20 + struct.unpack_from("<I", sound, 12)[0]
    assert "a block fails its checksum" in refuse(sound[:header] + other[header:]).problem


def test_a_block_that_is_left_out_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "BLOCK_BYTES", 1)
    data = make_backup(tmp_path).read_bytes()
    at = 20 + struct.unpack_from("<I", data, 12)[0]
    size = struct.unpack_from("<I", data, at)[0]
    refuse(data[:at] + data[at + 8 + size :])


def test_a_block_that_claims_to_be_huge_costs_no_memory(sound):
    at = 20 + struct.unpack_from("<I", sound, 12)[0]
    data = sound[:at] + struct.pack("<I", 2**32 - 1) + sound[at + 4 :]
    assert "a block of 4294967295 bytes is announced" in refuse(data).problem


def forged(pairs, **changes):
    """A file with good checksums and whatever content."""
    info = {
        "state_version": 1,
        "cluster_id": b"",
        "index": 9,
        "term": 4,
        "log_time_ms": 0,
        "keys": len(pairs),
    }
    content = msgspec.msgpack.encode({**info, "created_ms": 5, **changes})
    data = struct.pack("<8sIII", b"BALSBACK", 1, len(content), value(content)) + content
    body = msgspec.msgpack.encode(pairs)
    data += struct.pack("<II", len(body), extend(value(content), body)) + body
    data += bytes(8) + struct.pack("<QQ", 1, len(pairs))
    return data + hashlib.sha256(data).digest()


RECORD = encode_record((b"v", 7, 0))


@pytest.mark.parametrize(
    ("pairs", "changes", "problem"),
    [
        ([(b"db", RECORD), (b"da", RECORD)], {}, "follows"),
        ([(b"da", RECORD), (b"da", RECORD)], {}, "follows"),
        ([(b"xa", RECORD)], {}, "is unknown"),
        ([(b"da", b"short")], {}, "has no revision"),
        ([(b"da", encode_record((b"v", 10, 0)))], {}, "a record of entry 10 is in a state of entry 9"),
        ([(b"da", RECORD)], {"keys": 2}, "1 keys in 1 blocks are announced"),
        ([(b"da", RECORD)], {"state_version": 3}, "its records have version 3"),
        ([(b"da", encode_record((b"", 9, 0, 5))[:-1])], {}, "has no deadline"),
        ([(b"da", RECORD)], {"index": "nine"}, "the description makes no sense"),
        ([1, 2], {}, "a block makes no sense"),
    ],
)
def test_content_that_can_not_be_is_refused_though_its_checksums_are_good(pairs, changes, problem):
    assert problem in refuse(forged(pairs, **changes)).problem


def test_the_forged_file_of_the_test_above_would_be_good():
    assert read(forged([(b"da", RECORD)]))[0] == [(b"da", RECORD)]


def test_another_version_is_named(sound):
    error = refuse(sound[:8] + struct.pack("<I", 2) + sound[12:])
    assert "format version 2, and this program knows 1" in error.problem


def test_another_kind_of_file_is_named():
    assert "this is not a backup of BalsaDB" in refuse(b"SQLite format 3\0" + bytes(5000)).problem


def test_a_state_that_lacks_keys_is_not_backed_up(tmp_path):
    state = make_state(tmp_path / "state", RECORDS, bookkeeping(5))
    store = StateStore(str(state), read_only=True)
    try:
        with pytest.raises(DataError, match="the state has 4 keys and should have 5"):
            write_backup(str(tmp_path / "file"), store, 5)
    finally:
        store.close()


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        verify_backup(str(tmp_path / "none"))
