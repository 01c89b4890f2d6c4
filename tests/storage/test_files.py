"""The real file system behind the one door: every failure becomes a StorageError that names the file."""

import os

import pytest

from balsadb.errors import StorageError, UsageError
from balsadb.storage.files import IOV_MAX, OsFiles


@pytest.fixture
def files():
    return OsFiles()


def test_what_is_written_is_read_at_its_place(files, tmp_path):
    file = files.open(str(tmp_path / "f"), create=True)
    file.write([b"ab", b"", b"cd"], 3)
    file.sync()
    assert file.size == 7
    assert file.read(100, 0) == b"\0\0\0abcd"
    assert file.read(2, 4) == b"bc"
    assert file.read(5, 7) == b""
    file.close()


def test_more_buffers_than_one_call_takes_are_still_one_write(files, tmp_path):
    file = files.open(str(tmp_path / "f"), create=True)
    buffers = [bytes([n % 251]) for n in range(IOV_MAX + 5)]
    file.write(buffers, 0)
    assert file.read(5000, 0) == b"".join(buffers)
    file.close()


def test_an_open_file_stays_itself_under_a_new_name(files, tmp_path):
    file = files.open(str(tmp_path / "old"), create=True)
    files.rename(str(tmp_path / "old"), str(tmp_path / "new"))
    file.write([b"x"], 0)
    assert (tmp_path / "new").read_bytes() == b"x"
    file.close()
    assert files.list(str(tmp_path)) == ["new"]
    files.remove(str(tmp_path / "new"))
    assert not files.exists(str(tmp_path / "new"))


def test_missing_parents_are_made(files, tmp_path):
    path = str(tmp_path / "a" / "b" / "c")
    files.make_directories(path)
    files.make_directories(path)
    assert files.exists(path)
    assert files.list(path) == []
    assert files.list(path + "/nowhere") == []


def test_the_name_of_a_directory_that_an_earlier_process_made_is_synced(files, tmp_path, monkeypatch):
    """It may have been killed between making and syncing it."""
    synced = []
    monkeypatch.setattr(OsFiles, "sync_directory", lambda self, path: synced.append(path))
    os.mkdir(tmp_path / "a")
    files.make_directories(str(tmp_path / "a"))
    assert synced == [str(tmp_path)]
    files.make_directories(str(tmp_path / "a" / "b" / "c"))
    assert synced[1:] == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]


@pytest.mark.parametrize(
    "operation",
    [
        lambda files, path: files.open(path),
        lambda files, path: files.open(path + "/x", create=True),
        lambda files, path: files.rename(path, path + "2"),
        lambda files, path: files.remove(path),
        lambda files, path: files.sync_directory(path),
        lambda files, path: files.lock(path + "/LOCK"),
    ],
)
def test_what_fails_names_the_file(files, tmp_path, operation):
    path = str(tmp_path / "missing")
    with pytest.raises(StorageError, match="missing"):
        operation(files, path)


def test_a_lock_is_free_again_once_closed(files, tmp_path):
    path = str(tmp_path / "LOCK")
    lock = files.lock(path)
    with pytest.raises(UsageError, match="another process"):
        files.lock(path)
    lock.close()
    files.lock(path).close()
