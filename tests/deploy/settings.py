"""Command lines and settings in our deployment files, judged by the parser of `balsadb` itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import typer

from balsadb.cli.main import app
from balsadb.server.config import SETTINGS, ServeConfig, make_config

SERVE = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]


def parse_serve(words: Sequence[str], environment: dict[str, str]) -> ServeConfig:
    """Do with a command line what `balsadb serve` does, but for the serving."""
    assert words[0] == "serve"
    context = SERVE.make_context("serve", _with_values_joined(words[1:]))
    given = {name: value for name, value in context.params.items() if value not in (None, [], ())}
    for name, value in environment.items():
        setting = name.removeprefix("BALSADB_").lower()
        if name.startswith("BALSADB_"):
            assert setting.replace("_", "-") in SETTINGS, f"balsadb serve has no {name}"
            given.setdefault(setting, value)
    return make_config(given)


def _with_values_joined(words: Sequence[str]) -> list[str]:
    joined: list[str] = []
    for word in words:
        if word.startswith("--"):
            joined.append(word)
        else:
            assert joined, f"{word} belongs to no flag"
            assert "=" not in joined[-1], f"{word} belongs to no flag"
            joined[-1] += f"={word}"
    return joined


def serve_lines(script: str, variables: dict[str, str]) -> list[list[str]]:
    """Return the words of every `balsadb serve` in a shell script, with variables filled in."""
    lines = script.replace("\\\n", " ").splitlines()
    values = dict(variables)
    found = []
    for line in lines:
        if assigned := re.fullmatch(r"\s*(\w+)=(\S+)\s*", line):
            values[assigned[1]] = _filled(assigned[2], values).strip('"')
        if "balsadb serve" in line:
            words = shlex.split(_filled(line, values))
            found.append(words[words.index("serve") :])
    return found


def _filled(text: str, values: dict[str, str]) -> str:
    filled = re.sub(r"\$(\w+)", lambda match: values[match[1]], text)
    assert "$" not in filled
    return filled
