"""docs/operations.md names what is there: commands that run, findings of the doctor, events of the log."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import balsadb
from balsadb.cli import diagnosis
from operations_page import PAGE, Block, read, settings, steps

TEXT = PAGE.read_text()
SOURCE = Path(balsadb.__file__).parent


def test_every_command_stands_where_the_test_of_the_page_runs_it():
    """What looks like a command must not hide in a block that nobody runs."""
    for part in read(TEXT):
        if isinstance(part, Block) and part.language != "console":
            assert part.language in ("", "toml"), f"line {part.line}: ```{part.language}"
            for line in part.lines:
                assert not re.match(r"(\S*\$ |balsadb |systemctl )", line), f"line {part.line}: {line}"
    assert len(steps(TEXT)) > 50
    assert set(settings(TEXT)) == {"db1", "db4"}


def test_a_page_is_read_as_it_is_meant():
    page = (
        "<!-- test: db2$ do this -->\n```console\ndb1$ balsadb a \\\n    --b\nshown\n$ export A=1\n```\n"
        "<!-- test: status 1 3 -->\n```console\n$ balsadb c\n```\n```console\n$ balsadb d\n```\n"
    )
    told = [(step.machine, step.command, step.statuses, step.shown) for step in steps(page)]
    assert told == [
        ("db2", "do this", (0,), []),
        ("db1", "balsadb a --b", (0,), ["shown"]),
        ("", "export A=1", (0,), []),
        ("", "balsadb c", (1, 3), []),
        ("", "balsadb d", (0,), []),
    ]


def constant_parts(expression: ast.expr) -> list[str]:
    """Return the texts in an expression that don't depend on anything."""
    return [
        node.value
        for node in ast.walk(expression)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def findings() -> list[list[str]]:
    tree = ast.parse(Path(str(diagnosis.__file__)).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Finding"]
    return [constant_parts(call.args[1]) for call in found]


@pytest.mark.parametrize("parts", findings(), ids=lambda parts: max(parts, key=len).strip(" :;,()"))
def test_every_finding_of_the_doctor_has_a_row_that_says_what_it_means(parts):
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
    said = [row.split("|")[1] for row in rows]
    words = [part.strip(" :;,('") for part in parts]
    assert any(len(word) > 8 and word in row for word in words for row in said), parts


def events_said() -> set[str]:
    """Return the first argument of everything that is said to the journal."""
    trees = [ast.parse(path.read_text()) for path in (SOURCE / "server").rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    said = [call for call in calls if getattr(call.func, "attr", "") in ("say", "_say")]
    return {str(call.args[0].value) for call in said if isinstance(call.args[0], ast.Constant)}


def test_every_event_of_the_log_has_a_row_and_every_row_an_event():
    section = TEXT.split("## The log\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)} == events_said()


def test_nobody_writes_to_standard_error_beside_the_journal():
    for path in (SOURCE / "server").rglob("*.py"):
        if path.name != "journal.py":
            assert "stderr" not in path.read_text(), path
            assert "print(" not in path.read_text(), path
