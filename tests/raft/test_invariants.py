"""The checker itself: whatever is broken on purpose, it says so with values."""

import pytest
from raft_cluster import FAST, Cluster

from balsadb.errors import InvariantError
from balsadb.raft import invariants
from balsadb.raft.types import Configuration, HardState


def commit_past_the_end(core):
    core.log.commit_index = 9


def durable_past_written(core):
    core.log.durable_index = 9


def cache_with_a_gap(core):
    core.log.entries.pop()


def term_below_the_log(core):
    core.term = 0


def foreign_configuration(core):
    core.configuration = Configuration(voters=(7,))


def vote_for_another(core):
    core.vote = 2


def term_not_on_disk(core):
    core.term = 5


def counts_itself_too_far(core):
    core.state.matches[1] = 9


def forgets_a_follower(core):
    del core.state.progress[2]


def next_below_match(core):
    core.state.progress[2].next = 0


def window_without_entries(core):
    core.state.progress[2].inflight_bytes = 7


def two_opinions_of_match(core):
    core.state.matches[2] = 0


FAULTS = [
    commit_past_the_end,
    durable_past_written,
    cache_with_a_gap,
    term_below_the_log,
    foreign_configuration,
    vote_for_another,
    term_not_on_disk,
    counts_itself_too_far,
    forgets_a_follower,
    next_below_match,
    window_without_entries,
    two_opinions_of_match,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_broken_fact_is_found(fault):
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(1)
    cluster.settle()
    invariants.check(leader)
    fault(leader.core)
    with pytest.raises(InvariantError, match=r"\d"):
        invariants.check(leader)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("term", 9, "term went back from 9 to 1"),
        ("vote", 3, "vote in term 1 changed from 3 to 1"),
        ("commit_index", 9, "commit_index went back from 9 to 2"),
        ("applied_index", 9, "applied_index went back from 9 to 2"),
        ("commit_term", 7, "committed entry 2 changed its term from 7 to 1"),
        ("last_term", 7, "the leader of term 1 changed its own entry 2"),
    ],
)
def test_an_illegal_step_is_found(field, value, sentence):
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(1)
    cluster.settle()
    cluster.tick(FAST.heartbeat_ticks)
    before = invariants.observe(leader)
    assert invariants.check_step(before, leader) == before
    changed = {name: getattr(before, name) for name in before.__struct_fields__} | {field: value}
    with pytest.raises(InvariantError, match=sentence):
        invariants.check_step(invariants.Observation(**changed), leader)


def test_a_recovered_term_below_the_log_is_refused():
    with pytest.raises(InvariantError, match="recovered term 1 is below"):
        Cluster(1, logs={1: [2]}, hard_states={1: HardState(term=1)})
