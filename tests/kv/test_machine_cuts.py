"""A state machine is frozen and put together again, and nobody can tell (rules C1, C2)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balsadb.errors import InvariantError
from balsadb.kv.batch import encode_batch
from balsadb.kv.cut import STATE_VERSION, decode_bookkeeping
from balsadb.kv.machine import Origin, StateMachine
from balsadb.kv.memory import MemoryBase
from kv.delta_model import write
from kv.some_log import MEMBERS, SomeLog

LOG = SomeLog(60)


def write_all(machine: StateMachine, base: MemoryBase) -> None:
    """Bring all frozen cuts to the base, in order."""
    store = machine.store
    while store.cuts:
        cut = store.cuts[0]
        while store.count(cut):
            pass
        write(base, cut)
        store.written(cut)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5, unique=True).map(sorted),
    st.sampled_from([0, 400, 1_000_000]),
)
def test_a_machine_that_starts_from_any_cut_goes_on_as_if_it_had_never_stopped(cuts, cache_bytes):
    base = MemoryBase()
    machine = StateMachine(MEMBERS, base, None, cache_bytes)
    for index in cuts:
        LOG.apply(machine, index).freeze()
        write_all(machine, base)
        again = StateMachine((7, 8), base.copy(), decode_bookkeeping(base.data), cache_bytes)
        assert again.digest() == machine.digest() == LOG.digest(index)
        assert len(again) == len(machine)
        assert LOG.apply(again, 60).digest() == LOG.digest(60)
    assert LOG.apply(machine, 60).digest() == LOG.digest(60)


def test_the_digest_looks_through_cuts_that_are_not_written():
    machine = StateMachine(MEMBERS)
    for index in (5, 11, 30):
        LOG.apply(machine, index).freeze()
    LOG.apply(machine, 41)
    assert machine.digest() == LOG.digest(41)


def test_a_cut_holds_all_replicated_state_besides_the_keys_as_of_its_index():
    """Rule C2: index, term, log time, configuration, origins, digests - not those of a later entry."""
    base = MemoryBase()
    machine = LOG.apply(StateMachine(MEMBERS, base), 35)
    cut = machine.freeze()
    before = (machine.applied_term, machine.log_time_ms, machine.members, machine.configuration)
    origins, digests = dict(machine.origins), dict(machine._digests.kept)
    LOG.apply(machine, 60)
    assert (machine.applied_term, machine.members) != (before[0], before[2])
    assert (cut.bookkeeping.index, cut.bookkeeping.version) == (35, STATE_VERSION)
    found = StateMachine(())
    write_all(machine, base)
    found.restore(base, decode_bookkeeping(base.data))
    assert found.applied_index == 35
    assert (found.applied_term, found.log_time_ms, found.members, found.configuration) == before
    assert (found.origins, found._digests.kept) == (origins, digests)
    assert list(found._digests.kept) == sorted(digests)


def test_log_time_does_not_go_back_after_a_restore():
    base = MemoryBase()
    machine = StateMachine(MEMBERS, base)
    machine.apply_empty(1, 1, 5_000)
    machine.freeze()
    write_all(machine, base)
    again = StateMachine(MEMBERS, base, decode_bookkeeping(base.data))
    again.apply_empty(2, 1, 4_000)
    assert again.log_time_ms == 5_000


def test_a_restored_machine_skips_what_ran_before_and_runs_what_comes_next():
    """Rules P2 and C1: an entry is never applied twice, nor a payload of it under another index."""
    base = MemoryBase()
    machine = StateMachine(MEMBERS, base)
    for index in (1, 2):
        machine.apply_commands(index, 1, 0, encode_batch(1, 4, index, [[b"APPEND", b"k", b"x"]]))
    machine.freeze()
    write_all(machine, base)
    again = StateMachine(MEMBERS, base, decode_bookkeeping(base.data))
    assert again.origins == {1: Origin(4, 2)}
    with pytest.raises(InvariantError, match="entry 2 of term 1 was to be applied after entry 2"):
        again.apply_empty(2, 1, 0)
    assert not again.apply_commands(3, 1, 0, encode_batch(1, 4, 2, [[b"APPEND", b"k", b"x"]])).ran
    assert again.apply_commands(4, 1, 0, encode_batch(1, 4, 3, [[b"APPEND", b"k", b"y"]])).replies == [3]
    assert again.read([b"GET", b"k"]) == b"xxy"


def test_restore_replaces_everything_there_was():
    """Rule C4: what this machine had applied beyond or besides the installed state is gone."""
    base = MemoryBase()
    other = LOG.apply(StateMachine(MEMBERS, base), 40)
    other.freeze()
    write_all(other, base)
    machine = SomeLog(20, seed=9).apply(StateMachine(MEMBERS), 15)
    machine.freeze()
    SomeLog(20, seed=9).apply(machine, 20)
    machine.restore(base, decode_bookkeeping(base.data))
    assert machine.digest() == LOG.digest(40)
    assert not machine.store.cuts
    assert LOG.apply(machine, 60).digest() == LOG.digest(60)
