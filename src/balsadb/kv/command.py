"""What the table knows about a command."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias

import msgspec

from balsadb.kv.keyspace import Keyspace
from balsadb.kv.reply import Reply

Handler: TypeAlias = Callable[[Keyspace, list[bytes]], Reply]
"""Runs one command whose arity fits. Never raises; makes all its changes or, on a refusal, none (rule S4)."""


class Kind(IntEnum):
    """Where a command is answered."""

    READ = 1
    """From the state machine, without a log entry."""
    WRITE = 2
    """By the state machine when the command's entry is applied."""
    LOCAL = 3
    """By the node that got it, about itself or the connection; never in the log."""
    TRANSACTION = 4
    """By the connection's queue: MULTI, EXEC, DISCARD."""


class Subcommand(msgspec.Struct, frozen=True):
    """One subcommand of a container such as CLIENT."""

    name: bytes
    """In upper case, without the container's name."""
    arity: int
    """Counts the words of container and subcommand; negative means "at least"."""
    summary: bytes
    flags: tuple[bytes, ...] = ()
    categories: tuple[bytes, ...] = (b"slow",)


class Command(msgspec.Struct, frozen=True):
    """One command: what a client may send, and what runs it."""

    name: bytes
    """In upper case. Names with a dot are internal: COMMAND does not list them."""
    arity: int
    """Number of words with the name itself; negative means "at least"."""
    flags: tuple[bytes, ...]
    """In the order in which Redis lists them."""
    first_key: int
    """Position of the first key among the words; 0 when there are no keys."""
    last_key: int
    """Position of the last key; negative counts from the end."""
    step: int
    """Distance between keys; 0 when there are no keys."""
    kind: Kind
    handler: Handler | None
    """Runs a READ or WRITE; None for the others."""
    summary: bytes
    """What it does, in one line."""
    group: bytes
    since: bytes
    """Version of Redis that had it first; of BalsaDB for our own."""
    categories: tuple[bytes, ...]
    """ACL categories without their `@`."""
    key_access: tuple[bytes, ...] = ()
    """How it uses its keys, in the words of Redis 7 key specifications; empty when there are no keys."""
    key_notes: bytes = b""
    """A remark on `key_access`; empty for none."""
    tips: tuple[bytes, ...] = ()
    subcommands: tuple[Subcommand, ...] = ()
    """Sorted by name."""
    syntax: bytes = b""
    """Its arguments as the documentation shows them."""
    last_key_access: tuple[bytes, ...] = ()
    """How it uses its last key, where that is not as it uses the others."""
    unlogged: bool = False
    """True for a READ whose answer depends on its node or on chance: never in the log (rule S4)."""

    def check_arity(self, argc: int) -> bool:
        """Tell whether `argc` words, the name among them, suit this command."""
        arity = self.arity
        return argc == arity if arity >= 0 else argc >= -arity
