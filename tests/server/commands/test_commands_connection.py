"""PING ECHO HELLO AUTH SELECT READONLY READWRITE TIME, in Redis' words."""

from __future__ import annotations

import timeit

import pytest

from balsadb.server.commands import run

NO_PASSWORD = (
    "-ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)


def test_ping_and_echo(ask):
    assert ask("PING") == "+PONG"
    assert ask("PiNg", "hello") == b"hello"
    assert ask("echo", b"\x00\r\n\xff") == b"\x00\r\n\xff"


@pytest.mark.parametrize(
    "words", ["PING a b", "ECHO", "ECHO a b", "TIME x", "SELECT", "READONLY x", "AUTH", "ROLE x"]
)
def test_a_wrong_number_of_arguments_is_refused(ask, words):
    name = words.split()[0].lower()
    assert ask(*words.split()) == f"-ERR wrong number of arguments for '{name}' command"


def test_time_is_seconds_and_microseconds(ask):
    assert ask("TIME") == [b"1700000123", b"456789"]


def test_there_is_one_database(ask):
    assert ask("SELECT", "0") == "+OK"
    assert ask("SELECT", "1") == "-ERR DB index is out of range"
    assert ask("SELECT", "-1") == "-ERR DB index is out of range"
    assert ask("SELECT", "x") == "-ERR value is not an integer or out of range"


def test_readonly_and_readwrite_switch_the_connection(ask, client):
    assert ask("READONLY") == "+OK"
    assert client.readonly
    assert ask("READWRITE") == "+OK"
    assert not client.readonly


def test_hello_greets_and_switches_the_protocol(ask, client):
    greeting = ask("HELLO", "3")
    assert greeting == {
        b"server": b"redis",
        b"version": b"7.2.4",
        b"proto": 3,
        b"id": 5,
        b"mode": b"standalone",
        b"role": b"replica",
        b"modules": [],
    }
    assert client.resp3
    assert ask("HELLO")[b"proto"] == 3
    assert ask("HELLO", "2")[b"proto"] == 2
    assert not client.resp3


def test_hello_tells_the_leader_as_master(ask, node):
    node.becomes(leader=1, role="leader")
    assert ask("HELLO")[b"role"] == b"master"


def test_hello_may_set_the_name(ask, client):
    ask("HELLO", "3", "SETNAME", "worker-1")
    assert client.name == b"worker-1"


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ("4", "-NOPROTO unsupported protocol version"),
        ("0", "-NOPROTO unsupported protocol version"),
        ("x", "-ERR Protocol version is not an integer or out of range"),
        ("3 FOO", "-ERR Syntax error in HELLO option 'FOO'"),
        ("3 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'"),
        ("3 AUTH a", "-ERR Syntax error in HELLO option 'AUTH'"),
        ("3 AUTH default secret", NO_PASSWORD),
        ("3 SETNAME x AUTH joe secret", "-WRONGPASS invalid username-password pair or user is disabled."),
    ],
)
def test_a_refused_hello_changes_nothing(ask, client, words, refusal):
    assert ask("HELLO", *words.split()) == refusal
    assert not client.resp3
    assert client.name == b""


def test_without_passwords_every_login_is_refused(ask):
    assert ask("AUTH", "secret") == NO_PASSWORD
    assert ask("AUTH", "default", "secret") == NO_PASSWORD
    assert ask("AUTH", "joe", "secret").startswith("-WRONGPASS ")
    assert ask("AUTH", "a", "b", "c") == "-ERR syntax error"


def test_a_command_of_somebody_else_is_unknown_here(ask):
    assert ask("GET", "a") == "-ERR unknown command 'GET', with args beginning with: 'a' "
    assert ask("b\r\n-ERR x").startswith("-ERR unknown command 'b  -ERR x', with args")


@pytest.mark.slow
def test_ping_costs_next_to_nothing(client, node):
    argv = [b"PING"]
    seconds = min(timeit.repeat(lambda: run(client, node, argv), number=20_000, repeat=5))
    assert seconds / 20_000 < 5e-6  # 0.3 us on a quiet machine; the bound only catches a slip
