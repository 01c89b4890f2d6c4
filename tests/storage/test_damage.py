"""A thousand random damages to the files of a stopped node: it refuses with a sentence, or has all it had.

What a single node can't know is kept apart and named: see `unnoticed`. An old `META` is found out by the
first batch of a later start that the node applies; until then nothing depends on it.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from balsadb.errors import BalsaError, DataError, LocalFault
from balsadb.kv.cut import Bookkeeping
from balsadb.kv.machine import StateMachine
from balsadb.raft.entry import Entry
from balsadb.raft.options import Recovered
from balsadb.raft.ready import LogStart, WriteBatch
from balsadb.raft.types import HardState
from balsadb.storage.datadir import DataDirectory, Meta
from balsadb.storage.files import OsFiles
from balsadb.storage.opening import open_log
from balsadb.storage.state import StateDirectory, StateStore
from balsadb.storage.wal import Wal, WalOptions
from kv.some_log import MEMBERS
from mutants.planting import Edit, planted
from storage.damage import Damage, damage
from storage.history import CLUSTER, LENGTH, LOG, entry

OPTIONS = WalOptions(segment_bytes=4096)
DAMAGES = 1000
OLD_AT = 70
"""Entry at which the old copies are taken."""


class QuickFiles(OsFiles):
    """Nothing here loses power."""

    def sync_directory(self, path: str) -> None:
        """Not needed."""


class Life:
    """A data directory with a history, and everything that was acknowledged in it."""

    def __init__(self, path: Path, seed: int, cuts: dict[int, bool]) -> None:
        """Write all entries; `cuts` says after which to make a cut, and whether it lets the log go."""
        self.path, self.old = path / "node", path / "old"
        self.moments: list[tuple[int, HardState]] = []
        """Last entry and hard state after each batch."""
        rng = random.Random(seed)
        files = QuickFiles()
        directory = DataDirectory.open(str(self.path), files, 1, CLUSTER)
        directory.update_meta(msgspec.structs.replace(directory.meta, admitted=True, boot=5))
        states = StateDirectory(files, directory.state_path)
        store = StateStore(states.current().path)
        machine = StateMachine(MEMBERS, store, None, 500)
        wal, _ = Wal.open(files, directory.wal_path, directory.meta.store_id, OPTIONS)
        last = 0
        self.state_index = 0
        while last < LENGTH:
            new = range(last + 1, min(LENGTH, last + rng.randint(1, 4)) + 1)
            commit = rng.choice((None, last))
            state = None if commit is None else HardState(1 + new[-1] // 10, 1, commit)
            self._bring(wal, tuple(map(entry, new)), state)
            wal.prepare()
            last = new[-1]
            due = [index for index in cuts if self.state_index < index <= last]
            if due:
                self._cut(wal, machine, store, due[-1], release=cuts[due[-1]])
            if not self.old.exists() and last >= OLD_AT:
                store.flush()
                shutil.copytree(self.path, self.old)
                directory.update_meta(msgspec.structs.replace(directory.meta, boot=9, met={2: b"2" * 16}))
        self.meta: Meta = directory.meta
        wal.note_end()  # as a node does soon after a write, and when it stops
        wal.close()
        store.close()
        directory.close()
        self.first_index = wal._mark.index + 1
        store = StateStore(states.current().path)
        self.bookkeeping = store.bookkeeping
        store.close()

    def _bring(
        self, wal: Wal, entries: tuple[Entry, ...], state: HardState | None, start: LogStart | None = None
    ) -> None:
        write = wal.plan(WriteBatch(len(self.moments) + 1, entries, state, start))
        wal.execute(write)
        wal.complete(write)
        self.moments.append((wal._index.last_index, wal._hard_state))

    def _cut(self, wal: Wal, machine: StateMachine, store: StateStore, index: int, *, release: bool) -> None:
        cut = LOG.apply(machine, index).freeze()
        while machine.store.count(cut):
            pass
        batch = store.batch()
        for _ in cut.build(batch):
            pass
        assert store.write(batch)
        machine.store.written(cut)
        self.state_index = index
        if release:
            store.flush()
            start = LogStart(index - 8, 1 + (index - 8) // 10, True)
            self._bring(wal, (), HardState(wal._hard_state.term, 1, index), start)
            wal.collect()


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """Nodes of three kinds: everything in the log; a log that was let go; several files of state."""
    plans = ({40: False}, {30: True, 60: False, 90: True}, {20: False, 50: True, 80: True, 110: True})
    return [Life(tmp_path_factory.mktemp("life"), seed, cuts) for seed, cuts in enumerate(plans)]


def test_without_damage_everything_is_there(lives, tmp_path):
    for number, life in enumerate(lives):
        path = shutil.copytree(life.path, tmp_path / str(number))
        assert verdict(life, path, Damage("none", "group-0")) == "whole"


class Opened:
    """What a start finds in a directory, all of it read."""

    def __init__(self, path: Path, known_state: Bookkeeping | None) -> None:
        """`known_state` is given when the state is certainly as it was, which saves opening it."""
        files = QuickFiles()
        directory = DataDirectory.open(str(path), files, 1, CLUSTER)
        try:
            self.meta = directory.meta
            states = StateDirectory(files, directory.state_path)
            current = states.current()
            states.clean()
            store = None if known_state is not None else StateStore(current.path)
            try:
                self.state = known_state if store is None else store.bookkeeping
                wal, self.recovered = open_log(
                    files, directory.wal_path, self.meta.store_id, OPTIONS, self.state, current.installed
                )
                try:
                    self.entries = read_all(wal, self.recovered)
                finally:
                    wal.close()
                self._apply(store)
            finally:
                if store is not None:
                    store.close()
        finally:
            directory.close()

    def _apply(self, store: StateStore | None) -> None:
        """Take the digest of the state, and of what follows when the log continues it."""
        self.digests: dict[int, bytes] = {}
        if store is None:
            return
        machine = StateMachine(MEMBERS, store, self.state, 500)
        self.digests[machine.applied_index] = machine.digest()
        if self.recovered.first_index - 1 <= machine.applied_index <= self.recovered.last_index:
            LOG.apply(machine, self.recovered.last_index)
            self.digests[machine.applied_index] = machine.digest()


def read_all(wal: Wal, recovered: Recovered) -> list[Entry]:
    entries: list[Entry] = []
    while recovered.first_index + len(entries) <= recovered.last_index:
        entries += wal.read(recovered.first_index + len(entries), recovered.last_index, 1 << 20)
    return entries


DIGESTS: dict[int, bytes] = {}


def digest(index: int) -> bytes:
    if index not in DIGESTS:
        DIGESTS[index] = LOG.digest(index)
    return DIGESTS[index]


def check_sentence(error: LocalFault, path: Path) -> None:
    """Check that a refusal names the file and says what to do."""
    assert str(path) in str(error), error
    assert not isinstance(error, DataError) or len(error.remedy) > 20, error


def verdict(life: Life, path: Path, done: Damage) -> str:
    """Start on a damaged directory and judge. Raises AssertionError for whatever must not be."""
    touched = "state" in done.path or done.path == "group-0"
    try:
        found = Opened(path, None if touched else life.bookkeeping)
    except LocalFault as error:
        check_sentence(error, path)
        return "refused"
    except BalsaError as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    for index, found_digest in found.digests.items():
        assert found_digest == digest(index), f"the state of entry {index} is another one"
    recovered = found.recovered
    assert found.entries == [entry(i) for i in range(recovered.first_index, recovered.last_index + 1)]
    assert found.meta.store_id == life.meta.store_id
    index = found.state.index if found.state else 0
    fetches = index < recovered.first_index - 1
    return unnoticed(life, found, done) or ("state to be fetched" if fetches else "whole")


def unnoticed(life: Life, found: Opened, done: Damage) -> str | None:
    """Name a damage that took something and can't be told from a sound directory; None: it did not.

    Any other loss is a failure.
    """
    if found.meta.boot != life.meta.boot + 1:
        assert done == Damage("old copy", "META"), f"boot {found.meta.boot} after {done}"
        return "META of an earlier start"
    now = found.recovered.last_index, found.recovered.hard_state
    assert now == life.moments[-1], f"{now} is left of {life.moments[-1]}"
    assert found.recovered.first_index <= max(1, life.first_index)
    return None


def run(
    lives: list[Life], tmp_path: Path, damages: int, seed: int, kind: str | None = None
) -> Counter[tuple[str, str]]:
    """Do damages, or those of one kind; returns how often each kind had each verdict."""
    counts: Counter[tuple[str, str]] = Counter()
    for number in range(damages):
        rng = random.Random(f"damage {seed} {number}")
        life = rng.choice(lives)
        path = tmp_path / "node"
        shutil.copytree(life.path, path)
        done = damage(rng, path, life.old, kind)
        try:
            counts[done.kind, verdict(life, path, done)] += 1
        except BaseException as error:
            raise AssertionError(f"damage {number} of seed {seed}: {done}: {error!r}") from error
        shutil.rmtree(path)
    return counts


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_damaged_node_refuses_or_has_all_that_it_acknowledged(lives, tmp_path):
    counts = run(lives, tmp_path, DAMAGES, seed=1)
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:18} {outcome:36} {count}")
    assert counts.total() == DAMAGES
    outcomes = {outcome for _, outcome in counts}
    assert {"refused", "whole", "state to be fetched"} <= outcomes


REACHED = Edit("storage.log_end:check_reached", "replay.batch < end.batch", "False")
"""The second line of defence of the log's newest batches; the first one is seen only without it."""
WEAKNESSES = {
    "the checksum of META is not checked": (
        "flip",
        Edit("storage.meta:decode_meta", "if google_crc32c.value(content) != checksum:", "if False:"),
    ),
    "the length of a segment is not checked": (
        "truncate",
        Edit("storage.wal:check_header", "if header.length != len(data):", "if False:"),
        REACHED,
    ),
    "a damaged record is taken for a torn one": (
        "flip",
        Edit("storage.recovery:Replay._bad_batch", "<= batch.zero_sectors", "< 0"),
        REACHED,
    ),
    "a log may end before the place that was noted": ("zero", REACHED),
    "the newest segment may be missing": (
        "delete",
        Edit("storage.log_end:check_present", "newest < end.sequence", "False"),
        REACHED,
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("weakness", WEAKNESSES)
def test_a_check_left_out_on_purpose_is_found(weakness, lives, tmp_path):
    kind, *edits = WEAKNESSES[weakness]
    with planted(tuple(edits)), pytest.raises(AssertionError, match=r"^damage \d+ of seed 2"):
        run(lives, tmp_path, DAMAGES, seed=2, kind=kind)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["flip", "truncate"])
def test_flips_and_truncations_are_found_without_the_noted_end(kind, lives, tmp_path):
    """So it is the weakness that the test above finds, and not the defence that it takes away."""
    with planted((REACHED,)):
        assert run(lives, tmp_path, 200, seed=3, kind=kind)
