"""CLIENT: names, library information and the list of connections."""

from __future__ import annotations

import pytest
from redis._parsers.helpers import parse_client_info

from balsadb.kv.table import COMMANDS
from balsadb.server.commands import ClientState


def test_names_are_set_shown_and_taken_away(ask, client):
    assert ask("CLIENT", "GETNAME") is None
    assert ask("CLIENT", "SETNAME", "worker-1") == "+OK"
    assert ask("CLIENT", "GETNAME") == b"worker-1"
    assert ask("CLIENT", "SETNAME", "") == "+OK"
    assert ask("CLIENT", "GETNAME") is None


@pytest.mark.parametrize("name", ["a b", "a\n", "é", "\x00", "a" * 2000])
def test_a_name_that_would_break_the_list_is_refused(ask, client, name):
    refusal = "-ERR Client names cannot contain spaces, newlines or special characters."
    assert ask("CLIENT", "SETNAME", name) == refusal
    assert ask("HELLO", "3", "SETNAME", name) == refusal
    assert client.name == b""


def test_library_information_is_kept(ask, client):
    assert ask("CLIENT", "SETINFO", "lib-name", "redis-py") == "+OK"
    assert ask("CLIENT", "SETINFO", "LIB-VER", "8.1") == "+OK"
    assert (client.lib_name, client.lib_version) == (b"redis-py", b"8.1")
    assert ask("CLIENT", "SETINFO", "LIB-FOO", "x") == "-ERR Unrecognized option 'LIB-FOO'"
    refusal = "-ERR lib-ver cannot contain spaces, newlines or special characters."
    assert ask("CLIENT", "SETINFO", "LIB-VER", "8 1") == refusal


def test_the_id_is_that_of_the_connection(ask):
    assert ask("CLIENT", "ID") == 5


def test_info_describes_the_connection_as_redis_does(ask, client):
    client.last_command = b"CLIENT"
    client.last_command_ms = 1_700_000_120_000
    ask("CLIENT", "SETNAME", "me")
    ask("READONLY")
    info = parse_client_info(ask("CLIENT", "INFO"))
    assert info["id"] == 5
    assert info["addr"] == "10.9.9.9:1234"
    assert info["laddr"] == "10.0.0.1:7001"
    assert (info["age"], info["idle"]) == (23, 3)
    assert (info["name"], info["cmd"], info["flags"], info["resp"]) == ("me", "client", "r", "2")


def test_list_has_a_line_for_each_connection_and_filters(ask, node):
    node.connections.append(ClientState(9, "10.9.9.9:99"))
    lines = ask("CLIENT", "LIST").decode().splitlines()
    assert [parse_client_info(line)["id"] for line in lines] == [5, 9]
    assert ask("CLIENT", "LIST", "ID", "9", "77").startswith(b"id=9 ")
    assert ask("CLIENT", "LIST", "TYPE", "normal").count(b"\n") == 2
    assert ask("CLIENT", "LIST", "TYPE", "pubsub") == b""


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ("LIST ID", "-ERR syntax error"),
        ("LIST ID x", "-ERR Invalid client ID"),
        ("LIST ID 0", "-ERR Invalid client ID"),
        ("LIST TYPE odd", "-ERR Unknown client type 'odd'"),
        ("LIST FOO", "-ERR syntax error"),
        ("NO-EVICT maybe", "-ERR syntax error"),
        ("NO-TOUCH maybe", "-ERR syntax error"),
        ("REPLY maybe", "-ERR syntax error"),
        ("REPLY OFF", "-ERR CLIENT REPLY OFF is not supported"),
        ("FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
        ("ID x", "-ERR wrong number of arguments for 'client|id' command"),
        ("SETNAME", "-ERR wrong number of arguments for 'client|setname' command"),
        ("", "-ERR wrong number of arguments for 'client' command"),
    ],
)
def test_refusals_are_those_of_redis(ask, words, refusal):
    assert ask("CLIENT", *words.split()) == refusal


def test_switches_without_effect_are_remembered(ask, client):
    assert ask("CLIENT", "NO-EVICT", "on") == "+OK"
    assert ask("CLIENT", "NO-TOUCH", "on") == "+OK"
    assert ask("CLIENT", "REPLY", "on") == "+OK"
    assert (client.no_evict, client.no_touch) == (True, True)
    assert b" flags=eT " in ask("CLIENT", "INFO")


def test_what_a_client_called_does_not_break_the_line(ask, client):
    client.last_command = b"x y\nid=1"
    assert ask("CLIENT", "LIST").count(b"\n") == 1


def test_reset_forgets_what_commands_have_set(ask, client):
    ask("HELLO", "3", "SETNAME", "me")
    ask("READONLY")
    client.reset()
    assert (client.resp3, client.readonly, client.name, client.id) == (False, False, b"", 5)


@pytest.mark.parametrize("family", ["CLIENT", "CLUSTER", "COMMAND", "CONFIG", "RAFT"])
def test_help_names_every_subcommand(ask, family):
    lines = ask(family, "HELP")
    assert lines[0] == f"+{family} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    assert lines[1::2] == [
        "+" + subcommand.name.decode() for subcommand in COMMANDS[family.encode()].subcommands
    ]
    assert all(line.startswith("+    ") for line in lines[2::2])
