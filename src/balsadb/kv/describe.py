"""A command of the table as COMMAND INFO describes it: the ten parts of Redis 7."""

from __future__ import annotations

from balsadb.kv.command import Command, Subcommand
from balsadb.kv.reply import Mapping, Reply, Status


def describe(command: Command) -> Reply:
    """Return the description of a command.

    Cluster clients find the keys in it: without an entry of ten parts some fail every command.
    """
    return [
        command.name.lower(),
        command.arity,
        [Status(flag) for flag in command.flags],
        command.first_key,
        command.last_key,
        command.step,
        [Status(b"@" + category) for category in command.categories],
        list(command.tips),
        _key_specifications(command),
        [describe_subcommand(command, subcommand) for subcommand in command.subcommands],
    ]


def describe_subcommand(container: Command, subcommand: Subcommand) -> Reply:
    """Return the description of a subcommand. None of ours names keys at fixed places."""
    return [
        b"%b|%b" % (container.name.lower(), subcommand.name.lower()),
        subcommand.arity,
        [Status(flag) for flag in subcommand.flags],
        0,
        0,
        0,
        [Status(b"@" + category) for category in subcommand.categories],
        [],
        [],
        [],
    ]


def _key_specifications(command: Command) -> list[Reply]:
    if not command.first_key:
        return []
    if command.last_key_access:
        return [
            _key_specification(command, command.first_key, 0, command.key_access),
            _key_specification(command, command.last_key, 0, command.last_key_access),
        ]
    # From here the last key is counted from the first one, unless it is counted from the end.
    last = command.last_key - command.first_key if command.last_key > 0 else command.last_key
    return [_key_specification(command, command.first_key, last, command.key_access)]


def _key_specification(command: Command, first: int, last: int, access: tuple[bytes, ...]) -> Reply:
    parts: list[tuple[Reply, Reply]] = [(b"notes", command.key_notes)] if command.key_notes else []
    parts.append((b"flags", [Status(word) for word in access]))
    begin = Mapping([(b"index", first)])
    parts.append((b"begin_search", Mapping([(b"type", b"index"), (b"spec", begin)])))
    ranged = Mapping([(b"lastkey", last), (b"keystep", command.step), (b"limit", 0)])
    parts.append((b"find_keys", Mapping([(b"type", b"range"), (b"spec", ranged)])))
    return Mapping(parts)
