"""Commands with subcommands: one table per family, one way to look up, check and describe.

A family (CLIENT, CONFIG, CLUSTER, COMMAND, RAFT) is a `Family`: its name and its subcommands. The same
table answers a call, refuses in Redis' words, prints HELP and feeds the subcommand part of COMMAND.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import msgspec

from balsadb.kv.refusals import wrong_arity
from balsadb.kv.reply import Refusal, Reply, Status
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.view import NodeView
from balsadb.server.commands.words import shown, word

Handler: TypeAlias = Callable[[ClientState, NodeView, list[bytes]], Reply]
"""Answers one command. Never raises, whatever the arguments; may change the client's state."""


class Subcommand(msgspec.Struct, frozen=True):
    """One subcommand of a family."""

    name: bytes
    """In upper case, as HELP prints it."""
    arity: int
    """As Redis counts: with the family's and the subcommand's name; negative means "at least"."""
    handler: Handler
    usage: bytes
    """Its arguments as HELP prints them; empty when there are none."""
    summary: bytes
    """What it does, in one sentence."""


class Family:
    """A command that only groups its subcommands."""

    def __init__(self, name: bytes, subcommands: Iterable[Subcommand]) -> None:
        self.name: Final = name
        """In upper case."""
        self.subcommands: Final = {sub.name: sub for sub in [*subcommands, self._help_entry()]}
        """By name, in the order of HELP."""

    def run(self, client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
        """Answer `argv`, whose first word is this family's name."""
        if len(argv) < 2:
            return wrong_arity(self.name.lower())
        subcommand = self.subcommands.get(word(argv[1]))
        if subcommand is None:
            return Refusal(b"ERR unknown subcommand '%b'. Try %b HELP." % (shown(argv[1]), self.name))
        if not fits(subcommand.arity, len(argv)):
            return wrong_arity(self.full_name(subcommand))
        return subcommand.handler(client, view, argv)

    def full_name(self, subcommand: Subcommand) -> bytes:
        """Return the name under which Redis lists a subcommand, such as `client|id`."""
        return b"%b|%b" % (self.name.lower(), subcommand.name.lower())

    def _help_entry(self) -> Subcommand:
        return Subcommand(b"HELP", 2, self._help, b"", b"Print this help.")

    def _help(self, client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
        lines = [b"%b <subcommand> [<arg> [value] [opt] ...]. Subcommands are:" % self.name]
        for sub in self.subcommands.values():
            lines.append(b"%b %b" % (sub.name, sub.usage) if sub.usage else sub.name)
            lines.append(b"    " + sub.summary)
        return [Status(line) for line in lines]


def fits(arity: int, count: int) -> bool:
    """Tell whether `count` words, the command's name among them, suit an arity as Redis writes it."""
    return count == arity if arity >= 0 else count >= -arity
