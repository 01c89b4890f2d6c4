"""Where entries lie: found by index, forgotten when overwritten."""

from hypothesis import given
from hypothesis import strategies as st

from balsadb.storage.index import LogIndex


def test_an_empty_index_finds_nothing():
    index = LogIndex()
    assert (index.first_index, index.last_index) == (1, 0)
    assert index.locate(1, 5, 100) is None
    assert index.tail_first(100) == 1


def test_an_extent_stays_in_one_file_and_within_its_bytes():
    index = LogIndex()
    index.add_segment("a")
    index.extend(1, [0, 10, 20], [10, 10, 10])
    index.add_segment("b")
    index.extend(4, [0, 50], [50, 50])
    found = index.locate(2, 5, 1000)
    assert found is not None
    assert (found.path, found.offsets, found.lengths) == ("a", [10, 20], [10, 10])
    assert index.locate(1, 3, 20).offsets == [0, 10]
    assert index.locate(1, 3, 19).offsets == [0]
    assert index.locate(4, 5, 1).offsets == [0]
    assert index.locate(1, 2, 1000).offsets == [0, 10]
    assert index.locate(6, 9, 100) is None


def test_bytes_between_two_entries_count():
    """Overwritten entries may lie between; they are read along and must not be many."""
    index = LogIndex()
    index.add_segment("a")
    index.extend(1, [0, 10, 5000], [10, 10, 10])
    assert index.locate(1, 3, 1000).offsets == [0, 10]


def test_the_tail_is_the_longest_suffix_within_its_bytes():
    index = LogIndex()
    index.add_segment("a")
    index.extend(1, [0, 10], [10, 30])
    index.add_segment("b")
    index.extend(3, [0], [20])
    assert [index.tail_first(n) for n in (19, 20, 49, 50, 59, 60, 99)] == [4, 3, 3, 2, 2, 1, 1]


def test_a_reset_index_goes_on_elsewhere():
    index = LogIndex()
    index.add_segment("a")
    index.extend(1, [0], [10])
    index.reset(9)
    assert (index.first_index, index.last_index) == (9, 8)
    index.extend(9, [30], [10])
    assert index.locate(9, 9, 100).offsets == [30]
    assert index.locate(1, 1, 100) is None


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 10), st.integers(1, 50)), max_size=30
    )
)
def test_any_extensions_and_overwrites_match_a_plain_list(steps):
    index, model, path, end = LogIndex(), [], "0", 0
    index.add_segment(path)
    for new_segment, back, count, size in steps:
        if new_segment:
            path, end = str(int(path) + 1), 0
            index.add_segment(path)
        first = max(1, len(model) + 1 - back)
        offsets = [end + n * size for n in range(count)]
        index.extend(first, offsets, [size] * count)
        end += count * size
        model[first - 1 :] = [(path, offset, size) for offset in offsets]
        assert index.last_index == len(model)
        assert index.first_index == 1
        for number, place in enumerate(model, start=1):
            found = index.locate(number, len(model), 120)
            assert found is not None
            assert (found.path, found.offsets[0], found.lengths[0]) == place
            places = [(found.path, *p) for p in zip(found.offsets, found.lengths, strict=True)]
            assert places == model[number - 1 : number - 1 + len(places)]
            assert len(places) == 1 or found.offsets[-1] + found.lengths[-1] - found.offsets[0] <= 120


def three_segments():
    index = LogIndex()
    for number, path in enumerate("abc"):
        index.add_segment(path)
        index.extend(1 + 10 * number, range(0, 100, 10), [10] * 10)
    return index


def test_segments_that_end_before_an_index_are_dropped_and_the_newest_never():
    for first, gone in [
        (1, []),
        (10, []),
        (11, ["a"]),
        (20, ["a"]),
        (21, ["a", "b"]),
        (31, ["a", "b"]),
        (99, ["a", "b"]),
    ]:
        index = three_segments()
        assert index.drop_before(first) == gone
        assert index.first_index == 1 + 10 * len(gone)
        assert index.last_index == 30
        assert (index.locate(5, 5, 10) is None) == ("a" in gone)
        assert index.drop_before(first) == []


def test_an_empty_segment_goes_with_those_before_it():
    index = three_segments()
    index.reset(50)
    assert index.drop_before(50) == ["a", "b"]
    index.add_segment("d")
    index.extend(50, [0], [10])
    assert index.drop_before(50) == ["c"]
    assert index.first_index == 50


def test_the_bytes_are_those_of_all_segments_together():
    index = three_segments()
    assert index.bytes == 300
    index.drop_before(11)
    assert index.bytes == 200
    index.extend(25, [100], [50])
    assert index.bytes == 100 + 150
    index.reset(1)
    assert index.bytes == 0


def test_the_tail_after_a_drop_begins_at_what_is_left():
    index = three_segments()
    index.drop_before(15)
    assert [index.tail_first(size) for size in (0, 9, 10, 100, 110, 200, 10_000)] == [
        31,
        31,
        30,
        21,
        20,
        11,
        11,
    ]
