"""WATCH: the versions of keys go into the log with the EXEC and are compared when it is applied (rule S7)."""

from __future__ import annotations

import pytest


def version(fed, key: str) -> bytes:
    [found] = fed.read(f"RAFT.VERSIONS {key}")
    return found


def execute(fed, key: str, seen: bytes):
    """Run a transaction that wants a key as it was seen."""
    [reply] = fed.batch([b"EXEC", b"1", key.encode(), seen], "SET done yes")
    return reply


def test_an_exec_runs_while_the_watched_keys_are_as_they_were(fed):
    fed.do("SET k 1")
    seen = version(fed, "k")
    fed.do("SET other 1")
    assert execute(fed, "k", seen) == ["+OK"]
    assert execute(fed, "absent", version(fed, "absent")) == ["+OK"]


@pytest.mark.parametrize(
    "command",
    ["SET k 1", "APPEND k x", "DEL k", "EXPIRE k 100", "RENAME k x", "FLUSHALL", "MSET k 1", "INCR k",
     "GETDEL k", "RENAME other k", "PEXPIREAT k 1", "SETRANGE k 0 x", "GETEX k EX 9", "EXEC 1"],
)  # fmt: skip
def test_an_exec_does_nothing_after_a_watched_key_has_changed(fed, command):
    fed.do("MSET k 1 other 2")
    seen = version(fed, "k")
    if command == "EXEC 1":
        fed.batch(command, "SET k 1")
    else:
        fed.do(command)
    assert execute(fed, "k", seen) == "null array"
    assert fed.read("EXISTS done") == 0


def test_a_change_in_the_same_entry_counts(fed):
    fed.do("SET k 1")
    seen = version(fed, "k")
    assert fed.batch("SET k 1", [b"EXEC", b"1", b"k", seen], "SET done yes") == ["+OK", "null array"]


def test_a_transaction_sees_its_watched_keys_before_its_own_changes(fed):
    fed.do("SET k 1")
    assert fed.batch([b"EXEC", b"1", b"k", version(fed, "k")], "SET k 2") == [["+OK"]]
    assert fed.batch([b"EXEC", b"0", b"k", version(fed, "k")]) == [[]]


def test_a_key_that_has_expired_has_changed(fed):
    fed.do("SET k 1 PX 500")  # the next entry comes a second later
    seen = version(fed, "k")
    assert execute(fed, "k", seen) == "null array"


def test_absent_set_and_absent_again_is_no_change(fed):
    """Documented: an absent key has version 0, whenever it was removed."""
    seen = version(fed, "k")
    fed.do("SET k 1")
    assert execute(fed, "k", seen) == "null array"
    fed.do("DEL k")
    assert execute(fed, "k", seen) == ["+OK"]


def test_reads_and_what_changes_nothing_don_t_count(fed):
    fed.do("SET k 1")
    seen = version(fed, "k")
    for command in (
        "GET k",
        "SET k 2 NX",
        "DEL absent",
        "PERSIST k",
        "GETEX k",
        "EXPIRE k 100 XX",
        "RENAMENX k k",
    ):
        fed.do(command)
    assert execute(fed, "k", seen) == ["+OK"]


@pytest.mark.parametrize("header", [[b"EXEC", b"1", b"k"], [b"EXEC"], [b"EXEC", b"x", b"k", b"0"]])
def test_a_malformed_header_runs_nothing(fed, header):
    assert fed.batch(header, "SET done yes") == ["-ERR malformed transaction"]
    assert fed.read("EXISTS done") == 0


def test_a_transaction_that_runs_once_compares_too_and_says_so_again(fed):
    fed.do("SET k 1")
    session = fed.do("SESSION OPEN nonce 100000")
    stale, seen = b"0", version(fed, "k")
    once = [[b"ONCE.EXEC", session, b"1", b"1", b"1", b"k", stale], b"APPEND done x".split()]
    assert fed.batch(*once) == ["null array"]
    assert fed.batch(*once) == ["null array"]
    again = [[b"ONCE.EXEC", session, b"2", b"1", b"1", b"k", seen], b"APPEND done x".split()]
    assert fed.batch(*again) == [[1]]
    fed.do("SET k 2")
    assert fed.batch(*again) == [[1]]
