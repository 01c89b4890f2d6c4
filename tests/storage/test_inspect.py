"""Looking changes nothing, and finds what a start would find, in the same words."""

import os
import shutil
from itertools import pairwise

import msgspec
import pytest
from state_kit import CLUSTER, RECORDS, NodeDirectory, bookkeeping, command, fingerprint
from wal_kit import entries, entry

from balsadb.errors import DataError
from balsadb.raft.configuration import encode_configuration
from balsadb.raft.entry import encode_entry
from balsadb.raft.types import EntryKind, HardState
from balsadb.storage.files import OsFiles
from balsadb.storage.inspect import inspect
from balsadb.storage.state import Current
from balsadb.storage.view import committed_machine

STATE_OF_7 = {"index": 7, "term": 1}


@pytest.fixture
def node(tmp_path):
    """Entries 1..12 of terms 1 and 2 in three segments, the state as of entry 7."""
    node = NodeDirectory(tmp_path / "d")
    node.write(*entries(1, 5, size=1200), state=HardState(1, 2, 4))
    node.write(*entries(6, 9, size=1200))
    node.write(*entries(10, 12, term=2, size=1200), state=HardState(2, 1, 11))
    node.state(RECORDS, bookkeeping(len(RECORDS), **STATE_OF_7))
    return node


def look(node):
    """Inspect a directory, which must stay as it is in every respect."""
    before = fingerprint(node.path)
    report = inspect(str(node.path))
    assert fingerprint(node.path) == before
    return report


def damage(report):
    return [(f.path, f.offset, f.problem, f.remedy) for f in report.findings if f.damage]


# ---------------------------------------------------------------------------------------- what is there


def test_identity_log_and_state_of_a_stopped_node(node):
    report = look(node)
    assert report.sound
    assert report.findings == []
    assert report.process is None
    assert (report.meta.node_id, report.meta.store_id, report.meta.boot) == (1, node.store_id, 1)
    log = report.log
    assert (log.first_index, log.last_index, log.batch) == (1, 12, 12)
    assert log.terms == ((1, 1), (10, 2))
    assert log.hard_state == HardState(2, 1, 11)
    state = report.state
    assert state.bookkeeping == bookkeeping(len(RECORDS), **STATE_OF_7)
    assert state.configuration == CLUSTER
    assert state.files > 3
    assert state.size > 100


def test_every_segment_tells_its_entries_terms_and_batches(node):
    segments = look(node).log.segments
    assert [segment.name for segment in segments] == [path.name for path in node.segments()]
    assert len(segments) == 3
    assert segments[0].first_index == 1
    assert segments[-1].last_index == 12
    for before, after in pairwise(segments):
        assert after.first_index == before.last_index + 1
    assert sum(segment.batches for segment in segments) == 12
    assert {(s.first_term, s.last_term) for s in segments} == {(1, 1), (1, 2), (2, 2)}
    for segment in segments:
        assert segment.examined
        assert 0 < segment.used <= segment.length == 8192


def test_an_overwritten_suffix_is_not_counted(node):
    node.write(entry(8, term=3), state=HardState(3, 0, 7 + 4))
    # The commit index may not sink, so it is the damage of a lost entry that a start finds here.
    assert "was committed and the log ends at 8" in damage(look(node))[0][2]
    assert look(node).log.terms == ((1, 1), (8, 3))
    assert look(node).log.segments[-1].last_index == 8


def test_where_a_compacted_log_begins(node):
    node.compact(7, 1)
    report = look(node)
    assert report.sound
    assert (report.log.mark.index, report.log.mark.term) == (7, 1)
    assert report.log.first_index == 8
    assert report.log.terms == ((7, 1), (10, 2))


def test_the_newest_configuration_of_the_log(node):
    payload = encode_configuration(msgspec.structs.replace(CLUSTER, voters=(1, 2), learners=(3,)))
    node.write(encode_entry(2, 13, 2000, EntryKind.MEMBERSHIP, payload))
    assert look(node).log.configuration.learners == (3,)


def test_a_new_directory_is_no_damage(tmp_path):
    (tmp_path / "d").mkdir()
    report = inspect(str(tmp_path / "d"))
    assert report.sound
    assert [f.problem for f in report.findings] == ["there is none: no node has started here"]
    assert list((tmp_path / "d").iterdir()) == []


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        inspect(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_the_process_that_holds_the_directory_is_named_and_not_disturbed(node):
    if not os.path.exists("/proc/locks"):
        pytest.skip("this system does not list locks")
    lock = OsFiles().lock(str(node.path / "LOCK"))
    try:
        assert look(node).process == os.getpid()
    finally:
        lock.close()
    assert look(node).process is None


def test_what_is_left_over_is_listed(node):
    for name in ("META.tmp", "group-0/wal/spare.tmp", "group-0/state/2/x", "group-0/incoming/OFFER"):
        path = node.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    found = {path.removeprefix(f"{node.path}/") for path in look(node).left_over}
    assert found == {"META.tmp", "group-0/wal/spare.tmp", "group-0/state/2", "group-0/incoming/OFFER"}


def test_a_torn_batch_is_a_note_and_stays_where_it_is(node):
    segment = node.segments()[-1]
    report = look(node)
    end = report.log.segments[-1].used
    data = bytearray(segment.read_bytes())
    data[end - 1024 : end - 512] = bytes(512)  # a sector of the newest batch, entry 12
    segment.write_bytes(data)
    report = look(node)
    assert report.sound
    (finding,) = report.findings
    assert "the newest batch is incomplete" in finding.problem
    assert finding.path == str(segment)
    assert report.log.last_index == 11
    assert finding.offset == report.log.segments[-1].used
    node.start()


def test_a_log_that_an_installed_state_replaces_is_a_note(tmp_path):
    node = NodeDirectory(tmp_path / "d")
    node.write(*entries(1, 3), state=HardState(1, 2, 2))
    node.state(RECORDS, bookkeeping(len(RECORDS)), installed=9)
    report = look(node)
    assert report.sound
    assert "the next start drops the log: the state of entry 9 replaces it" in report.findings[0].problem
    node.start()


def test_a_lost_state_is_a_note_where_others_have_it_and_damage_where_nobody_does(tmp_path):
    # A node that joined later names no initial members; others are there that it joined.
    for cluster, sound in (("1=a:1,2=b:2,3=c:3", True), ("1=a:1", False), ("", True)):
        node = NodeDirectory(tmp_path / f"node-{cluster}", cluster=cluster)
        node.write(*entries(1, 12), state=HardState(1, 2, 11))
        node.compact(7, 1)
        report = look(node)
        assert report.sound is sound
        assert "the state ends at entry 0 and the log begins at 8" in report.findings[0].problem


# -------------------------------------------------------------------------------------------- what is wrong


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def state_file(node, suffix):
    return next(path for path in (node.state_path / "1").iterdir() if path.name.endswith(suffix))


DAMAGES = {
    "META is missing": lambda node: (node.path / "META").unlink(),
    "META is damaged": lambda node: flip(node.path / "META", 40),
    "META is of another format": lambda node: (node.path / "META").write_bytes(b"x" * 100),
    "the log is missing": lambda node: shutil.rmtree(node.wal_path),
    "a segment is missing": lambda node: node.segments()[1].unlink(),
    "the oldest segment is missing": lambda node: node.segments()[0].unlink(),
    "a segment has another name": lambda node: node.segments()[0].rename(node.wal_path / "1.wal"),
    "a segment's header is damaged": lambda node: flip(node.segments()[1], 30),
    "a segment is too short": lambda node: os.truncate(node.segments()[0], 4096),
    "an old batch is damaged": lambda node: flip(node.segments()[0], 900),
    "the newest batch is damaged": lambda node: flip(node.segments()[-1], 2000),
    "the pointer to the state is damaged": lambda node: (node.state_path / "CURRENT").write_text("?"),
    "a table of the state is missing": lambda node: state_file(node, ".sst").unlink(),
    "the state's manifest is damaged": lambda node: flip(state_file(node, "MANIFEST-000005"), 20),
    "the state's bookkeeping is damaged": lambda node: flip(state_file(node, ".sst"), 700),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_where_a_start_finds_it_and_told_in_the_same_words(node, what):
    DAMAGES[what](node)
    report = look(node)
    assert not report.sound
    with pytest.raises(DataError) as caught:
        node.start()
    error = caught.value
    assert damage(report)[0] == (error.path, error.offset, error.problem, error.remedy)


def test_a_log_that_lost_what_the_state_has(tmp_path):
    node = NodeDirectory(tmp_path / "d")
    node.write(*entries(1, 3), state=HardState(1, 2, 2))
    node.state(RECORDS, bookkeeping(len(RECORDS)))
    with pytest.raises(DataError) as caught:
        node.start()
    assert damage(look(node))[0][2] == caught.value.problem


def test_the_segments_are_listed_though_one_is_damaged(node):
    flip(node.segments()[1], 900)
    segments = look(node).log.segments
    assert [segment.examined for segment in segments] == [True, False, False]
    assert segments[0].first_index == 1


def test_the_log_of_a_directory_without_identity_is_listed(node):
    (node.path / "META").unlink()
    assert len(look(node).log.segments) == 3


# ------------------------------------------------------------------------------------------------- keys


def keys_of(node, current=None):
    report = look(node)
    before = fingerprint(node.path)
    with committed_machine(str(node.path / "group-0"), report.meta, current) as machine:
        found = {key: record[0] for key, record in machine.store.sorted_items()}
        applied = machine.applied_index
    assert fingerprint(node.path) == before
    return applied, found


def test_keys_are_as_of_the_last_entry_known_to_be_committed(tmp_path):
    node = NodeDirectory(tmp_path / "d")
    node.write(
        command(1, 1, b"SET", b"a", b"1"),
        command(2, 1, b"APPEND", b"a", b"2"),
        command(3, 1, b"SET", b"b", b"not known to be committed"),
        state=HardState(1, 2, 2),
    )
    assert keys_of(node) == (2, {b"a": b"12"})


def test_keys_of_the_state_and_of_the_log_behind_it(tmp_path):
    node = NodeDirectory(tmp_path / "d")
    node.write(
        command(1, 1, b"SET", b"a", b"1"),
        command(2, 1, b"SET", b"b", b"2"),
        command(3, 1, b"DEL", b"a"),
        state=HardState(1, 2, 3),
    )
    held = bookkeeping(1, index=2, term=1, origins=((1, 1, 2),))
    node.state({b"a": b"from the state"}, held)
    assert keys_of(node, Current(str(node.state_path / "1"), 0)) == (3, {})


def test_keys_of_a_node_that_joined_later_and_so_names_no_initial_members(tmp_path):
    node = NodeDirectory(tmp_path / "d", cluster="")
    membership = encode_entry(1, 2, 1002, EntryKind.MEMBERSHIP, encode_configuration(CLUSTER))
    node.write(command(1, 1, b"SET", b"a", b"1"), membership, state=HardState(1, 2, 2))
    assert keys_of(node) == (2, {b"a": b"1"})
