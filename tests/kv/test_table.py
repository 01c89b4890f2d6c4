"""The command table: what the front, COMMAND and the documentation are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from balsadb.kv.describe import describe
from balsadb.kv.table import COMMANDS, Kind, lookup, unknown_command, wrong_arity

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "commands.md"


@pytest.mark.parametrize("name", [b"get", b"GET", b"Get", b"gEt"])
def test_a_command_is_found_in_any_letter_case(name):
    assert lookup(name) is COMMANDS[b"GET"]


@pytest.mark.parametrize("name", [b"", b"GE", b"GETT", b"get ", b"\xff", b"x" * 1_000_000])
def test_anything_else_is_no_command(name):
    assert lookup(name) is None


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name.decode())
def test_an_entry_is_complete(command):
    assert COMMANDS[command.name] is command
    assert command.name == command.name.upper()
    assert command.summary
    assert command.group
    assert command.since
    assert ({b"fast", b"slow"} & set(command.categories)) != set()
    assert (command.handler is not None) == (command.kind in (Kind.READ, Kind.WRITE))
    assert bool(command.first_key) == bool(command.step) == bool(command.key_access)
    if command.kind is Kind.READ:
        assert b"readonly" in command.flags
    names = [subcommand.name for subcommand in command.subcommands]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("name", "fitting", "unfitting"),
    [(b"GET", (2,), (0, 1, 3)), (b"SET", (3, 4, 65_536), (1, 2)), (b"PING", (1, 2), (0,))],
)
def test_arity_counts_the_name(name, fitting, unfitting):
    command = COMMANDS[name]
    assert all(command.check_arity(count) for count in fitting)
    assert not any(command.check_arity(count) for count in unfitting)


def test_the_commands_of_the_contract_are_there():
    names = {name.decode() for name in COMMANDS}
    data = "SET GET APPEND DEL EXISTS STRLEN MGET MSET INCR INCRBY DECR DECRBY DBSIZE"
    own = "PING ECHO HELLO QUIT RESET SELECT CLIENT COMMAND CONFIG INFO TIME ROLE RAFT CLUSTER"
    assert {*data.split(), *own.split(), "READONLY", "READWRITE", "AUTH", "MULTI", "EXEC", "DISCARD"} <= names


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name.decode())
def test_a_description_has_the_ten_parts_of_redis_7(command):
    description = describe(command)
    assert isinstance(description, list)
    assert len(description) == 10
    assert all(isinstance(part, list) and len(part) == 10 for part in description[9])


def test_refusals_repeat_a_clients_words_shortened_and_on_one_line():
    assert unknown_command([b"foo", b"a", b"b"]).text == (
        b"ERR unknown command 'foo', with args beginning with: 'a' 'b' "
    )
    assert unknown_command([b"f\r\n+OK", b"\n"]).text == (
        b"ERR unknown command 'f  +OK', with args beginning with: ' ' "
    )
    assert len(unknown_command([b"x" * 10**6] + [b"y" * 10**6] * 100).text) < 400
    assert len(unknown_command([b"x"] + [b""] * 65_536).text) < 400
    assert unknown_command([]).text.startswith(b"ERR unknown command ''")
    assert wrong_arity(b"GET").text == b"ERR wrong number of arguments for 'get' command"


@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS.values() if b"." not in command.name],
    ids=lambda command: command.name.decode(),
)
def test_the_documentation_lists_every_command_with_its_help(command):
    text = DOCUMENTATION.read_text()
    usage = " ".join(part.decode() for part in (command.name, command.syntax) if part)
    row = f"| `{usage.replace('|', chr(92) + '|')}` | {command.summary.decode()} |"
    assert row in text, f"docs/commands.md lacks the row {row}"
    for subcommand in command.subcommands:
        row = f"| `{command.name.decode()} {subcommand.name.decode()}` | {subcommand.summary.decode()} |"
        assert row in text, f"docs/commands.md lacks the row {row}"


def test_the_documentation_lists_nothing_else():
    lines = DOCUMENTATION.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `") and line[3:4].isupper()]
    listed = [command for command in COMMANDS.values() if b"." not in command.name]
    assert len(rows) == len(listed) + sum(len(command.subcommands) for command in listed)
