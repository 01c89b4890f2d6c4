"""What strangers can make a node say: little, and nothing that a terminal obeys."""

from __future__ import annotations

import pytest

from balsadb.server.voice import LINE_CHARACTERS_MAX, LINES_MAX, PERIOD_SECONDS, Voice


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines():
    return []


@pytest.fixture
def voice(lines, clock):
    return Voice(lines.append, clock)


def test_a_flood_is_cut_off_and_later_counted(voice, lines, clock):
    for number in range(100_000):
        voice.say(f"line {number}")
    assert lines == [f"balsadb: line {number}" for number in range(LINES_MAX)]
    clock.now += PERIOD_SECONDS
    voice.say("later")
    left_out = 100_000 - LINES_MAX
    assert lines[LINES_MAX:] == [
        f"balsadb: {left_out} more lines like these were left out",
        "balsadb: later",
    ]


def test_a_line_now_and_then_is_never_left_out(voice, lines, clock):
    for number in range(5 * LINES_MAX):
        voice.say(f"line {number}")
        clock.now += PERIOD_SECONDS / LINES_MAX
    assert lines == [f"balsadb: line {number}" for number in range(5 * LINES_MAX)]


def test_control_characters_and_line_ends_become_dots(voice, lines):
    voice.say("node \x1b[2Jn\r\nbalsadb: all is well\u202e\0")
    assert lines == ["balsadb: node .[2Jn..balsadb: all is well.."]


def test_a_long_sentence_is_cut(voice, lines):
    voice.say("x" * 10_000)
    assert len(lines[0]) == len("balsadb: ") + LINE_CHARACTERS_MAX


def test_the_usual_place_is_standard_error(capsys):
    Voice().say("hello")
    assert capsys.readouterr().err == "balsadb: hello\n"
