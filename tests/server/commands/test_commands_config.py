"""CONFIG: what tools ask for, and that nothing can be set."""

from __future__ import annotations

import pytest

from balsadb.server.commands.config import GLOBS_MAX


def test_get_answers_by_name_in_any_case(ask):
    assert ask("CONFIG", "GET", "SAVE", "appendonly") == {b"appendonly": b"yes", b"save": b""}
    assert ask("CONFIG", "GET", "port", "bind") == {b"bind": b"10.0.0.1", b"port": b"7001"}


def test_get_answers_patterns(ask):
    assert ask("CONFIG", "GET", "maxmem*") == {b"maxmemory": b"0", b"maxmemory-policy": b"noeviction"}
    assert len(ask("CONFIG", "GET", "*")) > 8


def test_an_unknown_parameter_is_left_out(ask):
    assert ask("CONFIG", "GET", "no-such-thing", "a" * 100_000) == {}


def test_patterns_are_limited_and_names_are_not(ask):
    assert ask("CONFIG", "GET", *["*"] * (GLOBS_MAX + 1)).startswith("-ERR too many patterns")
    assert ask("CONFIG", "GET", *["save"] * 1000) == {b"save": b""}


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (
            "SET maxmemory 1",
            "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - can't set immutable config",
        ),
        ("SET foo bar", "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'"),
        ("SET save a port", "-ERR wrong number of arguments for 'config|set' command"),
        ("SET save", "-ERR wrong number of arguments for 'config|set' command"),
        ("GET", "-ERR wrong number of arguments for 'config|get' command"),
        ("REWRITE", "-ERR unknown subcommand 'REWRITE'. Try CONFIG HELP."),
    ],
)
def test_refusals_are_those_of_redis(ask, words, refusal):
    assert ask("CONFIG", *words.split()) == refusal


def test_resetstat_is_accepted(ask):
    assert ask("CONFIG", "RESETSTAT") == "+OK"
