"""COMMAND: the command table, for clients that learn key positions from it and for redis-cli's hints."""

from __future__ import annotations

from typing import Final

from balsadb.kv.describe import describe, describe_subcommand
from balsadb.kv.refusals import SYNTAX_ERROR
from balsadb.kv.reply import Mapping, NullArray, Refusal, Reply, Status
from balsadb.kv.table import COMMANDS, Command, Subcommand, lookup
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.glob import matches
from balsadb.server.commands.subcommands import Family, full_name
from balsadb.server.commands.view import NodeView
from balsadb.server.commands.words import WORD_BYTES_MAX, word

NAMES_MAX: Final = 1024
"""Names in one COMMAND INFO or DOCS. Each asks for a description, far longer than the name."""

_LISTED: Final = [command for name, command in sorted(COMMANDS.items()) if b"." not in name]
"""What clients may see, by name. Internal commands have a dot in their name."""

_TOO_MANY: Final = Refusal(b"ERR too many command names, at most %d" % NAMES_MAX)
_INVALID: Final = Refusal(b"ERR Invalid command specified")
_NO_KEYS: Final = Refusal(b"ERR The command has no key arguments")
_WRONG_COUNT: Final = Refusal(b"ERR Invalid number of arguments specified for command")


class CommandFamily(Family):
    """COMMAND alone, unlike other families, is a command too: it lists everything."""

    def run(self, client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
        """Answer `argv`, whose first word is COMMAND."""
        if len(argv) == 1:
            return [describe(command) for command in _LISTED]
        return super().run(client, view, argv)


def _find(name: bytes) -> tuple[Command, Subcommand | None] | None:
    """Return what a name such as `get` or `client|id` stands for."""
    if len(name) > WORD_BYTES_MAX:
        return None
    outer, bar, inner = name.upper().partition(b"|")
    command = lookup(outer)
    if command is None or b"." in outer:
        return None
    if not bar:
        return command, None
    found = next((subcommand for subcommand in command.subcommands if subcommand.name == inner), None)
    return (command, found) if found else None


def _count(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    return len(_LISTED)


def _info(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    if len(argv) > NAMES_MAX + 2:
        return _TOO_MANY
    if len(argv) == 2:
        return [describe(command) for command in _LISTED]
    return [_info_of(name) for name in argv[2:]]


def _info_of(name: bytes) -> Reply:
    match _find(name):
        case None:
            return NullArray()
        case command, None:
            return describe(command)
        case command, subcommand:
            return describe_subcommand(command, subcommand)


def _docs(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    if len(argv) > NAMES_MAX + 2:
        return _TOO_MANY
    if len(argv) == 2:
        return Mapping([(command.name.lower(), _doc(command)) for command in _LISTED])
    pairs: list[tuple[Reply, Reply]] = []
    for name in argv[2:]:
        match _find(name):
            case None:
                continue  # as Redis: what it does not know it leaves out
            case command, None:
                pairs.append((command.name.lower(), _doc(command)))
            case command, subcommand:
                pairs.append((full_name(command.name, subcommand), _subcommand_doc(command, subcommand)))
    return Mapping(pairs)


def _doc(command: Command) -> Reply:
    pairs: list[tuple[Reply, Reply]] = [
        (b"summary", command.summary),
        (b"since", command.since),
        (b"group", command.group),
    ]
    if command.subcommands:
        docs: list[tuple[Reply, Reply]] = [
            (full_name(command.name, subcommand), _subcommand_doc(command, subcommand))
            for subcommand in command.subcommands
        ]
        pairs.append((b"subcommands", Mapping(docs)))
    return Mapping(pairs)


def _subcommand_doc(command: Command, subcommand: Subcommand) -> Reply:
    return Mapping(
        [(b"summary", subcommand.summary), (b"since", command.since), (b"group", command.group)],
    )


def _list(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    if len(argv) == 2:
        return [command.name.lower() for command in _LISTED]
    if len(argv) != 5 or word(argv[2]) != b"FILTERBY":
        return SYNTAX_ERROR
    kind, value = word(argv[3]), word(argv[4]).lower()
    if kind == b"MODULE":
        return []
    if kind == b"ACLCAT":
        return [command.name.lower() for command in _LISTED if value in command.categories]
    if kind == b"PATTERN":
        return [command.name.lower() for command in _LISTED if matches(value, command.name.lower())]
    return SYNTAX_ERROR


def _get_keys(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    found = _keys(argv[2:])
    if isinstance(found, Refusal):
        return found
    return list(found[1])


def _get_keys_and_flags(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    found = _keys(argv[2:])
    if isinstance(found, Refusal):
        return found
    command, keys = found
    return [[key, [Status(access) for access in command.key_access]] for key in keys]


def _keys(argv: list[bytes]) -> tuple[Command, list[bytes]] | Refusal:
    """Return the keys among the words of a whole command."""
    found = _find(argv[0])
    if found is None or found[1] is not None:
        return _INVALID
    command = found[0]
    if not command.first_key:
        return _NO_KEYS
    if not command.check_arity(len(argv)):
        return _WRONG_COUNT
    last = command.last_key if command.last_key >= 0 else len(argv) + command.last_key
    return command, argv[command.first_key : last + 1 : command.step]


COMMAND: Final = CommandFamily(
    b"COMMAND",
    {
        b"COUNT": _count,
        b"DOCS": _docs,
        b"GETKEYS": _get_keys,
        b"GETKEYSANDFLAGS": _get_keys_and_flags,
        b"INFO": _info,
        b"LIST": _list,
    },
)
