"""The journal: one line for each event, whatever strangers put into it and however many there are."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.server.journal import BURST, FORMATS, JSON, LINE_BYTES_MAX, TEXT, Journal


class Kept:
    """A journal whose lines are kept, with clocks of its own."""

    def __init__(self, format: str = TEXT, node: int = 1) -> None:
        self.lines: list[str] = []
        self.now = 1000.0
        self.open = True
        self.journal = Journal(self._write, lambda: 1_764_101_649.1234, lambda: self.now)
        self.journal.begin(node, format)

    def _write(self, line: str) -> bool:
        if self.open:
            self.lines.append(line)
        return self.open

    def say(self, event: str, *level: str, **fields) -> str:
        self.journal.say(event, *level, **fields)
        return self.lines[-1]


def test_a_line_has_time_level_node_and_event_and_then_what_it_is_about():
    line = Kept().say("role", role="leader", term=7, votes=[1, 3], reason="elected in term 7")
    assert line == (
        "time=2025-11-25T20:14:09.123Z level=info node=1 event=role role=leader term=7 votes=1,3 "
        'reason="elected in term 7"\n'
    )


def test_json_has_the_same_fields_one_object_a_line():
    line = Kept(JSON).say("role", "warning", role="leader", term=7, votes=(1, 3), reason="elected", gone=None)
    assert line.endswith("}\n")
    assert json.loads(line) == {
        "time": "2025-11-25T20:14:09.123Z",
        "level": "warning",
        "node": 1,
        "event": "role",
        "role": "leader",
        "term": 7,
        "votes": [1, 3],
        "reason": "elected",
    }


def test_what_is_none_is_left_out_and_so_is_a_node_that_is_not_known():
    assert Kept(node=0).say("x", a=None, b=0, c="", d=True) == (
        'time=2025-11-25T20:14:09.123Z level=info event=x b=0 c="" d=true\n'
    )


@pytest.mark.parametrize("format", FORMATS)
@given(text=st.text(max_size=200))
def test_no_text_leaves_its_line_or_moves_a_cursor(format, text):
    line = Kept(format).say("x", message=text, other="end")
    assert line.index("\n") == len(line) - 1
    assert line.isascii()
    assert not any(unicodedata.category(c) == "Cc" for c in line[:-1])
    if format == JSON:
        assert json.loads(line)["other"] == "end"
    else:
        assert line.endswith(" other=end\n")


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_a_value_can_be_read_back_from_json(text):
    assert json.loads(Kept(JSON).say("x", message=text))["message"] == text


def test_a_stranger_can_not_make_up_fields():
    line = Kept().say("peer-refused", message='x" level=error node=2\nevent=stopped')
    assert line.count(" level=") == 2
    assert shlex.split(line)[-1].startswith('message=x" level=error node=2')


def test_a_file_name_that_is_no_text_is_shown_as_its_bytes():
    assert "\\\\udcff" in Kept().say("x", message=os.fsdecode(b"a\xff"))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", ["x" * 100_000, "\0" * 100_000, "\U0001f6f6" * 100_000])
def test_a_line_is_never_too_long_for_a_pipe_and_keeps_both_ends_of_a_long_text(format, value):
    line = Kept(format).say("x", message=f"begin {value} end", after="after")
    assert len(line) <= LINE_BYTES_MAX
    assert "begin " in line
    assert " end" in line
    assert "after" in line


def test_a_kind_that_comes_in_floods_is_counted_and_keeps_no_other_kind_out():
    kept = Kept()
    for _ in range(10 * BURST):
        kept.journal.say("peer-refused", message="who is that?")
    assert len(kept.lines) == BURST
    assert "event=role" in kept.say("role", role="leader")
    kept.now += 3
    before = len(kept.lines)
    for _ in range(10):
        kept.journal.say("peer-refused", message="who is that?")
    later = kept.lines[before:]
    assert len(later) == 3, "one for each second"
    assert later[0].endswith(f" left_out={9 * BURST}\n")
    assert "left_out" not in later[1]
    kept.now += 1000
    assert kept.say("peer-refused").endswith(" left_out=7\n")


def test_a_line_that_nobody_takes_is_counted_in_the_next_one():
    kept = Kept()
    kept.open = False
    kept.journal.say("a")
    kept.journal.say("b")
    kept.open = True
    assert kept.say("c").endswith("event=c lost_lines=2\n")
    assert "lost" not in kept.say("d")


WRITER = """
import sys
from balsadb.server.journal import LINE_BYTES_MAX, Journal
sys.stdin.readline()
for number in range(29):
    Journal().say("x", number=number, message="x" * 2500)
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["has stopped to read", "is gone"])
def test_a_reader_that_takes_nothing_does_not_stop_the_node(reader):
    """A collector of logs that hangs leaves a full pipe, of 64 KiB."""
    receiving, sending = os.pipe()
    try:
        command = [sys.executable, "-c", WRITER]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sending, text=True
        ) as process:
            os.close(sending)
            if reader == "is gone":
                os.close(receiving)
            out, _ = process.communicate("go\n", timeout=30)
        assert (out, process.returncode) == ("done\n", 0)
        if reader != "is gone":
            lines = os.read(receiving, 1 << 20).decode().splitlines()
            assert 0 < len(lines) < 29
            assert all(line.startswith("time=") and line.endswith("x" * 2500) for line in lines)
    finally:
        if reader != "is gone":
            os.close(receiving)
