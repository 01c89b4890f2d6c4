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
    # From here the last key is counted from the first one, unless it is counted from the end.
    last = command.last_key - command.first_key if command.last_key > 0 else command.last_key
    parts: list[tuple[Reply, Reply]] = [(b"notes", command.key_notes)] if command.key_notes else []
    parts.append((b"flags", [Status(word) for word in command.key_access]))
    begin = Mapping([(b"index", command.first_key)])
    parts.append((b"begin_search", Mapping([(b"type", b"index"), (b"spec", begin)])))
    ranged = Mapping([(b"lastkey", last), (b"keystep", command.step), (b"limit", 0)])
    parts.append((b"find_keys", Mapping([(b"type", b"range"), (b"spec", ranged)])))
    return [Mapping(parts)]
