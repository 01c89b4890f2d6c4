"""COMMAND: the table that clients learn key positions from."""

from __future__ import annotations

import pytest

from balsadb.kv.table import COMMANDS, Kind
from balsadb.server.commands import HANDLERS
from balsadb.server.commands.client import CLIENT
from balsadb.server.commands.cluster import CLUSTER
from balsadb.server.commands.command import COMMAND, NAMES_MAX
from balsadb.server.commands.config import CONFIG
from balsadb.server.commands.raft import RAFT


def test_the_whole_table_has_ten_parts_a_command(ask):
    entries = ask("COMMAND")
    assert all(len(entry) == 10 for entry in entries)
    assert ask("COMMAND", "COUNT") == len(entries)
    names = [entry[0] for entry in entries]
    assert names == sorted(names)
    assert ask("COMMAND", "LIST") == names


def test_the_table_and_the_handlers_agree(ask):
    listeners = {b"QUIT", b"RESET", b"RANDOMKEY"}
    local = {command.name for command in COMMANDS.values() if command.kind is Kind.LOCAL}
    assert local == HANDLERS.keys() | listeners
    for family in (CLIENT, CLUSTER, COMMAND, CONFIG, RAFT):
        assert [sub.name for sub in COMMANDS[family.name].subcommands] == sorted(family.handlers)


def test_internal_commands_are_hidden(ask):
    assert not any(b"." in name for name in ask("COMMAND", "LIST"))
    assert ask("COMMAND", "INFO", "raft.digest") == ["null array"]


def test_info_tells_arity_flags_and_keys(ask):
    [get] = ask("COMMAND", "INFO", "GET")
    assert (get[0], get[1], get[3:6]) == (b"get", 2, [1, 1, 1])
    assert "+readonly" in get[2]
    assert "+@read" in get[6]
    [mset] = ask("COMMAND", "INFO", "mset")
    assert (mset[1], mset[3:6]) == (-3, [1, -1, 2])
    assert "+write" in mset[2]
    assert mset[8][0][b"find_keys"] == {
        b"type": b"range",
        b"spec": {b"lastkey": -1, b"keystep": 2, b"limit": 0},
    }


def test_info_of_a_subcommand_and_of_nothing(ask):
    entry, nothing, client = ask("COMMAND", "INFO", "client|setname", "nosuch", "client")
    assert entry[:2] == [b"client|setname", 3]
    assert nothing == "null array"
    assert entry in client[9]


def test_docs_have_a_summary(ask):
    docs = ask("COMMAND", "DOCS", "get", "nosuch", "client")
    assert list(docs) == [b"get", b"client"]
    assert docs[b"get"][b"summary"]
    assert b"client|id" in docs[b"client"][b"subcommands"]
    assert len(ask("COMMAND", "DOCS")) == ask("COMMAND", "COUNT")


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("GET a", [b"a"]),
        ("mset a 1 b 2", [b"a", b"b"]),
        ("DEL a b c", [b"a", b"b", b"c"]),
        ("SET a 1 NX", [b"a"]),
        ("FOO a", "-ERR Invalid command specified"),
        ("ECHO a", "-ERR The command has no key arguments"),
        ("GET a b", "-ERR Invalid number of arguments specified for command"),
        ("", "-ERR wrong number of arguments for 'command|getkeys' command"),
    ],
)
def test_getkeys_finds_the_keys_of_a_command(ask, words, keys):
    assert ask("COMMAND", "GETKEYS", *words.split()) == keys


def test_getkeysandflags_tells_how_they_are_used(ask):
    assert ask("COMMAND", "GETKEYSANDFLAGS", "SET", "a", "1") == [
        [b"a", ["+RW", "+access", "+update", "+variable_flags"]]
    ]
    assert ask("COMMAND", "GETKEYSANDFLAGS", "GET", "a") == [[b"a", ["+RO", "+access"]]]


def test_list_filters(ask):
    assert ask("COMMAND", "LIST", "FILTERBY", "PATTERN", "MS*") == [b"mset", b"msetnx"]
    assert b"get" in ask("COMMAND", "LIST", "filterby", "aclcat", "read")
    assert ask("COMMAND", "LIST", "FILTERBY", "ACLCAT", "nosuch") == []
    assert ask("COMMAND", "LIST", "FILTERBY", "MODULE", "x") == []
    assert ask("COMMAND", "LIST", "FILTERBY") == "-ERR syntax error"
    assert ask("COMMAND", "LIST", "FILTERBY", "FOO", "x") == "-ERR syntax error"


def test_a_short_question_for_a_huge_reply_is_refused(ask):
    names = ["client"] * (NAMES_MAX + 1)
    assert ask("COMMAND", "INFO", *names).startswith("-ERR too many command names")
    assert ask("COMMAND", "DOCS", *names).startswith("-ERR too many command names")


def test_an_unknown_subcommand_is_refused_in_redis_words(ask):
    assert ask("COMMAND", "FOO") == "-ERR unknown subcommand 'FOO'. Try COMMAND HELP."
    assert ask("COMMAND", "COUNT", "x") == "-ERR wrong number of arguments for 'command|count' command"
