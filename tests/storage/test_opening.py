"""What a start makes of a log and a state: each row of the table in `storage/opening.py`, by its name."""

from __future__ import annotations

import pytest
from memory_files import MemoryFiles
from wal_kit import SMALL, STORE, WAL, Log, entries, read_all

from balsadb.errors import DataError
from balsadb.raft.ready import LogStart
from balsadb.raft.types import EntryKind, HardState
from balsadb.storage.opening import open_log
from balsadb.storage.wal import Wal
from kv.delta_model import bookkeeping


class Opened:
    """A log opened together with a state, and its entries."""

    def __init__(self, files: MemoryFiles, state=None, installed: int = 0) -> None:
        self.files = files
        self.wal, self.recovered = open_log(files, WAL, STORE, SMALL, state, installed)
        self.entries = read_all(self.wal, self.recovered.first_index, self.recovered.last_index)
        self.wal.close()

    @property
    def range(self) -> tuple[int, int]:
        return self.recovered.first_index, self.recovered.last_index


def log_of(*runs: tuple[int, int, int], state: HardState | None = None, base: tuple[int, int] | None = None):
    """A log that was written and closed: (first, last, term) of each batch, compacted up to `base`."""
    log = Log()
    for first, last, term in runs:
        log.write(*entries(first, last, term))
    if state is not None:
        log.write(state=state)
    if base is not None:
        log.write(start=LogStart(*base, keep=True))
    log.wal.close()
    return log


def state_at(index: int, term: int = 1, time_ms: int = 0):
    return bookkeeping(index, term=term, log_time_ms=time_ms)


def refused(files: MemoryFiles, state, installed: int = 0) -> str:
    before = {name: bytes(files.content(name)) for name in files.names}
    with pytest.raises(DataError) as caught:
        open_log(files, WAL, STORE, SMALL, state, installed)
    assert {name: bytes(files.content(name)) for name in files.names} == before
    assert files.open_files == 0
    return str(caught.value)


# ---------------------------------------------- at 1 | empty | everything is applied from the log


def test_a_first_start_has_neither_log_nor_state():
    assert Opened(MemoryFiles()).range == (1, 0)


def test_without_a_state_everything_is_applied_from_the_log():
    opened = Opened(log_of((1, 9, 1)).memory)
    assert opened.range == (1, 9)
    assert opened.entries == list(entries(1, 9))


def test_a_state_from_before_the_first_entry_is_as_good_as_none():
    """A cut may be made before anything was applied."""
    assert Opened(log_of((1, 9, 1)).memory, bookkeeping(0, term=0)).range == (1, 9)
    assert Opened(MemoryFiles(), bookkeeping(0, term=0)).range == (1, 0)


# ------------------- at or before its end | within the log, same term | applied from there on


@pytest.mark.parametrize(("index", "term"), [(1, 1), (5, 1), (6, 3), (9, 3)])
def test_the_log_continues_a_state_whose_entry_it_has(index, term):
    opened = Opened(log_of((1, 5, 1), (6, 9, 3)).memory, state_at(index, term))
    assert opened.range == (1, 9)
    assert opened.entries == [*entries(1, 5), *entries(6, 9, 3)]


@pytest.mark.parametrize(("index", "term"), [(4, 1), (5, 1), (6, 3), (9, 3)])
def test_a_compacted_log_continues_a_state_from_its_base_on(index, term):
    opened = Opened(log_of((1, 5, 1), (6, 9, 3), base=(4, 1)).memory, state_at(index, term))
    assert opened.range == (5, 9)


def test_a_log_that_is_compacted_up_to_its_end_continues_its_state():
    opened = Opened(log_of((1, 9, 2), base=(9, 2)).memory, state_at(9, 2))
    assert (opened.range, opened.entries) == ((10, 9), [])


def test_a_received_state_within_the_log_keeps_the_entries_behind_it():
    """Rule C4: if the log holds (applied index, term), its suffix is kept."""
    opened = Opened(log_of((1, 9, 1)).memory, state_at(6), installed=6)
    assert opened.range == (1, 9)


def test_log_time_is_the_later_one_of_state_and_log():
    """Rule C2: a node that leads next must not stamp less."""
    log = log_of((1, 9, 1))
    in_log = log.entries[-1].time_ms
    assert Opened(log.memory, state_at(9, 1, in_log + 500)).recovered.last_time_ms == in_log + 500
    assert Opened(log.memory, state_at(9, 1, in_log - 500)).recovered.last_time_ms == in_log


# ------------------ anywhere | installed, log not begun anew | the whole log is dropped


@pytest.mark.parametrize(
    ("log", "index", "term"),
    [
        (log_of((1, 9, 1)), 50, 4),
        (log_of((1, 9, 1)), 10, 1),
        (log_of((1, 9, 1)), 7, 2),
        (log_of((1, 9, 1), base=(4, 1)), 50, 4),
        (log_of((1, 9, 3)), 9, 4),
        (Log(), 50, 4),
    ],
    ids=["behind the end", "right behind it", "another term", "compacted", "at the end", "an empty log"],
)
def test_a_received_state_that_the_log_does_not_lead_to_replaces_it(log, index, term):
    """Rule C4: the process ended between the switch of the pointer and the new start of the log."""
    files = log.memory.copy()
    opened = Opened(files, state_at(index, term, 9_000), installed=index)
    assert (opened.range, opened.entries) == ((index + 1, index), [])
    recovered = opened.recovered
    assert (recovered.terms, recovered.memberships, recovered.tail) == (((index, term),), (), ())
    assert (recovered.hard_state.commit, recovered.hard_state.term) == (index, term)
    assert recovered.last_time_ms == 9_000
    # It is durable: the next start finds a log that continues the state, received or grown since.
    again = Opened(files.power_loss(lambda sector: False), state_at(index, term), installed=index)
    assert again.range == (index + 1, index)
    assert again.recovered.hard_state == recovered.hard_state


def test_a_dropped_log_keeps_term_and_vote():
    """Rule W2: a vote is given once, whatever becomes of the entries."""
    files = log_of((1, 9, 1), state=HardState(6, 3, 2)).memory.copy()
    assert Opened(files, state_at(50, 4), installed=50).recovered.hard_state == HardState(6, 3, 50)
    assert Opened(files, state_at(50, 4), installed=50).recovered.hard_state == HardState(6, 3, 50)


def test_a_state_of_a_later_term_than_the_vote_empties_the_vote():
    """Rule W2: nobody has a vote in a term that this node knows from entries only."""
    files = log_of((1, 9, 1), state=HardState(2, 3, 2)).memory.copy()
    assert Opened(files, state_at(50, 4), installed=50).recovered.hard_state == HardState(4, 0, 50)


def test_the_files_of_a_dropped_log_can_go_and_the_next_entry_follows_the_state():
    files = log_of(*[(first, first + 9, 1) for first in range(1, 200, 10)]).memory.copy()
    wal, _ = open_log(files, WAL, STORE, SMALL, state_at(500, 4), 500)
    assert wal.collect_due
    wal.collect()
    assert len(files.list(WAL)) <= 2
    wal.close()
    log = Log(files)
    log.write(*entries(501, 503, 4))
    log.wal.close()
    assert Opened(files, state_at(502, 4), installed=500).range == (501, 503)


def test_a_membership_of_the_dropped_log_is_not_in_force():
    from wal_kit import entry

    log = Log()
    log.write(entry(1), entry(2, kind=EntryKind.MEMBERSHIP))
    log.wal.close()
    assert Opened(log.memory, state_at(50, 4), installed=50).recovered.memberships == ()


# ------------------------- later | lost, or older than that | the node fetches another one (rule W5)


@pytest.mark.parametrize(("state", "installed"), [(None, 0), (state_at(3), 0), (state_at(3), 3)])
def test_a_log_that_begins_behind_the_state_is_kept_as_it_is(state, installed):
    """The log is whole, and with it the votes: only the entries between the two must come from others."""
    files = log_of((1, 9, 1), state=HardState(4, 2, 9), base=(4, 1)).memory
    opened = Opened(files, state, installed)
    assert opened.range == (5, 9)
    assert opened.entries == list(entries(5, 9))
    assert opened.recovered.hard_state == HardState(4, 2, 9)


# ---------- at or before its end | past the log, or another term | damage: the log has lost what it had


@pytest.mark.parametrize(("index", "term"), [(10, 1), (50, 4), (9, 2), (6, 3)])
@pytest.mark.parametrize("installed", [0, 2])
def test_a_state_that_grew_here_beyond_the_log_is_damage(index, term, installed):
    """Rule C3: a cut is made only of what the log has synced, so the log has lost something."""
    text = refused(log_of((1, 9, 1)).memory, state_at(index, term), installed)
    assert f"the state has entry {index} of term {term}, and the log has lost it" in text
    assert "member replace" in text


def test_a_received_state_that_the_log_was_begun_behind_and_no_longer_knows_is_damage():
    """The log begins behind that very index in another term: it never began behind this state."""
    text = refused(log_of((1, 9, 1), base=(4, 1)).memory, state_at(4, 2), installed=4)
    assert "the log has lost it" in text


def test_a_damaged_log_is_refused_as_such_whatever_the_state_is():
    log = log_of((1, 9, 1), (10, 19, 1))
    log.memory.content(log.segment())[600] ^= 1
    with pytest.raises(DataError):
        open_log(log.memory, WAL, STORE, SMALL, state_at(500, 4), 500)
    assert log.memory.open_files == 0


# --------------------------------------------------------------------------------- all of it at once


def test_every_state_and_log_is_either_continued_begun_anew_or_refused():
    """What is opened continues the state, or is behind it and whole: then another state will come."""
    for last in range(6):
        for base in range(last + 1):
            log = Log()
            if last:
                log.write(*entries(1, last, 2))
            if base:
                log.write(start=LogStart(base, 2, True))
            log.wal.close()
            for index in range(8):
                for term in (1, 2, 3):
                    for installed in {0, index}:
                        files = log.memory.copy()
                        state = state_at(index, term) if index else None
                        try:
                            wal, recovered = open_log(files, WAL, STORE, SMALL, state, installed)
                        except DataError:
                            # Never one that fits, never one that others can replace, never a fresh install.
                            assert base <= index
                            assert index > last or term != 2
                            assert index == base or index != installed
                            continue
                        wal.close()
                        assert index <= recovered.last_index
                        lost = index < base
                        kept = lost or index == 0 or (term == 2 and index <= last)
                        assert recovered.first_index - 1 == (base if kept else index)
                        assert recovered.last_index == (last if kept else index)
                        reopened, same = Wal.open(files, WAL, STORE, SMALL)
                        reopened.close()
                        assert (same.first_index, same.last_index) == (
                            recovered.first_index,
                            recovered.last_index,
                        )
