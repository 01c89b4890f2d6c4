"""Reads docs/operations.md: which commands it has, where each is typed, and what it shows as their output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/operations.md"
PROMPT = re.compile(r"(?P<machine>db\d)?\$ (?P<command>.*)")
HIDDEN = re.compile(r"<!-- test: (.*) -->")
SETTINGS = re.compile(r"# /etc/balsadb/balsadb\.toml on (db\d)")


@dataclass
class Step:
    """One command, at a machine or, without one, anywhere."""

    line: int
    machine: str
    command: str
    statuses: tuple[int, ...] = (0,)
    shown: list[str] = field(default_factory=list)
    """Lines of output that follow it on the page."""


@dataclass
class Block:
    """What stands between two fences."""

    line: int
    language: str
    lines: list[str] = field(default_factory=list)


def read(text: str) -> Iterator[Block | tuple[int, str]]:
    """Yield blocks, and what the page tells this test in comments, in order."""
    block: Block | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if block is not None:
                yield block
            block = Block(number, line[3:]) if block is None else None
        elif block is not None:
            block.lines.append(line)
        elif told := HIDDEN.fullmatch(line):
            yield number, told[1]
    assert block is None, "a fence is not closed"


def steps(text: str) -> list[Step]:
    """Return all commands, those in comments too, in order."""
    found: list[Step] = []
    statuses: tuple[int, ...] = (0,)
    for part in read(text):
        if isinstance(part, tuple):
            line, words = part
            if words.startswith("status "):
                statuses = tuple(map(int, words.split()[1:]))
            else:
                typed = PROMPT.fullmatch(words)
                assert typed is not None, f"line {line}: {words}"
                found.append(Step(line, typed["machine"] or "", typed["command"]))
        elif part.language == "console":
            found += _of_block(part, statuses)
            statuses = (0,)
    return found


def _of_block(block: Block, statuses: tuple[int, ...]) -> Iterator[Step]:
    step: Step | None = None
    for number, line in enumerate(block.lines, block.line + 1):
        typed = PROMPT.fullmatch(line)
        if step is not None and step.command.endswith("\\"):
            step.command = step.command[:-1] + line.strip()
        elif typed is not None:
            if step is not None:
                yield step
            step = Step(number, typed["machine"] or "", typed["command"], statuses)
        else:
            assert step is not None, f"line {number}: output before any command"
            step.shown.append(line)
    assert step is not None
    yield step


def settings(text: str) -> dict[str, str]:
    """Return the files of settings on the page, by the machine that each is for."""
    found = {}
    for part in read(text):
        if isinstance(part, Block) and part.language == "toml":
            told = SETTINGS.match(part.lines[0])
            assert told is not None, f"line {part.line}: whose settings?"
            found[told[1]] = "\n".join(part.lines) + "\n"
    return found
