"""Whose directory it is: every reason to refuse one, by name (rules P2, W5)."""

import os

import msgspec
import pytest
from memory_files import MemoryFiles
from wal_kit import Log, entry

from balsadb.errors import DataError, StorageError, UsageError
from balsadb.storage.datadir import DataDirectory, Meta
from balsadb.storage.files import OsFiles
from balsadb.storage.meta import META_BYTES_MAX, decode_meta, encode_meta

CLUSTER = "1=a:1,2=b:2,3=c:3"
PATH = "/d"
META = f"{PATH}/META"


def start(files, node_id=1, cluster=CLUSTER, store=7):
    return DataDirectory.open(PATH, files, node_id, cluster, new_store_id=lambda: bytes([store]) * 16)


@pytest.fixture
def files():
    """A directory that was used once."""
    files = MemoryFiles()
    start(files).close()
    return files


def refuse(files, kind=DataError, **options):
    """Open the directory, which must be refused with nothing changed and nothing held."""
    before = {path: bytes(inode.seen) for path, inode in files.names.items()}
    with pytest.raises(kind) as caught:
        start(files, **options)
    assert {path: bytes(inode.seen) for path, inode in files.names.items()} == before
    assert not files.locks
    assert files.open_files == 0
    return caught.value


def log_in(files):
    log = Log(files, directory=f"{PATH}/group-0/wal")
    log.write(entry(1))
    log.wal.close()


# ------------------------------------------------------------------------------------- good starts


def test_an_empty_directory_gets_an_identity():
    directory = start(MemoryFiles())
    assert directory.meta == Meta(node_id=1, store_id=b"\7" * 16, cluster_text=CLUSTER, boot=1)
    assert directory.wal_path == "/d/group-0/wal"


def test_every_start_raises_boot_and_keeps_the_identity(files):
    for boot in (2, 3, 4):
        directory = start(files, store=9)
        assert (directory.meta.boot, directory.meta.store_id) == (boot, b"\7" * 16)
        directory.close()


def test_boot_is_durable_before_the_start_returns(files):
    start(files)
    left = files.power_loss(lambda sector: False)
    assert decode_meta(META, bytes(left.content(META))).boot == 2


def test_what_is_updated_is_durable_and_found_again(files):
    directory = start(files)
    meta = msgspec.structs.replace(directory.meta, admitted=True, cluster_id=b"c" * 16, met={2: b"x" * 16})
    directory.update_meta(meta)
    assert directory.meta == meta
    left = files.power_loss(lambda sector: False)
    log_in(left)
    assert start(left).meta == msgspec.structs.replace(meta, boot=3)


def test_store_ids_are_drawn_at_random():
    drawn = {DataDirectory.open(PATH, MemoryFiles(), 1, CLUSTER).meta.store_id for _ in range(3)}
    assert {len(store) for store in drawn} == {16}
    assert len(drawn) == 3


def test_a_start_that_was_stopped_before_its_log_was_made_goes_on(files):
    """META was written, and nothing happened yet that could be forgotten."""
    files.directories.add("/d/group-0/wal")
    assert start(files).meta.boot == 2


def test_a_left_over_temporary_meta_does_not_count(files):
    files.put(META + ".tmp", b"half of")
    assert start(files).meta.boot == 2


# ------------------------------------------------------------------------------------- refusals


def test_a_second_process_is_refused_with_the_directory(files):
    start(files)
    with pytest.raises(UsageError, match="another process uses /d"):
        start(files)


def test_a_real_lock_is_held_until_closed(tmp_path):
    path = str(tmp_path / "a" / "b")
    first = DataDirectory.open(path, OsFiles(), 1, CLUSTER)
    with pytest.raises(UsageError, match="another process uses"):
        DataDirectory.open(path, OsFiles(), 1, CLUSTER)
    first.close()
    second = DataDirectory.open(path, OsFiles(), 1, CLUSTER)
    assert second.meta.boot == 2
    second.close()
    assert sorted(os.listdir(path)) == ["LOCK", "META"]


def test_another_nodes_directory_is_refused(files):
    error = refuse(files, UsageError, node_id=2)
    assert f"{META}: this is the data of node 1, not of node 2; correct --id or --data-dir" in str(error)


def test_another_clusters_directory_is_refused(files):
    error = refuse(files, UsageError, cluster="1=a:1")
    assert META in str(error)
    assert CLUSTER in str(error)


def test_a_log_without_meta_is_no_fresh_start(files):
    """A new identity here would vote a second time in terms that the old one has voted in (rule W5)."""
    log_in(files)
    del files.names[META]
    error = refuse(files)
    assert error.path == META
    assert "holds a log" in str(error)


@pytest.mark.parametrize("mark", [{"admitted": True}, {"cluster_id": b"c" * 16}, {"met": {2: b"x" * 16}}])
def test_meta_of_a_member_without_its_log_is_no_fresh_start(files, mark):
    directory = start(files)
    directory.update_meta(msgspec.structs.replace(directory.meta, **mark))
    directory.close()
    assert refuse(files).path == "/d/group-0/wal"


def test_any_flipped_bit_of_meta_is_found(files):
    content = files.content(META)
    for offset in range(len(content)):
        for bit in range(8):
            content[offset] ^= 1 << bit
            error = refuse(files)
            assert error.path == META
            assert error.offset is not None
            content[offset] ^= 1 << bit


def test_meta_cut_at_any_byte_is_found(files):
    whole = bytes(files.content(META))
    for length in range(len(whole)):
        files.put(META, whole[:length])
        refuse(files)
    files.put(META, whole + b"x")
    refuse(files)


def test_a_later_version_of_meta_is_named(files):
    files.content(META)[8] = 2
    error = refuse(files)
    assert "format version 2" in str(error)
    assert "Start the version" in error.remedy


def test_a_huge_meta_is_not_read(files):
    files.put(META, bytes(META_BYTES_MAX + 1))
    assert error_offset(files) == META_BYTES_MAX


def error_offset(files):
    return refuse(files).offset


@pytest.mark.parametrize(
    "meta",
    [
        Meta(node_id=1, store_id=b"short", cluster_text=CLUSTER),
        {"node_id": "one", "store_id": bytes(16), "cluster_text": CLUSTER},
        ["not", "a", "map"],
    ],
)
def test_content_that_makes_no_sense_is_refused(files, meta):
    files.put(META, encode_meta(meta))
    refuse(files)


def test_meta_that_cannot_be_written_refuses_the_start(files):
    for operation in ("create", "write", "sync", "rename", "sync-directory"):
        files.fail = lambda text, operation=operation: text.split()[0] == operation
        with pytest.raises(StorageError):
            start(files)
        assert not files.locks
        assert files.open_files == 0
    files.fail = lambda text: False
    assert start(files).meta.boot >= 2


def test_a_directory_that_has_something_else_in_it_is_not_made_a_data_directory(tmp_path):
    (tmp_path / "passwd").write_text("root")
    with pytest.raises(UsageError, match=r"is no data directory.*\(passwd\); name an empty one"):
        DataDirectory.open(str(tmp_path), OsFiles(), 1, CLUSTER)
    assert [path.name for path in tmp_path.iterdir()] == ["passwd"]


def test_what_an_interrupted_first_start_left_is_no_reason_to_refuse(tmp_path):
    for name in ("LOCK", "META.tmp"):
        (tmp_path / name).touch()
    (tmp_path / "group-0").mkdir()
    DataDirectory.open(str(tmp_path), OsFiles(), 1, CLUSTER).close()
