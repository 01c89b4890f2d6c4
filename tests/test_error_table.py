"""docs/errors.md has every error that a node can send, and tells what the Clerk really does with it."""

import re
import sys
from pathlib import Path

import pytest

from error_texts import HOLE, find, texts_of

sys.path.append(str(Path(__file__).parent / "client"))
from test_session import SessionPlay

from balsadb.client.verdicts import Verdict, judge

PAGE = (Path(__file__).parent.parent / "docs" / "errors.md").read_text()


def tables(heading):
    """Return the rows of the first table under a heading, as lists of cells without their header."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = []
    for line in section.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            lines.append([cell.strip().replace("\\|", "|") for cell in cells])
        elif lines:
            break
    return lines[2:]


ERRORS = {row[0].strip("`"): row[1] for row in tables("All errors")}
CLASSES = {row[0]: row[2:] for row in tables("Classes")}
SENT = find()


def is_local(text):
    """True for errors of commands about a node or the cluster, which no session holds."""
    return all(name.startswith(("server/commands/", "replica/changes")) for name in SENT[text])


def row(text):
    """Return the beginning of a row for the table."""
    verdict = judge(text.encode())
    if is_local(text) and verdict is Verdict.ANSWERED:
        verdict = Verdict.REFUSED
    return f"| `{text.replace('|', chr(92) + '|')}` | {verdict.value} | |"


def test_every_error_that_the_source_can_send_is_in_the_table():
    missing = [row(text) for text in SENT if text not in ERRORS]
    assert missing == [], "add to docs/errors.md:\n" + "\n".join(missing)


def test_the_table_has_no_error_that_nobody_sends():
    assert [text for text in ERRORS if text not in SENT] == []


def test_the_table_has_every_class_and_each_error_one_of_them():
    assert set(CLASSES) == {verdict.value for verdict in Verdict}
    assert set(ERRORS.values()) <= set(CLASSES)


def filled(text):
    return text.replace(HOLE, "7").encode()


@pytest.mark.parametrize("text", ERRORS)
def test_the_clerk_takes_each_error_as_the_table_says(text):
    verdict = judge(filled(text))
    if is_local(text):
        if verdict is Verdict.ANSWERED:
            verdict = Verdict.REFUSED  # to the Clerk that is the same where nothing is sent again
        assert verdict.value == ERRORS[text]
    else:
        assert verdict.value == ERRORS[text]


@pytest.mark.parametrize("text", ERRORS)
def test_only_the_state_machine_settles_what_an_earlier_attempt_left_open(text):
    if judge(filled(text)) is Verdict.ANSWERED and not is_local(text):
        assert all(name.startswith("kv/") for name in SENT[text])


@pytest.mark.parametrize("after_an_open_one", [False, True])
@pytest.mark.parametrize("text", ERRORS)
def test_what_the_clerk_does_is_what_the_class_says(text, after_an_open_one):
    if is_local(text):
        return
    said = CLASSES[ERRORS[text]][after_an_open_one]
    play = SessionPlay()
    call = play.opened()
    play.sends()
    if after_an_open_one:
        play.lost()
        play.sends()
    play.reply(b"-%b\r\n" % filled(text))
    if said == "tries again":
        assert not call.done
        play.wait(1.0)  # both servers have failed, so it pauses
        assert play.sends()
    else:
        assert type(call.error).__name__ == said.strip("`")


def test_the_walk_finds_errors_in_all_their_forms():
    source = """
A = Refusal(b"ERR a")
def f(x): return Refusal(text=b"ERR b %b of %d" % x)
B = b"ERR c " + x
C = Refusal(B)
def g():
    text = b"ERR f"
    return Refusal(text)
def h():
    text = b"ERR g"
    return Refusal(text.translate(table) + str(h).encode())
def i(): return Refusal(f"ERR {h} h".encode())
transport.write(b"-ERR d\\r\\n")
self.error = b"e: " + problem
"""
    found = ["a", "b … of …", "c …", "d", "e: …", "f", "g…", "… h"]
    assert sorted(texts_of(source)) == [f"ERR {text}" for text in found]
