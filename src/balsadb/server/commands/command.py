"""COMMAND: the command table, for clients that learn key positions from it and for redis-cli's hints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from balsadb.kv.refusals import SYNTAX_ERROR
from balsadb.kv.reply import Mapping, NullArray, Refusal, Reply, Status
from balsadb.kv.table import COMMANDS, Command, lookup
from balsadb.server.commands.client import CLIENT
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.cluster import CLUSTER
from balsadb.server.commands.config import CONFIG
from balsadb.server.commands.glob import matches
from balsadb.server.commands.raft import RAFT
from balsadb.server.commands.subcommands import Family, Subcommand, fits
from balsadb.server.commands.view import NodeView
from balsadb.server.commands.words import WORD_BYTES_MAX, word

NAMES_MAX: Final = 1024
"""Names in one COMMAND INFO or DOCS. Each asks for a description, far longer than the name."""

_TOO_MANY: Final = Refusal(b"ERR too many command names, at most %d" % NAMES_MAX)
_INVALID: Final = Refusal(b"ERR Invalid command specified")
_NO_KEYS: Final = Refusal(b"ERR The command has no key arguments")
_WRONG_COUNT: Final = Refusal(b"ERR Invalid number of arguments specified for command")


class CommandFamily(Family):
    """COMMAND alone, unlike other families, is a command too: it lists everything."""

    def run(self, client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
        """Answer `argv`, whose first word is COMMAND."""
        if len(argv) == 1:
            return [entry(command) for command in listed()]
        return super().run(client, view, argv)


def listed() -> Iterable[Command]:
    """Return the commands that clients may see, by name. Internal ones have a dot in their name."""
    return [command for name, command in sorted(COMMANDS.items()) if b"." not in name]


def entry(command: Command) -> Reply:
    """Return the description of one command in the ten parts of Redis 7."""
    family = _FAMILIES.get(command.name)
    return [
        command.name.lower(),
        command.arity,
        [Status(flag) for flag in command.flags],
        command.first_key,
        command.last_key,
        command.step,
        [Status(b"@" + category) for category in command.categories],
        [],
        _key_specifications(command),
        [_subcommand_entry(family, sub) for sub in family.subcommands.values()] if family else [],
    ]


def _subcommand_entry(family: Family, subcommand: Subcommand) -> Reply:
    name = family.full_name(subcommand)
    flags: list[Reply] = [Status(b"loading"), Status(b"stale")]
    return [name, subcommand.arity, flags, 0, 0, 0, [Status(b"@slow")], [], [], []]


def _key_specifications(command: Command) -> list[Reply]:
    """Say once more where the keys are, in the words of Redis 7."""
    if not command.first_key:
        return []
    access = Status(b"RW" if b"write" in command.flags else b"RO")
    # From here the last key is counted from the first one, unless it is counted from the end.
    last = command.last_key - command.first_key if command.last_key > 0 else command.last_key
    begin = Mapping([(b"type", b"index"), (b"spec", Mapping([(b"index", command.first_key)]))])
    ranged = Mapping([(b"lastkey", last), (b"keystep", command.step), (b"limit", 0)])
    find = Mapping([(b"type", b"range"), (b"spec", ranged)])
    return [Mapping([(b"flags", [access]), (b"begin_search", begin), (b"find_keys", find)])]


def _count(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    return sum(1 for _ in listed())


def _info(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    if len(argv) > NAMES_MAX + 2:
        return _TOO_MANY
    if len(argv) == 2:
        return [entry(command) for command in listed()]
    return [_info_of(name) for name in argv[2:]]


def _info_of(name: bytes) -> Reply:
    found = _find(name)
    if isinstance(found, tuple):
        return _subcommand_entry(*found)
    return entry(found) if found is not None else NullArray()


def _docs(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    if len(argv) > NAMES_MAX + 2:
        return _TOO_MANY
    if len(argv) == 2:
        return Mapping([(command.name.lower(), _doc(command)) for command in listed()])
    pairs: list[tuple[Reply, Reply]] = []
    for name in argv[2:]:
        found = _find(name)
        if isinstance(found, tuple):
            family, subcommand = found
            pairs.append((family.full_name(subcommand), _subcommand_doc(subcommand)))
        elif found is not None:
            pairs.append((found.name.lower(), _doc(found)))
    return Mapping(pairs)


def _doc(command: Command) -> Reply:
    pairs: list[tuple[Reply, Reply]] = [
        (b"summary", command.summary),
        (b"since", command.since),
        (b"group", command.group),
    ]
    family = _FAMILIES.get(command.name)
    if family is not None:
        docs: list[tuple[Reply, Reply]] = [
            (family.full_name(sub), _subcommand_doc(sub)) for sub in family.subcommands.values()
        ]
        pairs.append((b"subcommands", Mapping(docs)))
    return Mapping(pairs)


def _subcommand_doc(subcommand: Subcommand) -> Reply:
    return Mapping([(b"summary", subcommand.summary), (b"since", b"1.0.0"), (b"group", b"server")])


def _find(name: bytes) -> Command | tuple[Family, Subcommand] | None:
    """Return what a name such as `get` or `client|id` stands for."""
    if len(name) > WORD_BYTES_MAX:
        return None
    outer, bar, inner = name.upper().partition(b"|")
    if not bar:
        command = lookup(outer)
        return command if command is not None and b"." not in outer else None
    family = _FAMILIES.get(outer)
    subcommand = family.subcommands.get(inner) if family else None
    return (family, subcommand) if family and subcommand else None


def _list(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    names = [command.name.lower() for command in listed()]
    if len(argv) == 2:
        return list(names)
    if len(argv) != 5 or word(argv[2]) != b"FILTERBY":
        return SYNTAX_ERROR
    kind, value = word(argv[3]), argv[4]
    if kind == b"MODULE":
        return []
    if kind == b"ACLCAT":
        category = word(value).lower()
        return [command.name.lower() for command in listed() if category in command.categories]
    if kind == b"PATTERN":
        pattern = word(value).lower()
        return [name for name in names if matches(pattern, name)]
    return SYNTAX_ERROR


def _get_keys(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    found = _keys(argv[2:])
    return found[1] if isinstance(found, tuple) else found


def _get_keys_and_flags(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    found = _keys(argv[2:])
    if not isinstance(found, tuple):
        return found
    command, keys = found
    flags: list[Reply] = [Status(b"RW" if b"write" in command.flags else b"RO")]
    return [[key, flags] for key in keys]


def _keys(argv: Sequence[bytes]) -> tuple[Command, list[Reply]] | Refusal:
    """Return the keys among the words of a whole command."""
    command = _find(argv[0])
    if command is None or isinstance(command, tuple):
        return _INVALID
    if not command.first_key:
        return _NO_KEYS
    if not fits(command.arity, len(argv)):
        return _WRONG_COUNT
    last = command.last_key if command.last_key >= 0 else len(argv) + command.last_key
    return command, list(argv[command.first_key : last + 1 : command.step])


COMMAND: Final = CommandFamily(
    b"COMMAND",
    [
        Subcommand(b"COUNT", 2, _count, b"", b"Return the number of commands."),
        Subcommand(b"DOCS", -2, _docs, b"[<command-name> ...]", b"Return documentation of commands."),
        Subcommand(b"GETKEYS", -3, _get_keys, b"<full-command>", b"Return the keys of a whole command."),
        Subcommand(
            b"GETKEYSANDFLAGS",
            -3,
            _get_keys_and_flags,
            b"<full-command>",
            b"Return the keys of a whole command and how it uses them.",
        ),
        Subcommand(b"INFO", -2, _info, b"[<command-name> ...]", b"Return details about commands."),
        Subcommand(
            b"LIST",
            -2,
            _list,
            b"[FILTERBY (MODULE <module>|ACLCAT <category>|PATTERN <pattern>)]",
            b"Return the names of commands.",
        ),
    ],
)

_FAMILIES: Final = {family.name: family for family in (CLIENT, CLUSTER, COMMAND, CONFIG, RAFT)}
