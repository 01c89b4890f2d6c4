"""The histogram of `balsadb bench` against a sorted list."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.cli.histogram import DURATION_NS_MAX, RELATIVE_ERROR, Histogram

durations = st.integers(0, DURATION_NS_MAX) | st.integers(0, 300) | st.integers(100_000, 5_000_000)
percents = st.floats(0, 100) | st.sampled_from([0, 50, 95, 99, 99.9, 100])


def histogram_of(values):
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(st.lists(durations, min_size=1, max_size=200), percents)
def test_a_percentile_is_that_of_the_sorted_list_but_for_the_stated_error(values, percent):
    histogram = histogram_of(values)
    exact = sorted(values)[max(1, ceil(len(values) * percent / 100)) - 1]
    assert abs(histogram.percentile_ns(percent) - exact) <= exact * RELATIVE_ERROR
    assert RELATIVE_ERROR <= 0.01


@given(st.lists(durations, min_size=1, max_size=200))
def test_count_mean_and_maximum_are_exact(values):
    histogram = histogram_of(values)
    assert (histogram.count, histogram.max_ns) == (len(values), max(values))
    assert histogram.mean_ns == sum(values) / len(values)


@given(st.lists(durations, max_size=50), st.lists(durations, max_size=50), percents)
def test_two_added_are_one_that_saw_both(some, others, percent):
    added = histogram_of(some)
    added.add(histogram_of(others))
    both = histogram_of(some + others)
    assert (added.count, added.total_ns, added.max_ns) == (both.count, both.total_ns, both.max_ns)
    assert added.percentile_ns(percent) == both.percentile_ns(percent)


@given(durations, st.integers(1, 1000))
def test_many_of_one_duration_are_counted_at_once(value, times):
    at_once, singly = Histogram(), histogram_of([value] * times)
    at_once.record(value, times)
    assert (at_once.count, at_once.total_ns) == (singly.count, singly.total_ns)
    assert at_once.percentile_ns(50) == singly.percentile_ns(50)


def test_nothing_counted_is_all_zeros():
    histogram = Histogram()
    assert (histogram.percentile_ns(99), histogram.mean_ns, histogram.max_ns) == (0, 0, 0)


@pytest.mark.parametrize(("value", "counted"), [(-5, 0), (DURATION_NS_MAX + 1, DURATION_NS_MAX + 1)])
def test_what_is_out_of_range_does_not_break_it(value, counted):
    histogram = histogram_of([value])
    assert histogram.max_ns == counted
    assert histogram.percentile_ns(50) == pytest.approx(counted, rel=RELATIVE_ERROR)


@given(st.lists(durations, min_size=1, max_size=100))
def test_percentiles_never_fall_and_never_exceed_the_maximum(values):
    histogram = histogram_of(values)
    found = [histogram.percentile_ns(percent) for percent in range(101)]
    assert found == sorted(found)
    assert found[-1] <= histogram.max_ns
