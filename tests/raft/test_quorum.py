"""Quorum arithmetic against a second, naive version that tries out all subsets."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from balsadb.raft.quorum import agreed_number, halves_of, is_quorum, is_quorum_of, lower_median
from balsadb.raft.types import Configuration

voters = st.sets(st.integers(1, 7), min_size=1, max_size=7).map(lambda nodes: tuple(sorted(nodes)))
halves = st.one_of(st.tuples(voters), st.tuples(voters, voters))
numbers = st.dictionaries(st.integers(1, 9), st.integers(0, 20))


def naive_is_quorum(halves, nodes):
    """Compare with every smallest majority, listed one by one."""

    def has_majority(half):
        size = len(half) // 2 + 1
        return any(set(majority) <= set(nodes) for majority in combinations(half, size))

    return all(has_majority(half) for half in halves)


def naive_agreed_number(halves, numbers):
    """Try every number from high to low."""
    for number in range(20, -1, -1):
        if naive_is_quorum(halves, [node for node in range(1, 8) if numbers.get(node, 0) >= number]):
            return number
    raise AssertionError("everybody has reached 0")


@given(halves, numbers)
def test_agreed_number_equals_the_naive_version(halves, numbers):
    assert agreed_number(halves, numbers) == naive_agreed_number(halves, numbers)


@given(halves, st.sets(st.integers(1, 9)))
def test_is_quorum_equals_the_naive_version(halves, nodes):
    assert is_quorum_of(halves, nodes) == naive_is_quorum(halves, nodes)
    assert is_quorum(halves, lambda node: node in nodes) == naive_is_quorum(halves, nodes)


@given(halves, st.sets(st.integers(1, 7)), st.sets(st.integers(1, 7)))
def test_any_two_quorums_share_a_voter(halves, one, other):
    if is_quorum_of(halves, one) and is_quorum_of(halves, other):
        assert one & other


def test_both_halves_must_agree_while_joint_and_learners_never_count():
    joint = Configuration(voters=(1, 2, 3), outgoing=(3, 4, 5), learners=(6, 7))
    assert not is_quorum_of(halves_of(joint), (1, 2, 3, 6, 7))
    assert not is_quorum_of(halves_of(joint), (3, 4, 5, 6, 7))
    assert is_quorum_of(halves_of(joint), (1, 3, 5))


def test_the_lower_median_is_the_lesser_of_two():
    assert [lower_median(v) for v in ([], [5], [9, 1], [1, 9, 5], [4, 1, 3, 2])] == [0, 5, 1, 5, 2]
