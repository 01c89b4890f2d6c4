"""The state on disk: one suite for both bases, then what is RocksDB's own matter."""

from __future__ import annotations

import contextlib
import os
import random

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from memory_files import MemoryFiles, Stopped

from balsadb.errors import DataError, StorageError
from balsadb.kv import deadlines, delta
from balsadb.kv.cut import decode_bookkeeping, encode_bookkeeping, encode_record
from balsadb.kv.machine import StateMachine
from balsadb.kv.memory import MemoryBase
from balsadb.storage.files import OsFiles
from balsadb.storage.state import StateDirectory, StateStore
from kv.delta_model import DeltaModel, bookkeeping, write
from kv.some_log import MEMBERS, SomeLog

LOG = SomeLog(60)


class Backend:
    """Makes bases of one kind and closes them in the end."""

    def __init__(self, kind: str, directory: str) -> None:
        self.kind = kind
        self._directory = directory
        self._open: list[StateStore] = []

    def new(self):
        if self.kind == "memory":
            return MemoryBase()
        store = StateStore(f"{self._directory}/{len(self._open)}")
        self._open.append(store)
        return store

    def bookkeeping(self, base):
        if self.kind == "memory":
            return decode_bookkeeping(base.data) if base.data else None
        return base.bookkeeping

    def close(self) -> None:
        for store in self._open:
            store.close()


@pytest.fixture(params=["memory", "rocksdb"])
def backend(request, tmp_path):
    made = Backend(request.param, str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def base(backend):
    return backend.new()


def put(base, index: int = 1, **records: bytes | None) -> None:
    """Write a cut of these records; None removes one."""
    batch = base.batch()
    for key, value in records.items():
        if value is None:
            batch.remove(key.encode())
        else:
            batch.put(key.encode(), encode_record((value, index, 0)))
    batch.bookkeeping(encode_bookkeeping(bookkeeping(index)))
    base.write(batch)


# --------------------------------------------------------------------------- both


def test_an_empty_base_has_nothing(backend, base):
    assert backend.bookkeeping(base) is None
    assert base.get(b"a") is None
    assert base.count_present([b"a", b"b"]) == 0
    assert list(base.sorted_items()) == []


def test_a_written_batch_is_there_as_a_whole_and_replaces_what_was(backend, base):
    put(base, 1, a=b"1", b=b"2", c=b"3")
    put(base, 2, a=b"new", b=None, z=None)
    assert base.get(b"a") == (b"new", 2, 0)
    assert base.get(b"b") is None
    assert list(base.sorted_items()) == [(b"a", (b"new", 2, 0)), (b"c", (b"3", 1, 0))]
    assert backend.bookkeeping(base) == bookkeeping(2)


def test_the_last_word_on_a_key_in_a_batch_wins(base):
    batch = base.batch()
    batch.put(b"a", encode_record((b"1", 1, 0)))
    batch.remove(b"a")
    batch.put(b"b", encode_record((b"1", 1, 0)))
    batch.put(b"b", encode_record((b"2", 1, 1)))
    batch.bookkeeping(encode_bookkeeping(bookkeeping(1)))
    base.write(batch)
    assert list(base.sorted_items()) == [(b"b", (b"2", 1, 1))]


def test_any_bytes_are_a_key_and_a_value_and_keys_are_sorted_by_their_bytes(base):
    draw = random.Random(3)
    keys = [b"", b"\0", b"\xff", b"\xff" * 40, b"m", b"d", b"e", *(draw.randbytes(9) for _ in range(50))]
    batch = base.batch()
    for key in sorted(keys):
        batch.put(key, encode_record((key[::-1], 2**62, 2**31 - 1)))
    batch.bookkeeping(encode_bookkeeping(bookkeeping(1)))
    base.write(batch)
    assert list(base.sorted_items()) == [(key, (key[::-1], 2**62, 2**31 - 1)) for key in sorted(keys)]
    assert all(base.get(key) == (key[::-1], 2**62, 2**31 - 1) for key in keys)
    assert base.get(b"x") is None


def test_sessions_stand_beside_the_keys_and_change_in_the_same_batch(backend, base):
    batch = base.batch()
    batch.put(b"s", encode_record((b"1", 1, 0)))
    batch.bookkeeping(encode_bookkeeping(bookkeeping(1)))
    for id in (b"", b"a", b"b\xff"):
        batch.put_session(id, b"of " + id)
    assert base.write(batch) is not False
    batch = base.batch()
    batch.bookkeeping(encode_bookkeeping(bookkeeping(2)))
    batch.remove_session(b"")
    batch.put_session(b"a", b"new")
    batch.remove_session(b"nobody")
    assert base.write(batch) is not False
    assert list(base.sessions()) == [(b"a", b"new"), (b"b\xff", b"of b\xff")]
    assert list(base.sorted_items()) == [(b"s", (b"1", 1, 0))]
    assert backend.bookkeeping(base) == bookkeeping(2)


def test_many_keys_are_read_in_their_order(base):
    put(base, 1, a=b"1", c=b"")
    assert base.get_many([b"c", b"b", b"a"]) == [(b"", 1, 0), None, (b"1", 1, 0)]
    assert base.get_many([]) == []


def test_keys_are_counted_without_being_read(base):
    put(base, 1, a=b"1", c=b"")
    assert base.count_present([b"a", b"b", b"c", b"d"]) == 2
    assert base.count_present([]) == 0


def test_any_history_over_either_base_is_answered_as_by_one_dict(backend, monkeypatch):
    monkeypatch.setattr(delta, "READ_GENERATION_BYTES", 700)
    monkeypatch.setattr(deadlines, "NEAR_MAX", 4)
    monkeypatch.setattr(deadlines, "REFILL_HINTS", 2)

    class Model(DeltaModel):
        new_base = backend.new

    run_state_machine_as_test(Model, settings=settings(max_examples=8, stateful_step_count=40, deadline=None))


def test_a_machine_starts_from_any_cut_and_goes_on_as_if_it_had_never_stopped(backend, base):
    machine = StateMachine(MEMBERS, base, None, 1_000)
    for index in (1, 13, 14, 40):
        LOG.apply(machine, index).freeze()
        cut = machine.store.cuts[0]
        while machine.store.count(cut):
            pass
        write(base, cut)
        machine.store.written(cut)
        again = StateMachine((), base, backend.bookkeeping(base), 1_000)
        assert (again.applied_index, again.digest()) == (index, LOG.digest(index))
        assert LOG.apply(again, 60).digest() == LOG.digest(60)


# ------------------------------------------------------------------------ RocksDB


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "state")


@pytest.fixture
def store(path):
    made = StateStore(path)
    yield made
    made.close()


def test_closing_and_opening_keeps_everything(path):
    first = StateStore(path)
    put(first, 3, a=b"1")
    first.close()
    again = StateStore(path)
    assert (again.get(b"a"), again.bookkeeping) == ((b"1", 3, 0), bookkeeping(3))
    again.close()


def test_a_scan_sees_the_state_as_of_its_beginning(store):
    put(store, 1, a=b"1", b=b"2")
    scan = store.sorted_items()
    assert next(scan) == (b"a", (b"1", 1, 0))
    put(store, 2, b=b"new", c=b"new")
    assert list(scan) == [(b"b", (b"2", 1, 0))]


def test_a_copy_holds_every_cut_written_so_far_flushed_or_not_and_none_after(store, tmp_path):
    """Rule C2: what the copy is, is read from inside it."""
    put(store, 1, a=b"1")
    store.flush()
    put(store, 2, a=b"2", b=b"2")
    store.checkpoint(str(tmp_path / "copy"))
    put(store, 3, a=b"3", b=None)
    store.flush()
    copy = StateStore(str(tmp_path / "copy"), read_only=True)
    assert copy.bookkeeping == bookkeeping(2)
    assert list(copy.sorted_items()) == [(b"a", (b"2", 2, 0)), (b"b", (b"2", 2, 0))]
    copy.close()


def content(directory: str) -> dict[str, bytes]:
    """Return all files of a directory but RocksDB's own notes."""
    found = {}
    for name in os.listdir(directory):
        if not name.startswith("LOG"):
            with open(f"{directory}/{name}", "rb") as file:
                found[name] = file.read()
    return found


def test_a_look_at_a_copy_changes_nothing_in_it(store, tmp_path):
    put(store, 1, a=b"1")
    copy = str(tmp_path / "copy")
    store.checkpoint(copy)
    before = content(copy)
    reader = StateStore(copy, read_only=True)
    assert reader.get(b"a") == (b"1", 1, 0)
    reader.close()
    assert content(copy) == before


def test_nothing_is_written_to_a_copy_that_is_only_looked_at(store, tmp_path):
    put(store, 1, a=b"1")
    store.checkpoint(str(tmp_path / "copy"))
    reader = StateStore(str(tmp_path / "copy"), read_only=True)
    with pytest.raises(StorageError, match="could not be written"):
        put(reader, 2, a=b"2")
    reader.close()


def test_a_copy_is_not_made_over_something_else(store, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "something").touch()
    with pytest.raises(StorageError, match="no copy of the state could be made"):
        store.checkpoint(str(tmp_path / "copy"))


def test_a_state_in_use_is_refused_as_such(store, path):
    with pytest.raises(StorageError, match="the state is in use"):
        StateStore(path)


def test_only_a_flushed_cut_is_in_a_file(store):
    before = store.size()
    put(store, 1, a=os.urandom(50_000))
    assert store.size() == before
    store.flush()
    assert store.size() >= before + 50_000


class Stalled:
    """A RocksDB that is behind with its work."""

    def write(self, batch, options):
        raise RuntimeError("Result incomplete: Write stall")


def test_a_stall_is_no_failure(store, monkeypatch):
    """Rule C1: the writer tries again later, and the queue pushes back."""
    with monkeypatch.context() as patch:
        patch.setattr(store, "_database", Stalled())
        assert store.write(store.batch()) is False
    put(store, 1, a=b"1")
    assert store.get(b"a") == (b"1", 1, 0)


def damage(directory: str, suffix: str) -> None:
    """Turn a bit in the middle of every file with that ending."""
    damaged = 0
    for name in os.listdir(directory):
        if name.endswith(suffix):
            with open(f"{directory}/{name}", "r+b") as file:
                file.seek(os.path.getsize(file.name) // 3)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 16]))
            damaged += 1
    assert damaged


def flushed(path: str) -> None:
    """Make a state of many records in files."""
    store = StateStore(path)
    put(store, 1, **{f"key-{number}": os.urandom(2_000) for number in range(200)})
    store.flush()
    store.close()


def read_all(path: str, how: str) -> None:
    keys = [b"key-%d" % number for number in range(200)]
    with contextlib.closing(StateStore(path)) as store:
        if how == "get":
            for key in keys:
                store.get(key)
        elif how == "count_present":
            store.count_present(keys)
        else:
            list(store.sorted_items())


@pytest.mark.parametrize("read", ["get", "sorted_items", "count_present"])
def test_a_flipped_bit_in_a_record_is_found_when_it_is_read(path, read):
    """It says what to do: the log is intact, so the others can help."""
    flushed(path)
    damage(path, ".sst")
    with pytest.raises(DataError, match=r"the state is damaged.*then fetches the state from the others"):
        read_all(path, read)


def test_a_missing_file_is_found_at_the_start(path):
    flushed(path)
    for name in os.listdir(path):
        if name.endswith(".sst"):
            os.unlink(f"{path}/{name}")
    with pytest.raises(DataError, match="the state is damaged"):
        StateStore(path)


# ------------------------------------------------------------- which state counts


@pytest.fixture
def states(tmp_path):
    return StateDirectory(OsFiles(), str(tmp_path / "state"))


def test_a_first_state_grew_here(states):
    current = states.current()
    assert (os.path.basename(current.path), current.installed) == ("1", 0)
    assert states.current() == current


def test_a_switch_lets_another_state_count_and_the_rest_is_removed(states):
    os.makedirs(states.current().path)
    fresh = states.fresh()
    assert os.path.basename(fresh) == "2"
    os.makedirs(fresh)
    states.switch("2", 77)
    assert states.current() == (fresh, 77)
    states.clean()
    assert sorted(os.listdir(states.path)) == ["2", "CURRENT"]


def test_a_state_that_never_came_to_count_is_removed(states):
    """Rule C4: what was moved in place and not switched to is nothing."""
    os.makedirs(states.current().path)
    os.makedirs(states.fresh())
    states.clean()
    assert sorted(os.listdir(states.path)) == ["1", "CURRENT"]


@pytest.mark.parametrize("text", [b"", b"1", b"1 2 3", b"x 1\n", b"../1 0\n", b"1 -1\n", b"\xff\xfe \xfd\n"])
def test_a_pointer_that_names_no_state_stops_the_node(states, text):
    states.current()
    with open(f"{states.path}/CURRENT", "wb") as file:
        file.write(text)
    with pytest.raises(DataError, match="does not name a state"):
        states.current()


@pytest.mark.parametrize("keep_names", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_after_a_stop_at_any_operation_of_a_switch_one_whole_state_counts(keep_names, share):
    """Rule C4: temporary file, sync, rename, sync of the directory."""
    draw = random.Random(share)
    first = MemoryFiles()
    StateDirectory(first, "/g/state").current()
    seen = set()
    for stop in range(10):
        files = first.copy()
        files.stop_at = stop
        states = StateDirectory(files, "/g/state")
        try:
            states.switch("2", 9)
            finished = True
        except Stopped:
            finished = False
        left = files.power_loss(lambda sector: draw.random() < share, keep_names=keep_names)
        found = StateDirectory(left, "/g/state").current()
        assert found in {("/g/state/1", 0), ("/g/state/2", 9)}
        seen.add(found)
        if finished:
            assert found == ("/g/state/2", 9)
            assert len(seen) == 2
            return
    pytest.fail("the switch never finished")
