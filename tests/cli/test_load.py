"""The pure part of `balsadb bench`."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.cli.load import ERROR_WORDS_MAX, LINE_BYTES_MAX, Commands, ReplyCounter, Schedule, Tally
from balsadb.errors import ProtocolError
from balsadb.resp.parser import CommandParser

PREFIX = b"bench:ab12:"


def commands_of(keys=50, value_bytes=8):
    return Commands(PREFIX, keys, value_bytes, Random(1))


def parsed(pieces):
    return CommandParser().feed(b"".join(pieces))


# ------------------------------------------------------------------ commands


@pytest.mark.parametrize(("kind", "words"), [("set", 3), ("get", 2), ("append", 3), ("incr", 2)])
def test_commands_are_whole_and_stay_below_the_prefix(kind, words):
    source = commands_of().source(kind)
    drawn = parsed(source() for _ in range(500))
    assert len(drawn) == 500
    assert {(argv[0], len(argv)) for argv in drawn} == {(kind.upper().encode(), words)}
    assert all(argv[1].startswith(PREFIX) for argv in drawn)
    assert {len(argv[2]) for argv in drawn if words == 3} <= {8}


@pytest.mark.parametrize("kind", ["set", "get", "append", "incr"])
def test_every_key_is_drawn_and_every_key_drawn_is_removed(kind):
    commands = commands_of(keys=150)
    source = commands.source(kind)
    drawn = {argv[1] for argv in parsed(source() for _ in range(5000))}
    removed = [key for argv in parsed(commands.remove({kind})) for key in argv[1:]]
    assert drawn == set(removed)
    assert len(removed) == 150


def test_get_asks_for_the_keys_that_were_filled():
    commands = commands_of(keys=20)
    filled = {argv[1] for argv in parsed(commands.fill())}
    source = commands.source("get")
    assert {argv[1] for argv in parsed(source() for _ in range(1000))} == filled


def test_keys_of_numbers_strings_and_appends_are_different_ones():
    commands = commands_of(keys=2)
    keys = [
        {argv[1] for argv in parsed(commands.source(kind)() for _ in range(9))}
        for kind in ("set", "append", "incr")
    ]
    assert not keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2]
    assert (
        len({key for argv in parsed(commands.remove({"set", "get", "append", "incr"})) for key in argv[1:]})
        == 6
    )


def test_a_value_of_no_bytes_is_a_value():
    assert parsed([commands_of(value_bytes=0).source("set")()])[0][2] == b""


# ------------------------------------------------------------------ replies

REPLIES = [b"+OK\r\n", b":12\r\n", b"$-1\r\n", b"_\r\n", b"$0\r\n\r\n", b"$5\r\na\r\nb-\r\n", b"-ERR no\r\n"]
REPLIES += [b"-CLUSTERDOWN no leader\r\n", b"$300\r\n" + b"-" * 300 + b"\r\n"]


def counted(pieces):
    counter, total, refusals = ReplyCounter(), 0, []
    for piece in pieces:
        replies = counter.feed(piece)
        refusals += [(total + at, text) for at, text in counter.refusals]
        total += replies
    return total, refusals


@given(st.lists(st.sampled_from(REPLIES), max_size=30), st.data())
def test_replies_are_counted_the_same_however_the_stream_is_cut(replies, data):
    stream = b"".join(replies)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    errors = [(at, reply[1:-2].decode()) for at, reply in enumerate(replies) if reply[:1] == b"-"]
    assert counted(pieces) == (len(replies), errors)


@pytest.mark.parametrize(
    "nonsense", [b"HTTP/1.1 400\r\n", b"*1\r\n:1\r\n", b"$-2\r\n", b"$x\r\n", b"$\r\n", b"$99999999999\r\n"]
)
def test_what_no_data_command_answers_is_an_error(nonsense):
    with pytest.raises(ProtocolError):
        ReplyCounter().feed(nonsense)


def test_a_line_without_an_end_is_not_kept_for_ever():
    counter = ReplyCounter()
    assert counter.feed(b"-" * LINE_BYTES_MAX) == 0
    with pytest.raises(ProtocolError):
        counter.feed(b"-")


# ------------------------------------------------------------------ the schedule


@given(st.floats(0.1, 1e6), st.integers(0, 10**12), st.integers(0, 200))
def test_operations_are_due_at_the_rate_whenever_they_are_taken(rate, begin, count):
    schedule = Schedule(rate, begin)
    taken = [schedule.take() for _ in range(count)]
    # Rounding may cost a nanosecond, but it must not add up.
    assert all(abs(due - begin - n * 1e9 / rate) <= 2 for n, due in enumerate([*taken, schedule.next_ns()]))


@given(st.sampled_from([1, 10, 250, 1000, 50_000]), st.integers(-(10**9), 10**9), st.integers(0, 1000))
def test_what_is_overdue_is_what_taking_all_that_is_due_would_take(rate, now, taken_before):
    schedule = Schedule(rate, 0)
    schedule.taken = taken_before
    overdue = schedule.overdue(now)
    taken = 0
    while schedule.next_ns() <= now:
        schedule.take()
        taken += 1
    assert overdue == taken


# ------------------------------------------------------------------ tallies


def test_errors_are_counted_by_their_first_word_and_the_first_is_kept():
    tally = Tally("set")
    tally.fail("CLUSTERDOWN no leader", 2)
    tally.fail("CLUSTERDOWN not part of the cluster")
    tally.fail("")
    assert tally.errors == {"CLUSTERDOWN": 3, "?": 1}
    assert tally.first_errors["CLUSTERDOWN"] == "CLUSTERDOWN no leader"


def test_a_server_that_makes_up_words_does_not_fill_the_memory():
    tally = Tally("set")
    for number in range(1000):
        tally.fail(f"WORD{number} said")
    assert len(tally.errors) == ERROR_WORDS_MAX + 1
    assert sum(tally.errors.values()) == 1000


def test_a_turn_gives_what_came_since_the_last_and_the_total_keeps_all():
    tally = Tally("get")
    tally.latest.record(5, 3)
    assert tally.turn().count == 3
    tally.latest.record(7)
    assert tally.turn().count == 1
    assert (tally.turn().count, tally.total.count, tally.total.max_ns) == (0, 4, 7)
