"""The log: terms of every index, a bounded cache, and orders that always hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raft_cluster import Disk, entries_of

from balsadb.errors import InvariantError
from balsadb.raft.log import NO_TERM, Log
from balsadb.raft.options import Recovered
from balsadb.raft.types import HardState

BIG = 1 << 30
terms = st.lists(st.integers(0, 3), max_size=12).map(
    lambda steps: [1 + sum(steps[: n + 1]) for n in range(len(steps))]
)


def log_of(terms, tail=100, applied=0, commit=0):
    disk = Disk(entries_of(terms), HardState(terms[-1] if terms else 0, 0, commit))
    return Log(disk.recover(tail), applied, BIG)


@given(terms, st.integers(0, 12))
def test_terms_are_known_for_every_index_whether_cached_or_not(terms, tail):
    log = log_of(terms, tail)
    assert [log.term_at(index) for index in range(1, len(terms) + 1)] == terms
    assert log.term_at(0) == 0
    assert log.term_at(len(terms) + 1) == NO_TERM


@given(terms, st.integers(0, 14), st.integers(0, 40))
def test_back_up_finds_the_highest_index_with_a_term_that_low(terms, index, term):
    expected = max((i for i in range(min(index, len(terms)) + 1) if ([0, *terms])[i] <= term), default=0)
    assert log_of(terms).agreement_at_most(index, term) == expected


@given(terms.filter(bool), st.data())
def test_truncation_forgets_terms_and_durability_of_the_suffix(terms, data):
    log = log_of(terms, data.draw(st.integers(0, 12)))
    first = data.draw(st.integers(1, len(terms)))
    log.truncate(first)
    assert log.last_index == log.durable_index == log.written_index == first - 1
    assert log.last_term == ([0, *terms])[first - 1]
    assert [log.term_at(index) for index in range(1, first)] == terms[: first - 1]
    log.append(entries_of([99] * first)[-1])
    assert log.last_term == 99


def test_committed_entries_are_never_truncated():
    with pytest.raises(InvariantError, match=r"truncation at 2 .*commit index 2"):
        log_of([1, 1, 1], commit=2).truncate(2)


def test_an_entry_that_leaves_a_gap_or_lowers_the_term_is_refused():
    log = log_of([1, 3])
    with pytest.raises(InvariantError):
        log.append(entries_of([1, 3, 3, 3])[3])
    with pytest.raises(InvariantError):
        log.append(entries_of([1, 1, 2])[2])


def test_the_cache_keeps_what_is_not_durable_whatever_its_size():
    log = Log(Recovered(), 0, 2_000)
    entries = entries_of([1] * 50)
    for entry in entries:
        log.append(entry)
    assert log.cache_first == 1
    log.durable_index = log.written_index = 40
    log.append(entries_of([1] * 51)[50])
    assert log.cache_first == 41
    assert log.entries == entries_of([1] * 51)[40:]
    with pytest.raises(InvariantError):
        log.cached(40, 51, BIG)


def test_a_chunk_is_bounded_in_bytes_but_admits_one_entry():
    log = log_of([1] * 9)
    size = len(log.entries[0].encoded)
    assert len(log.cached(2, 9, 3 * size)) == 3
    assert len(log.cached(2, 9, 1)) == 1
    assert log.cached(9, 8, 1) == []


def test_a_log_with_a_later_last_term_or_the_same_and_longer_is_more_up_to_date():
    log = log_of([1, 1, 2])
    assert log.up_to_date(3, 2)
    assert log.up_to_date(1, 3)
    assert not log.up_to_date(2, 2)
    assert not log.up_to_date(9, 1)


def test_a_commit_index_past_the_log_stops_the_node():
    with pytest.raises(InvariantError, match="outside"):
        log_of([1, 1], commit=3)


def test_a_compacted_log_knows_the_term_of_its_base():
    recovered = Recovered(
        hard_state=HardState(4, 0, 12), first_index=11, last_index=13, terms=((10, 3), (12, 4))
    )
    log = Log(recovered, 10, BIG)
    assert [log.term_at(index) for index in (9, 10, 11, 12, 13, 14)] == [NO_TERM, 3, 3, 4, 4, NO_TERM]
    assert log.agreement_at_most(13, 3) == 11
    assert log.agreement_at_most(13, 1) == 10


@given(terms.filter(bool), st.data())
def test_compaction_forgets_entries_and_keeps_the_term_of_the_base(terms, data):
    log = log_of(terms, data.draw(st.integers(0, 12)), applied=len(terms))
    index = data.draw(st.integers(1, len(terms)))
    log.compact(index)
    assert (log.base_index, log.first_index, log.last_index) == (index, index + 1, len(terms))
    assert [log.term_at(i) for i in range(index, len(terms) + 1)] == terms[index - 1 :]
    assert all(log.term_at(i) == NO_TERM for i in range(index))
    assert log.last_term == terms[-1]
    assert all(entry.index > index for entry in log.entries)
    assert log.cache_first + len(log.entries) == log.last_index + 1
    fresh = log_of(terms, len(log.entries))
    assert log._cache_bytes == fresh._cache_bytes
    for back in range(index, len(terms) + 1):
        assert log.agreement_at_most(back, terms[-1]) == back
    assert log.agreement_at_most(len(terms), 0) == index


@pytest.mark.parametrize(("applied", "durable", "index"), [(2, 4, 3), (4, 2, 3), (4, 4, 0), (4, 4, 5)])
def test_only_what_is_applied_and_durable_is_compacted(applied, durable, index):
    """Rule C5 bounds it from above, too; that is the replica's matter."""
    log = log_of([1, 1, 2, 2], applied=applied, commit=4)
    log.durable_index = durable
    with pytest.raises(InvariantError, match=f"the log can't begin behind {index}"):
        log.compact(index)


def test_a_restarted_log_is_empty_and_goes_on_behind_the_state():
    log = log_of([1, 1, 2, 2])
    log.restart(9, 3, 5)
    assert (log.base_index, log.last_index, log.last_term) == (9, 9, 3)
    assert (log.commit_index, log.applied_index, log.durable_index, log.written_index) == (9, 9, 9, 9)
    assert (log.entries, log.cache_first) == ([], 10)
    assert [log.term_at(index) for index in (2, 8, 9, 10)] == [NO_TERM, NO_TERM, 3, NO_TERM]
    assert log.last_time_ms > 5, "log time never goes back"
    following = entries_of([3] * 10)[9]
    log.append(following)
    assert (log.last_index, log.cached(10, 10, BIG)) == (10, [following])
