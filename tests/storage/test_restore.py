"""A node of a new cluster out of a backup (rule M4), and nothing at all when it can't be made whole."""

import shutil

import pytest
from state_kit import CLUSTER_TEXT, RECORDS, bookkeeping, fingerprint, make_state, start

from balsadb.errors import BalsaError, DataError, StorageError, UsageError
from balsadb.kv.cut import encode_bookkeeping, encode_record
from balsadb.kv.deadlines import make_hint
from balsadb.kv.machine import StateMachine
from balsadb.kv.sessions import Session
from balsadb.storage.backup import verify_backup, write_backup
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.files import OsFiles
from balsadb.storage.meta import decode_meta
from balsadb.storage.restore import restore
from balsadb.storage.state import StateDirectory, StateStore
from balsadb.storage.wal import Wal, WalOptions

NEW_TEXT = "4=d:1,5=e:1,6=f:1"


@pytest.fixture
def file(tmp_path):
    """A backup as of entry 9 of term 4."""
    store = StateStore(str(make_state(tmp_path / "state", RECORDS)), read_only=True)
    try:
        write_backup(str(tmp_path / "file"), store, 5)
    finally:
        store.close()
    return tmp_path / "file"


def run(file, directory, node=4, files=None):
    return restore(files or OsFiles(), str(file), str(directory), node, NEW_TEXT, [4, 5, 6])


def machine(directory):
    """The state machine that a node in a directory begins with; also returns its store."""
    store = StateStore(StateDirectory(OsFiles(), str(directory / "group-0" / "state")).current().path)
    return StateMachine((), store, store.bookkeeping), store


def meta(directory):
    return decode_meta("META", (directory / "META").read_bytes())


@pytest.mark.slow
def test_every_node_begins_with_the_same_state(file, tmp_path):
    digests = set()
    for node in (4, 5, 6):
        run(file, tmp_path / str(node), node)
        restored, store = machine(tmp_path / str(node))
        digests.add(restored.digest())
        assert {key: record[0] for key, record in restored.store.sorted_items()} == RECORDS
        assert len(restored) == len(RECORDS)
        store.close()
    assert len(digests) == 1


def test_it_goes_on_behind_the_backup_in_a_higher_term_and_knows_nothing_of_the_old_cluster(file, tmp_path):
    run(file, tmp_path / "d")
    held = start(tmp_path / "d", 4, NEW_TEXT)
    assert (held.index, held.term, held.log_time_ms) == (9, 5, bookkeeping(4).log_time_ms)
    assert held.members == (4, 5, 6)
    assert (held.configuration, held.origins, held.digests) == (b"", (), ())
    wal, recovered = Wal.open(
        OsFiles(), str(tmp_path / "d" / "group-0" / "wal"), meta(tmp_path / "d").store_id, WalOptions()
    )
    wal.close()
    assert (recovered.first_index, recovered.last_index) == (10, 9)
    assert recovered.terms == ((9, 5),)
    state = recovered.hard_state
    assert (state.term, state.vote, state.commit) == (5, 0, 9)


def test_keys_expire_in_the_new_cluster_when_they_would_have_in_the_old_one(tmp_path):
    """A backup has records alone; the hints at when keys are due are made of them."""
    store = StateStore(str(tmp_path / "state"))
    batch = store.batch()
    for key, deadline in ((b"a", 1_700_000_005_000), (b"b", 1_700_000_003_000)):
        batch.put(key, encode_record((b"v", 7, 0, deadline)))
    batch.put(b"c", encode_record((b"v", 7, 0)))
    batch.hint(make_hint(3, b"stale"), True)
    batch.bookkeeping(encode_bookkeeping(bookkeeping(3)))
    assert store.write(batch)
    write_backup(str(tmp_path / "file"), store, 5)
    store.close()
    run(tmp_path / "file", tmp_path / "d")
    restored, store = machine(tmp_path / "d")
    assert list(restored.store.deadlines) == [
        make_hint(1_700_000_003_000, b"b"),
        make_hint(1_700_000_005_000, b"a"),
    ]
    assert restored.next_deadline_ms == 1_700_000_003_000
    restored.apply_empty(10, 5, 1_700_000_004_000)
    assert [restored.read([b"EXISTS", key]) for key in (b"a", b"b", b"c")] == [1, 0, 1]
    store.close()


def test_every_node_is_somebody_new_and_knows_its_backup(file, tmp_path):
    run(file, tmp_path / "4", 4)
    run(file, tmp_path / "5", 5)
    one, other = meta(tmp_path / "4"), meta(tmp_path / "5")
    assert one.store_id != other.store_id
    assert one.restored == other.restored == verify_backup(str(file)).checksum
    for found in (one, other):
        assert (found.cluster_id, found.boot, found.admitted, found.met) == (b"", 0, False, {})
        assert found.cluster_text == NEW_TEXT


def test_a_restored_node_without_its_log_does_not_start(file, tmp_path):
    run(file, tmp_path / "d")
    shutil.rmtree(tmp_path / "d" / "group-0" / "wal")
    with pytest.raises(DataError, match="the log that belongs to"):
        DataDirectory.open(str(tmp_path / "d"), OsFiles(), 4, NEW_TEXT)


@pytest.mark.parametrize("name", ["META", "group-0", "notes.txt"])
def test_a_directory_that_holds_anything_is_refused_and_left_alone(file, tmp_path, name):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / name).write_text("x")
    before = fingerprint(tmp_path / "d")
    with pytest.raises(UsageError, match=f"is not empty \\(it holds {name}\\)"):
        run(file, tmp_path / "d")
    assert fingerprint(tmp_path / "d") == before


def test_a_directory_that_another_process_uses_is_refused(file, tmp_path):
    (tmp_path / "d").mkdir()
    lock = OsFiles().lock(str(tmp_path / "d" / "LOCK"))
    try:
        with pytest.raises(UsageError, match="another process uses"):
            run(file, tmp_path / "d")
    finally:
        lock.close()


def test_a_fresh_file_system_counts_as_empty(file, tmp_path):
    (tmp_path / "d" / "lost+found").mkdir(parents=True)
    run(file, tmp_path / "d")
    assert start(tmp_path / "d", 4, NEW_TEXT).index == 9


def test_a_damaged_backup_is_refused_before_anything_is_made(file, tmp_path):
    data = bytearray(file.read_bytes())
    data[-50] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError):
        run(file, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_no_room_is_a_sentence(file, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(StorageError, match="5 bytes are free"):
        run(file, tmp_path / "d")
    assert [place.name for place in (tmp_path / "d").iterdir()] == ["LOCK"]


class FailingFiles(OsFiles):
    """A file system on which the n-th rename or sync of a directory fails."""

    def __init__(self, fails_at):
        self.steps = 0
        self.fails_at = fails_at

    def rename(self, old, new):
        self._step()
        super().rename(old, new)

    def sync_directory(self, path):
        self._step()
        super().sync_directory(path)

    def _step(self):
        self.steps += 1
        if self.steps == self.fails_at:
            raise StorageError("the disk is gone")


@pytest.mark.slow
def test_a_restore_that_stops_anywhere_leaves_nothing_or_what_no_node_starts_on(file, tmp_path):
    counting = FailingFiles(0)
    run(file, tmp_path / "whole", files=counting)
    outcomes = set()
    for step in range(1, counting.steps + 1):
        directory = tmp_path / f"failed at {step}"
        with pytest.raises(StorageError, match="the disk is gone"):
            run(file, directory, files=FailingFiles(step))
        names = {place.name for place in directory.iterdir()} if directory.exists() else set()
        if names <= {"LOCK"}:
            outcomes.add("empty")
            run(file, directory)  # can be repeated
        elif "META" in names:
            outcomes.add("whole")  # only the last sync is missing
            assert start(directory, 4, NEW_TEXT).index == 9
        else:
            outcomes.add("refused")
            with pytest.raises(BalsaError):
                start(directory, 4, NEW_TEXT)
    assert outcomes == {"empty", "refused", "whole"}


def test_the_leavings_of_a_killed_restore_are_replaced(file, tmp_path):
    leavings = tmp_path / "d" / "restoring" / "group-0" / "state" / "1"
    leavings.mkdir(parents=True)
    (leavings / "CURRENT").write_text("MANIFEST-nonsense\n")
    run(file, tmp_path / "d")
    restored, store = machine(tmp_path / "d")
    assert len(restored) == len(RECORDS)
    store.close()
    assert not (tmp_path / "d" / "restoring").exists()


def test_the_old_text_is_not_the_new_one(file, tmp_path):
    run(file, tmp_path / "d")
    with pytest.raises(UsageError, match="the cluster began as"):
        DataDirectory.open(str(tmp_path / "d"), OsFiles(), 4, CLUSTER_TEXT)


def test_sessions_stay_with_the_old_cluster(tmp_path):
    """Rule M4: an id of a session means nothing in a cluster that is made of a backup."""
    store = StateStore(str(make_state(tmp_path / "state", RECORDS)))
    batch = store.batch()
    batch.put_session(b"n-7-0", Session(b"n-7-0", b"n", 5_000).encode())
    assert store.write(batch)
    assert len(StateMachine((), store, store.bookkeeping).sessions) == 1
    summary = write_backup(str(tmp_path / "file"), store, 5)
    store.close()
    assert summary.info.keys == len(RECORDS)
    run(tmp_path / "file", tmp_path / "d")
    restored, store = machine(tmp_path / "d")
    assert (len(restored.sessions), len(restored)) == (0, len(RECORDS))
    assert restored.next_deadline_ms is None
    store.close()
