"""Helpers for the entries of commands that no state machine runs: they only describe."""

from __future__ import annotations

from balsadb.kv.command import Command, Kind, Subcommand


def local(
    name: bytes,
    arity: int,
    flags: bytes,
    summary: bytes,
    *,
    group: bytes,
    since: bytes,
    categories: bytes,
    kind: Kind = Kind.LOCAL,
    subcommands: tuple[Subcommand, ...] = (),
    syntax: bytes = b"",
    tips: bytes = b"",
) -> Command:
    """Describe a command without keys or handler; flags and categories are words."""
    return Command(
        name=name,
        arity=arity,
        flags=tuple(flags.split()),
        first_key=0,
        last_key=0,
        step=0,
        kind=kind,
        handler=None,
        summary=summary,
        group=group,
        since=since,
        categories=tuple(categories.split()),
        subcommands=subcommands,
        tips=tuple(tips.split()),
        syntax=b"subcommand [argument ...]" if subcommands else syntax,
    )


def sub(name: bytes, arity: int, flags: bytes, summary: bytes, categories: bytes = b"slow") -> Subcommand:
    """Describe a subcommand; flags and categories are words."""
    return Subcommand(name, arity, summary, tuple(flags.split()), tuple(categories.split()))
