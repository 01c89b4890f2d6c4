"""Which keys a command looks at, so that they can be in memory before it runs (rule R5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from balsadb.kv.batch import EXEC, ONCE_EXEC
from balsadb.kv.command import Command, Kind
from balsadb.kv.delta import DeltaStore
from balsadb.kv.table import COMMANDS, lookup

_BLIND: Final = {b"MSET"}
"""Commands that overwrite their keys without a look at them; a SET without options is another."""


def _looks(command: Command) -> bool:
    return bool(command.first_key) and command.kind in (Kind.READ, Kind.WRITE) and command.name not in _BLIND


_LOOKING: Final = {
    name: command
    for command in COMMANDS.values()
    if _looks(command)
    for name in (command.name, command.name.lower())
}


def _keys(argv: Sequence[bytes]) -> Iterable[bytes]:
    """Return the keys whose records the command needs."""
    if not argv:
        return ()
    if argv[0] == EXEC:
        return argv[2::2]  # the keys that are watched
    if argv[0] == ONCE_EXEC:
        return argv[5::2]
    command = _LOOKING.get(argv[0])
    if command is None:
        found = lookup(argv[0])
        if found is not None and found.name == b"ONCE":
            return _keys(argv[4:])
        if found is None or not _looks(found):
            return ()
        command = found
    if command.name == b"SET" and len(argv) == 3:
        return ()
    last = command.last_key if command.last_key >= 0 else len(argv) + command.last_key
    return argv[command.first_key : last + 1 : command.step]


def cold_keys(store: DeltaStore, commands: Iterable[Sequence[bytes]]) -> Iterator[bytes]:
    """Yield the keys that commands look at and that are not in memory; one may come more than once."""
    if store.complete:
        return
    for argv in commands:
        for key in _keys(argv):
            if not store.is_resident(key):
                yield key
