"""Plants a fault into the running code: one function, with one piece of its text replaced.

A mutant names a function and a piece of its source. When that piece is not there exactly once any more,
planting fails: the mutant must be written anew for the changed code, and is never silently harmless.
"""

from __future__ import annotations
import __future__

import contextlib
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import NamedTuple


class Edit(NamedTuple):
    """A change of one function."""

    where: str
    """module:function or module:Class.method, without the leading "balsadb."."""
    old: str
    new: str


class Gone(AssertionError):
    """The code that a mutant changes is not what it was."""


@contextlib.contextmanager
def planted(edits: tuple[Edit, ...]) -> Iterator[None]:
    """Run with faults in the code; everything is as before afterwards."""
    places: dict[str, list[Edit]] = {}
    for edit in edits:
        places.setdefault(edit.where, []).append(edit)
    with contextlib.ExitStack() as undo:
        for where, changes in places.items():
            _plant(where, changes, undo)
        yield


def _plant(where: str, changes: list[Edit], undo: contextlib.ExitStack) -> None:
    module_name, _, path = where.partition(":")
    module = importlib.import_module(f"balsadb.{module_name}")
    *owners, name = path.split(".")
    owner = module
    for part in owners:
        owner = getattr(owner, part)
    raw = inspect.getattr_static(owner, name)
    kind = type(raw) if isinstance(raw, (classmethod, staticmethod)) else None
    original = raw.__func__ if kind else raw
    source = textwrap.dedent(inspect.getsource(original))
    if kind:
        source = source.split("\n", 1)[1]
    for change in changes:
        if source.count(change.old) != 1:
            raise Gone(f"{where} has {source.count(change.old)} times: {change.old}")
        source = source.replace(change.old, change.new)
    flags = __future__.annotations.compiler_flag
    made: dict[str, object] = {}
    exec(compile(source, f"<mutant of {where}>", "exec", flags, dont_inherit=True), module.__dict__, made)
    mutant = made[name]
    if owners:
        setattr(owner, name, kind(mutant) if kind else mutant)
        undo.callback(setattr, owner, name, raw)
        return
    # A function may have been imported by name anywhere, or stand in a table of handlers.
    for other in list(sys.modules.values()):
        for attribute, value in list(getattr(other, "__dict__", {}).items()):
            if value is original:
                setattr(other, attribute, mutant)
                undo.callback(setattr, other, attribute, original)
            elif isinstance(value, dict):
                for key in [k for k, v in value.items() if v is original]:
                    value[key] = mutant
                    undo.callback(value.__setitem__, key, original)
