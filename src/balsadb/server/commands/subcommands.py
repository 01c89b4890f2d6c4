"""Commands with subcommands: one way to look them up, check them and print their help.

What subcommands there are, and with how many words, stands in the command table (`kv.table`) with everything
else that COMMAND tells. A `Family` (CLIENT, CLUSTER, COMMAND, CONFIG, RAFT) joins it to the handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from balsadb.kv.refusals import wrong_arity
from balsadb.kv.reply import Refusal, Reply, Status
from balsadb.kv.table import COMMANDS, Subcommand
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.view import NodeView
from balsadb.server.commands.words import shown, word

Handler: TypeAlias = Callable[[ClientState, NodeView, list[bytes]], Reply]
"""Answers one command. Never raises, whatever the arguments; may change the client's state."""


class Family:
    """A command that only groups its subcommands."""

    def __init__(self, name: bytes, handlers: Mapping[bytes, Handler]) -> None:
        """`handlers` holds all subcommands of the table but HELP, by their names in upper case."""
        self.name: Final = name
        """In upper case."""
        self.handlers: Final = {**handlers, b"HELP": self._help}
        self._subcommands: Final = {
            subcommand.name: (subcommand, self.handlers[subcommand.name])
            for subcommand in COMMANDS[name].subcommands
            if subcommand.name in self.handlers  # a test sees to it that all are
        }

    def run(self, client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
        """Answer `argv`, whose first word is this family's name."""
        if len(argv) < 2:
            return wrong_arity(self.name)
        found = self._subcommands.get(word(argv[1]))
        if found is None:
            return Refusal(b"ERR unknown subcommand '%b'. Try %b HELP." % (shown(argv[1]), self.name))
        subcommand, handler = found
        if not fits(subcommand.arity, len(argv)):
            return wrong_arity(full_name(self.name, subcommand))
        return handler(client, view, argv)

    def _help(self, client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
        lines = [b"%b <subcommand> [<arg> [value] [opt] ...]. Subcommands are:" % self.name]
        for subcommand, _ in self._subcommands.values():
            lines += [subcommand.name, b"    %b." % subcommand.summary]
        return [Status(line) for line in lines]


def full_name(family: bytes, subcommand: Subcommand) -> bytes:
    """Return the name under which Redis lists a subcommand, such as `client|id`."""
    return b"%b|%b" % (family.lower(), subcommand.name.lower())


def fits(arity: int, count: int) -> bool:
    """Tell whether `count` words, the command's name among them, suit an arity as Redis writes it."""
    return count == arity if arity >= 0 else count >= -arity
