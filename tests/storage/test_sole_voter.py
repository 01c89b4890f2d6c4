"""A directory becomes that of the only voter of a new incarnation: whole, or not at all (rule M4)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from state_kit import (
    CLUSTER,
    CLUSTER_TEXT,
    SMALL,
    NodeDirectory,
    command,
    fingerprint,
    membership,
)

from balsadb.errors import BalsaError, StorageError, UsageError
from balsadb.kv.batch import encode_batch
from balsadb.kv.machine import StateMachine
from balsadb.raft.configuration import decode_configuration
from balsadb.raft.entry import encode_entry
from balsadb.raft.node import Node, Options, Role
from balsadb.raft.types import Configuration, EntryKind, HardState, Member
from balsadb.storage import sole_voter
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.files import OsFiles
from balsadb.storage.inspect import inspect
from balsadb.storage.opening import open_log
from balsadb.storage.sole_voter import make_sole_voter
from balsadb.storage.state import StateDirectory, StateStore
from balsadb.storage.survivors import survivor
from balsadb.storage.view import apply_entry, first_members

NEW_ID = b"\x99" * 16
TERM = 12
"""Of the new incarnation; the logs here know at most 5."""
OPENED = [b"SESSION", b"OPEN", b"nonce", b"60000"]


def member(session, sequence, *argv):
    return [b"ONCE", session, b"%d" % sequence, b"1", *argv]


ENTRIES = [
    membership(1, 1),
    command(2, 1, *OPENED, sequence=1),
    command(3, 1, *member(b"nonce-2-0", 1, b"APPEND", b"k", b"once"), sequence=2),
    command(4, 2, b"SET", b"of node 2", b"v", node=2, sequence=1),
    command(5, 2, b"SET", b"counted", b"v", sequence=3),
    command(6, 3, b"SET", b"perhaps", b"committed", sequence=4),
]
"""Up to 4 they are known to be committed."""


@pytest.fixture
def node(tmp_path):
    return make_node(tmp_path / "node")


def make_node(path, *, state=False):
    """Node 1 of three with `ENTRIES`; with `state` the first five are in the state, and the log is cut."""
    node = NodeDirectory(path)
    node.write(*ENTRIES, state=HardState(5, 2, 4))
    if state:
        _bring_to(node, 5)
        node.compact(3, 1)
    return node


def _bring_to(node, index):
    states = StateDirectory(OsFiles(), str(node.state_path))
    store = StateStore(states.current().path)
    machine = StateMachine((1, 2, 3), store, None)
    for entry in ENTRIES[:index]:
        apply_entry(machine, entry)
    sole_voter._bring(machine, store)
    store.flush()
    store.close()


def look(path):
    return survivor(inspect(str(path)))


def recover(path, files=None):
    return make_sole_voter(files or OsFiles(), look(path), TERM, NEW_ID)


class Started:
    """What a node that starts on a directory has."""

    def __init__(self, path, node=1, cluster=CLUSTER_TEXT, then=()):
        files = OsFiles()
        directory = DataDirectory.open(str(path), files, node, cluster)
        states = StateDirectory(files, directory.state_path)
        current = states.current()
        states.clean()
        store = StateStore(current.path)
        self.held = held = store.bookkeeping
        self.meta = directory.meta
        wal, self.recovered = open_log(
            files, directory.wal_path, directory.meta.store_id, SMALL, held, current.installed
        )
        self.machine = StateMachine(first_members(directory.meta, self.recovered), store, held)
        for entry in wal.read(self.machine.applied_index + 1, self.recovered.last_index, 1 << 20):
            apply_entry(self.machine, entry)
        self.replies = [
            self.machine.apply_commands(entry.index, entry.term, entry.time_ms, entry.payload).replies
            for entry in then
        ]
        self.data = {key: record[0] for key, record in self.machine.store.sorted_items()}
        self.digest = self.machine.digest()
        wal.close()
        store.close()
        directory.close()

    @property
    def configuration(self):
        return decode_configuration(self.machine.configuration)


def whole_machine():
    """A machine that has applied the whole log and the new configuration behind it."""
    machine = StateMachine((1, 2, 3))
    for entry in [*ENTRIES, membership(7, TERM, EXPECTED)]:
        apply_entry(machine, entry)
    return machine


EXPECTED = Configuration(
    voters=(1,),
    removed=(2, 3),
    members=(Member(1, "a:1"),),
    cluster_id=NEW_ID,
    former=(CLUSTER.cluster_id,),
)


def expected(node):
    member = Member(1, "a:1", store_id=node.store_id)
    return msgspec.structs.replace(EXPECTED, members=(member,))


# ------------------------------------------------------------------------------------------ what it becomes


@pytest.mark.parametrize("state", [False, True], ids=["all in the log", "most in the state"])
def test_the_node_is_the_only_voter_of_a_new_cluster_and_has_every_entry_of_its_log(tmp_path, state):
    node = make_node(tmp_path / "node", state=state)
    assert recover(node.path) == expected(node)
    found = Started(node.path)
    assert found.configuration == expected(node)
    assert found.data == {
        b"k": b"once",
        b"of node 2": b"v",
        b"counted": b"v",
        b"perhaps": b"committed",
    }
    assert (found.held.index, found.held.term) == (7, TERM)
    assert found.recovered.hard_state == HardState(TERM, 0, 7)
    assert (found.recovered.first_index, found.recovered.last_index) == (8, 7)
    assert found.recovered.memberships == ()  # nobody who joins is ever sent the old ones
    assert (found.meta.cluster_id, found.meta.store_id) == (NEW_ID, node.store_id)
    assert look(node.path).unfit == ""


def test_what_a_session_did_is_not_done_again(node):
    recover(node.path)
    again = command(8, TERM, *member(b"nonce-2-0", 1, b"APPEND", b"k", b"once"), sequence=5)
    found = Started(node.path, then=[again])
    assert found.replies == [[4]]
    assert found.data[b"k"] == b"once"


def test_who_is_removed_can_not_run_anything_and_who_stays_goes_on_where_it_was(node):
    recover(node.path)
    assert [row[:3] for row in Started(node.path).held.origins] == [(1, 1, 4)]


def test_a_node_whose_log_knows_later_starts_of_it_than_its_identity_can_start(node):
    """`META` was damaged and put back from a copy, which a start would refuse for ever."""
    payload = encode_batch(1, 30, 1, [[b"SET", b"late", b"v"]])
    node.write(encode_entry(4, 7, 1007, EntryKind.COMMANDS, payload))
    recover(node.path)
    found = inspect(str(node.path))
    assert (1, 30, 1) in found.state.bookkeeping.origins
    assert found.meta.boot == 30  # the next start is the 31st


def test_it_leads_alone_from_the_first_election_on(node):
    recover(node.path)
    found = Started(node.path)
    raft = Node(
        1, found.configuration, found.recovered, Options(), random.Random(1), 0, applied=found.held.index
    )
    for _ in range(200):
        raft.tick(0)
        if raft.has_ready(disk_idle=True):
            ready = raft.ready(disk_idle=True)
            assert not ready.messages
            if ready.write is not None:
                raft.persisted(ready.write.number)
    assert raft.role is Role.LEADER
    assert raft.term == TERM + 1
    assert raft.commit_index == 8


def test_a_second_recovery_remembers_the_first(node):
    recover(node.path)
    new = make_sole_voter(OsFiles(), look(node.path), TERM + 1, b"\xaa" * 16)
    assert (new.former, new.removed) == ((CLUSTER.cluster_id, NEW_ID), (2, 3))
    assert Started(node.path).configuration == new


def test_who_was_removed_before_stays_removed_and_who_was_being_added_is(tmp_path):
    old = Configuration(
        voters=(1, 4), outgoing=(1, 2), learners=(5,), removed=(3,), members=CLUSTER.members, cluster_id=b"c"
    )
    node = NodeDirectory(tmp_path / "node")
    node.write(membership(1, 1, old), state=HardState(1, 1, 1))
    assert recover(node.path).removed == (2, 3, 4, 5)


def test_a_node_that_joined_later_can_carry_the_cluster_on(tmp_path):
    node = NodeDirectory(tmp_path / "node", node=4, cluster="")
    members = (*CLUSTER.members, Member(4, "d:4", "d:5", node.store_id))
    four = msgspec.structs.replace(CLUSTER, voters=(1, 2, 3, 4), members=members)
    # Before the first configuration in the log only the initial members could propose.
    entries = [
        command(1, 1, b"SET", b"a", b"1"),
        membership(2, 1, four),
        command(3, 1, b"SET", b"b", b"2", sequence=2),
    ]
    node.write(*entries, state=HardState(1, 0, 3))
    new = recover(node.path)
    assert (new.voters, new.removed, new.members) == ((4,), (1, 2, 3), members[3:])
    assert Started(node.path, 4, "").data == {b"a": b"1", b"b": b"2"}


def test_many_changes_are_brought_to_the_disk_in_several_cuts(tmp_path, monkeypatch):
    monkeypatch.setattr(sole_voter, "CUT_KEYS", 3)
    monkeypatch.setattr(sole_voter, "READ_BYTES_MAX", 700)
    brought = []
    bring = sole_voter._bring
    monkeypatch.setattr(sole_voter, "_bring", lambda *given: (brought.append(1), bring(*given)))
    node = NodeDirectory(tmp_path / "node")
    commands = [command(i, 1, b"SET", b"%d" % (i % 40), b"%d" % i, sequence=i - 1) for i in range(2, 100)]
    commands.insert(50, command(52, 1, b"FLUSHALL", sequence=51))
    commands[51:] = [
        command(i, 1, b"SET", b"%d" % (i % 40), b"%d" % i, sequence=i - 1) for i in range(53, 101)
    ]
    node.write(membership(1, 1), *commands, state=HardState(1, 1, 100))
    recover(node.path)
    assert len(brought) > 20
    assert Started(node.path).data == {b"%d" % (i % 40): b"%d" % i for i in range(53, 101)}
    assert Started(node.path).held.keys == 40


# ------------------------------------------------------------------------------------------------- refusals


def test_a_directory_that_a_node_uses_is_refused_and_left_alone(node):
    chosen = look(node.path)
    lock = OsFiles().lock(str(node.path / "LOCK"))
    before = fingerprint(node.path)
    try:
        with pytest.raises(UsageError, match="another process uses"):
            make_sole_voter(OsFiles(), chosen, TERM, NEW_ID)
        assert fingerprint(node.path) == before
    finally:
        lock.close()


def test_a_directory_that_has_changed_since_it_was_chosen_is_refused(node):
    chosen = look(node.path)
    node.write(command(7, 3, b"SET", b"late", b"v", sequence=5))
    with pytest.raises(UsageError, match="has changed since it was looked at; look again"):
        make_sole_voter(OsFiles(), chosen, TERM, NEW_ID)
    assert Started(node.path).configuration == CLUSTER
    assert look(node.path).last_index == 7


# ---------------------------------------------------------------------------------------------- every step


class StepFiles(OsFiles):
    """A file system on which something happens before the n-th change."""

    def __init__(self, at, happens):
        self.steps = 0
        self.at = at
        self._happens = happens

    def step(self):
        self.steps += 1
        if self.steps == self.at:
            self._happens()

    def open(self, path, *, create=False):
        if create:
            self.step()
        return StepFile(self, super().open(path, create=create))

    def rename(self, old, new):
        self.step()
        super().rename(old, new)

    def remove(self, path):
        self.step()
        super().remove(path)

    def sync_directory(self, path):
        self.step()
        super().sync_directory(path)


class StepFile:
    def __init__(self, files, file):
        self._files, self._file = files, file

    def write(self, buffers, offset):
        self._files.step()
        self._file.write(buffers, offset)

    def sync(self):
        self._files.step()
        self._file.sync()

    def __getattr__(self, name):
        return getattr(self._file, name)


def fail():
    raise StorageError("the disk is gone")


def judge_what_is_left(node, first):
    """Check that all or nothing happened; returns which. Running it again, and a start, both work."""
    whole = whole_machine()
    found = look(node.path)
    assert found.unfit == ""
    recovered = found.configuration.cluster_id == NEW_ID
    if recovered:
        assert (found.last_index, found.last_term) == (7, TERM)
    else:
        assert (found.last_index, found.last_term) == (6, 3)
        assert found.configuration.voters == (1, 2, 3)
    if first == "start":
        started = Started(node.path)
        assert started.configuration == (expected(node) if recovered else CLUSTER)
        assert b"perhaps" in started.data
    if not recovered:
        recover(node.path)
    again = Started(node.path)
    assert again.configuration == expected(node)
    assert again.data == {key: record[0] for key, record in whole.store.sorted_items()}
    assert (again.held.index, again.held.term, again.recovered.last_index) == (7, TERM, 7)
    assert len([place for place in node.state_path.iterdir() if place.name.isdigit()]) == 1
    assert not (node.path / "group-0" / "outgoing").exists()
    return recovered


@pytest.mark.slow
@pytest.mark.parametrize("first", ["start", "again"])
def test_a_disk_that_fails_at_any_step_leaves_the_old_node_or_the_recovered_one(tmp_path, first):
    counting = StepFiles(0, fail)
    recover(make_node(tmp_path / "whole", state=True).path, counting)
    outcomes = []
    for at in range(1, counting.steps + 1):
        node = make_node(tmp_path / f"{at}", state=True)
        with pytest.raises(StorageError, match="the disk is gone"):
            recover(node.path, StepFiles(at, fail))
        outcomes.append(judge_what_is_left(node, first))
    assert set(outcomes) == {False, True}
    assert outcomes == sorted(outcomes)  # there is one step before which nothing and after which all counts


PROGRAM = """
import os, signal, sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from test_sole_voter import StepFiles, recover

def die():
    os.kill(os.getpid(), signal.SIGKILL)

recover(Path(sys.argv[1]), StepFiles(int(sys.argv[2]), die))
"""


@pytest.mark.slow
def test_a_process_that_is_killed_at_any_step_leaves_the_old_node_or_the_recovered_one(tmp_path):
    counting = StepFiles(0, fail)
    recover(make_node(tmp_path / "whole", state=True).path, counting)
    outcomes = []
    here = Path(__file__).parent
    for at in range(1, counting.steps + 1):
        node = make_node(tmp_path / f"{at}", state=True)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(node.path), str(at), str(here), str(here.parent)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        outcomes.append(judge_what_is_left(node, "start" if at % 2 else "again"))
    assert set(outcomes) == {False, True}
    assert outcomes == sorted(outcomes)


def test_whatever_fails_before_the_switch_leaves_no_copy_behind(node, monkeypatch):
    def no_room(*_):
        raise StorageError("no room")

    monkeypatch.setattr(sole_voter, "_advance", no_room)
    with pytest.raises(BalsaError, match="no room"):
        recover(node.path)
    assert [place.name for place in node.state_path.iterdir() if place.name.isdigit()] == ["1"]
    assert Started(node.path).configuration == CLUSTER
