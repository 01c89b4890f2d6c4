"""Runs the protocol scenarios in `tests/raft/scripts` and compares what happens with what is written there.

A script is a text in blocks. A block is one or more commands (`script_commands.py` has the vocabulary), a
line `----`, and the trace that is expected of them, up to an empty line:

    # Why this scenario matters.

    nodes 3
    ----
    1 follower t0, no leader, no vote | log - | durable 0, commit 0, applied 0
    ...

    propose 1 x
    ----
      1 appends 2@1 x
      ...

A line without indentation is a message that arrives; what follows it, indented, is what it brings about. `+`
marks a message that is sent. Lines that begin with `#` are comments.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import unified_diff
from pathlib import Path

from script_commands import CommandError, Script

SCRIPTS = Path(__file__).parent / "scripts"
SEPARATOR = "----"
NOTHING = "(nothing)"
"""Stands for an empty trace."""


class ScriptError(Exception):
    """A script that can't be carried out; names the file and the line."""


def play(text: str, name: str) -> str:
    """Carry out a script and return it with the traces that it really has."""
    script = Script()
    lines = text.splitlines()
    played: list[str] = []
    block: list[str] = []
    """The traces of the commands since the last separator."""
    place = 0
    asked = False
    while place < len(lines):
        line = lines[place]
        if line == SEPARATOR:
            if not asked:
                raise ScriptError(f"{name}:{place + 1}: a trace without a command")
            played += [SEPARATOR, *(block or [NOTHING])]
            block, asked = [], False
            while place + 1 < len(lines) and lines[place + 1]:
                place += 1
        elif line and not line.startswith("#"):
            played.append(line)
            block += _carry_out(script, line, f"{name}:{place + 1}")
            asked = True
        elif asked:
            raise ScriptError(f"{name}:{place + 1}: the command before has no {SEPARATOR} and no trace")
        else:
            played.append(line)
        place += 1
    if asked:
        raise ScriptError(f"{name}:{len(lines)}: the last command has no {SEPARATOR} and no trace")
    return "\n".join(played) + "\n"


def _carry_out(script: Script, line: str, where: str) -> list[str]:
    try:
        return script.run(line)
    except CommandError as error:
        raise ScriptError(f"{where}: {line}: {error}") from error
    except Exception as error:
        # A violated invariant, or a promise broken before the eyes of the oracle.
        raise ScriptError(f"{where}: {line}: {type(error).__name__}: {error}") from error


def difference(path: Path, rewrite: bool = False) -> str:
    """Return how the trace of a script differs from what is written in it; empty when it does not.

    With `rewrite` the file is brought to what happened. A script that can't be carried out stays as it is.
    """
    expected = path.read_text(encoding="utf-8")
    played = play(expected, path.name)
    if played == expected:
        return ""
    if rewrite:
        path.write_text(played, encoding="utf-8")
        return ""
    return _explain(path.name, expected.splitlines(), played.splitlines())


def _explain(name: str, expected: Sequence[str], played: Sequence[str]) -> str:
    lines = unified_diff(expected, played, f"{name} as written", f"{name} as it happens", n=4, lineterm="")
    return "\n".join(
        [
            *lines,
            "",
            "Either the protocol or the script is wrong: find out which before changing anything.",
            "When the script is: pytest tests/raft/test_scripts.py --rewrite-scripts, then read the diff.",
        ]
    )
